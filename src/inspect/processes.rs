//! The view of /proc on processes and their descriptors ([proc(5)]).
//!
//! [proc(5)]: https://man7.org/linux/man-pages/man5/proc.5.html

use std::fs;
use std::io;
use std::os::fd::RawFd;

use rustix::fs::{AtFlags, CWD, FileType, OFlags, RawMode, StatxFlags, makedev};
use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::descriptor::is_table_shared;

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

    /// The target of a link in /proc; an error if that may not be seen.
    ///
    /// The target may be a file on a server that does not answer, and [stat(2)] would wait for it. This takes the kernel's own
    /// knowledge, which is complete for channels.
    ///
    /// [stat(2)]: https://man7.org/linux/man-pages/man2/stat.2.html
    fn behind(link: &str) -> crate::sys::Result<Option<Self>> {
        let seen = match rustix::fs::statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE | StatxFlags::INO) {
            Ok(stat) => {
                let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
                Ok(Self::new(stat.stx_mode.into(), device, stat.stx_ino))
            }
            // Refused in some sandboxes.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::stat(link).map(|stat| Self::of(&stat)),
            Err(errno) => Err(errno),
        };
        match seen {
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => Err(errno),
            // A descriptor that vanishes meanwhile is not held, and one that cannot be looked at is no channel.
            seen => Ok(seen.ok().flatten()),
        }
    }
}

/// One descriptor of a process that is a channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) number: RawFd,
    pub(super) channel: Channel,
    pub(super) reads: bool,
    pub(super) writes: bool,
}

/// A process's descriptors, as far as they could be seen.
#[derive(Default)]
pub(super) struct Seen {
    /// By their numbers. A process that is gone holds nothing, nor does a zombie or a thread of the kernel.
    pub(super) channels: Vec<Held>,
    /// It may not be inspected.
    pub(super) unseen: bool,
    /// It shows that descriptors are open, but not the kind of all of them.
    pub(super) in_part: bool,
    /// The same of each table, where its threads have several.
    pub(super) tables: Vec<Vec<Held>>,
}

/// The processes that /proc shows, by the numbers that it uses.
pub(super) struct Shown {
    /// This process.
    pub(super) me: u32,
    /// All processes.
    pub(super) pids: Vec<u32>,
    /// How many pid namespaces below that of `/proc` this process is.
    pub(super) depth: usize,
}

/// The processes that /proc shows.
///
/// Where it is not mounted there is an empty directory, which would mean that no process holds an end.
pub(super) fn shown() -> Result<Shown> {
    let link = rustix::fs::readlink(c"/proc/self", Vec::new()).map_err(|errno| Error::system("readlink", errno))?;
    let me = link.to_str().ok().and_then(|number| number.parse().ok());
    let me = me.ok_or_else(|| Error::system("readlink", Errno::NOENT))?;
    let entries = fs::read_dir("/proc").map_err(|source| Error::System { call: "open", source })?;
    let entries =
        entries.collect::<io::Result<Vec<_>>>().map_err(|source| Error::System { call: "getdents", source })?;
    let mut pids: Vec<u32> = entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(Shown { me, pids, depth: numbers(me)?.len().saturating_sub(1) })
}

impl Shown {
    /// The number that /proc has for the process with this number here.
    pub(super) fn translate(&self, pid: u32) -> Result<Option<u32>> {
        if self.depth == 0 {
            return Ok(Some(pid));
        }
        let own = namespace(self.me);
        for &shown in &self.pids {
            let numbers = numbers(shown)?;
            // One that is as deep as this process may be in another namespace; one that is deeper has a number in those above.
            let is_ours =
                || numbers.len() > self.depth + 1 || namespace(shown).is_none_or(|its| own.as_ref() == Some(&its));
            if numbers.get(self.depth) == Some(&pid) && is_ours() {
                return Ok(Some(shown));
            }
        }
        Ok(None)
    }

    /// The process by its number for a system call, which takes those of this process's namespace.
    pub(super) fn process(&self, pid: u32) -> Option<Pid> {
        Pid::from_raw(i32::try_from(pid).ok()?).filter(|_| self.depth == 0)
    }

    /// The channels that a process has open. Fails where this process has no descriptor left to look with: the
    /// channels are not gone.
    pub(super) fn channels(&self, pid: u32) -> Result<Seen> {
        let mut seen = Seen::default();
        let directory = format!("/proc/{pid}");
        // The directory of the threads has a link for each of them. Most processes have one.
        if !rustix::fs::stat(format!("{directory}/task")).is_ok_and(|stat| stat.st_nlink > 3) {
            look(&directory, &mut seen)?;
            return Ok(seen);
        }
        // The first thread may have gone, and takes its view of the descriptors along; and each may have a table of its own.
        let threads = fs::read_dir(format!("{directory}/task")).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let threads = match threads {
            Ok(threads) => threads,
            Err(error) if is_gone(&error) => return Ok(seen),
            Err(source) => return Err(Error::System { call: "open", source }),
        };
        let mut tables: Vec<u32> = Vec::new();
        for thread in threads.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            // By the numbers of this process's namespace.
            if self.depth == 0 && tables.iter().any(|looked_at| is_table_shared(*looked_at, thread)) {
                continue;
            }
            tables.push(thread);
            let others = seen.channels.len();
            look(&format!("{directory}/task/{thread}"), &mut seen)?;
            seen.tables.push(seen.channels[others..].to_vec());
            if seen.in_part {
                break;
            }
        }
        seen.channels.sort_unstable();
        seen.channels.dedup();
        Ok(seen)
    }
}

