//! Other ways to travel: packed, through pipes, streams and TCP, and over a link of one's own.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::{self, FAR, Trial, assert_times_out, exit_code, poll_until};
use ipc::{
    Error, Incoming, Link, Locked, MessageReader, MessageWriter, Outbound, Outgoing, PackedSocket, PipeWriter,
    Received, Receiver, RingReader, RingWriter, Sender, StreamSocket, Until, datagram_pair, fork, pipe, stream_pair,
    wait_any,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        one_worker_runs_over_every_link,
        values_wait_in_a_buffer_until_they_are_flushed,
        dropping_sends_what_waits,
        closing_tells_what_was_lost,
        a_value_with_ends_is_refused,
        a_value_that_is_too_long_for_a_pack_is_refused,
        a_value_over_the_limit_is_skipped_in_a_stream,
        a_pack_has_values_up_to_the_limit,
        a_value_that_there_is_no_memory_for_stays,
        the_limit_of_a_message_reader_is_its_receivers,
        a_skipped_value_that_stalls_keeps_no_deadline_waiting,
        a_value_that_stalls_keeps_no_deadline_waiting,
        a_peer_that_takes_nothing_keeps_no_deadline_waiting,
        a_stream_that_ends_inside_a_value_says_so,
        a_pack_that_is_none_says_so,
        an_iterator_over_a_ring_that_is_none_ends,
        an_iterator_over_a_ring_that_is_too_large_ends,
        what_is_no_value_is_one_error,
        a_deadline_is_kept_while_another_call_has_the_link,
        a_call_that_waits_for_the_link_as_long_as_it_takes_is_woken,
        several_threads_send_over_one_pipe,
        a_buffer_can_be_waited_for,
        a_link_gives_itself_back,
        a_link_of_ones_own_carries_values,
    ]
}

type Job = (u32, String);

/// Runs over any link.
fn worker(jobs: Receiver<Job, impl Link>, results: Sender<u64, impl Link>) {
    for job in jobs.iter() {
        let (number, text) = job.unwrap();
        results.send(u64::from(number) + text.len() as u64).unwrap();
    }
    results.close().unwrap();
}

fn master(jobs: Sender<Job, impl Link>, results: Receiver<u64, impl Link>) {
    for number in 0..1000 {
        jobs.send((number, "x".repeat(number as usize % 50))).unwrap();
    }
    jobs.close().unwrap();
    for number in 0..1000 {
        assert_eq!(results.recv().unwrap(), Some(number + number % 50));
    }
    assert_eq!(results.recv().unwrap(), None);
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (here, listener.accept().unwrap().0)
}

fn one_worker_runs_over_every_link() {
    let ((jobs, to_do), (results, done)) = (ipc::channel().unwrap(), ipc::channel().unwrap());
    let child = fork((to_do, results), |(jobs, results)| worker(jobs, results)).unwrap();
    // Blocks when the worker's results fill their queue, so they are received meanwhile.
    let receiver = fork(done, |done| assert_eq!(done.iter().map(Result::unwrap).count(), 1000)).unwrap();
    for number in 0..1000 {
        jobs.send((number, String::new())).unwrap();
    }
    drop(jobs);
    assert_eq!((exit_code(&child), exit_code(&receiver)), (0, 0));

    let (there, back) = (datagram_pair().unwrap(), datagram_pair().unwrap());
    let child = fork((there.child, back.child), |(jobs, results)| {
        worker(Receiver::new(PackedSocket::new(jobs)), Sender::new(PackedSocket::new(results)));
    })
    .unwrap();
    master(Sender::new(PackedSocket::new(there.parent)), Receiver::new(PackedSocket::new(back.parent)));
    assert_eq!(exit_code(&child), 0);

    let ((to_do, jobs), (done, results)) = (pipe().unwrap(), pipe().unwrap());
    let child = fork((to_do, results), |(jobs, results)| {
        worker(Receiver::new(MessageReader::new(jobs)), Sender::new(MessageWriter::new(results)));
    })
    .unwrap();
    master(Sender::new(MessageWriter::new(jobs)), Receiver::new(MessageReader::new(done)));
    assert_eq!(exit_code(&child), 0);

    let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
    let child = fork((there.child, back.child), |(jobs, results): (StreamSocket, StreamSocket)| {
        worker(Receiver::new(MessageReader::new(jobs)), Sender::new(MessageWriter::new(results)));
    })
    .unwrap();
    master(Sender::new(MessageWriter::new(there.parent)), Receiver::new(MessageReader::new(back.parent)));
    assert_eq!(exit_code(&child), 0);

    let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
    let child = fork((there.child, back.child), |(jobs, results)| {
        let (jobs, results) = (RingReader::new(jobs).unwrap(), RingWriter::new(results).unwrap());
        worker(Receiver::new(MessageReader::new(jobs)), Sender::new(MessageWriter::new(results)));
    })
    .unwrap();
    let (jobs, results) = (RingWriter::new(there.parent).unwrap(), RingReader::new(back.parent).unwrap());
    master(Sender::new(MessageWriter::new(jobs)), Receiver::new(MessageReader::new(results)));
    assert_eq!(exit_code(&child), 0);

    // A fork would leave a copy of these open in the child, as they are no ends of the crate.
    let ((jobs, to_do), (results, done)) = (tcp_pair(), tcp_pair());
    thread::scope(|scope| {
        scope.spawn(|| {
            worker(Receiver::new(MessageReader::new(to_do)), Sender::new(MessageWriter::new(results)));
        });
        master(Sender::new(MessageWriter::new(jobs)), Receiver::new(MessageReader::new(done)));
    });
}

