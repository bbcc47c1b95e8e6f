//! What is used all the time allocates nothing (P11).

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{self, Sigpipe, Trial, fill, refuse_flags, sigpipe, spliced_once};
use ipc::{
    BufferedWriter, ByteReader, ByteWriter, Error, MessageReader, MessageWriter, PackedSocket, RingReader, RingWriter,
    Watch, datagram_pair, pipe, stream_pair, wait_any,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all of it is the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

pub fn trials() -> Vec<Trial> {
    #[allow(unused_mut)]
    let mut trials = support::trials![
        allocations_are_counted,
        reading_and_writing_allocate_nothing,
        reading_and_writing_a_pipe_that_was_spliced_allocate_nothing,
        writing_with_sigpipe_at_its_default_allocates_nothing,
        writing_without_the_flag_against_sigpipe_allocates_nothing,
        what_there_is_nothing_to_do_for_allocates_nothing,
        looking_again_allocates_nothing,
        messages_allocate_nothing,
        a_message_as_a_vector_is_one_allocation,
        streams_allocate_nothing,
        rings_allocate_nothing,
        waiting_allocates_nothing,
        packed_messages_allocate_nothing,
        messages_through_a_pipe_allocate_nothing,
        messages_over_sockets_allocate_nothing,
        a_message_in_two_parts_allocates_nothing,
        buffered_writes_allocate_nothing,
    ];
    #[cfg(feature = "channel")]
    trials.extend(support::trials![
        values_allocate_nothing,
        a_value_of_64_kib_allocates_nothing,
        sending_a_value_of_mebibytes_allocates_nothing,
        sending_ends_in_a_value_allocates_nothing,
    ]);
    trials
}

/// That nothing is allocated, the first time or later.
#[track_caller]
fn free<T>(what: &str, mut call: impl FnMut() -> T) -> T {
    let first = free_once(what, &mut call);
    let result = free_once(what, &mut call);
    drop(first);
    result
}

#[track_caller]
fn free_once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let before = ALLOCATIONS.load(SeqCst);
    let result = call();
    let count = ALLOCATIONS.load(SeqCst) - before;
    assert_eq!(count, 0, "{what} allocates");
    result
}

const SECOND: Duration = Duration::from_secs(1);

fn allocations_are_counted() {
    let before = ALLOCATIONS.load(SeqCst);
    drop(std::hint::black_box(vec![1_u8; 10]));
    drop(std::hint::black_box(vec![0_u8; 10]));
    let mut growing = std::hint::black_box(Vec::<u8>::with_capacity(1));
    growing.reserve_exact(100);
    assert_eq!(ALLOCATIONS.load(SeqCst) - before, 4);
}

fn reading_and_writing_allocate_nothing() {
    let (mut reader, mut writer) = pipe().unwrap();
    let mut buf = [0; 4096];
    free("write", || writer.write(&[1; 1000]).unwrap());
    free("read", || reader.read(&mut buf[..1000]).unwrap());
    free("a long write", || writer.write(&[1; 20_000]).unwrap());
    free("read", || {
        while reader.available().unwrap() > 0 {
            assert!(reader.read(&mut buf).unwrap() > 0);
        }
    });
    let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo"), IoSlice::new(b"")];
    free("write_vectored", || assert_eq!(writer.write_vectored(&parts).unwrap(), 5));
    let (mut one, mut two) = ([0; 2], [0; 3]);
    free("read_vectored", || {
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        assert_eq!(reader.read_vectored(&mut bufs).unwrap(), 5);
    });
    free("write_atomic", || writer.write_atomic(&[1; 1000]).unwrap());
    free("try_read", || assert_eq!(reader.try_read(&mut buf[..1000]).unwrap(), 1000));
    free("try_write", || assert_eq!(writer.try_write(b"hello").unwrap(), 5));
    free("read_timeout", || assert_eq!(reader.read_timeout(&mut buf[..5], SECOND).unwrap(), 5));
    free("write_timeout", || assert_eq!(writer.write_timeout(b"hello", SECOND).unwrap(), 5));
    free("available", || assert_eq!(reader.available().unwrap(), 10));
    free("is_closed", || assert!(!writer.is_closed().unwrap()));
    free("try_clone", || writer.try_clone().unwrap());
    free("a pipe", || pipe().unwrap());
    drop(writer);
    reader.read_exact(&mut buf[..10]).unwrap();
    free("the end", || assert_eq!(reader.read(&mut buf).unwrap(), 0));
}

