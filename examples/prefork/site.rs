//! The folder that is served, and nothing outside of it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::http::{self, HTML, TEXT};
use crate::listing::listing;

/// The folder is held open: renaming it changes nothing.
pub struct Site(OwnedFd);

pub enum Found {
    File {
        file: File,
        length: u64,
        kind: &'static str,
    },
    /// A page that lists what is in a folder.
    Listing(String),
    /// A folder's address ends with a slash, or the links in its page would go astray.
    Moved(String),
}

impl Site {
    pub fn open(root: &Path) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, root, flags, Mode::empty())?))
    }

    /// The page or file at a path, as a client sent it. An error is the status of the answer.
    pub fn find(&self, path: &str) -> Result<Found, u16> {
        let decoded = http::decode(path).ok_or(400_u16)?;
        let start = decoded.iter().position(|byte| *byte != b'/').unwrap_or(decoded.len());
        let name = &decoded[start..];
        let (file, mode, length) = self.look(if name.is_empty() { b"." } else { name }).map_err(status)?;
        match mode {
            FileType::RegularFile => Ok(Found::File { file, length, kind: kind(name) }),
            // One slash at its beginning: two would name another server.
            FileType::Directory if !decoded.ends_with(b"/") => {
                Ok(Found::Moved(format!("/{}/", path.trim_start_matches('/'))))
            }
            FileType::Directory => match self.look(&[name, b"index.html"].concat()) {
                Ok((file, FileType::RegularFile, length)) => Ok(Found::File { file, length, kind: HTML }),
                Ok(_) => Err(403),
                Err(Errno::NOENT) => listing(file, name).map(Found::Listing).map_err(status),
                Err(errno) => Err(status(errno)),
            },
            // A device or a FIFO is no file.
            _ => Err(403),
        }
    }

    /// The kernel keeps the way inside: neither `..` nor a symbolic link leads out, whatever is renamed meanwhile
    /// (openat2.2). Opening a FIFO does not wait for its writer.
    fn look(&self, path: &[u8]) -> Result<(File, FileType, u64), Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)?;
        let data = rustix::fs::fstat(&file)?;
        Ok((file.into(), FileType::from_raw_mode(data.st_mode), data.st_size as u64))
    }
}

fn status(errno: Errno) -> u16 {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => 404,
        // The last three: a way that leads out, a symbolic link of /proc or to itself, a socket.
        Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP | Errno::NXIO => 403,
        // The last: something was renamed on the way, and the kernel could not tell whether it stayed inside.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => 503,
        _ => 500,
    }
}

fn kind(name: &[u8]) -> &'static str {
    let extension = Path::new(OsStr::from_bytes(name)).extension().unwrap_or_default();
    match extension.to_ascii_lowercase().as_bytes() {
        b"html" | b"htm" => HTML,
        b"css" => "text/css; charset=utf-8",
        b"js" => "text/javascript; charset=utf-8",
        b"txt" | b"md" => TEXT,
        b"json" => "application/json",
        b"pdf" => "application/pdf",
        b"wasm" => "application/wasm",
        b"svg" => "image/svg+xml",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        _ => "application/octet-stream",
    }
}
