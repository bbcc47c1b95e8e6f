//! Pipe ends as descriptors: taken over, handed on, counted, close-on-exec, and never among the first three.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::support::{
    self, Trial, closed_standard_descriptors, descriptor_flags, exit_code, limit_descriptors, named_fifo, read_all,
    refused, status_flags,
};
use ipc::{Error, FromFdError, PipeFlags, PipeReader, PipeWriter, open_ends, pipe, pipe_with};

pub fn trials() -> Vec<Trial> {
    support::trials![
        every_end_is_close_on_exec,
        no_program_that_is_started_meanwhile_holds_an_end,
        ends_can_go_to_other_threads,
        open_ends_counts_each_end_once,
        a_clone_is_another_descriptor_of_the_same_pipe,
        a_full_table_refuses_a_pipe_and_a_clone,
        a_clone_fits_where_an_io_result_is_returned,
        an_inherited_stdin_becomes_an_end,
        closing_says_what_the_kernel_said,
        the_right_descriptor_becomes_an_end,
        a_fifo_with_a_name_becomes_an_end,
        the_wrong_way_round_is_refused,
        what_is_no_pipe_is_refused,
        a_fifo_that_is_open_both_ways_is_refused,
        a_descriptor_that_is_open_for_nothing_is_refused,
        a_refused_descriptor_comes_back_as_it_was,
        an_adopted_descriptor_becomes_close_on_exec,
        the_ends_of_std_convert_both_ways,
        raw_numbers_go_out_and_come_back,
        an_end_becomes_the_standard_stream_of_a_program,
        pipes_leave_the_first_three_numbers_free,
        a_table_with_only_the_first_three_free_refuses_a_pipe,
        an_end_may_be_adopted_on_the_first_three_numbers,
        debug_shows_the_kind_and_the_number,
        nonblock_is_set_when_asked_for_and_only_then,
    ]
}

#[track_caller]
fn assert_close_on_exec(end: impl AsFd) {
    assert_eq!(descriptor_flags(end), libc::FD_CLOEXEC);
}

/// Takes close-on-exec away.
fn inheritable(fd: impl Into<OwnedFd>) -> OwnedFd {
    let fd = fd.into();
    // SAFETY: an open descriptor and an integer.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    fd
}

fn same_pipe(one: impl AsFd, other: impl AsFd) -> bool {
    let target = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    target(one.as_fd()) == target(other.as_fd())
}

fn every_end_is_close_on_exec() {
    for flags in [PipeFlags::empty(), PipeFlags::NONBLOCK] {
        let (reader, writer) = pipe_with(flags).unwrap();
        assert_close_on_exec(reader.try_clone().unwrap());
        assert_close_on_exec(writer.try_clone().unwrap());
        assert_close_on_exec(OwnedFd::from(reader));
        assert_close_on_exec(OwnedFd::from(writer));
    }
}

fn no_program_that_is_started_meanwhile_holds_an_end() {
    let (reader, writer) = pipe().unwrap();
    let clone = writer.try_clone().unwrap();
    let started = Command::new("ls").arg("-l").arg("/proc/self/fd").stderr(Stdio::null()).output().unwrap();
    let listing = String::from_utf8(started.stdout).unwrap();
    assert!(started.status.success() && listing.contains("/proc/"), "{listing}");
    for number in [reader.as_raw_fd(), writer.as_raw_fd(), clone.as_raw_fd()] {
        let target = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert!(!listing.contains(target.to_str().unwrap()), "{listing}");
    }
}

fn ends_can_go_to_other_threads() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<PipeReader>();
    check::<PipeWriter>();
}

fn open_ends_counts_each_end_once() {
    let (reader, writer) = pipe().unwrap();
    assert_eq!(open_ends(), 2);
    let clone = writer.try_clone().unwrap();
    assert_eq!(open_ends(), 3);
    drop(writer);
    assert_eq!(open_ends(), 2);
    clone.close().unwrap();
    assert_eq!(open_ends(), 1);
    let fd = OwnedFd::from(reader);
    assert_eq!(open_ends(), 0, "a plain descriptor is no end");
    let reader = PipeReader::try_from(fd).unwrap();
    assert_eq!(open_ends(), 1);
    drop(io::PipeReader::from(reader));
    assert_eq!(open_ends(), 0);
}

fn a_clone_is_another_descriptor_of_the_same_pipe() {
    let (reader, writer) = pipe().unwrap();
    let (other_reader, mut other_writer) = (reader.try_clone().unwrap(), writer.try_clone().unwrap());
    assert_ne!(reader.as_raw_fd(), other_reader.as_raw_fd());
    assert!(same_pipe(&reader, &other_reader) && same_pipe(&writer, &other_writer));
    drop((reader, writer));
    other_writer.write_all(b"through clones").unwrap();
    drop(other_writer);
    assert_eq!(read_all(other_reader), b"through clones");
}

