//! The first look at a ring tells what there is, also where the other side was killed, or has not come yet.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{Gate, Trial, trials};
use ipc::{MessageReader, RingReader, RingWriter, fork, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    trials![
        the_first_look_after_a_kill_is_eof,
        an_empty_buffer_does_not_wait_for_the_writer,
        messages_in_a_ring_can_be_waited_for
    ]
}

fn the_first_look_after_a_kill_is_eof() {
    let pair = stream_pair().unwrap();
    let for_ever = Gate::new();
    let child = fork(pair.child, |socket| {
        let mut writer = RingWriter::new(socket).unwrap();
        writer.write_all(b"x").unwrap();
        for_ever.pass();
    })
    .unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
}

fn an_empty_buffer_does_not_wait_for_the_writer() {
    let pair = stream_pair().unwrap();
    let mut reader = RingReader::new(pair.parent).unwrap();
    assert_eq!(reader.try_read(&mut []).unwrap(), 0);
    assert_eq!(reader.read(&mut []).unwrap(), 0);
}

fn messages_in_a_ring_can_be_waited_for() {
    let pair = stream_pair().unwrap();
    let mut writer = RingWriter::new(pair.child).unwrap();
    let mut reader = MessageReader::new(RingReader::new(pair.parent).unwrap());
    // For the second one the socket is not rung: the reader does not sleep.
    for _ in 0..2 {
        writer.write_all(b"\x01\0\0\0x").unwrap();
        assert_eq!(wait_any(&mut [reader.watch().unwrap()], Some(Duration::ZERO)).unwrap(), 1);
        assert_eq!(reader.recv().unwrap(), Some(&b"x"[..]));
    }
}
