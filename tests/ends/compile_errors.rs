//! What the compiler says to a program that does not fit: in the words of this crate, and with what to do about it.

use crate::support::{self, Compiler, Trial};

pub fn trials() -> Vec<Trial> {
    if cfg!(sanitizers) {
        return Vec::new(); // the compiler would have to be told that the library has them
    }
    let mut trials = support::trials![ends_and_forks_say_what_they_take needs [Compiler]];
    if cfg!(feature = "channel") {
        trials.extend(support::trials![channels_say_what_they_take needs [Compiler]]);
    }
    trials
}

const FITS: &str = if cfg!(feature = "channel") {
    "let (sender, receiver) = ipc::channel::<u32>().unwrap(); sender.send(1).unwrap(); receiver.recv().unwrap();"
} else {
    "let (reader, writer) = ipc::pipe().unwrap(); ipc::fork(reader, |_| ()).unwrap(); drop(writer);"
};

fn ends_and_forks_say_what_they_take() {
    let compiler = Compiler::new(FITS);
    compiler.refuses(
        "let _ = ipc::fork(String::new(), |_| ());",
        &["`String` cannot be given to another process", "not `Ends`", "a `move` closure takes them along"],
    );
    compiler.refuses(
        "let _ = ipc::fork((), |()| \"text\");",
        &["a child cannot return `&str`", "it returns `()`, a status as `u8`, or a `Result` of one of these"],
    );
    let (reads, writes) =
        ("let (reader, _writer) = ipc::pipe().unwrap();", "let (_reader, writer) = ipc::pipe().unwrap();");
    let messages = "let socket = ipc::datagram_pair().unwrap().parent;";
    let minute = "let minute = std::time::Duration::from_secs(60);";
    compiler.refuses(
        &format!("use std::io::Write; {reads} {{ reader }}.write(b\"x\");"),
        &["no method named `write` found for struct", "PipeReader`"],
    );
    compiler.refuses(
        &format!("use std::io::Read; {writes} {{ writer }}.read(&mut [0]);"),
        &["no method named `read` found for struct", "PipeWriter`"],
    );
    compiler.refuses(
        &format!(
            "fn lines(_: impl std::io::Read) {{}} {reads} {minute}
            lines(ipc::Deadline::after(std::io::BufReader::new(reader), minute));"
        ),
        &["cannot be read until a deadline", "`BufReader::new(Deadline::after(reader, timeout))`"],
    );
    compiler.refuses(
        &format!("{messages} ipc::MessageReader::new(socket);"),
        &["DatagramSocket`", "messages cannot be read from `", "are packed by a `PackedSocket`"],
    );
    compiler.refuses(
        &format!("{messages} ipc::MessageWriter::new(socket);"),
        &["DatagramSocket`", "messages cannot be written to `", "are packed by a `PackedSocket`"],
    );
}

fn channels_say_what_they_take() {
    let compiler = Compiler::new(FITS);
    compiler.refuses(
        "struct Job(u32); let (sender, _receiver) = ipc::channel().unwrap(); sender.send(Job(1)).unwrap();",
        &["the trait bound `Job: ", "Serialize` is not satisfied", "`#[derive(serde::Serialize)]` to your `Job` type"],
    );
    compiler.refuses(
        "struct Job(u32); let (_sender, receiver) = ipc::channel::<Job>().unwrap(); receiver.recv().unwrap();",
        &[
            "the trait bound `Job: ",
            "DeserializeOwned` is not satisfied",
            "Deserialize<'de>` is not implemented for `Job`",
        ],
    );
    compiler.refuses(
        "let (_sender, receiver) = ipc::channel::<u32>().unwrap(); receiver.send(1).unwrap();",
        &["no method named `send` found for struct", "Receiver<u32>`"],
    );
    compiler.refuses(
        "let (sender, _receiver) = ipc::channel::<u32>().unwrap(); sender.recv().unwrap();",
        &["no method named `recv` found for struct", "Sender<u32>`"],
    );
    let pipe = "let (reader, writer) = ipc::pipe().unwrap();";
    compiler.refuses(
        &format!("{pipe} ipc::Sender::<u32, _>::new(ipc::MessageReader::new(reader));"),
        &["no `Sender` can be made of `MessageReader", "not `Outgoing`", "a `PackedSocket` or a `MessageWriter`"],
    );
    compiler.refuses(
        &format!("{pipe} ipc::Receiver::<u32, _>::new(ipc::MessageWriter::new(writer));"),
        &["no `Receiver` can be made of `MessageWriter", "not `Incoming`", "a `PackedSocket` or a `MessageReader`"],
    );
    compiler.refuses(
        &format!("{pipe} ipc::Sender::<u32, _>::new(writer);"),
        &["PipeWriter` carries no values", "a bare writer goes into `MessageWriter::new(writer)`"],
    );
    compiler.refuses(
        &format!("{pipe} ipc::Receiver::<u32, _>::new(reader);"),
        &["PipeReader` carries no values", "a bare reader goes into `MessageReader::new(reader)`"],
    );
}
