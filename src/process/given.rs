//! The description of the ends that a program is given: the format of `docs/given-ends.md`.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

/// The environment variable that describes the ends.
pub(super) const VARIABLE: &str = "IPC_ENDS";

/// One end, as the variable describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) name: String,
    pub(crate) number: RawFd,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Given {
    /// Returns whether both describe the same descriptor.
    pub(super) fn is_that_of(&self, other: &Self) -> bool {
        (self.number, self.device, self.inode) == (other.number, other.device, other.inode)
    }
}

/// Entries that are not of the form are passed over: they were set for another purpose.
pub(crate) fn parse(value: &[u8]) -> Vec<Given> {
    value.split(|byte| *byte == b',').filter_map(parse_one).collect()
}

fn parse_one(entry: &[u8]) -> Option<Given> {
    let mut fields = entry.split(|byte| *byte == b':');
    let mut field = || fields.next();
    let name = decode(field()?)?;
    let number: RawFd = decimal(field()?)?;
    let (device, inode) = (decimal(field()?)?, decimal(field()?)?);
    if fields.next().is_some() {
        return None;
    }
    Some(Given { name, number, device, inode })
}

fn decimal<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    // `parse` would take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes that go into a name as they are; every other byte is a `%` and two digits.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn decode(name: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                bytes.push((high * 16 + low) as u8);
            }
            plain if is_plain(plain) => bytes.push(plain),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// The variable's value.
pub(crate) fn describe(ends: &[Given]) -> OsString {
    let mut value = Vec::new();
    for given in ends {
        if !value.is_empty() {
            value.push(b',');
        }
        for byte in given.name.bytes() {
            match byte {
                plain if is_plain(plain) => value.push(plain),
                other => value.extend_from_slice(format!("%{other:02X}").as_bytes()),
            }
        }
        value.extend_from_slice(format!(":{}:{}:{}", given.number, given.device, given.inode).as_bytes());
    }
    OsString::from_vec(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_is_described_is_parsed_again() {
        let given = |name: &str, number| Given { name: name.into(), number, device: 5, inode: u64::MAX };
        let ends = [given("results", 7), given("", 8), given("a:b,c %41 ü", 1_000_000)];
        assert_eq!(parse(describe(&ends).as_bytes()), ends);
    }

    #[test]
    fn what_is_not_of_the_form_is_passed_over() {
        for hostile in
            ["", ",", "a", "a:1", "a:1:2", "a:1:2:3:4", "a:-1:2:3", "a:+1:2:3", "a:99999999999:2:3", "%:1:2:3"]
        {
            assert!(parse(hostile.as_bytes()).is_empty(), "{hostile}");
        }
        assert!(parse(b"%FF:1:2:3,\xFF:1:2:3,a b:1:2:3,%4:1:2:3,%zz:1:2:3").is_empty());
        assert_eq!(parse(b"bad,good:3:4:5,:").len(), 1);
    }
}
