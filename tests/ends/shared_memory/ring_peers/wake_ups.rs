//! Sides that sleep are woken, whichever cores and calls they have.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{self, Gate, Is, Kernel, Trial, bytes, exit_code, refuse_calls, with_interval_timer};
use ipc::{RingReader, RingWriter, fork, stream_pair};

pub fn trials() -> Vec<Trial> {
    support::trials![
        sides_that_share_a_core_hardly_sleep within 120,
        no_wake_up_is_lost_on_two_cores within 240,
        no_wake_up_is_lost_on_one_core within 240,
        no_wake_up_is_lost_while_signals_arrive within 240,
        no_wake_up_is_lost_without_membarrier within 240,
        the_same_where_membarrier_is_refused_later within 120,
        the_same_without_noexec_seals,
    ]
}

/// How often this process gave its core away to wait for something.
fn own_sleeps() -> i64 {
    // SAFETY: zeroed bytes are a valid rusage, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage.ru_nvcsw as i64
    }
}

/// They give the core to one another, and nobody has to wake anybody.
fn sides_that_share_a_core_hardly_sleep() {
    // A turn that a third process takes counts as some in vain, and then they sleep. So one good one of many is enough.
    let mut tries = (0..100).map(|_| {
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let child = fork((there.child, back.child), |(there, back)| {
            support::run_on_core(0);
            let (mut there, mut back) = (RingReader::new(there).unwrap(), RingWriter::new(back).unwrap());
            std::io::copy(&mut there, &mut back).unwrap();
        });
        support::run_on_core(0);
        let (mut there, mut back) = (RingWriter::new(there.parent).unwrap(), RingReader::new(back.parent).unwrap());
        let trip = |there: &mut RingWriter, back: &mut RingReader| {
            there.write_all(&[7; 16]).unwrap();
            back.read_exact(&mut [0; 16]).unwrap();
        };
        let before = own_sleeps();
        (0..1000).for_each(|_| trip(&mut there, &mut back));
        let slept = own_sleeps() - before;
        drop(there);
        assert_eq!(exit_code(&child.unwrap()), 0);
        slept
    });
    assert!(tries.any(|slept| slept < 900), "each trip has slept");
}

/// A storm of sleeps: bytes go back and forth, in pieces and through rings so small that both sides sleep all the time. A
/// wake-up that is lost is a hang.
fn storm(cores: (usize, usize), everyday: u64) {
    let rounds = support::rounds(everyday);
    for spin in [Duration::ZERO, Duration::from_nanos(300), Duration::from_micros(5)] {
        let (there, back) = (stream_pair().unwrap(), stream_pair().unwrap());
        let child = fork((there.child, back.child), |(there, back)| {
            support::run_on_core(cores.1);
            let (mut there, mut back) =
                (RingReader::new(there).unwrap(), RingWriter::with_capacity(back, 4096).unwrap());
            there.set_spin(spin);
            back.set_spin(spin);
            let mut buf = [0; 3000];
            loop {
                let len = there.read(&mut buf).unwrap();
                if len == 0 {
                    return;
                }
                back.write_all(&buf[..len]).unwrap();
            }
        });
        support::run_on_core(cores.0);
        let (mut there, mut back) =
            (RingWriter::with_capacity(there.parent, 4096).unwrap(), RingReader::new(back.parent).unwrap());
        there.set_spin(spin);
        back.set_spin(spin);
        let data = bytes(9000);
        let mut buf = vec![0; 9000];
        for round in 0..rounds {
            let len = [1, 4096, 7, 5000][round as usize % 4];
            // More than the two rings and the buffer hold would never come back.
            there.write_all(&data[..len]).unwrap();
            back.read_exact(&mut buf[..len]).unwrap();
            assert!(buf[..len] == data[..len]);
        }
        drop(there);
        assert_eq!(back.read(&mut buf).unwrap(), 0);
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn no_wake_up_is_lost_on_two_cores() {
    storm((0, 1), 2000);
}

fn no_wake_up_is_lost_on_one_core() {
    storm((0, 0), 2000);
}

fn no_wake_up_is_lost_while_signals_arrive() {
    with_interval_timer(Duration::from_micros(100), || {
        storm((0, 1), 1000);
        storm((0, 0), 1000);
    });
}

fn no_wake_up_is_lost_without_membarrier() {
    refuse_calls(&[libc::SYS_membarrier], libc::EPERM);
    storm((0, 1), 1000);
    storm((0, 0), 1000);
}

/// One side may say that it makes the barriers, and then be locked up in a sandbox where it cannot.
fn the_same_where_membarrier_is_refused_later() {
    const GLOBAL_EXPEDITED: u32 = 2;
    let (pair, go) = (stream_pair().unwrap(), Gate::new());
    let child = fork(pair.child, |socket| {
        let mut ring = RingReader::new(socket).unwrap();
        ring.set_spin(Duration::ZERO);
        ring.read_exact(&mut [0; 10]).unwrap();
        Kernel::new().with(libc::SYS_membarrier, 0, Is::Equal(GLOBAL_EXPEDITED), libc::EPERM).play();
        support::assert_times_out("read", Duration::from_millis(20), |time| ring.read_timeout(&mut [0; 8], time));
        go.open();
        ring.read_exact(&mut [0; 2000]).unwrap();
        assert_eq!(ring.read(&mut [0; 8]).unwrap(), 0);
    })
    .unwrap();
    let mut ring = RingWriter::new(pair.parent).unwrap();
    ring.write_all(&[1; 10]).unwrap();
    go.pass();
    for _ in 0..2000 {
        ring.write_all(&[1]).unwrap();
    }
    drop(ring);
    assert_eq!(exit_code(&child), 0);
}

fn the_same_without_noexec_seals() {
    const MFD_NOEXEC_SEAL: u32 = 8;
    Kernel::new().with(libc::SYS_memfd_create, 1, Is::AnyOf(MFD_NOEXEC_SEAL), libc::EINVAL).play();
    storm((0, 1), 20);
}
