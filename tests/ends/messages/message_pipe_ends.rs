//! Messages through a pipe that is full, that nobody reads, or whose time is up: a message is taken or not, and the stream is
//! never torn. On every kind of pipe; with forks, and many at once.

use std::time::{Duration, Instant};

use crate::support::{
    self, FAR, RWF_NOSIGNAL, RWF_NOWAIT, Sigpipe, Trial, asleep_in, assert_next, assert_same, assert_times_out,
    exit_code,
};
use crate::support::{fill, handled, kinds, message, read_all, read_some, refuse_flags, sigpipe, with_interval_timer};
use ipc::{Error, MessageReader, MessageWriter, PipeReader, PipeWriter, Ready, Watch, fork, pipe, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_full_pipe_takes_messages_whole_or_not_at_all within 60,
        a_message_that_has_begun_goes_on_at_the_next_call,
        a_message_of_which_half_a_length_went_goes_on needs [NoWait],
        after_a_message_that_had_to_wait_the_buffer_is_as_before,
        whatever_is_called_the_stream_is_never_torn within 120,
        the_stream_is_never_torn_where_the_kernel_refuses_flags within 60,
        deadlines_are_kept,
        deadlines_are_kept_under_a_storm_of_signals,
        a_pipe_that_never_waits_says_so,
        a_reader_that_is_gone_is_told_of_each_time_and_at_once,
        a_reader_that_is_killed_ends_the_wait,
        closing_flushes_and_tells_what_went_wrong,
        the_writer_comes_back_flushed,
        dropping_flushes,
        dropping_waits_for_a_slow_reader,
        dropping_does_not_wait_for_ever,
        dropping_while_a_panic_unwinds_does_not_wait,
        a_fork_sends_nothing_twice,
        an_end_that_was_not_given_says_so,
        a_buffered_message_is_ready,
        a_master_waits_for_several_writers,
    ]
}

const LONG: Duration = Duration::from_secs(10);
const BUFFER: usize = 8 << 10;

