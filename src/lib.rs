//! Pipes and message pairs between the processes of one Linux machine, made so that the usual ways to hang, to leak an end,
//! or to lose half a message do not compile or are an error with a name.
//!
//! A program that runs as several processes (a master with workers, a supervisor, a test runner, a shell) talks over
//! [`pipe()`]s, streams of bytes in one direction, and [`datagram_pair()`]s, whole messages in both. [`fork()`] starts a
//! process and moves ends into it.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//!
//! let (reader, writer) = ipc::pipe()?;
//!
//! let child = ipc::fork(writer, |mut writer| -> std::io::Result<()> {
//!     for _ in 0..3 {
//!         writeln!(writer, "Another one bites the dust")?;
//!     }
//!     Ok(()) // the last writer closes here, and nowhere else
//! })?;
//!
//! let lines = BufReader::new(reader).lines().collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(lines.len(), 3);
//! assert!(child.wait()?.success());
//! # Ok::<(), ipc::Error>(())
//! ```
//!
//! # Four ends, two of them closed
//!
//! After a fork, a pipe has four ends: a reader and a writer in each process. A stream ends when *every* writer is closed,
//! so the one that the parent forgets keeps the parent's own read waiting for ever. Here an end is open in the process that
//! it was given to, and in no other:
//!
#![doc = include_str!("../docs/four-ends.svg")]
//!
//! # What to use
//!
//! | to | use |
//! |---|---|
//! | pass a stream of bytes one way | [`pipe()`]: [`PipeReader`] is `Read`, [`PipeWriter`] is `Write` |
//! | pass records of several writers through one pipe | [`PipeWriter::write_atomic`] |
//! | pass whole messages both ways | [`datagram_pair()`]: [`DatagramSocket::send`], [`DatagramSocket::recv`] |
//! | pass very many small messages | [`DatagramSocket::packed`], both ways; [`PipeWriter::messages`], one way, of any length |
//! | write and read in small pieces, or lines | [`PipeWriter::buffered`], [`PipeReader::buffered`] |
//! | pass bytes both ways | [`stream_pair()`]: [`StreamSocket`] is both |
//! | start a process that has just the ends that it is given | [`fork()`], or [`Fork`] with options |
//! | start another program, with ends | [`Command`]; the program takes them with [`claim()`] |
//! | pass an end to a process that is already running | [`DatagramSocket::send_with`], [`DatagramSocket::recv_with`] |
//! | copy all of one end or file to another | [`copy()`] |
//! | move bytes of a pipe without copying them | [`PipeReader::splice_to`], [`PipeWriter::splice_from`], [`PipeReader::tee`] |
//! | have an answer sooner than a process wakes up | `set_spin` of every end |
//! | know who sent a message | [`DatagramSocket::set_passcred`], [`Received::sender`] |
//! | wait no longer than that | the `_timeout` calls; the `try_` calls wait not at all |
//! | wait for many ends and children at once | [`wait_any()`] |
//! | wait for a child, or end it | [`Child`] |
//! | make sure that nothing is left open | [`open_ends()`] |
//! | find out why the end does not come | [`holders()`], or a [`ProcessMap`] of the whole process tree |
//!
//! # What holds everywhere
//!
//! - Every end is close-on-exec from its first moment: no program that is started meanwhile inherits one.
//! - Every end that a [`fork()`] does not give to the child is severed there; using it is [`Error::NotGiven`].
//! - Writing to a side that nobody reads is [`Error::Closed`], whatever the process does about `SIGPIPE` when
//!   the end is made.
//! - A signal ends no call early, makes no deadline longer, and is never an error.
//! - A call that fails gives back what it took: the ends ([`ForkError`], [`SendError`]), the command ([`SpawnError`]), the
//!   descriptor ([`FromFdError`]), the message ([`Error::BufferTooSmall`]), the bytes that went no further ([`CopyError`]).
//! - Reading and writing is one system call when there is something to do, and allocates nothing.
//! - Sizes are bytes, times are [`Duration`](std::time::Duration)s. No call changes `O_NONBLOCK`.
//!
//! The guide, in `docs/guide.md` of the package, goes through all of it with examples; `docs/travelling.md` shows how ends
//! reach other processes, and `docs/when-it-hangs.md` what to do when one does not come. `docs/platforms.md` says what each
//! kernel version adds. The floor is Linux 5.10.

#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("ipc is for Linux: it stands on what the Linux kernel does (see docs/platforms.md)");

mod copy;
mod end;
mod error;
mod frame;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod inspect;
mod pipe;
mod process;
mod socket;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;
mod wait;

pub use copy::{CopyError, copy, copy_up_to};
pub use end::{Ends, FromFdError, Stdio, open_ends};
pub use error::{Error, FlushError, Result};
pub use inspect::{Finding, FindingKind, Holder, Holders, ProcessMap, Side, holders};
pub use pipe::{
    BufferedWriter, MessageReader, MessageWriter, PIPE_BUF, PipeFlags, PipeReader, PipeWriter, pipe, pipe_with,
};
pub use process::{
    Child, Command, Fork, ForkError, Forked, Outcome, SpawnError, claim, claimable, fork, fork_raw, fork_unchecked,
};
pub use socket::{
    Credentials, DatagramFlags, DatagramPair, DatagramSocket, PackedSocket, Received, SendError, StreamPair,
    StreamSocket, datagram_pair, datagram_pair_with, stream_pair,
};
pub use wait::{Deadline, Ready, TimedRead, TimedWrite, Watch, wait_any, wait_ready};

/// The examples of the guide and the README, compiled and run.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../docs/guide.md")]
    mod guide {}
    #[doc = include_str!("../docs/when-it-hangs.md")]
    mod when_it_hangs {}
    #[doc = include_str!("../docs/travelling.md")]
    mod travelling {}
    #[doc = include_str!("../README.md")]
    mod readme {}
}
