//! Pipes of one page, full queues, no address space: every promise is kept all the same, or the error says what is missing,
//! nothing is lost, and it works again when there is room.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::time::Duration;

use crate::support::{
    self, Trial, assert_times_out, become_nobody, exhaust_pipe_pages, exit_code, fill, is_root, limit, pipe_setting,
    read_all, read_some, refused, spliced_once,
};
use ipc::{Command, DatagramFlags, DatagramSocket, Error, PIPE_BUF, PipeReader, PipeWriter, SendError};
use ipc::{datagram_pair, datagram_pair_with, fork, pipe, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        on_pipes_of_one_page_every_promise_is_kept needs [Alone] within 60,
        with_a_full_queue_nothing_is_sent_and_ends_come_back,
        without_address_space_nothing_is_received,
        without_address_space_no_program_is_started,
    ]
}

fn leaves(child: ipc::Child) {
    assert_eq!(exit_code(&child), 0);
}

/// A pipe of two pages, or of one, as a user gets it who has very many.
fn small(pages: usize) -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let capacity = writer.set_capacity(pages * PIPE_BUF).unwrap();
    assert!(capacity <= pages * PIPE_BUF, "{capacity}");
    (reader, writer)
}

fn on_pipes_of_one_page_every_promise_is_kept() {
    become_nobody();
    let _many = exhaust_pipe_pages();
    if pipe_setting("user-pages-soft") > 0 {
        let (_, writer) = pipe().unwrap();
        assert!(writer.capacity().unwrap() <= 2 * PIPE_BUF, "past the soft limit");
        if !is_root() {
            assert_eq!(refused(writer.set_capacity(1 << 20)), ("fcntl", libc::EPERM));
        }
    }
    for pages in [1, 2] {
        for is_spliced in [false, true] {
            let make = || {
                let ends = small(pages);
                if is_spliced {
                    spliced_once(&ends.0);
                    spliced_once(&ends.1);
                }
                ends
            };
            a_stream_passes(make());
            records_stay_whole(make());
            short_writes_go_in_whole_or_not_at_all(make());
            let (reader, writer) = make();
            let timeout = Duration::from_millis(3);
            assert_times_out("read_timeout", timeout, |timeout| reader.read_timeout(&mut [0; 8], timeout));
            let queued = fill(&writer);
            assert!(queued <= pages * PIPE_BUF);
            assert_times_out("write_timeout", timeout, |timeout| writer.write_timeout(&[1; 9000], timeout));
            assert_eq!(reader.available().unwrap(), queued);
            drop(reader);
            for result in
                [writer.try_write(b"x"), writer.write_timeout(b"x", timeout), writer.write_atomic(b"x").map(|()| 1)]
            {
                assert!(matches!(result, Err(Error::Closed)), "{result:?}");
            }
            let (reader, writer) = make();
            let child = fork(writer, |writer| {
                assert!(matches!(reader.available(), Err(Error::NotGiven)));
                writer.write_atomic(b"of the child").unwrap();
            })
            .unwrap();
            assert_eq!(read_all(reader), b"of the child");
            leaves(child);
        }
        let (reader, writer) = small(pages);
        let (second_reader, second) = small(pages);
        assert_eq!(fill(&writer), pages * PIPE_BUF);
        assert_eq!(reader.tee(&second, 1 << 20).unwrap(), pages * PIPE_BUF);
        read_some(&second_reader, pages * PIPE_BUF);
        assert_eq!(reader.splice_to(&second, 1 << 20).unwrap(), pages * PIPE_BUF);
        assert_eq!(second_reader.available().unwrap(), pages * PIPE_BUF);
    }
}