/// Sends numbered messages until nothing more is taken, and says how many were.
fn send_until_full(writer: &mut MessageWriter, len: usize) -> usize {
    for number in 0.. {
        match writer.try_send(&message(number, len)) {
            Ok(()) => {}
            Err(Error::WouldBlock) => return number,
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!("a pipe has an end")
}

#[track_caller]
fn assert_numbered(mut reader: MessageReader, lengths: impl IntoIterator<Item = usize>) {
    for (number, len) in lengths.into_iter().enumerate() {
        assert_next(reader.recv(), &message(number, len));
    }
    assert_eq!(reader.recv().unwrap(), None);
}

fn a_full_pipe_takes_messages_whole_or_not_at_all() {
    for len in [0, 1, 100, 5000, BUFFER - 4, BUFFER, 20_000] {
        for (kind, reader, writer) in kinds() {
            let mut writer = MessageWriter::new(writer);
            let filled = send_until_full(&mut writer, len);
            let refused = message(filled, len);
            for _ in 0..3 {
                assert!(matches!(writer.try_send(&refused), Err(Error::WouldBlock)), "{kind}, {len}");
                assert!(matches!(writer.send_timeout(&refused, Duration::ZERO), Err(Error::TimedOut)), "{kind}, {len}");
                assert!(matches!(writer.try_flush(), Err(Error::WouldBlock)), "{kind}, {len}");
                assert!(matches!(writer.flush_timeout(Duration::ZERO), Err(Error::TimedOut)), "{kind}, {len}");
            }
            let child = fork(reader, |reader| {
                let mut reader = MessageReader::new(reader);
                for number in 0..=filled {
                    assert_next(reader.recv_timeout(LONG), &message(number, len));
                }
                assert_eq!(reader.recv_timeout(LONG).unwrap(), None);
            })
            .unwrap();
            writer.send_timeout(&message(filled, len), LONG).unwrap();
            writer.flush_timeout(LONG).unwrap();
            writer.close().unwrap();
            assert_eq!(exit_code(&child), 0, "{kind}, {len}");
        }
    }
}

fn a_message_that_has_begun_goes_on_at_the_next_call() {
    let short = Duration::from_millis(2);
    type Send = fn(&mut MessageWriter, &[u8]) -> ipc::Result<()>;
    let sends: [Send; 3] = [
        MessageWriter::try_send,
        |writer, message| writer.send_timeout(message, Duration::ZERO),
        |writer, message| writer.send_timeout(message, Duration::from_millis(2)),
    ];
    for send in sends {
        let (reader, writer) = pipe().unwrap();
        let mut writer = MessageWriter::new(writer);
        writer.send(&message(0, 100)).unwrap();
        // It is far longer than the pipe, and there was room for its beginning: it is taken.
        send(&mut writer, &message(1, 1 << 20)).unwrap();
        // The next one is not, as there is no room.
        for _ in 0..3 {
            assert!(send(&mut writer, b"refused").is_err());
            assert!(matches!(writer.try_flush(), Err(Error::WouldBlock)));
            assert!(matches!(writer.flush_timeout(short), Err(Error::TimedOut)));
        }
        let child = fork(reader, |reader| assert_numbered(MessageReader::new(reader), [100, 1 << 20, 300])).unwrap();
        writer.send(&message(2, 300)).unwrap();
        writer.close().unwrap();
        assert_eq!(exit_code(&child), 0);
    }
}

fn a_message_of_which_half_a_length_went_goes_on() {
    // So much of the length is in the buffer, and so much of that does not go.
    for (there, left) in [(3, 1), (3, 2), (2, 1)] {
        let (reader, mut writer) = pipe().unwrap();
        assert_eq!(writer.set_capacity(BUFFER).unwrap(), BUFFER);
        writer.set_max_write(1); // so that it can be full to the byte
        writer.write_atomic(&[0; 4096][..left]).unwrap();
        let mut writer = MessageWriter::new(writer);
        writer.send(&message(0, 5000)).unwrap();
        writer.send(&message(1, BUFFER - 5004 - 4 - there)).unwrap();
        assert_eq!(reader.available().unwrap(), left);
        writer.try_send(&message(2, 100)).unwrap();
        assert_eq!(reader.available().unwrap(), BUFFER);
        let mut received = read_some(&reader, BUFFER).split_off(left);
        writer.flush().unwrap();
        writer.close().unwrap();
        received.extend(read_all(reader));
        let lengths = [5000, BUFFER - 5004 - 4 - there, 100];
        let expected = lengths
            .into_iter()
            .enumerate()
            .flat_map(|(number, len)| [&(len as u32).to_le_bytes()[..], &message(number, len)].concat());
        assert_same(&received, &expected.collect::<Vec<_>>());
    }
}

fn after_a_message_that_had_to_wait_the_buffer_is_as_before() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.try_send(&message(0, 1 << 20)).unwrap();
    let there = || read_some(&reader, reader.available().unwrap());
    let mut received = Vec::new();
    while writer.try_flush().is_err() {
        received.extend(there());
    }
    received.extend(there());
    assert_same(&received[4..], &message(0, 1 << 20));
    // Small messages go when 8 KiB of them wait.
    for number in 0..=BUFFER / 104 {
        assert_eq!(reader.available().unwrap(), 0);
        writer.send(&message(number, 100)).unwrap();
    }
    assert_eq!(reader.available().unwrap(), BUFFER);
}

/// Random numbers, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// Sends, flushes and reads in a random order, the pipe being small, and looks whether exactly the messages that were taken
/// come out.
fn assert_never_torn(reader: PipeReader, writer: PipeWriter, seed: u64, steps: usize) {
    writer.set_capacity(4096).unwrap();
    let (mut reader, mut writer) = (reader, MessageWriter::new(writer));
    let mut random = Random(seed);
    let (mut expected, mut received) = (Vec::new(), Vec::new());
    let read = |reader: &PipeReader, received: &mut Vec<u8>, len| {
        let there = reader.available().unwrap().min(len);
        received.extend(read_some(reader, there));
    };
    for number in 0..steps {
        let len = match random.below(10) {
            0 => random.below(50_000),
            1 => BUFFER - 20 + random.below(40),
            2..=4 => random.below(3000),
            _ => random.below(40),
        };
        let message = message(number, len);
        let taken = match random.below(8) {
            0 => writer.try_flush().err(),
            1 => writer.flush_timeout(Duration::ZERO).err(),
            2 | 3 => {
                let len = random.below(6000);
                read(&reader, &mut received, len);
                None
            }
            call => {
                let sent = match call {
                    4 => writer.send_timeout(&message, Duration::ZERO),
                    5 => writer.send_timeout(&message, Duration::from_micros(20)),
                    _ => writer.try_send(&message),
                };
                if sent.is_ok() {
                    expected.extend((len as u32).to_le_bytes());
                    expected.extend(&message);
                }
                sent.err()
            }
        };
        assert!(matches!(taken, None | Some(Error::WouldBlock | Error::TimedOut)), "{taken:?}");
    }
    while writer.try_flush().is_err() {
        read(&reader, &mut received, 6000);
    }
    writer.close().unwrap();
    std::io::Read::read_to_end(&mut reader, &mut received).unwrap();
    assert_same(&received, &expected);
    assert!(expected.len() > 10 * steps);
}

fn whatever_is_called_the_stream_is_never_torn() {
    for seed in 0..support::rounds(10) {
        for (_, reader, writer) in kinds() {
            assert_never_torn(reader, writer, seed, 500);
        }
    }
}

fn the_stream_is_never_torn_where_the_kernel_refuses_flags() {
    for (disposition, flags) in
        [(Sigpipe::Ignore, RWF_NOWAIT), (Sigpipe::Default, RWF_NOSIGNAL), (Sigpipe::Default, RWF_NOSIGNAL | RWF_NOWAIT)]
    {
        let child = fork((), |()| {
            sigpipe(disposition);
            refuse_flags(flags);
            for seed in 0..5 {
                let (reader, writer) = pipe().unwrap();
                assert_never_torn(reader, writer, seed, 500);
            }
            let (_, writer) = pipe().unwrap();
            assert!(matches!(MessageWriter::new(writer).send(&[0; 10_000]), Err(Error::Closed)));
        })
        .unwrap();
        assert_eq!(exit_code(&child), 0);
    }
}

fn assert_deadlines_are_kept() {
    for timeout in [Duration::from_micros(1), Duration::from_millis(3), Duration::from_millis(30)] {
        for (kind, reader, writer) in kinds() {
            let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
            assert_times_out(kind, timeout, |timeout| reader.recv_timeout(timeout).map(drop));
            writer.send(b"there").unwrap();
            writer.flush().unwrap();
            assert_next(reader.recv_timeout(timeout), b"there");
            send_until_full(&mut writer, 100);
            assert_times_out(kind, timeout, |timeout| writer.send_timeout(&[0; 100], timeout));
            assert_times_out(kind, timeout, |timeout| writer.send_timeout(&[0; 100_000], timeout));
            assert_times_out(kind, timeout, |timeout| writer.flush_timeout(timeout));
            drop(reader); // or dropping the writer waits for it
        }
        // A message that comes in parts has one deadline.
        let (reader, writer) = pipe().unwrap();
        let mut reader = MessageReader::new(reader);
        writer.write_atomic(b"\x05\0").unwrap();
        assert_times_out("a part", timeout, |timeout| reader.recv_timeout(timeout).map(drop));
        writer.write_atomic(b"\0\0four").unwrap();
        assert_times_out("more of it", timeout, |timeout| reader.recv_timeout(timeout).map(drop));
        writer.write_atomic(b"5").unwrap();
        assert_next(reader.recv_timeout(timeout), b"four5");
    }
}

fn deadlines_are_kept() {
    assert_deadlines_are_kept();
}

fn deadlines_are_kept_under_a_storm_of_signals() {
    with_interval_timer(Duration::from_millis(1), || {
        let before = handled();
        assert_deadlines_are_kept();
        assert!(handled() > before);
        // And blocking calls are not ended.
        let (reader, writer) = pipe().unwrap();
        let child = fork(reader, |reader| assert_numbered(MessageReader::new(reader), [1 << 20, 7, 1 << 20])).unwrap();
        let mut writer = MessageWriter::new(writer);
        for (number, len) in [1 << 20, 7, 1 << 20].into_iter().enumerate() {
            writer.send(&message(number, len)).unwrap();
        }
        writer.close().unwrap();
        assert_eq!(exit_code(&child), 0);
    });
}

fn a_pipe_that_never_waits_says_so() {
    let (reader, writer) = ipc::pipe_with(ipc::PipeFlags::NONBLOCK).unwrap();
    let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
    assert!(matches!(reader.recv(), Err(Error::WouldBlock)));
    let taken = send_until_full(&mut writer, 100);
    assert!(matches!(writer.send(&message(taken, 100)), Err(Error::WouldBlock)));
    assert!(matches!(writer.flush(), Err(Error::WouldBlock)));
    let refused = writer.into_inner().unwrap_err();
    assert!(matches!(refused.error, Error::WouldBlock));
    writer = refused.unflushed;
    for number in 0..taken / 2 {
        assert_next(reader.recv(), &message(number, 100));
    }
    writer.close().unwrap();
    for number in taken / 2..taken {
        assert_next(reader.recv(), &message(number, 100));
    }
    assert_eq!(reader.recv().unwrap(), None);
}

fn a_reader_that_is_gone_is_told_of_each_time_and_at_once() {
    let long = vec![0; 100_000];
    type Call = fn(&mut MessageWriter) -> ipc::Result<()>;
    let tells: [Call; 6] = [
        MessageWriter::flush,
        MessageWriter::try_flush,
        |writer| writer.flush_timeout(LONG),
        |writer| writer.send(&[0; 100_000]),
        |writer| writer.try_send(&[0; 100_000]),
        |writer| writer.send_timeout(&[0; 100_000], LONG),
    ];
    for tell in tells {
        let (reader, writer) = pipe().unwrap();
        let mut writer = MessageWriter::new(writer);
        writer.send(b"taken: nobody has asked the kernel").unwrap();
        drop(reader);
        assert!(matches!(tell(&mut writer), Err(Error::Closed)));
        for message in [b"small".as_slice(), b"", &long] {
            assert!(matches!(writer.send(message), Err(Error::Closed)));
            assert!(matches!(writer.try_send(message), Err(Error::Closed)));
            assert!(matches!(writer.send_timeout(message, LONG), Err(Error::Closed)));
        }
        // Who asks only at the end is told as well, and the writer can be had back.
        assert!(matches!(writer.flush(), Err(Error::Closed)));
        let mut writer = MessageWriter::new(writer.into_inner().unwrap());
        assert!(writer.send(b"lost").and_then(|()| writer.flush()).is_err());
        assert!(matches!(writer.close(), Err(Error::Closed)));
    }
    // In the middle of a long message.
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.try_send(&vec![0; 1 << 20]).unwrap();
    drop(reader);
    assert!(matches!(writer.flush(), Err(Error::Closed)));
}

fn a_reader_that_is_killed_ends_the_wait() {
    let waits: [fn(&mut MessageWriter) -> ipc::Result<()>; 4] = [
        |writer| writer.send(&[0; 1 << 20]),
        |writer| writer.send_timeout(&[0; 1 << 20], LONG),
        MessageWriter::flush,
        |writer| writer.flush_timeout(LONG),
    ];
    for wait in waits {
        let (reader, writer) = pipe().unwrap();
        let holder = fork(reader, |_reader| {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        let waiter = fork(writer, |writer| {
            let mut writer = MessageWriter::new(writer);
            send_until_full(&mut writer, 100);
            assert!(matches!(wait(&mut writer), Err(Error::Closed)));
        })
        .unwrap();
        asleep_in(waiter.id(), &[libc::SYS_write, libc::SYS_ppoll]);
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(exit_code(&waiter), 0);
    }
}

fn closing_flushes_and_tells_what_went_wrong() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(&message(0, 100)).unwrap();
    writer.close().unwrap();
    assert_numbered(MessageReader::new(reader), [100]);

    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(b"never").unwrap();
    drop(reader);
    assert!(matches!(writer.close(), Err(Error::Closed)));
}

fn the_writer_comes_back_flushed() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(b"message").unwrap();
    let writer = writer.into_inner().unwrap();
    writer.write_atomic(b"bare").unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(b"").unwrap();
    writer.close().unwrap();
    assert_same(&read_all(reader), b"\x07\0\0\0messagebare\0\0\0\0");

    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(b"never").unwrap();
    drop(reader);
    let refused = writer.into_inner().unwrap_err();
    assert!(matches!(refused.error, Error::Closed));
    // What could not go is lost, and that was said, so the writer can be had now.
    assert!(refused.unflushed.into_inner().unwrap().is_closed().unwrap());
}

fn dropping_flushes() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(&message(0, 100)).unwrap();
    drop(writer);
    assert_numbered(MessageReader::new(reader), [100]);
}

