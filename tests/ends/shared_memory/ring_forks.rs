//! Rings and forks: one belongs to the process that it was given to, and to no copy.

use std::io::{IoSlice, IoSliceMut, Read, Write};

use super::rings::{alone, read_to_end, with_reader};
use crate::support::{self, FAR, Gate, Trial, bytes, exit_code};
use ipc::{
    Command, Error, Fork, Forked, RingReader, RingWriter, StreamSocket, datagram_pair, fork, fork_raw, stream_pair,
    wait_any,
};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_socket_travels_and_becomes_a_ring,
        a_captured_ring_is_not_given,
        a_ring_that_was_copied_by_a_raw_fork_is_not_given,
        a_ring_that_a_child_drops_goes_on,
        a_severed_socket_becomes_no_ring,
        a_child_makes_rings_of_its_own,
        a_ring_takes_the_memory_that_the_guide_says,
    ]
}

fn a_socket_travels_and_becomes_a_ring() {
    // By exec.
    let pair = stream_pair().unwrap();
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me).args(["worker", "ring"]).give("ring", pair.child).spawn().unwrap();
    let mut ring = RingWriter::new(pair.parent).unwrap();
    ring.write_all(&bytes(1 << 20)).unwrap();
    drop(ring);
    assert_eq!(exit_code(&child), 0);
    // In a message, with the hello under way before anybody holds the other end.
    let messages = datagram_pair().unwrap();
    let child = fork(messages.child, |messages| {
        let socket: StreamSocket = messages.recv_with(&mut Vec::new()).unwrap().unwrap().take().unwrap();
        assert!(read_to_end(&mut RingReader::new(socket).unwrap()) == bytes(100_000));
    });
    let pair = stream_pair().unwrap();
    let mut ring = RingWriter::new(pair.parent).unwrap();
    ring.write_all(&bytes(100_000)).unwrap();
    messages.parent.send_with(b"", pair.child).unwrap();
    ring.close().unwrap();
    assert_eq!(exit_code(&child.unwrap()), 0);
}

/// That every call says that it is not given.
#[track_caller]
fn assert_not_given(reader: &mut RingReader, writer: &mut RingWriter) {
    let not_given = |result: ipc::Result<usize>| assert!(matches!(result, Err(Error::NotGiven)), "{result:?}");
    let read = reader.read(&mut [0; 8]).map_err(Error::from);
    let write = writer.write(&[0; 8]).map_err(Error::from);
    not_given(read);
    not_given(write);
    not_given(reader.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])]).map_err(Error::from));
    not_given(writer.write_vectored(&[IoSlice::new(&[0; 8])]).map_err(Error::from));
    not_given(reader.try_read(&mut [0; 8]));
    not_given(writer.try_write(&[0; 8]));
    not_given(reader.read_timeout(&mut [0; 8], FAR));
    not_given(writer.write_timeout(&[0; 8], FAR));
    not_given(reader.available());
    not_given(writer.is_closed().map(usize::from));
    // Ready at once, or refused as any end that was severed.
    for watch in [reader.watch(), writer.watch()] {
        assert!(matches!(wait_any(&mut [watch], Some(FAR)), Ok(1) | Err(Error::NotGiven)));
    }
}

pub(super) fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("memfd:ipc-ring")).count()
}

fn a_captured_ring_is_not_given() {
    let (mut reader, mut writer) = alone(4096);
    writer.write_all(b"before").unwrap();
    reader.read_exact(&mut [0; 1]).unwrap();
    assert!(mappings() > 0);
    for fork in [Fork::new(), Fork::new().keep_all_ends()] {
        let child = fork.spawn((), |()| {
            assert_eq!(mappings(), 0, "a child does not have the memory");
            assert_not_given(&mut reader, &mut writer);
        });
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
    let mut data = [0; 5];
    reader.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"efore");
    writer.write_all(b"after").unwrap();
    reader.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"after");
}

