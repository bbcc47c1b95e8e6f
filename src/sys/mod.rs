//! The kernel, as this crate needs it: the only home of `unsafe`, of libc, and of what stands in for a call that an
//! older kernel does not have. Names no public type; failures are bare errnos.

#![allow(unsafe_code)]

pub(crate) mod ancillary;
pub(crate) mod descriptor;
pub(crate) mod ledger;
pub(crate) mod memory;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod spawn;

pub(crate) use rustix::io::Errno;

/// The result of a system call.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The errno of a libc call that just returned −1.
fn errno() -> Errno {
    // `last_os_error` reads errno, and always has a raw code.
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Makes a call again for as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            done => return done,
        }
    }
}
