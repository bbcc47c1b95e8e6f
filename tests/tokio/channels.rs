//! Typed channels: values that are awaited, and what a dropped future leaves behind.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::Read;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::messages::polled;
use super::{on_one_thread, on_threads};
use crate::support::{self, Held, Is, Kernel, Trial, asleep_in, exit_code};
use ipc::tokio::{Duplex, Receiver, Sender};
use ipc::{Error, PipeReader, channel, datagram_pair, duplex, fork, open_ends, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        values_are_sent_by_one_task_and_received_by_another,
        values_of_any_size_come_from_another_process,
        a_stream_of_values_goes_on_after_one_that_is_none,
        a_stream_of_values_ends_at_an_error_that_would_come_again,
        a_cancelled_receive_takes_no_value,
        a_cancelled_send_sends_nothing_and_leaves_no_end,
        a_value_that_is_not_sent_comes_back_with_its_ends,
        a_call_that_is_dropped_leaves_its_answer_to_be_received,
        a_value_is_received_while_none_can_be_sent,
        memory_that_is_busy_for_a_while_is_sealed_later needs [STRACE],
        memory_that_stays_busy_gives_the_value_back,
        memory_that_is_busy_again_after_a_full_queue_is_tried_as_often_again,
        memory_that_stays_busy_is_tried_eight_times needs [STRACE],
        a_full_queue_is_never_taken_for_busy_memory needs [STRACE],
        a_value_that_threads_cannot_share_is_sent_from_any,
    ]
}

fn values_are_sent_by_one_task_and_received_by_another() {
    on_threads().block_on(async {
        let (sender, receiver) = channel::<(u32, String)>().unwrap();
        let (sender, receiver) = (Sender::new(sender).unwrap(), Receiver::new(receiver).unwrap());
        let sending = tokio::spawn(async move {
            for number in 0..5000 {
                sender.send((number, "x".repeat(number as usize % 50))).await.unwrap();
            }
        });
        for number in 0..5000 {
            assert_eq!(receiver.recv().await.unwrap(), Some((number, "x".repeat(number as usize % 50))));
        }
        assert_eq!(receiver.recv().await.unwrap(), None);
        sending.await.unwrap();
    });
}

fn values_of_any_size_come_from_another_process() {
    let values = 4 * support::rounds(1) as usize;
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    let child = fork(sender, |sender| {
        for len in [0, 1, 100_000, 1 << 20].into_iter().cycle().take(values) {
            sender.send(vec![len as u8; len]).unwrap();
        }
    })
    .unwrap();
    on_one_thread().block_on(async {
        let receiver = Receiver::new(receiver).unwrap();
        let mut count = 0;
        while let Some(value) = receiver.recv().await.unwrap() {
            assert!(value == vec![value.len() as u8; value.len()]);
            count += 1;
        }
        assert_eq!(count, values);
    });
    assert_eq!(exit_code(&child), 0);
}

fn a_stream_of_values_goes_on_after_one_that_is_none() {
    on_one_thread().block_on(async {
        let pair = datagram_pair().unwrap();
        let mut values = pin!(Receiver::<u8>::new(ipc::Receiver::new(pair.child)).unwrap());
        for message in [&[7][..], &[1, 2], &[8]] {
            pair.parent.send(message).unwrap();
        }
        drop(pair.parent);
        let mut next = async || poll_fn(|cx| values.as_mut().poll_next(cx)).await;
        assert!(matches!(next().await, Some(Ok(7))));
        assert!(matches!(next().await, Some(Err(Error::Decode { message, .. })) if message == [1, 2]));
        assert!(matches!(next().await, Some(Ok(8))));
        assert!(next().await.is_none() && next().await.is_none());
    });
}

