//! Waiting for rings: deadlines, sleeps and wakes, and `wait_any`.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::rings::{alone, fill, parent, read_to_end, with_reader, with_writer};
use crate::support::{
    self, FAR, Gate, Trial, asleep_in, assert_times_out, bytes, exit_code, handled, poll_until, with_interval_timer,
};
use ipc::{Error, MessageReader, MessageWriter, Ready, RingReader, RingWriter, Watch, fork, stream_pair, wait_any};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_full_ring_and_an_empty_one_would_block,
        deadlines_are_kept,
        deadlines_are_kept_before_the_hello,
        deadlines_are_kept_across_signals,
        a_blocked_reader_sleeps_and_is_woken,
        a_blocked_writer_sleeps_and_is_woken,
        a_socket_that_never_waits_is_not_waited_for,
        waiting_for_a_ring_and_others,
        a_watched_writer_is_ready_when_there_is_room,
        a_watch_does_not_miss_what_came_before,
        rings_that_nobody_waited_for_wake_nobody,
        spinning_changes_no_answer,
        a_message_that_the_buffer_has_room_for_does_not_wait,
    ]
}

fn a_full_ring_and_an_empty_one_would_block() {
    let (mut reader, mut writer) = alone(8192);
    for _ in 0..5 {
        assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
        assert_eq!(fill(&mut writer), 8192);
        assert!(matches!(writer.try_write(&[0]), Err(Error::WouldBlock)));
        // A byte of room is room, and what does not fit does not go.
        assert_eq!(reader.try_read(&mut [0; 5]).unwrap(), 5);
        assert_eq!(writer.try_write(&[0; 100]).unwrap(), 5);
        assert_eq!(reader.try_read(&mut [0; 10_000]).unwrap(), 8192);
    }
}

fn deadlines_are_kept() {
    let (mut reader, mut writer) = alone(4096);
    for spin in [Duration::ZERO, Duration::from_micros(50), Duration::MAX] {
        reader.set_spin(spin);
        writer.set_spin(spin);
        for timeout in [Duration::ZERO, Duration::from_millis(5)] {
            assert_times_out("read", timeout, |timeout| reader.read_timeout(&mut [0; 8], timeout));
        }
        fill(&mut writer);
        for timeout in [Duration::ZERO, Duration::from_millis(5)] {
            assert_times_out("write", timeout, |timeout| writer.write_timeout(&[0; 8], timeout));
        }
        assert_eq!(reader.read_timeout(&mut [0; 8192], Duration::ZERO).unwrap(), 4096);
        assert_eq!(writer.write_timeout(&[0; 8], Duration::ZERO).unwrap(), 8);
        assert_eq!(reader.read_timeout(&mut [0; 8], Duration::MAX).unwrap(), 8);
    }
}

fn deadlines_are_kept_before_the_hello() {
    let pair = stream_pair().unwrap();
    let mut ring = RingReader::new(pair.parent).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(5)] {
        assert_times_out("read", timeout, |timeout| ring.read_timeout(&mut [0; 8], timeout));
    }
    let mut writer = RingWriter::new(pair.child).unwrap();
    assert_times_out("read", Duration::from_millis(5), |timeout| ring.read_timeout(&mut [0; 8], timeout));
    writer.write_all(b"late").unwrap();
    assert_eq!(ring.read_timeout(&mut [0; 8], Duration::ZERO).unwrap(), 4);
}

fn deadlines_are_kept_across_signals() {
    let (mut reader, mut writer) = alone(4096);
    fill(&mut writer);
    with_interval_timer(Duration::from_micros(500), || {
        assert_times_out("write", Duration::from_millis(30), |timeout| writer.write_timeout(&[0; 8], timeout));
        reader.read_exact(&mut [0; 4096]).unwrap();
        assert_times_out("read", Duration::from_millis(30), |timeout| reader.read_timeout(&mut [0; 8], timeout));
    });
    // An emulated processor has few ticks.
    assert!(handled() > 2);
    // And a call without a deadline goes on.
    let (mut reader, child) = with_writer(|mut ring| {
        asleep_in(parent(), &[libc::SYS_recvfrom]);
        asleep_in(parent(), &[libc::SYS_recvfrom]);
        ring.write_all(&bytes(1_000_000)).unwrap();
    });
    let data = with_interval_timer(Duration::from_micros(300), || read_to_end(&mut reader));
    assert!(data == bytes(1_000_000));
    assert_eq!(exit_code(&child), 0);
}

