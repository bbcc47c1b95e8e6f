//! Pipes at their edges: cut writes, empty buffers, many slices, ends that do not wait, and sizes.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use crate::support::{
    self, Trial, become_nobody, exhaust_pipe_pages, exit_code, fill, pipe_setting, read_all, refused,
};
use ipc::{Command, Error, Fifo, PIPE_BUF, PipeFlags, PipeReader, fork, pipe, pipe_with};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_long_write_is_cut,
        the_cut_goes_for_every_write_but_the_atomic_one,
        a_cut_of_zero_is_one_byte,
        the_cut_goes_along_into_clones_and_children,
        a_small_cut_loses_nothing,
        an_empty_buffer_says_nothing_about_the_end,
        an_empty_write_writes_nothing,
        empty_slices_before_the_first_byte_make_no_false_end,
        more_slices_than_the_kernel_takes_are_read_and_written_in_part,
        a_vectored_read_fills_the_slices_in_order,
        a_vectored_write_keeps_to_the_cut,
        available_counts_what_can_be_read,
        a_nonblocking_pipe_answers_would_block,
        a_nonblocking_pipe_has_an_end_and_an_epipe,
        a_capacity_is_rounded_up_and_goes_for_both_ends,
        a_capacity_past_32_bits_is_refused,
        a_capacity_below_what_is_queued_is_refused,
        a_capacity_past_the_limit_is_refused,
        a_pipe_of_a_user_with_many_is_small_and_works needs [Alone],
        a_rival_makes_no_false_eof_for_a_tee,
        a_tee_of_what_nobody_writes_ends,
        a_read_to_the_end_that_memory_does_not_suffice_for_is_an_error,
        a_thread_with_a_table_of_its_own_opens_its_own_fifo,
    ]
}

fn a_long_write_is_cut() {
    let (reader, mut writer) = pipe().unwrap();
    assert_eq!(writer.write(&[1; 50_000]).unwrap(), 8192);
    assert_eq!(reader.available().unwrap(), 8192);
    writer.set_max_write(usize::MAX);
    assert_eq!(writer.write(&[1; 50_000]).unwrap(), 50_000);
}

fn the_cut_goes_for_every_write_but_the_atomic_one() {
    let (reader, mut writer) = pipe().unwrap();
    writer.set_max_write(10);
    assert_eq!(writer.write(&[1; 100]).unwrap(), 10);
    assert_eq!(writer.try_write(&[1; 100]).unwrap(), 10);
    assert_eq!(writer.write_timeout(&[1; 100], Duration::ZERO).unwrap(), 10);
    assert_eq!(writer.write_vectored(&[IoSlice::new(&[1; 100])]).unwrap(), 10);
    writer.write_atomic(&[1; 100]).unwrap();
    assert_eq!(reader.available().unwrap(), 140);
}

fn a_cut_of_zero_is_one_byte() {
    let (_reader, mut writer) = pipe().unwrap();
    writer.set_max_write(0);
    assert_eq!(writer.write(&[1; 100]).unwrap(), 1);
    assert_eq!(writer.write_vectored(&[IoSlice::new(&[1; 100]), IoSlice::new(&[1; 100])]).unwrap(), 1);
    writer.write_all(&[1; 100]).unwrap();
}

fn the_cut_goes_along_into_clones_and_children() {
    let (_reader, mut writer) = pipe().unwrap();
    writer.set_max_write(10);
    let clone = writer.try_clone().unwrap();
    assert_eq!((&clone).write(&[1; 100]).unwrap(), 10);
    let child = fork(clone, |mut clone| clone.write(&[1; 100]).unwrap() as u8).unwrap();
    assert_eq!(exit_code(&child), 10);
}

fn a_small_cut_loses_nothing() {
    let data: Vec<u8> = (0..20_000_u32).map(|number| (number % 251) as u8).collect();
    let (reader, mut writer) = pipe().unwrap();
    writer.set_max_write(3);
    writer.write_all(&data).unwrap();
    drop(writer);
    assert!(read_all(reader) == data);
}

