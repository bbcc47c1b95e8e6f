//! One client's connection, which never blocks: it does the work that can be done now, and returns what it waits for.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ipc::Watch;
use rustix::net::SendFlags;

use crate::http::{self, HTML, LONGEST_HEAD, Request, TEXT};
use crate::messages::Report;
use crate::site::{Found, Site};

/// The path of the status page. It is looked at before the files are.
const STATUS: &str = "/.status";

/// How much of a file is sent before it is another connection's turn.
const TURN: u64 = 512 << 10;

/// How long a client may take to see that its connection is to be closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// The state that all connections of a worker share.
pub struct Service {
    pub site: Site,
    pub report: Report,
    /// The contents of the status page: the master sends them.
    pub table: String,
    /// Whether a connection may stay open after an answer.
    pub keep: bool,
    /// How long a client may take: for a head from its first byte, for each piece of an answer, and until it asks again.
    pub timeout: Duration,
}

pub struct Connection {
    stream: TcpStream,
    /// Bytes that have arrived and are not answered.
    input: Vec<u8>,
    state: State,
    pub deadline: Instant,
}

enum State {
    /// For a request.
    Waiting,
    Answering(Answer),
    /// Everything is sent. A close with something unread would reset the connection, and the client might lose its
    /// answer. So its bytes are thrown away until it closes too.
    Leaving,
}

struct Answer {
    /// With the body, if that is a text.
    head: Vec<u8>,
    sent: usize,
    file: Option<File>,
    /// Bytes of the file that are still to be sent.
    left: u64,
    keep: bool,
}

impl Connection {
    pub fn new(stream: OwnedFd, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::from(stream);
        // The last piece of an answer is not to wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new(), state: State::Waiting, deadline: Instant::now() + timeout })
    }

    pub fn wait(&self) -> Watch<'_> {
        match self.state {
            State::Answering(_) => Watch::writable(&self.stream),
            State::Waiting | State::Leaving => Watch::readable(&self.stream),
        }
    }

    /// Returns whether no request is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Waiting) && self.input.is_empty()
    }

    /// Goes on as far as it can without waiting, and says whether the connection stays.
    pub fn advance(&mut self, service: &mut Service) -> bool {
        self.go_on(service).unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn go_on(&mut self, service: &mut Service) -> io::Result<bool> {
        // One read a turn, so that a client that sends all the time does not keep the others waiting.
        let mut may_read = true;
        loop {
            match &mut self.state {
                State::Waiting => match http::parse(&self.input) {
                    Ok(Some((len, request))) => {
                        self.input.drain(..len);
                        self.begin(answer(&request, service), service);
                    }
                    Ok(None) if !std::mem::take(&mut may_read) => return Ok(true),
                    Ok(None) if self.receive(service)? == 0 => return Ok(false),
                    Ok(None) => {}
                    Err(status) => self.refuse(status, service),
                },
                State::Answering(answer) => {
                    let (keep, all) = (answer.keep, answer.send(&self.stream, &mut service.report.bytes)?);
                    self.deadline = Instant::now() + service.timeout;
                    if !all {
                        return Ok(true);
                    }
                    service.report.requests += 1;
                    self.state = State::Waiting;
                    if !keep {
                        self.stream.shutdown(Shutdown::Write)?;
                        self.deadline = Instant::now() + FAREWELL;
                        self.state = State::Leaving;
                    }
                }
                State::Leaving => return Ok((&self.stream).read(&mut [0; LONGEST_HEAD])? > 0),
            }
        }
    }

    /// Its time is up. Says whether the connection stays.
    pub fn expire(&mut self, service: &mut Service) -> bool {
        // Half a request deserves an answer.
        let half = matches!(self.state, State::Waiting) && !self.input.is_empty();
        if half {
            self.refuse(408, service);
        }
        half && self.advance(service)
    }

    fn receive(&mut self, service: &Service) -> io::Result<usize> {
        let before = self.input.len();
        self.input.resize(LONGEST_HEAD, 0);
        let read = (&self.stream).read(&mut self.input[before..]);
        self.input.truncate(before + *read.as_ref().unwrap_or(&0));
        if before == 0 && !self.input.is_empty() {
            self.deadline = Instant::now() + service.timeout;
        }
        read
    }

    fn refuse(&mut self, status: u16, service: &Service) {
        self.input.clear();
        let more = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        self.begin(Answer::text(status, TEXT, http::reason(status), more, false, false), service);
    }

    fn begin(&mut self, answer: Answer, service: &Service) {
        self.state = State::Answering(answer);
        self.deadline = Instant::now() + service.timeout;
    }
}

fn answer(request: &Request, service: &Service) -> Answer {
    let keep = request.keep && service.keep;
    let text = |status, text: &str, more: &str| Answer::text(status, TEXT, text, more, request.head_only, keep);
    if request.path == STATUS {
        return text(200, &service.table, "");
    }
    match service.site.find(&request.path) {
        Ok(Found::File { file, length, kind }) => {
            let head = http::head(200, kind, length, keep, "").into_bytes();
            Answer { head, sent: 0, file: Some(file), left: if request.head_only { 0 } else { length }, keep }
        }
        Ok(Found::Listing(page)) => Answer::text(200, HTML, &page, "", request.head_only, keep),
        Ok(Found::Moved(to)) => text(301, http::reason(301), &format!("Location: {to}\r\n")),
        Err(status) => text(status, http::reason(status), ""),
    }
}

impl Answer {
    fn text(status: u16, kind: &str, text: &str, more: &str, head_only: bool, keep: bool) -> Self {
        let mut head = http::head(status, kind, text.len() as u64, keep, more);
        if !head_only {
            head += text;
        }
        Self { head: head.into_bytes(), sent: 0, file: None, left: 0, keep }
    }

    /// Sends what the client's socket takes. `false`: it is another's turn.
    fn send(&mut self, stream: &TcpStream, bytes: &mut u64) -> io::Result<bool> {
        while self.sent < self.head.len() {
            // In one packet with the beginning of the file, if there is one.
            let flags = if self.left > 0 { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
            let sent = rustix::net::send(stream, &self.head[self.sent..], flags)?;
            self.sent += sent;
            *bytes += sent as u64;
        }
        let mut turn = TURN;
        while let Some(file) = self.file.as_ref().filter(|_| self.left > 0 && turn > 0) {
            // A reader that is gone is no signal here: the main function of Rust ignores SIGPIPE, and its children do.
            let sent = rustix::fs::sendfile(stream, file, None, self.left.min(turn) as usize)? as u64;
            if sent == 0 {
                // The file was cut short meanwhile: the promised length cannot be kept.
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.left -= sent;
            turn -= sent;
            *bytes += sent;
        }
        Ok(self.left == 0)
    }
}
