//! What cairn is measured against. Nothing here is part of the filesystem; each measurement is an example:
//!
//! - `ideal`: what a tree would take if each distinct chunk were stored once, compressed in frames, and nothing else.
//! - `engines` (with the feature `sled`): the two engines under the namespace's own workload.
//! - `memfs`: a FUSE filesystem that keeps everything in memory: how fast the road through the kernel is by itself.
//!
//! `scripts/quickstart` runs both and prints how far cairn is from them.
