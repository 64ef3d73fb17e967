//! Sizes as people write them.

/// 1,024 bytes.
pub const KB: u64 = 1 << 10;

/// 1,024 KB.
pub const MB: u64 = 1 << 20;

/// 1,024 MB.
pub const GB: u64 = 1 << 30;

/// The largest answer that is taken unless something else is asked for.
pub const DEFAULT: u64 = 256 * MB;

/// Reads a whole number of bytes, KB, MB or GB; case and one space do not
/// matter, and `MiB` is `MB`.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim_start().replacen('I', "", 1).as_str() {
        "" | "B" => 1,
        "K" | "KB" => KB,
        "M" | "MB" => MB,
        "G" | "GB" => GB,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// Returns a size for people.
#[must_use]
pub fn shown(bytes: u64) -> String {
    let units = [(GB, "GB"), (MB, "MB"), (KB, "KB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_shown() {
        for (text, bytes, back) in [
            ("64MB", 64 * MB, "64 MB"),
            ("64 mb", 64 * MB, "64 MB"),
            ("64MiB", 64 * MB, "64 MB"),
            ("1g", GB, "1 GB"),
            ("1536K", 1536 * KB, "1536 KB"),
            ("1000", 1000, "1000 bytes"),
            ("0", 0, "0 bytes"),
        ] {
            assert_eq!((parse(text), shown(bytes)), (Some(bytes), back.to_owned()), "{text}");
        }
        for text in ["", "MB", "-1", "1.5MB", "1TB", "1MBB", "64M B", "99999999999999999999", "18446744073709551615K"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