/// Looks through the descriptors of one process or thread.
fn look(directory: &str, seen: &mut Seen) -> Result<()> {
    let entries = match fs::read_dir(format!("{directory}/fd")) {
        Ok(entries) => entries,
        Err(error) => return unless_gone(directory, error, seen),
    };
    for entry in entries {
        let number = match entry {
            Ok(entry) => entry.file_name().to_str().and_then(|name| name.parse().ok()),
            Err(error) => return unless_gone(directory, error, seen),
        };
        match number.map(|number| held(directory, number)) {
            Some(Ok(held)) => seen.channels.extend(held),
            // Nor may any other of the same process.
            Some(Err(_)) => {
                seen.in_part = true;
                return Ok(());
            }
            None => {}
        }
    }
    Ok(())
}

fn unless_gone(directory: &str, error: io::Error, seen: &mut Seen) -> Result<()> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            seen.unseen |= match Stat::of(directory) {
                Ok(stat) => stat.is_some_and(|stat| !stat.holds_nothing()),
                Err(error) if is_denied(&error) => true,
                Err(error) => return Err(error),
            };
            Ok(())
        }
        _ if is_gone(&error) => Ok(()),
        _ => Err(Error::System { call: "open", source: error }),
    }
}

/// A process that leaves takes its directory away, or answers that it does not exist any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// Under `hidepid=1` a process of another user shows its number and nothing more.
fn is_denied(error: &Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn held(directory: &str, number: RawFd) -> crate::sys::Result<Option<Held>> {
    let path = format!("{directory}/fd/{number}");
    // Through the link, to the channel itself; and the link, whose permissions say how it is open.
    let Some(channel) = Channel::behind(&path)? else { return Ok(None) };
    let Ok(link) = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(None) };
    let (reads, writes) = (link.st_mode & 0o400 != 0, link.st_mode & 0o200 != 0);
    // Neither: O_PATH, which keeps no stream open.
    Ok((reads || writes).then_some(Held { number, channel, reads, writes }))
}

/// Returns whether a process's descriptor is open without blocking. `false` where /proc does not say ([proc_pid_fdinfo(5)]).
///
/// [proc_pid_fdinfo(5)]: https://man7.org/linux/man-pages/man5/proc_pid_fdinfo.5.html
pub(super) fn is_nonblocking(pid: u32, number: RawFd) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlags::NONBLOCK.bits() != 0)
}

/// The numbers of a process, from that in /proc's pid namespace to that in its own. None where the kernel does not say.
fn numbers(pid: u32) -> Result<Vec<u32>> {
    let status = match fs::read(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => return Ok(Vec::new()),
        Err(source) => return Err(Error::System { call: "open", source }),
    };
    Ok(numbers_in(&status))
}

/// The numbers that a `status` has ([proc_pid_status(5)]). The line of the name, which the process chose, is before them, and the
/// kernel writes a line break in it as `\n`.
///
/// [proc_pid_status(5)]: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
pub(crate) fn numbers_in(status: &[u8]) -> Vec<u32> {
    let status = String::from_utf8_lossy(status);
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// The name of a process's pid namespace, if it may be seen.
fn namespace(pid: u32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Name and parent of a process, as long as it is there. One that may not be inspected has no parent.
pub(super) fn name_and_parent(pid: u32) -> Result<Option<(String, u32)>> {
    match Stat::of(&format!("/proc/{pid}")) {
        Ok(stat) => Ok(stat.map(|stat| (stat.name, stat.parent))),
        Err(error) if is_denied(&error) => Ok(Some(("?".to_owned(), 0))),
        Err(error) => Err(error),
    }
}

/// The used part of a process's `stat` ([proc_pid_stat(5)]).
///
/// [proc_pid_stat(5)]: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) parent: u32,
    state: char,
    flags: u64,
}

impl Stat {
    fn of(directory: &str) -> Result<Option<Self>> {
        match fs::read(format!("{directory}/stat")) {
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
        let state = fields.first()?.chars().next()?;
        Some(Self { name, state, parent: fields.get(1)?.parse().ok()?, flags: fields.get(6)?.parse().ok()? })
    }

    /// Returns whether it is a thread of the kernel, or has ended and is still to be waited for. Neither has descriptors,
    /// and not every user may look.
    fn holds_nothing(&self) -> bool {
        const PF_KTHREAD: u64 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0 || matches!(self.state, 'Z' | 'X')
    }
}

/// A name that is safe for a terminal, which obeys control characters, and turns around the text after some others.
pub(crate) fn printable(name: &str) -> String {
    name.chars().map(|c| if is_obeyed(c) { '?' } else { c }).collect()
}

/// Returns whether a character is a control, one of the separators of lines, or one that changes the direction of text (Unicode's
/// `Bidi_Control`).
pub(crate) fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let me = std::process::id();
        let shown = shown().unwrap();
        assert!(shown.me == me && shown.depth == 0 && shown.pids.contains(&me));
        let (reader, writer) = std::io::pipe().unwrap();
        let channel = Channel::of(&rustix::fs::fstat(&reader).unwrap()).unwrap();
        let Seen { channels, unseen: false, in_part: false, .. } = shown.channels(me).unwrap() else {
            panic!("it may look at itself")
        };
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