fn a_stream_of_values_ends_at_an_error_that_would_come_again() {
    let run = || {
        support::refuse_calls(&[libc::SYS_recvmsg], libc::EIO);
        on_one_thread().block_on(async {
            let (sender, receiver) = channel::<u8>().unwrap();
            sender.send(1).unwrap();
            let mut values = pin!(Receiver::new(receiver).unwrap());
            let first = poll_fn(|cx| values.as_mut().poll_next(cx)).await.unwrap();
            assert_eq!(support::refused(first), ("recvmsg", libc::EIO));
            assert!(poll_fn(|cx| values.as_mut().poll_next(cx)).await.is_none());
        });
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

fn a_cancelled_receive_takes_no_value() {
    on_one_thread().block_on(async {
        let (sender, receiver) = channel::<u32>().unwrap();
        let receiver = Receiver::new(receiver).unwrap();
        let mut expected = 0;
        for number in 0..200 {
            if let Some(value) = polled(1, receiver.recv()).await {
                assert_eq!(value.unwrap(), Some(expected));
                expected += 1;
            }
            sender.send(number).unwrap();
            tokio::task::yield_now().await;
        }
        drop(sender);
        while let Some(value) = receiver.recv().await.unwrap() {
            assert_eq!(value, expected);
            expected += 1;
        }
        assert_eq!(expected, 200);
    });
}

fn a_cancelled_send_sends_nothing_and_leaves_no_end() {
    on_one_thread().block_on(async {
        let (sender, receiver) = channel::<(u32, Option<PipeReader>)>().unwrap();
        let sender = Sender::new(sender).unwrap();
        let mut sent = 0;
        while polled(3, sender.send((sent, None))).await.is_some_and(|sent| sent.is_ok()) {
            sent += 1;
        }
        assert!(sent > 0);
        let before = open_ends();
        let (reader, writer) = pipe().unwrap();
        assert!(polled(3, sender.send((sent, Some(reader)))).await.is_none(), "the queue is full");
        assert!(matches!(writer.try_write(b"x"), Err(Error::Closed)), "the value is gone with its future");
        drop(writer);
        assert_eq!(open_ends(), before);
        drop(sender);
        assert!(receiver.iter().map(|value| value.unwrap().0).eq(0..sent));
    });
}

fn a_value_that_is_not_sent_comes_back_with_its_ends() {
    on_one_thread().block_on(async {
        let (sender, receiver) = channel::<PipeReader>().unwrap();
        drop(receiver);
        let sender = Sender::new(sender).unwrap();
        let (reader, writer) = pipe().unwrap();
        let unsent = sender.send(reader).await.unwrap_err();
        assert!(matches!(unsent.error, Error::Closed), "{unsent:?}");
        writer.write_atomic(b"ours").unwrap();
        drop(writer);
        let mut text = String::new();
        { unsent.value }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ours");
    });
}

fn a_call_that_is_dropped_leaves_its_answer_to_be_received() {
    on_one_thread().block_on(async {
        let pair = duplex::<u32, u32>().unwrap();
        let mut calls = Duplex::new(pair.parent).unwrap();
        let peer = pair.child;
        assert!(polled(3, calls.call(1)).await.is_none());
        let refused = calls.call(2).await.unwrap_err();
        assert!(matches!(refused.error, Error::Unread) && refused.unsent == Some(2), "{refused:?}");
        assert_eq!(peer.recv().unwrap(), Some(1));
        peer.send(10).unwrap();
        assert_eq!(calls.recv().await.unwrap(), Some(10));
        peer.send(20).unwrap();
        assert_eq!(calls.call(2).await.unwrap(), Some(20));
        drop(peer);
        let mut calls = calls.into_inner();
        assert!(matches!(calls.call(3).unwrap_err().error, Error::Closed));
    });
}

fn a_value_is_received_while_none_can_be_sent() {
    on_one_thread().block_on(async {
        let pair = duplex::<u32, u32>().unwrap();
        let near = Duplex::new(pair.parent).unwrap();
        while polled(2, near.send(1)).await.is_some() {}
        let later = async {
            tokio::task::yield_now().await;
            pair.child.send(7).unwrap();
        };
        assert_eq!(tokio::join!(biased; near.recv(), later).0.unwrap(), Some(7));
    });
}

/// More than a segment holds that is used again: such a value goes in sealed memory of its own.
const LARGE: usize = 5 << 20;

/// The variable that makes this program send large values to itself, under the runtime that it names.
pub const SEALS: &str = "TOKIO_TEST_SEALS";

/// What the program does then.
pub fn send_to_oneself() {
    // Without timers, which a user's runtime may not have.
    let how = std::env::var(SEALS).unwrap();
    let mut runtime = match how.as_str() {
        "threads" => ::tokio::runtime::Builder::new_multi_thread(),
        _ => ::tokio::runtime::Builder::new_current_thread(),
    };
    match how.as_str() {
        "in vain" => return on_one_thread().block_on(send_in_vain()),
        "beside others" => return on_one_thread().block_on(send_beside_others()),
        _ => {}
    }
    runtime.enable_io().build().unwrap().block_on(async {
        let (sender, receiver) = channel::<String>().unwrap();
        Sender::new(sender).unwrap().send("x".repeat(LARGE)).await.unwrap();
        assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(LARGE));
        let pair = duplex::<String, u8>().unwrap();
        pair.child.send(7).unwrap();
        let answer = Duplex::new(pair.parent).unwrap().call("x".repeat(LARGE)).await.unwrap();
        assert_eq!((answer, pair.child.recv().unwrap().map(|value| value.len())), (Some(7), Some(LARGE)));
    });
}

/// One large value whose memory may be busy for ever.
async fn send_in_vain() {
    let (sender, _receiver) = channel::<String>().unwrap();
    if let Err(unsent) = Sender::new(sender).unwrap().send("x".repeat(LARGE)).await {
        assert_eq!(support::refused::<()>(Err(unsent.error)), ("fcntl", libc::EBUSY));
    }
}

/// One large value, and small ones before it that are received all the time.
async fn send_beside_others() {
    let (sender, receiver) = channel::<String>().unwrap();
    let small = sender.try_clone().unwrap();
    let large = Sender::new(sender).unwrap();
    let mut sending = pin!(large.send("x".repeat(LARGE)));
    loop {
        if let Some(sent) = polled(1, sending.as_mut()).await {
            break sent.unwrap();
        }
        small.send("small".to_owned()).unwrap();
        assert_eq!(receiver.recv().unwrap().as_deref(), Some("small"));
        tokio::task::yield_now().await;
    }
    assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(LARGE));
}