fn a_blocked_reader_sleeps_and_is_woken() {
    let (mut reader, child) = with_writer(|mut ring| {
        for number in 0..20 {
            asleep_in(parent(), &[libc::SYS_recvfrom, libc::SYS_ppoll]);
            ring.write_all(&[number]).unwrap();
        }
    });
    for number in 0..20 {
        let mut byte = [0];
        if number % 2 == 0 {
            reader.read_exact(&mut byte).unwrap();
        } else {
            assert_eq!(reader.read_timeout(&mut byte, FAR).unwrap(), 1);
        }
        assert_eq!(byte, [number]);
    }
    assert_eq!(exit_code(&child), 0);
}

fn a_blocked_writer_sleeps_and_is_woken() {
    let (mut writer, child) = with_reader(|mut ring| {
        for _ in 0..20 {
            asleep_in(parent(), &[libc::SYS_recvfrom, libc::SYS_ppoll]);
            ring.read_exact(&mut [0; 10]).unwrap();
        }
        // A parent that was woken and has not run yet counts as asleep, so it may still have to write.
        std::io::copy(&mut ring, &mut std::io::sink()).unwrap();
    });
    let full = fill(&mut writer);
    assert_eq!(full, writer.capacity());
    for number in 0..20 {
        if number % 2 == 0 {
            writer.write_all(&[0; 10]).unwrap();
        } else {
            assert_eq!(writer.write_timeout(&[0; 10], FAR).unwrap(), 10);
        }
    }
    drop(writer);
    assert_eq!(exit_code(&child), 0);
}

