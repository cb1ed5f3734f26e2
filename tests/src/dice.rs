//! Random numbers that a seed decides.

pub use cairn_volume::drill::Dice;

/// Bytes that no codec shortens.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&dice.roll().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes as workloads write them: new, repeated elsewhere, compressible, or zeros.
pub fn data(seed: u64, len: usize) -> Vec<u8> {
    match seed % 8 {
        0 => vec![0; len],
        1 | 2 => vec![b'a' + (seed >> 3) as u8 % 26; len],
        // One of few contents: the same chunks in many files.
        3..=5 => noise(seed >> 3 & 3, len),
        _ => noise(seed, len),
    }
}
