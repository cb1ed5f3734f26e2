//! What can go wrong with a store.

use std::io;

use cairn_format::{FormatError, PackId};

/// A chunk, or a part of a checkpoint, could not be read. Never zeros, never a guess.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The pack's file is not there.
    #[error("pack {pack} is missing")]
    Missing {
        /// The pack.
        pack: PackId,
    },
    /// The disk below failed.
    #[error("pack {pack} cannot be read at {offset}: {error}")]
    Io {
        /// The pack.
        pack: PackId,
        /// The position in its file.
        offset: u64,
        /// What the disk said.
        error: io::Error,
    },
    /// The bytes are not those that were written there.
    #[error("pack {pack} is damaged at {offset}: {reason}")]
    Damaged {
        /// The pack.
        pack: PackId,
        /// The position in its file.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// The pack is whole but does not hold what was looked for.
    #[error("pack {pack} holds no such chunk: {reason}")]
    Mismatch {
        /// The pack.
        pack: PackId,
        /// What was looked for, and what is there.
        reason: String,
    },
}

impl ReadError {
    pub(crate) fn io(pack: PackId, offset: u64, error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::NotFound => ReadError::Missing { pack },
            io::ErrorKind::UnexpectedEof => {
                ReadError::Damaged { pack, offset, reason: "the file ends before".into() }
            }
            _ => ReadError::Io { pack, offset, error },
        }
    }

    pub(crate) fn damaged(pack: PackId, offset: u64, reason: impl ToString) -> ReadError {
        ReadError::Damaged { pack, offset, reason: reason.to_string() }
    }
}

/// A store could not be opened, or written to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk below failed.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory, relative to the store.
        path: String,
        /// What the disk said.
        error: io::Error,
    },
    /// A superblock is not what it should be, in every replica.
    #[error("{path}: {error}")]
    Superblock {
        /// The file of the first replica.
        path: String,
        /// What is wrong with it.
        error: FormatError,
    },
    /// A pack could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl StoreError {
    pub(crate) fn io(path: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |error| StoreError::Io { path, error }
    }

    /// Whether the disk below is full.
    pub fn is_full(&self) -> bool {
        let full =
            |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            StoreError::Io { error, .. } | StoreError::Read(ReadError::Io { error, .. }) => full(error),
            _ => false,
        }
    }
}