fn a_socket_that_never_waits_is_not_waited_for() {
    let pair = stream_pair().unwrap();
    for socket in [&pair.parent, &pair.child] {
        // SAFETY: an open descriptor and a number.
        assert_eq!(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    }
    let mut reader = RingReader::new(pair.parent).unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut writer = RingWriter::with_capacity(pair.child, 1).unwrap();
    assert_eq!(reader.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    fill(&mut writer);
    assert_eq!(writer.write(&[0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // A deadline is waited for all the same.
    assert_times_out("write", Duration::from_millis(5), |timeout| writer.write_timeout(&[0; 8], timeout));
}

fn waiting_for_a_ring_and_others() {
    let go = Gate::new();
    let (mut reader, child) = with_writer(|mut ring| {
        for _ in 0..10 {
            go.pass();
            ring.write_all(b"x").unwrap();
        }
    });
    let (quiet, _keep) = ipc::pipe().unwrap();
    for _ in 0..10 {
        // Nothing, and it sleeps through the time.
        poll_until("nothing is there", || {
            wait_any(&mut [Watch::readable(&quiet), reader.watch()], Some(Duration::ZERO)).unwrap() == 0
        });
        go.open();
        let mut on = [Watch::readable(&quiet), reader.watch()];
        assert_eq!(wait_any(&mut on, Some(FAR)).unwrap(), 1);
        assert!(on[0].ready().is_empty() && on[1].ready().contains(Ready::READ));
        poll_until("a byte is there", || match reader.try_read(&mut [0; 8]) {
            Ok(count) => {
                assert_eq!(count, 1);
                true
            }
            Err(Error::WouldBlock) => false, // the hello came
            Err(error) => panic!("{error:?}"),
        });
    }
    assert_eq!(exit_code(&child), 0);
    let mut on = [reader.watch()];
    assert_eq!(wait_any(&mut on, None).unwrap(), 1);
    assert!(on[0].ready().contains(Ready::READ));
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
}

fn a_watched_writer_is_ready_when_there_is_room() {
    let go = Gate::new();
    let (mut writer, child) = with_reader(|mut ring| {
        for _ in 0..10 {
            go.pass();
            ring.read_exact(&mut [0; 100]).unwrap();
        }
        go.pass();
    });
    assert_eq!(wait_any(&mut [writer.watch()], None).unwrap(), 1);
    fill(&mut writer);
    for _ in 0..10 {
        assert_eq!(wait_any(&mut [writer.watch()], Some(Duration::ZERO)).unwrap(), 0);
        go.open();
        let mut on = [writer.watch()];
        assert_eq!(wait_any(&mut on, Some(FAR)).unwrap(), 1);
        assert_eq!(on[0].ready(), Ready::WRITE);
        assert_eq!(writer.try_write(&[0; 100]).unwrap(), 100);
    }
    go.open();
    let mut on = [writer.watch()];
    assert_eq!(wait_any(&mut on, Some(FAR)).unwrap(), 1);
    assert!(on[0].ready().contains(Ready::WRITE));
    assert_eq!(exit_code(&child), 0);
    assert!(matches!(writer.try_write(&[0; 100]), Err(Error::Closed)));
}

fn a_watch_does_not_miss_what_came_before() {
    let (mut reader, mut writer) = alone(4096);
    assert_eq!(reader.available().unwrap(), 0);
    for _ in 0..1000 {
        let _ = reader.watch();
        writer.write_all(b"x").unwrap();
        assert_eq!(wait_any(&mut [reader.watch()], None).unwrap(), 1);
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 1);
    }
    // Armed when it was written to, and by another process.
    let (mut reader, child) = with_writer(|mut ring| (0..1000).for_each(|_| ring.write_all(b"x").unwrap()));
    let mut read = 0;
    while read < 1000 {
        assert_eq!(wait_any(&mut [reader.watch()], Some(FAR)).unwrap(), 1);
        match reader.try_read(&mut [0; 3]) {
            Ok(count) => read += count,
            Err(Error::WouldBlock) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(exit_code(&child), 0);
}

fn rings_that_nobody_waited_for_wake_nobody() {
    let (mut reader, mut writer) = alone(4096);
    for _ in 0..100 {
        // Each watch arms, and each write rings.
        let _ = reader.watch();
        writer.write_all(b"x").unwrap();
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
    }
    assert_eq!(wait_any(&mut [reader.watch()], Some(Duration::ZERO)).unwrap(), 0);
    assert!(matches!(reader.try_read(&mut [0; 8]), Err(Error::WouldBlock)));
}

fn spinning_changes_no_answer() {
    for spin in [Duration::ZERO, Duration::from_micros(50), Duration::from_millis(5)] {
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let child = fork((there.child, back.child), |(there, back)| {
            let (mut there, mut back) = (RingReader::new(there).unwrap(), RingWriter::new(back).unwrap());
            there.set_spin(spin);
            back.set_spin(spin);
            std::io::copy(&mut there, &mut back).unwrap();
        });
        let (mut there, mut back) = (RingWriter::new(there.parent).unwrap(), RingReader::new(back.parent).unwrap());
        there.set_spin(spin);
        back.set_spin(spin);
        for number in 0..support::rounds(200) as u32 {
            there.write_all(&number.to_le_bytes()).unwrap();
            let mut answer = [0; 4];
            back.read_exact(&mut answer).unwrap();
            assert_eq!(answer, number.to_le_bytes());
        }
        drop(there);
        assert_eq!(back.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn a_message_that_the_buffer_has_room_for_does_not_wait() {
    let (reader, writer) = alone(4096);
    let (mut reader, mut writer) = (MessageReader::new(reader), MessageWriter::new(writer));
    // The first one fills the ring. Nobody reads, and a call that waited for room would not return.
    let lens = [4092, 0, 100, 2047, 2048, 3000, 5000];
    lens.iter().for_each(|len| writer.send(&bytes(*len)).unwrap());
    assert!(matches!(writer.try_send(&bytes(8000)), Err(Error::WouldBlock)));
    for len in lens {
        let message = loop {
            match reader.try_recv() {
                Ok(message) => break message.unwrap().to_vec(),
                Err(Error::WouldBlock) => drop(writer.try_flush()),
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(message, bytes(len));
    }
}