fn dropping_waits_for_a_slow_reader() {
    // It waits for a second, which a machine with too much to do can let pass; but hardly each time.
    assert!((0..5).any(|_| dropped_before_the_reader_reads()), "what waits is written");
}

/// Whether all of it arrives.
fn dropped_before_the_reader_reads() -> bool {
    let (reader, writer) = pipe().unwrap();
    let parent = std::process::id();
    let child = fork(reader, |reader| {
        asleep_in(parent, &[libc::SYS_ppoll]);
        u8::from(!matches!(MessageReader::new(reader).recv(), Ok(Some(received)) if received == message(0, 1 << 20)))
    })
    .unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.try_send(&message(0, 1 << 20)).unwrap();
    drop(writer);
    exit_code(&child) == 0
}

fn dropping_does_not_wait_for_ever() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.try_send(&message(0, 1 << 20)).unwrap();
    let started = Instant::now();
    drop(writer);
    assert!(started.elapsed() < FAR);
    // And the reader is told.
    match MessageReader::new(reader).recv() {
        Err(Error::Truncated { message: part, expected: Some(1_048_576) }) => {
            assert_same(&part, &message(0, 1 << 20)[..part.len()]);
        }
        other => panic!("the message was cut: {other:?}"),
    }
}

fn dropping_while_a_panic_unwinds_does_not_wait() {
    let pipes = [(); 8].map(|()| pipe().unwrap());
    support::assert_unwinding_does_not_wait(pipes.map(|(reader, writer)| {
        let mut writer = MessageWriter::new(writer);
        send_until_full(&mut writer, 1000);
        (writer, reader)
    }));
}