fn streamed<T>() -> (Sender<T, MessageWriter>, Receiver<T, MessageReader>) {
    let (reader, writer) = pipe().unwrap();
    (Sender::new(MessageWriter::new(writer)), Receiver::new(MessageReader::new(reader)))
}

fn packed<T>() -> (Sender<T, PackedSocket>, Receiver<T, PackedSocket>) {
    let pair = datagram_pair().unwrap();
    (Sender::new(PackedSocket::new(pair.parent)), Receiver::new(PackedSocket::new(pair.child)))
}

fn values_wait_in_a_buffer_until_they_are_flushed() {
    let (sender, receiver) = packed::<u8>();
    sender.send(1).unwrap();
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    sender.flush().unwrap();
    assert_eq!(receiver.recv_timeout(FAR).unwrap(), Some(1));
    let (sender, receiver) = streamed::<u8>();
    sender.try_send(1).unwrap();
    sender.send_timeout(2, FAR).unwrap();
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    sender.try_flush().unwrap();
    assert_eq!(receiver.try_recv().unwrap(), Some(1));
    sender.flush_timeout(FAR).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(2));
}

fn dropping_sends_what_waits() {
    let (sender, receiver) = streamed::<u8>();
    sender.send(1).unwrap();
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), Some(1));
    assert_eq!(receiver.recv().unwrap(), None);
}

fn closing_tells_what_was_lost() {
    let (sender, receiver) = streamed::<u8>();
    sender.send(1).unwrap();
    drop(receiver);
    assert!(matches!(sender.close(), Err(Error::Closed)));
    let (sender, receiver) = packed::<u8>();
    sender.send(1).unwrap();
    receiver.close().unwrap();
    assert!(matches!(sender.close(), Err(Error::Closed)));
}

fn a_value_with_ends_is_refused() {
    let (reader, writer) = pipe().unwrap();
    let (sender, receiver) = streamed::<(u8, Option<PipeWriter>)>();
    let unsent = sender.send((1, Some(writer))).unwrap_err();
    assert!(matches!(unsent.error, Error::CannotCarry), "{unsent:?}");
    let (sender_, receiver_) = packed::<(u8, Option<PipeWriter>)>();
    let unsent = sender_.send(unsent.value).unwrap_err();
    assert!(matches!(unsent.error, Error::CannotCarry), "{unsent:?}");
    let mut writer = unsent.value.1.unwrap();
    std::io::Write::write_all(&mut writer, b"x").unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
    // Nothing was sent, and others are.
    sender.send((2, None)).unwrap();
    sender_.send((2, None)).unwrap();
    drop((sender, sender_));
    assert_eq!(receiver.iter().map(|value| value.unwrap().0).collect::<Vec<_>>(), [2]);
    assert_eq!(receiver_.iter().map(|value| value.unwrap().0).collect::<Vec<_>>(), [2]);
}

fn a_value_that_is_too_long_for_a_pack_is_refused() {
    let (sender, receiver) = packed::<String>();
    let unsent = sender.send("x".repeat(300_000)).unwrap_err();
    assert!(matches!(unsent.error, Error::TooLong { len: 300_003, .. }), "{unsent:?}");
    assert_eq!(unsent.value.len(), 300_000);
    sender.send("x".repeat(200_000)).unwrap();
    sender.flush().unwrap();
    receiver.set_max_message(1000);
    assert!(matches!(receiver.recv(), Err(Error::TooLong { len: 200_003, max: 1000 })));
    sender.send("y".to_owned()).unwrap();
    drop(sender);
    assert_eq!(receiver.recv().unwrap().unwrap(), "y");
}

