//! Numbers as a portal sees them.
//!
//! A portal reads JSON numbers into 64-bit integers and doubles, and gets the
//! numbers of a batch command as text. [`plain`] is the one text of a number
//! for both: 5, 5.0 and 5e0 are `5`, 10.10 is `10.1`. It keeps all digits, also
//! those that the portal's double will lose in a call of its own.

/// Digits and point of a number, without zeros at either end:
/// `digits` × 10^`exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Reads a JSON number.
    fn parse(token: &str) -> Option<Decimal> {
        let (is_negative, rest) = token.strip_prefix('-').map_or((false, token), |rest| (true, rest));
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_end_matches('0');
        let cut = i64::try_from(digits.len() - significant.len()).ok()?;
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(cut)?;
        let digits = significant.trim_start_matches('0').to_owned();
        Some(Decimal { is_negative, exponent: if digits.is_empty() { 0 } else { exponent }, digits })
    }

    /// Writes the number without an exponent.
    fn plain(&self) -> String {
        let sign = if self.is_negative { "-" } else { "" };
        let Ok(zeros) = usize::try_from(self.exponent) else {
            let behind = usize::try_from(-self.exponent).unwrap_or(usize::MAX);
            let padded = format!("{}{}", "0".repeat((behind + 1).saturating_sub(self.digits.len())), self.digits);
            let (whole, fraction) = padded.split_at(padded.len() - behind);
            return format!("{sign}{whole}.{fraction}");
        };
        format!("{sign}{}{}", self.digits, "0".repeat(zeros))
    }
}

/// Returns the one text of a JSON number; `None` when a portal holds no number
/// of that size: it would take it for infinite, or for zero.
#[must_use]
pub fn plain(token: &str) -> Option<String> {
    if let Ok(whole) = token.parse::<i64>() {
        return Some(whole.to_string());
    }
    let double: f64 = token.parse().ok().filter(|double: &f64| double.is_finite())?;
    let decimal = Decimal::parse(token)?;
    match (decimal.digits.is_empty(), double == 0.0) {
        (true, _) => Some("0".to_owned()),
        (false, true) => None,
        (false, false) => Some(decimal.plain()),
    }
}

/// Returns the one text of the number that a text stands for where a portal
/// expects a number; `None` when it stands for none.
#[must_use]
pub fn plain_of_text(text: &str) -> Option<String> {
    let trimmed = text.trim_ascii();
    let (sign, digits) = match trimmed.as_bytes().first()? {
        b'-' => ("-", &trimmed[1..]),
        b'+' => ("", &trimmed[1..]),
        _ => ("", trimmed),
    };
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    let kept = digits[..whole].trim_start_matches('0');
    let is_fraction = digits.starts_with('.') && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let is_zero = kept.is_empty() && (whole > 0 || is_fraction);
    let token = format!("{sign}{}{kept}{}", if is_zero { "0" } else { "" }, &digits[whole..]);
    plain(token.strip_suffix('.').unwrap_or(&token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_number_has_one_text() {
        for (tokens, text) in [
            (&["5", "5.0", "5e0", "50e-1", "0.5E+1", "5.000"][..], "5"),
            (&["10.1", "10.10", "1010e-2"], "10.1"),
            (&["-0.5", "-5e-1"], "-0.5"),
            (&["0", "-0", "0.0", "0e5", "-0.0", "-0e3"], "0"),
            (&["1e20", "100000000000000000000"], "100000000000000000000"),
            (&["9223372036854775807"], "9223372036854775807"),
            (&["-9223372036854775808"], "-9223372036854775808"),
            (&["1e-7", "0.0000001"], "0.0000001"),
            (&["0.1"], "0.1"),
        ] {
            for token in tokens {
                assert_eq!(plain(token).as_deref(), Some(text), "{token}");
            }
        }
    }

    #[test]
    fn a_number_that_a_portal_cannot_hold_has_none_and_no_other_loses_digits() {
        for token in ["1e400", "-1e400", "1e-400", "1e999999999999"] {
            assert_eq!(plain(token), None, "{token}");
        }
        for token in ["12345678901234567890", "0.1234567890123456789", "9223372036854775809"] {
            assert_eq!(plain(token).as_deref(), Some(token));
        }
    }

    #[test]
    fn a_text_is_read_as_the_number_it_stands_for() {
        for (text, number) in
            [("5.00", "5"), (" 5", "5"), ("+5", "5"), ("007", "7"), ("0", "0"), ("00.50", "0.5"), ("-01", "-1"), (".5", "0.5"), ("5.", "5")]
        {
            assert_eq!(plain_of_text(text).as_deref(), Some(number), "{text}");
        }
        for text in ["", " ", "5a", "0x1A", "1,5", "--5", "$result[a]", "1_000", "inf", "nan", ".", "-", "-.", "e5", "Y"] {
            assert_eq!(plain_of_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_text_is_the_same_double(number in any::<f64>()) {
            prop_assume!(number.is_finite() && number != 0.0);
            let text = plain(&format!("{number:e}")).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits() << 1, number.to_bits() << 1);
            prop_assert_eq!(plain(&text), Some(text.clone()));
        }
    }
}