fn reading_and_writing_a_pipe_that_was_spliced_allocate_nothing() {
    let (reader, writer) = pipe().unwrap();
    spliced_once(&reader);
    spliced_once(&writer);
    free("try_write", || assert_eq!(writer.try_write(b"hello").unwrap(), 5));
    free("write_timeout", || assert_eq!(writer.write_timeout(b"hello", SECOND).unwrap(), 5));
    free("try_read", || assert_eq!(reader.try_read(&mut [0; 5]).unwrap(), 5));
    free("read_timeout", || assert_eq!(reader.read_timeout(&mut [0; 5], SECOND).unwrap(), 5));
    free("try_read", || assert!(matches!(reader.try_read(&mut [0; 5]), Err(Error::WouldBlock))));
}

fn assert_writing_is_free() {
    let (_reader, mut writer) = pipe().unwrap();
    let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
    free("write", || assert_eq!(writer.write(b"hello").unwrap(), 5));
    free("write_vectored", || assert_eq!(writer.write_vectored(&parts).unwrap(), 5));
    free("write_atomic", || writer.write_atomic(b"hello").unwrap());
    free("try_write", || assert_eq!(writer.try_write(b"hello").unwrap(), 5));
    fill(&writer);
    free("try_write", || assert!(matches!(writer.try_write(b"hello"), Err(Error::WouldBlock))));
    drop(_reader);
    free("try_write", || assert!(matches!(writer.try_write(b"hello"), Err(Error::Closed))));
    free("write_atomic", || assert!(matches!(writer.write_atomic(b"hello"), Err(Error::Closed))));
}

fn writing_with_sigpipe_at_its_default_allocates_nothing() {
    sigpipe(Sigpipe::Default);
    assert_writing_is_free();
}

fn writing_without_the_flag_against_sigpipe_allocates_nothing() {
    sigpipe(Sigpipe::Default);
    refuse_flags(support::RWF_NOSIGNAL);
    assert_writing_is_free();
}

fn what_there_is_nothing_to_do_for_allocates_nothing() {
    let (reader, writer) = pipe().unwrap();
    let no_time = Duration::ZERO;
    free("try_read", || assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock))));
    free("read_timeout", || assert!(matches!(reader.read_timeout(&mut [0; 8], no_time), Err(Error::TimedOut))));
    let short = Duration::from_micros(100);
    free("read_timeout", || assert!(matches!(reader.read_timeout(&mut [0; 8], short), Err(Error::TimedOut))));
    fill(&writer);
    free("try_write", || assert!(matches!(writer.try_write(b"x"), Err(Error::WouldBlock))));
    free("write_timeout", || assert!(matches!(writer.write_timeout(b"x", short), Err(Error::TimedOut))));
    // An event loop's: without even a box around the error.
    let (mut reader, mut writer) = ipc::pipe_with(ipc::PipeFlags::NONBLOCK).unwrap();
    free("read", || assert!(reader.read(&mut [0; 8]).is_err()));
    fill(&writer);
    free("write", || assert!(writer.write(b"x").is_err()));
    let pair = datagram_pair().unwrap();
    free("try_recv", || assert!(matches!(pair.parent.try_recv(&mut [0; 8]), Err(Error::WouldBlock))));
    free("try_recv_vec", || assert!(matches!(pair.parent.try_recv_vec(), Err(Error::WouldBlock))));
    free("recv_timeout", || assert!(matches!(pair.parent.recv_timeout(&mut [0; 8], short), Err(Error::TimedOut))));
    while pair.parent.try_send(b"x").is_ok() {}
    free("try_send", || assert!(matches!(pair.parent.try_send(b"x"), Err(Error::WouldBlock))));
    free("send_timeout", || assert!(matches!(pair.parent.send_timeout(b"x", short), Err(Error::TimedOut))));
}

fn looking_again_allocates_nothing() {
    let (mut reader, mut writer) = pipe().unwrap();
    let mut pair = datagram_pair().unwrap();
    let spin = Duration::from_micros(50);
    reader.set_spin(spin);
    writer.set_spin(spin);
    pair.parent.set_spin(spin);
    free("write", || assert_eq!(writer.write(b"hello").unwrap(), 5));
    free("read", || assert_eq!(reader.read(&mut [0; 5]).unwrap(), 5));
    free("read_timeout", || assert!(reader.read_timeout(&mut [0; 5], spin * 3).is_err()));
    pair.child.send(b"hello").unwrap();
    pair.child.send(b"hello").unwrap();
    free("recv", || assert_eq!(pair.parent.recv(&mut [0; 5]).unwrap(), Some(5)));
}