fn a_stream_passes((mut reader, writer): (PipeReader, PipeWriter)) {
    const LENGTH: usize = 100_000;
    let data: Vec<u8> = (0..LENGTH).map(|place| (place % 251) as u8).collect();
    let child = fork(writer, |mut writer| {
        let mut rest = &data[..];
        for way in 0.. {
            let chunk = &rest[..rest.len().min(3000)];
            let written = match way % 4 {
                0 => writer.write(chunk).unwrap(),
                1 => writer.write_timeout(chunk, Duration::MAX).unwrap(),
                2 => writer.write_vectored(&[IoSlice::new(chunk), IoSlice::new(&rest[chunk.len()..])]).unwrap(),
                _ => writer.write_atomic(chunk).map(|()| chunk.len()).unwrap(),
            };
            rest = &rest[written..];
            if rest.is_empty() {
                break;
            }
        }
    })
    .unwrap();
    let mut got = Vec::new();
    for way in 0.. {
        let mut buf = [0; 5000];
        let len = match way % 2 {
            0 => reader.read(&mut buf).unwrap(),
            _ => reader.read_timeout(&mut buf, Duration::MAX).unwrap(),
        };
        got.extend_from_slice(&buf[..len]);
        if len == 0 {
            break;
        }
    }
    assert!(got == data, "{} bytes", got.len());
    leaves(child);
}

fn records_stay_whole((mut reader, writer): (PipeReader, PipeWriter)) {
    const RECORDS: usize = 20;
    let children: Vec<_> = (1..=3_u8)
        .map(|name| {
            fork(writer.try_clone().unwrap(), |writer| {
                (0..RECORDS).for_each(|_| writer.write_atomic(&[name; PIPE_BUF]).unwrap());
            })
            .unwrap()
        })
        .collect();
    drop(writer);
    let mut record = [0; PIPE_BUF];
    for _ in 0..3 * RECORDS {
        reader.read_exact(&mut record).unwrap();
        assert!(record.iter().all(|byte| *byte == record[0]), "a record is of one writer");
    }
    assert_eq!(reader.read(&mut record).unwrap(), 0);
    children.into_iter().for_each(leaves);
}

fn short_writes_go_in_whole_or_not_at_all((reader, writer): (PipeReader, PipeWriter)) {
    let full = fill(&writer);
    read_some(&reader, 1);
    for _ in 0..2 {
        // The page that is partly read has no room for anything.
        assert!(matches!(writer.try_write(&[2; PIPE_BUF]), Err(Error::WouldBlock)));
        assert_eq!(reader.available().unwrap(), full - 1);
    }
    read_some(&reader, PIPE_BUF - 1);
    assert_eq!(writer.try_write(&[2; PIPE_BUF]).unwrap(), PIPE_BUF);
}

fn comes_back<E>(sent: Result<impl Sized, SendError<E>>) -> E {
    match sent {
        Err(SendError { ends, error: Error::WouldBlock | Error::TimedOut }) => ends,
        Err(refused) => panic!("{refused:?}"),
        Ok(_) => panic!("there is no room"),
    }
}

