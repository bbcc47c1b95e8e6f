//! Large values in segments: their sender uses the memory again, and never while a receiver may still read it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use crate::support::{self, Is, Kernel, Trial, exit_code, rounds};
use ipc::{DatagramSocket, Error, Fork, Receiver, Sender, channel, fork, open_ends};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_segment_is_used_again_when_it_was_given_back,
        a_segment_that_is_not_given_back_stays_as_it_is,
        an_old_descriptor_gives_nothing_back,
        nobody_else_can_write_to_a_segment,
        a_segment_that_could_not_be_sent_is_used_again,
        a_sender_keeps_a_few_segments,
        a_sender_gives_up_segments_that_are_never_given_back,
        a_longer_value_takes_the_place_of_short_segments,
        a_value_over_four_mebibytes_leaves_nothing_behind,
        a_child_has_no_segment_of_its_parents,
        a_sender_that_was_given_to_a_child_goes_on_there,
        a_child_that_keeps_all_ends_writes_to_memory_of_its_own,
        where_a_segment_is_refused_each_value_has_memory_of_its_own,
        threads_that_send_at_a_time_share_no_segment within 120,
        threads_that_send_at_a_time_leave_a_few_segments,
        a_value_arrives_from_a_segment_whatever_its_length,
        a_length_that_lies_is_an_error,
        a_segment_over_the_limit_is_given_back,
    ]
}

const LEN: usize = 1 << 20;

/// A sender of texts that has sent a large value, and the socket that they arrive at.
fn started() -> (Sender<String>, DatagramSocket) {
    let (sender, receiver) = channel::<String>().unwrap();
    let raw = receiver.into_inner();
    sender.send("x".repeat(LEN)).unwrap();
    receive(&raw);
    (sender, raw)
}

/// The memory of the next value.
fn receive(raw: &DatagramSocket) -> File {
    let mut message = vec![1];
    let mut received = raw.recv_with(&mut message).unwrap().unwrap();
    assert!(message.is_empty() && received.len() == 1);
    File::from(received.take::<OwnedFd>().unwrap())
}