fn a_full_table_refuses_a_pipe_and_a_clone() {
    let (reader, writer) = pipe().unwrap();
    for free in [0, 1] {
        let _full = limit_descriptors(free);
        assert_eq!(refused(pipe()), ("pipe2", libc::EMFILE));
        assert_eq!(open_ends(), 2);
        if free == 0 {
            assert_eq!(refused(reader.try_clone()), ("fcntl", libc::EMFILE));
            assert_eq!(refused(writer.try_clone()), ("fcntl", libc::EMFILE));
        }
    }
    let _full = limit_descriptors(2);
    pipe().unwrap();
}

/// As the standard library's ends, which return an `io::Result` themselves.
fn a_clone_fits_where_an_io_result_is_returned() {
    fn cloned(writer: &PipeWriter) -> io::Result<PipeWriter> {
        Ok(writer.try_clone()?)
    }
    fn cloned_again(writer: &PipeWriter) -> ipc::Result<PipeWriter> {
        Ok(cloned(writer)?)
    }
    let (reader, writer) = pipe().unwrap();
    assert!(same_pipe(cloned_again(&writer).unwrap(), &writer));
    let full = limit_descriptors(0);
    assert_eq!(cloned(&writer).unwrap_err().raw_os_error(), Some(libc::EMFILE));
    drop(full);
    let child = ipc::fork((), |()| {
        let severed = cloned_again(&writer).unwrap_err();
        assert!(matches!(severed, Error::NotGiven), "{severed:?}");
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    drop(reader);
}

fn an_inherited_stdin_becomes_an_end() {
    /// Whoever takes it knows nothing of it but its number, and std's buffer stays empty.
    fn taken<T: TryFrom<OwnedFd>>() -> Result<T, T::Error> {
        T::try_from(io::stdin().as_fd().try_clone_to_owned().unwrap())
    }
    let with_stdin = |stdin: OwnedFd, body: fn()| {
        let child = ipc::fork(stdin, |stdin| {
            // SAFETY: two numbers, of which 0 is nobody else's in this child.
            assert_eq!(unsafe { libc::dup2(stdin.as_raw_fd(), 0) }, 0);
            drop(stdin);
            body();
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    };
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"said").unwrap();
    drop(writer);
    with_stdin(reader.into(), || {
        let reader: PipeReader = taken().unwrap();
        assert_close_on_exec(&reader);
        assert_eq!(read_all(reader), b"said");
    });
    let pair = ipc::stream_pair().unwrap();
    (&pair.parent).write_all(b"said").unwrap();
    drop(pair.parent);
    with_stdin(pair.child.into(), || {
        wrong_kind(taken::<PipeReader>().unwrap_err());
        assert_eq!(io::read_to_string(taken::<ipc::StreamSocket>().unwrap()).unwrap(), "said");
    });
    with_stdin(File::open("/dev/null").unwrap().into(), || {
        wrong_kind(taken::<PipeReader>().unwrap_err());
    });
}

fn closing_says_what_the_kernel_said() {
    let (reader, writer) = pipe().unwrap();
    // SAFETY: what somebody else's mistake would do. Nothing is opened before the end notices.
    unsafe { libc::close(writer.as_raw_fd()) };
    assert_eq!(refused(writer.close()), ("close", libc::EBADF));
    reader.close().unwrap();
    assert_eq!(open_ends(), 0);
}

fn the_right_descriptor_becomes_an_end() {
    let (reader, writer) = pipe().unwrap();
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    let number = writer.as_raw_fd();
    let mut writer = PipeWriter::try_from(writer).unwrap();
    assert_eq!(writer.as_raw_fd(), number, "it keeps its number");
    writer.write_all(b"as before").unwrap();
    drop(writer);
    assert_eq!(read_all(PipeReader::try_from(reader).unwrap()), b"as before");
}

fn a_fifo_with_a_name_becomes_an_end() {
    let (reader, writer) = named_fifo();
    let (reader, mut writer) = (PipeReader::try_from(reader).unwrap(), PipeWriter::try_from(writer).unwrap());
    writer.write_all(b"with a name").unwrap();
    assert_eq!(reader.available().unwrap(), 11);
    drop(writer);
    assert_eq!(read_all(reader), b"with a name");
}

/// That both kinds of end refuse the descriptor for what it is. It comes back.
#[track_caller]
fn assert_refused(fd: OwnedFd) -> OwnedFd {
    let by_reader = wrong_kind(PipeReader::try_from(fd).unwrap_err());
    wrong_kind(PipeWriter::try_from(by_reader).unwrap_err())
}

#[track_caller]
fn wrong_kind(refused: FromFdError) -> OwnedFd {
    match refused.error {
        Error::WrongKind { expected, found } => assert!(!expected.is_empty() && !found.is_empty() && expected != found),
        other => panic!("it is of the wrong kind, and not {other:?}"),
    }
    assert_eq!(open_ends(), 0, "it is no end");
    refused.fd
}

fn the_wrong_way_round_is_refused() {
    let (reader, writer) = io::pipe().unwrap();
    let refused = PipeWriter::try_from(OwnedFd::from(reader)).unwrap_err();
    let Error::WrongKind { expected: writing, found: reading } = refused.error else { panic!("{refused:?}") };
    let reader = refused.fd;
    let refused = PipeReader::try_from(OwnedFd::from(writer)).unwrap_err();
    let Error::WrongKind { expected, found } = refused.error else { panic!("{refused:?}") };
    assert_eq!((expected, found), (reading, writing), "each names the other");
    let mut writer = PipeWriter::try_from(refused.fd).unwrap();
    writer.write_all(b"the right way round").unwrap();
    drop(writer);
    assert_eq!(read_all(PipeReader::try_from(reader).unwrap()), b"the right way round");
}

fn what_is_no_pipe_is_refused() {
    let mut file = File::from(assert_refused(nameless_file().into()));
    file.write_all(b"still a file").unwrap();
    file.rewind().unwrap();
    assert_eq!(io::read_to_string(file).unwrap(), "still a file");

    let (socket, mut peer) = UnixStream::pair().unwrap();
    let mut socket = UnixStream::from(assert_refused(socket.into()));
    socket.write_all(b"!").unwrap();
    peer.read_exact(&mut [0]).unwrap();

    for path in ["/", "/dev/null", "/proc/self/status"] {
        assert_refused(File::open(path).unwrap().into());
    }
    // SAFETY: the descriptor is new.
    assert_refused(unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) });
}

/// A file without a name.
fn nameless_file() -> File {
    // SAFETY: a nul-terminated name; the descriptor is new.
    unsafe { File::from_raw_fd(libc::memfd_create(c"a file".as_ptr(), libc::MFD_CLOEXEC)) }
}

/// The pipe behind an end, opened again in another way.
fn opened_again(end: impl AsFd, options: &mut OpenOptions) -> OwnedFd {
    options.open(format!("/proc/self/fd/{}", end.as_fd().as_raw_fd())).unwrap().into()
}

fn a_fifo_that_is_open_both_ways_is_refused() {
    let (reader, writer) = io::pipe().unwrap();
    let both = assert_refused(opened_again(&reader, OpenOptions::new().read(true).write(true)));
    File::from(both).write_all(b"both ways").unwrap();
    drop(writer);
    assert_eq!(io::read_to_string(reader).unwrap(), "both ways");
}

fn a_descriptor_that_is_open_for_nothing_is_refused() {
    let (reader, writer) = io::pipe().unwrap();
    assert_refused(opened_again(&reader, OpenOptions::new().read(true).custom_flags(libc::O_PATH)));
    assert_refused(opened_again(&writer, OpenOptions::new().write(true).custom_flags(libc::O_PATH)));
}

fn a_refused_descriptor_comes_back_as_it_was() {
    let fd = inheritable(File::open("/dev/null").unwrap());
    let number = fd.as_raw_fd();
    let fd = assert_refused(fd);
    assert_eq!((fd.as_raw_fd(), descriptor_flags(&fd)), (number, 0));
}

fn an_adopted_descriptor_becomes_close_on_exec() {
    let (reader, writer) = io::pipe().unwrap();
    let reader = PipeReader::try_from(inheritable(reader)).unwrap();
    let writer = PipeWriter::try_from(inheritable(writer)).unwrap();
    assert_close_on_exec(&reader);
    assert_close_on_exec(&writer);

    let reader = PipeReader::from(io::PipeReader::from(inheritable(reader)));
    let writer = PipeWriter::from(io::PipeWriter::from(inheritable(writer)));
    assert_close_on_exec(&reader);
    assert_close_on_exec(&writer);

    let raw = inheritable(reader).into_raw_fd();
    // SAFETY: it was given up in the line before.
    assert_close_on_exec(unsafe { PipeReader::from_raw_fd(raw) });
}

fn the_ends_of_std_convert_both_ways() {
    let (reader, writer) = io::pipe().unwrap();
    let mut writer = PipeWriter::from(writer);
    writer.write_all(b"ours, ").unwrap();
    let mut writer = io::PipeWriter::from(writer);
    writer.write_all(b"theirs").unwrap();
    assert_close_on_exec(&writer);
    drop(writer);
    let mut reader = PipeReader::from(reader);
    let mut text = [0; 6];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"ours, ");
    assert_eq!(io::read_to_string(io::PipeReader::from(reader)).unwrap(), "theirs");
}

