//! A router of many workers, and of workers whose answers nobody receives for a while.

use std::time::{Duration, Instant};

use ipc::{Error, Receiver, Sender, channel, fork};
use ipc_remote::zeromq::{Options, Router, RouterReader, RouterWriter};
use serde_bytes::ByteBuf;

use crate::support::{self, FAR, SOON, Trial, exit_code};
use crate::zeromq::{ANY, options, workers};

pub fn trials() -> Vec<Trial> {
    support::trials![
        answers_that_wait_unread_all_arrive_and_then_eof,
        answers_that_there_is_no_room_for_are_an_error_for_good,
        answers_of_all_workers_have_one_limit_and_the_fullest_lose_theirs,
        one_answer_alone_may_be_over_the_limit_of_all,
        what_a_dropped_reader_did_not_receive_makes_room,
        small_answers_that_wait_keep_no_more_than_their_own_memory,
        a_call_that_may_not_wait_does_not_wait_for_those_that_do,
        a_worker_is_accepted_however_many_there_are,
        a_worker_that_too_many_wait_before_is_told_goodbye,
        answers_of_one_that_left_and_of_the_next_of_its_name_stay_apart,
    ]
}

/// A worker that gives so many answers at once, and says when all are sent.
fn answering(name: &'static str, answers: u32, size: usize) -> (ipc::Child, Sender<String>, Receiver<()>) {
    let (tell, told) = channel::<String>().unwrap();
    let (done, is_done) = channel::<()>().unwrap();
    let child = fork((told, done), move |(told, done)| {
        let (orders, sender) = Options::new().queue(10).dealer(&told.recv().unwrap().unwrap(), name).unwrap();
        let sender = Sender::new(sender);
        for number in 0..answers {
            sender.send((number, ByteBuf::from(vec![7; size]))).unwrap();
        }
        done.send(()).unwrap();
        sender.close().unwrap();
        assert!(Receiver::<(), _>::new(orders).recv().unwrap().is_none());
    });
    (child.unwrap(), tell, is_done)
}

/// Receives from the first worker of that many answers, after a call for another worker had to pass over nearly all of them.
fn assert_answers(count: u32, size: usize, check: impl FnOnce(&Receiver<(u32, ByteBuf), RouterReader>)) {
    let (much, tell, is_done) = answering("much", count, size);
    let (mut other, mut tell_other) = workers(&["little"]);
    let router = Options::new().queue(10).router(ANY).unwrap();
    tell.send(router.address().unwrap()).unwrap();
    let (name, answers, orders) = router.accept(FAR).unwrap();
    assert_eq!(name, "much");
    tell_other.remove(0).send(router.address().unwrap()).unwrap();
    let (_, no_answers, no_orders) = router.accept(FAR).unwrap();
    let no_answers = Receiver::<String, _>::new(no_answers);
    while let Err(Error::WouldBlock) = is_done.try_recv() {
        assert!(matches!(no_answers.recv_timeout(Duration::from_millis(20)), Err(Error::TimedOut)));
    }
    check(&Receiver::new(answers));
    drop((orders, no_orders));
    assert_eq!(exit_code(&much), 0);
    assert_eq!(exit_code(&other.remove(0)), 0);
}

fn answers_that_wait_unread_all_arrive_and_then_eof() {
    assert_answers(5000, 100, |answers| {
        for number in 0..5000 {
            assert_eq!(answers.recv().unwrap().unwrap(), (number, ByteBuf::from(vec![7; 100])));
        }
        assert_eq!(answers.recv().unwrap(), None);
    });
}