fn give_back(segment: &File) {
    // SAFETY: an open descriptor and a number.
    assert_eq!(unsafe { libc::fcntl(segment.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
}

fn inode(segment: &File) -> u64 {
    segment.metadata().unwrap().ino()
}

/// The letter that the text in a segment is made of.
fn letter(segment: &File) -> char {
    let mut header = [0; 8];
    segment.read_exact_at(&mut header, 0).unwrap();
    let mut value = vec![0; u64::from_le_bytes(header) as usize];
    segment.read_exact_at(&mut value, page_size()).unwrap();
    let text: String = postcard::from_bytes(&value).unwrap();
    assert!(text.len() == LEN && text.bytes().all(|byte| byte == text.as_bytes()[0]), "a value of one letter");
    text.chars().next().unwrap()
}

fn page_size() -> u64 {
    // SAFETY: asks for a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

fn text(letter: char) -> String {
    letter.to_string().repeat(LEN)
}

fn a_segment_is_used_again_when_it_was_given_back() {
    let (sender, raw) = started();
    let before = open_ends();
    sender.send(text('a')).unwrap();
    let first = receive(&raw);
    for letter_sent in ['b', 'c', 'd'] {
        give_back(&receive_once(&sender, &raw, letter_sent, &first));
    }
    assert_eq!(open_ends(), before, "a segment is no end");

    fn receive_once(sender: &Sender<String>, raw: &DatagramSocket, sent: char, first: &File) -> File {
        give_back(first);
        sender.send(text(sent)).unwrap();
        let segment = receive(raw);
        assert_eq!((inode(&segment), letter(&segment)), (inode(first), sent));
        segment
    }
}

fn a_segment_that_is_not_given_back_stays_as_it_is() {
    let (sender, raw) = started();
    let sent = 'a'..='h';
    let segments: Vec<_> = sent
        .clone()
        .map(|letter| {
            sender.send(text(letter)).unwrap();
            receive(&raw)
        })
        .collect();
    let inodes: BTreeSet<_> = segments.iter().map(inode).collect();
    assert_eq!(inodes.len(), segments.len(), "each value has memory of its own");
    // The last is in sealed memory, which has no header.
    let segments: Vec<_> = segments.iter().filter(|segment| segment.metadata().unwrap().len() % 65_536 == 0).collect();
    assert!(segments.len() >= 7, "{} segments", segments.len());
    assert!(segments.iter().map(|segment| letter(segment)).eq(sent.take(segments.len())));
}

fn an_old_descriptor_gives_nothing_back() {
    let (sender, raw) = started();
    sender.send(text('a')).unwrap();
    let old = receive(&raw);
    give_back(&old);
    sender.send(text('b')).unwrap();
    let new = receive(&raw);
    assert_eq!(inode(&new), inode(&old));
    give_back(&old); // whoever received it may say so again
    sender.send(text('c')).unwrap();
    assert_ne!(inode(&receive(&raw)), inode(&new));
    assert_eq!(letter(&new), 'b');
}

fn nobody_else_can_write_to_a_segment() {
    let (sender, raw) = started();
    sender.send(text('a')).unwrap();
    let segment = receive(&raw);
    let path = format!("/proc/self/fd/{}", segment.as_raw_fd());
    let refused = |refused: std::io::Result<()>| assert!(refused.is_err(), "it was changed");
    for file in [File::options().read(true).write(true).open(path).ok(), Some(segment.try_clone().unwrap())] {
        let Some(file) = file else { continue };
        refused(file.write_at(b"changed", 4096).map(drop));
        refused(file.set_len(0));
        refused(file.set_len(64 << 20));
        // SAFETY: an open descriptor and numbers; a mapping at an address of the kernel's choice.
        unsafe {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            assert_eq!(libc::fallocate(file.as_raw_fd(), mode, 0, 8192), -1);
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let mapped = libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_eq!(mapped, libc::MAP_FAILED);
            assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE), -1);
        }
    }
    assert_eq!(letter(&segment), 'a');
}

fn a_segment_that_could_not_be_sent_is_used_again() {
    let (sender, raw) = started();
    let long = Sender::<Vec<u8>>::new(sender.try_clone().unwrap().into_inner());
    while long.try_send(vec![7; 100_000]).is_ok() {} // until the queue is full
    drop(long);
    for _ in 0..20 {
        let unsent = sender.try_send(text('a')).unwrap_err();
        assert!(matches!(unsent.error, Error::WouldBlock) && unsent.value == text('a'));
        let unsent = sender.send_timeout(unsent.value, Duration::ZERO).unwrap_err();
        assert!(matches!(unsent.error, Error::TimedOut) && unsent.value == text('a'));
    }
    assert_eq!(kept().len(), 1);
    drop(raw);
    assert!(matches!(sender.send(text('b')).unwrap_err().error, Error::Closed));
    drop(sender);
    assert_eq!(kept().len(), 0, "a sender that is dropped keeps nothing");
}

/// The lengths of the segments that this process has open.
fn kept() -> Vec<u64> {
    open("/memfd:ipc-values")
}

/// The lengths of the files of such names that this process has open.
fn open(names: &str) -> Vec<u64> {
    let numbers = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let files = numbers.filter(|path| fs::read_link(path).is_ok_and(|name| name.to_string_lossy().starts_with(names)));
    files.filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).collect()
}

fn a_sender_keeps_a_few_segments() {
    let (sender, receiver) = channel::<String>().unwrap();
    // Of many lengths, and as many of each as there is room for.
    for len in [300_000, 4_000_000, 450_000, 1 << 20, 220_000, 2 << 20, 300_000] {
        let mut sent = 0;
        while sent < 40 && sender.try_send("x".repeat(len)).is_ok() {
            sent += 1;
            let kept = kept();
            assert!(kept.len() <= 16 && kept.iter().sum::<u64>() <= 9 << 20, "{kept:?}");
        }
        assert!(sent > 1);
        for _ in 0..sent {
            assert_eq!(receiver.recv().unwrap().map(|text| text.len()), Some(len));
        }
    }
}

fn a_sender_gives_up_segments_that_are_never_given_back() {
    let (sender, raw) = started();
    for letter in ['a'; 20] {
        sender.send(text(letter)).unwrap();
        receive(&raw); // by somebody who leaves at once
    }
    assert!(kept().len() >= 7);
    let receiver = Receiver::<String>::new(raw);
    for _ in 0..100 {
        sender.send(text('b')).unwrap();
        assert_eq!(receiver.recv().unwrap(), Some(text('b')));
    }
    assert_eq!(kept().len(), 1, "one serves for all of them again");
}

fn a_longer_value_takes_the_place_of_short_segments() {
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    for len in [500_000, 1_000_000, 2_000_000, 4_000_000] {
        let mut sent = 0;
        while kept().iter().sum::<u64>() < 4_500_000 || sent < 2 {
            sender.try_send(vec![7; len]).unwrap();
            sent += 1;
        }
        assert!(kept().iter().any(|segment| *segment >= len as u64), "{len} of {:?}", kept());
        for _ in 0..sent {
            assert!(receiver.recv().unwrap() == Some(vec![7; len]));
        }
    }
}

fn a_value_over_four_mebibytes_leaves_nothing_behind() {
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    for _ in 0..3 {
        sender.send(vec![7; 4 << 20]).unwrap(); // and its length
        assert_eq!(kept().len(), 0);
        assert!(receiver.recv().unwrap() == Some(vec![7; 4 << 20]));
    }
}

fn a_child_has_no_segment_of_its_parents() {
    let (sender, raw) = started();
    sender.send(text('a')).unwrap();
    let segment = receive(&raw);
    let number = segment.as_raw_fd();
    assert_eq!(kept().len(), 2, "the sender's and the receiver's");
    let child = fork((), move |()| {
        // SAFETY: this process's copy of what its parent has received itself.
        unsafe { libc::close(number) };
        assert_eq!(kept().len(), 0);
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    give_back(&segment);
    sender.send(text('b')).unwrap();
    assert_eq!(inode(&receive(&raw)), inode(&segment), "the parent's goes on");
}

fn a_sender_that_was_given_to_a_child_goes_on_there() {
    let (sender, raw) = started();
    sender.send(text('a')).unwrap();
    let segment = receive(&raw);
    give_back(&segment);
    let child = fork(sender, |sender| {
        for letter in ['b', 'c', 'd'] {
            sender.send(text(letter)).unwrap();
        }
    });
    let child = child.unwrap();
    let receiver = Receiver::<String>::new(raw);
    for letter in ['b', 'c', 'd'] {
        assert_eq!(receiver.recv().unwrap(), Some(text(letter)));
    }
    assert_eq!(receiver.recv().unwrap(), None);
    assert_eq!(exit_code(&child), 0);
    assert_eq!(letter(&segment), 'a', "the child has written to none of its parent's memory");
}

fn a_child_that_keeps_all_ends_writes_to_memory_of_its_own() {
    let (sender, raw) = started();
    sender.send(text('a')).unwrap();
    let segment = receive(&raw);
    give_back(&segment);
    let child = Fork::new().keep_all_ends().spawn((), |()| {
        for letter in ['b', 'c'] {
            sender.send(text(letter)).unwrap();
        }
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
    sender.send(text('d')).unwrap();
    let segments = [receive(&raw), receive(&raw), receive(&raw)];
    assert!(segments.iter().map(letter).eq(['b', 'c', 'd']));
    assert!(segments[..2].iter().all(|of_the_child| inode(of_the_child) != inode(&segment)));
    assert_eq!(inode(&segments[2]), inode(&segment));
}

fn where_a_segment_is_refused_each_value_has_memory_of_its_own() {
    // SHRINK, GROW, SEAL and FUTURE_WRITE, as before Linux 5.1; and the path of a descriptor, as without `/proc`.
    let seals = Kernel::new().with(libc::SYS_fcntl, 2, Is::Equal(0x17), libc::EINVAL);
    let paths = Kernel::new().without(libc::SYS_openat, libc::ENOENT).without(libc::SYS_open, libc::ENOENT);
    for kernel in [seals, paths] {
        let (sender, raw) = channel::<String>().map(|(sender, receiver)| (sender, receiver.into_inner())).unwrap();
        let child = fork(sender, move |sender| {
            kernel.play();
            for letter in 'a'..='e' {
                sender.send(text(letter)).unwrap();
            }
        });
        for letter in 'a'..='e' {
            let mut received = raw.recv_with(&mut Vec::new()).unwrap().unwrap();
            let memory: ipc::Blob = received.take().expect("memory that nobody writes to any more");
            assert!(memory[..] == postcard::to_allocvec(&text(letter)).unwrap());
        }
        assert_eq!(exit_code(&child.unwrap()), 0);
    }
}

fn threads_that_send_at_a_time_share_no_segment() {
    const THREADS: usize = 4;
    let each = rounds(20) as usize;
    let (sender, receiver) = channel::<(usize, Vec<u8>)>().unwrap();
    let child = fork(receiver, move |receiver| {
        let mut counts = [0; THREADS];
        for value in receiver {
            let (thread, bytes) = value.unwrap();
            assert!(bytes.iter().all(|byte| *byte == (counts[thread] + thread) as u8), "value {}", counts[thread]);
            counts[thread] += 1;
        }
        assert_eq!(counts, [each; THREADS]);
    });
    let child = child.unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let sender = &sender;
            scope.spawn(move || {
                for count in 0..each {
                    let len = 300_000 + (count * 7919 + thread * 104_729) % 400_000;
                    sender.send((thread, vec![(count + thread) as u8; len])).unwrap();
                }
            });
        }
    });
    drop(sender);
    assert_eq!(exit_code(&child), 0);
}

fn threads_that_send_at_a_time_leave_a_few_segments() {
    const THREADS: usize = 8;
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    let filler = Sender::<Vec<u8>>::new(sender.try_clone().unwrap().into_inner());
    let mut waiting = 0;
    while filler.try_send(vec![7; 100_000]).is_ok() {
        waiting += 1; // until the queue is full
    }
    drop(filler);
    sender.try_send(vec![7; 4_000_000]).unwrap_err();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| sender.send(vec![7; 4_000_000]).unwrap());
        }
        // All of them have filled a segment, unless memory of their own, and wait for room.
        support::poll_until("all wait", || open("/memfd:ipc-value").len() >= THREADS);
        for len in [100_000].repeat(waiting).into_iter().chain([4_000_000; THREADS]) {
            assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(len));
        }
    });
    let kept = kept();
    assert!(kept.iter().sum::<u64>() <= 9 << 20, "{kept:?}");
    sender.send(vec![8; 4_000_000]).unwrap();
    assert!(receiver.recv().unwrap() == Some(vec![8; 4_000_000]));
}

