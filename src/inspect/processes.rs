//! What /proc tells of processes and their descriptors (proc.5).

use std::fs;
use std::io;
use std::os::fd::RawFd;

use rustix::fs::{AtFlags, CWD, FileType, RawMode, StatxFlags, makedev};

use crate::error::{Error, Result};
use crate::sys::Errno;

/// The channel behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Channel {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) socket: bool,
}

impl Channel {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        Self::new(stat.st_mode, stat.st_dev, stat.st_ino)
    }

    fn new(mode: RawMode, device: u64, inode: u64) -> Option<Self> {
        let socket = match FileType::from_raw_mode(mode) {
            FileType::Fifo => false,
            FileType::Socket => true,
            _ => return None,
        };
        Some(Self { device, inode, socket })
    }

    /// What is at the other end of a link in /proc.
    ///
    /// That may be a file on a server that does not answer, and stat(2) would wait for it. This takes what the kernel knows
    /// by itself, which of channels is all.
    fn behind(link: &str) -> Option<Self> {
        match rustix::fs::statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE | StatxFlags::INO) {
            Ok(stat) => {
                let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
                Self::new(stat.stx_mode.into(), device, stat.stx_ino)
            }
            // Refused in some sandboxes.
            Err(Errno::NOSYS) => Self::of(&rustix::fs::stat(link).ok()?),
            Err(_) => None,
        }
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

/// This process, and all that /proc shows, by the numbers that they have there.
///
/// Where it is not mounted there is an empty directory, which would say that nobody holds anything.
pub(super) fn pids() -> Result<(u32, Vec<u32>)> {
    let link = rustix::fs::readlink(c"/proc/self", Vec::new()).map_err(|errno| Error::system("readlink", errno))?;
    let me = link.to_str().ok().and_then(|number| number.parse().ok());
    let me = me.ok_or_else(|| Error::system("readlink", Errno::NOENT))?;
    let entries = fs::read_dir("/proc").map_err(|source| Error::System { call: "open", source })?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok((me, pids.collect()))
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
    let channel = Channel::behind(&path)?;
    let mode = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mode;
    let (reads, writes) = (mode & 0o400 != 0, mode & 0o200 != 0);
    // Neither: O_PATH, which keeps no stream open.
    (reads || writes).then_some(Held { number, channel, reads, writes })
}

/// Name and parent of a process, as long as it is there.
pub(super) fn name_and_parent(pid: u32) -> Result<Option<(String, u32)>> {
    Ok(Stat::of(pid)?.map(|stat| (stat.name, stat.parent)))
}

/// Whether it is a thread of the kernel, which holds nothing and lets nobody look.
fn is_kernels(pid: u32) -> Result<bool> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    Ok(Stat::of(pid)?.is_some_and(|stat| stat.flags & PF_KTHREAD != 0))
}

/// What is used of a process's `stat` (proc_pid_stat.5).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) parent: u32,
    flags: u64,
}

impl Stat {
    fn of(pid: u32) -> Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(Self::parse(&stat)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(source) => Err(Error::System { call: "open", source }),
        }
    }

    /// Number, name in parentheses, and the fields that follow. A process names itself: the name may have spaces and
    /// parentheses of its own, and need be no text.
    pub(crate) fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let (before, rest) = stat.rsplit_once(") ")?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<_> = rest.split(' ').take(7).collect();
        Some(Self { name, parent: fields.get(1)?.parse().ok()?, flags: fields.get(6)?.parse().ok()? })
    }
}

/// A name as it may go to a terminal, which would obey what is no letter.
pub(crate) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let me = std::process::id();
        let (here, pids) = pids().unwrap();
        assert!(here == me && pids.contains(&me));
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

    #[test]
    fn a_name_is_told_from_what_follows_it() {
        let parse = |name: &str| {
            Stat::parse(format!("42 ({name}) S 7 42 42 0 -1 4194560 107 0\n").as_bytes())
                .map(|stat| (stat.name, stat.parent, stat.flags))
        };
        for name in ["sh", "", "a b", ") S 1 1", "(", "))", "((sd-pam))", ") ) (", "\n"] {
            assert_eq!(parse(name), Some((name.to_owned(), 7, 4_194_560)));
        }
    }

    #[test]
    fn what_is_no_stat_is_nothing() {
        let whole = b"42 (sh) S 7 42 42 0 -1 4194560";
        assert!(Stat::parse(whole).is_some());
        for len in 0..whole.len() - "4194560".len() + 1 {
            assert_eq!(Stat::parse(&whole[..len]), None, "{len} bytes");
        }
        for hostile in ["", ") ", "() ", "42 sh) S 7 1 1 0 -1 0", "42 (sh) S -7 1 1 0 -1 0", "42 (sh) S 7 1 1 0 -1 x"] {
            assert_eq!(Stat::parse(hostile.as_bytes()), None, "{hostile}");
        }
    }
}
