//! `TcpOptions`, and the same bytes through a `TcpStream` with a length in front.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ipc::{Receiver, Sender, TcpOptions};
use serde_bytes::ByteBuf;

use crate::{listen, timed};

/// A value goes as soon as it is sent.
pub fn flushed(size: usize, count: usize) -> f64 {
    ours_with(size, count, true)
}

pub fn ours(size: usize, count: usize) -> f64 {
    ours_with(size, count, false)
}

fn ours_with(size: usize, count: usize, is_flushed: bool) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> ipc::Result<()> {
        let link = TcpOptions::new().connect(address)?;
        let (values, answers) = (Receiver::<ByteBuf, _>::new(link.reader), Sender::new(link.writer));
        for value in values.iter() {
            assert_eq!(value?.len(), size);
        }
        answers.send(1_u8)?;
        answers.close()
    })
    .expect("a child");
    let link = TcpOptions::new().greet(listener.accept().expect("a connection").0).expect("a link");
    let (values, answers) = (Sender::new(link.writer), Receiver::<u8, _>::new(link.reader));
    let rate = timed(count, || {
        for _ in 0..count {
            values.send(ByteBuf::from(vec![7; size])).expect("sent");
            if is_flushed {
                values.flush().expect("sent");
            }
        }
        values.close().expect("all sent");
        answers.recv().expect("an answer");
    });
    assert!(child.wait().expect("its status").success());
    rate
}

/// A connection as a program has it that has no link: with a length in front of each value, which postcard encodes.
struct Bare<R, W> {
    reader: R,
    writer: W,
    framed: Vec<u8>,
    message: Vec<u8>,
}

impl<R: Read, W: Write> Bare<R, W> {
    fn new(reader: R, writer: W, size: usize) -> Self {
        Self { reader, writer, framed: vec![0; size + 16], message: Vec::new() }
    }

    fn send(&mut self, value: &ByteBuf) -> std::io::Result<()> {
        let len = postcard::to_slice(value, &mut self.framed[4..]).expect("encoded").len();
        self.framed[..4].copy_from_slice(&(len as u32).to_le_bytes());
        self.writer.write_all(&self.framed[..4 + len])
    }

    /// Returns `None` at EOF.
    fn recv(&mut self) -> std::io::Result<Option<ByteBuf>> {
        let mut head = [0; 4];
        if self.reader.read_exact(&mut head).is_err() {
            return Ok(None);
        }
        self.message.resize(u32::from_le_bytes(head) as usize, 0);
        self.reader.read_exact(&mut self.message)?;
        Ok(Some(postcard::from_bytes(&self.message).expect("decoded")))
    }
}

/// The options that a link sets too.
fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))
}

/// As much as a link reads and writes at once.
const BUFFER: usize = 68 << 10;

/// A write for each message, and two reads.
pub fn bare(size: usize, count: usize) -> f64 {
    with_lengths(size, count, 0, 0)
}

/// A write for each message, and a read of all that is there, as a link does it.
pub fn ahead(size: usize, count: usize) -> f64 {
    with_lengths(size, count, BUFFER, 0)
}

pub fn buffered(size: usize, count: usize) -> f64 {
    with_lengths(size, count, BUFFER, BUFFER)
}

fn with_lengths(size: usize, count: usize, read_buffer: usize, write_buffer: usize) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        set_options(&stream)?;
        let mut bare = Bare::new(BufReader::with_capacity(read_buffer, &stream), &stream, size);
        while let Some(value) = bare.recv()? {
            assert_eq!(value.len(), size);
        }
        (&stream).write_all(&[1])
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    set_options(&stream).expect("options");
    let rate = timed(count, || {
        let mut bare = Bare::new(&stream, BufWriter::with_capacity(write_buffer, &stream), size);
        for _ in 0..count {
            bare.send(&ByteBuf::from(vec![7; size])).expect("sent");
        }
        bare.writer.flush().expect("all sent");
        stream.shutdown(std::net::Shutdown::Write).expect("the end");
        (&stream).read_exact(&mut [0]).expect("an answer");
    });
    assert!(child.wait().expect("its status").success());
    rate
}

pub fn ours_back(size: usize, count: usize) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> ipc::Result<()> {
        let link = TcpOptions::new().connect(address)?;
        let (values, answers) = (Receiver::<ByteBuf, _>::new(link.reader), Sender::new(link.writer));
        for value in values.iter() {
            answers.send(value?)?;
            answers.flush()?;
        }
        answers.close()
    })
    .expect("a child");
    let link = TcpOptions::new().greet(listener.accept().expect("a connection").0).expect("a link");
    let (values, answers) = (Sender::new(link.writer), Receiver::<ByteBuf, _>::new(link.reader));
    let mut value = ByteBuf::from(vec![7; size]);
    let rate = timed(count, || {
        for _ in 0..count {
            values.send(std::mem::take(&mut value)).expect("sent");
            values.flush().expect("sent");
            value = answers.recv().expect("an answer").expect("no EOF");
        }
    });
    values.close().expect("all sent");
    assert!(child.wait().expect("its status").success());
    rate
}

pub fn bare_back(size: usize, count: usize) -> f64 {
    let (listener, address) = listen();
    let child = ipc::fork((), move |()| -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        set_options(&stream)?;
        let mut bare = Bare::new(&stream, &stream, size);
        while let Some(value) = bare.recv()? {
            bare.send(&value)?;
        }
        Ok(())
    })
    .expect("a child");
    let stream = listener.accept().expect("a connection").0;
    set_options(&stream).expect("options");
    let mut value = ByteBuf::from(vec![7; size]);
    let rate = timed(count, || {
        let mut bare = Bare::new(&stream, &stream, size);
        for _ in 0..count {
            bare.send(&std::mem::take(&mut value)).expect("sent");
            value = bare.recv().expect("an answer").expect("no EOF");
        }
    });
    drop(stream);
    assert!(child.wait().expect("its status").success());
    rate
}