fn a_value_over_the_limit_is_skipped_in_a_stream() {
    let (sender, receiver) = streamed::<String>();
    receiver.set_max_message(1000);
    let child = fork(sender.into_inner().into_inner().unwrap(), |writer| {
        let sender = Sender::<String, _>::new(MessageWriter::new(writer));
        for len in [5, 999, 2000, 0, 5 << 20, 998, 70_000, 1] {
            sender.send("x".repeat(len)).unwrap();
        }
        sender.close().unwrap();
    })
    .unwrap();
    let lens: Vec<_> = receiver
        .iter()
        .map(|value| match value {
            Ok(text) => Ok(text.len()),
            Err(Error::TooLong { len, max: 1000 }) => Err(len),
            Err(error) => panic!("{error:?}"),
        })
        .collect();
    let over = 5 << 20;
    assert_eq!(lens, [Ok(5), Err(1001), Err(2002), Ok(0), Err(over + 4), Ok(998), Err(70_003), Ok(1)]);
    assert_eq!(exit_code(&child), 0);
}

fn a_value_that_there_is_no_memory_for_stays() {
    fn stays(receiver: Receiver<String, impl Link>, len: usize) {
        support::limit(libc::RLIMIT_AS, |_| support::own_size() as libc::rlim_t);
        let free = || {
            let mut memory = Vec::<u8>::new();
            memory.try_reserve_exact(100_000).ok().map(|()| memory)
        };
        let taken: Vec<_> = std::iter::from_fn(free).collect();
        let refused = [receiver.recv(), receiver.try_recv(), receiver.recv_timeout(FAR)];
        support::limit(libc::RLIMIT_AS, |limit| limit.rlim_max);
        drop(taken);
        for refused in refused {
            assert_eq!(support::refused(refused), ("malloc", libc::ENOMEM));
        }
        assert_eq!(receiver.recv().unwrap().map(|text| text.len()), Some(len));
    }
    fn send_twice(sender: Sender<String, impl Link>, len: usize) -> ipc::Result<()> {
        for _ in 0..2 {
            sender.send("x".repeat(len))?;
        }
        sender.close()
    }
    let pair = datagram_pair().unwrap();
    let child = fork(pair.child, |socket| send_twice(Sender::new(PackedSocket::new(socket)), 200_000)).unwrap();
    let mut packed = PackedSocket::new(pair.parent);
    packed.recv().unwrap(); // its buffer is that long from here on
    stays(Receiver::new(packed), 200_000);
    assert_eq!(exit_code(&child), 0);

    let (reader, writer) = pipe().unwrap();
    let child = fork(writer, |writer| send_twice(Sender::new(MessageWriter::new(writer)), 1_000_000)).unwrap();
    let mut reader = MessageReader::new(reader);
    reader.recv().unwrap();
    stays(Receiver::new(reader), 1_000_000); // longer than the memory that the thread keeps
    assert_eq!(exit_code(&child), 0);
}

fn a_pack_has_values_up_to_the_limit() {
    let (sender, receiver) = packed::<Vec<u8>>();
    receiver.set_max_message(10); // with the length of the vector
    for len in [9, 10, 9] {
        sender.send(vec![7; len]).unwrap();
    }
    sender.flush().unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(vec![7; 9]));
    assert!(matches!(receiver.recv(), Err(Error::TooLong { len: 11, max: 10 })));
    assert_eq!(receiver.recv().unwrap(), Some(vec![7; 9]));
}

fn the_limit_of_a_message_reader_is_its_receivers() {
    let (reader, writer) = pipe().unwrap();
    let sender = Sender::<String, _>::new(MessageWriter::new(writer));
    let mut reader = MessageReader::new(reader);
    reader.set_max_message(1000);
    let receiver = Receiver::<String, _>::new(reader);
    let send = |len| {
        sender.send("x".repeat(len)).unwrap();
        sender.flush().unwrap();
    };
    send(2000);
    assert!(matches!(receiver.recv(), Err(Error::TooLong { max: 1000, .. })));
    // A limit that is set later is the one that counts, and stays with the reader.
    receiver.set_max_message(3000);
    send(2000);
    assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(2000));
    let receiver = Receiver::<String, _>::new(receiver.into_inner());
    assert_eq!(receiver.max_message(), 3000);
    send(3000);
    assert!(matches!(receiver.recv(), Err(Error::TooLong { max: 3000, .. })));
}