fn with_a_full_queue_nothing_is_sent_and_ends_come_back() {
    let short = Duration::from_millis(2);
    for flags in [DatagramFlags::empty(), DatagramFlags::CONNECTIONLESS] {
        let pair = datagram_pair_with(flags).unwrap();
        let mut count = 0;
        while pair.parent.try_send(b"x").is_ok() {
            count += 1;
        }
        let (reader, writer) = pipe().unwrap();
        let writer = comes_back(pair.parent.try_send_with(b"y", writer));
        let writer = comes_back(pair.parent.send_with_timeout(b"y", writer, short));
        assert!(matches!(pair.parent.try_send(b""), Err(Error::WouldBlock)));
        assert_times_out("send_timeout", short, |timeout| pair.parent.send_timeout(b"", timeout));
        writer.write_atomic(b"mine").unwrap();
        for _ in 0..count {
            assert_eq!(pair.child.recv_vec().unwrap().as_deref(), Some(&b"x"[..]));
        }
        assert!(matches!(pair.child.try_recv_vec(), Err(Error::WouldBlock)), "nothing more was sent");
        pair.parent.try_send_with(b"y", writer).unwrap();
        assert!(matches!(reader.try_read(&mut [0; 4]), Ok(4)));
        drop(pair.child.recv_with(&mut Vec::new()).unwrap());
        assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
    }
    let pair = stream_pair().unwrap();
    let mut count = 0;
    while let Ok(len) = pair.parent.try_write(&[1; 4096]) {
        count += len;
    }
    let (reader, writer) = pipe().unwrap();
    let writer = comes_back(pair.parent.try_send_with(b"y", writer));
    let writer = comes_back(pair.parent.send_with_timeout(b"y", writer, short));
    assert_times_out("write_timeout", short, |timeout| pair.parent.write_timeout(b"y", timeout));
    let mut data = vec![0; count];
    (&pair.child).read_exact(&mut data).unwrap();
    assert!(matches!(pair.child.try_read(&mut [0]), Err(Error::WouldBlock)), "nothing more was sent");
    assert_eq!(pair.parent.try_send_with(b"y", writer).unwrap(), 1);
    assert_eq!(pair.child.recv_with(&mut [0]).unwrap().1.len(), 1);
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
}

/// Lets this process have no more address space than it has, and a little.
fn limit_address_space(more: u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    limit(libc::RLIMIT_AS, |_| (pages * page + more) as _);
}

fn without_address_space_nothing_is_received() {
    type Receive = fn(&DatagramSocket) -> ipc::Result<Option<usize>>;
    let second = Duration::from_secs(1);
    let receives: [Receive; 9] = [
        |socket| socket.recv(&mut [0; 64]),
        |socket| socket.try_recv(&mut [0; 64]),
        |socket| socket.recv_timeout(&mut [0; 64], Duration::from_secs(1)),
        |socket| Ok(socket.recv_vec()?.map(|message| message.len())),
        |socket| Ok(socket.try_recv_vec()?.map(|message| message.len())),
        |socket| Ok(socket.recv_vec_timeout(Duration::from_secs(1))?.map(|message| message.len())),
        |socket| Ok(socket.recv_with(&mut Vec::new())?.map(|received| received.len() + 6)),
        |socket| Ok(socket.try_recv_with(&mut Vec::new())?.map(|received| received.len() + 6)),
        |socket| {
            Ok(socket.recv_with_timeout(&mut Vec::new(), Duration::from_secs(1))?.map(|received| received.len() + 6))
        },
    ];
    for receive in receives {
        let pair = datagram_pair().unwrap();
        pair.parent.send_with(b"message", File::open("/dev/null").unwrap()).unwrap();
        // In a process that has received nothing yet.
        let child = fork(pair.child, |socket| {
            limit_address_space(2 << 20);
            for _ in 0..3 {
                assert_eq!(refused(receive(&socket)), ("mmap", libc::ENOMEM));
                assert_eq!(socket.peek_len().unwrap(), Some(7), "the message stays");
            }
            limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
            assert_eq!(receive(&socket).unwrap(), Some(7));
            assert!(matches!(socket.try_recv(&mut []), Err(Error::WouldBlock)));
        })
        .unwrap();
        assert!(child.wait_timeout(10 * second).unwrap().expect("it leaves").success());
    }
}

fn without_address_space_no_program_is_started() {
    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| {
        let command = Command::new("echo").arg("hello").stdout(writer);
        // The heap has room for the little that a start needs.
        drop(std::hint::black_box(vec![1_u8; 60_000]));
        limit_address_space(0);
        let refused = command.spawn().unwrap_err();
        limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
        assert_eq!(support::refused(Err::<(), _>(refused.error)), ("mmap", libc::ENOMEM));
        leaves(refused.command.spawn().unwrap());
    })
    .unwrap();
    assert_eq!(read_all(reader), b"hello\n");
    leaves(child);
}
