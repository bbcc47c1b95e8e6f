//! Ends that a forked child was not given: no conversion makes an open one of them, and their numbers can be used again.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use crate::support::{self, Trial, exit_code};
use ipc::{
    Command, DatagramSocket, Error, PipeReader, PipeWriter, StreamSocket, datagram_pair, fork, open_ends, pipe,
    stream_pair,
};

pub fn trials() -> Vec<Trial> {
    support::trials![a_severed_end_does_not_become_an_open_one, a_number_that_a_severed_end_had_is_anybodys_again,]
}

fn a_severed_end_does_not_become_an_open_one() {
    let (reader, writer) = pipe().unwrap();
    let (socket, _peer) = datagram_pair().unwrap().into();
    let bytes = stream_pair().unwrap();
    let (first, second) = (pipe().unwrap(), pipe().unwrap());
    let (carrier, _other) = datagram_pair().unwrap().into();
    let child = fork(carrier, |carrier| {
        assert_eq!(open_ends(), 1);
        let fds = [OwnedFd::from(reader), OwnedFd::from(writer), OwnedFd::from(socket), OwnedFd::from(bytes.parent)];
        for fd in &fds {
            assert!(matches!(carrier.send_with(b"x", fd).unwrap_err().error, Error::NotGiven));
        }
        let [reader, writer, socket, bytes] = fds;
        let refused = Command::new("true").give("end", OwnedFd::from(first.0)).spawn().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        let refused = Command::new("true").stdin(OwnedFd::from(second.0)).spawn().unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        let reader = PipeReader::try_from(reader).unwrap_err().fd;
        let socket = DatagramSocket::try_from(socket).unwrap_err().fd;
        assert!(PipeWriter::try_from(writer.try_clone().unwrap()).is_err());
        // Nor where nobody looks.
        // SAFETY: each is given up as it is taken over.
        let (mut reader, writer, socket) = unsafe {
            (
                PipeReader::from_raw_fd(reader.into_raw_fd()),
                PipeWriter::from(std::io::PipeWriter::from(writer)),
                DatagramSocket::from_raw_fd(socket.into_raw_fd()),
            )
        };
        let bytes = StreamSocket::from(std::os::unix::net::UnixStream::from(bytes));
        assert_eq!(open_ends(), 1);
        assert!(matches!(Error::from(reader.read(&mut [0]).unwrap_err()), Error::NotGiven));
        assert!(matches!(writer.try_write(b"x"), Err(Error::NotGiven)));
        assert!(matches!(socket.send(b"x"), Err(Error::NotGiven)));
        assert!(matches!(bytes.try_write(b"x"), Err(Error::NotGiven)));
        assert!(matches!(socket.try_clone(), Err(Error::NotGiven)));
        assert!(matches!(carrier.send_with(b"x", &socket).unwrap_err().error, Error::NotGiven));
        assert!(matches!(fork(&bytes, |_| ()), Err(refused) if matches!(refused.error, Error::NotGiven)));
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn a_number_that_a_severed_end_had_is_anybodys_again() {
    let (reader, _writer) = pipe().unwrap();
    let (carrier, other) = datagram_pair().unwrap().into();
    let child = fork((carrier, other), |(carrier, other)| {
        let fd = OwnedFd::from(reader);
        let number = fd.as_raw_fd();
        drop(fd);
        let file = File::open("/dev/null").unwrap();
        let file = if file.as_raw_fd() == number {
            file
        } else {
            // SAFETY: integers; the number is free.
            assert_eq!(unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) }, number);
            // SAFETY: it was just made, and is nobody else's.
            unsafe { File::from_raw_fd(number) }
        };
        carrier.send_with(b"a file", file).unwrap();
        assert_eq!(other.recv_with(&mut Vec::new()).unwrap().unwrap().len(), 1);
    })
    .unwrap();
    assert_eq!(exit_code(&child), 0);
}