fn a_skipped_value_that_stalls_keeps_no_deadline_waiting() {
    let (reader, mut writer) = pipe().unwrap();
    let receiver = Receiver::<String, _>::new(MessageReader::new(reader));
    receiver.set_max_message(100);
    // A message of 1000 bytes, of which 10 are there.
    std::io::Write::write_all(&mut writer, &[&1000_u32.to_le_bytes()[..], &[0; 10]].concat()).unwrap();
    assert!(matches!(receiver.recv(), Err(Error::TooLong { len: 1000, max: 100 })));
    assert_times_out("the rest", Duration::from_millis(20), |timeout| receiver.recv_timeout(timeout));
    assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
    std::io::Write::write_all(&mut writer, &[&[0; 990][..], &2_u32.to_le_bytes(), &[1, b'x']].concat()).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), "x");
    std::io::Write::write_all(&mut writer, &[&1000_u32.to_le_bytes()[..], &[0; 10]].concat()).unwrap();
    drop(writer);
    assert!(matches!(receiver.recv(), Err(Error::TooLong { .. })));
    assert!(matches!(receiver.recv(), Err(Error::Truncated { expected: Some(1000), .. })));
    assert!(receiver.recv().unwrap().is_none());
}

fn a_value_that_stalls_keeps_no_deadline_waiting() {
    let (reader, mut writer) = pipe().unwrap();
    let receiver = Receiver::<serde_bytes::ByteBuf, _>::new(MessageReader::new(reader));
    let value = postcard::to_allocvec(&serde_bytes::ByteBuf::from(vec![7; 30_000])).unwrap();
    std::io::Write::write_all(&mut writer, &[&(value.len() as u32).to_le_bytes()[..], &value[..20_000]].concat())
        .unwrap();
    for _ in 0..3 {
        assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
        assert_times_out("the rest", Duration::from_millis(20), |timeout| receiver.recv_timeout(timeout));
    }
    std::io::Write::write_all(&mut writer, &value[20_000..]).unwrap();
    assert_eq!(receiver.try_recv().unwrap().unwrap(), vec![7; 30_000]);
}

fn a_peer_that_takes_nothing_keeps_no_deadline_waiting() {
    fn waits_no_longer(sender: &Sender<Vec<u8>, impl Link>) {
        let value = || vec![7; 1000];
        while sender.try_send(value()).is_ok() {}
        assert!(matches!(sender.try_send(value()).unwrap_err().error, Error::WouldBlock));
        assert!(matches!(sender.try_flush(), Err(Error::WouldBlock)));
        let timeout = Duration::from_millis(20);
        assert_times_out("a value", timeout, |timeout| Ok(sender.send_timeout(value(), timeout)?));
        assert_times_out("the rest", timeout, |timeout| sender.flush_timeout(timeout));
    }
    let (sender, receiver) = streamed::<Vec<u8>>();
    waits_no_longer(&sender);
    drop(receiver);
    let pair = datagram_pair().unwrap();
    waits_no_longer(&Sender::new(PackedSocket::new(pair.parent)));
}

fn a_stream_that_ends_inside_a_value_says_so() {
    let (reader, mut writer) = pipe().unwrap();
    let receiver = Receiver::<String, _>::new(MessageReader::new(reader));
    std::io::Write::write_all(&mut writer, &[5, 0, 0, 0, 4, b'a']).unwrap();
    drop(writer);
    assert!(matches!(receiver.recv(), Err(Error::Truncated { expected: Some(5), .. })));
    assert!(receiver.recv().unwrap().is_none());
}

fn a_pack_that_is_none_says_so() {
    let pair = datagram_pair().unwrap();
    let receiver = Receiver::<u8, _>::new(PackedSocket::new(pair.child));
    pair.parent.send(&[9, 9, 9]).unwrap();
    pair.parent.send(&[1, 0, 0, 0, 7]).unwrap();
    let mut values = receiver.iter();
    assert!(matches!(values.next(), Some(Err(Error::Malformed { message })) if message == [9, 9, 9]));
    assert_eq!(values.next().unwrap().unwrap(), 7);
}

