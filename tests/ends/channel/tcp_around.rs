//! Streams around a connection, as for TLS, that answer something else than bytes or read ahead; and a connection that is gone.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::tcp::{framed, greeted, hello, short};
use crate::support::{self, FAR, Trial, tcp_pair};
use ipc::{Error, Receiver, Sender, TcpLink, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        an_interrupted_stream_is_asked_again,
        a_stream_that_takes_nothing_is_an_error,
        a_stream_that_was_closed_is_closed,
        what_a_stream_holds_is_sent_once_and_by_the_next_flush,
        a_flush_waits_longer_than_the_deadline_for_a_peer_that_is_there,
        closing_waits_for_what_a_stream_holds,
        a_greeting_that_is_out_of_time_has_no_last_word,
        what_a_stream_has_read_can_be_waited_for,
        what_a_stream_reads_while_it_is_written_to_wakes_who_waits,
        how_a_stream_ends_while_it_is_written_to_is_told_to_who_waits,
        a_sender_of_a_connection_that_was_reset_closes_well,
        the_end_arrives_although_the_stream_cannot_tell_it,
        a_machine_without_a_way_to_it_has_vanished,
    ]
}

/// The next answers, the last one first. With none left, it works.
#[derive(Default)]
struct Answers {
    reads: Mutex<Vec<ErrorKind>>,
    /// `None`: it takes no byte.
    writes: Mutex<Vec<Option<ErrorKind>>>,
    flushes: Mutex<Vec<ErrorKind>>,
}

/// Holds what was written until it is flushed.
struct Stubborn {
    socket: TcpStream,
    held: Vec<u8>,
    answers: Arc<Answers>,
}

impl Read for Stubborn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.answers.reads.lock().unwrap().pop() {
            Some(kind) => Err(kind.into()),
            None => self.socket.read(buf),
        }
    }
}

impl Write for Stubborn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.answers.writes.lock().unwrap().pop() {
            Some(kind) => kind.map_or(Ok(0), |kind| Err(kind.into())),
            None => self.held.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.answers.flushes.lock().unwrap().pop() {
            Some(kind) => Err(kind.into()),
            None => self.socket.write_all(&std::mem::take(&mut self.held)),
        }
    }
}

/// A link over such a stream, and the bare peer, which has read the hello.
fn stubborn() -> (TcpLink, TcpStream, Arc<Answers>) {
    let (here, mut there) = tcp_pair();
    there.write_all(&hello(1 << 20, 0)).unwrap();
    let answers = Arc::<Answers>::default();
    let stream = Stubborn { socket: here.try_clone().unwrap(), held: Vec::new(), answers: Arc::clone(&answers) };
    let link = short().greet_over(stream, here, |_| Ok(())).unwrap();
    there.set_read_timeout(Some(FAR)).unwrap();
    there.read_exact(&mut [0; 32]).unwrap();
    (link, there, answers)
}

/// All that arrives until EOF.
fn rest(mut there: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    there.read_to_end(&mut bytes).unwrap();
    bytes
}

fn an_interrupted_stream_is_asked_again() {
    let (link, mut there, answers) = stubborn();
    let (sender, receiver) = (Sender::<u8, _>::new(link.writer), Receiver::<u8, _>::new(link.reader));
    there.write_all(&framed(&[7])).unwrap();
    answers.reads.lock().unwrap().push(ErrorKind::Interrupted);
    assert_eq!(receiver.recv().unwrap(), Some(7));
    answers.writes.lock().unwrap().push(Some(ErrorKind::Interrupted));
    sender.send(8).unwrap();
    sender.close().unwrap();
    assert_eq!(rest(there), framed(&[8]));
}

fn a_stream_that_takes_nothing_is_an_error() {
    let (link, _there, answers) = stubborn();
    let sender = Sender::<u8, _>::new(link.writer);
    sender.send(7).unwrap();
    answers.writes.lock().unwrap().push(None);
    let refused = sender.flush().unwrap_err();
    let Error::System { call: "write", source } = &refused else { panic!("{refused:?}") };
    assert_eq!(source.kind(), ErrorKind::WriteZero);
}

fn a_stream_that_was_closed_is_closed() {
    for kind in [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset] {
        let (link, _there, answers) = stubborn();
        let sender = Sender::<u8, _>::new(link.writer);
        sender.send(7).unwrap();
        answers.writes.lock().unwrap().push(Some(kind));
        assert!(matches!(sender.flush(), Err(Error::Closed)), "{kind}");
        assert!(matches!(sender.send(8).unwrap_err().error, Error::Closed), "{kind}");
    }
}