fn messages_allocate_nothing() {
    let pair = datagram_pair().unwrap();
    let (from, to) = (&pair.child, &pair.parent);
    let mut buf = [0; 10_000];
    let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
    free("send", || from.send(&[1; 10_000]).unwrap());
    free("recv", || assert_eq!(to.recv(&mut buf).unwrap(), Some(10_000)));
    free("try_send", || from.try_send(b"hello").unwrap());
    free("peek_len", || assert_eq!(to.peek_len().unwrap(), Some(5)));
    free("try_recv", || assert_eq!(to.try_recv(&mut buf).unwrap(), Some(5)));
    free("send_timeout", || from.send_timeout(b"hello", SECOND).unwrap());
    free("recv_timeout", || assert_eq!(to.recv_timeout(&mut buf, SECOND).unwrap(), Some(5)));
    free("send_vectored", || from.send_vectored(&parts).unwrap());
    free("recv", || assert_eq!(to.recv(&mut buf).unwrap(), Some(5)));
    free("an empty message", || from.send(b"").unwrap());
    free("an empty message", || assert_eq!(to.recv_vec().unwrap().as_deref(), Some(&[][..])));
    free("a message that is too long", || assert!(from.send(&[1; 300_000]).is_err()));
    drop(pair.child);
    free("the end", || assert_eq!(pair.parent.recv(&mut buf).unwrap(), None));
    free("a dead peer", || assert!(matches!(pair.parent.send(b"hello"), Err(Error::Closed))));
}

fn a_message_as_a_vector_is_one_allocation() {
    let pair = datagram_pair().unwrap();
    for len in [1, 100_000] {
        for _ in 0..2 {
            pair.child.send(&vec![1; len]).unwrap();
        }
        let before = ALLOCATIONS.load(SeqCst);
        let received = pair.parent.recv_vec().unwrap().expect("a message");
        let refused = pair.parent.recv(&mut []);
        assert_eq!(ALLOCATIONS.load(SeqCst) - before, 2);
        assert!(
            received.len() == len && matches!(refused, Err(Error::BufferTooSmall { message }) if message == received)
        );
    }
}

fn streams_allocate_nothing() {
    let mut pair = stream_pair().unwrap();
    let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
    free("write", || assert_eq!(pair.child.write(b"hello").unwrap(), 5));
    free("read", || assert_eq!(pair.parent.read(&mut [0; 5]).unwrap(), 5));
    free("write_vectored", || assert_eq!(pair.child.write_vectored(&parts).unwrap(), 5));
    free("read_vectored", || assert_eq!(pair.parent.read_vectored(&mut [IoSliceMut::new(&mut [0; 5])]).unwrap(), 5));
    free("try_write", || assert_eq!(pair.child.try_write(b"hello").unwrap(), 5));
    free("try_read", || assert_eq!(pair.parent.try_read(&mut [0; 5]).unwrap(), 5));
    free("write_timeout", || assert_eq!(pair.child.write_timeout(b"hello", SECOND).unwrap(), 5));
    free("read_timeout", || assert_eq!(pair.parent.read_timeout(&mut [0; 5], SECOND).unwrap(), 5));
    free("try_read", || assert!(matches!(pair.parent.try_read(&mut [0; 5]), Err(Error::WouldBlock))));
}

