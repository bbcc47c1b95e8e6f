//! The values that a forked child can return.

use std::fmt;

use crate::sys;

/// The values that a child can return, and the exit status of each. See [`Child::wait`](crate::Child::wait) for an example.
///
/// | returned | status |
/// |---|---|
/// | `()` | 0 |
/// | a `u8` | that number |
/// | `Ok` of one of these | as that one |
/// | `Err` of anything that is `Debug` | 1, and `Error: …` on stderr |
/// | nothing, as after `loop {}` (`!`) | – |
#[diagnostic::on_unimplemented(
    message = "a child cannot return `{Self}`",
    note = "it returns `()`, a status as `u8`, or a `Result` of one of these; `Ok::<_, ipc::Error>(())` names the error",
    note = "std's `ExitCode` cannot be read back in stable Rust: return the status as `u8`"
)]
#[doc(alias = "ExitCode")]
pub trait Outcome {
    /// Returns the exit status; prints an error. The [guide](crate::guide::children) has an example.
    fn status(self) -> u8;
}

impl Outcome for () {
    fn status(self) -> u8 {
        0
    }
}

impl Outcome for u8 {
    fn status(self) -> u8 {
        self
    }
}

impl<T: Outcome, E: fmt::Debug> Outcome for Result<T, E> {
    fn status(self) -> u8 {
        match self {
            Ok(outcome) => outcome.status(),
            Err(error) => {
                // In one piece, and without a lock, which a thread of the parent may have held. Where stderr is closed, the
                // status alone tells.
                let _ = sys::process::print(&format!("Error: {error:?}\n"));
                1
            }
        }
    }
}

/// `!` cannot be written here in stable Rust, but it is what such a function returns.
mod never {
    pub trait Returns {
        type Output;
    }
}
use never::Returns;

impl<R> Returns for fn() -> R {
    type Output = R;
}

impl Outcome for <fn() -> ! as Returns>::Output {
    fn status(self) -> u8 {
        self
    }
}
