//! Bytes that processes share: they arrive without a copy, by every way that an end travels, and nobody can change them.

use std::fs::File;
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use crate::support::{
    self, Inventory, Is, Kernel, Trial, bytes, closed_standard_descriptors, descriptor_flags, exit_code,
    limit_descriptors, refused,
};
use ipc::{Blob, BlobWriter, Command, Error, datagram_pair, fork, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_blob_has_its_bytes,
        a_writer_takes_pieces,
        a_clone_takes_no_descriptor,
        a_blob_that_is_dropped_is_mapped_no_longer,
        a_blob_is_no_program,
        nobody_can_change_a_blob,
        a_blob_that_can_still_be_written_is_not_made,
        memory_that_is_busy_for_a_while_becomes_a_blob_later needs [STRACE],
        a_blob_reaches_a_child_by_every_way,
        a_blob_goes_to_another_program,
        a_blob_outlives_its_maker,
        only_what_is_sealed_becomes_a_blob,
        what_has_holes_becomes_no_blob,
        huge_pages_become_no_blob needs [HugeMemory],
        what_is_refused_is_given_back_as_it_was,
        the_position_that_others_read_at_is_left_alone,
        without_proc_the_position_is_put_back,
        another_file_in_the_place_of_proc_hides_no_holes needs [OwnMounts],
        a_descriptor_comes_back_alone_or_as_a_copy,
        a_full_table_is_an_error,
        standard_descriptors_stay_free,
        the_same_without_noexec_seals,
        a_file_that_grows_no_further_is_an_error_and_no_signal,
    ]
}

fn a_blob_has_its_bytes() {
    for len in [0, 1, 4095, 4096, 4097, 3 << 20] {
        let blob = Blob::new(&bytes(len)).unwrap();
        assert!(*blob == bytes(len), "{len}");
        assert_eq!(blob.as_ref().len(), len);
        // And for who reads it as a file.
        let mut read = Vec::new();
        File::from(blob.clone().into_fd().unwrap()).read_to_end(&mut read).unwrap();
        assert!(read == bytes(len), "{len}");
        assert!(format!("{blob:?}").contains(&format!("len: {len}")));
    }
    assert_eq!(open_ends(), 0);
}

fn a_writer_takes_pieces() {
    let mut writer = BlobWriter::new().unwrap();
    let mut expected = Vec::new();
    for len in [0, 1, 5000, 70_000] {
        writer.write_all(&bytes(len)).unwrap();
        expected.extend(bytes(len));
    }
    let mut many: Vec<_> = (0..2000).map(|_| IoSlice::new(b"")).collect();
    assert_eq!(writer.write_vectored(&many).unwrap(), 0);
    many.extend((0..2000).map(|_| IoSlice::new(b"xy")));
    assert_eq!(writer.write_vectored(&many).unwrap(), 2048);
    expected.extend(b"xy".repeat(1024));
    writer.flush().unwrap();
    assert!(*writer.finish().unwrap() == expected);
    // One that is not finished leaves nothing: the trial looks.
    BlobWriter::new().unwrap().write_all(b"gone").unwrap();
}

fn a_clone_takes_no_descriptor() {
    let blob = Blob::new(b"shared").unwrap();
    let before = Inventory::take();
    let clone = blob.clone();
    assert_eq!(before.compare(&Inventory::take()), None);
    assert_eq!(clone.as_ptr(), blob.as_ptr());
    assert_eq!(clone.as_fd().as_raw_fd(), blob.as_fd().as_raw_fd());
    drop(blob);
    assert_eq!(*clone, *b"shared");
    // Also from another thread.
    std::thread::spawn(move || assert_eq!(*clone, *b"shared")).join().unwrap();
}

fn a_blob_that_is_dropped_is_mapped_no_longer() {
    let is_mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("ipc-blob");
    let blob = Blob::new(b"mapped").unwrap();
    assert!(is_mapped());
    drop(blob);
    assert!(!is_mapped());
}

/// Memory that could be run would be a way to run what no file system has.
fn a_blob_is_no_program() {
    const MFD_NOEXEC_SEAL: u32 = 8;
    // SAFETY: a nul-terminated name; the descriptor is new, if there is one.
    let raw = unsafe { libc::memfd_create(c"memory".as_ptr(), libc::MFD_CLOEXEC | MFD_NOEXEC_SEAL) };
    if raw < 0 {
        return; // before Linux 6.3
    }
    // SAFETY: it was made above.
    drop(unsafe { OwnedFd::from_raw_fd(raw) });
    let file = File::from(Blob::new(b"#!/bin/sh").unwrap().into_fd().unwrap());
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap()) & 0o111, 0);
}

