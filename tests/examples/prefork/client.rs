//! A client that knows which of its requests failed, and at which worker.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::support::SOON;

pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The process that it comes from.
    pub fn worker(&self) -> u32 {
        let server = self.header("server");
        let process = server.strip_prefix("prefork/").and_then(|process| process.parse().ok());
        process.unwrap_or_else(|| panic!("a worker says which it is, and not {server:?}"))
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == "close"
    }
}

/// One connection. Nothing on it takes longer than `SOON`.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new() })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(request("GET", path))?;
        self.receive("GET")
    }

    /// The next response, to a request with that method.
    pub fn receive(&mut self, method: &str) -> io::Result<Response> {
        let end = loop {
            match self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.fill()?,
            }
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).map_err(io::Error::other)?;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no response: {head:?}")))?;
        let fields = lines.filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
        let length = if method == "HEAD" { 0 } else { length };
        while self.input.len() < length {
            self.fill()?;
        }
        let rest = self.input.split_off(length);
        Ok(Response { status, headers, body: std::mem::replace(&mut self.input, rest) })
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buf = [0; 64 << 10];
        match self.stream.read(&mut buf)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => {
                self.input.extend_from_slice(&buf[..len]);
                Ok(())
            }
        }
    }

    /// That the server closes now, and has nothing more to say.
    #[track_caller]
    pub fn assert_ends(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the end of the connection");
        assert_eq!(String::from_utf8_lossy(&[self.input, rest].concat()), "");
    }
}

pub fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n")
}

/// A request that was not answered.
#[derive(Debug)]
#[allow(dead_code)] // the error is for the one who reads the failure
pub struct Failure {
    /// Whose connection it was. `None`: no answer had come on it yet.
    pub worker: Option<u32>,
    /// When the connection was opened.
    pub opened: Instant,
    pub failed: Instant,
    pub error: io::Error,
}

/// Asks for one file after the other on a connection that is kept, until it is told to stop. Each response has to be the
/// file.
pub fn keep_asking(address: SocketAddr, files: &[(&str, &[u8])], stop: &AtomicBool) -> (usize, Vec<Failure>) {
    let (mut answered, mut failures) = (0, Vec::new());
    let mut files = files.iter().cycle();
    while !stop.load(Relaxed) {
        let (opened, mut worker) = (Instant::now(), None);
        let mut ask = |client: &mut io::Result<Client>| {
            let client = client.as_mut().map_err(|error| io::Error::from(error.kind()))?;
            let (path, content) = files.next().expect("it goes round");
            let response = client.get(path)?;
            assert_eq!(response.status, 200);
            assert!(response.body == *content, "{path} is something else");
            Ok((response.worker(), response.closes()))
        };
        let mut client = Client::connect(address);
        while !stop.load(Relaxed) {
            match ask(&mut client) {
                Ok((process, closes)) => {
                    answered += 1;
                    worker = Some(process);
                    if closes {
                        break;
                    }
                }
                Err(error) => {
                    failures.push(Failure { worker, opened, failed: Instant::now(), error });
                    break;
                }
            }
        }
    }
    (answered, failures)
}
