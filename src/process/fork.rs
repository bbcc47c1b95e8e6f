//! Forking: each end is open in exactly the process that it was given to.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::child::Child;
use super::fork_error::ForkError;
use super::fork_options::Fork;
use super::outcome::Outcome;
use crate::end::{self, Ends};
use crate::error::{Error, Result};
use crate::sys::descriptor::{Inert, table_limit};
use crate::sys::fork::{Gate, Permit, Side};
use crate::sys::signal::{self, Mask};
use crate::sys::{self, Errno, ledger};

/// Runs `child` in a new process, with the ends that it was given and with no other end of this crate. Does not wait for it.
///
/// After a plain fork both processes hold both ends of a pipe. Forget to close one of the four, and the reader waits for a writer
/// that it holds itself. Here an end goes to one process:
///
/// - **The given ends** are moved into the child. In this process they are closed when `fork` returns.
/// - **Every other end** of this crate that this process holds is *severed* in the child, before `child` runs. The child's copy
///   is closed. A value that reached the child in a capture or a stack frame answers [`Error::NotGiven`] to every call. This
///   process keeps its own.
///
/// **The child never returns** into the caller's frames. The value of `child` becomes its status ([`Outcome`]): `()` is 0, a `u8`
/// is that status, an `Err` is printed as `Error: …` and becomes 1. A panic is printed and becomes 101, or `SIGABRT` with
/// `panic = "abort"` and for a fork in a panic hook. The child flushes Rust's stdout and leaves with `_exit`: no destructors of
/// the frames above run, and no `atexit` handlers.
///
/// **Values are dropped in both processes**: the given ones, here when `fork` returns, and those that `child` captured.
/// Dropped ends are closed. A temporary directory is removed twice: borrow such a value, or give its ends alone.
///
/// The severing takes some µs, in which `fork` may have returned here. The child holds its copies until then: EOF, and the error
/// of a write without a reader, come that much later. Signals are held back meanwhile, so that no handler in the child meets an
/// end of its parent's. Rust's stdout is flushed before the fork, so that nothing is printed twice.
///
/// Everything else stays open in the child, as always: files, std's sockets, and the descriptors of [`Child`]ren, which it can
/// watch with [`wait_any`](crate::wait_any) and signal. So do descriptors that an end was turned into, copies made with
/// [`BorrowedFd::try_clone_to_owned`](std::os::fd::BorrowedFd::try_clone_to_owned), and ends of another version of this crate.
///
/// A child that needs no end gets `()`: `fork((), |()| …)`. A closure that uses `?` names its result, as the compiler cannot
/// guess the error: `|writer| -> ipc::Result<()> { … }`.
///
/// To lend an end, give `&end`. A caller that returns `Box<dyn Error>` or an `anyhow::Result` then writes
/// `fork(&end, …).map_err(ipc::Error::from)?`: see [`ForkError`].
///
/// In the guide: [four ends](crate::guide::four_ends), [threads and fork](crate::guide::threads_and_fork),
/// [children](crate::guide::children), [tests that fork](crate::guide::testing).
///
/// # Errors
///
/// The error gives the ends back, and `?` turns it into [`Error`]. Nothing was started:
///
/// - [`Error::MultiThreaded`]: this process has a second thread. In the child, locks that another thread held would be held
///   for ever, malloc's among them. Fork before starting threads.
/// - [`Error::SigchldIgnored`]: the child could not be waited for.
/// - [`Error::NotGiven`]: one of the ends was not given to this process itself.
/// - [`Error::System`]: the process limit (`fork`, `EAGAIN`), or no memory. There is no place for two descriptors that the
///   fork needs (`EMFILE`). An end's number is over a limit that was lowered since (`dup3`, `EMFILE`). Stdout cannot be
///   flushed (`write`). A sandbox may refuse a call that the promises need: `pidfd_open` or `waitid` (the child could not be
///   held), `dup3` or `open` (its ends could not be severed), `unshare` (its threads are not known).
///
/// # Platform
///
/// [fork(2)], [dup3(2)], [open_tree(2)] (Linux 5.2; a descriptor of `/dev/null` where it is refused), [pidfd_open(2)].
/// [unshare(2)] with `CLONE_THREAD`, which changes nothing, tells whether there is a second thread, or else `/proc/self/task`.
/// A thread that was joined gets up to 100 ms to be gone.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut reader, writer) = ipc::pipe()?;
/// let child = ipc::fork(writer, |mut writer| writer.write_all(b"hello from the child"))?;
///
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?; // ends: this process has no writer any more
/// assert_eq!(text, "hello from the child");
/// assert!(child.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [dup3(2)]: https://man7.org/linux/man-pages/man2/dup3.2.html
/// [fork(2)]: https://man7.org/linux/man-pages/man2/fork.2.html
/// [open_tree(2)]: https://man7.org/linux/man-pages/man2/open_tree.2.html
/// [pidfd_open(2)]: https://man7.org/linux/man-pages/man2/pidfd_open.2.html
/// [unshare(2)]: https://man7.org/linux/man-pages/man2/unshare.2.html
pub fn fork<E: Ends, R: Outcome>(ends: E, child: impl FnOnce(E) -> R) -> Result<Child, ForkError<E>> {
    Fork::new().spawn(ends, child)
}