#[allow(unsafe_code)]
fn a_ring_that_was_copied_by_a_raw_fork_is_not_given() {
    let (mut reader, mut writer) = alone(4096);
    writer.write_all(b"x").unwrap();
    assert_eq!(reader.available().unwrap(), 1);
    // SAFETY: the child leaves with exit, below.
    match unsafe { fork_raw() }.unwrap() {
        Forked::Child => {
            assert_not_given(&mut reader, &mut writer);
            assert!(matches!(writer.close(), Err(Error::NotGiven)));
            drop(reader);
            std::process::exit(0);
        }
        Forked::Parent(child) => assert_eq!(exit_code(&child), 0),
        #[allow(unreachable_patterns)]
        _ => unreachable!(),
    }
    assert!(!writer.is_closed().unwrap());
    writer.write_all(b"y").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 2);
    // Forked by somebody who knows nothing of this crate.
    // SAFETY: the child leaves with exit, below.
    match unsafe { libc::fork() } {
        0 => {
            assert_not_given(&mut reader, &mut writer);
            drop((reader, writer));
            std::process::exit(0);
        }
        pid => {
            let mut status = 0;
            // SAFETY: a child, and room for its status.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0);
        }
    }
    writer.write_all(b"z").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
}

fn a_ring_that_a_child_drops_goes_on() {
    let (reader, writer) = alone(4096);
    let (mut reader, mut writer) = (Some(reader), Some(writer));
    writer.as_mut().unwrap().write_all(b"x").unwrap();
    assert_eq!(reader.as_mut().unwrap().available().unwrap(), 1);
    for fork in [Fork::new(), Fork::new().keep_all_ends()] {
        let child = fork.spawn((), |()| drop((reader.take(), writer.take())));
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
    assert!(!writer.as_ref().unwrap().is_closed().unwrap());
    assert!(matches!(reader.as_mut().unwrap().read(&mut [0; 8]), Ok(1)));
    assert!(matches!(reader.as_mut().unwrap().try_read(&mut [0; 8]), Err(Error::WouldBlock)));
}

fn a_severed_socket_becomes_no_ring() {
    let pair = stream_pair().unwrap();
    let child = fork((), |()| {
        let refused = RingWriter::new(pair.parent).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
        let refused = RingReader::new(pair.child).unwrap_err();
        assert!(matches!(refused.error, Error::NotGiven));
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_child_makes_rings_of_its_own() {
    let (mut reader, mut writer) = alone(4096);
    let child = fork((), |()| {
        let (mut own_reader, mut own_writer) = alone(4096);
        own_writer.write_all(b"own").unwrap();
        assert_eq!(own_reader.read(&mut [0; 8]).unwrap(), 3);
        assert_not_given(&mut reader, &mut writer);
        let grandchild = fork((), |()| assert_not_given(&mut own_reader, &mut own_writer)).unwrap();
        assert_eq!(exit_code(&grandchild), 0);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    writer.write_all(b"x").unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
}

/// The sum of a field over the mappings of rings in this process, in KiB.
fn of_rings(field: &str) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_ring = false;
    let mut sum = 0;
    for line in smaps.lines() {
        match line
            .split_once(':')
            .filter(|(name, _)| name.chars().all(|char| char.is_ascii_alphabetic() || char == '_'))
        {
            None => is_ring = line.contains("memfd:ipc-ring"),
            Some((name, value)) if is_ring && name == field => {
                sum += value.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            }
            Some(_) => {}
        }
    }
    sum
}

fn a_ring_takes_the_memory_that_the_guide_says() {
    let (read, go) = (Gate::new(), Gate::new());
    let (mut ring, child) = with_reader(|mut ring| {
        ring.read_exact(&mut [0; 256 << 10]).unwrap();
        assert_eq!((of_rings("Size"), of_rings("Rss")), (516, 260));
        read.open();
        go.pass();
    });
    ring.write_all(&[7; 256 << 10]).unwrap();
    read.pass();
    assert_eq!((of_rings("Size"), of_rings("Rss"), of_rings("Pss")), (516, 260, 130));
    go.open();
    assert_eq!(exit_code(&child), 0);
    assert_eq!(of_rings("Pss"), 260);
    drop(ring);
    assert_eq!(of_rings("Size"), 0);
}
