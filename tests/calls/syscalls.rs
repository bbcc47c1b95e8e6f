//! One operation is one system call (P11), as strace sees it.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::support::{self, Later, RWF_NOSIGNAL, Sigpipe, Trial, fill, measured, refuse_flags, sigpipe};
use ipc::{
    BufferedWriter, Error, MessageReader, MessageWriter, PackedSocket, PipeFlags, Watch, datagram_pair, pipe,
    pipe_with, stream_pair, wait_any,
};

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    support::run_traced(traced())
}

pub fn trials() -> Vec<Trial> {
    support::traced_trials(module_path!(), traced())
}

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

support::traced! {
    reading_is_one_call => ["read"] {
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        assert_eq!(measured(|| reader.read(&mut [0; 8])).unwrap(), 5);
    }

    reading_the_end_is_one_call => ["read"] {
        let (mut reader, _) = pipe().unwrap();
        assert_eq!(measured(|| reader.read(&mut [0; 8])).unwrap(), 0);
    }

    reading_into_several_buffers_is_one_call => ["readv"] {
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        let (mut one, mut two) = ([0; 2], [0; 8]);
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        assert_eq!(measured(|| reader.read_vectored(&mut bufs)).unwrap(), 5);
    }

    trying_to_read_is_one_call => ["preadv2"] {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        assert_eq!(measured(|| reader.try_read(&mut [0; 8])).unwrap(), 5);
    }

    trying_to_read_in_vain_is_one_call => ["preadv2"] {
        let (reader, _writer) = pipe().unwrap();
        assert!(matches!(measured(|| reader.try_read(&mut [0; 8])), Err(Error::WouldBlock)));
    }

    reading_with_a_timeout_is_one_call => ["preadv2"] {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        assert_eq!(measured(|| reader.read_timeout(&mut [0; 8], SECOND)).unwrap(), 5);
    }

    reading_with_no_time_is_one_call => ["preadv2"] {
        let (reader, _writer) = pipe().unwrap();
        assert!(matches!(measured(|| reader.read_timeout(&mut [0; 8], Duration::ZERO)), Err(Error::TimedOut)));
    }

    reading_that_waits_is_one_call => ["read"] {
        let (mut reader, writer) = pipe().unwrap();
        let later = Later::new(writer, |writer| writer.write_all(b"hello").unwrap());
        assert_eq!(measured(|| reader.read(&mut [0; 8])).unwrap(), 5);
        later.done();
    }

    reading_that_waits_with_a_timeout_is_three_calls => ["preadv2", "ppoll", "preadv2"] {
        let (reader, writer) = pipe().unwrap();
        let later = Later::new(writer, |writer| writer.write_all(b"hello").unwrap());
        assert_eq!(measured(|| reader.read_timeout(&mut [0; 8], LONG)).unwrap(), 5);
        later.done();
    }

    writing_is_one_call => ["write"] {
        let (_reader, mut writer) = pipe().unwrap();
        assert_eq!(measured(|| writer.write(b"hello")).unwrap(), 5);
    }

    a_long_write_is_one_call => ["write"] {
        let (_reader, mut writer) = pipe().unwrap();
        let long = vec![1; 100_000];
        assert_eq!(measured(|| writer.write(&long)).unwrap(), 8192);
    }

    writing_that_waits_is_one_call => ["write"] {
        let (reader, mut writer) = pipe().unwrap();
        fill(&writer);
        let later = Later::new(reader, |reader| assert_eq!(reader.read(&mut [0; 8192]).unwrap(), 8192));
        assert_eq!(measured(|| writer.write(b"hello")).unwrap(), 5);
        later.done();
    }

    writing_to_nobody_is_one_call => ["write"] {
        let (_, mut writer) = pipe().unwrap();
        let error = measured(|| writer.write(b"hello")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    writing_atomically_is_one_call => ["write"] {
        let (_reader, writer) = pipe().unwrap();
        measured(|| writer.write_atomic(&[1; 4096])).unwrap();
    }

    writing_from_several_buffers_is_one_call => ["writev"] {
        let (_reader, mut writer) = pipe().unwrap();
        let bufs = [IoSlice::new(b"hel"), IoSlice::new(b""), IoSlice::new(b"lo")];
        assert_eq!(measured(|| writer.write_vectored(&bufs)).unwrap(), 5);
    }

    trying_to_write_is_one_call => ["pwritev2"] {
        let (_reader, writer) = pipe().unwrap();
        assert_eq!(measured(|| writer.try_write(b"hello")).unwrap(), 5);
    }

    trying_to_write_in_vain_is_one_call => ["pwritev2"] {
        let (_reader, writer) = pipe().unwrap();
        fill(&writer);
        assert!(matches!(measured(|| writer.try_write(b"hello")), Err(Error::WouldBlock)));
    }

    writing_with_a_timeout_is_one_call => ["pwritev2"] {
        let (_reader, writer) = pipe().unwrap();
        assert_eq!(measured(|| writer.write_timeout(b"hello", SECOND)).unwrap(), 5);
    }

    writing_that_waits_with_a_timeout_is_three_calls => ["pwritev2", "ppoll", "pwritev2"] {
        let (reader, writer) = pipe().unwrap();
        fill(&writer);
        let later = Later::new(reader, |reader| assert_eq!(reader.read(&mut [0; 8192]).unwrap(), 8192));
        assert_eq!(measured(|| writer.write_timeout(b"hello", LONG)).unwrap(), 5);
        later.done();
    }

    writing_with_sigpipe_at_its_default_is_one_call => ["pwritev2"] {
        sigpipe(Sigpipe::Default);
        let (_reader, mut writer) = pipe().unwrap();
        assert_eq!(measured(|| writer.write(b"hello")).unwrap(), 5);
    }

    writing_to_nobody_with_sigpipe_at_its_default_is_one_call => ["pwritev2"] {
        sigpipe(Sigpipe::Default);
        let (_, mut writer) = pipe().unwrap();
        let error = measured(|| writer.write(b"hello")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    writing_atomically_with_sigpipe_at_its_default_is_one_call => ["pwritev2"] {
        sigpipe(Sigpipe::Default);
        let (_reader, writer) = pipe().unwrap();
        measured(|| writer.write_atomic(b"hello")).unwrap();
    }

    trying_to_write_with_sigpipe_at_its_default_is_one_call => ["pwritev2"] {
        sigpipe(Sigpipe::Default);
        let (_reader, writer) = pipe().unwrap();
        assert_eq!(measured(|| writer.try_write(b"hello")).unwrap(), 5);
    }

    // Four more keep the signal away, and the flag that does so by itself is tried once only.
    writing_where_the_flag_against_sigpipe_is_refused_asks_once
        => ["rt_sigpending", "rt_sigprocmask", "writev", "rt_sigtimedwait", "rt_sigprocmask"]
    {
        sigpipe(Sigpipe::Default);
        refuse_flags(RWF_NOSIGNAL);
        let (_reader, mut writer) = pipe().unwrap();
        writer.write_all(b"hello").unwrap();
        assert_eq!(measured(|| writer.write(b"hello")).unwrap(), 5);
    }

    reading_and_writing_without_waiting_ever_is_one_call_each => ["read", "write", "read"] {
        let (mut reader, mut writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut buf = [0; 8];
        let (nothing, written, read) =
            measured(|| (reader.read(&mut buf), writer.write(b"hello"), reader.read(&mut [0; 8])));
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!((written.unwrap(), read.unwrap()), (5, 5));
    }

    sending_is_one_call => ["sendto"] {
        let pair = datagram_pair().unwrap();
        measured(|| pair.parent.send(b"hello")).unwrap();
    }

    every_way_to_send_is_one_call => ["sendto", "sendto", "sendmsg", "sendto"] {
        let pair = datagram_pair().unwrap();
        let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
        let sent = measured(|| {
            [
                pair.parent.try_send(b"hello"),
                pair.parent.send_timeout(b"hello", SECOND),
                pair.parent.send_vectored(&parts),
                pair.parent.send(b""),
            ]
        });
        assert!(sent.iter().all(Result::is_ok));
    }

    sending_in_vain_is_one_call => ["sendto"] {
        let pair = datagram_pair().unwrap();
        while pair.parent.try_send(b"hello").is_ok() {}
        assert!(matches!(measured(|| pair.parent.try_send(b"hello")), Err(Error::WouldBlock)));
    }

    receiving_is_one_call => ["recvmsg"] {
        let pair = datagram_pair().unwrap();
        let mut buf = [0; 8];
        // The first one maps memory.
        pair.child.send(b"first").unwrap();
        pair.parent.recv(&mut buf).unwrap();
        pair.child.send(b"hello").unwrap();
        assert_eq!(measured(|| pair.parent.recv(&mut buf)).unwrap(), Some(5));
    }

    every_way_to_receive_is_one_call => ["recvmsg", "recvmsg", "recvmsg", "recvmsg", "recvmsg", "recvmsg", "recvmsg"] {
        let pair = datagram_pair().unwrap();
        let mut buf = [0; 8];
        pair.child.send(&[0; 10_000]).unwrap();
        pair.parent.recv_vec().unwrap();
        for message in [&b"hello"[..], b"hello", b"hello", b"hello", b"a longer message", b""] {
            pair.child.send(message).unwrap();
        }
        let received = measured(|| {
            [
                pair.parent.peek_len(),
                pair.parent.try_recv(&mut buf),
                pair.parent.recv_timeout(&mut buf, SECOND),
                pair.parent.recv_vec().map(|message| message.map(|message| message.len())),
                pair.parent.recv_vec_timeout(SECOND).map(|message| message.map(|message| message.len())),
                match pair.parent.recv(&mut buf) {
                    Err(Error::BufferTooSmall { message }) => Ok(Some(message.len())),
                    other => other,
                },
                pair.parent.recv(&mut buf),
            ]
        });
        assert_eq!(received.map(Result::unwrap), [5, 5, 5, 5, 5, 16, 0].map(Some));
    }

    receiving_ends_is_one_call => ["recvmsg", "recvmsg"] {
        let pair = datagram_pair().unwrap();
        let mut message = Vec::with_capacity(8);
        // The first one maps memory, and makes messages known to a receive that has room for ends.
        for message in [b"first", b"hello", b"again"] {
            pair.child.send(message).unwrap();
        }
        pair.parent.recv_with(&mut message).unwrap();
        let received = measured(|| [pair.parent.recv_with(&mut message), pair.parent.try_recv_with(&mut message)]);
        assert!(received.into_iter().all(|received| received.unwrap().is_some()));
    }

    // Another holder may have taken off what marks the messages; and the kernel may say so too early, so it is asked again.
    receiving_the_end_is_four_calls => ["recvmsg", "ppoll", "getpeername", "recvmsg"] {
        let pair = datagram_pair().unwrap();
        drop(pair.child);
        assert_eq!(pair.parent.recv(&mut [0; 8]).unwrap(), None);
        assert_eq!(measured(|| pair.parent.recv(&mut [0; 8])).unwrap(), None);
    }

    receiving_in_vain_is_one_call => ["recvmsg"] {
        let pair = datagram_pair().unwrap();
        assert!(pair.parent.try_recv(&mut [0; 8]).is_err());
        assert!(matches!(measured(|| pair.parent.try_recv(&mut [0; 8])), Err(Error::WouldBlock)));
    }

    receiving_that_waits_is_one_call => ["recvmsg"] {
        let pair = datagram_pair().unwrap();
        assert!(pair.parent.try_recv(&mut [0; 8]).is_err());
        let later = Later::new(pair.child, |socket| socket.send(b"hello").unwrap());
        assert_eq!(measured(|| pair.parent.recv(&mut [0; 8])).unwrap(), Some(5));
        later.done();
    }

    receiving_that_waits_with_a_timeout_is_three_calls => ["recvmsg", "ppoll", "recvmsg"] {
        let pair = datagram_pair().unwrap();
        assert!(pair.parent.try_recv(&mut [0; 8]).is_err());
        let later = Later::new(pair.child, |socket| socket.send(b"hello").unwrap());
        assert_eq!(measured(|| pair.parent.recv_timeout(&mut [0; 8], LONG)).unwrap(), Some(5));
        later.done();
    }

    reading_and_writing_a_stream_is_one_call_each => ["sendto", "recvfrom", "sendmsg", "recvmsg"] {
        let mut pair = stream_pair().unwrap();
        let parts = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
        let (mut one, mut two) = ([0; 2], [0; 8]);
        let mut bufs = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        let lengths = measured(|| {
            [
                pair.parent.write(b"hello"),
                pair.child.read(&mut [0; 8]),
                pair.parent.write_vectored(&parts),
                pair.child.read_vectored(&mut bufs),
            ]
        });
        assert_eq!(lengths.map(Result::unwrap), [5; 4]);
    }

    trying_a_stream_is_one_call_each => ["recvfrom", "sendto", "recvfrom", "sendto", "recvfrom"] {
        let pair = stream_pair().unwrap();
        let mut buf = [0; 8];
        let (nothing, lengths) = measured(|| {
            let nothing = pair.child.try_read(&mut buf);
            let lengths = [
                pair.parent.try_write(b"hello"),
                pair.child.try_read(&mut buf),
                pair.parent.write_timeout(b"hello", SECOND),
                pair.child.read_timeout(&mut buf, SECOND),
            ];
            (nothing, lengths)
        });
        assert!(matches!(nothing, Err(Error::WouldBlock)));
        assert_eq!(lengths.map(Result::unwrap), [5; 4]);
    }

    waiting_for_several_is_one_call => ["ppoll"] {
        let (reader, mut writer) = pipe().unwrap();
        let pair = datagram_pair().unwrap();
        writer.write_all(b"hello").unwrap();
        let mut on = [Watch::readable(&reader), Watch::writable(&writer), Watch::readable(&pair.parent)];
        assert_eq!(measured(|| wait_any(&mut on, Some(LONG))).unwrap(), 2);
    }

    packed_messages_are_one_call_for_many => ["sendto", "recvmsg"] {
        let pair = datagram_pair().unwrap();
        let (mut from, mut to) = (PackedSocket::new(pair.child), PackedSocket::new(pair.parent));
        // The first one maps memory.
        from.send(b"first").unwrap();
        from.flush().unwrap();
        to.recv().unwrap();
        measured(|| {
            (0..1000).for_each(|_| from.send(b"hello").unwrap());
            from.flush().unwrap();
            (0..1000).for_each(|_| assert_eq!(to.recv().unwrap(), Some(&b"hello"[..])));
        });
    }

    a_packed_request_is_one_call_and_its_answer_another => ["sendto", "recvmsg"] {
        let pair = datagram_pair().unwrap();
        let mut socket = PackedSocket::new(pair.parent);
        assert!(socket.try_recv().is_err());
        pair.child.send(b"\x06\0\0\0answer").unwrap();
        measured(|| {
            socket.send(b"request").unwrap();
            assert_eq!(socket.recv().unwrap(), Some(&b"answer"[..]));
        });
    }

    a_packed_message_that_is_waited_for_is_one_call => ["recvmsg"] {
        let pair = datagram_pair().unwrap();
        let mut socket = PackedSocket::new(pair.parent);
        assert!(socket.try_recv().is_err());
        let later = Later::new(pair.child, |socket| socket.send(b"\x05\0\0\0hello").unwrap());
        assert_eq!(measured(|| socket.recv().map(|message| message.map(<[u8]>::len))).unwrap(), Some(5));
        later.done();
    }

    messages_through_a_pipe_are_one_call_for_many => ["write", "write", "read"] {
        let (reader, writer) = pipe().unwrap();
        let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
        measured(|| {
            (0..1000).for_each(|_| writer.send(b"hello").unwrap()); // of 9 bytes each
            writer.flush().unwrap();
            (0..1000).for_each(|_| assert_eq!(reader.recv().unwrap(), Some(&b"hello"[..])));
        });
    }

    a_long_message_through_a_pipe_is_cut_writes => ["write", "write", "write", "write", "read"] {
        let (reader, writer) = pipe().unwrap();
        let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
        let long = [7; 30_000];
        measured(|| {
            writer.send(&long).unwrap();
            writer.flush().unwrap();
            assert_eq!(reader.recv().unwrap(), Some(&long[..]));
        });
    }

    messages_over_a_stream_pair_are_one_call_for_many => ["sendto", "recvfrom"] {
        let pair = ipc::stream_pair().unwrap();
        let (mut reader, mut writer) = (MessageReader::new(pair.parent), MessageWriter::new(pair.child));
        measured(|| {
            (0..1000).for_each(|_| writer.send(b"hello").unwrap());
            writer.flush().unwrap();
            (0..1000).for_each(|_| assert_eq!(reader.recv().unwrap(), Some(&b"hello"[..])));
        });
    }

    messages_over_a_stream_of_the_standard_library_are_one_call_for_many => ["sendto", "recvfrom"] {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (mut reader, mut writer) = (MessageReader::new(one), MessageWriter::new(other));
        measured(|| {
            (0..1000).for_each(|_| writer.send(b"hello").unwrap());
            writer.flush().unwrap();
            (0..1000).for_each(|_| assert_eq!(reader.recv().unwrap(), Some(&b"hello"[..])));
        });
    }

    a_message_that_just_does_not_fit_asks_for_room_once => ["fcntl", "ioctl", "fcntl", "write", "write", "write", "write", "write", "write", "write", "write", "write", "read", "read", "write", "write", "write", "write", "write", "write", "write", "write", "write", "read"] {
        let (reader, writer) = pipe().unwrap();
        let mut reader = MessageReader::new(reader);
        let mut writer = MessageWriter::new(writer);
        let long = vec![7; 64 << 10];
        measured(|| {
            for _ in 0..2 {
                writer.send(&long).unwrap();
                writer.flush().unwrap();
                assert_eq!(reader.recv().unwrap(), Some(&long[..]));
            }
        });
    }

    buffered_writes_are_one_call_for_many => ["write"] {
        let (_reader, writer) = pipe().unwrap();
        let mut writer = BufferedWriter::new(writer);
        measured(|| {
            (0..100).for_each(|_| writer.write_all(b"hello").unwrap());
            writer.flush().unwrap();
        });
    }

    closing_a_buffered_writer_in_vain_is_two_calls => ["write", "close"] {
        let (_, writer) = pipe().unwrap();
        let mut writer = BufferedWriter::new(writer);
        writer.write_all(b"hello").unwrap();
        assert!(matches!(measured(|| writer.close()), Err(Error::Closed)));
    }

    closing_a_packed_socket_in_vain_is_two_calls => ["sendto", "close"] {
        let pair = datagram_pair().unwrap();
        while pair.parent.try_send(&[0; 1000]).is_ok() {}
        // What is not to wait says that there is no room; and dropping, which would wait, has nothing left.
        let socket = std::os::fd::OwnedFd::from(pair.parent);
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        let mut socket = PackedSocket::new(ipc::DatagramSocket::try_from(socket).unwrap());
        socket.send(b"hello").unwrap();
        assert!(matches!(measured(|| socket.close()), Err(Error::WouldBlock)));
    }

    closing_a_message_writer_in_vain_is_two_calls => ["write", "close"] {
        let (_reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        fill(&writer);
        let mut writer = MessageWriter::new(writer);
        writer.send(b"hello").unwrap();
        assert!(matches!(measured(|| writer.close()), Err(Error::WouldBlock)));
    }

    looking_at_a_pipe_is_one_call_each => ["ioctl", "ppoll", "fcntl"] {
        let (reader, writer) = pipe().unwrap();
        let (available, closed, capacity) = measured(|| (reader.available(), writer.is_closed(), reader.capacity()));
        assert_eq!((available.unwrap(), closed.unwrap()), (0, false));
        assert!(capacity.unwrap() >= 4096);
    }
}