/// The errno of a call that fails.
fn errno(result: i64) -> i32 {
    assert_eq!(result, -1, "it is refused");
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn nobody_can_change_a_blob() {
    let blob = Blob::new(&bytes(10_000)).unwrap();
    let raw = blob.as_fd().as_raw_fd();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: an open descriptor, numbers, and one byte that is read.
    unsafe {
        assert_eq!(errno(libc::pwrite(raw, [1_u8].as_ptr().cast(), 1, 0) as i64), libc::EPERM);
        assert_eq!(errno(libc::ftruncate(raw, 0).into()), libc::EPERM);
        assert_eq!(errno(libc::ftruncate(raw, 20_000).into()), libc::EPERM);
        assert_eq!(errno(libc::fallocate(raw, punch, 0, 4096).into()), libc::EPERM);
        assert_eq!(errno(libc::fcntl(raw, libc::F_ADD_SEALS, libc::F_SEAL_WRITE).into()), libc::EPERM);
        let write = libc::mmap(null_mut(), 4096, libc::PROT_WRITE, libc::MAP_SHARED, raw, 0);
        assert_eq!(errno(write as i64), libc::EPERM);
    }
    assert!(*blob == bytes(10_000));
}

fn a_blob_that_can_still_be_written_is_not_made() {
    let mut writer = BlobWriter::new().unwrap();
    writer.write_all(&bytes(4096)).unwrap();
    // The newest descriptor is the writer's: nothing hands it out.
    let raw = Inventory::take().numbers().max().unwrap();
    // SAFETY: a new mapping of an open descriptor.
    let mapped = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, raw, 0) };
    assert_ne!(mapped, libc::MAP_FAILED);
    assert_eq!(refused(writer.finish()), ("fcntl", libc::EBUSY));
    // SAFETY: the mapping that was made above.
    unsafe { libc::munmap(mapped, 4096) };
}

/// The variable that makes this program make a blob.
pub const SEALS: &str = "BLOB_TEST_SEALS";

/// The program does this then.
pub fn make_one() {
    assert!(*Blob::new(&bytes(10_000)).unwrap() == bytes(10_000));
}

fn memory_that_is_busy_for_a_while_becomes_a_blob_later() {
    let mut calls = support::sealing_under_strace(SEALS, "1", "inject=fcntl:error=EBUSY:when=1..3");
    calls.retain(|line| line.contains("F_ADD_SEALS"));
    assert!(calls.len() > 1 && calls[0].contains("EBUSY") && calls.last().unwrap().ends_with("= 0"), "{calls:?}");
}

fn a_blob_reaches_a_child_by_every_way() {
    let blob = Blob::new(&bytes(100_000)).unwrap();
    // Captured, and given or not: a fork does not sever it.
    let child = fork((), |()| assert!(*blob == bytes(100_000) && blob.clone().into_fd().is_ok())).unwrap();
    assert_eq!(exit_code(&child), 0);
    let child = fork(&blob, |blob| assert!(**blob == bytes(100_000))).unwrap();
    assert_eq!(exit_code(&child), 0);
    let child = fork(blob.clone(), |blob| assert!(*blob == bytes(100_000))).unwrap();
    assert_eq!(exit_code(&child), 0);
    // In a message, beside an end.
    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let child = fork(pair.child, |socket| {
        let mut received = socket.recv_with(&mut Vec::new()).unwrap().unwrap();
        let (blob, _writer): (Blob, ipc::PipeWriter) = (received.take().unwrap(), received.take().unwrap());
        assert!(*blob == bytes(100_000));
        assert_eq!(open_ends(), 2, "a blob is none");
    });
    pair.parent.send_with(b"both", (&blob, writer)).unwrap();
    assert_eq!(exit_code(&child.unwrap()), 0);
    drop(reader);
    // What is no blob stays where it is.
    let pair = datagram_pair().unwrap();
    pair.parent.send_with(b"", File::open("/dev/null").unwrap()).unwrap();
    let mut received = pair.child.recv_with(&mut Vec::new()).unwrap().unwrap();
    assert!(matches!(received.take::<Blob>(), Err(Error::WrongKind { found: "a character device", .. })));
    assert!(received.take::<File>().is_ok());
}

fn a_blob_goes_to_another_program() {
    let blob = Blob::new(&bytes(100_000)).unwrap();
    let me = std::env::current_exe().unwrap();
    assert!(Command::new(&me).args(["worker", "blob"]).give("blob", blob.clone()).status().unwrap().success());
    let output = Command::new("cat").give_path(blob).output().unwrap();
    assert!(output.stdout == bytes(100_000));
}