fn raw_numbers_go_out_and_come_back() {
    let (reader, writer) = pipe().unwrap();
    let (read_number, write_number) = (reader.as_raw_fd(), writer.as_raw_fd());
    let (raw_reader, raw_writer) = (reader.into_raw_fd(), writer.into_raw_fd());
    assert_eq!((raw_reader, raw_writer), (read_number, write_number));
    assert_eq!(open_ends(), 0);
    // SAFETY: both were given up above, and are open.
    let (reader, mut writer) = unsafe { (PipeReader::from_raw_fd(raw_reader), PipeWriter::from_raw_fd(raw_writer)) };
    assert_eq!(open_ends(), 2);
    writer.write_all(b"as numbers").unwrap();
    drop(writer);
    assert_eq!(read_all(reader), b"as numbers");
}

fn an_end_becomes_the_standard_stream_of_a_program() {
    let (input, mut to_cat) = pipe().unwrap();
    let (from_cat, output) = pipe().unwrap();
    let (errors, stderr) = pipe().unwrap();
    let mut cat =
        Command::new("cat").arg("-").arg("/nonexistent").stdin(input).stdout(output).stderr(stderr).spawn().unwrap();
    to_cat.write_all(b"through a program").unwrap();
    drop(to_cat);
    assert_eq!(read_all(from_cat), b"through a program");
    assert!(!read_all(errors).is_empty());
    assert!(!cat.wait().unwrap().success());
}