fn an_empty_buffer_says_nothing_about_the_end() {
    for flags in [PipeFlags::empty(), PipeFlags::NONBLOCK] {
        let (mut reader, _writer) = pipe_with(flags).unwrap();
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        assert_eq!(reader.try_read(&mut []).unwrap(), 0);
        assert_eq!(reader.read_timeout(&mut [], Duration::MAX).unwrap(), 0);
        assert_eq!(reader.read_vectored(&mut []).unwrap(), 0);
        assert_eq!(reader.read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).unwrap(), 0);
    }
}

fn an_empty_write_writes_nothing() {
    let (reader, mut writer) = pipe().unwrap();
    fill(&writer);
    let queued = reader.available().unwrap();
    assert_eq!(writer.write(&[]).unwrap(), 0);
    assert_eq!(writer.try_write(&[]).unwrap(), 0);
    assert_eq!(writer.write_timeout(&[], Duration::MAX).unwrap(), 0);
    assert_eq!(writer.write_vectored(&[]).unwrap(), 0);
    assert_eq!(writer.write_vectored(&[IoSlice::new(&[]), IoSlice::new(&[])]).unwrap(), 0);
    writer.write_atomic(&[]).unwrap();
    assert_eq!(reader.available().unwrap(), queued);
}

fn empty_slices_before_the_first_byte_make_no_false_end() {
    let (mut reader, mut writer) = pipe().unwrap();
    let mut out: Vec<IoSlice<'_>> = (0..3000).map(|_| IoSlice::new(&[])).collect();
    out.push(IoSlice::new(b"after many"));
    assert_eq!(writer.write_vectored(&out).unwrap(), 10);

    let mut text = [0; 10];
    let mut bufs: Vec<IoSliceMut<'_>> = (0..3000).map(|_| IoSliceMut::new(&mut [])).collect();
    bufs.push(IoSliceMut::new(&mut text));
    assert_eq!(reader.read_vectored(&mut bufs).unwrap(), 10);
    assert_eq!(&text, b"after many");
}

fn more_slices_than_the_kernel_takes_are_read_and_written_in_part() {
    let data: Vec<u8> = (0..3000_u32).map(|number| (number % 251) as u8).collect();
    let (mut reader, mut writer) = pipe().unwrap();
    let mut written = 0;
    while written < data.len() {
        let slices: Vec<IoSlice<'_>> = data[written..].chunks(1).map(IoSlice::new).collect();
        let len = writer.write_vectored(&slices).unwrap();
        assert!(len > 0 && len <= slices.len());
        written += len;
    }
    let mut back = vec![0; data.len()];
    let mut read = 0;
    while read < back.len() {
        let mut slices: Vec<IoSliceMut<'_>> = back[read..].chunks_mut(1).map(IoSliceMut::new).collect();
        let len = reader.read_vectored(&mut slices).unwrap();
        assert!(len > 0);
        read += len;
    }
    assert!(back == data);
}

fn a_vectored_read_fills_the_slices_in_order() {
    let (mut reader, mut writer) = pipe().unwrap();
    writer.write_all(b"abcdef").unwrap();
    let (mut first, mut second, mut third) = ([0; 1], [0; 3], [0; 9]);
    let bufs = &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second), IoSliceMut::new(&mut third)];
    assert_eq!(reader.read_vectored(bufs).unwrap(), 6);
    assert_eq!((&first, &second, &third[..2]), (b"a", b"bcd", &b"ef"[..]));
}