fn a_blob_outlives_its_maker() {
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| {
        socket.send_with(b"", Blob::new(&bytes(50_000)).unwrap()).unwrap();
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    let blob: Blob = pair.parent.recv_with(&mut Vec::new()).unwrap().unwrap().take().unwrap();
    assert!(*blob == bytes(50_000));
}

/// Memory with contents and these seals.
fn memory(len: usize, seals: i32) -> OwnedFd {
    // SAFETY: a nul-terminated name; the descriptor is new.
    let mut file = unsafe {
        let raw = libc::memfd_create(c"memory".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(raw >= 0, "{}", std::io::Error::last_os_error());
        File::from_raw_fd(raw)
    };
    file.write_all(&bytes(len)).unwrap();
    add_seals(file.as_fd(), seals);
    file.into()
}

fn add_seals(fd: BorrowedFd<'_>, seals: i32) {
    // SAFETY: an open descriptor and a number.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
}

const ALL: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;

#[track_caller]
fn assert_found(fd: impl Into<OwnedFd>, expected: &str) {
    match Blob::try_from(fd.into()) {
        Err(refused) => match refused.error {
            Error::WrongKind { found, .. } => assert_eq!(found, expected),
            error => panic!("{error:?}"),
        },
        Ok(blob) => panic!("{blob:?}"),
    }
}

fn only_what_is_sealed_becomes_a_blob() {
    for seals in 0..16 {
        if seals & ALL != ALL {
            assert_found(memory(5000, seals), "memory that can still be changed");
        }
    }
    assert_found(memory(5000, ALL & !libc::F_SEAL_WRITE | 0x10), "memory that can still be changed"); // FUTURE_WRITE
    assert!(*Blob::try_from(memory(5000, ALL)).unwrap() == bytes(5000));
    assert!(Blob::try_from(memory(0, ALL)).unwrap().is_empty());

    assert_found(support::disk_file(), "a file");
    assert_found(File::open("/").unwrap(), "a directory");
    let (reader, writer) = pipe().unwrap();
    assert_found(reader, "the reading end of a pipe");
    assert_found(writer, "the writing end of a pipe");
    assert_found(ipc::stream_pair().unwrap().parent, "a socket");

    let sealed = memory(100, ALL);
    let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    // To open it for writing is allowed, though nothing can be written.
    assert_found(File::options().write(true).open(&path).unwrap(), "a descriptor that cannot be read");
    assert!(*Blob::try_from(OwnedFd::from(File::open(&path).unwrap())).unwrap() == bytes(100));
    use std::os::unix::fs::OpenOptionsExt;
    let inert = File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    assert_found(inert, "a descriptor that is not open for anything (O_PATH)");
}

fn what_has_holes_becomes_no_blob() {
    for (len, written) in [(1 << 40, 0..0), (12_288, 4096..12_288), (12_288, 0..4096), (12_288, 0..8192)] {
        let file = File::from(memory(0, 0));
        file.set_len(len).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes((written.end - written.start) as usize), written.start)
            .unwrap();
        add_seals(file.as_fd(), ALL);
        assert_found(file, "memory with holes");
    }
}

fn huge_pages_become_no_blob() {
    let file = File::from(support::huge_memory().unwrap());
    file.set_len(std::os::unix::fs::MetadataExt::blksize(&file.metadata().unwrap())).unwrap(); // one page
    add_seals(file.as_fd(), ALL);
    assert_found(file, "a file");
}

fn what_is_refused_is_given_back_as_it_was() {
    let mut file = File::from(memory(5000, 0));
    file.seek(SeekFrom::Start(77)).unwrap();
    // SAFETY: an open descriptor and a number.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let raw = file.as_raw_fd();
    let refused = Blob::try_from(OwnedFd::from(file)).unwrap_err();
    assert_eq!(refused.fd.as_raw_fd(), raw);
    assert_eq!(descriptor_flags(&refused.fd), 0);
    // Also if holes are the reason, for which it is looked at last.
    let holes = File::from(memory(0, 0));
    holes.set_len(5000).unwrap();
    add_seals(holes.as_fd(), ALL);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::fcntl(holes.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    assert_eq!(descriptor_flags(&Blob::try_from(OwnedFd::from(holes)).unwrap_err().fd), 0);
    add_seals(refused.fd.as_fd(), ALL);
    let blob = Blob::try_from(refused.fd).unwrap();
    assert_eq!(blob.as_fd().as_raw_fd(), raw, "it keeps its number");
    let mut file = File::from(blob.into_fd().unwrap());
    assert_eq!(file.stream_position().unwrap(), 77);
    assert_eq!(descriptor_flags(&file), libc::FD_CLOEXEC);
}

/// A receiver that looks whether there are holes must not move what another process reads at.
fn the_position_that_others_read_at_is_left_alone() {
    let fd = memory(5000, ALL);
    let mut file = File::from(fd.try_clone().unwrap());
    file.seek(SeekFrom::Start(77)).unwrap();
    // The position is not moved even for a moment: nothing may seek on this number.
    let child = fork((), |()| {
        let seek_on_it = Is::Equal(fd.as_raw_fd() as u32);
        Kernel::new().with(libc::SYS_lseek, 0, seek_on_it, libc::ESPIPE).play();
        let blob = Blob::try_from(fd).unwrap();
        assert!(*blob == bytes(5000));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    assert_eq!(file.stream_position().unwrap(), 77);
}

fn another_file_in_the_place_of_proc_hides_no_holes() {
    let child = fork((), |()| {
        let holes = File::from(memory(0, 0));
        holes.set_len(5000).unwrap();
        add_seals(holes.as_fd(), ALL);
        let _hidden = support::WithoutProc::new().unwrap();
        std::fs::create_dir_all("/proc/self/fd").unwrap();
        std::fs::write(format!("/proc/self/fd/{}", holes.as_raw_fd()), bytes(5000)).unwrap();
        assert_found(holes, "memory with holes");
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn without_proc_the_position_is_put_back() {
    let child = fork((), |()| {
        let kernel = Kernel::new().without(libc::SYS_openat, libc::ENOENT);
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let kernel = kernel.without(libc::SYS_open, libc::ENOENT);
        kernel.play();
        let fd = memory(5000, ALL);
        let mut file = File::from(fd.try_clone().unwrap());
        file.seek(SeekFrom::Start(77)).unwrap();
        assert!(*Blob::try_from(fd).unwrap() == bytes(5000));
        assert_eq!(file.stream_position().unwrap(), 77);
        let holes = File::from(memory(0, 0));
        holes.set_len(1 << 20).unwrap();
        add_seals(holes.as_fd(), ALL);
        assert_found(holes, "memory with holes");
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_descriptor_comes_back_alone_or_as_a_copy() {
    let blob = Blob::new(b"one").unwrap();
    let raw = blob.as_fd().as_raw_fd();
    let clone = blob.clone();
    let copy = blob.into_fd().unwrap();
    assert_ne!(copy.as_raw_fd(), raw);
    assert_eq!(descriptor_flags(&copy), libc::FD_CLOEXEC);
    let full = limit_descriptors(0);
    assert_eq!(refused(clone.clone().into_fd()), ("fcntl", libc::EMFILE));
    drop(full);
    assert_eq!(clone.into_fd().unwrap().as_raw_fd(), raw);
    assert_eq!(*Blob::try_from(copy).unwrap(), *b"one");
}

fn a_full_table_is_an_error() {
    let _full = limit_descriptors(0);
    assert_eq!(refused(Blob::new(b"")), ("memfd_create", libc::EMFILE));
}

fn standard_descriptors_stay_free() {
    let raw = closed_standard_descriptors(|| Blob::new(b"").unwrap().as_fd().as_raw_fd());
    assert!(raw > 2);
}

fn the_same_without_noexec_seals() {
    const MFD_NOEXEC_SEAL: u32 = 8;
    Kernel::new().with(libc::SYS_memfd_create, 1, Is::AnyOf(MFD_NOEXEC_SEAL), libc::EINVAL).play();
    let blob = Blob::new(&bytes(5000)).unwrap();
    assert!(*blob == bytes(5000));
    assert_eq!(support::descriptor_flags(&blob) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    assert!(*Blob::try_from(blob.into_fd().unwrap()).unwrap() == bytes(5000));
}

#[track_caller]
fn assert_too_large<T>(result: Result<T, impl Into<std::io::Error>>) {
    let error: std::io::Error = result.err().expect("an error").into();
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge, "{error:?}");
}

fn a_file_that_grows_no_further_is_an_error_and_no_signal() {
    support::limit(libc::RLIMIT_FSIZE, |_| 4096);
    assert_too_large(Blob::new(&bytes(5000)));
    let mut writer = BlobWriter::new().unwrap();
    assert_eq!(writer.write(&bytes(5000)).unwrap(), 4096);
    assert_too_large(writer.write(b"x"));
    assert_too_large(writer.write_vectored(&[IoSlice::new(b"x")]));
    assert_eq!(writer.write(b"").unwrap(), 0);
    assert!(*writer.finish().unwrap() == bytes(5000)[..4096]);
    let mut writer = BlobWriter::new().unwrap();
    assert_eq!(writer.write(&bytes(4095)).unwrap(), 4095);
    assert_eq!(writer.write(b"x").unwrap(), 1, "it may be just as long");
    assert_eq!(writer.finish().unwrap().len(), 4096);
    assert_too_large(ipc::RingWriter::new(ipc::stream_pair().unwrap().parent));
}
