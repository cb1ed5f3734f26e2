//! Why a file takes what it takes.

use cairn_volume::{Explanation, parity_name};
use serde::{Deserialize, Serialize};

use super::compression_name;

/// Packs that a [`WhyReport`] names at most.
const WHY_PACKS: usize = 64;

/// [`Explanation`] with names that scripts may rely on: why a file takes what it takes. Bytes, but for `pieces`,
/// `chunks`, `sharers` and `pack_count`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WhyReport {
    /// Its length.
    pub(crate) size: u64,
    /// Bytes of it that are holes.
    pub(crate) holes: u64,
    /// Bytes that lie in the journal, not folded yet.
    pub(crate) journalled: u64,
    /// Bytes that lie in chunks.
    pub(crate) chunked: u64,
    /// Pieces of chunks that they are made of.
    pub(crate) pieces: u64,
    /// Distinct chunks among those.
    pub(crate) chunks: u64,
    /// Plain bytes of the distinct chunks, each counted once and as far as the file uses it.
    pub(crate) unique: u64,
    /// Stored bytes that its pieces answer for.
    pub(crate) stored: u64,
    /// Bytes in chunks that other files have, too.
    pub(crate) shared: u64,
    /// Files that have some of its chunks, itself left out.
    pub(crate) sharers: u64,
    /// Whether everything was looked at: if not, there may be more sharers.
    pub(crate) complete: bool,
    /// How what is folded from now on is compressed: `off` or `zstd:LEVEL`.
    pub(crate) compression: Option<String>,
    /// Its bytes that are no holes, over `stored`; none where nothing is stored.
    pub(crate) ratio: Option<f64>,
    /// How many packs it lies in.
    pub(crate) pack_count: u64,
    /// The 64 with most of it.
    pub(crate) packs: Vec<PackReport>,
}

/// What a pack holds of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackReport {
    /// The pack's id, as in its file's name.
    pub(crate) pack: String,
    /// Bytes of the file in it.
    pub(crate) bytes: u64,
    /// The parity it carries, as in `16+2`, or `none`; `null` where that cannot be read.
    #[serde(default)]
    pub(crate) parity: Option<String>,
    /// When it was last scrubbed, in seconds since 1970; none where that is not known.
    #[serde(default)]
    pub(crate) verified: Option<u64>,
    /// How many more copies of it there are.
    #[serde(default)]
    pub(crate) copies: u64,
}

impl From<Explanation> for WhyReport {
    fn from(explanation: Explanation) -> WhyReport {
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let Explanation {
            size,
            holes,
            journalled,
            chunked,
            pieces,
            chunks,
            unique,
            stored,
            shared,
            sharers,
            complete,
            packs,
            compression,
        } = explanation;
        WhyReport {
            size,
            holes,
            journalled,
            chunked,
            pieces,
            chunks,
            unique,
            stored,
            shared,
            sharers,
            complete,
            compression: compression.map(compression_name),
            ratio: (stored > 0).then(|| (journalled + chunked) as f64 / stored as f64),
            pack_count: packs.len() as u64,
            packs: packs
                .iter()
                .take(WHY_PACKS)
                .map(|share| PackReport {
                    pack: share.pack.to_string(),
                    bytes: share.bytes,
                    parity: share.parity.map(parity_name),
                    verified: share.verified,
                    copies: share.copies as u64,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_volume::{Compression, PackId, PackShare};

    #[test]
    fn a_file_in_many_packs_names_the_largest_shares_and_counts_all() {
        let share = |n: u32| PackShare {
            pack: PackId::new(1, 2, n),
            bytes: u64::from(1000 - n),
            parity: None,
            verified: None,
            copies: 0,
        };
        let explanation = Explanation {
            size: 4000,
            journalled: 1000,
            chunked: 2000,
            stored: 1500,
            packs: (0..100).map(share).collect(),
            compression: Some(Compression::Zstd(9)),
            ..Explanation::default()
        };
        let report = WhyReport::from(explanation);
        assert_eq!((report.pack_count, report.packs.len()), (100, WHY_PACKS));
        assert_eq!(report.packs[0].bytes, 1000);
        assert_eq!(report.ratio, Some(2.0));
        assert_eq!(report.compression.as_deref(), Some("zstd:9"));
        assert_eq!(WhyReport::from(Explanation::default()).ratio, None);
    }
}