fn a_vectored_write_keeps_to_the_cut() {
    for lens in [vec![5000, 5000], vec![10_000], vec![100, 9000], vec![0, 8192, 1], vec![1000; 50], vec![8191, 1, 1]] {
        let (reader, mut writer) = pipe().unwrap();
        let mut next = 0_u8;
        let parts: Vec<Vec<u8>> = lens
            .iter()
            .map(|len| {
                next += 1;
                vec![next; *len]
            })
            .collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let len = writer.write_vectored(&slices).unwrap();
        assert!(len > 0 && len <= 8192, "{len} bytes of {lens:?}");
        drop(writer);
        let whole = parts.concat();
        assert!(read_all(reader) == whole[..len], "the beginning of {lens:?}");
    }
}

fn available_counts_what_can_be_read() {
    let (mut reader, mut writer) = pipe().unwrap();
    assert_eq!(reader.available().unwrap(), 0);
    writer.write_all(b"hello").unwrap();
    writer.write_all(&[1; 5000]).unwrap();
    assert_eq!(reader.available().unwrap(), 5005);
    reader.read_exact(&mut [0; 6]).unwrap();
    drop(writer);
    assert_eq!(reader.available().unwrap(), 4999);
    reader.read_exact(&mut [0; 4999]).unwrap();
    assert_eq!(reader.available().unwrap(), 0, "at the end too");
}

