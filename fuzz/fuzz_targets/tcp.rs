//! A peer over TCP that says any bytes, cut in two anywhere: a hello and values, or an error, and never more memory than was agreed to.

#![no_main]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;

use ipc::{Error, Receiver, TcpOptions};

/// What the peer says, in two parts, and then EOF. What it is told goes nowhere.
struct Said {
    first: Vec<u8>,
    second: Vec<u8>,
}

impl Read for Said {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let part = if self.first.is_empty() { &mut self.second } else { &mut self.first };
        let count = part.len().min(buf.len());
        buf[..count].copy_from_slice(&part[..count]);
        part.drain(..count);
        Ok(count)
    }
}

impl Write for Said {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection for all inputs, which nothing goes through.
fn socket() -> TcpStream {
    static PAIR: OnceLock<(TcpStream, TcpStream)> = OnceLock::new();
    let (here, _there) = PAIR.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        (here, listener.accept().expect("a connection").0)
    });
    here.try_clone().expect("a clone")
}

/// The longest value.
const MAX: usize = 1000;

libfuzzer_sys::fuzz_target!(|input: (bool, u8, &[u8])| {
    let (has_hello, cut, bytes) = input;
    // Most inputs would end at the hello.
    let hello: &[u8] = b"\xffipc\r\n\x1a\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    let all = [if has_hello { hello } else { &[] }, bytes].concat();
    let (first, second) = all.split_at(all.len().min(cut.into()));
    let said = Said { first: first.to_vec(), second: second.to_vec() };
    let options = TcpOptions::new().max_message(MAX);
    let link = match options.greet_over(said, socket(), |_| Ok(())) {
        Ok(link) => link,
        Err(Error::Malformed { .. } | Error::Truncated { .. }) if !has_hello => return,
        Err(error) => panic!("{error:?}"),
    };
    let mut left = &all[32..];
    let values = Receiver::<Vec<u8>, _>::new(link.reader);
    for value in values.iter() {
        match value {
            Ok(value) => left = after(left, |len| assert!(value.len() <= len && len <= MAX)),
            Err(Error::Decode { message, .. }) => left = after(left, |len| assert_eq!(message.len(), len)),
            Err(Error::TooLong { len, max: MAX }) => left = after(left, |is| assert_eq!(is, len)),
            Err(Error::Truncated { .. }) => left = &[],
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(left.is_empty());
});

/// What follows the first message, whose length is looked at.
fn after(bytes: &[u8], check: impl FnOnce(usize)) -> &[u8] {
    let (short, rest) = bytes.split_first_chunk().expect("a length");
    let (len, rest) = match u32::from_le_bytes(*short) {
        u32::MAX => {
            let (long, rest) = rest.split_first_chunk().expect("a long length");
            (u64::from_le_bytes(*long), rest)
        }
        short => (short.into(), rest),
    };
    let len = usize::try_from(len).expect("a processor with 64 bits");
    check(len);
    rest.get(len..).unwrap_or(&[])
}
