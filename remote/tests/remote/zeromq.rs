//! Channels over ZeroMQ: jobs and results, orders and answers, workers that leave or die, and peers that mean harm.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ipc::{Error, Link, PipeReader, Receiver, Sender, channel, fork, pipe};
use ipc_remote::zeromq::{Options, Pull, curve_keys};

use crate::support::{self, FAR, Held, SOON, Trial, assert_times_out, exit_code};

pub fn trials() -> Vec<Trial> {
    support::trials![
        values_go_from_many_to_one_and_then_eof,
        jobs_go_to_whoever_pulls,
        answers_come_from_the_worker_that_was_asked,
        a_router_without_a_deadline_waits_for_an_answer,
        a_killed_worker_is_closed_and_others_go_on,
        a_worker_that_comes_back_is_accepted_again,
        a_value_with_ends_does_not_travel,
        a_peer_that_speaks_something_else_hinders_nobody,
        keys_keep_others_out,
        a_flood_of_words_keeps_no_deadline_waiting,
        a_call_passes_over_so_many_words_and_the_next_one_over_more,
        signals_tear_no_message_apart,
        a_signal_between_two_parts_loses_no_value,
        a_late_goodbye_is_none_to_the_next_of_that_name,
        a_worker_that_takes_no_orders_holds_up_no_other_call,
        a_process_forks_again_once_its_sockets_are_closed,
    ]
}

pub const ANY: &str = "tcp://127.0.0.1:*";

pub fn options() -> Options {
    Options::new().deadline(Duration::from_secs(3))
}

pub fn pulling<T>(options: &Options) -> (Receiver<T, Pull>, String) {
    let pull = options.pull_bind(ANY).unwrap();
    let address = pull.address().unwrap();
    (Receiver::new(pull), address)
}

/// Runs over any link.
fn lengths(jobs: Receiver<String, impl Link>, results: Sender<u64, impl Link>) {
    for job in jobs.iter() {
        results.send(job.unwrap().len() as u64).unwrap();
    }
    results.close().unwrap();
}

fn values_go_from_many_to_one_and_then_eof() {
    let (told, address) = channel::<String>().unwrap();
    let mut addresses = vec![told];
    let (second, to_second) = channel::<String>().unwrap();
    addresses.push(second);
    let push = |address: Receiver<String>| {
        let sender = Sender::new(options().push_connect(&address.recv().unwrap().unwrap()).unwrap());
        for number in 0..1000_u32 {
            sender.send(number).unwrap();
        }
        sender.close().unwrap();
    };
    let children = [fork(address, push).unwrap(), fork(to_second, push).unwrap()];
    let pull = options().pull_bind(ANY).unwrap().writers(2);
    let address = pull.address().unwrap();
    for sender in addresses {
        sender.send(address.clone()).unwrap();
    }
    let values = Receiver::<u32, _>::new(pull);
    let mut all: Vec<_> = values.iter().map(Result::unwrap).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq((0..1000).flat_map(|number| [number, number])));
    for child in children {
        assert_eq!(exit_code(&child), 0);
    }
}

fn jobs_go_to_whoever_pulls() {
    let (told, address) = channel::<(String, String)>().unwrap();
    let child = fork(address, |address| {
        let (jobs, results) = address.recv().unwrap().unwrap();
        lengths(
            Receiver::new(options().pull_connect(&jobs).unwrap()),
            Sender::new(options().push_connect(&results).unwrap()),
        );
    })
    .unwrap();
    let push = options().push_bind(ANY).unwrap();
    let (results, results_at) = pulling::<u64>(&options());
    told.send((push.address().unwrap(), results_at)).unwrap();
    let jobs = Sender::new(push);
    for len in 0..500 {
        jobs.send("x".repeat(len)).unwrap();
    }
    jobs.close().unwrap();
    assert!(results.iter().map(Result::unwrap).eq(0..500));
    assert_eq!(exit_code(&child), 0);
}

