//! What becomes of each value over ZeroMQ: a router or a broker restarts, a queue is full, a value is too long, nobody receives.

use std::io::Read;
use std::time::{Duration, Instant};

use ipc::{Error, Receiver, Sender, channel, fork, pipe};
use ipc_remote::zeromq::{Options, Push, Router};
use serde_bytes::ByteBuf;

use crate::support::{self, FAR, Trial, assert_times_out, exit_code};
use crate::zeromq::{ANY, options, pulling};

pub fn trials() -> Vec<Trial> {
    support::trials![
        what_a_broker_had_is_lost_and_what_waits_here_goes_when_it_is_back,
        a_worker_answers_the_next_router_when_its_own_was_killed,
        a_full_queue_gives_the_value_back,
        what_is_left_when_closing_has_lingered_is_lost,
        a_value_over_the_limit_here_is_refused,
        a_receiver_begins_with_the_limit_of_its_options,
        a_value_over_the_peers_limit_is_dropped_and_the_next_one_arrives,
        an_answer_over_the_routers_limit_is_dropped_and_the_next_one_arrives,
    ]
}

fn what_a_broker_had_is_lost_and_what_waits_here_goes_when_it_is_back() {
    let (tell, address) = channel::<String>().unwrap();
    let (until, leave) = pipe().unwrap();
    let broker = fork((tell, until), |(tell, mut until)| {
        let (values, address) = pulling::<u32>(&options());
        tell.send(address).unwrap();
        assert_eq!(values.recv().unwrap(), Some(0));
        tell.send("received".to_owned()).unwrap();
        let _ = until.read(&mut [0]);
    })
    .unwrap();
    let at = address.recv().unwrap().unwrap();
    let sender = Sender::new(options().push_connect(&at).unwrap());
    sender.send(0_u32).unwrap();
    address.recv().unwrap().unwrap();
    sender.send(1).unwrap(); // accepted here, and no more than that
    broker.kill().unwrap();
    broker.wait().unwrap();
    drop(leave);
    // While nobody is there, a send is not accepted.
    let mut lost = vec![1];
    let mut number = 2;
    while let Ok(()) = sender.send_timeout(number, Duration::from_millis(200)) {
        lost.push(number);
        number += 1;
    }
    let values = Receiver::<u32, _>::new(options().pull_bind(&at).unwrap());
    sender.send(1000).unwrap(); // waits until it is back
    sender.close().unwrap();
    let arrived: Vec<_> = values.iter().map(Result::unwrap).collect();
    assert_eq!(arrived.last(), Some(&1000), "{arrived:?}, lost {lost:?}");
}

fn a_worker_answers_the_next_router_when_its_own_was_killed() {
    let (tell, told) = channel::<String>().unwrap();
    let accept = |router: Router| {
        let (name, answers, orders) = router.accept(FAR).unwrap();
        assert_eq!(name, "one");
        (Receiver::<u32, _>::new(answers), Sender::<String, _>::new(orders))
    };
    let first = fork(tell, move |tell| {
        let router = options().router(ANY).unwrap();
        tell.send(router.address().unwrap()).unwrap();
        let (answers, orders) = accept(router);
        orders.send("begin".to_owned()).unwrap();
        assert_eq!(answers.recv().unwrap(), Some(0));
        tell.send("received".to_owned()).unwrap();
        let _ = answers.recv(); // until it is killed
    });
    let (restart, begin) = channel::<String>().unwrap();
    let second = fork(begin, move |begin| {
        let router = options().router(&begin.recv().unwrap().unwrap()).unwrap();
        let (answers, orders) = accept(router);
        let number = answers.recv().unwrap().unwrap();
        orders.send(number.to_string()).unwrap();
        orders.close().unwrap();
        // They arrive in their order, from there on.
        let numbers: Vec<_> = answers.iter().map(Result::unwrap).collect();
        assert!(numbers.iter().copied().eq(number + 1..=number + numbers.len() as u32), "{number}, {numbers:?}");
    });
    let at = told.recv().unwrap().unwrap();
    let (orders, answers) = options().dealer(&at, "one").unwrap();
    let (orders, answers) = (Receiver::<String, _>::new(orders), Sender::new(answers));
    assert_eq!(orders.recv().unwrap().unwrap(), "begin");
    answers.send(0_u32).unwrap();
    told.recv().unwrap().unwrap();
    let first = first.unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    // What is under way now is lost, and what waits here goes when a router is back.
    answers.send(1).unwrap();
    restart.send(at).unwrap();
    let mut number = 1;
    let began_with = loop {
        number += 1;
        answers.send(number).unwrap();
        match orders.recv_timeout(Duration::from_millis(100)) {
            Err(Error::TimedOut) => {}
            order => break order.unwrap().unwrap(),
        }
    };
    assert!((1..=number).contains(&began_with.parse().unwrap()), "{began_with} of {number}");
    assert_eq!(orders.recv().unwrap(), None);
    answers.close().unwrap();
    assert_eq!(exit_code(&second.unwrap()), 0);
}

