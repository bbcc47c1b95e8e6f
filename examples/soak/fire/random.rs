//! Random numbers that can be had again from their seed (SplitMix64).

/// A source of numbers. The same seed gives the same ones.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// Spreads a number over all 64 bits. Different numbers stay different.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that nobody has had before.
    pub fn fresh_seed() -> u64 {
        // The standard library seeds its hash maps with what the kernel gives it.
        std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number up to `most`, of every magnitude alike: small ones come as often as large ones.
    pub fn up_to(&mut self, most: u64) -> u64 {
        let bits = self.below(u64::from(most.checked_ilog2().unwrap_or(0)) + 2) as u32;
        self.below(1 << bits).min(most)
    }

    /// Returns how much there is to be of something, up to `most`: often little, and as often a lot.
    pub fn amount(&mut self, most: u64) -> u64 {
        if self.once_in(2) { self.up_to(most) } else { self.below(most + 1) }
    }

    /// Returns true once in that many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