/// Workers that connect to the address that they are told.
pub fn workers(names: &[&'static str]) -> (Vec<ipc::Child>, Vec<Sender<String>>) {
    let start = |name: &&'static str| {
        let (told, address) = channel::<String>().unwrap();
        let name = *name;
        let work = move |address: Receiver<String>| {
            let (orders, answers) = options().dealer(&address.recv().unwrap().unwrap(), name).unwrap();
            let (orders, answers) = (Receiver::<String, _>::new(orders), Sender::new(answers));
            for order in orders.iter() {
                answers.send(format!("{name}: {}", order.unwrap())).unwrap();
            }
            answers.close().unwrap();
        };
        (fork(address, work).unwrap(), told)
    };
    names.iter().map(start).unzip()
}

fn a_router_without_a_deadline_waits_for_an_answer() {
    let (children, told) = workers(&["one"]);
    let router = Options::new().deadline(Duration::ZERO).router(ANY).unwrap();
    told[0].send(router.address().unwrap()).unwrap();
    let (_, answers, orders) = router.accept(FAR).unwrap();
    let (answers, orders) = (Receiver::<String, _>::new(answers), Sender::<String, _>::new(orders));
    assert_times_out("no order", Duration::from_millis(50), |timeout| answers.recv_timeout(timeout));
    orders.send("here".to_owned()).unwrap();
    assert_eq!(answers.recv().unwrap().as_deref(), Some("one: here"));
    orders.close().unwrap();
    assert_eq!(answers.recv().unwrap(), None);
    assert_eq!(exit_code(&children[0]), 0);
}

fn answers_come_from_the_worker_that_was_asked() {
    let (children, told) = workers(&["one", "two", "three"]);
    let router = options().router(ANY).unwrap();
    for told in told {
        told.send(router.address().unwrap()).unwrap();
    }
    let links: Vec<_> = (0..3).map(|_| router.accept(SOON).unwrap()).collect();
    let links: Vec<_> = links
        .into_iter()
        .map(|(name, reader, writer)| (name, Receiver::<String, _>::new(reader), Sender::<String, _>::new(writer)))
        .collect();
    for number in 0..50 {
        for (_, _, orders) in &links {
            orders.send(number.to_string()).unwrap();
        }
    }
    for (name, answers, orders) in links {
        orders.close().unwrap();
        let answers: Vec<_> = answers.iter().map(Result::unwrap).collect();
        assert!(answers.into_iter().eq((0..50).map(|number| format!("{name}: {number}"))));
    }
    assert!(matches!(router.accept(Duration::from_millis(20)), Err(Error::TimedOut)));
    for child in children {
        assert_eq!(exit_code(&child), 0);
    }
}

fn a_killed_worker_is_closed_and_others_go_on() {
    let (children, told) = workers(&["one", "two"]);
    let router = options().router(ANY).unwrap();
    let mut links = Vec::new();
    for told in told {
        told.send(router.address().unwrap()).unwrap();
        let (_, reader, writer) = router.accept(SOON).unwrap();
        links.push((Receiver::<String, _>::new(reader), Sender::<String, _>::new(writer)));
    }
    let (first, second) = (&links[0], &links[1]);
    first.1.send("before".to_owned()).unwrap();
    assert_eq!(first.0.recv().unwrap().unwrap(), "one: before");
    children[0].kill().unwrap();
    children[0].wait().unwrap();
    // Whether this send works or not, no answer comes, and that is said: to calls that may not wait for long too.
    let _ = first.1.send("after".to_owned());
    let gone = loop {
        match first.0.recv_timeout(Duration::from_millis(20)) {
            Err(Error::TimedOut) => {}
            gone => break gone,
        }
    };
    assert!(matches!(gone, Err(Error::Closed)), "{gone:?}");
    assert!(matches!(first.0.recv(), Err(Error::Closed)));
    let unsent = first.1.send("later".to_owned()).unwrap_err();
    assert!(matches!(unsent.error, Error::Closed));
    assert_eq!(unsent.value, "later");
    second.1.send("still here".to_owned()).unwrap();
    assert_eq!(second.0.recv().unwrap().unwrap(), "two: still here");
    drop(links);
    assert_eq!(exit_code(&children[1]), 0);
}

fn a_worker_that_comes_back_is_accepted_again() {
    let workers = [0, 1, 2].map(worker_of_one_answer);
    let router = options().router(ANY).unwrap();
    for (round, (child, tell)) in (0_u32..).zip(workers) {
        tell.send(router.address().unwrap()).unwrap();
        let (name, answers, orders) = router.accept(FAR).unwrap();
        assert_eq!(name, "one");
        let answers = Receiver::<u32, _>::new(answers);
        assert_eq!(answers.recv().unwrap(), Some(round));
        assert_eq!(answers.recv().unwrap(), None);
        drop((answers, orders));
        assert_eq!(exit_code(&child), 0);
    }
}

