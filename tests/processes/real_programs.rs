//! Programs as they are, driven through the crate: their protocols, and what they expect to be started with.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::support::needs::Need;
use crate::support::{self, FAR, Folder, Trial, await_whoever_is_left, exit_code, limit_descriptors, read_all};
use ipc::{Command, Error, Fifo, PipeReader, PipeWriter, claim_number, fork, pipe, stream_pair};

const GIT: Need = Need::Program("git", "git");
const MAKE: Need = Need::Program("make", "make");
const GZIP: Need = Need::Program("gzip", "gzip");

pub fn trials() -> Vec<Trial> {
    support::trials![
        git_answers_thousands_of_requests needs [GIT],
        make_takes_its_tokens_and_gives_them_back needs [MAKE],
        a_jobserver_is_claimed_by_its_numbers,
        a_fifo_that_is_open_both_ways_is_claimed_as_two_ends,
        bash_reads_what_is_given_and_substitutes_processes needs [BASH],
        python_reads_an_extra_descriptor needs [PYTHON],
        node_reads_an_extra_descriptor needs [NODE],
        much_through_gzip_and_gunzip_is_the_same needs [GZIP] within 240,
        a_service_is_activated_from_a_process_with_threads,
        what_was_not_inherited_is_not_claimed_by_number,
    ]
}

/// What this program does if it was started by a test of these.
pub fn started() -> Option<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("activated") => activated(),
        Some("jobserver client") => jobserver_client(),
        Some("fifo client") => fifo_client(),
        Some("nothing by number") => nothing_by_number(),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

fn git(folder: &Path) -> Command {
    // Nobody's settings.
    let command = Command::new("git").current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", folder)
}

/// Both ways at once, as a tool that keeps one `git` at hand does.
fn git_answers_thousands_of_requests() {
    let folder = Folder::new();
    assert!(git(&folder.0).args(["init", "-q", "."]).status().unwrap().success());
    let content = "some content\n".repeat(20);
    let added =
        git(&folder.0).args(["hash-object", "-w", "--stdin"]).communicate(content.as_bytes(), Some(FAR)).unwrap();
    assert!(added.status.success(), "{added:?}");
    let name = String::from_utf8(added.stdout).unwrap().trim().to_owned();

    // One conversation after the other, on a socket that is its standard input and output.
    let pair = stream_pair().unwrap();
    let socket = std::sync::Arc::new(pair.child);
    let batch = git(&folder.0).args(["cat-file", "--batch"]).stdin(socket.clone()).stdout(socket);
    let child = batch.spawn().unwrap();
    let mut answers = BufReader::new(&pair.parent);
    let mut line = String::new();
    let mut body = vec![0; content.len() + 1];
    let requests = support::rounds(1000);
    for i in 0..requests {
        let asked = if i % 10 == 9 { "0000000000000000000000000000000000000000" } else { &*name };
        (&pair.parent).write_all(format!("{asked}\n").as_bytes()).unwrap();
        line.clear();
        answers.read_line(&mut line).unwrap();
        if i % 10 == 9 {
            assert_eq!(line, format!("{asked} missing\n"));
            continue;
        }
        assert_eq!(line, format!("{asked} blob {}\n", content.len()));
        answers.read_exact(&mut body).unwrap();
        assert_eq!(body, format!("{content}\n").as_bytes());
    }
    pair.parent.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(exit_code(&child), 0);

    // All of them at once: the answers are many times what a pipe holds.
    let all = format!("{name}\n").repeat(requests as usize);
    let answers = git(&folder.0).args(["cat-file", "--batch"]).communicate(all.as_bytes(), Some(FAR)).unwrap();
    let one = format!("{name} blob {}\n{content}\n", content.len());
    assert_eq!(answers.stdout, one.repeat(requests as usize).as_bytes());
}

/// The tokens are bytes in a pipe, which `make` finds by its numbers.
fn make_takes_its_tokens_and_gives_them_back() {
    let folder = Folder::new();
    let makefile = "all: $(foreach n,1 2 3 4 5 6 7 8,job$(n))\n\njob%:\n\t@echo $@\n";
    std::fs::write(folder.0.join("Makefile"), makefile).unwrap();
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"+++").unwrap();
    let (reader, writer) = (std::sync::Arc::new(reader), std::sync::Arc::new(writer));
    let make = Command::new("make").arg("all").current_dir(&folder.0).env("MAKEFLAGS", " -j4 --jobserver-auth=3,4");
    let output = make.give_at(3, reader.clone()).give_at(4, writer).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "it found the pipe");
    let mut jobs: Vec<_> = output.stdout.lines().map(Result::unwrap).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, ["job1", "job2", "job3", "job4", "job5", "job6", "job7", "job8"]);
    assert_eq!(reader.available().unwrap(), 3, "every token is back");
}