fn rings_allocate_nothing() {
    let pair = stream_pair().unwrap();
    let mut writer = RingWriter::with_capacity(pair.child, 4096).unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    let mut buf = [0; 10_000];
    let short = Duration::from_micros(100);
    assert_eq!(reader.available().unwrap(), 0); // it has heard the hello
    free("write", || assert_eq!(writer.write(b"hello").unwrap(), 5));
    free("read", || assert_eq!(reader.read(&mut buf[..5]).unwrap(), 5));
    free("write_timeout", || assert_eq!(writer.write_timeout(b"hello", SECOND).unwrap(), 5));
    free("read_timeout", || assert_eq!(reader.read_timeout(&mut buf[..5], SECOND).unwrap(), 5));
    let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
    free("write_vectored", || assert_eq!(writer.write_vectored(&parts).unwrap(), 5));
    free("read_vectored", || assert_eq!(reader.read_vectored(&mut [IoSliceMut::new(&mut buf[..5])]).unwrap(), 5));
    free("try_read", || assert!(matches!(reader.try_read(&mut buf), Err(Error::WouldBlock))));
    free("a sleep", || assert!(matches!(reader.read_timeout(&mut buf, short), Err(Error::TimedOut))));
    free("a watch", || assert_eq!(wait_any(&mut [reader.watch()], Some(short)).unwrap(), 0));
    free("available", || assert_eq!(reader.available().unwrap(), 0));
    free("a wake-up", || {
        let _ = reader.watch();
        assert_eq!(writer.write(&buf).unwrap(), 4096);
        assert_eq!(wait_any(&mut [reader.watch()], Some(SECOND)).unwrap(), 1);
        assert!(matches!(writer.try_write(b"hello"), Err(Error::WouldBlock)));
        assert!(matches!(writer.write_timeout(b"hello", short), Err(Error::TimedOut)));
        assert_eq!(wait_any(&mut [writer.watch()], Some(short)).unwrap(), 0);
        assert_eq!(reader.read(&mut buf).unwrap(), 4096);
    });
    free("is_closed", || assert!(!writer.is_closed().unwrap()));
    drop(writer);
    free("the end", || assert_eq!(reader.read(&mut buf).unwrap(), 0));
}

fn waiting_allocates_nothing() {
    let (reader, mut writer) = pipe().unwrap();
    let pair = datagram_pair().unwrap();
    writer.write_all(b"hello").unwrap();
    free("wait_any", || {
        let mut on = [Watch::readable(&reader), Watch::writable(&writer), Watch::readable(&pair.parent)];
        assert_eq!(wait_any(&mut on, Some(SECOND)).unwrap(), 2);
    });
    free("wait_any over 32", || {
        let mut on = [(); 32].map(|()| Watch::readable(&pair.parent));
        assert_eq!(wait_any(&mut on, Some(Duration::from_micros(100))).unwrap(), 0);
    });
}

fn packed_messages_allocate_nothing() {
    let pair = datagram_pair().unwrap();
    let (mut from, mut to) = (PackedSocket::new(pair.child), PackedSocket::new(pair.parent));
    let long = vec![1; 100_000];
    // The buffer of the receiver grows to the longest message, once.
    from.send(&long).unwrap();
    assert_eq!(to.recv().unwrap(), Some(&long[..]));
    free("packs", || {
        for _ in 0..10_000 {
            from.send(&[1; 16]).unwrap();
            from.try_send(b"").unwrap();
            from.send_timeout(&[1; 100], SECOND).unwrap();
            while to.has_message() || matches!(to.try_recv(), Ok(Some(_))) {
                assert!(to.recv().is_ok());
            }
        }
    });
    free("a long message", || {
        from.send(&long).unwrap();
        while to.recv().unwrap() != Some(&long[..]) {}
    });
    free("flush", || from.flush().unwrap());
    free("try_flush", || from.try_flush().unwrap());
    free("flush_timeout", || from.flush_timeout(SECOND).unwrap());
    free("try_recv", || assert!(matches!(to.try_recv(), Err(Error::WouldBlock))));
    free("recv_timeout", || assert!(matches!(to.recv_timeout(Duration::ZERO), Err(Error::TimedOut))));
    free("wait", || {
        from.send(b"hello").unwrap();
        from.watch().unwrap();
        assert_eq!(wait_any(&mut [to.watch().unwrap()], Some(SECOND)).unwrap(), 1);
        assert_eq!(to.try_recv().unwrap(), Some(&b"hello"[..]));
    });
    while from.try_send(&[1; 1000]).is_ok() {}
    free("a full queue", || {
        assert!(matches!(from.try_send(&[1; 1000]), Err(Error::WouldBlock)));
        assert!(matches!(from.send_timeout(&long, Duration::ZERO), Err(Error::TimedOut)));
        assert!(matches!(from.try_flush(), Err(Error::WouldBlock)));
        assert!(matches!(from.try_recv(), Err(Error::WouldBlock)));
    });
    drop(to);
    free("a dead peer", || {
        assert!(from.send(&[1; 1000]).is_err());
        assert!(from.recv().is_err() || from.recv().unwrap().is_none());
    });
}

fn messages_through_a_pipe_allocate_nothing() {
    let (reader, writer) = pipe().unwrap();
    writer.set_capacity(1 << 20).unwrap();
    assert_messages_allocate_nothing(reader, writer);
}

