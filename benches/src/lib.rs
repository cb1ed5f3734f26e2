//! What cairn is measured against. Nothing here is part of the filesystem; each measurement is an example:
//!
//! - `ideal`: what a tree would take if each distinct chunk were stored once, compressed in frames, and nothing else.
//! - `engines` (with the feature `sled`): the two engines under the namespace's own workload.
//! - `memfs`: a FUSE filesystem that keeps everything in memory: how fast the road through the kernel is by itself.
//! - `parity`: how fast parity is computed, by each kernel and (with the feature `peers`) by other crates.
//! - `rates`: how long a warm `stat` and `open` take.
//!
//! `scripts/quickstart` runs the first two and prints how far cairn is from them. `scripts/bench` (its code is in
//! `benches/bench/`) measures cairn beside other filesystems.
