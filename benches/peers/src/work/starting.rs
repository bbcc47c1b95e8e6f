//! Starting a program that does nothing, and waiting for it, from a small process and from one with much memory.

use std::ffi::CStr;
use std::io;
use std::ptr::null;
use std::rc::Rc;

use crate::machine::Core;
use crate::peer::Peer;
use crate::rivals::bare::check;
use crate::turns::{Entry, Turns, USUAL};

use super::calls::timed;
use super::forking::{Told, reap};

pub const WORK: &str = "starting a program";
pub const SMALL: &str = "from a small process";
pub const LARGE: &str = "from a process with 1 GiB";

/// With the same path for all, so that nobody has to look for it.
const PROGRAM: &CStr = c"/bin/true";

/// A name, and how to start it and wait for it.
type Starter = (&'static str, fn() -> io::Result<()>);

const STARTERS: [Starter; 4] = [
    ("bare posix_spawn", posix_spawn),
    ("bare fork + exec", fork_and_exec),
    ("std::process::Command", std_command),
    ("ipc::Command", ipc_command),
];

pub fn run(turns: &mut Turns) -> io::Result<()> {
    turns.take(WORK, SMALL, 0, USUAL, contenders(0)?)?;
    // That much takes a second to fill, and is for figures, not for a look.
    let memory = if turns.is_quick() { 64 << 20 } else { 1 << 30 };
    turns.take(WORK, LARGE, 0, USUAL, contenders(memory)?)
}

/// All of them start from one process.
fn contenders(memory: usize) -> io::Result<Vec<Entry>> {
    let mut resident = Vec::new();
    let peer = Peer::start(Core::Any, move |order| {
        fill(&mut resident, memory)?;
        let (what, count) = (order >> 32, order & u64::from(u32::MAX));
        Ok(timed(count, STARTERS[what as usize].1)?.as_nanos() as u64)
    })?;
    peer.order(0)?;
    peer.answer()?; // it has its memory
    let peer = Rc::new(peer);
    let entry = |(what, (name, _)): (u64, _)| {
        let peer = Rc::clone(&peer);
        Entry::new(name, move || Ok(Told { peer, what: what << 32 }))
    };
    Ok((0..).zip(STARTERS).map(entry).collect())
}

/// Makes that much memory resident, in small pages, as a process comes to have it over time.
pub fn fill(memory: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
    if memory.len() == bytes {
        return Ok(());
    }
    memory.reserve_exact(bytes);
    let first_page = memory.as_ptr().align_offset(4096);
    // SAFETY: within what was reserved; it changes how the memory is backed, and not what is in it.
    check(unsafe { libc::madvise(memory.as_mut_ptr().add(first_page).cast(), bytes - 4096, libc::MADV_NOHUGEPAGE) })?;
    memory.resize(bytes, 1);
    Ok(())
}

fn posix_spawn() -> io::Result<()> {
    let (mut pid, arguments) = (0, [PROGRAM.as_ptr().cast_mut(), std::ptr::null_mut()]);
    // SAFETY: null-terminated strings and lists of them, which outlive the call.
    let error =
        unsafe { libc::posix_spawn(&mut pid, PROGRAM.as_ptr(), null(), null(), arguments.as_ptr(), environ.cast()) };
    if error == 0 { reap(pid) } else { Err(io::Error::from_raw_os_error(error)) }
}

fn fork_and_exec() -> io::Result<()> {
    let arguments = [PROGRAM.as_ptr(), null()];
    // SAFETY: one thread, and the child only execs or leaves.
    match check(unsafe { libc::fork() })? {
        // SAFETY: null-terminated strings and a list of them.
        0 => unsafe {
            libc::execv(PROGRAM.as_ptr(), arguments.as_ptr());
            libc::_exit(127);
        },
        pid => reap(pid),
    }
}

fn std_command() -> io::Result<()> {
    let status = std::process::Command::new("/bin/true").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

fn ipc_command() -> io::Result<()> {
    let status = ipc::Command::new("/bin/true").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

unsafe extern "C" {
    /// This process's environment, for what it starts.
    static environ: *const *const libc::c_char;
}
