//! What /proc tells of processes and their descriptors (proc.5).

use std::fs;
use std::io;
use std::os::fd::RawFd;

use rustix::fs::{CWD, FileType};

use crate::sys::Errno;
use crate::{Error, Result};

/// The channel behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Channel {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) socket: bool,
}

impl Channel {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        let socket = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => false,
            FileType::Socket => true,
            _ => return None,
        };
        Some(Self { device: stat.st_dev, inode: stat.st_ino, socket })
    }
}

/// One descriptor of a process that is a channel.
pub(super) struct Held {
    pub(super) number: RawFd,
    pub(super) channel: Channel,
    pub(super) reads: bool,
    pub(super) writes: bool,
}

/// What could be seen of a process's descriptors.
pub(super) enum Seen {
    Channels(Vec<Held>),
    /// It may not be looked into.
    Nothing,
    /// It is gone, or has no descriptors: a zombie, a thread of the kernel.
    Gone,
}

/// The processes that /proc shows.
pub(super) fn pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").map_err(|source| Error::System { call: "open", source })?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.collect())
}

/// The channels that a process has open. Fails where this process is at the end of its own means: what it has no descriptor
/// to look with is not gone.
pub(super) fn channels(pid: u32) -> Result<Seen> {
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(error) => return unless_gone(pid, error),
    };
    let mut channels = Vec::new();
    for entry in entries {
        let number = match entry {
            Ok(entry) => entry.file_name().to_str().and_then(|name| name.parse().ok()),
            Err(error) => return unless_gone(pid, error),
        };
        // What vanishes meanwhile is not held.
        channels.extend(number.and_then(|number| held(pid, number)));
    }
    Ok(Seen::Channels(channels))
}

fn unless_gone(pid: u32, error: io::Error) -> Result<Seen> {
    match error.kind() {
        io::ErrorKind::PermissionDenied if is_kernels(pid)? => Ok(Seen::Gone),
        io::ErrorKind::PermissionDenied => Ok(Seen::Nothing),
        _ if is_gone(&error) => Ok(Seen::Gone),
        _ => Err(Error::System { call: "open", source: error }),
    }
}

/// A process that leaves takes its directory away, or answers that it does not exist any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

fn held(pid: u32, number: RawFd) -> Option<Held> {
    let path = format!("/proc/{pid}/fd/{number}");
    // Through the link, to the channel itself; and the link, whose permissions say how it is open.
    let channel = Channel::of(&rustix::fs::stat(&path).ok()?)?;
    let mode = rustix::fs::statat(CWD, &path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mode;
    let (reads, writes) = (mode & 0o400 != 0, mode & 0o200 != 0);
    // Neither: O_PATH, which keeps no stream open.
    (reads || writes).then_some(Held { number, channel, reads, writes })
}

/// Name and parent of a process, as long as it is there.
pub(super) fn name_and_parent(pid: u32) -> Result<Option<(String, u32)>> {
    let Some((name, rest)) = stat(pid)? else { return Ok(None) };
    let parent = rest.split(' ').nth(1).and_then(|parent| parent.parse().ok());
    Ok(parent.map(|parent| (name, parent)))
}

/// Whether it is a thread of the kernel, which holds nothing and lets nobody look.
fn is_kernels(pid: u32) -> Result<bool> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = stat(pid)?.and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u64>().ok());
    Ok(flags.is_some_and(|flags| flags & PF_KTHREAD != 0))
}

/// The name, and what follows it. The name may have spaces and parentheses of its own.
fn stat(pid: u32) -> Result<Option<(String, String)>> {
    let stat = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(source) => return Err(Error::System { call: "open", source }),
    };
    let stat = String::from_utf8_lossy(&stat);
    let parts = stat.rsplit_once(") ").and_then(|(before, rest)| Some((before.split_once('(')?.1, rest)));
    Ok(parts.map(|(name, rest)| (name.to_owned(), rest.trim_end().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let me = std::process::id();
        assert!(pids().unwrap().contains(&me));
        let (reader, writer) = std::io::pipe().unwrap();
        let channel = Channel::of(&rustix::fs::fstat(&reader).unwrap()).unwrap();
        let Ok(Seen::Channels(channels)) = channels(me) else { panic!("this process may look at itself") };
        let sides: Vec<_> = channels.iter().filter(|held| held.channel == channel).collect();
        assert_eq!(sides.len(), 2);
        assert!(sides.iter().any(|held| held.reads && !held.writes));
        assert!(sides.iter().any(|held| held.writes && !held.reads));
        assert!(name_and_parent(me).unwrap().is_some());
        drop(writer);
    }
}
