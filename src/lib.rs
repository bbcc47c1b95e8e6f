//! Inter-process communication on Linux: pipes, message pairs, shared-memory rings, typed channels and safe fork.
//!
//! A [`pipe()`] is a stream of bytes in one direction. A [`datagram_pair()`] passes whole messages in both. [`fork()`] starts a
//! process and moves ends into it. The usual mistakes do not compile, or return an error with a name.
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
//!     Ok(()) // the last writer closes here
//! })?;
//!
//! let lines = BufReader::new(reader).lines().collect::<Result<Vec<_>, _>>()?; // until EOF
//! assert_eq!(lines.len(), 3);
//! assert!(child.wait()?.success());
//! # Ok::<(), ipc::Error>(())
//! ```
//!
//! # The guide
//!
//! [`guide`] is the manual, chapter by chapter: each has the trap first, then code that runs. Start with
//! [streams and messages](guide::streams_and_messages) and [four ends](guide::four_ends). Look into
//! [when it hangs](guide::when_it_hangs), [testing programs that fork](guide::testing), and
//! [coming from another language](guide::from_elsewhere) when you need them.
//!
//! # Four ends, two of them closed
//!
//! A pipe has four ends after a fork: a reader and a writer in each process. EOF comes when *every* writer is closed. A writer
//! that the parent forgets keeps the parent's own read waiting for ever. Here an end is open in the one process that it was given
//! to:
//!
#![doc = include_str!("../docs/four-ends.svg")]
//!
// An item of a feature links to a chapter of the guide if the feature is off.
#![cfg_attr(not(feature = "channel"), doc = "[`channel()`]: guide::channels")]
#![cfg_attr(not(feature = "channel"), doc = "[`duplex()`]: guide::channels")]
#![cfg_attr(not(feature = "channel"), doc = "[`TypedForkServer`]: guide::channels")]
#![cfg_attr(not(feature = "channel"), doc = "[`TcpOptions`]: guide::from_one_machine_to_many")]
#![cfg_attr(not(feature = "testing"), doc = "[`fork_in_test`]: guide::testing\n")]
//!
//! # Where to look
//!
//! | task | items |
//! |---|---|
//! | pass a stream of bytes one way | [`pipe()`]: [`PipeReader`] is `Read`, [`PipeWriter`] is `Write` |
//! | pass bytes both ways | [`stream_pair()`]: [`StreamSocket`] is both |
//! | write in small pieces, read lines | [`BufferedWriter`], [`BufReader`](std::io::BufReader) |
//! | pass records of several writers through one pipe | [`PipeWriter::write_atomic`] |
//! | pass a great many bytes one way, through shared memory | [`RingWriter`], [`RingReader`] |
//! | share bytes that do not change | [`Blob`] |
//! | copy all of one end or file to another | [`copy()`], [`copy_up_to()`] |
//! | move bytes of a pipe without copying them | [`PipeReader::splice_to`], [`PipeWriter::splice_from`], [`PipeReader::tee`] |
//! | pass whole messages both ways | [`datagram_pair()`]: [`DatagramSocket::send`], [`DatagramSocket::recv`] |
//! | pass very many small messages | [`PackedSocket`], both ways; [`MessageWriter`] and [`MessageReader`], one way, of any length |
//! | pass structs, with ends in them | [`channel()`], [`duplex()`], with the feature `channel` |
//! | pass structs to another machine | [`TcpOptions`], with the feature `channel` |
//! | pass an end to a running process | [`DatagramSocket::send_with`], [`DatagramSocket::recv_with`] |
//! | know the sender of a message | [`DatagramSocket::set_passcred`], [`Received::sender`] |
//! | start a process with exactly the ends that it is given | [`fork()`], or [`Fork`] with options |
//! | start workers from a program with threads | [`ForkServer`], started first thing in `main`; [`TypedForkServer`] with the feature `channel` |
//! | fork in a `#[test]` | [`fork_in_test`], with the feature `testing` |
//! | start another program, with ends | [`Command`]; the program takes them with [`claim()`] |
//! | feed a program and read its output, with a deadline | [`Command::communicate`] |
//! | wait for a child, or stop it | [`Child`], [`Child::shut_down`], [`Child::kill_on_drop`] |
//! | limit a wait | the `_timeout` calls, and [`Deadline`] for lines, `read_exact` and `write_all`; the `try_` calls do not block |
//! | wait for many ends and children at once | [`wait_any()`], [`wait_ready()`] |
//! | wait for signals beside ends and children | [`Signals`] |
//! | get answers sooner, for some processor time | [`set_spin`](PipeReader::set_spin) of every end |
//! | use tokio | the module `tokio`, with the feature of that name |
//! | check that nothing is left open | [`open_ends()`] |
//! | find out why EOF does not come | [`holders()`], or a [`ProcessMap`] of the whole tree of processes |
//!
//! # What holds everywhere
//!
//! - Every end is close-on-exec from its first moment. No program that is started meanwhile inherits one.
//! - Every end that a [`fork()`] does not give to the child is severed there. Using it returns [`Error::NotGiven`].
//! - Writing without a reader returns [`Error::Closed`] and raises no `SIGPIPE`; [`PipeWriter`] has the one exception.
//! - A signal ends no call early, makes no deadline longer, and is never an error.
//! - The error of a failed call gives back its arguments: ends ([`ForkError`], [`SendError`]), the command ([`SpawnError`]),
//!   the descriptor ([`FromFdError`]). It has the message ([`Error::BufferTooSmall`]), and bytes that were not written
//!   ([`CopyError`]).
//! - A read or a short write makes one system call when there is data or room, and allocates nothing.
//! - Sizes are bytes, times are [`Duration`](std::time::Duration)s. No call changes `O_NONBLOCK`.
//!
//! It needs Linux 5.10 or newer; [platforms](guide::platforms) lists what each kernel version adds.

