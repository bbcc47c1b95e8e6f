//! `Push` and `Pull`, and libzmq's own.

use ipc::{Receiver, Sender};
use ipc_remote::zeromq::Options;
use serde_bytes::ByteBuf;

use crate::timed;

/// Starts a child that connects to the address, which it is told.
fn told(work: impl FnOnce(String) + 'static) -> (ipc::Child, Sender<String>) {
    let (tell, address) = ipc::channel::<String>().expect("a channel");
    let child = ipc::fork(address, move |address| work(address.recv().expect("an address").expect("no EOF")));
    (child.expect("a child"), tell)
}

const ANY: &str = "tcp://127.0.0.1:*";

pub fn ours(size: usize, count: usize) -> f64 {
    let (child, tell) = told(move |address| {
        let values = Sender::new(Options::new().push_connect(&address).expect("a link"));
        for _ in 0..count {
            values.send(ByteBuf::from(vec![7; size])).expect("sent");
        }
        values.close().expect("all sent");
    });
    let pull = Options::new().pull_bind(ANY).expect("a link");
    tell.send(pull.address().expect("its address")).expect("told");
    let values = Receiver::<ByteBuf, _>::new(pull);
    values.recv().expect("the first").expect("no EOF");
    let rate = timed(count, || {
        for value in values.iter() {
            assert_eq!(value.expect("a value").len(), size);
        }
    });
    assert!(child.wait().expect("its status").success());
    rate
}

pub fn bare(size: usize, count: usize) -> f64 {
    let (child, tell) = told(move |address| {
        let socket = zmq::Context::new().socket(zmq::PUSH).expect("a socket");
        socket.connect(&address).expect("connected");
        for _ in 0..count {
            let encoded = postcard::to_allocvec(&ByteBuf::from(vec![7; size])).expect("encoded");
            socket.send(&encoded, 0).expect("sent");
        }
    });
    let socket = zmq::Context::new().socket(zmq::PULL).expect("a socket");
    socket.bind(ANY).expect("bound");
    tell.send(socket.get_last_endpoint().expect("its address").expect("text")).expect("told");
    socket.recv_bytes(0).expect("the first");
    let rate = timed(count, || {
        for _ in 1..count {
            let message = socket.recv_msg(0).expect("a message");
            assert_eq!(postcard::from_bytes::<ByteBuf>(&message).expect("decoded").len(), size);
        }
    });
    assert!(child.wait().expect("its status").success());
    rate
}