fn memory_that_stays_busy_is_tried_eight_times() {
    let calls = support::sealing_under_strace(SEALS, "in vain", "trace=fcntl");
    let first = 1 + calls.iter().position(|line| line.contains("F_ADD_SEALS")).unwrap();
    let calls = support::sealing_under_strace(SEALS, "in vain", &format!("inject=fcntl:error=EBUSY:when={first}+"));
    assert_eq!(calls.iter().filter(|line| line.contains("F_ADD_SEALS")).count(), 8, "{calls:?}");
}

fn a_full_queue_is_never_taken_for_busy_memory() {
    // More than any call tries where memory is busy. Large values alone go with sendmsg.
    let calls = support::sealing_under_strace(SEALS, "beside others", "inject=sendmsg:error=EAGAIN:when=1..40");
    assert_eq!(calls.iter().filter(|line| line.contains("F_ADD_SEALS")).count(), 41, "{calls:?}");
}

fn a_value_that_threads_cannot_share_is_sent_from_any() {
    on_threads().block_on(async {
        let (sender, receiver) = channel::<Cell<u32>>().unwrap();
        let sender = Sender::new(sender).unwrap();
        tokio::spawn(async move { sender.send(Cell::new(7)).await.unwrap() }).await.unwrap();
        assert_eq!(receiver.recv().unwrap(), Some(Cell::new(7)));
    });
}

fn memory_that_is_busy_for_a_while_is_sealed_later() {
    for runtime in ["one thread", "threads"] {
        let calls = support::sealing_under_strace(SEALS, runtime, "trace=fcntl");
        let is_seal = |line: &&String| line.contains("F_ADD_SEALS");
        let seals: Vec<_> = (1..).zip(&calls).filter(|(_, line)| is_seal(line)).map(|(number, _)| number).collect();
        assert_eq!(seals.len(), 2, "{calls:?}");
        for (number, times) in [(seals[0], 1_usize), (seals[0], 7), (seals[1], 5)] {
            let inject = format!("inject=fcntl:error=EBUSY:when={number}..{}", number + times - 1);
            let calls = support::sealing_under_strace(SEALS, runtime, &inject);
            let (busy, sealed): (Vec<_>, Vec<_>) =
                calls.iter().filter(is_seal).partition(|line| line.contains("EBUSY"));
            // In a build for tests, std makes some of the calls: it looks at each descriptor that it closes.
            assert!((times.div_ceil(3)..=times).contains(&busy.len()) && sealed.len() == 2, "{calls:?}");
        }
    }
}

fn memory_that_stays_busy_gives_the_value_back() {
    let (sender, receiver) = channel::<String>().unwrap();
    let child = fork(sender, |sender| {
        Kernel::new().with(libc::SYS_fcntl, 1, Is::Equal(libc::F_ADD_SEALS as u32), libc::EBUSY).play();
        on_one_thread().block_on(async {
            let sender = Sender::new(sender).unwrap();
            let unsent = sender.send("x".repeat(LARGE)).await.unwrap_err();
            assert_eq!(unsent.value.len(), LARGE);
            assert_eq!(support::refused::<()>(Err(unsent.error)), ("fcntl", libc::EBUSY));
            sender.send("short".to_owned()).await.unwrap();
        });
    });
    assert_eq!(receiver.recv().unwrap().as_deref(), Some("short"));
    assert_eq!(receiver.recv().unwrap(), None);
    assert_eq!(exit_code(&child.unwrap()), 0);
}

/// A queue that was full has nothing to do with the memory, and the count begins anew.
fn memory_that_is_busy_again_after_a_full_queue_is_tried_as_often_again() {
    let (sender, receiver) = channel::<String>().unwrap();
    let small = sender.try_clone().unwrap();
    let listener = support::hold_calls_with(libc::SYS_fcntl, 1, libc::F_ADD_SEALS as u32);
    let refuse_all_but_the_last = || {
        let started = Instant::now();
        for _ in 0..7 {
            Held::next(&listener).refuse(libc::EBUSY);
        }
        let last = Held::next(&listener);
        assert!(started.elapsed() >= Duration::from_millis(127), "it is left alone in between");
        last
    };
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            on_one_thread().block_on(async { Sender::new(sender).unwrap().send("x".repeat(LARGE)).await.unwrap() });
        });
        let sealed = refuse_all_but_the_last();
        while small.try_send("small".to_owned()).is_ok() {}
        let thread = sealed.pid;
        sealed.go_on();
        asleep_in(thread, &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait]);
        while let Some(small) = receiver.try_iter().next() {
            assert_eq!(small.unwrap(), "small");
        }
        refuse_all_but_the_last().go_on();
        sending.join().unwrap();
    });
    assert_eq!(receiver.recv().unwrap().map(|value| value.len()), Some(LARGE));
}
