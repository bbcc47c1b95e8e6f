//! The master: it binds, keeps the workers at their number, and hands over.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipc::{Child, Command, PipeReader, PipeWriter, Signals, Watch, wait_any};
use nix::sys::signal::Signal;

use crate::crew::Crew;
use crate::messages::{Order, tell, told};
use crate::{Options, say};

/// As many connections may wait to be accepted: the 128 of the standard library are soon full.
const BACKLOG: i32 = 1024;

/// The same signal within this time is one request to end. `timeout` and others send it to the process, and then to its group.
const ONCE: Duration = Duration::from_secs(1);

struct Master<'a> {
    options: &'a Options,
    /// As it was when this process was started: another file may be at the path by now, to be the successor.
    program: PathBuf,
    signals: Signals,
    crew: Crew<'a>,
    /// Is told when this one serves, if this one is a successor.
    predecessor: Option<PipeWriter>,
    successor: Option<Successor>,
    phase: Phase,
    /// The signal to end that has come, and when.
    told_to_end: Option<(Signal, Instant)>,
    /// Why it ends, if something went wrong.
    failure: Option<String>,
}

enum Phase {
    /// Until all workers serve.
    Starting,
    Serving,
    /// The workers finish what is under way, until then at most.
    Ending(Instant),
}

struct Successor {
    child: Child,
    /// Until it has said that it serves.
    ready: Option<PipeReader>,
    started: Instant,
    serves: bool,
}

/// However this process ends, it leaves none behind that is not to take over.
impl Drop for Successor {
    fn drop(&mut self) {
        if !self.serves {
            // Neither can fail for a child of this process, and there would be nothing left to do about it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Serves, until the end.
pub fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let signals = signals()?;
    // Both are taken first of all: until then, a process that is started would inherit them.
    let predecessor = unless_missing(ipc::claim("ready"))?;
    let listener = match unless_missing(ipc::claim("listener"))? {
        Some(listener) => listener,
        None => TcpListener::bind(options.listen)
            .map_err(|error| format!("{} cannot be listened at: {error}", options.listen))?,
    };
    // Everybody who has this socket waits for it with others, and may find that another was quicker.
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, BACKLOG)?;
    let mut master = Master {
        options,
        program: std::env::current_exe()?,
        signals,
        crew: Crew::start(options, listener)?,
        predecessor,
        successor: None,
        phase: Phase::Starting,
        told_to_end: None,
        failure: None,
    };
    while !master.is_over() {
        master.turn()?;
    }
    master.failure.map_or(Ok(()), |reason| Err(reason.into()))
}

/// The signals that the master is steered by.
fn signals() -> ipc::Result<Signals> {
    Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|signal| signal as i32))
}

/// An end that was given to this program, if it was.
fn unless_missing<T>(claimed: ipc::Result<T>) -> ipc::Result<Option<T>> {
    match claimed {
        Err(ipc::Error::NoSuchEnd { .. }) => Ok(None),
        claimed => claimed.map(Some),
    }
}

