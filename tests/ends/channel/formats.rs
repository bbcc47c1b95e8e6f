//! The format (docs/channel.md): its example, and a peer in Python as the page has it.

use serde::{Deserialize, Serialize};

use crate::support::{self, Trial, exit_code, read_all};
use ipc::{Command, DatagramSocket, PipeWriter, Receiver, Sender, channel, duplex, fork, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_peer_in_python_takes_values_and_ends needs [PYTHON] within 60,
        a_peer_in_python_sends_large_values_and_closes_what_it_does_not_take needs [PYTHON] within 60,
        the_example_is_what_is_sent,
        what_is_sent_is_what_postcard_encodes,
        a_large_value_is_an_empty_message_with_sealed_memory,
    ]
}

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/channel.md")).unwrap()
}

fn block(language: &str) -> String {
    let page = page();
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").unwrap().0.to_owned()
}

#[derive(Serialize, Deserialize)]
struct Job {
    text: String,
    output: PipeWriter,
}

fn a_peer_in_python_takes_values_and_ends() {
    let pair = duplex::<Job, u64>().unwrap();
    let program = Command::new(support::python()).args(["-c", &block("python")]);
    let child = program.give_at(5, pair.child).arg("5").spawn().unwrap();
    let mut calls = pair.parent;
    // Of the large ones, the first and the last have memory of their own.
    for len in [0, 1, 127, 128, 5000, 300_000, 300_000, 290_000, 1 << 20, 300_000, 5 << 20] {
        let (reader, output) = pipe().unwrap();
        let reading = fork(reader, move |reader| {
            assert!(read_all(reader) == "Q".repeat(len).as_bytes());
        })
        .unwrap();
        assert_eq!(calls.call(Job { text: "q".repeat(len), output }).unwrap(), Some(len as u64));
        assert_eq!(exit_code(&reading), 0);
    }
    calls.close().unwrap();
    assert_eq!(exit_code(&child), 0);
}

/// Takes texts, without the ends that come with them, and sends each back.
const ECHO: &str = "
channel = socket.socket(fileno=5)
while (received := receive(channel)) is not None:
    value = Reader(*received)
    text = value.text().encode()
    value.finish()
    send(channel, number(len(text)) + text)
";

fn a_peer_in_python_sends_large_values_and_closes_what_it_does_not_take() {
    let page = block("python");
    let (functions, _) = page.split_once("channel = socket.socket(").unwrap();
    let pair = ipc::datagram_pair().unwrap();
    let program = Command::new(support::python()).args(["-c", &[functions, ECHO].concat()]);
    let child = program.give_at(5, pair.child).spawn().unwrap();
    let answers: Receiver<String> = Receiver::new(pair.parent.try_clone().unwrap());
    for len in [0, 212_957, 212_958, 5 << 20] {
        let text = "q".repeat(len);
        let (reader, output) = pipe().unwrap();
        let bytes = ipc::Blob::new(&postcard::to_allocvec(&text).unwrap()).unwrap();
        pair.parent.send_with(&[], (bytes, output)).unwrap();
        assert!(answers.recv().unwrap().as_ref() == Some(&text), "{len}");
        assert_eq!(read_all(reader), b"", "the end is closed");
    }
    drop((pair.parent, answers));
    assert_eq!(exit_code(&child), 0);
}

/// What a sender sends, as it is in the datagram, and how many ends are beside it.
fn sent<T: Serialize>(value: T) -> (Vec<u8>, usize) {
    let (sender, receiver) = channel::<T>().unwrap();
    let raw: DatagramSocket = receiver.into_inner();
    assert!(sender.send(value).is_ok());
    let mut message = Vec::new();
    let received = raw.recv_with(&mut message).unwrap().unwrap();
    (message, received.len())
}

fn the_example_is_what_is_sent() {
    let (_reader, writer) = pipe().unwrap();
    let hex: String = block("text").split_whitespace().collect();
    let expected: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    assert_eq!(sent(("job", Some(300_u16), -1_i32, writer)), (expected, 1));
}

fn what_is_sent_is_what_postcard_encodes() {
    let value = (u128::MAX, i64::MIN, "text", vec![Some('x'), None], [1.5_f32; 3], ());
    assert_eq!(sent(&value), (postcard::to_allocvec(&value).unwrap(), 0));
    // An empty message would look like EOF.
    assert_eq!(sent(()), (vec![0], 0));
}

fn a_large_value_is_an_empty_message_with_sealed_memory() {
    let (_reader, writer) = pipe().unwrap();
    let text = "x".repeat(300_000);
    let pair = ipc::datagram_pair().unwrap();
    let sender: Sender<(&str, PipeWriter)> = Sender::new(pair.parent);
    sender.send((&text, writer)).unwrap();
    let mut message = vec![1];
    let mut received = pair.child.recv_with(&mut message).unwrap().unwrap();
    assert!(message.is_empty() && received.len() == 2);
    let memory: ipc::Blob = received.take().expect("sealed memory without holes");
    assert_eq!(memory[..], postcard::to_allocvec(&(&text, 0_u32)).unwrap());
    let _writer: PipeWriter = received.take().unwrap();
    // The same bytes in a datagram, where there is room, are the same value.
    let (sender, receiver) =
        (Sender::<(String, u32)>::new(pair.child), Receiver::<(String, u32)>::new(sender.into_inner()));
    sender.send(("x".to_owned(), 0)).unwrap();
    assert_eq!(receiver.recv().unwrap(), Some(("x".to_owned(), 0)));
}