fn what_a_stream_holds_is_sent_once_and_by_the_next_flush() {
    let (link, there, answers) = stubborn();
    let sender = Sender::<u8, _>::new(link.writer);
    sender.send(7).unwrap();
    *answers.flushes.lock().unwrap() = vec![ErrorKind::WouldBlock; 2];
    assert!(matches!(sender.try_flush(), Err(Error::WouldBlock)));
    sender.flush().unwrap();
    there.set_nonblocking(true).unwrap();
    support::poll_until("it is there", || there.peek(&mut [0]).is_ok());
    there.set_nonblocking(false).unwrap();
    sender.close().unwrap();
    assert_eq!(rest(there), framed(&[7]));
}

/// Reads all that is there, and gives out no more than one framed byte at a time.
struct Ahead {
    socket: TcpStream,
    read: VecDeque<u8>,
}

impl Read for Ahead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.read.is_empty() {
            let mut more = [0; 1024];
            let count = self.socket.read(&mut more)?;
            self.read.extend(&more[..count]);
        }
        let most = buf.len().min(framed(&[0]).len());
        self.read.read(&mut buf[..most])
    }
}

impl Write for Ahead {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn a_flush_waits_longer_than_the_deadline_for_a_peer_that_is_there() {
    let (link, there, answers) = stubborn();
    let sender = Sender::<u8, _>::new(link.writer);
    sender.send(7).unwrap();
    // It is asked again every 10 ms, for longer than the deadline of 3 s. The kernel of the peer answers all that time.
    *answers.flushes.lock().unwrap() = vec![ErrorKind::WouldBlock; 500];
    let started = Instant::now();
    sender.flush().unwrap();
    assert!(started.elapsed() > Duration::from_secs(3), "the flush did not wait");
    sender.close().unwrap();
    assert_eq!(rest(there), framed(&[7]));
}

fn what_a_stream_has_read_can_be_waited_for() {
    let (here, mut there) = tcp_pair();
    there.write_all(&hello(1 << 20, 0)).unwrap();
    let stream = Ahead { socket: here.try_clone().unwrap(), read: VecDeque::new() };
    let link = short().greet_over(stream, here, |_| Ok(())).unwrap();
    let mut values = Receiver::<u8, _>::new(link.reader);
    there.write_all(&[framed(&[7]), framed(&[8])].concat()).unwrap();
    assert_eq!(values.recv().unwrap(), Some(7));
    // The connection has nothing any more, and the stream has.
    assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(FAR)).unwrap(), 1);
    assert_eq!(values.try_recv().unwrap(), Some(8));
    assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
}

fn a_sender_of_a_connection_that_was_reset_closes_well() {
    let (link, there) = greeted(&short());
    let (sender, receiver) = (Sender::<u8, _>::new(link.writer), Receiver::<u8, _>::new(link.reader));
    sender.send(7).unwrap();
    sender.flush().unwrap();
    there.peek(&mut [0]).unwrap();
    drop(there); // with the value unread
    assert!(matches!(receiver.recv(), Err(Error::Reset)));
    sender.close().unwrap();
}

fn closing_waits_for_what_a_stream_holds() {
    let (link, there, answers) = stubborn();
    let sender = Sender::<u8, _>::new(link.writer);
    sender.send(7).unwrap();
    // It is asked again every 10 ms, for longer than a turn and the second of a destructor.
    *answers.flushes.lock().unwrap() = vec![ErrorKind::WouldBlock; 300];
    sender.close().unwrap();
    drop(link.reader);
    assert_eq!(rest(there), framed(&[7]));
    // Dropping waits for a second.
    let (link, there, answers) = stubborn();
    let sender = Sender::<u8, _>::new(link.writer);
    sender.send(7).unwrap();
    *answers.flushes.lock().unwrap() = vec![ErrorKind::WouldBlock; 90];
    drop((sender, link.reader));
    assert_eq!(rest(there), framed(&[7]));
}

fn a_greeting_that_is_out_of_time_has_no_last_word() {
    let (here, _there) = tcp_pair();
    let said = Arc::new(Mutex::new(0));
    let count = Arc::clone(&said);
    let late = short().greet_over(here.try_clone().unwrap(), here, move |_| {
        *count.lock().unwrap() += 1;
        Err(ErrorKind::WouldBlock.into())
    });
    assert!(matches!(late, Err(Error::TimedOut)));
    assert_eq!(*said.lock().unwrap(), 0, "it was waited for after the deadline");
}

/// Reads all that is there while it is written to, as TLS does where there is no room.
struct Greedy {
    socket: TcpStream,
    read: VecDeque<u8>,
    /// How it ended meanwhile, which is told once.
    ended: Option<ErrorKind>,
}

impl Read for Greedy {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.ended.take_if(|_| self.read.is_empty()) {
            Some(kind) => Err(kind.into()),
            None if self.read.is_empty() => self.socket.read(buf),
            None => self.read.read(buf),
        }
    }
}