fn pipes_leave_the_first_three_numbers_free() {
    closed_standard_descriptors(|| {
        let (reader, mut writer) = pipe().unwrap();
        let clone = writer.try_clone().unwrap();
        for number in [reader.as_raw_fd(), writer.as_raw_fd(), clone.as_raw_fd()] {
            assert!(number > 2, "{number}");
        }
        for number in 0..=2 {
            // SAFETY: a number that may be closed.
            assert_eq!(unsafe { libc::fcntl(number, libc::F_GETFD) }, -1, "{number} is free");
        }
        assert_close_on_exec(&reader);
        assert_close_on_exec(&writer);
        println!("this goes nowhere");
        writer.write_all(b"only this").unwrap();
        drop((writer, clone));
        assert_eq!(read_all(reader), b"only this");
    });
}

fn a_table_with_only_the_first_three_free_refuses_a_pipe() {
    closed_standard_descriptors(|| {
        // Two of the three are what the pipe needs for a moment.
        let full = limit_descriptors_above_two();
        let (call, errno) = refused(pipe());
        assert_eq!(errno, libc::EMFILE, "{call}");
        assert_eq!(open_ends(), 0);
        drop(full);
        pipe().unwrap();
    });
}

/// A table that is full but for 0, 1 and 2, which are closed.
fn limit_descriptors_above_two() -> impl Drop {
    let fillers: Vec<File> = (0..=2).map(|_| File::open("/dev/null").unwrap()).collect();
    let full = limit_descriptors(0);
    drop(fillers);
    full
}

fn an_end_may_be_adopted_on_the_first_three_numbers() {
    closed_standard_descriptors(|| {
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!((reader.as_raw_fd(), writer.as_raw_fd()), (0, 1));
        let (reader, mut writer) = (PipeReader::from(reader), PipeWriter::from(writer));
        assert_eq!((reader.as_raw_fd(), writer.as_raw_fd()), (0, 1), "whoever put it there wants it there");
        assert_eq!(open_ends(), 2);
        writer.write_all(b"x").unwrap();
        drop(writer);
        assert_eq!(read_all(reader), b"x");
    });
}

fn debug_shows_the_kind_and_the_number() {
    let (reader, writer) = pipe().unwrap();
    assert_eq!(format!("{reader:?}"), format!("PipeReader({})", reader.as_raw_fd()));
    assert_eq!(format!("{writer:?}"), format!("PipeWriter({})", writer.as_raw_fd()));
}

fn nonblock_is_set_when_asked_for_and_only_then() {
    let (reader, writer) = pipe().unwrap();
    assert_eq!((status_flags(&reader) | status_flags(&writer)) & libc::O_NONBLOCK, 0);
    let (mut reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    assert_ne!(status_flags(&reader) & status_flags(&writer) & libc::O_NONBLOCK, 0);
    assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}
