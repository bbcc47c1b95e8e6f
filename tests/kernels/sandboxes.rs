//! What stands in where a sandbox or an older kernel refuses a call, and what is an error then (docs/platforms.md).

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use crate::support::{self, Gate, Is, Kernel, Trial, exit_code, is_root, own_mounts, read_all, refuse_calls, refused};
use ipc::{
    Blob, Command, Error, ForkServer, PipeReader, PipeWriter, ProcessMap, Received, RingReader, RingWriter, Side,
    claim, claimable, fork, holders, pipe, stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        threads_are_counted_without_unshare,
        ends_are_severed_without_open_tree,
        programs_start_without_open_tree,
        without_pidfds_nothing_is_left_running,
        in_dockers_default_profile_everything_works,
        without_sock_diag_the_other_side_is_unknown,
        holders_are_found_without_statx,
        without_proc_it_is_an_error_and_no_lie needs [OwnMounts],
        without_proc_and_unshare_nothing_is_forked needs [OwnMounts],
        a_file_system_that_does_not_answer_holds_nobody_up needs [OwnMounts, Fuse],
    ]
}

fn fork_works() {
    let (reader, writer) = pipe().unwrap();
    let (_other, secret) = pipe().unwrap();
    let child = fork(writer, |writer| {
        assert!(matches!(secret.try_write(b"x"), Err(Error::NotGiven)));
        writer.write_atomic(b"given").unwrap();
    })
    .unwrap();
    assert_eq!(read_all(reader), b"given");
    assert_eq!(exit_code(&child), 0);
}

fn a_thread_is_seen() {
    let (stop, stopped) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let refused = fork((), |()| ()).unwrap_err();
    assert!(matches!(refused.error, Error::MultiThreaded { threads: 2 }), "{refused:?}");
    drop(stop);
    thread.join().unwrap().unwrap_err();
}

fn threads_are_counted_without_unshare() {
    refuse_calls(&[libc::SYS_unshare], libc::EPERM);
    fork_works();
    a_thread_is_seen();
    fork_works();
}

fn ends_are_severed_without_open_tree() {
    refuse_calls(&[libc::SYS_open_tree], libc::ENOSYS);
    let (reader, writer) = pipe().unwrap();
    let gate = Gate::new();
    let number = writer.as_raw_fd();
    let child = fork((), |()| {
        gate.pass();
        assert!(matches!(writer.try_write(b"x"), Err(Error::NotGiven)));
        assert!(matches!(writer.try_clone(), Err(Error::NotGiven)));
        let link = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert_eq!(link, Path::new("/dev/null"), "what stands in");
        // And leads nowhere.
        assert!((&std::fs::File::from(writer.as_fd().try_clone_to_owned().unwrap())).write(b"x").is_err());
    })
    .unwrap();
    drop(writer);
    assert_eq!(read_all(reader), b"", "the end arrives while the child runs");
    gate.open();
    assert_eq!(exit_code(&child), 0);
    fork_works();
}

fn programs_start_without_open_tree() {
    refuse_calls(&[libc::SYS_open_tree], libc::EPERM);
    let (reader, writer) = pipe().unwrap();
    let child = Command::new("sh").args(["-c", "echo hello >&3"]).give_at(3, writer).spawn().unwrap();
    assert_eq!(read_all(reader), b"hello\n");
    assert_eq!(exit_code(&child), 0);
}

/// What Docker's default profile refuses a process without privileges, as far as anybody here could ask for it.
fn dockers_profile() -> Kernel {
    const NAMESPACES: u32 = 0x7e02_0000;
    let refused = [
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_kcmp,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_open_by_handle_at,
        libc::SYS_userfaultfd,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_keyctl,
        libc::SYS_move_pages,
        libc::SYS_io_uring_setup,
    ];
    let kernel = Kernel::new().with(libc::SYS_clone, 0, Is::AnyOf(NAMESPACES), libc::EPERM);
    let kernel = kernel.without(libc::SYS_clone3, libc::ENOSYS);
    refused.iter().fold(kernel, |kernel, call| kernel.without(*call, libc::EPERM))
}

fn in_dockers_default_profile_everything_works() {
    dockers_profile().play();
    fork_works();
    a_thread_is_seen();
    let server = ForkServer::start(|message, mut ends: Received| -> ipc::Result<()> {
        ends.take::<PipeWriter>()?.write_atomic(&message)
    })
    .unwrap();
    let (reader, writer) = pipe().unwrap();
    let child = server.fork(b"ordered", writer).unwrap();
    assert_eq!(read_all(reader), b"ordered");
    assert_eq!(exit_code(&child), 0);
    drop(server);

    let (reader, writer) = pipe().unwrap();
    let child = Command::new("sh").args(["-c", "echo hello"]).stdout(writer).spawn().unwrap();
    let found = holders(&reader).unwrap();
    assert!(found.unseen == 0 || !is_root(), "{found}");
    assert!(found.list.iter().any(|holder| holder.is_self), "{found}");
    assert_eq!(read_all(reader), b"hello\n");
    assert_eq!(exit_code(&child), 0);

    let pair = stream_pair().unwrap();
    let child = fork(pair.child, |socket| {
        let mut ring = RingWriter::new(socket).unwrap();
        ring.write_all(&[7; 1 << 20]).unwrap();
    })
    .unwrap();
    let mut received = Vec::new();
    RingReader::new(pair.parent).unwrap().read_to_end(&mut received).unwrap();
    assert!(received == [7; 1 << 20]);
    assert_eq!(exit_code(&child), 0);

    let blob = Blob::new(b"shared").unwrap();
    let child = fork(blob.clone(), |blob| assert_eq!(&blob[..], b"shared")).unwrap();
    assert_eq!(exit_code(&child), 0);

    let (reader, _writer) = pipe().unwrap();
    let map = ProcessMap::current().unwrap().to_string();
    assert!(map.contains(&std::process::id().to_string()), "{map}");
    assert!(map.contains(&format!("fd {}", reader.as_raw_fd())), "{map}");
}

