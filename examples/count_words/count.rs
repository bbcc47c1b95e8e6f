//! Words, as `wc -w` counts them in a UTF-8 locale.

use std::io::Read;

/// Counts the words of what is read, in memory of a constant size.
///
/// White space and the no-break spaces separate words, and a word has at least one character that can be printed. Control
/// characters and bytes that are not UTF-8 neither make a word nor end one. (Characters that Unicode has not assigned count
/// as printable here, and not for `wc`.)
pub struct Counter {
    words: u64,
    in_word: bool,
    /// The beginning of a character whose rest is still to be read.
    rest: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Separator,
    Printable,
    Neither,
}

impl Counter {
    pub fn new() -> Self {
        Self { words: 0, in_word: false, rest: Vec::new() }
    }

    pub fn words(&self) -> u64 {
        self.words
    }

    /// Reads to EOF. `each` is called after each piece, with its length. `false`: it has said not to go on.
    pub fn read(&mut self, mut from: impl Read, mut each: impl FnMut(usize) -> bool) -> std::io::Result<bool> {
        let mut buf = vec![0; 256 << 10];
        loop {
            match from.read(&mut buf) {
                Ok(0) => return Ok(true),
                Ok(len) => {
                    self.take(&buf[..len]);
                    if !each(len) {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if !self.rest.is_empty() {
            // A character over the border: at most three bytes more.
            let more = bytes.len().min(4 - self.rest.len());
            let mut border = std::mem::take(&mut self.rest);
            let before = border.len();
            border.extend_from_slice(&bytes[..more]);
            let used = self.step(&border, more == bytes.len());
            if used == 0 {
                self.rest = border;
                return;
            }
            // The rest of its characters stands in `bytes` too, or is bytes that were passed over.
            match used.checked_sub(before) {
                Some(used) => return self.take(&bytes[used..]),
                None => {
                    let mut all = border[used..before].to_vec();
                    all.extend_from_slice(bytes);
                    return self.take(&all);
                }
            }
        }
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..], true) {
                0 => {
                    self.rest = bytes[at..].to_vec();
                    return;
                }
                used => at += used,
            }
        }
    }

    /// Takes one character, and says how many bytes that was; 0: its end is missing, and may still come.
    fn step(&mut self, bytes: &[u8], more_may_come: bool) -> usize {
        let first = bytes[0];
        if first < 0x80 {
            self.see(ASCII[first as usize]);
            return 1;
        }
        let len = match first {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return 1,
        };
        let character = &bytes[..len.min(bytes.len())];
        match std::str::from_utf8(character) {
            Ok(text) => {
                text.chars().for_each(|c| self.see(kind(c)));
                len
            }
            Err(error) if error.error_len().is_none() && more_may_come => 0,
            Err(_) => 1,
        }
    }

    fn see(&mut self, kind: Kind) {
        match kind {
            Kind::Separator => self.in_word = false,
            Kind::Printable => {
                self.words += u64::from(!self.in_word);
                self.in_word = true;
            }
            Kind::Neither => {}
        }
    }
}

static ASCII: [Kind; 128] = {
    let mut kinds = [Kind::Printable; 128];
    let mut i = 0;
    while i < 128 {
        kinds[i] = match i as u8 {
            b' ' | b'\t'..=b'\r' => Kind::Separator,
            0..=31 | 127 => Kind::Neither,
            _ => Kind::Printable,
        };
        i += 1;
    }
    kinds
};

fn kind(c: char) -> Kind {
    match c {
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{2060}' | '\u{3000}' => {
            Kind::Separator
        }
        '\u{2028}' | '\u{2029}' => Kind::Neither,
        c if c.is_control() => Kind::Neither,
        _ => Kind::Printable,
    }
}
