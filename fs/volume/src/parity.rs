//! Parity of packs, for people: how it is written, and what it is good for.

use cairn_format::{ParityGeometry, SECTOR, Stripe};
use cairn_store::AcrossDir;

use crate::open::metadata_parity;
use crate::twins::SHARED;

/// Reads `16+2`, or `none`; `0` and `0+0` are none, too.
pub fn parse_parity(text: &str) -> Result<ParityGeometry, String> {
    if matches!(text, "none" | "0") {
        return Ok(ParityGeometry::default());
    }
    let numbers = text.split_once('+').and_then(|(k, m)| Some((k.parse().ok()?, m.parse().ok()?)));
    numbers
        .map(|(data, parity)| ParityGeometry::new(data, parity))
        .filter(ParityGeometry::is_sound)
        .ok_or_else(|| {
            format!(
                "'{text}' is no parity: write data units, 1 to 128, and parity units, 1 to 64, as in 16+2; or none"
            )
        })
}

/// As [`parse_parity`] reads it.
pub fn parity_name(parity: ParityGeometry) -> String {
    match parity.is_none() {
        true => "none".to_string(),
        false => format!("{}+{}", parity.data, parity.parity),
    }
}

/// The longest run of bytes that comes back wherever it begins, of a pack whose parity covers `covered` bytes; 0 where even
/// a single byte may be too much, for want of parity.
pub fn longest_hole(parity: ParityGeometry, covered: u64) -> u64 {
    if parity.is_none() {
        return 0;
    }
    // The rest of the sectors at both its ends is lost with it; and it may go from the last data unit, which may be short, on
    // to parity. A sector alone always comes back.
    let stripe = Stripe::new(parity, covered);
    let missing = stripe.filled() as u64 * stripe.unit() - covered;
    let units = stripe.unit() * u64::from(parity.parity);
    units.saturating_sub(missing + 2 * SECTOR).max(1)
}

/// What volumes with this parity survive, in words; `pack_size` is where packs are sealed.
pub fn guarantee(parity: ParityGeometry, pack_size: u64) -> String {
    if parity.is_none() {
        return "none: damage is found and named, and stays".to_string();
    }
    let sectors = match parity.parity {
        1 => "any bad sector of a pack".to_string(),
        2 => "any 2 bad sectors of a pack".to_string(),
        // Header, trailer, and the copy of that before the parity.
        m => format!("any {m} bad sectors of a pack, but not all three that say where its parts lie"),
    };
    let metadata = match metadata_parity(parity) {
        same if same == parity => "metadata".to_string(),
        more => format!("metadata, at {},", parity_name(more)),
    };
    format!(
        "{}: {sectors}; any hole up to {} in a pack of {}; {metadata} and packs referred to {SHARED} times a \
         chunk are there twice: of these one may be missing, no other",
        parity_name(parity),
        at_least(longest_hole(parity, pack_size)),
        at_least(pack_size),
    )
}

/// What volumes with second copies in these directories survive besides, in words; nothing where there are none.
pub fn guarantee_across(dirs: &[AcrossDir]) -> Option<String> {
    let (_, rest) = dirs.split_first()?;
    let name = |dir: &AcrossDir| match &dir.missing {
        None => dir.path.clone(),
        Some(why) => format!("{} (NOT THERE: {why})", dir.path),
    };
    let named: Vec<String> = dirs.iter().map(name).collect();
    let these = if rest.is_empty() { "it" } else { "them all" };
    Some(format!(
        "every pack once more in {}: the loss of {these} costs nothing, that of the volume's directory what no checkpoint held yet",
        named.join(", ")
    ))
}

/// In the largest unit that leaves a whole number before the point, rounded down: what is promised is kept.
fn at_least(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let power = (0..UNITS.len() - 1).take_while(|power| bytes >> (10 * (power + 1)) > 0).count();
    let unit = 1u64 << (10 * power);
    match (bytes / unit, bytes % unit * 10 / unit) {
        (whole, 0) => format!("{whole} {}", UNITS[power]),
        (whole, tenths) => format!("{whole}.{tenths} {}", UNITS[power]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_said_in_a_sentence() {
        assert_eq!(
            guarantee(ParityGeometry::new(16, 2), 64 << 20),
            "16+2: any 2 bad sectors of a pack; any hole up to 7.9 MiB in a pack of 64 MiB; metadata, at 16+4, and packs \
             referred to 8 times a chunk are there twice: of these one may be missing, no other"
        );
        assert_eq!(
            guarantee(ParityGeometry::new(8, 5), 1 << 20),
            "8+5: any 5 bad sectors of a pack, but not all three that say where its parts lie; any hole up to 632 KiB in a pack of 1 MiB; metadata and packs referred to 8 \
             times a chunk are there twice: of these one may be missing, no other"
        );
        assert!(guarantee(ParityGeometry::new(4, 1), 1 << 20).contains("any bad sector of a pack"));
        assert!(guarantee(ParityGeometry::default(), 1 << 20).starts_with("none"));
    }

    #[test]
    fn what_is_written_is_read_and_what_cannot_be_is_refused() {
        for parity in [ParityGeometry::default(), ParityGeometry::new(16, 2), ParityGeometry::new(128, 64)] {
            assert_eq!(parse_parity(&parity_name(parity)), Ok(parity));
        }
        assert_eq!(parse_parity("0").map(|parity| parity.is_none()), Ok(true));
        for bad in ["", "16", "16+", "+2", "129+1", "16+65", "16+0", "0+2", "300+2", "16+2+1", "-1+2"] {
            assert!(parse_parity(bad).is_err_and(|why| why.contains("16+2")), "{bad}");
        }
    }
}
