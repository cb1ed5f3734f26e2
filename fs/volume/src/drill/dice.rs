//! Random numbers that a seed decides, so that what a drill did, or a test, can be done again.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// So many different numbers below `n`, in no order; all of them where there are fewer.
    pub fn some_below(&mut self, n: u64, count: u64) -> Vec<u64> {
        let mut chosen: Vec<u64> = Vec::new();
        // Floyd's: each number has the same chance, and none is drawn twice.
        for last in n.saturating_sub(count)..n {
            let drawn = self.below(last + 1);
            chosen.push(if chosen.contains(&drawn) { last } else { drawn });
        }
        chosen
    }

    /// The numbers below `n` in any order.
    pub fn shuffled(&mut self, n: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..n).collect();
        for last in (1..all.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            all.swap(last, other);
        }
        all
    }
}