fn a_full_queue_gives_the_value_back() {
    // Nobody is there.
    let sender = Sender::new(options().linger(Duration::ZERO).push_connect("tcp://127.0.0.1:9").unwrap());
    assert!(matches!(sender.try_send(vec![0_u8; 10]).unwrap_err().error, Error::WouldBlock));
    assert_times_out("nobody", Duration::from_millis(30), |timeout| Ok(sender.send_timeout(vec![7; 10], timeout)?));
    // Somebody is there who does not receive.
    let few = options().queue(10).linger(Duration::ZERO);
    let (_values, address) = pulling::<Vec<u8>>(&few);
    let sender: Sender<Vec<u8>, Push> = Sender::new(few.push_connect(&address).unwrap());
    let unsent = loop {
        if let Err(unsent) = sender.send_timeout(vec![5; 100_000], Duration::from_millis(300)) {
            break unsent;
        }
    };
    assert!(matches!(unsent.error, Error::TimedOut), "{unsent:?}");
    assert_eq!(unsent.value, vec![5; 100_000]);
}

fn what_is_left_when_closing_has_lingered_is_lost() {
    const VALUES: u32 = 80; // more than the kernel's buffers have room for
    let linger = Duration::from_millis(200);
    // A receiver that takes nothing for the deadline counts as gone.
    let slow = Options::new().linger(linger);
    let there = slow.clone().queue(1);
    let (tell, told) = channel::<String>().unwrap();
    let (until, go_on) = pipe().unwrap();
    let (report, reported) = channel::<Vec<u32>>().unwrap();
    let child = fork((tell, until, report), move |(tell, mut until, report)| {
        // Takes two at a time, so that the others wait at the sender.
        let (values, address) = pulling::<(u32, ByteBuf)>(&there);
        tell.send(address).unwrap();
        let first = values.recv().unwrap().unwrap().0;
        let _ = until.read(&mut [0]);
        let mut arrived = vec![first];
        // No goodbye comes either.
        loop {
            match values.recv_timeout(Duration::from_millis(300)) {
                Ok(Some((number, _))) => arrived.push(number),
                over => break assert!(matches!(over, Err(Error::TimedOut)), "{over:?}"),
            }
        }
        report.send(arrived).unwrap();
    });
    let at = told.recv().unwrap().unwrap();
    let sender = Sender::new(slow.push_connect(&at).unwrap());
    for number in 0..VALUES {
        sender.send((number, ByteBuf::from(vec![0; 1 << 20]))).unwrap();
    }
    let started = Instant::now();
    sender.close().unwrap(); // each was accepted here, and so was the goodbye
    assert!((linger..FAR).contains(&started.elapsed()), "{:?}", started.elapsed());
    drop(go_on);
    let arrived = reported.recv().unwrap().unwrap();
    assert!(arrived.len() < VALUES as usize && arrived.iter().copied().eq(0..arrived.len() as u32), "{arrived:?}");
    assert_eq!(exit_code(&child.unwrap()), 0);
}

