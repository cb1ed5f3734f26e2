//! Bytes that somebody made in order to do harm: for each decoder, and for whole volumes. What follows from them may be
//! an error or wrong content, but no panic, no hang, and no memory beyond a limit.
//!
//! Everything here is decided by one string of bytes, so that a fuzzer, a seed and a kept input are the same thing.

pub mod choices;
pub mod decoders;
pub mod exercise;
pub mod images;
pub mod records;
pub mod spoil;
pub mod tensors;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; `tests/fuzz` has a program for each, and its corpus under the same name.
pub const TARGETS: [Target; 7] = [
    ("superblocks", decoders::superblocks),
    ("packs", decoders::packs),
    ("journal", decoders::journal),
    ("namespace", decoders::namespace),
    ("index", decoders::index),
    ("tensors", tensors::tensors),
    ("volume", exercise::volume),
];

/// Does with `input` what the target called `name` does.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("there is no target '{name}'")).1(input);
}