fn an_iterator_over_a_ring_that_is_none_ends() {
    let pair = stream_pair().unwrap();
    let mut peer = pair.parent;
    std::io::Write::write_all(&mut peer, &[7; 64]).unwrap();
    let mut reader = MessageReader::new(RingReader::new(pair.child).unwrap());
    let is_malformed = |error: &Error| matches!(error, Error::Malformed { .. });
    let errors: Vec<_> = reader.iter().take(3).map(Result::unwrap_err).collect();
    assert!(errors.len() == 1 && is_malformed(&errors[0]), "{errors:?}");
    let receiver = Receiver::<u8, _>::new(reader);
    let errors: Vec<_> = receiver.try_iter().take(3).map(Result::unwrap_err).collect();
    assert!(errors.len() == 1 && is_malformed(&errors[0]), "{errors:?}");
    let errors: Vec<_> = receiver.into_iter().take(3).map(Result::unwrap_err).collect();
    assert!(errors.len() == 1 && is_malformed(&errors[0]), "{errors:?}");
}

fn an_iterator_over_a_ring_that_is_too_large_ends() {
    let pair = stream_pair().unwrap();
    let _writer = RingWriter::with_capacity(pair.parent, 8192).unwrap();
    let mut ring = RingReader::new(pair.child).unwrap();
    ring.set_max_capacity(4096);
    let receiver = Receiver::<u8, _>::new(MessageReader::new(ring));
    for _ in 0..2 {
        let errors: Vec<_> = receiver.iter().take(3).map(Result::unwrap_err).collect();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("set_max_capacity"), "{errors:?}");
    }
}

fn what_is_no_value_is_one_error() {
    let (sender, receiver) = streamed::<(u8, u8)>();
    sender.send((1, 2)).unwrap();
    sender.send((3, 4)).unwrap();
    drop(sender);
    let receiver = Receiver::<u8, _>::new(receiver.into_inner());
    let values: Vec<_> = receiver.iter().map(|value| value.is_err()).collect();
    assert_eq!(values, [true, true]);
}

fn a_deadline_is_kept_while_another_call_has_the_link() {
    let (sender, receiver) = streamed::<u8>();
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let receiver = &receiver;
        scope.spawn(move || {
            tell.send(()).unwrap();
            assert_eq!(receiver.recv().unwrap(), Some(7)); // has the link until then
        });
        told.recv().unwrap();
        for _ in 0..3 {
            assert_times_out("another call has it", Duration::from_millis(30), |timeout| {
                receiver.recv_timeout(timeout)
            });
        }
        assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock)));
        sender.send(7).unwrap();
        sender.flush().unwrap();
    });
    // And it is taken over when it becomes free, with a deadline and without.
    thread::scope(|scope| {
        let receiver = &receiver;
        let receive = |number| match number % 2 {
            0 => receiver.recv().unwrap().unwrap(),
            _ => receiver.recv_timeout(FAR).unwrap().unwrap(),
        };
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || receive(number))).collect();
        for number in 0..4 {
            sender.send(number).unwrap();
            sender.flush().unwrap();
        }
        let mut numbers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
    });
}

/// At first it looks by itself now and then.
fn a_call_that_waits_for_the_link_as_long_as_it_takes_is_woken() {
    let (sender, receiver) = streamed::<u8>();
    let (tell, told) = mpsc::channel();
    let receive = || {
        // SAFETY: it has no conditions.
        tell.send(unsafe { libc::gettid() }).unwrap();
        receiver.recv().unwrap().unwrap()
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(receive), scope.spawn(receive)];
        for tid in [told.recv().unwrap(), told.recv().unwrap()] {
            // One has the link, and waits for the pipe. The other one waits for the link, without a time.
            poll_until("it sleeps", || {
                let Ok(call) = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")) else {
                    return true; // not every kernel shows it
                };
                let mut words = call.split_whitespace();
                match words.next().and_then(|call| call.parse().ok()) {
                    Some(libc::SYS_futex) => words.nth(3) == Some("0x0"),
                    call => matches!(call, Some(libc::SYS_read | libc::SYS_readv | libc::SYS_preadv2)),
                }
            });
        }
        for number in [1, 2] {
            sender.send(number).unwrap();
            sender.flush().unwrap();
        }
        let sum: u8 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 3);
    });
}