fn a_fork_sends_nothing_twice() {
    let (reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    writer.send(&message(0, 10)).unwrap();
    // The closure takes it along, and the child drops it.
    let mut held = Some(writer);
    let child = fork((), |()| drop(held.take())).unwrap();
    assert_eq!(exit_code(&child), 0);
    held.take().unwrap().close().unwrap();
    assert_numbered(MessageReader::new(reader), [10]);
}

fn an_end_that_was_not_given_says_so() {
    let (reader, writer) = pipe().unwrap();
    let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
    writer.send(b"one").unwrap();
    writer.send(b"read before the fork").unwrap();
    writer.flush().unwrap();
    assert_next(reader.recv(), b"one");
    let child = fork((), |()| {
        assert_next(reader.recv(), b"read before the fork");
        assert!(matches!(reader.recv(), Err(Error::NotGiven)));
        writer.send(b"into the buffer").unwrap();
        assert!(matches!(writer.flush(), Err(Error::NotGiven)));
        assert!(matches!(writer.send(&[0; 100_000]), Err(Error::NotGiven)));
        let refused = writer.into_inner().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        assert!(matches!(refused.unflushed.close(), Err(Error::NotGiven)));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_buffered_message_is_ready() {
    let (reader, writer) = pipe().unwrap();
    let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
    let look = |reader: &mut MessageReader| {
        let mut on = [reader.watch().unwrap()];
        let count = wait_any(&mut on, Some(Duration::ZERO)).unwrap();
        assert_eq!(count, usize::from(!on[0].ready().is_empty()));
        on[0].ready()
    };
    assert_eq!(look(&mut reader), Ready::empty());
    writer.send(b"one").unwrap();
    writer.send(b"two").unwrap();
    writer.flush().unwrap();
    assert_eq!(look(&mut reader), Ready::READ);
    assert_next(reader.try_recv(), b"one");
    assert_eq!(look(&mut reader), Ready::READ);
    assert_eq!(wait_any(&mut [reader.watch().unwrap()], None).unwrap(), 1);
    assert_next(reader.try_recv(), b"two");
    assert_eq!(look(&mut reader), Ready::empty());
    // A message that is over the limit is an answer too.
    writer.send(b"three").unwrap();
    writer.flush().unwrap();
    reader.set_max_message(4);
    assert!(matches!(reader.try_recv(), Err(Error::TooLong { len: 5, max: 4 })));
    assert_eq!(look(&mut reader), Ready::READ);
    reader.set_max_message(5);
    assert_next(reader.try_recv(), b"three");
    // Room, through the writer itself.
    fill(writer.get_ref());
    assert_eq!(wait_any(&mut [Watch::writable(writer.get_ref())], Some(Duration::ZERO)).unwrap(), 0);
    drop(reader);
    assert_eq!(wait_any(&mut [Watch::writable(writer.get_ref())], None).unwrap(), 1);
}

fn a_master_waits_for_several_writers() {
    let lengths = |worker: usize| (0..200).map(move |number| number * worker * 37 % 30_000);
    let (mut children, mut readers) = (Vec::new(), Vec::new());
    for worker in 0..4 {
        let (reader, writer) = pipe().unwrap();
        children.push(fork(writer, move |writer| {
            let mut writer = MessageWriter::new(writer);
            for (number, len) in lengths(worker).enumerate() {
                writer.send(&message(number, len)).unwrap();
                if number % 7 == 0 {
                    writer.flush().unwrap();
                }
            }
            writer.close().unwrap();
        }));
        readers.push((worker, 0, MessageReader::new(reader)));
    }
    while !readers.is_empty() {
        let mut on: Vec<_> = readers.iter_mut().map(|(_, _, reader)| reader.watch().unwrap()).collect();
        assert!(wait_any(&mut on, Some(LONG)).unwrap() > 0);
        let ready: Vec<_> = on.iter().map(Watch::ready).collect();
        for index in (0..readers.len()).rev().filter(|index| ready[*index].contains(Ready::READ)) {
            let (worker, number, reader) = &mut readers[index];
            // One at a time, so that others are buffered in the meantime.
            match reader.try_recv() {
                Ok(Some(received)) => {
                    assert_same(received, &message(*number, lengths(*worker).nth(*number).unwrap()));
                    *number += 1;
                }
                Ok(None) => {
                    assert_eq!(*number, 200);
                    readers.swap_remove(index);
                }
                Err(Error::WouldBlock) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    for child in children {
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}
