//! A secret of which any part is written as escapes.
//!
//! Each character may be escaped or not, in either case of the digits, so there
//! are more spellings than patterns can be made of. Instead the text is read as
//! who unescapes it would read it, one character at a time.
//!
//! | escape | of | also |
//! |--|--|--|
//! | `%63` | a byte | `%2563`, escaped twice or more; `%u0063` |
//! | `\u0063`, `\x63` | a character | `\\u0063`, JSON within JSON |
//! | `\/`, `\"`, `\\` | itself | |
//! | `&#99;`, `&#x63;` | a character | `&amp;#99;`, with leading zeros, without `;` |
//! | `&amp;` `&lt;` `&gt;` `&quot;` `&apos;` | its character | |
//! | `=63` | a byte | quoted-printable |

use std::ops::Range;

/// What an escape begins with.
const MARKERS: &[u8] = b"%\\&=";

/// An escape of an escape of … is looked through so often, and so many
/// backslashes (JSON within JSON within …, six times). Without an end to it a
/// text of nothing but backslashes would be read anew at each of them.
const MOST_LAYERS: usize = 32;
const MOST_SLASHES: usize = 63;

const NAMED: &[(&[u8], char)] = &[(b"amp;", '&'), (b"lt;", '<'), (b"gt;", '>'), (b"quot;", '"'), (b"apos;", '\'')];

/// Finds secrets that are escaped in part or as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Escapes {
    secrets: Vec<String>,
}

impl Escapes {
    pub(super) fn learn(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// Returns where the next secret stands, from a position on.
    pub(super) fn find(&self, text: &[u8], from: usize) -> Option<Range<usize>> {
        let rest = text.get(from..)?;
        if self.secrets.is_empty() || !rest.iter().any(|byte| MARKERS.contains(byte)) {
            return None;
        }
        let may_begin = |byte: u8| MARKERS.contains(&byte) || self.secrets.iter().any(|secret| secret.as_bytes()[0] == byte);
        let starts: [bool; 256] = std::array::from_fn(|byte| u8::try_from(byte).is_ok_and(may_begin));
        let found = rest.iter().enumerate().filter(|(_, byte)| starts[usize::from(**byte)]).find_map(|(index, _)| {
            let length = self.secrets.iter().find_map(|secret| length_at(&rest[index..], secret.as_bytes()))?;
            Some((index, length))
        });
        found.map(|(index, length)| from + index..from + index + length)
    }
}

/// Returns how many bytes the secret takes at the beginning of a text.
fn length_at(text: &[u8], secret: &[u8]) -> Option<usize> {
    let (mut read, mut used) = (0, 0);
    while read < secret.len() {
        let rest = &text[used..];
        match unescaped(rest) {
            Some((unit, length)) if secret[read..].starts_with(unit.as_bytes()) => {
                read += unit.len;
                used += length;
            }
            _ if rest.first() == Some(&secret[read]) => {
                read += 1;
                used += 1;
            }
            _ => return None,
        }
    }
    Some(used)
}

/// What an escape stands for: a byte, or a character in UTF-8.
struct Unit {
    bytes: [u8; 4],
    len: usize,
}

impl Unit {
    fn byte(byte: u32) -> Option<Unit> {
        Some(Unit { bytes: [u8::try_from(byte).ok()?, 0, 0, 0], len: 1 })
    }