fn messages_over_sockets_allocate_nothing() {
    let pair = stream_pair().unwrap();
    assert_messages_allocate_nothing(pair.parent, pair.child);
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_messages_allocate_nothing(one, other);
}

fn assert_messages_allocate_nothing(reader: impl ByteReader, writer: impl ByteWriter) {
    let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
    let long = vec![1; 100_000];
    // The buffer of the reader grows to the longest message, once.
    writer.send(&long).unwrap();
    writer.flush().unwrap();
    assert_eq!(reader.recv().unwrap(), Some(&long[..]));
    free("small messages", || {
        for _ in 0..10_000 {
            writer.send(&[1; 16]).unwrap();
            writer.try_send(b"").unwrap();
            writer.send_timeout(&[1; 100], SECOND).unwrap();
            while reader.has_message() || matches!(reader.try_recv(), Ok(Some(_))) {
                assert!(reader.recv_timeout(SECOND).is_ok());
            }
        }
    });
    free("a long message", || {
        writer.send(&long).unwrap();
        writer.flush().unwrap();
        while reader.recv().unwrap() != Some(&long[..]) {}
    });
    free("try_recv", || assert!(matches!(reader.try_recv(), Err(Error::WouldBlock))));
    free("recv_timeout", || assert!(matches!(reader.recv_timeout(Duration::ZERO), Err(Error::TimedOut))));
    while writer.try_send(&[1; 1000]).is_ok() {}
    free("a full pipe", || {
        assert!(matches!(writer.try_send(&[1; 1000]), Err(Error::WouldBlock)));
        assert!(matches!(writer.send_timeout(&long, Duration::ZERO), Err(Error::TimedOut)));
        assert!(matches!(writer.try_flush(), Err(Error::WouldBlock)));
    });
    drop(reader);
    free("nobody", || assert!(matches!(writer.send(&long), Err(Error::Closed))));
}

fn a_message_in_two_parts_allocates_nothing() {
    let (mut reader, writer) = pipe().unwrap();
    let mut writer = MessageWriter::new(writer);
    while writer.try_send(&[1; 5000]).is_ok() {}
    // A page at a time: half of what waits goes, and the message is begun, or there is still no room for it.
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..200 {
        reader.read_exact(&mut [0; 4096]).unwrap();
        match free_once("a message in two parts", || writer.try_send(&[1; 5000])) {
            Ok(()) => taken += 1,
            Err(Error::WouldBlock) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(taken > 50 && refused > 10, "{taken} taken, {refused} refused");
}

fn buffered_writes_allocate_nothing() {
    let (reader, writer) = pipe().unwrap();
    let (mut reader, mut writer) = (std::io::BufReader::new(reader), BufferedWriter::new(writer));
    let mut buf = [0; 100];
    free("buffered ends", || {
        for _ in 0..1000 {
            writer.write_all(&[1; 100]).unwrap();
            writer.flush().unwrap();
            reader.read_exact(&mut buf).unwrap();
        }
        writer.write_all(&[1; 20_000]).unwrap();
        (0..200).for_each(|_| reader.read_exact(&mut buf).unwrap());
    });
    drop(reader);
    writer.write_all(&[1; 100]).unwrap();
    let before = ALLOCATIONS.load(SeqCst);
    assert!(matches!(writer.close(), Err(Error::Closed)));
    // The error goes through an io::Error, which has it in a box.
    assert!(ALLOCATIONS.load(SeqCst) - before <= 2);
}

/// Once warm: each thread keeps a buffer of the longest value.
#[cfg(feature = "channel")]
fn values_allocate_nothing() {
    type Value = (u64, [u32; 30], Option<f64>, Vec<()>);
    let value: Value = (1 << 60, [7; 30], Some(0.5), Vec::new());
    let (sender, receiver) = ipc::channel::<Value>().unwrap();
    sender.send(value.clone()).unwrap();
    receiver.recv().unwrap().unwrap();
    free("send", || sender.send(value.clone()).unwrap());
    free("recv", || assert_eq!(receiver.recv().unwrap().as_ref(), Some(&value)));
    free("try_send", || sender.try_send(value.clone()).unwrap());
    free("try_recv", || assert_eq!(receiver.try_recv().unwrap().as_ref(), Some(&value)));
    free("send_timeout", || sender.send_timeout(value.clone(), SECOND).unwrap());
    free("recv_timeout", || assert_eq!(receiver.recv_timeout(SECOND).unwrap().as_ref(), Some(&value)));
    free("try_recv", || assert!(matches!(receiver.try_recv(), Err(Error::WouldBlock))));
    while sender.try_send(value.clone()).is_ok() {}
    free("try_send", || assert!(matches!(sender.try_send(value.clone()).unwrap_err().error, Error::WouldBlock)));

    let (reader, writer) = pipe().unwrap();
    let sender = ipc::Sender::<Value, _>::new(MessageWriter::new(writer));
    let receiver = ipc::Receiver::<Value, _>::new(MessageReader::new(reader));
    free("a stream", || {
        sender.send(value.clone()).unwrap();
        sender.flush().unwrap();
        assert_eq!(receiver.recv().unwrap().as_ref(), Some(&value));
    });
    let pair = datagram_pair().unwrap();
    let sender = ipc::Sender::<Value, _>::new(PackedSocket::new(pair.child));
    let receiver = ipc::Receiver::<Value, _>::new(PackedSocket::new(pair.parent));
    sender.send(value.clone()).unwrap();
    sender.flush().unwrap();
    assert_eq!(receiver.recv().unwrap().as_ref(), Some(&value)); // its buffer grows once
    free("packs", || {
        sender.send(value.clone()).unwrap();
        sender.flush().unwrap();
        assert_eq!(receiver.recv().unwrap().as_ref(), Some(&value));
    });
}

#[cfg(feature = "channel")]
fn a_value_of_64_kib_allocates_nothing() {
    type Value = [[[u64; 32]; 32]; 8];
    let value: Value = [[[1 << 60; 32]; 32]; 8];
    let (sender, receiver) = ipc::channel::<Value>().unwrap();
    sender.send(value).unwrap(); // the thread's buffer grows once
    assert!(receiver.recv().unwrap() == Some(value));
    free("send", || sender.send(value).unwrap());
    free("recv", || assert!(receiver.recv().unwrap() == Some(value)));
}

/// Zeroes, which take no memory at the receiver.
#[cfg(feature = "channel")]
struct Zeroes(usize);

#[cfg(feature = "channel")]
impl serde::Serialize for Zeroes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&[0; 4 << 20][..self.0])
    }
}