fn several_threads_send_over_one_pipe() {
    let (sender, receiver) = streamed::<Vec<u8>>();
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let sender = &sender;
            scope.spawn(move || {
                for len in 0..500 {
                    sender.send_timeout(vec![number; len], FAR).unwrap();
                }
            });
        }
        for _ in 0..2000 {
            let value = loop {
                match receiver.recv_timeout(Duration::from_millis(5)) {
                    Ok(value) => break value.unwrap(),
                    // One of the others may be waiting for room, with the link.
                    Err(Error::TimedOut) => match sender.try_flush() {
                        Ok(()) | Err(Error::WouldBlock) => {}
                        Err(error) => panic!("{error:?}"),
                    },
                    Err(error) => panic!("{error:?}"),
                }
            };
            assert!(value.iter().all(|byte| *byte == value[0]));
        }
    });
}

fn a_buffer_can_be_waited_for() {
    let (sender, mut receiver) = packed::<u8>();
    assert_eq!(wait_any(&mut [receiver.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 0);
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    sender.flush().unwrap();
    for number in [1, 2] {
        assert_eq!(wait_any(&mut [receiver.watch().unwrap()], Some(FAR)).unwrap(), 1);
        assert_eq!(receiver.try_recv().unwrap(), Some(number));
    }
    let (sender, mut receiver) = streamed::<u8>();
    sender.send(1).unwrap();
    sender.flush().unwrap();
    assert_eq!(wait_any(&mut [receiver.watch().unwrap()], Some(FAR)).unwrap(), 1);
}

fn a_link_gives_itself_back() {
    let (sender, receiver) = streamed::<u8>();
    sender.send(1).unwrap();
    let sender = Sender::<u8, _>::new(sender.into_inner());
    sender.send(2).unwrap();
    assert!(format!("{sender:?}").contains("MessageWriter"));
    sender.close().unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(1));
    let receiver = Receiver::<u8, _>::new(receiver.into_inner());
    assert_eq!(receiver.recv().unwrap(), Some(2));
}

/// Messages through a queue of this process.
#[derive(Debug)]
struct Queue(mpsc::SyncSender<Vec<u8>>);
#[derive(Debug)]
struct Unqueue(mpsc::Receiver<Vec<u8>>);

impl Link for Queue {
    type Shared = Self;

    fn share(self) -> Self {
        self
    }

    fn unshare(shared: Self) -> Self {
        shared
    }

    fn send(shared: &Self, message: Outbound<'_>, until: Until) -> ipc::Result<()> {
        assert_eq!(message.ends_len(), 0);
        match shared.0.try_send(message.bytes().to_vec()) {
            Ok(()) => Ok(()),
            Err(mpsc::TrySendError::Disconnected(_)) => Err(Error::Closed),
            Err(mpsc::TrySendError::Full(message)) => match until.left() {
                None => shared.0.send(message).map_err(|_| Error::Closed),
                Some(_) => Err(until.error()),
            },
        }
    }

    fn close(self) -> ipc::Result<()> {
        Ok(())
    }
}

impl Outgoing for Queue {}

impl Link for Unqueue {
    type Shared = Locked<Self>;

    fn share(self) -> Locked<Self> {
        Locked::new(self)
    }

    fn unshare(shared: Locked<Self>) -> Self {
        shared.into_inner()
    }

    fn recv<R>(
        shared: &Locked<Self>,
        max: usize,
        until: Until,
        take: impl FnOnce(&[u8], Received) -> R,
    ) -> ipc::Result<Option<R>> {
        let received = match until.left() {
            None => shared.lock(until)?.0.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(left) => shared.lock(until)?.0.recv_timeout(left),
        };
        match received {
            Ok(message) if message.len() > max => Err(Error::TooLong { len: message.len(), max }),
            Ok(message) => Ok(Some(take(&message, Received::default()))),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(until.error()),
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    fn close(self) -> ipc::Result<()> {
        Ok(())
    }
}

impl Incoming for Unqueue {}

fn a_link_of_ones_own_carries_values() {
    let (there, jobs) = mpsc::sync_channel(4);
    let (results, back) = mpsc::sync_channel(4);
    thread::scope(|scope| {
        scope.spawn(|| worker(Receiver::new(Unqueue(jobs)), Sender::new(Queue(results))));
        let (jobs, results) = (Sender::<Job, _>::new(Queue(there)), Receiver::<u64, _>::new(Unqueue(back)));
        assert!(matches!(results.try_recv(), Err(Error::WouldBlock)));
        assert_times_out("nothing", Duration::from_millis(10), |timeout| results.recv_timeout(timeout));
        jobs.send((1, "x".to_owned())).unwrap();
        assert_eq!(results.recv().unwrap(), Some(2));
        jobs.close().unwrap();
        assert_eq!(results.recv().unwrap(), None);
    });
}
