//! Sizes as people write and read them. A unit is a power of 1024, whichever way it is spelt.

pub(crate) use cairn_page::human;

/// Reads `4096`, `64K`, `64k`, `64KiB`, `64KB`, `1G`…; the error says what is wrong with `text`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(not_a_size(text)),
    };
    let number: u64 = number.parse().map_err(|_| not_a_size(text))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is more than 16 EiB"))
}

fn not_a_size(text: &str) -> String {
    format!("'{text}' is not a size: write a number of bytes, or one with K, M, G or T, as in 64M")
}

/// In the largest unit that leaves a whole number: `32 KiB`, `512 MiB`, `1000 B`.
pub(crate) fn exact(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1024 && value.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024, unit + 1);
    }
    format!("{value} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("64M"), Ok(64 << 20));
        assert_eq!(parse("1g"), Ok(1 << 30));
        assert_eq!(parse("3KiB"), Ok(3072));
        assert_eq!(parse("2TB"), Ok(2 << 40));
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for text in ["", "M", "64X", "-1", "1.5G", "64 M", "99999999999999999999", "99999999T"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn what_was_chosen_is_written_exactly() {
        assert_eq!(exact(1000), "1000 B");
        assert_eq!(exact(32 << 10), "32 KiB");
        assert_eq!(exact(1536 << 10), "1536 KiB");
        assert_eq!(exact(0), "0 B");
    }
}
