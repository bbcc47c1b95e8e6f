//! The options of a fork.

use super::child::Child;
use super::fork::alone;
use super::fork_error::ForkError;
use super::outcome::Outcome;
use super::server::ForkServer;
use crate::end::Ends;
use crate::error::Result;
use crate::socket::Received;

/// A fork with options.
///
/// # Examples
///
/// ```
/// let (reader, writer) = ipc::pipe()?;
/// let options = ipc::Fork::new().die_with_parent().reset_signals().keep_all_ends();
/// let child = options.spawn((), |()| writer.write_atomic(b"kept"))?; // it is not given
/// drop(writer);
/// assert!(child.wait()?.success());
/// assert_eq!(std::io::read_to_string(reader)?, "kept");
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "nothing is started before `spawn`"]
pub struct Fork {
    pub(super) die_with_parent: bool,
    pub(super) reset_signals: bool,
    pub(super) keep_all_ends: bool,
    pub(super) hold_signals: bool,
}

impl Fork {
    /// Makes a fork without options, as [`fork`](crate::fork()) does. See [`Fork`] for an example.
    pub fn new() -> Self {
        Self::default()
    }

    /// Kills the child with `SIGKILL` when the thread that forks it ends, however it ends.
    ///
    /// It reaches neither the child's own children, nor a child that starts a program that changes its user ([prctl(2)],
    /// `PR_SET_PDEATHSIG`). Where a sandbox refuses it, the fork is refused ([`Error::System`](crate::Error::System) of `prctl`).
    /// See [`Fork`] for an example.
    ///
    /// [prctl(2)]: https://man7.org/linux/man-pages/man2/prctl.2.html
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn die_with_parent(mut self) -> Self {
        self.die_with_parent = true;
        self
    }

    /// Starts the child with every signal at its default and none blocked, as a shell starts a program.
    ///
    /// A write without a reader stays an error, although `SIGPIPE` is at its default then. See [`Fork`] for an example.
    pub fn reset_signals(mut self) -> Self {
        self.reset_signals = true;
        self
    }

    /// Leaves the signals blocked in the child that this thread's [`Signals`](crate::Signals) read. Without a `Signals`, it changes
    /// nothing.
    ///
    /// Otherwise the child has the mask as it was before them, and a Ctrl-C, which every process of a terminal gets, ends it. With
    /// this, it goes on until its parent tells it to leave, as by EOF. Children and programs that it starts have the mask as it
    /// was before the `Signals`. [`reset_signals`](Self::reset_signals) takes precedence: it blocks none.
    ///
    /// # Examples
    ///
    /// ```
    /// use ipc::{Fork, Signals};
    ///
    /// let signals = Signals::new(&[2])?; // SIGINT
    /// let (jobs, to_worker) = ipc::pipe()?;
    /// let worker = Fork::new().hold_signals().spawn(jobs, |mut jobs| std::io::copy(&mut jobs, &mut std::io::sink()).map(drop))?;
    /// worker.signal(2)?; // as a Ctrl-C would
    /// drop(to_worker); // EOF: now it leaves
    /// assert!(worker.wait()?.success());
    /// # drop(signals);
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn hold_signals(mut self) -> Self {
        self.hold_signals = true;
        self
    }

    /// Returns whether the child keeps the signals blocked that are held back for readers.
    pub(super) fn keeps_held(&self) -> bool {
        self.hold_signals && !self.reset_signals
    }

    /// Severs no end: the child holds every end that this process holds. See [`Fork`] for an example.
    pub fn keep_all_ends(mut self) -> Self {
        self.keep_all_ends = true;
        self
    }

    /// Forks as [`fork`](crate::fork()) does, with these options, as in the example of [`Fork`]. Does not wait for the child.
    ///
    /// # Errors
    ///
    /// As [`fork`](crate::fork()).
    pub fn spawn<E: Ends, R: Outcome>(self, ends: E, child: impl FnOnce(E) -> R) -> Result<Child, ForkError<E>> {
        self.run_with(&alone, ends, child)
    }

    /// Starts a [`ForkServer`] whose workers have these options.
    ///
    /// [`die_with_parent`](Self::die_with_parent) kills them when the thread that started the server ends, as a rule the main
    /// one.
    ///
    /// # Errors
    ///
    /// As [`ForkServer::start`]; and [`Error::InvalidInput`](crate::Error::InvalidInput) with [`keep_all_ends`](Self::keep_all_ends).
    ///
    /// # Examples
    ///
    /// ```
    /// let server = ipc::Fork::new().die_with_parent().serve(|_message, _ends| loop {
    ///     std::thread::park();
    /// })?;
    /// let child = server.fork(b"", ())?;
    /// child.kill()?;
    /// assert!(!child.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn serve<F, R>(self, entry: F) -> Result<ForkServer>
    where
        F: Fn(Vec<u8>, Received) -> R + 'static,
        R: Outcome,
    {
        ForkServer::with(self, entry)
    }
}
