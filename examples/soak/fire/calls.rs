//! The calls that make descriptors, and how many each needs.

use std::time::Duration;

use ipc::{
    Child, Command, DatagramFlags, Error, Fork, Forked, PipeReader, PipeWriter, ProcessMap, datagram_pair,
    datagram_pair_with, fork, fork_raw, fork_unchecked, holders, pipe, stream_pair,
};

/// Makes the call, the first time or again.
pub type Attempt = Box<dyn FnMut() -> ipc::Result<()>>;

/// How long a child may take to leave at once.
const LIMIT: Duration = Duration::from_secs(20);

/// A call that makes descriptors.
pub struct Call {
    pub name: &'static str,
    /// With that many free places in the table it works, and with fewer not.
    pub places: usize,
    /// Makes it ready. The attempt that it returns can be called again where it failed.
    pub prepare: fn() -> Attempt,
}

/// A call that takes something, which comes back when it fails.
fn giving<E: 'static, T>(
    ends: E,
    mut call: impl FnMut(E) -> Result<T, (E, Error)> + 'static,
    check: impl Fn(T) + 'static,
) -> Attempt {
    let mut ends = Some(ends);
    Box::new(move || match call(ends.take().expect("they came back")) {
        Ok(done) => {
            check(done);
            Ok(())
        }
        Err((back, error)) => {
            ends = Some(back);
            Err(error)
        }
    })
}

fn simple<T>(mut call: impl FnMut() -> ipc::Result<T> + 'static) -> Attempt {
    Box::new(move || call().map(drop))
}

fn leaves(child: Child) {
    let status = child.wait_timeout(LIMIT).unwrap().expect("it leaves");
    assert!(status.success(), "{status}");
}

/// A pipe's writer that the kernel lets write without waiting only in another way, and its reader.
fn spliced() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let (from, to) = pipe().unwrap();
    to.write_atomic(b"x").unwrap();
    assert_eq!(writer.splice_from(&from, 1).unwrap(), 1);
    assert_eq!(reader.try_read(&mut [0]).unwrap(), 1);
    (reader, writer)
}

/// The first start of a process takes two places more: it finds out whether the new process shares its memory.
fn started_once() {
    Command::new("true").status().unwrap();
}

fn spawning(command: Command) -> Attempt {
    started_once();
    giving(command, |command| command.spawn().map_err(|refused| (refused.command, refused.error)), leaves)
}

pub const CALLS: &[Call] = &[
    Call { name: "pipe", places: 2, prepare: || simple(pipe) },
    Call { name: "datagram_pair", places: 2, prepare: || simple(datagram_pair) },
    Call {
        name: "datagram_pair_with",
        places: 2,
        prepare: || simple(|| datagram_pair_with(DatagramFlags::CONNECTIONLESS)),
    },
    Call { name: "stream_pair", places: 2, prepare: || simple(stream_pair) },
    Call {
        name: "PipeReader::try_clone",
        places: 1,
        prepare: || {
            let (reader, _) = pipe().unwrap();
            simple(move || reader.try_clone())
        },
    },
    Call {
        name: "PipeWriter::try_clone",
        places: 1,
        prepare: || {
            let (_, writer) = pipe().unwrap();
            simple(move || writer.try_clone())
        },
    },
    Call {
        name: "DatagramSocket::try_clone",
        places: 1,
        prepare: || {
            let pair = datagram_pair().unwrap();
            simple(move || pair.parent.try_clone())
        },
    },
    Call {
        name: "StreamSocket::try_clone",
        places: 1,
        prepare: || {
            let pair = stream_pair().unwrap();
            simple(move || pair.parent.try_clone())
        },
    },
    Call {
        name: "try_write on a pipe that was spliced",
        places: 2,
        prepare: || {
            let (reader, writer) = spliced();
            simple(move || {
                let result = writer.try_write(b"x");
                assert_eq!(reader.available().unwrap(), usize::from(result.is_ok()));
                result
            })
        },
    },
    Call {
        name: "write_timeout on a pipe that was spliced",
        places: 2,
        prepare: || {
            let (reader, writer) = spliced();
            simple(move || {
                let result = writer.write_timeout(b"x", Duration::from_secs(1));
                assert_eq!(reader.available().unwrap(), usize::from(result.is_ok()));
                result
            })
        },
    },
    Call {
        name: "fork",
        places: 1,
        prepare: || {
            let end = pipe().unwrap().1;
            giving(end, |end| fork(end, drop).map_err(|refused| (refused.ends, refused.error)), leaves)
        },
    },
    Call {
        name: "Fork::spawn",
        places: 1,
        prepare: || {
            let start = |end| Fork::new().keep_all_ends().die_with_parent().spawn(end, drop);
            giving(pipe().unwrap().1, move |end| start(end).map_err(|refused| (refused.ends, refused.error)), leaves)
        },
    },
    Call {
        name: "fork_unchecked",
        places: 4,
        prepare: || {
            // SAFETY: this process has one thread.
            let start = |end| unsafe { fork_unchecked(end, drop) };
            giving(pipe().unwrap().1, move |end| start(end).map_err(|refused| (refused.ends, refused.error)), leaves)
        },
    },
    Call {
        name: "fork_raw",
        places: 1,
        prepare: || {
            // SAFETY: this process has one thread, and the child leaves at once.
            giving(
                (),
                |()| unsafe { fork_raw() }.map_err(|error| ((), error)),
                |forked| match forked {
                    Forked::Parent(child) => leaves(child),
                    // SAFETY: no conditions.
                    Forked::Child => unsafe { libc::_exit(0) },
                },
            )
        },
    },
    Call { name: "spawn", places: 1, prepare: || spawning(Command::new("true")) },
    Call {
        name: "spawn with a name",
        places: 1,
        prepare: || spawning(Command::new("true").give("end", pipe().unwrap().0)),
    },
    Call {
        name: "spawn with a number",
        places: 1,
        prepare: || spawning(Command::new("true").give_at(0, pipe().unwrap().0)),
    },
    Call {
        name: "spawn with a path",
        places: 1,
        prepare: || spawning(Command::new("true").give_path(pipe().unwrap().0)),
    },
    Call {
        name: "spawn with a standard output",
        places: 1,
        prepare: || spawning(Command::new("true").stdout(pipe().unwrap().1)),
    },
    Call {
        name: "spawn with nothing to read",
        places: 2,
        prepare: || spawning(Command::new("true").stdin(ipc::Stdio::null())),
    },
    Call {
        name: "status",
        places: 1,
        prepare: || {
            started_once();
            simple(|| Command::new("true").status())
        },
    },
    // Two pipes, and copies of three ends for the program.
    Call {
        name: "output",
        places: 6,
        prepare: || {
            started_once();
            simple(|| Command::new("true").output())
        },
    },
    Call {
        name: "holders of a pipe",
        places: 2,
        prepare: || {
            let ends = pipe().unwrap();
            simple(move || holders(&ends.0))
        },
    },
    Call {
        name: "holders of a socket",
        places: 2,
        prepare: || {
            let pair = datagram_pair().unwrap();
            simple(move || {
                let found = holders(&pair.parent)?;
                assert!(!found.peer_unknown);
                Ok(found)
            })
        },
    },
    Call { name: "ProcessMap::current", places: 2, prepare: || simple(ProcessMap::current) },
];