/// A worker that says one number and leaves.
fn worker_of_one_answer(number: u32) -> (ipc::Child, Sender<String>) {
    let (tell, told) = channel::<String>().unwrap();
    let child = fork(told, move |told| {
        let (_orders, answers) = options().dealer(&told.recv().unwrap().unwrap(), "one").unwrap();
        Sender::new(answers).send(number).unwrap();
    });
    (child.unwrap(), tell)
}

fn a_value_with_ends_does_not_travel() {
    let (_values, address) = pulling::<(u8, PipeReader)>(&options());
    let sender = Sender::new(options().push_connect(&address).unwrap());
    let (reader, mut writer) = pipe().unwrap();
    let unsent = sender.send((1_u8, reader)).unwrap_err();
    assert!(matches!(unsent.error, Error::CannotCarry), "{unsent:?}");
    writer.write_all(b"x").unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(unsent.value.1).unwrap(), "x");
}

fn a_peer_that_speaks_something_else_hinders_nobody() {
    let (values, address) = pulling::<u32>(&options());
    let hostile = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
        let _ = stream.write_all(bytes); // it may be thrown out before all is said
        stream
    };
    let greeting = [&b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL"[..], &[0; 48]].concat();
    let endless = [&greeting[..], b"\x06", &[0xff; 8], &[7; 1000]].concat();
    let _open = [hostile(b"GET / HTTP/1.1\r\n\r\n"), hostile(b"\xff"), hostile(&greeting), hostile(&endless)];
    let sender = Sender::new(options().push_connect(&address).unwrap());
    sender.send(7_u32).unwrap();
    assert_eq!(values.recv_timeout(FAR).unwrap(), Some(7));
}

fn keys_keep_others_out() {
    let (public, secret) = curve_keys().unwrap();
    let (mine, my_secret) = curve_keys().unwrap();
    let (values, address) = pulling::<u32>(&options().curve_server(secret));
    let bare = Sender::new(options().linger(Duration::ZERO).push_connect(&address).unwrap());
    let wrong = options().linger(Duration::ZERO).curve_client(mine, mine, my_secret);
    let wrong = Sender::new(wrong.push_connect(&address).unwrap());
    for outsider in [&bare, &wrong] {
        let unsent = outsider.send_timeout(1_u32, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(unsent.error, Error::TimedOut), "{unsent:?}");
    }
    let known = Sender::new(options().curve_client(public, mine, my_secret).push_connect(&address).unwrap());
    known.send(7_u32).unwrap();
    assert_eq!(values.recv_timeout(FAR).unwrap(), Some(7));
}

/// Says what is no value, for as long as it lives, to whoever connects.
fn flood(kind: zmq::SocketType) -> (ipc::Child, String) {
    let (tell, told) = channel::<String>().unwrap();
    let say = move |tell: Sender<String>| {
        let socket = zmq::Context::new().socket(kind).unwrap();
        socket.bind(ANY).unwrap();
        tell.send(socket.get_last_endpoint().unwrap().unwrap()).unwrap();
        loop {
            socket.send_multipart([&b""[..], b"hi"], 0).unwrap();
        }
    };
    (fork(tell, say).unwrap(), told.recv().unwrap().unwrap())
}