fn answers_that_there_is_no_room_for_are_an_error_for_good() {
    assert_answers(150, 1 << 20, |answers| {
        let mut numbers = 0..;
        let error = loop {
            match answers.recv() {
                Ok(answer) => assert_eq!(answer.unwrap().0, numbers.next().unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(numbers.start, 63); // each takes a little more than 1 MiB of the 64
        for error in [error, answers.recv().unwrap_err(), answers.try_recv().unwrap_err()] {
            assert_no_room(error, "answers of one worker");
        }
    });
}

#[track_caller]
fn assert_no_room(error: Error, of: &str) {
    let Error::System { call, source } = &error else { panic!("{error:?}") };
    assert_eq!((*call, source.raw_os_error()), (of, Some(libc::ENOBUFS)));
}

/// A worker that is accepted.
struct Accepted {
    child: ipc::Child,
    answers: Receiver<(u32, ByteBuf), RouterReader>,
    orders: RouterWriter,
    is_done: Receiver<()>,
}

/// Accepts a worker that gives so many answers of 4 KiB.
fn accepted(router: &Router, (child, tell, is_done): (ipc::Child, Sender<String>, Receiver<()>)) -> Accepted {
    tell.send(router.address().unwrap()).unwrap();
    let (_, answers, orders) = router.accept(FAR).unwrap();
    Accepted { child, answers: Receiver::new(answers), orders, is_done }
}

/// Takes all that comes, until they have given all their answers.
fn pump(router: &Router, workers: &[&Accepted]) {
    for worker in workers {
        while let Err(Error::WouldBlock) = worker.is_done.try_recv() {
            assert!(matches!(router.accept(Duration::from_millis(20)), Err(Error::TimedOut)));
        }
    }
    assert!(matches!(router.accept(Duration::from_millis(200)), Err(Error::TimedOut)));
}

const LIMIT: usize = 1 << 20;
const SIZE: usize = 4096;

fn answers_of_all_workers_have_one_limit_and_the_fullest_lose_theirs() {
    const FEW: u32 = 10;
    let workers = [answering("little", FEW, SIZE), answering("much", 1000, SIZE), answering("more", 1000, SIZE)];
    let router = Options::new().queue(10).max_waiting(LIMIT).router(ANY).unwrap();
    let [little, much, more] = workers.map(|worker| accepted(&router, worker));
    pump(&router, &[&little, &much, &more]);
    for worker in [&much, &more] {
        let mut numbers = 0;
        let error = loop {
            match worker.answers.recv() {
                Ok(answer) => assert_eq!(answer.unwrap().0, numbers),
                Err(error) => break error,
            }
            numbers += 1;
        };
        // Half of the limit each, or nearly.
        assert!((100..=LIMIT / 2 / SIZE).contains(&(numbers as usize)), "{numbers}");
        for error in [error, worker.answers.recv().unwrap_err(), worker.answers.try_recv().unwrap_err()] {
            assert_no_room(error, "answers of all workers");
        }
    }
    for number in 0..FEW {
        assert_eq!(little.answers.recv().unwrap().unwrap().0, number);
    }
    assert_eq!(little.answers.recv().unwrap(), None);
    for Accepted { child, answers, orders, .. } in [little, much, more] {
        drop((answers, orders));
        assert_eq!(exit_code(&child), 0);
    }
}

fn one_answer_alone_may_be_over_the_limit_of_all() {
    let worker = answering("one", 1, LIMIT + 1);
    let router = Options::new().max_waiting(LIMIT).router(ANY).unwrap();
    let worker = accepted(&router, worker);
    pump(&router, &[&worker]);
    assert_eq!(worker.answers.recv().unwrap(), Some((0, ByteBuf::from(vec![7; LIMIT + 1]))));
    assert_eq!(worker.answers.recv().unwrap(), None);
    drop(worker.orders);
    assert_eq!(exit_code(&worker.child), 0);
}

fn what_a_dropped_reader_did_not_receive_makes_room() {
    const MANY: u32 = (LIMIT / SIZE * 3 / 4) as u32;
    let workers = [answering("first", MANY, SIZE), answering("second", MANY, SIZE)];
    let router = Options::new().queue(10).max_waiting(LIMIT).router(ANY).unwrap();
    let mut children = Vec::new();
    for worker in workers {
        let worker = accepted(&router, worker);
        pump(&router, &[&worker]);
        if !children.is_empty() {
            assert!(worker.answers.iter().map(|answer| answer.unwrap().0).eq(0..MANY));
        }
        children.push(worker.child);
    }
    for child in children {
        assert_eq!(exit_code(&child), 0);
    }
}

/// The memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn small_answers_that_wait_keep_no_more_than_their_own_memory() {
    const ANSWERS: u32 = 1000;
    let (tell, told) = channel::<String>().unwrap();
    let child = fork(told, |told| {
        let (orders, answers) = options().dealer(&told.recv().unwrap().unwrap(), "one").unwrap();
        let (orders, answers) = (Receiver::<u8, _>::new(orders), Sender::new(answers));
        for order in orders.iter() {
            answers.send(ByteBuf::from(vec![order.unwrap(); 100])).unwrap();
        }
    });
    let router = options().router(ANY).unwrap();
    tell.send(router.address().unwrap()).unwrap();
    let (_, answers, orders) = router.accept(FAR).unwrap();
    let (answers, orders) = (Receiver::<ByteBuf, _>::new(answers), Sender::new(orders));
    let before = resident();
    for _ in 0..ANSWERS {
        orders.send(7_u8).unwrap();
        // Until it has come: libzmq reads it alone.
        assert!(matches!(router.accept(Duration::from_millis(1)), Err(Error::TimedOut)));
    }
    let kept = resident() - before;
    assert!(kept < 4 << 20, "{kept} bytes for {ANSWERS} answers");
    for _ in 0..ANSWERS {
        assert_eq!(answers.recv().unwrap(), Some(ByteBuf::from(vec![7; 100])));
    }
    drop(orders);
    assert_eq!(exit_code(&child.unwrap()), 0);
}

/// Workers in one process that say hi, and how many of them were told goodbye since.
fn crowd(number: u32, count: u32) -> (ipc::Child, Sender<String>, Receiver<u32>) {
    let (tell, told) = channel::<String>().unwrap();
    let (report, reported) = channel::<u32>().unwrap();
    let child = fork((told, report), move |(told, report)| {
        let context = zmq::Context::new();
        let address = told.recv().unwrap().unwrap();
        let connected = |worker: u32| {
            let socket = context.socket(zmq::DEALER).unwrap();
            socket.set_identity(format!("{number}.{worker}").as_bytes()).unwrap();
            socket.set_linger(0).unwrap();
            socket.connect(&address).unwrap();
            socket.send_multipart([&b""[..], b"hi12345678"], 0).unwrap();
            socket
        };
        let sockets: Vec<_> = (0..count).map(connected).collect();
        let mut items: Vec<_> = sockets.iter().map(|socket| socket.as_poll_item(zmq::POLLIN)).collect();
        loop {
            zmq::poll(&mut items, -1).unwrap();
            for (socket, _) in sockets.iter().zip(&items).filter(|(_, item)| item.is_readable()) {
                let message = socket.recv_multipart(0).unwrap();
                if message.get(1).is_some_and(|word| word == b"bye12345678") {
                    report.send(1).unwrap();
                }
            }
        }
    });
    (child.unwrap(), tell, reported)
}

fn a_call_that_may_not_wait_does_not_wait_for_those_that_do() {
    const WORKERS: u32 = 100;
    let (child, tell, _reported) = crowd(0, WORKERS);
    let router = options().router(ANY).unwrap();
    tell.send(router.address().unwrap()).unwrap();
    let mut links: Vec<_> = (0..WORKERS).map(|_| router.accept(SOON).unwrap()).collect();
    let (_, answers, orders) = links.pop().unwrap();
    let (answers, orders) = (Receiver::<u8, _>::new(answers), Sender::new(orders));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = links
            .into_iter()
            .map(|(_, answers, orders)| {
                scope.spawn(move || {
                    let gone = Receiver::<u8, _>::new(answers).recv();
                    drop(orders);
                    gone
                })
            })
            .collect();
        let started = Instant::now();
        for _ in 0..100 {
            orders.try_send(7_u8).unwrap();
            assert!(matches!(answers.try_recv(), Err(Error::WouldBlock)));
        }
        assert!(started.elapsed() < FAR, "{:?}", started.elapsed());
        child.kill().unwrap();
        child.wait().unwrap();
        // All of them notice, also those that do not watch the socket.
        for gone in waiting {
            assert!(matches!(gone.join().unwrap(), Err(Error::Closed)));
        }
    });
}

