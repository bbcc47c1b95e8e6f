//! What /proc tells of processes and their descriptors (proc.5).

use std::fs;
use std::io;
use std::os::fd::RawFd;

use rustix::fs::{AtFlags, CWD, FileType, RawMode, Stat, StatxFlags, makedev};

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
    pub(super) fn of(stat: &Stat) -> Option<Self> {
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

/// The channels that a process has open.
pub(super) fn channels(pid: u32) -> Seen {
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(error) => return unless_gone(pid, &error),
    };
    let mut channels = Vec::new();
    for entry in entries {
        let number = match entry {
            Ok(entry) => entry.file_name().to_str().and_then(|name| name.parse().ok()),
            Err(error) => return unless_gone(pid, &error),
        };
        // What vanishes meanwhile is not held.
        channels.extend(number.and_then(|number| held(pid, number)));
    }
    Seen::Channels(channels)
}

fn unless_gone(pid: u32, error: &io::Error) -> Seen {
    match error.kind() {
        io::ErrorKind::PermissionDenied if !is_kernels(pid) => Seen::Nothing,
        _ => Seen::Gone,
    }
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
pub(super) fn name_and_parent(pid: u32) -> Option<(String, u32)> {
    let (name, rest) = stat(pid)?;
    Some((name, rest.split(' ').nth(1)?.parse().ok()?))
}

/// Whether it is a thread of the kernel, which holds nothing and lets nobody look.
fn is_kernels(pid: u32) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags = stat(pid).and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// The name, and what follows it. A process names itself, so there may be spaces and parentheses in it; what a terminal would
/// obey is replaced.
fn stat(pid: u32) -> Option<(String, String)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (before, rest) = stat.rsplit_once(") ")?;
    let name = before.split_once('(')?.1.replace(char::is_control, "?");
    Some((name, rest.trim_end().to_owned()))
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
        let Seen::Channels(channels) = channels(me) else { panic!("this process may look at itself") };
        let sides: Vec<_> = channels.iter().filter(|held| held.channel == channel).collect();
        assert_eq!(sides.len(), 2);
        assert!(sides.iter().any(|held| held.reads && !held.writes));
        assert!(sides.iter().any(|held| held.writes && !held.reads));
        assert!(name_and_parent(me).is_some());
        drop(writer);
    }
}