fn a_nonblocking_pipe_answers_would_block() {
    let (mut reader, mut writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(reader.try_clone().unwrap().read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut buf = [0; 8];
    let vectored = reader.read_vectored(&mut [IoSliceMut::new(&mut buf)]);
    assert_eq!(vectored.unwrap_err().kind(), ErrorKind::WouldBlock);

    while writer.write(&[1; 4096]).is_ok() {}
    assert_eq!(writer.write(&[1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let slices = [IoSlice::new(&[1]), IoSlice::new(&[1])];
    assert_eq!(writer.write_vectored(&slices).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(matches!(writer.write_atomic(&[1]), Err(Error::WouldBlock)));
    assert!(matches!(writer.try_write(&[1]), Err(Error::WouldBlock)));
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 8);
}

fn a_nonblocking_pipe_has_an_end_and_an_epipe() {
    let (mut reader, mut writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    writer.write_all(b"x").unwrap();
    drop(writer);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);

    let (reader, mut writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    drop(reader);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

fn a_capacity_is_rounded_up_and_goes_for_both_ends() {
    let (reader, writer) = pipe().unwrap();
    for (asked, got) in [(5000, 8192), (0, 4096), (1, 4096), (4097, 8192), (1 << 20, 1 << 20), (4096, 4096)] {
        assert_eq!(writer.set_capacity(asked).unwrap(), got, "{asked} asked for");
        assert_eq!((reader.capacity().unwrap(), writer.capacity().unwrap()), (got, got));
    }
    assert_eq!(reader.set_capacity(20_000).unwrap(), 32_768);
    assert_eq!(writer.capacity().unwrap(), 32_768);
    assert_eq!(fill(&writer), 32_768);
}

fn a_capacity_past_32_bits_is_refused() {
    let (reader, writer) = pipe().unwrap();
    let before = writer.capacity().unwrap();
    let sizes = [u64::MAX, i64::MAX as u64, (1 << 32) + 4096, 1 << 32, (1 << 31) + 1];
    // Where a usize has 32 bits, the larger ones cannot be asked for.
    for bytes in sizes.into_iter().filter_map(|bytes| usize::try_from(bytes).ok()) {
        assert_eq!(refused(writer.set_capacity(bytes)), ("fcntl", libc::EINVAL), "{bytes} bytes");
        assert_eq!(refused(reader.set_capacity(bytes)), ("fcntl", libc::EINVAL), "{bytes} bytes");
    }
    assert_eq!(writer.capacity().unwrap(), before);
    // The most that can be asked for: there may not be so much, but less is no answer.
    if let Ok(capacity) = writer.set_capacity(1 << 31) {
        assert_eq!(capacity, 1 << 31);
    }
}

fn a_capacity_below_what_is_queued_is_refused() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&[1; 8192]).unwrap();
    assert_eq!(refused(writer.set_capacity(4096)), ("fcntl", libc::EBUSY));
    assert_eq!(refused(reader.set_capacity(0)), ("fcntl", libc::EBUSY));
    assert_eq!(writer.set_capacity(8192).unwrap(), 8192, "just enough");
    assert_eq!(reader.available().unwrap(), 8192);
}

fn a_capacity_past_the_limit_is_refused() {
    become_nobody();
    let (_reader, writer) = pipe().unwrap();
    let before = writer.capacity().unwrap();
    assert_eq!(refused(writer.set_capacity(2 * pipe_setting("max-size"))), ("fcntl", libc::EPERM));
    assert_eq!(writer.capacity().unwrap(), before);
}

fn a_pipe_of_a_user_with_many_is_small_and_works() {
    become_nobody();
    let _many = exhaust_pipe_pages();
    let (reader, mut writer) = pipe().unwrap();
    let capacity = writer.capacity().unwrap();
    assert_eq!(fill(&writer), capacity);
    assert!(matches!(writer.try_write(&[1; PIPE_BUF]), Err(Error::WouldBlock)));
    let child = fork(reader, |mut reader| io::copy(&mut reader, &mut io::sink()).unwrap() as u8).unwrap();
    writer.write_all(&[1; 100_000]).unwrap();
    drop(writer);
    assert_eq!(exit_code(&child), (capacity + 100_000) as i32 & 0xff);
}

/// The kernel says 0, as at EOF, where somebody else took the byte that it had waited for.
fn a_rival_makes_no_false_eof_for_a_tee() {
    let ((reader, writer), (copies, copy)) = (pipe().unwrap(), pipe().unwrap());
    let feeds = fork(writer, |writer| while writer.write_atomic(b"x").is_ok() {}).unwrap();
    let rival = fork(&reader, |mut reader| while reader.read(&mut [0; 64]).unwrap() > 0 {}).unwrap();
    let drains = fork(copies, |mut copies| while copies.read(&mut [0; 4096]).unwrap() > 0 {}).unwrap();
    for _ in 0..20_000 {
        assert!(reader.tee(&copy, 4096).unwrap() > 0);
    }
    feeds.kill().unwrap();
    while reader.tee(&copy, 4096).unwrap() > 0 {}
    drop(copy);
    feeds.wait().unwrap();
    assert_eq!((exit_code(&rival), exit_code(&drains)), (0, 0));
}

/// Of a FIFO with a name the kernel says no hang-up before its first writer has come.
fn a_tee_of_what_nobody_writes_ends() {
    let place = support::Folder::new();
    let path = place.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let fifo = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let reader = PipeReader::try_from(OwnedFd::from(fifo)).unwrap();
    let (_copies, copy) = pipe().unwrap();
    assert_eq!(reader.tee(&copy, 4096).unwrap(), 0);
}

fn a_read_to_the_end_that_memory_does_not_suffice_for_is_an_error() {
    let (reader, mut writer) = pipe().unwrap();
    let child = fork(reader, |mut reader| {
        support::limit(libc::RLIMIT_AS, |_| 256 << 20);
        let mut read = vec![1];
        assert_eq!(reader.read_to_end(&mut read).unwrap_err().kind(), ErrorKind::OutOfMemory);
        assert!(read.len() > 1 << 20 && read.iter().all(|byte| *byte == 1));
    })
    .unwrap();
    while writer.write_all(&[1; 8192]).is_ok() {}
    assert_eq!(exit_code(&child), 0);
}

fn a_thread_with_a_table_of_its_own_opens_its_own_fifo() {
    let place = support::Folder::new();
    let path = place.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let thread = std::thread::spawn(move || {
        // SAFETY: an integer.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let Fifo { reader, mut writer, .. } = Fifo::try_from(OwnedFd::from(both)).unwrap();
        writer.write_all(b"token").unwrap();
        drop(writer);
        assert_eq!(read_all(reader), b"token");
    });
    thread.join().unwrap();
}