fn a_flood_of_words_keeps_no_deadline_waiting() {
    let ((to_pull, pull_at), (to_dealer, dealer_at)) = (flood(zmq::PUSH), flood(zmq::DEALER));
    let values = Receiver::<u32, _>::new(options().pull_connect(&pull_at).unwrap());
    let (orders, _answers) = options().linger(Duration::ZERO).dealer(&dealer_at, "one").unwrap();
    let orders = Receiver::<u32, _>::new(orders);
    for _ in 0..5 {
        assert_times_out("a pull", Duration::from_millis(100), |timeout| values.recv_timeout(timeout));
        assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
        assert_times_out("a dealer", Duration::from_millis(100), |timeout| orders.recv_timeout(timeout));
        assert!(matches!(orders.try_recv(), Err(Error::WouldBlock)));
    }
    for child in [to_pull, to_dealer] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn a_call_passes_over_so_many_words_and_the_next_one_over_more() {
    let (tell, told) = channel::<String>().unwrap();
    let child = fork(told, |told| {
        let socket = zmq::Context::new().socket(zmq::PUSH).unwrap();
        socket.connect(&told.recv().unwrap().unwrap()).unwrap();
        socket.send(&b"\x01"[..], 0).unwrap();
        for _ in 0..900 {
            socket.send_multipart([&b""[..], b"hi"], 0).unwrap();
        }
        socket.send(&b"\x02"[..], 0).unwrap();
    });
    let (values, address) = pulling::<u32>(&options());
    tell.send(address).unwrap();
    assert_eq!(values.recv_timeout(FAR).unwrap(), Some(1));
    assert_eq!(exit_code(&child.unwrap()), 0); // all has gone
    for _ in 0..900 / 64 {
        assert!(matches!(values.try_recv(), Err(Error::WouldBlock)));
    }
    assert_eq!(values.recv_timeout(FAR).unwrap(), Some(2));
}

fn signals_tear_no_message_apart() {
    static IS_HANDLED: AtomicBool = AtomicBool::new(true);
    extern "C" fn note(_: libc::c_int) {
        IS_HANDLED.store(true, Relaxed);
    }
    // SAFETY: the handler stores to an atomic. Without `SA_RESTART`, it interrupts calls.
    let main = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
        libc::pthread_self()
    };
    let router = options().router(ANY).unwrap();
    let (orders, answers) = options().dealer(&router.address().unwrap(), "one").unwrap();
    let (orders, answers) = (Receiver::<u32, _>::new(orders), Sender::new(answers));
    let (_, reader, writer) = router.accept(FAR).unwrap();
    let (results, order) = (Receiver::<u32, _>::new(reader), Sender::new(writer));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                // One that waits already would be one with it. ZeroMQ's threads may have the core meanwhile.
                if IS_HANDLED.swap(false, Relaxed) {
                    // SAFETY: the thread is there until the scope ends.
                    unsafe { libc::pthread_kill(main, libc::SIGUSR1) };
                } else {
                    std::thread::yield_now();
                }
            }
        });
        let all = (0..40_000_u32).try_for_each(|number| {
            order.send_timeout(number, FAR).map_err(|unsent| format!("{unsent}"))?;
            let come = orders.recv_timeout(SOON).map_err(|error| format!("order {number}: {error}"))?;
            answers.send_timeout(number, FAR).map_err(|unsent| format!("{unsent}"))?;
            let back = results.recv_timeout(SOON).map_err(|error| format!("answer {number}: {error}"))?;
            if (come, back) == (Some(number), Some(number)) {
                Ok(())
            } else {
                Err(format!("{number}: {come:?}, {back:?}"))
            }
        });
        is_over.store(true, Relaxed);
        all.unwrap();
    });
}

/// How libzmq looks for commands of its other threads, at every hundredth part.
#[cfg(any(target_arch = "arm", target_arch = "x86", target_arch = "x86_64"))]
const POLL: libc::c_long = libc::SYS_poll;
#[cfg(not(any(target_arch = "arm", target_arch = "x86", target_arch = "x86_64")))]
const POLL: libc::c_long = libc::SYS_ppoll;

