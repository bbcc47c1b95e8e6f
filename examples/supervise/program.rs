//! One program: how it is started, its output, and when it is started again.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use ipc::{Child, Command, PipeReader};

use crate::keeper::Keeper;

/// How long the first pause before another start is. Each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A program that ran as long as that starts with the shortest pause again.
const LASTING: Duration = Duration::from_secs(10);
/// A line that is longer is shown in pieces.
const LONGEST_LINE: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

pub struct Program {
    name: String,
    command: String,
    state: State,
    pause: Duration,
    stopping: bool,
    outputs: Vec<Output>,
}

enum State {
    /// Until then.
    Waiting(Instant),
    Running(Child, Instant),
    Over,
}

/// The output of a program on one of its streams.
struct Output {
    stream: Stream,
    reader: PipeReader,
    /// The beginning of a line.
    begun: Vec<u8>,
}

/// The programs of a file, one a line.
pub fn parse(text: &str) -> Result<Vec<Program>, String> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let program = |(number, line): (usize, &str)| match line.split_once(':') {
        Some((name, command)) if !name.trim().is_empty() && !command.trim().is_empty() => Ok(Program {
            name: name.trim().to_owned(),
            command: command.trim().to_owned(),
            state: State::Waiting(Instant::now()),
            pause: FIRST_PAUSE,
            stopping: false,
            outputs: Vec::new(),
        }),
        _ => Err(format!("line {number} is not `NAME: COMMAND`")),
    };
    lines.map(program).collect()
}

impl Program {
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over) && self.outputs.is_empty()
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub fn child(&self) -> Option<&Child> {
        match &self.state {
            State::Running(child, _) => Some(child),
            _ => None,
        }
    }

    /// Returns when it is to be started.
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) => Some(until),
            _ => None,
        }
    }

    pub fn streams(&self) -> impl Iterator<Item = (Stream, &PipeReader)> {
        self.outputs.iter().map(|output| (output.stream, &output.reader))
    }

    pub fn start_if_due(&mut self, now: Instant, keeper: &Keeper) -> ipc::Result<()> {
        if self.due().is_none_or(|due| due > now) {
            return Ok(());
        }
        // A process that still has the last one's output has left its group, and is not read any more.
        self.outputs.clear();
        let (out, stdout) = ipc::pipe()?;
        let (err, stderr) = ipc::pipe()?;
        let (gate, mut open) = ipc::pipe()?;
        // Nothing is started before the keeper knows the group: if this process dies until then, `read` meets EOF.
        let script = format!("read -r _ <&3 || exit; exec 3<&-\n{}", self.command);
        let command = Command::new("sh").args(["-c", &script]).give_at(3, gate);
        let command = command.stdin(ipc::Stdio::null()).stdout(stdout).stderr(stderr);
        // A group of its own, for itself and its children.
        match command.process_group(0).die_with_parent().close_others().spawn() {
            Ok(child) => {
                keeper.keep(child.id())?;
                match open.write_all(b"go\n") {
                    // One that was killed already is buried at the next turn.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
                    _ => {}
                }
                self.note(format_args!("started as process {}", child.id()));
                let output = |stream, reader| Output { stream, reader, begun: Vec::new() };
                self.outputs.extend([output(Stream::Out, out), output(Stream::Err, err)]);
                self.state = State::Running(child, now);
            }
            Err(refused) => {
                self.note(refused);
                self.again(now);
            }
        }
        Ok(())
    }

    /// Waits for one that has left, and ends the processes that it left behind.
    pub fn bury(&mut self, keeper: &Keeper) -> ipc::Result<()> {
        let State::Running(child, started) = &self.state else { return Ok(()) };
        child.kill_group()?;
        let status = child.wait()?;
        keeper.forget(child.id())?;
        let started = *started;
        if started.elapsed() > LASTING {
            self.pause = FIRST_PAUSE;
        }
        self.state = State::Over;
        match (status.success(), self.stopping) {
            (true, _) => self.note("is done"),
            (false, true) => self.note(format_args!("stopped: {status}")),
            (false, false) => {
                self.note(format_args!("{status}; again in {:?}", self.pause));
                self.again(Instant::now());
            }
        }
        Ok(())
    }

    fn again(&mut self, now: Instant) {
        self.state = State::Waiting(now + self.pause);
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
    }

    /// Asks it to stop, and whatever it started.
    pub fn stop(&mut self) {
        self.stopping = true;
        match &self.state {
            // One that has just left is buried at the next turn.
            State::Running(child, _) => drop(child.signal_group(crate::SIGTERM)),
            _ => self.state = State::Over,
        }
    }

    pub fn kill(&mut self) {
        self.stop();
        match &self.state {
            State::Running(child, _) => drop(child.kill_group()),
            _ => self.outputs.clear(),
        }
    }

    /// Prints the lines that are complete.
    pub fn listen(&mut self, stream: Stream) -> io::Result<()> {
        let Some(at) = self.outputs.iter().position(|output| output.stream == stream) else { return Ok(()) };
        let output = &mut self.outputs[at];
        let mut buf = [0; 16 << 10];
        match output.reader.try_read(&mut buf) {
            Ok(0) => {
                let rest = self.outputs.remove(at).begun;
                if rest.is_empty() { Ok(()) } else { print(&self.name, stream, &rest) }
            }
            Ok(len) => {
                output.begun.extend_from_slice(&buf[..len]);
                while let Some(end) = output.begun.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = output.begun.drain(..=end).collect();
                    print(&self.name, stream, &line[..end])?;
                }
                if output.begun.len() >= LONGEST_LINE {
                    print(&self.name, stream, &std::mem::take(&mut output.begun))?;
                }
                Ok(())
            }
            // Another holder was quicker. This cannot happen, since there is no other.
            Err(ipc::Error::WouldBlock) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn note(&self, what: impl Display) {
        // In one piece; without a reader, the programs go on.
        let _ = io::stderr().write_all(format!("supervise: {}: {what}\n", self.name).as_bytes());
    }
}

fn print(name: &str, stream: Stream, line: &[u8]) -> io::Result<()> {
    let mark = if stream == Stream::Out { '|' } else { '!' };
    let mut whole = format!("{name} {mark} ").into_bytes();
    whole.extend_from_slice(line);
    whole.push(b'\n');
    // In one piece, so that two supervisors may share a log.
    io::stdout().lock().write_all(&whole)
}
