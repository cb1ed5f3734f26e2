//! What a person said about how a file, or what is made in a directory, is to be stored.
//!
//! The attribute `cairn.compress` holds `off`, `zstd` (level 3) or `zstd:N`. A directory's is inherited by what is made in
//! it. It counts for what is folded from then on.

use cairn_format::key::Key;
use cairn_format::{Compression, Ino, View};

/// The attribute.
pub(super) const COMPRESS: &[u8] = b"cairn.compress";
const DEFAULT_LEVEL: i8 = 3;
const LEVELS: std::ops::RangeInclusive<i8> = 1..=19;

/// The key of an inode's policy.
pub(super) fn key(ino: Ino, view: View) -> Key {
    Key::Xattr(ino, COMPRESS.to_vec(), view)
}

/// How a file is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) compression: Compression,
}

impl Policy {
    /// The key that holds an inode's policy.
    pub(crate) fn key(ino: Ino, view: View) -> Key {
        key(ino, view)
    }

    /// From the attribute's value; `None` where that means nothing.
    pub(crate) fn decode(value: &[u8]) -> Option<Policy> {
        let compression = match std::str::from_utf8(value).ok()? {
            "off" | "none" => Compression::None,
            "zstd" => Compression::Zstd(DEFAULT_LEVEL),
            text => {
                let level = text.strip_prefix("zstd:")?.parse().ok()?;
                Compression::Zstd(LEVELS.contains(&level).then_some(level)?)
            }
        };
        Some(Policy { compression })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_nonsense_is_not() {
        let decode = |text: &str| Policy::decode(text.as_bytes()).map(|p| p.compression);
        assert_eq!(decode("off"), Some(Compression::None));
        assert_eq!(decode("zstd"), Some(Compression::Zstd(3)));
        assert_eq!(decode("zstd:19"), Some(Compression::Zstd(19)));
        for bad in ["", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "lz4", "zstd:3 ", "on"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