#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("ipc is for Linux: it needs features that other kernels lack (see docs/platforms.md)");

mod blob;
#[cfg(feature = "channel")]
mod channel;
mod copy;
mod end;
mod error;
mod framed;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
mod inspect;
mod pipe;
mod process;
mod ring;
mod socket;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;
mod wait;

pub use blob::{Blob, BlobWriter};
#[cfg(feature = "testing")]
pub use channel::fork_in_test;
#[cfg(feature = "channel")]
pub use channel::{
    CallError, Duplex, DuplexPair, Fd, Incoming, IntoValues, Link, Locked, LockedGuard, Outbound, Outgoing, Receiver,
    Sender, TcpLink, TcpOptions, TcpReader, TcpWriter, TypedForkServer, Unsent, Values, assert_travels, channel,
    duplex,
};
pub use copy::{CopyError, copy, copy_up_to};
pub use end::{Ends, FlushError, FromFdError, Stdio, open_ends};
pub use error::{Error, Result};
pub use framed::{ByteReader, ByteWriter, MessageReader, MessageWriter, Messages, PackedSocket};
pub use inspect::{Finding, FindingKind, Holder, Holders, ProcessMap, Side, holders};
pub use pipe::{BufferedWriter, Fifo, PIPE_BUF, PipeFlags, PipeReader, PipeWriter, pipe, pipe_with};
pub use process::{
    Child, Command, CommunicateError, Fork, ForkError, ForkServer, Forked, KillOnDrop, Outcome, Signals, SpawnError,
    claim, claim_number, claimable, fork, fork_raw, fork_unchecked, give_at,
};
pub use ring::{RingError, RingReader, RingWriter};
pub use socket::{
    Credentials, DatagramFlags, DatagramPair, DatagramSocket, Received, SendError, StreamPair, StreamSocket,
    datagram_pair, datagram_pair_with, stream_pair,
};
#[cfg(feature = "channel")]
pub use wait::Until;
pub use wait::{Deadline, Ready, TimedRead, TimedWrite, Watch, wait_any, wait_ready};

/// The examples of the README, compiled and run.
#[cfg(all(doctest, feature = "channel"))] // which one of them needs
#[doc = include_str!("../README.md")]
mod readme {}
