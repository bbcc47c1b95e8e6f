//! The part of HTTP/1.1 that files need: the head of a request, and the head of an answer (RFC 9110, RFC 9112).

use std::time::SystemTime;

/// A longer head is refused, so no more than this is kept of what a client sends.
pub const LONGEST_HEAD: usize = 8 << 10;
const MOST_HEADERS: usize = 64;

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const HTML: &str = "text/html; charset=utf-8";

pub struct Request {
    /// `HEAD`: the answer is to have no body. Otherwise it is `GET`.
    pub head_only: bool,
    /// As it was sent, without the query.
    pub path: String,
    /// Whether the client would keep the connection.
    pub keep: bool,
}

/// Looks for a whole head at the beginning of what has arrived, and says how long it is. `None`: more is to come.
///
/// An error is the status to answer with. The connection ends then: the beginning of another request is not known.
pub fn parse(input: &[u8]) -> Result<Option<(usize, Request)>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(input) {
        Ok(httparse::Status::Complete(len)) if len <= LONGEST_HEAD => Ok(Some((len, understand(&head)?))),
        Ok(httparse::Status::Partial) if input.len() < LONGEST_HEAD => Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(431),
        Err(_) => Err(400),
    }
}

fn understand(head: &httparse::Request<'_, '_>) -> Result<Request, u16> {
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(405),
    };
    let header = |name: &'static str| {
        head.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    // A body would be taken for the next request, so there is to be none.
    if header("Transfer-Encoding").next().is_some() || header("Content-Length").any(|length| length != b"0") {
        return Err(413);
    }
    let current = head.version == Some(1);
    if current && header("Host").count() != 1 {
        return Err(400);
    }
    let close = header("Connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
    let target = head.path.unwrap_or_default();
    // A proxy may send the whole address.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |start| &rest[start..]),
        None => target,
    };
    let path = path.split('?').next().filter(|path| path.starts_with('/')).ok_or(400_u16)?;
    Ok(Request { head_only, path: path.to_owned(), keep: current && !close })
}

/// A path with its `%41`s resolved. `None`: it is no path.
pub fn decode(path: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        decoded.push(if byte == b'%' { (digit()? * 16 + digit()?) as u8 } else { byte });
    }
    Some(decoded).filter(|decoded| !decoded.contains(&0))
}

/// The head of an answer. `more` are header lines of its own.
pub fn head(status: u16, kind: &str, length: u64, keep: bool, more: &str) -> String {
    format!(
        "HTTP/1.1 {}\r\nDate: {}\r\nServer: prefork/{}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         X-Content-Type-Options: nosniff\r\n{more}{}\r\n",
        reason(status),
        httpdate::fmt_http_date(SystemTime::now()),
        std::process::id(), // which worker it was
        if keep { "" } else { "Connection: close\r\n" },
    )
}

pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        301 => "301 Moved Permanently",
        400 => "400 Bad Request",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        408 => "408 Request Timeout",
        413 => "413 Content Too Large",
        431 => "431 Request Header Fields Too Large",
        503 => "503 Service Unavailable",
        _ => "500 Internal Server Error",
    }
}
