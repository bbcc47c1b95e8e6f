//! The first bytes of a connection, both ways. `docs/channel.md` has them.

use std::time::Instant;

use super::half::Half;
use crate::error::{Error, Result};
use crate::framed::Outlet;
use crate::wait::{Patience, TimedRead, Until};

/// The magic: no text begins with it, and a transfer as text would change it.
const MAGIC: [u8; 8] = *b"\xffipc\r\n\x1a\0";

const VERSION: u32 = 1;

/// The length of a hello, in bytes.
pub(super) const LEN: usize = 32;

/// The hello of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// The longest message that it receives.
    pub(super) longest: u64,
    /// The stamp of its values. 0: none.
    pub(super) stamp: u64,
}

impl Hello {
    pub(super) fn bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.longest.to_le_bytes());
        bytes[24..].copy_from_slice(&self.stamp.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8; LEN]) -> Result<Self> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        // The version and, above it, bytes that are kept for later ones.
        if bytes[..8] != MAGIC || word(8) != u64::from(VERSION) {
            return Err(Error::Malformed { message: bytes.to_vec() });
        }
        Ok(Self { longest: word(16), stamp: word(24) })
    }

    /// Sends this one and receives the peer's, until the deadline.
    pub(super) fn exchange(self, incoming: &mut Half, outgoing: &mut Half, deadline: Instant) -> Result<Self> {
        let until = Until(Patience::Until(deadline));
        let ours = self.bytes();
        let mut sent = 0;
        while sent < LEN {
            sent += outgoing.put(&ours[sent..], until)?;
        }
        let mut theirs = [0; LEN];
        let mut here = 0;
        while here < LEN {
            match incoming.read_until(&mut theirs[here..], until)? {
                0 => {
                    let message = theirs[..here].to_vec();
                    return Err(Error::Truncated { message, expected: Some(LEN as u64) });
                }
                count => here += count,
            }
            // A peer of another kind may wait for an answer to the bytes that it sent.
            let begun = here.min(MAGIC.len());
            if theirs[..begun] != MAGIC[..begun] {
                return Err(Error::Malformed { message: theirs[..here].to_vec() });
            }
        }
        let theirs = Self::parse(&theirs)?;
        match (self.stamp, theirs.stamp) {
            (0, _) | (_, 0) => Ok(theirs),
            (ours, stamp) if ours == stamp => Ok(theirs),
            _ => Err(Error::WrongKind { expected: "a peer with the same stamp", found: "one with another stamp" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_says_what_was_put_into_it() {
        for (longest, stamp) in [(0, 0), (64 << 20, 7), (u64::MAX, u64::MAX)] {
            let hello = Hello { longest, stamp };
            assert_eq!(Hello::parse(&hello.bytes()).unwrap(), hello);
        }
    }

    #[test]
    fn a_hello_of_another_format_is_none() {
        let bytes = Hello { longest: 1, stamp: 2 }.bytes();
        for at in 0..16 {
            let mut other = bytes;
            other[at] ^= 1;
            assert!(matches!(Hello::parse(&other), Err(Error::Malformed { message }) if message == other), "byte {at}");
        }
    }
}
