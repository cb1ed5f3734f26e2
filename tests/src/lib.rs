//! What cairn's tests share: a reference model of a filesystem, operations on both, a disk and an engine that
//! fail, the comparison of the two, bytes made to do harm, and real mounts.

pub mod containers;
pub mod content;
pub mod cuttable;
pub mod dice;
pub mod driver;
pub mod engine;
pub mod failing;
pub mod hooked;
pub mod hostile;
pub mod logged;
pub mod model;
pub mod mounted;
pub mod ops;
pub mod pristine;
pub mod processes;
pub mod reach;
pub mod rot;
pub mod segment_reach;
pub mod tree;
pub mod watchdog;
pub mod world;
