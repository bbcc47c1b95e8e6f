//! The messages between the master and its workers.

/// A message to a worker. It names files by their places in the list, which the worker has from the fork.
pub struct Order {
    pub file: usize,
    pub die: bool,
}

impl Order {
    pub const LEN: usize = 9;

    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [u8::from(self.die); Self::LEN];
        bytes[..8].copy_from_slice(&(self.file as u64).to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self { file: number(&bytes[..8]) as usize, die: bytes[8] != 0 }
    }
}

/// A worker's answer, short enough to be written in one piece.
pub struct Record {
    pub file: usize,
    pub opened: bool,
    pub words: u64,
    /// 0: there was no error.
    pub errno: i32,
}

impl Record {
    pub const LEN: usize = 32;

    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields = [self.file as u64, u64::from(self.opened), self.words, self.errno as u64];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        let field = |i: usize| number(&bytes[i * 8..i * 8 + 8]);
        Self { file: field(0) as usize, opened: field(1) != 0, words: field(2), errno: field(3) as i32 }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
