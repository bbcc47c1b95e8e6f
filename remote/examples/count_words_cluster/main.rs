//! Counts the words of files on several machines, one of which fails half-way, and prints what `wc -w` prints.
//!
//! ```text
//! cargo run -p ipc-remote --example count_words_cluster -- FILE...
//! cargo run -p ipc-remote --example count_words_cluster -- --help
//! ```
//!
//! The machines are made here, so that the example runs on one. The worker function in `work.rs` is the same over each link.

#[path = "../../../examples/count_words/count.rs"]
mod count;
mod machines;
mod over_rpc;
mod pieces;
mod work;

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ipc::{Receiver, Sender, TcpOptions};
use ipc_remote::zeromq;
use lexopt::{Arg, Parser, ValueExt};

use machines::{Machine, Place};
use over_rpc::DEADLINE;
use pieces::Pieces;
use work::{Done, Job, work};

const HELP: &str = "\
usage: count_words_cluster [--link LINK] [--machines N] [--on PLACE] [--fault FAULT] [--help] FILE...

Counts the words of files on several machines, one of which fails half-way, and prints what `wc -w` prints.

  --link LINK    carries the jobs: tcp, zeromq or rpc (default: tcp)
  --machines N   the number of machines (default: 3)
  --on PLACE     namespaces: a machine is a network namespace at the end of a cable (veth), which root may make
                 loopback: a machine is a process (default: namespaces, if they can be made)
  --fault FAULT  happens to the first machine half-way: kill ends its process, cut cuts the cable of its namespace,
                 none does nothing (default: kill)
  --help         this text";

/// How long a machine may take to come up.
const START: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Link {
    Tcp,
    Zeromq,
    Rpc,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    Kill,
    Cut,
    None,
}

struct Options {
    link: Link,
    machines: usize,
    place: Option<Place>,
    fault: Fault,
    files: Vec<PathBuf>,
    /// If this process is a machine: the address of its master, and its name.
    worker: Option<(String, String)>,
}