/// So many as wait to be accepted, and some more.
const CROWDS: u32 = 4;
const CROWD: u32 = 280;
const NEWCOMERS: u32 = 1024;

/// A router, the links of a worker that answers, and crowds that are told its address.
fn with_crowds(test: impl FnOnce(Router, &[Receiver<u32>])) {
    support::limit(libc::RLIMIT_NOFILE, |limit| limit.rlim_max);
    let crowds: Vec<_> = (0..CROWDS).map(|number| crowd(number, CROWD)).collect();
    let router = Options::new().router(ANY).unwrap();
    let mut children = Vec::new();
    let mut reports = Vec::new();
    for (child, tell, reported) in crowds {
        tell.send(router.address().unwrap()).unwrap();
        children.push(child);
        reports.push(reported);
    }
    test(router, &reports);
    for child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn a_worker_is_accepted_however_many_there_are() {
    with_crowds(|router, _| {
        let mut links: Vec<_> = (0..CROWDS * CROWD).map(|_| router.accept(SOON).unwrap()).collect();
        links.sort_by(|one, other| one.0.cmp(&other.0));
        links.dedup_by(|one, other| one.0 == other.0);
        assert_eq!(links.len(), (CROWDS * CROWD) as usize);
        assert!(matches!(router.accept(Duration::from_millis(20)), Err(Error::TimedOut)));
    });
}

fn a_worker_that_too_many_wait_before_is_told_goodbye() {
    let (mut other, mut tell_other) = workers(&["one"]);
    with_crowds(|router, reports| {
        tell_other.remove(0).send(router.address().unwrap()).unwrap();
        // Those of the crowds that were there before are accepted too.
        let mut links = Vec::new();
        let mut accept = || {
            let (name, answers, orders) = router.accept(SOON).unwrap();
            match name.as_str() {
                "one" => Some((Receiver::<String, _>::new(answers), Sender::<String, _>::new(orders))),
                _ => {
                    links.push((answers, orders));
                    None
                }
            }
        };
        let (answers, orders) = std::iter::from_fn(|| Some(accept())).flatten().next().unwrap();
        let before = links.len() as u32;
        let mut refused = 0;
        while before + NEWCOMERS + refused < CROWDS * CROWD {
            assert!(matches!(answers.recv_timeout(Duration::from_millis(20)), Err(Error::TimedOut)));
            refused += reports.iter().filter_map(|reported| reported.try_recv().ok().flatten()).sum::<u32>();
        }
        for _ in 0..CROWDS * CROWD - refused - before {
            router.accept(SOON).unwrap();
        }
        assert!(matches!(router.accept(Duration::from_millis(20)), Err(Error::TimedOut)));
        // There is room again, and the others have it as before.
        orders.send("still here".to_owned()).unwrap();
        assert_eq!(answers.recv().unwrap().unwrap(), "one: still here");
        drop(orders);
        assert_eq!(exit_code(&other.remove(0)), 0);
    });
}

fn answers_of_one_that_left_and_of_the_next_of_its_name_stay_apart() {
    let answers_with = |number: u32| {
        let (tell, told) = channel::<String>().unwrap();
        let child = fork(told, move |told| {
            let (orders, answers) = options().dealer(&told.recv().unwrap().unwrap(), "one").unwrap();
            Sender::new(answers).send(number).unwrap();
            drop(orders);
        });
        (child.unwrap(), tell)
    };
    let workers = [answers_with(1), answers_with(2)];
    let router = options().router(ANY).unwrap();
    let links: Vec<_> = workers
        .into_iter()
        .map(|(child, tell)| {
            tell.send(router.address().unwrap()).unwrap();
            let (name, answers, orders) = router.accept(FAR).unwrap();
            assert_eq!(name, "one");
            let answers = Receiver::<u32, _>::new(answers);
            assert_eq!(exit_code(&child), 0);
            // The goodbye is received, and the links of the one that left are kept.
            assert!(matches!(router.accept(Duration::from_millis(200)), Err(Error::TimedOut)));
            (answers, orders)
        })
        .collect();
    for ((answers, orders), number) in links.into_iter().zip([1, 2]) {
        assert_eq!(answers.recv().unwrap(), Some(number));
        assert_eq!(answers.recv().unwrap(), None);
        drop(orders);
    }
}