#[cfg(feature = "channel")]
impl<'de> serde::Deserialize<'de> for Zeroes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Length;
        impl serde::de::Visitor<'_> for Length {
            type Value = Zeroes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("zeroes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Zeroes, E> {
                Ok(Zeroes(bytes.len()))
            }
        }
        deserializer.deserialize_bytes(Length)
    }
}

/// Up to 4 MiB, which is the longest buffer that a thread keeps.
#[cfg(feature = "channel")]
fn sending_a_value_of_mebibytes_allocates_nothing() {
    for len in [1 << 20, (4 << 20) - 100] {
        let (sender, receiver) = ipc::channel::<Zeroes>().unwrap();
        sender.send(Zeroes(len)).unwrap(); // the thread's buffer grows once
        free("send", || sender.send(Zeroes(len)).unwrap());
        free("try_send", || sender.try_send(Zeroes(len)).unwrap());
        for _ in 0..5 {
            let before = ALLOCATIONS.load(SeqCst);
            assert_eq!(receiver.recv().unwrap().map(|zeroes| zeroes.0), Some(len));
            // However long the value is, as it is decoded where it is.
            assert!(ALLOCATIONS.load(SeqCst) - before <= 4);
        }
    }
}

#[cfg(feature = "channel")]
fn sending_ends_in_a_value_allocates_nothing() {
    type Value = (u32, ipc::PipeReader, Option<ipc::PipeWriter>);
    let (sender, receiver) = ipc::channel::<Value>().unwrap();
    let mut values: Vec<Value> =
        (0..5).map(|number| (number, pipe().unwrap())).map(|(n, (r, w))| (n, r, Some(w))).collect();
    let mut next = || values.pop().unwrap();
    sender.send(next()).unwrap(); // the thread's list grows once
    free("send", || sender.send(next()).unwrap());
    free("try_send", || sender.try_send(next()).unwrap());
    for number in (0..5).rev() {
        let (arrived, reader, writer) = receiver.recv().unwrap().unwrap();
        assert_eq!(arrived, number);
        writer.unwrap().write_all(b"through it").unwrap();
        assert_eq!(support::read_all(reader), b"through it");
    }

    let pair = datagram_pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    free("send_with", || pair.parent.send_with(b"two", (&reader, &writer)).unwrap());
}