fn a_value_arrives_from_a_segment_whatever_its_length() {
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    let lengths =
        [500_000, 500_000, 425_953, 65_536 * 8 - 4096 - 3, 65_536 * 8 - 4096 - 2, (4 << 20) - 4, 4 << 20, 426_000];
    for (number, len) in lengths.into_iter().enumerate() {
        let value: Vec<_> = (0..len).map(|at| (at / 7 + number) as u8).collect();
        sender.send(value.clone()).unwrap();
        assert!(receiver.recv().unwrap() == Some(value), "{len}");
    }
}

/// A segment by hand: the length that it tells, and the bytes of its second page.
fn segment(told: u64, bytes: &[u8], pages: u64) -> File {
    // SAFETY: a nul-terminated name; the descriptor is new.
    let file = unsafe {
        let fd = libc::memfd_create(c"hostile".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(fd >= 0);
        File::from(<OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd))
    };
    file.write_all_at(&told.to_le_bytes(), 0).unwrap();
    file.write_all_at(bytes, page_size()).unwrap();
    file.set_len(pages * page_size()).unwrap();
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: seals of our own memory.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    file
}

fn is_given_back(segment: &File) -> bool {
    // SAFETY: an open descriptor.
    unsafe { libc::fcntl(segment.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

fn a_length_that_lies_is_an_error() {
    let (peer, receiver) = channel::<Vec<u8>>().map(|(sender, receiver)| (sender.into_inner(), receiver)).unwrap();
    let value = postcard::to_allocvec(&vec![7_u8; 100]).unwrap();
    let page = page_size();
    for (told, pages) in [(page + 1, 2), (u64::MAX, 2), (u64::MAX - page, 2), (1, 1), (page, 1)] {
        peer.send_with(&[], segment(told, &value, pages)).unwrap();
        let refused = receiver.recv();
        let Err(Error::Decode { message, source }) = &refused else { panic!("{refused:?}") };
        assert!(message.is_empty() && source.to_string().contains("shorter"), "{source}");
    }
    // Shorter than the value, and longer.
    for told in [value.len() as u64 - 1, value.len() as u64 + 1, 0] {
        let sent = segment(told, &value, 2);
        peer.send_with(&[], &sent).unwrap();
        assert!(matches!(receiver.recv(), Err(Error::Decode { .. })));
        assert!(is_given_back(&sent));
    }
    // A hole is zeroes, and takes no memory.
    peer.send_with(&[], segment(12_002, &[0xe0, 0x5d], 4)).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(vec![0; 12_000]));
}

fn a_segment_over_the_limit_is_given_back() {
    let (sender, receiver) = channel::<String>().unwrap();
    sender.send(text('a')).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(text('a')));
    receiver.set_max_message(LEN);
    for _ in 0..40 {
        sender.send(text('b')).unwrap();
        let refused = receiver.recv();
        assert!(matches!(refused, Err(Error::TooLong { len: 1_048_579, max: LEN })), "{refused:?}");
        assert_eq!(kept().len(), 1);
    }
    sender.send(text('c')[3..].to_owned()).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(text('c')[3..].to_owned()));
}