    fn scalar(scalar: u32) -> Option<Unit> {
        let mut bytes = [0; 4];
        let len = char::from_u32(scalar)?.encode_utf8(&mut bytes).len();
        Some(Unit { bytes, len })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Reads the escape at the beginning of a text, and how long it is.
fn unescaped(text: &[u8]) -> Option<(Unit, usize)> {
    match *text.first()? {
        b'%' => {
            let twice = text[1..].chunks_exact(2).take(MOST_LAYERS).take_while(|pair| pair == b"25").count() * 2;
            if matches!(text.get(1 + twice), Some(b'u' | b'U')) {
                return Some((Unit::scalar(hex(text, 2 + twice, 4)?)?, 6 + twice));
            }
            match hex(text, 1 + twice, 2) {
                Some(byte) => Some((Unit::byte(byte)?, 3 + twice)),
                None => Some((Unit::byte(u32::from(b'%'))?, 1 + twice)).filter(|_| twice > 0),
            }
        }
        b'=' => Some((Unit::byte(hex(text, 1, 2)?)?, 3)),
        b'\\' => {
            let slashes = text.iter().take(MOST_SLASHES).take_while(|byte| **byte == b'\\').count();
            match text.get(slashes)? {
                b'u' => Some((Unit::scalar(hex(text, slashes + 1, 4)?)?, slashes + 5)),
                b'x' => Some((Unit::scalar(hex(text, slashes + 1, 2)?)?, slashes + 3)),
                byte @ (b'/' | b'"' | b'\'') => Some((Unit::byte(u32::from(*byte))?, slashes + 1)),
                _ if slashes > 1 => Some((Unit::byte(u32::from(b'\\'))?, 2)),
                _ => None,
            }
        }
        b'&' => entity(text),
        _ => None,
    }
}

fn entity(text: &[u8]) -> Option<(Unit, usize)> {
    let twice = text[1..].chunks_exact(4).take(MOST_LAYERS).take_while(|part| part == b"amp;").count() * 4;
    let rest = text.get(1 + twice..)?;
    if rest.first() != Some(&b'#') {
        let named = NAMED.iter().find(|(name, _)| rest.starts_with(name));
        return match named {
            Some((name, character)) => Some((Unit::scalar(u32::from(*character))?, 1 + twice + name.len())),
            None => Some((Unit::byte(u32::from(b'&'))?, 1 + twice)).filter(|_| twice > 0),
        };
    }
    let (radix, start) = if matches!(rest.get(1), Some(b'x' | b'X')) { (16, 2) } else { (10, 1) };
    let digits: Vec<u32> = rest[start..].iter().take(12).map_while(|byte| char::from(*byte).to_digit(radix)).collect();
    let scalar = digits.iter().try_fold(0_u32, |number, digit| number.checked_mul(radix)?.checked_add(*digit));
    let unit = Unit::scalar(scalar.filter(|_| !digits.is_empty())?)?;
    let end = start + digits.len();
    let semicolon = usize::from(rest.get(end) == Some(&b';'));
    Some((unit, 1 + twice + end + semicolon))
}

fn hex(text: &[u8], start: usize, count: usize) -> Option<u32> {
    let digits = text.get(start..start + count)?;
    digits.iter().try_fold(0, |number, byte| Some(number * 16 + char::from(*byte).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Option<&str> {
        let mut escapes = Escapes::default();
        escapes.learn("c4nary/\"&+=");
        escapes.find(text.as_bytes(), 0).map(|range| &text[range])
    }

    #[test]
    fn every_escape_is_read_and_nothing_else() {
        for spelling in [
            r#"%634nary/"&+="#,
            "%63%34%6e%61%72%79%2F%22%26%2b%3D",
            r#"%252563%2534nary/"&+="#,
            r#"\u00634nary\/\"&+="#,
            r#"\\u0063\\u0034nary\/\"&+="#,
            r#"\x634nary/"&+="#,
            "&#99;4nary/&quot;&amp;+=",
            r#"&#x63;&#0052;nary/"&#38+="#,
            r#"&amp;#99;4nary/"&+="#,
            r#"=634nary/"&+=3d"#,
            r#"%u0063%U0034nary/"&+="#,
        ] {
            assert_eq!(found(&format!("<{spelling}>")), Some(spelling), "{spelling}");
        }
        for other in
            ["", "%", "\\", "&", "=", "%6", "\\u006", "&#", "&#x;", "%634nary", "%25", "&amp;amp;", "&#99999999999999;", "\\ud8004nary"]
        {
            assert_eq!(found(other), None, "{other}");
        }
    }

    /// Three hundred thousand backslashes took half a minute, and twice as many four
    /// times as long, when a run was read anew at each of its bytes.
    #[test]
    fn a_text_of_nothing_but_escapes_is_read_once() {
        for part in ["\\", "%25", "&amp;", "amp;", "25"] {
            assert_eq!(found(&format!("%\\&{}", part.repeat(300_000 / part.len()))), None, "{part}");
        }
        let deep = format!(r#"c{}u0034nary/"&+="#, "\\".repeat(MOST_SLASHES));
        assert_eq!(found(&deep), Some(deep.as_str()));
        let (percent, amp) = ("25".repeat(MOST_LAYERS), "amp;".repeat(MOST_LAYERS));
        let deep = format!(r#"c%{percent}34nary/"&{amp}#38;+="#);
        assert_eq!(found(&deep), Some(deep.as_str()));
    }

    proptest! {
        #[test]
        fn any_mixture_of_escapes_is_found(secret in "[a-z0-9/+=]{6,40}", seed in prop::collection::vec(0..9_u8, 40), around in "[a-z%\\\\&=; ]{0,9}") {
            let spelled: String = secret.bytes().zip(&seed).map(|(byte, how)| match how {
                0 => format!("%{byte:02x}"),
                1 => format!("%{byte:02X}"),
                2 => format!("\\u{byte:04x}"),
                3 => format!("\\u{byte:04X}"),
                4 => format!("&#{byte};"),
                5 => format!("&#x{byte:X};"),
                6 => format!("={byte:02X}"),
                _ => char::from(byte).to_string(),
            }).collect();
            let mut escapes = Escapes::default();
            escapes.learn(&secret);
            let text = format!("{around} {spelled} {around}");
            let is_escaped = spelled != secret;
            prop_assert!(!is_escaped || escapes.find(text.as_bytes(), 0).is_some(), "{text}");
        }
    }
}