impl Master<'_> {
    /// Waits until something happens, and looks at everything that can have happened.
    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        let mut on = self.crew.waits();
        on.push(Watch::readable(&self.signals));
        if let Some(successor) = &self.successor {
            on.push(Watch::readable(&successor.child));
            on.extend(successor.ready.as_ref().map(Watch::readable));
        }
        wait_any(&mut on, Some(self.crew.next().saturating_duration_since(Instant::now())))?;
        drop(on);

        for lost in self.crew.look_after()? {
            match self.phase {
                Phase::Starting => self.fail(&format!("a worker cannot start: {}", lost.what))?,
                Phase::Serving => self.crew.replace(&lost),
                Phase::Ending(_) if lost.in_order || self.failure.is_some() => {}
                Phase::Ending(_) => say(&lost.what),
            }
        }
        match self.phase {
            Phase::Starting if self.crew.is_complete() => self.open()?,
            Phase::Serving if self.crew.is_given_up() => self.fail("no worker is left")?,
            Phase::Serving => self.crew.fill(),
            Phase::Ending(until) if until < Instant::now() => {
                // Dropping what is left kills it.
                return Err(format!("{} workers did not finish in time, and were killed", self.crew.count()).into());
            }
            _ => {}
        }
        self.see_to_successor()?;
        loop {
            match self.signals.try_next() {
                Ok(signal) => self.heed(Signal::try_from(signal)?)?,
                Err(ipc::Error::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.crew.ask()?;
        self.draw();
        Ok(())
    }

    /// All workers serve: a starter that waits for that is told now.
    fn open(&mut self) -> Result<(), Box<dyn Error>> {
        self.phase = Phase::Serving;
        if let Some(listener) = &self.crew.listener {
            let (address, workers) = (listener.local_addr()?, self.options.workers);
            let (process, root) = (std::process::id(), self.options.root.display());
            let line = format!("prefork: process {process} serves {root} at http://{address}/ with {workers} workers");
            if let Err(error) = writeln!(std::io::stdout(), "{line}") {
                say(&format!("{line}; that cannot be printed: {error}"));
            }
        }
        match self.predecessor.take() {
            Some(predecessor) => Ok(tell(predecessor, Ok(()))?),
            None => Ok(()),
        }
    }

    fn heed(&mut self, signal: Signal) -> Result<(), Box<dyn Error>> {
        match (signal, &self.phase) {
            (Signal::SIGHUP, Phase::Serving) if self.successor.is_none() => match self.start_successor() {
                Ok(successor) => self.successor = Some(successor),
                Err(error) => say(&format!("the successor cannot be started: {error}; going on")),
            },
            (Signal::SIGHUP, _) => say("SIGHUP comes at a bad time, and is ignored"),
            _ if self.told_to_end.is_some_and(|(first, when)| signal == first && when.elapsed() < ONCE) => {}
            _ if self.told_to_end.is_some() => {
                // Dropping what is left kills it.
                return Err("ended at once, by a second signal".into());
            }
            _ => {
                self.told_to_end = Some((signal, Instant::now()));
                if let Some(successor) = self.successor.as_ref().filter(|successor| !successor.serves) {
                    successor.child.signal(Signal::SIGTERM as i32)?;
                }
                say("finishing the requests under way");
                self.end(&Order::Stop)?;
            }
        }
        Ok(())
    }

    /// The program of this process once more, with the socket and a pipe to tell that it serves.
    fn start_successor(&self) -> ipc::Result<Successor> {
        let (ready, writer) = ipc::pipe()?;
        let listener = self.crew.listener.as_ref().map(TcpListener::try_clone).transpose()?;
        let command = Command::new(&self.program).args(std::env::args_os().skip(1));
        let child = command.give("listener", listener).give("ready", writer).spawn()?;
        say(&format!("process {} is started to take over", child.id()));
        Ok(Successor { child, ready: Some(ready), started: Instant::now(), serves: false })
    }

    fn see_to_successor(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(mut successor) = self.successor.take() else { return Ok(()) };
        let process = successor.child.id();
        match successor.ready.as_ref().map(told).transpose()?.flatten() {
            Some(outcome) => {
                successor.ready = None;
                successor.serves = outcome.is_ok();
                match outcome {
                    Ok(()) if self.told_to_end.is_some() => {}
                    Ok(()) => {
                        say(&format!("process {process} has taken over"));
                        self.end(&Order::Drain)?;
                    }
                    Err(reason) => say(&format!("process {process} cannot take over: {reason}; going on")),
                }
            }
            // It has an eye on its own workers, and may take as long again.
            None if successor.ready.is_some() && successor.started.elapsed() > 2 * self.options.patience => {
                say(&format!("process {process} does not take over, and is killed; going on"));
                successor.ready = None;
                successor.child.kill()?;
            }
            None => {}
        }
        match successor.child.try_wait()? {
            Some(status) if successor.serves => say(&format!("process {process}, which took over, is gone ({status})")),
            Some(_) => {}
            None => self.successor = Some(successor),
        }
        Ok(())
    }

    /// Something is wrong that this process cannot go on with. Requests under way are finished all the same.
    fn fail(&mut self, reason: &str) -> ipc::Result<()> {
        self.failure = Some(reason.to_owned());
        if let Some(predecessor) = self.predecessor.take() {
            tell(predecessor, Err(reason))?;
        }
        self.end(&Order::Drain)
    }

    /// Accepts no more, and gives the workers the grace to finish.
    fn end(&mut self, how: &Order) -> ipc::Result<()> {
        self.crew.listener = None;
        self.phase = Phase::Ending(Instant::now() + self.options.grace);
        self.crew.order(how)
    }

    fn is_over(&self) -> bool {
        let alone = self.successor.as_ref().is_none_or(|successor| successor.serves);
        matches!(self.phase, Phase::Ending(_)) && self.crew.count() == 0 && alone
    }

    /// The line on the terminal. When this process has handed over, the line is the other one's.
    fn draw(&self) {
        let mut out = std::io::stderr();
        if matches!(self.phase, Phase::Serving) && out.is_terminal() {
            let (workers, total) = (self.crew.count(), self.crew.total());
            let (open, requests, bytes) = (total.open, total.requests, total.bytes);
            // A terminal that is gone is no reason to stop serving.
            let _ = write!(out, "\r\x1b[K{workers} workers, {open} connections, {requests} requests, {bytes} bytes");
        }
    }
}