fn jobserver_client() {
    let mut tokens: PipeReader = claim_number(3).unwrap();
    // It is what it is, and once.
    assert!(matches!(claim_number::<PipeReader>(4), Err(Error::WrongKind { .. })));
    let mut back: PipeWriter = claim_number(4).unwrap();
    for again in [3, 4] {
        let refused = claim_number::<std::os::fd::OwnedFd>(again);
        assert!(matches!(refused, Err(Error::AlreadyClaimed { .. })), "{refused:?}");
    }
    let mut token = [0];
    tokens.read_exact(&mut token).unwrap();
    back.write_all(&token).unwrap();
}

fn a_jobserver_is_claimed_by_its_numbers() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"+").unwrap();
    let client = Command::new(std::env::current_exe().unwrap()).arg("jobserver client");
    let child = client.give_at(3, reader).give_at(4, writer).spawn().unwrap();
    assert_eq!(exit_code(&child), 0);
}

fn fifo_client() {
    for refused in [claim_number::<PipeReader>(3).map(drop), claim_number::<PipeWriter>(3).map(drop)] {
        assert!(matches!(refused, Err(Error::WrongKind { .. })), "{refused:?}");
    }
    let Fifo { mut reader, mut writer, .. } = claim_number(3).unwrap();
    assert!(matches!(claim_number::<Fifo>(3), Err(Error::AlreadyClaimed { .. })));
    assert_eq!(ipc::open_ends(), 2);
    let mut token = [0];
    reader.read_exact(&mut token).unwrap();
    writer.write_all(&token).unwrap();
    // What it inherited is closed: no program that it starts has the FIFO, and EOF comes.
    let look = format!("test ! -e /proc/$$/fd/3 && test ! -e /proc/$$/fd/{}", writer.as_raw_fd());
    assert!(Command::new("sh").args(["-c", &look]).status().unwrap().success());
    drop(writer);
    assert_eq!(read_all(reader), b"+");
}

fn a_fifo_that_is_open_both_ways_is_claimed_as_two_ends() {
    let folder = Folder::new();
    let path = folder.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut both = File::options().read(true).write(true).open(&path).unwrap();
    both.write_all(b"+").unwrap();
    let client = Command::new(std::env::current_exe().unwrap()).arg("fifo client").give_at(3, both);
    assert_eq!(exit_code(&client.spawn().unwrap()), 0);
    // What is none comes back.
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let number = file.as_raw_fd();
    let refused = Fifo::try_from(file).unwrap_err();
    assert!(matches!(refused.error, Error::WrongKind { .. }), "{refused:?}");
    assert_eq!(refused.fd.as_raw_fd(), number);
    let full = limit_descriptors(1);
    let refused =
        Fifo::try_from(OwnedFd::from(File::options().read(true).write(true).open(&path).unwrap())).unwrap_err();
    assert!(matches!(refused.error, Error::System { call: "open", .. }), "{refused:?}");
    drop((full, refused));
}

fn bash_reads_what_is_given_and_substitutes_processes() {
    let given = |text: &str| {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        reader
    };
    let script = r#"diff <(cat "$1") <(sort <&7; echo "$(< /dev/fd/8)") && echo same"#;
    let bash = Command::new("bash").args(["-c", script, "bash"]).give_path(given("a\nb\nlast\n"));
    let output = bash.give_at(7, given("b\na\n")).give_at(8, given("last\n")).close_others().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "same\n", "{output:?}");
    // It does not wait for what it substitutes.
    await_whoever_is_left();
}

fn extra_descriptor(program: &str, script: &str) {
    let (reader, mut writer) = pipe().unwrap();
    let (answers, answer) = pipe().unwrap();
    let command = Command::new(program).args([if program == "node" { "-e" } else { "-c" }, script]);
    let child = command.give_at(3, reader).give_at(4, answer).spawn().unwrap();
    writer.write_all(b"question").unwrap();
    drop(writer);
    assert_eq!(read_all(answers), b"QUESTION");
    assert_eq!(exit_code(&child), 0);
}

fn python_reads_an_extra_descriptor() {
    extra_descriptor("python3", "import os; text = open(3).read(); os.write(4, text.upper().encode())");
}

fn node_reads_an_extra_descriptor() {
    extra_descriptor("node", "const fs = require('fs'); fs.writeSync(4, fs.readFileSync(3, 'utf8').toUpperCase())");
}