/// A signal rarely comes at the one look between two parts. Here each second look is interrupted.
fn a_signal_between_two_parts_loses_no_value() {
    let (tell, told) = channel::<String>().unwrap();
    let child = fork(told, |told| {
        let socket = zmq::Context::new().socket(zmq::PUSH).unwrap();
        socket.connect(&told.recv().unwrap().unwrap()).unwrap();
        socket.send(&b"\x01"[..], 0).unwrap();
        for _ in 0..20 {
            socket.send_multipart([&b"no value"[..]; 40], 0).unwrap();
        }
        socket.send(&b"\x02"[..], 0).unwrap();
    });
    let (values, address) = pulling::<u32>(&options());
    tell.send(address).unwrap();
    assert_eq!(values.recv_timeout(FAR).unwrap(), Some(1));
    assert_eq!(exit_code(&child.unwrap()), 0); // all has gone
    let is_over = AtomicBool::new(false);
    let (hand_over, listener) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            // Of this thread alone, whose looks are at one descriptor.
            hand_over.send(support::hold_calls_with(POLL, 1, 1)).unwrap();
            let received = values.recv_timeout(FAR);
            is_over.store(true, Relaxed);
            let mut none = libc::pollfd { fd: -1, events: 0, revents: 0 };
            // SAFETY: one pollfd.
            assert_eq!(unsafe { libc::poll(&raw mut none, 1, 0) }, 0);
            received
        });
        let listener = listener.recv().unwrap();
        let mut looks = 0;
        loop {
            let look = Held::next(&listener);
            if is_over.load(Relaxed) {
                look.go_on();
                break;
            }
            if looks % 2 == 0 {
                look.refuse(libc::EINTR)
            } else {
                look.go_on()
            }
            looks += 1;
        }
        assert_eq!(receiving.join().unwrap().unwrap(), Some(2));
        assert_ne!(looks, 0, "libzmq looked");
    });
}

fn a_late_goodbye_is_none_to_the_next_of_that_name() {
    let (first, tell_first) = worker_of_one_answer(1);
    let (mut second, mut tell_second) = workers(&["one"]);
    let router = options().router(ANY).unwrap();
    tell_first.send(router.address().unwrap()).unwrap();
    let (_, answers, late) = router.accept(FAR).unwrap();
    let answers = Receiver::<u32, _>::new(answers);
    assert_eq!(answers.recv().unwrap(), Some(1));
    assert_eq!(answers.recv().unwrap(), None);
    assert_eq!(exit_code(&first), 0);
    drop(answers);

    tell_second.remove(0).send(router.address().unwrap()).unwrap();
    let (name, answers, orders) = router.accept(FAR).unwrap();
    assert_eq!(name, "one");
    let late = Sender::<String, _>::new(late);
    assert!(matches!(late.send("for the first".to_owned()).unwrap_err().error, Error::Closed));
    late.close().unwrap();
    let (answers, orders) = (Receiver::<String, _>::new(answers), Sender::<String, _>::new(orders));
    orders.send("still here".to_owned()).unwrap();
    assert_eq!(answers.recv_timeout(FAR).unwrap().unwrap(), "one: still here");
    orders.close().unwrap();
    assert_eq!(answers.recv_timeout(FAR).unwrap(), None);
    assert_eq!(exit_code(&second.remove(0)), 0);
}

fn a_worker_that_takes_no_orders_holds_up_no_other_call() {
    let (tell, told) = channel::<String>().unwrap();
    // No heartbeat: libzmq takes a peer that reads nothing for dead, once its queue is full.
    let few = Options::new().queue(2).linger(Duration::ZERO);
    let there = few.clone();
    let worker = fork(told, move |told| {
        let _links = there.dealer(&told.recv().unwrap().unwrap(), "one").unwrap();
        let _ = told.recv(); // until it is killed
    });
    let worker = worker.unwrap();
    let router = few.router(ANY).unwrap();
    tell.send(router.address().unwrap()).unwrap();
    let (_, answers, orders) = router.accept(FAR).unwrap();
    let (answers, orders) = (Receiver::<u8, _>::new(answers), Sender::new(orders));
    while orders.send_timeout(vec![0_u8; 1 << 20], Duration::from_millis(500)).is_ok() {}
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| orders.send(vec![0; 1 << 20]));
        for _ in 0..10 {
            assert_times_out("another call", Duration::from_millis(50), |timeout| answers.recv_timeout(timeout));
        }
        worker.kill().unwrap();
        worker.wait().unwrap();
        assert!(matches!(blocked.join().unwrap().unwrap_err().error, Error::Closed));
    });
}

fn a_process_forks_again_once_its_sockets_are_closed() {
    let router = options().router(ANY).unwrap();
    assert!(matches!(fork((), |()| ()).unwrap_err().error, Error::MultiThreaded { .. }));
    drop(router);
    // A thread that was joined counts for a moment longer.
    let mut child = fork((), |()| ());
    support::poll_until("no thread is left", || {
        if child.is_err() {
            child = fork((), |()| ());
        }
        child.is_ok()
    });
    assert_eq!(exit_code(&child.unwrap()), 0);
}
