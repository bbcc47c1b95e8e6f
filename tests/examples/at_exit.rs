//! When a process of an example leaves, nothing is open that should have been closed by then: in the program itself
//! nothing at all, and in what it forked nothing but the inert descriptors of ends that were not given, and copies of the
//! pidfds of other children, which are no ends.

use std::process::ExitCode;

use crate::support::{self, Left, Open, Trial, example, open_when_leaving};

/// The argument that makes this program leave with an end open, in itself and in a child.
const FORGET: &str = "forget-an-end";

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    (std::env::args().nth(1).as_deref() == Some(FORGET)).then(forget)
}

pub fn trials() -> Vec<Trial> {
    support::trials![
        what_is_forgotten_is_found,
        first_pipe_leaves_nothing_open,
        sharing_pipes_leaves_nothing_open,
        heavy_lifting_leaves_nothing_open,
        who_holds_leaves_nothing_open within 60,
        count_words_leaves_nothing_open within 60,
    ]
}

fn forget() -> ExitCode {
    let (reader, writer) = ipc::pipe().unwrap();
    std::mem::forget(reader);
    let child = ipc::fork(writer, std::mem::forget).unwrap();
    assert!(child.wait().unwrap().success());
    std::mem::forget(child);
    ExitCode::from(7)
}

fn what_is_forgotten_is_found() {
    let left = open_when_leaving(&std::env::current_exe().unwrap(), &[FORGET]);
    let [child, program] = &left[..] else { panic!("{left:?}") };
    assert_eq!((child.forked, child.status, program.forked, program.status), (true, 0, false, 7));
    let open = |left: &Left, inert: bool| {
        let open = left.open.iter().filter(|open| open.inert == inert);
        open.map(|open| open.target.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((open(program, false), open(program, true)), (vec!["pipe".to_owned(), "anon_inode".to_owned()], vec![]));
    assert_eq!((open(child, false), open(child, true).len()), (vec!["pipe".to_owned()], 1), "{child:?}");
}

/// Runs an example, and says how many processes it was that left.
#[track_caller]
fn assert_leaves_nothing_open(name: &str, args: &[&str]) -> usize {
    let left = open_when_leaving(&example(name), args);
    for process in &left {
        assert_eq!(process.status, 0, "{process:?}");
        let may_be = |open: &Open| process.forked && (open.inert || open.target.contains("pidfd"));
        let forgotten: Vec<_> = process.open.iter().filter(|open| !may_be(open)).collect();
        assert!(forgotten.is_empty(), "{} of {process:?}", if process.forked { "a child" } else { "the program" });
    }
    assert_eq!(left.iter().filter(|process| !process.forked).count(), 1, "{left:?}");
    left.len()
}

fn first_pipe_leaves_nothing_open() {
    assert_eq!(assert_leaves_nothing_open("first_pipe", &[]), 1);
}

fn sharing_pipes_leaves_nothing_open() {
    assert_eq!(assert_leaves_nothing_open("sharing_pipes", &[]), 2);
}

fn heavy_lifting_leaves_nothing_open() {
    assert_eq!(assert_leaves_nothing_open("heavy_lifting", &[]), 2);
}

fn who_holds_leaves_nothing_open() {
    // The culprit is killed.
    assert_eq!(assert_leaves_nothing_open("who_holds", &[]), 2);
}

fn count_words_leaves_nothing_open() {
    let files = ["README.md", "CHANGELOG.md", "LICENSE"].map(|name| format!("{}/{name}", env!("CARGO_MANIFEST_DIR")));
    let files = files.each_ref().map(String::as_str);
    assert_eq!(assert_leaves_nothing_open("count_words", &[&["--workers", "3"][..], &files].concat()), 4);
    // One of the workers kills itself, and another one takes its place if there is still something to do.
    let left = assert_leaves_nothing_open("count_words", &[&["--workers", "2", "--kill-one"][..], &files].concat());
    assert!([2, 3].contains(&left), "{left}");
}