fn much_through_gzip_and_gunzip_is_the_same() {
    const BLOCK: usize = 1 << 20;
    let blocks = support::rounds(30);
    // A block that compresses well, with its number.
    let block = |number: u64| {
        let mut block = vec![b'x'; BLOCK];
        block[..8].copy_from_slice(&number.to_le_bytes());
        block[BLOCK - 8..].copy_from_slice(&(!number).to_le_bytes());
        block
    };
    let (from, to) = pipe().unwrap();
    let (packed, pack) = pipe().unwrap();
    let (mut unpacked, unpack) = pipe().unwrap();
    let gzip = Command::new("gzip").arg("-1").stdin(from).stdout(pack).spawn().unwrap();
    let gunzip = Command::new("gunzip").stdin(packed).stdout(unpack).spawn().unwrap();
    let source = fork(to, |mut to| (0..blocks).try_for_each(|number| to.write_all(&block(number)))).unwrap();
    let mut text = vec![0; BLOCK];
    for number in 0..blocks {
        unpacked.read_exact(&mut text).unwrap();
        assert!(text == block(number), "block {number}");
    }
    assert_eq!(unpacked.read(&mut text).unwrap(), 0);
    assert_eq!([exit_code(&source), exit_code(&gzip), exit_code(&gunzip)], [0; 3]);
}

/// As a service takes its sockets (sd_listen_fds.3).
fn activated() {
    let own = std::process::id().to_string();
    assert_eq!(std::env::var("LISTEN_PID").unwrap(), own);
    assert_eq!(std::env::var("LISTEN_FDS").unwrap(), "2");
    let one: TcpListener = claim_number(3).unwrap();
    let other: TcpListener = claim_number(4).unwrap();
    for listener in [one, other] {
        let (mut client, _) = listener.accept().unwrap();
        client.write_all(own.as_bytes()).unwrap();
    }
}

fn a_service_is_activated_from_a_process_with_threads() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let listeners = [0, 0].map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
                let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
                let [one, other] = listeners;
                let service = Command::new(std::env::current_exe().unwrap()).arg("activated").close_others();
                let service = service.env("LISTEN_FDS", "2").env_pid("LISTEN_PID").give_at(3, one).give_at(4, other);
                let child = service.spawn().unwrap();
                for address in addresses {
                    let mut text = String::new();
                    let mut client = TcpStream::connect(address).unwrap();
                    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                    client.read_to_string(&mut text).unwrap();
                    assert_eq!(text, child.id().to_string());
                }
                assert_eq!(exit_code(&child), 0);
            });
        }
    });
}

fn nothing_by_number() {
    // Nothing is there; or the standard three; or this program's own, which is close-on-exec.
    let own = std::fs::File::open("/dev/null").unwrap();
    for number in [-1, i32::MIN, 0, 1, 2, 99, i32::MAX, std::os::fd::AsRawFd::as_raw_fd(&own)] {
        let refused = claim_number::<std::os::fd::OwnedFd>(number);
        assert!(
            matches!(&refused, Err(Error::NoSuchEnd { name }) if *name == format!("/dev/fd/{number}")),
            "{refused:?}"
        );
    }
    // Nor one that this program has made inheritable, which is somebody's.
    // SAFETY: a number that is open, and the new one is owned at once.
    let made = unsafe { OwnedFd::from_raw_fd(libc::dup(own.as_raw_fd())) };
    let refused = claim_number::<std::os::fd::OwnedFd>(made.as_raw_fd());
    assert!(matches!(&refused, Err(Error::NoSuchEnd { .. })), "{refused:?}");
    // What has a name may be had by its number as well, but not twice.
    let named = ipc::claimable().unwrap();
    assert_eq!(named, ["one", "other"]);
    let number = std::env::var("NUMBERS").unwrap();
    let numbers: Vec<i32> = number.split(' ').map(|number| number.parse().unwrap()).collect();
    let _by_number: PipeReader = claim_number(numbers[0]).unwrap();
    assert_eq!(ipc::claimable().unwrap(), ["other"]);
    assert!(matches!(ipc::claim::<PipeReader>("one"), Err(Error::AlreadyClaimed { .. })));
    let _by_name: PipeReader = ipc::claim("other").unwrap();
    assert!(matches!(claim_number::<PipeReader>(numbers[1]), Err(Error::AlreadyClaimed { .. })));
}

fn what_was_not_inherited_is_not_claimed_by_number() {
    let ((one, _one_writer), (other, _other_writer)) = (pipe().unwrap(), pipe().unwrap());
    let numbers = format!("{} {}", one.as_raw_fd(), other.as_raw_fd());
    let program = Command::new(std::env::current_exe().unwrap()).arg("nothing by number").env("NUMBERS", numbers);
    let child = program.give("one", one).give("other", other).spawn().unwrap();
    assert_eq!(exit_code(&child), 0);
}