/// Forks as [`fork`] does, in a process that may have more than one thread. Does not wait for the child.
///
/// # Safety
///
/// If there is another thread, `child` may only make async-signal-safe calls ([signal-safety(7)]) until it leaves or starts a
/// program. Reading and writing ends is safe; allocating, printing and returning an `Err` are not. Locks that another thread
/// held stay locked in the child, such as that of Rust's stderr, which a panic takes. Stdout's is free: this call takes it
/// before it forks, and so blocks while another thread holds it.
///
/// The child does nothing before this process holds it, so no other thread can wait for it earlier.
///
/// The severing may miss an end that another thread makes, receives, closes or turns into a plain descriptor at this moment. The
/// child then keeps a copy of it, and EOF does not come before the child leaves.
///
/// # Errors
///
/// As [`fork`], but [`Error::MultiThreaded`]. Where another thread takes the last descriptor while the child is being
/// started, the child leaves before it runs `child`. The error is then `EMFILE` of `pidfd_open`.
///
/// # Examples
///
/// ```
/// let (reader, writer) = ipc::pipe()?;
/// // SAFETY: the child makes one system call and leaves.
/// let child = unsafe { ipc::fork_unchecked(writer, |writer| u8::from(writer.write_atomic(b"!").is_err())) }?;
/// assert!(child.wait()?.success());
/// assert_eq!(reader.available()?, 1);
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// [signal-safety(7)]: https://man7.org/linux/man-pages/man7/signal-safety.7.html
#[allow(unsafe_code)] // unsafe by its nature
pub unsafe fn fork_unchecked<E: Ends, R: Outcome>(ends: E, child: impl FnOnce(E) -> R) -> Result<Child, ForkError<E>> {
    // SAFETY: the caller's promise.
    let permit = || Ok(unsafe { Permit::promised() });
    Fork::new().run_with(&permit, ends, child)
}

/// The two sides of a [`fork_raw`], which has an example.
#[derive(Debug)]
pub enum Forked {
    /// The one that forked, with its new child.
    Parent(Child),
    /// The new one.
    Child,
}

/// Forks and returns in both processes, which both hold all ends: close them by hand, with `close`. Does not wait for the child.
///
/// A forgotten writer keeps EOF from coming. [`fork`] does not have that trap.
///
/// # Safety
///
/// Everything on the stack exists twice afterwards, and guards run in both processes. A temporary directory is removed twice,
/// and a buffered writer writes its rest twice. The child must be ready for that, or leave with [`std::process::exit`], `abort`,
/// or by starting a program.
///
/// # Errors
///
/// As [`fork`]; a process with a second thread is refused here too.
///
/// # Examples
///
/// ```
/// use ipc::Forked;
/// use std::io::{Read, Write};
///
/// let (mut reader, mut writer) = ipc::pipe()?;
/// // SAFETY: the child leaves with exit, and nothing here has a guard.
/// match unsafe { ipc::fork_raw() }? {
///     Forked::Child => {
///         reader.close()?;
///         writer.write_all(b"by hand")?;
///         std::process::exit(0);
///     }
///     Forked::Parent(child) => {
///         writer.close()?; // forgotten, the next read would wait for ever
///         let mut text = String::new();
///         reader.read_to_string(&mut text)?;
///         assert_eq!(text, "by hand");
///         child.wait()?;
///     }
/// }
/// # Ok::<(), ipc::Error>(())
/// ```
#[allow(unsafe_code)] // unsafe by its nature
pub unsafe fn fork_raw() -> Result<Forked> {
    Fork::new().keep_all_ends().split(&alone, &())
}