impl Write for Greedy {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut more = [0; 1024];
        match self.socket.read(&mut more) {
            Ok(0) => self.ended = Some(ErrorKind::UnexpectedEof),
            Ok(count) => self.read.extend(&more[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both directions over such a stream; the bare peer; and the socket, to see what has arrived there.
fn greedy() -> (Receiver<u8, ipc::TcpReader>, Sender<u8, ipc::TcpWriter>, TcpStream, TcpStream) {
    let (here, mut there) = tcp_pair();
    there.write_all(&hello(1 << 20, 0)).unwrap();
    let socket = here.try_clone().unwrap();
    let stream = Greedy { socket: here.try_clone().unwrap(), read: VecDeque::new(), ended: None };
    let link = short().greet_over(stream, here, |_| Ok(())).unwrap();
    (Receiver::new(link.reader), Sender::new(link.writer), there, socket)
}

fn what_a_stream_reads_while_it_is_written_to_wakes_who_waits() {
    let (mut values, sender, mut there, socket) = greedy();
    for number in 0..3 {
        assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
        there.write_all(&[framed(&[number]), framed(&[7])].concat()).unwrap();
        support::poll_until("it is there", || socket.peek(&mut [0; 10]).is_ok_and(|count| count == 10));
        sender.send(1).unwrap();
        sender.flush().unwrap();
        assert!(socket.peek(&mut [0]).is_err(), "the stream has read it");
        assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(FAR)).unwrap(), 1);
        assert_eq!(values.try_recv().unwrap(), Some(number));
        assert_eq!(values.recv().unwrap(), Some(7));
        assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
        assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 0, "it is rung no more");
    }
}

fn how_a_stream_ends_while_it_is_written_to_is_told_to_who_waits() {
    let (mut values, sender, there, socket) = greedy();
    assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
    there.shutdown(std::net::Shutdown::Write).unwrap();
    support::poll_until("it is there", || socket.peek(&mut [0]).is_ok_and(|count| count == 0));
    sender.send(1).unwrap();
    sender.flush().unwrap();
    assert_eq!(wait_any(&mut [values.watch().unwrap()], Some(FAR)).unwrap(), 1);
    assert!(matches!(values.try_recv(), Err(Error::Reset)));
}

fn the_end_arrives_although_the_stream_cannot_tell_it() {
    // It fails; or it has no room for its last word.
    for kind in [ErrorKind::Other, ErrorKind::WouldBlock] {
        for closes in [true, false] {
            let (here, mut there) = tcp_pair();
            there.write_all(&hello(1 << 20, 0)).unwrap();
            let stream = here.try_clone().unwrap();
            let link = short().greet_over(stream, here, move |_| Err(kind.into())).unwrap();
            let (sender, reader) = (Sender::<u8, _>::new(link.writer), link.reader);
            sender.send(7).unwrap();
            match closes {
                true => assert!(sender.close().is_err(), "{kind}"),
                false => drop(sender),
            }
            // The receiver keeps the connection open.
            there.set_read_timeout(Some(FAR)).unwrap();
            assert_eq!(rest(there)[32..], framed(&[7]), "{kind}");
            drop(reader);
        }
    }
}

/// Says hello, and then once that the way is lost, as the kernel does where a router or its own tables say so.
struct Lost {
    hello: Vec<u8>,
    errno: Option<i32>,
}

impl Read for Lost {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.hello.is_empty() {
            return Err(self.errno.take().map_or(ErrorKind::WouldBlock.into(), io::Error::from_raw_os_error));
        }
        let count = self.hello.len().min(buf.len());
        buf[..count].copy_from_slice(&self.hello[..count]);
        self.hello.drain(..count);
        Ok(count)
    }
}

impl Write for Lost {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn a_machine_without_a_way_to_it_has_vanished() {
    for errno in [libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EHOSTDOWN, libc::ENETDOWN] {
        let (here, _there) = tcp_pair();
        let stream = Lost { hello: hello(1 << 20, 0), errno: Some(errno) };
        let link = short().greet_over(stream, here, |_| Ok(())).unwrap();
        let (values, jobs) = (Receiver::<u8, _>::new(link.reader), Sender::new(link.writer));
        for _ in 0..2 {
            assert_eq!(support::refused(values.recv()), ("recv", libc::ETIMEDOUT), "{errno}");
        }
        // The other half knows, and so does its end.
        jobs.send(1_u8).unwrap();
        assert_eq!(support::refused(jobs.flush()), ("recv", libc::ETIMEDOUT), "{errno}");
        assert_eq!(support::refused(jobs.close()), ("recv", libc::ETIMEDOUT), "{errno}");
    }
}