fn a_value_over_the_limit_here_is_refused() {
    let small = options().max_message(1000);
    let (values, address) = pulling::<Vec<u8>>(&small);
    let sender = Sender::new(small.push_connect(&address).unwrap());
    let unsent = sender.send(vec![0_u8; 1000]).unwrap_err();
    assert!(matches!(unsent.error, Error::TooLong { len: 1002, max: 1000 }), "{unsent:?}");
    sender.send(vec![1; 900]).unwrap();
    sender.send(vec![2; 90]).unwrap();
    values.set_max_message(100);
    assert!(matches!(values.recv(), Err(Error::TooLong { len: 902, max: 100 })));
    assert_eq!(values.recv().unwrap().unwrap(), [2; 90]);
}

fn a_receiver_begins_with_the_limit_of_its_options() {
    let large = options().max_message(100 << 20);
    let (values, address) = pulling::<String>(&large);
    assert_eq!(values.max_message(), 100 << 20);
    let sender = Sender::new(large.push_connect(&address).unwrap());
    sender.send("x".repeat(70 << 20)).unwrap(); // more than a receiver takes at first
    assert_eq!(values.recv().unwrap().map(|value| value.len()), Some(70 << 20));

    let router = large.router(ANY).unwrap();
    let (orders, _answers) = large.dealer(&router.address().unwrap(), "one").unwrap();
    let (_, answers, _orders) = router.accept(FAR).unwrap();
    assert_eq!(Receiver::<u8, _>::new(orders).max_message(), 100 << 20);
    assert_eq!(Receiver::<u8, _>::new(answers).max_message(), 100 << 20);
}

fn a_value_over_the_peers_limit_is_dropped_and_the_next_one_arrives() {
    let (values, address) = pulling::<Vec<u8>>(&options().max_message(1000));
    let sender = Sender::new(options().push_connect(&address).unwrap());
    sender.send(vec![0_u8; 5000]).unwrap(); // accepted here
    // The connection that it was on is dropped, with what was behind it.
    let arrived = loop {
        let _ = sender.send_timeout(vec![1; 10], Duration::from_millis(100));
        match values.recv_timeout(Duration::from_millis(100)) {
            Err(Error::TimedOut) => {}
            arrived => break arrived,
        }
    };
    assert_eq!(arrived.unwrap().unwrap(), [1; 10]);
}

fn an_answer_over_the_routers_limit_is_dropped_and_the_next_one_arrives() {
    let (tell, told) = channel::<String>().unwrap();
    let child = fork(told, |told| {
        let (orders, answers) = options().dealer(&told.recv().unwrap().unwrap(), "one").unwrap();
        let (orders, answers) = (Receiver::<u8, _>::new(orders), Sender::new(answers));
        assert_eq!(orders.recv().unwrap(), Some(1));
        answers.send(vec![0_u8; 5000]).unwrap(); // accepted here
        // The connection that it was on is dropped, with what was behind it, and comes back.
        while let Err(Error::TimedOut) = orders.recv_timeout(Duration::from_millis(50)) {
            answers.send(vec![1; 10]).unwrap();
        }
        answers.close().unwrap();
    });
    let router = options().max_message(1000).router(ANY).unwrap();
    tell.send(router.address().unwrap()).unwrap();
    let (_, answers, orders) = router.accept(FAR).unwrap();
    let (answers, orders) = (Receiver::<Vec<u8>, _>::new(answers), Sender::new(orders));
    orders.send(1_u8).unwrap();
    // It may be seen to be gone, until it is back.
    let arrived = loop {
        match answers.recv_timeout(Duration::from_millis(100)) {
            Err(Error::TimedOut | Error::Closed) => {}
            arrived => break arrived,
        }
    };
    assert_eq!(arrived.unwrap().unwrap(), [1; 10]);
    orders.send(2).unwrap();
    assert!(answers.iter().all(|answer| answer.unwrap() == [1; 10]));
    assert_eq!(exit_code(&child.unwrap()), 0);
}