/// `None`: the help was asked for.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options =
        Options { link: Link::Tcp, machines: 3, place: None, fault: Fault::Kill, files: Vec::new(), worker: None };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") => return Ok(None),
            Arg::Long("link") => {
                options.link = match parser.value()?.string()?.as_str() {
                    "tcp" => Link::Tcp,
                    "zeromq" => Link::Zeromq,
                    "rpc" => Link::Rpc,
                    other => return Err(format!("no link is called {other}").into()),
                }
            }
            Arg::Long("machines") => options.machines = parser.value()?.parse::<u8>()?.into(),
            Arg::Long("on") => {
                options.place = Some(match parser.value()?.string()?.as_str() {
                    "namespaces" => Place::Namespaces,
                    "loopback" => Place::Loopback,
                    other => return Err(format!("machines are not made on {other}").into()),
                })
            }
            Arg::Long("fault") => {
                options.fault = match parser.value()?.string()?.as_str() {
                    "kill" => Fault::Kill,
                    "cut" => Fault::Cut,
                    "none" => Fault::None,
                    other => return Err(format!("no fault is called {other}").into()),
                }
            }
            Arg::Long("worker") => options.worker = Some((parser.value()?.string()?, parser.value()?.string()?)),
            Arg::Value(file) => options.files.push(file.into()),
            _ => return Err(arg.unexpected()),
        }
    }
    if options.machines == 0 {
        return Err("--machines takes a number over 0".into());
    }
    if options.files.is_empty() && options.worker.is_none() {
        return Err("there is no FILE".into());
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return help(),
        Err(wrong) => {
            eprintln!("count_words_cluster: {wrong}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let counted = match &options.worker {
        Some((address, name)) => serve(options.link, address, name).map(|()| true),
        None => count_all(&options),
    };
    match counted {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("count_words_cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    match writeln!(std::io::stdout(), "{HELP}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("count_words_cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs in a machine: does jobs until its master is gone.
fn serve(link: Link, address: &str, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    machines::wait_for_network()?;
    match link {
        Link::Tcp => {
            let link = tcp().connect(address)?;
            work(Receiver::new(link.reader), Sender::new(link.writer))?;
        }
        Link::Zeromq => {
            let (orders, answers) = zeromq().dealer(&format!("tcp://{address}"), name)?;
            work(Receiver::new(orders), Sender::new(answers))?;
        }
        Link::Rpc => over_rpc::serve(address)?,
    }
    Ok(())
}

fn tcp() -> TcpOptions {
    TcpOptions::new().deadline(DEADLINE).stamp_of::<(Job, Done)>()
}

fn zeromq() -> zeromq::Options {
    zeromq::Options::new().deadline(DEADLINE)
}

/// Asks one machine to count one piece.
type Ask = Box<dyn FnMut(&Job) -> Result<u64, Box<dyn std::error::Error>> + Send>;

fn over_channels(
    jobs: Sender<Job, impl ipc::Link<Shared: Send> + 'static>,
    results: Receiver<Done, impl ipc::Link<Shared: Send> + 'static>,
) -> Ask {
    Box::new(move |job| {
        jobs.send(job.clone())?;
        jobs.flush()?;
        match results.recv()? {
            Some(done) if done.number == job.number => Ok(done.words),
            Some(done) => Err(format!("it answered number {} for number {}", done.number, job.number).into()),
            None => Err("it has left".into()),
        }
    })
}

fn count_all(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let place = machines::enter(options.place)?;
    if options.fault == Fault::Cut && place == Place::Loopback {
        return Err("a cable is cut between namespaces, which root may make".into());
    }
    let (machines, mut asks) = start(options, place)?;
    let pieces = Pieces::new(&options.files, (options.fault != Fault::None).then_some(0));
    thread::scope(|scope| {
        for (index, (machine, mut ask)) in machines.iter().zip(asks.drain(..)).enumerate() {
            let pieces = &pieces;
            scope.spawn(move || {
                while let Some(job) = pieces.take(index) {
                    match ask(&job) {
                        Ok(words) => pieces.done(&job, words),
                        Err(error) => {
                            eprintln!("machine {} is gone, and its piece goes to another one: {error}", machine.name);
                            pieces.give_back(job);
                            break;
                        }
                    }
                }
                pieces.is_gone(index);
            });
        }
        if pieces.wait_for_half() {
            let machine = &machines[0];
            let failed = if options.fault == Fault::Kill { machine.kill() } else { machine.cut() };
            if let Err(error) = failed {
                eprintln!("machine {} did not fail: {error}", machine.name);
                return pieces.is_gone(0);
            }
            pieces.has_failed();
        }
    });
    Ok(pieces.print(&options.files))
}

/// Makes the machines and connects to them.
fn start(options: &Options, place: Place) -> Result<(Vec<Machine>, Vec<Ask>), Box<dyn std::error::Error>> {
    let any = if place == Place::Namespaces { "0.0.0.0" } else { "127.0.0.1" };
    let mut listener = None;
    let mut router = None;
    let port = if options.link == Link::Zeromq {
        let bound = router.insert(zeromq().router(&format!("tcp://{any}:*"))?);
        bound.address()?.rsplit(':').next().and_then(|port| port.parse().ok()).ok_or("the router has no port")?
    } else {
        listener.insert(TcpListener::bind((any, 0))?).local_addr()?.port()
    };
    let link = format!("{:?}", options.link).to_lowercase();
    let mut machines = Vec::new();
    let mut asks: Vec<Ask> = Vec::new();
    for number in 1..=options.machines {
        // One after the other, so that the connection is known to be this machine's.
        let machine = Machine::start(place, number, port, &link)?;
        asks.push(match (&listener, &router) {
            (Some(listener), _) if options.link == Link::Tcp => {
                let link = tcp().greet(machine.accept(listener, START)?)?;
                over_channels(Sender::new(link.writer), Receiver::new(link.reader))
            }
            (Some(listener), _) => over_rpc::client(machine.accept(listener, START)?)?,
            (None, Some(router)) => {
                let (_, answers, orders) = router.accept(START)?;
                over_channels(Sender::new(orders), Receiver::new(answers))
            }
            (None, None) => return Err("nothing to connect to".into()),
        });
        machines.push(machine);
    }
    Ok((machines, asks))
}
