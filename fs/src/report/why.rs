//! Why a file takes what it takes.

use cairn_volume::{Explanation, TensorShare, parity_name};
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
    /// How many tensors there are in it.
    #[serde(default)]
    pub(crate) tensor_count: u64,
    /// The first of them: 200, or as many as an answer has room for.
    #[serde(default)]
    pub(crate) tensors: Vec<TensorReport>,
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TensorReport {
    /// Its name, the first 200 characters; empty where the format gives none.
    pub(crate) name: String,
    /// What the format calls the type of its elements.
    pub(crate) dtype: String,
    /// Its dimensions, in the order in which the format has them.
    pub(crate) shape: Vec<u64>,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// Stored bytes that it answers for.
    pub(crate) stored: u64,
    /// `bytes` over `stored`; none where nothing is stored.
    pub(crate) ratio: Option<f64>,
    /// Pieces of it that are differences from chunks of other tensors.
    #[serde(default)]
    pub(crate) differences: u64,
    /// The id of the first of those chunks; none where there is none.
    #[serde(default)]
    pub(crate) base: Option<String>,
    /// How its chunks are stored: `planes`, `palette`, `pattern`, `differences`, `zstd`, `raw`, `journal`.
    pub(crate) codecs: Vec<String>,
}

/// Bytes that the tensors of an answer take at most, as it is sent: the kernel hands out 64 KiB.
const TENSORS_ROOM: usize = 40 << 10;
/// Characters of a name that are told.
const NAME_MAX: usize = 200;
/// Dimensions that are told.
const DIMENSIONS: usize = 16;

impl From<TensorShare> for TensorReport {
    fn from(share: TensorShare) -> TensorReport {
        // Taken apart without `..`: a new field does not compile until it has a name here.
        let TensorShare { name, dtype, shape, offset, len, stored, differences, base, codecs } = share;
        TensorReport {
            name: name.chars().take(NAME_MAX).collect(),
            dtype,
            shape: shape.into_iter().take(DIMENSIONS).collect(),
            offset,
            bytes: len,
            stored,
            ratio: (stored > 0).then(|| len as f64 / stored as f64),
            differences,
            base: base.map(|chunk| chunk.to_string()),
            codecs: codecs.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// As many tensors as there is room for.
fn tensors(shares: Vec<TensorShare>) -> Vec<TensorReport> {
    let mut room = TENSORS_ROOM;
    let fits = |report: &TensorReport| {
        let takes = serde_json::to_vec(report).map_or(usize::MAX, |json| json.len() + 1);
        room.checked_sub(takes).is_some_and(|rest| {
            room = rest;
            true
        })
    };
    shares.into_iter().map(TensorReport::from).take_while(fits).collect()
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
            tensors: shares,
            tensor_count,
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
            tensor_count,
            tensors: tensors(shares),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_room_for_the_tensors_it_names_however_they_are_called() {
        let share = |n: u64| TensorShare {
            name: "\u{1}\"".repeat(300),
            dtype: "F32".into(),
            shape: vec![u64::MAX; 1000],
            offset: n,
            len: 4096,
            stored: 2048,
            differences: 1,
            base: None,
            codecs: vec!["planes"],
        };
        let explanation = Explanation {
            tensors: (0..200).map(share).collect(),
            tensor_count: 3000,
            ..Explanation::default()
        };
        let report = WhyReport::from(explanation);
        let told = report.tensors.len();
        assert!((10..200).contains(&told) && report.tensor_count == 3000, "{told}");
        assert_eq!(report.tensors[0].ratio, Some(2.0));
        assert!(serde_json::to_vec(&report).expect("serializes").len() < 44 << 10);
    }
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