/// Every kernel from 5.3 on has them. A sandbox that does not is an error: nothing runs that could not be waited for.
fn without_pidfds_nothing_is_left_running() {
    let kernel = Kernel::new().without(libc::SYS_pidfd_open, libc::ENOSYS);
    kernel.with(libc::SYS_clone, 0, Is::AnyOf(libc::CLONE_PIDFD as u32), libc::EINVAL).play();
    let (reader, writer) = pipe().unwrap();
    let refused = fork(writer, |_writer| {
        loop {
            std::thread::park();
        }
    })
    .unwrap_err();
    assert_eq!(support::refused::<()>(Err(refused.error)), ("pidfd_open", libc::ENOSYS));
    let refused = Command::new("sleep").arg("1000").stdout(refused.ends).spawn().unwrap_err();
    assert_eq!(support::refused::<()>(Err(refused.error)), ("pidfd_open", libc::ENOSYS));
    assert!(matches!(reader.try_read(&mut [0]), Err(Error::WouldBlock)), "given back both times");
    drop(refused.command);
    assert_eq!(read_all(reader), b"");
}

fn without_sock_diag_the_other_side_is_unknown() {
    let child = fork((), |()| {
        // Netlink is the one thing that needs it here.
        refuse_calls(&[libc::SYS_socket], libc::EAFNOSUPPORT);
        let bytes = stream_pair().unwrap();
        let found = holders(&bytes.parent).unwrap();
        assert!(found.peer_unknown);
        assert_eq!(found.list.iter().map(|holder| holder.side).collect::<Vec<_>>(), [Side::Own]);
        assert!(found.to_string().contains("the other side could not be found out"));
        let text = ProcessMap::current().unwrap().to_string();
        assert!(text.contains("? sockets are left out: the kernel did not say which are connected"), "{text}");
        assert!(!text.contains("pair"), "{text}");
        let (reader, _writer) = pipe().unwrap();
        assert_eq!(holders(&reader).unwrap().list.len(), 2, "pipes are no trouble");
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn holders_are_found_without_statx() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let child = fork((), |()| {
            refuse_calls(&[libc::SYS_statx], errno);
            let (reader, writer) = pipe().unwrap();
            let found = holders(&reader).unwrap();
            let numbers: Vec<_> = found.list.iter().map(|holder| holder.fd).collect();
            assert_eq!(numbers, [reader.as_raw_fd(), writer.as_raw_fd()]);
        })
        .unwrap();
        assert_eq!(exit_code(&child), 0);
    }
}

/// In a child, so that this process keeps what its own inventory is made of.
fn in_a_child_without_proc(body: impl FnOnce()) {
    let child = fork((), |()| {
        assert!(own_mounts());
        // SAFETY: a nul-terminated path.
        assert_eq!(unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) }, 0);
        body();
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn without_proc_it_is_an_error_and_no_lie() {
    in_a_child_without_proc(|| {
        let (reader, writer) = pipe().unwrap();
        assert_eq!(refused(holders(&reader)), ("readlink", libc::ENOENT));
        assert_eq!(refused(ProcessMap::current()), ("readlink", libc::ENOENT));
        assert_eq!(refused(ProcessMap::of(1)), ("readlink", libc::ENOENT));
        // The environment says it then, and nothing was given.
        assert!(matches!(claim::<PipeReader>("results"), Err(Error::NoSuchEnd { .. })));
        assert!(claimable().unwrap().is_empty());
        // The rest needs it not.
        a_thread_is_seen();
        fork_works();
        let child = Command::new("sh").args(["-c", "echo hello"]).stdout(writer).spawn().unwrap();
        assert_eq!(read_all(reader), b"hello\n");
        assert_eq!(exit_code(&child), 0);
    });
}

fn without_proc_and_unshare_nothing_is_forked() {
    in_a_child_without_proc(|| {
        refuse_calls(&[libc::SYS_unshare], libc::EPERM);
        let refused = fork((), |()| ()).unwrap_err();
        assert_eq!(support::refused::<()>(Err(refused.error)), ("unshare", libc::EPERM));
    });
}

/// A directory that is served by nobody: whoever asks for its size waits for ever.
fn dead_mount(at: &Path) -> (std::fs::File, std::fs::File) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;
    let server = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    let path = std::ffi::CString::new(at.as_os_str().as_bytes()).unwrap();
    // SAFETY: nul-terminated strings.
    let mounted = unsafe {
        libc::mount(
            c"dead".as_ptr(),
            path.as_ptr(),
            c"fuse".as_ptr(),
            libc::MS_NODEV | libc::MS_NOSUID,
            options.as_ptr().cast(),
        )
    };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    let inside = std::fs::File::options().read(true).custom_flags(libc::O_PATH).open(at).unwrap();
    (server, inside)
}

fn a_file_system_that_does_not_answer_holds_nobody_up() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("dead-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    // With the process, its mounts go.
    let child = fork((), |()| {
        assert!(own_mounts());
        let (_server, inside) = dead_mount(&folder);
        let (reader, _writer) = pipe().unwrap();
        assert_eq!(holders(&reader).unwrap().list.len(), 2);
        let text = ProcessMap::current().unwrap().to_string();
        assert!(text.contains("reads pipe"), "{text}");
        drop(inside);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
    std::fs::remove_dir(folder).unwrap();
}
