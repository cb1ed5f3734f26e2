//! Decisions taken from a string of bytes; when it ends, each is the first there is.

use crate::dice::Dice;

/// What is left of an input.
pub struct Choices<'a>(&'a [u8]);

/// Numbers at which something ends.
const EDGES: [u64; 26] = [
    0,
    1,
    2,
    3,
    7,
    0x7f,
    0xff,
    0xfff,
    0x1000,
    0xffff,
    0x1_0000,
    (1 << 20) - 1,
    1 << 20,
    (1 << 23) - 1,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 40) - 1,
    1 << 40,
    (1 << 48) - 1,
    1 << 48,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

impl<'a> Choices<'a> {
    /// Those of an input.
    pub fn new(input: &'a [u8]) -> Choices<'a> {
        Choices(input)
    }

    /// What was not used.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Eight bytes.
    pub fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number below `n`, which is at most 2^16.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = if n > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (wide | usize::from(self.byte())) % n.max(1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 1
    }

    /// A number: at an edge, beside one, small, or any.
    pub fn number(&mut self) -> u64 {
        match self.below(8) {
            0..=3 => EDGES[self.below(EDGES.len())],
            4 => EDGES[self.below(EDGES.len())].wrapping_sub(u64::from(self.byte() % 16)),
            5 => EDGES[self.below(EDGES.len())].wrapping_add(u64::from(self.byte() % 16)),
            6 => self.byte().into(),
            _ => self.word(),
        }
    }

    /// One of several.
    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> Option<&'b T> {
        from.get(self.below(from.len().min(1 << 16)))
    }

    /// A few bytes, up to `most`.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most.min(1 << 16));
        (0..len).map(|_| self.byte()).collect()
    }

    /// Overwrites some fields within `bytes[from..to]`.
    pub fn edit(&mut self, bytes: &mut [u8], from: usize, to: usize) {
        let to = to.min(bytes.len());
        for _ in 0..=self.below(3) {
            let width = [1, 2, 4, 8][self.below(4)];
            let Some(room) = to.checked_sub(from + width) else { continue };
            let at = from + self.below((room + 1).min(1 << 16));
            let number = self.number();
            let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
            let field = if self.one_in(4) { &big[8 - width..] } else { &little[..width] };
            bytes[at..at + width].copy_from_slice(field);
        }
    }
}

/// The input that a seed stands for.
pub fn of_seed(seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed ^ 0xb0a7);
    let len = 32 + dice.below(224) as usize;
    (0..len).map(|_| dice.roll() as u8).collect()
}