impl Fork {
    pub(super) fn run_with<E: Ends, R: Outcome>(
        self,
        permit: &dyn Fn() -> Result<Permit>,
        ends: E,
        child: impl FnOnce(E) -> R,
    ) -> Result<Child, ForkError<E>> {
        match self.split(permit, &ends) {
            Ok(Forked::Parent(child)) => Ok(child),
            Ok(Forked::Child) => leave(|| child(ends).status()),
            Err(error) => Err(ForkError { ends, error }),
        }
    }

    /// The fork itself. Calls that can fail come before it. Signals are held back before the last look at the threads, so that no
    /// code of the caller's runs in between.
    fn split(self, permit: &dyn Fn() -> Result<Permit>, given: &dyn Ends) -> Result<Forked> {
        // First, as its advice is the better one: the permit is refused too, since a runtime has threads.
        check_outside_runtime()?;
        // Before a lock that another thread could hold.
        permit()?;
        if signal::loses_children() {
            return Err(Error::SigchldIgnored);
        }
        Child::check()?;
        let mut parent = None;
        if self.die_with_parent {
            sys::process::check_die_with().map_err(|errno| Error::system("prctl", errno))?;
            parent = Some(sys::process::Parent::new().map_err(|errno| Error::system("pidfd_open", errno))?);
        }
        let given = end::descriptors(given)?;
        let mut given: Vec<_> = given.iter().map(AsRawFd::as_raw_fd).collect();
        given.sort_unstable();
        let limit = table_limit();
        if !self.keep_all_ends && ledger::others(&given).any(|number| number as u64 >= limit) {
            return Err(Error::system("dup3", Errno::MFILE));
        }
        // Also in the parent's table until it is replaced there by the child's pidfd.
        let inert = Inert::new().map_err(|errno| Error::system("open", errno))?;
        inert.check().map_err(|errno| Error::system("dup3", errno))?;
        // Held over the fork, so that nothing is printed twice, and the child can print. Not stderr's too: a thread that holds
        // stderr's and prints would wait for stdout's.
        let mut stdout = io::stdout().lock();
        stdout.flush().map_err(|source| Error::System { call: "write", source })?;
        let mut mask = Mask::block_all();
        let ready = check_outside_runtime().and_then(|()| permit()).and_then(|permit| {
            let gate = permit.gate().map_err(|errno| Error::system("socketpair", errno))?;
            Ok((permit, gate))
        });
        let side = ready.and_then(|(permit, gate)| match permit.fork() {
            Ok(side) => Ok((side, gate)),
            Err(errno) => Err(Error::system("fork", errno)),
        });
        match side {
            Ok((Side::Child, gate)) => {
                if !gate.is_none_or(Gate::wait) {
                    // Its parent could not hold it.
                    sys::process::exit(101);
                }
                if !self.keep_all_ends && ledger::sever_others(&given, inert.fd.as_fd()).is_err() {
                    sys::process::give_up("fork: an end could not be severed\n");
                }
                if parent.as_ref().is_some_and(|parent| parent.die_with().is_err()) {
                    sys::process::give_up("fork: die_with_parent was refused\n");
                }
                drop((inert, parent, stdout));
                if !self.keeps_held() {
                    // The parent reads them.
                    sys::signalfd::forget(&mut mask);
                }
                if self.reset_signals {
                    signal::reset_all();
                    Mask::set_empty();
                } else {
                    mask.restore();
                }
                Ok(Forked::Child)
            }
            Ok((Side::Parent(pid), gate)) => {
                drop((inert, parent, stdout));
                let child = Child::hold(pid, gate);
                mask.restore();
                child.map(Forked::Parent)
            }
            Err(error) => {
                mask.restore();
                Err(error)
            }
        }
    }
}

fn check_outside_runtime() -> Result<()> {
    #[cfg(feature = "tokio")]
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(Error::InsideRuntime);
    }
    Ok(())
}

pub(super) fn alone() -> Result<Permit> {
    match Permit::alone() {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(threads)) => Err(Error::MultiThreaded { threads }),
        Err(errno) => Err(Error::system("unshare", errno)),
    }
}

/// The child's way out, and the only one.
pub(super) fn leave(child: impl FnOnce() -> u8) -> ! {
    let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or_else(|panic| {
        // The hook has printed it. Dropping it could run any code.
        std::mem::forget(panic);
        101
    });
    let status = match io::stdout().flush() {
        Err(error) if status == 0 => Err::<(), _>(error).status(),
        _ => status,
    };
    sys::process::exit(status)
}
