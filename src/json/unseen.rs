//! Characters without a visible form, told by what Unicode says of them, and
//! the escapes that show them.
//!
//! What is printed may have been written by a portal, by an agent or by
//! whoever filled in a form. A reader must see every character of it: one that
//! prints nothing hides a text, moves the cursor, or makes two names look
//! alike. A list of ranges was tried and left gaps, so general categories and
//! properties decide, and whatever Unicode has not assigned counts as unseen
//! until it is. In JSON an escape changes nothing for programs, which is why
//! this may be generous: the joiners of emoji and of Persian, no-break spaces
//! and variation selectors arrive intact.

use icu_properties::props::{BidiClass, DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use std::io::{self, Write};

/// Blank characters that are assigned as symbols, letters or marks, and that
/// no property calls blank: the place of an object, the empty Braille cell,
/// the blanks of music, of Khitan and of hieroglyphs.
const BLANKS: &[char] = &['\u{FFFC}', '\u{2800}', '\u{1D159}', '\u{16FE4}', '\u{13441}', '\u{13442}'];

/// Bytes that are looked at together.
const STRIDE: usize = 16;

/// Returns whether a character prints nothing that a reader could see, or is
/// none that Unicode knows.
#[must_use]
pub fn is_unseen(character: char) -> bool {
    match CodePointMapData::<GeneralCategory>::new().get(character) {
        GeneralCategory::Control
        | GeneralCategory::Format
        | GeneralCategory::Surrogate
        | GeneralCategory::PrivateUse
        | GeneralCategory::Unassigned
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => true,
        GeneralCategory::SpaceSeparator => character != ' ',
        _ => CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character) || BLANKS.contains(&character),
    }
}

/// Returns whether a character is written on the one before it.
fn is_mark(character: char) -> bool {
    matches!(
        CodePointMapData::<GeneralCategory>::new().get(character),
        GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark | GeneralCategory::EnclosingMark
    )
}

/// Returns whether a character is written from right to left, and so can
/// change the order in which a line of other texts is read.
#[must_use]
pub fn turns_the_line(character: char) -> bool {
    matches!(
        CodePointMapData::<BidiClass>::new().get(character),
        BidiClass::RightToLeft | BidiClass::ArabicLetter | BidiClass::ArabicNumber
    )
}

/// Writes a JSON token, or any text, with what is unseen as `\u` escapes. A
/// mark that would be written on a quote, on white space or on an escape is
/// shown the same way. A byte that is no UTF-8 becomes U+FFFD.
pub(super) fn write(text: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut written = 0;
    let mut position = 0;
    loop {
        position = plain_end(text, position);
        if position >= text.len() {
            return out.write_all(&text[written..]);
        }
        let (length, character) = first(&text[position..]);
        let must_escape = |character| is_unseen(character) || (is_mark(character) && hangs(text, position, written));
        if character.is_none_or(must_escape) {
            out.write_all(&text[written..position])?;
            write_escape(character.unwrap_or(char::REPLACEMENT_CHARACTER), out)?;
            written = position + length;
        }
        position += length;
    }
}

/// Returns where the run of characters ends that are surely visible: printable
/// ASCII, and letters of the Latin, Cyrillic and Han blocks that most answers
/// are made of (U+00C0-02FF, U+0400-047F, U+5000-9FFF). A test asks the table.
fn plain_end(text: &[u8], mut position: usize) -> usize {
    let is_plain = |byte: u8| matches!(byte, 0x20..=0x7E);
    loop {
        while let Some(bytes) = text.get(position..position + STRIDE).and_then(|bytes| <&[u8; STRIDE]>::try_from(bytes).ok()) {
            // Without a branch for each byte, this is a few instructions.
            if !bytes.iter().fold(true, |all, byte| all & is_plain(*byte)) {
                break;
            }
            position += STRIDE;
        }
        position += text[position..].iter().take_while(|byte| is_plain(**byte)).count();
        let start = position;
        loop {
            position += match text[position..] {
                [0xC3..=0xCB | 0xD0 | 0xD1, 0x80..=0xBF, ..] => 2,
                [0xE5..=0xE9, 0x80..=0xBF, 0x80..=0xBF, ..] => 3,
                _ => break,
            };
        }
        if start == position {
            return position;
        }
    }
}

/// Returns the length of the first character and the character, if the bytes
/// begin with one.
fn first(bytes: &[u8]) -> (usize, Option<char>) {
    let length = match bytes[0] {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    let character = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|text| text.chars().next());
    (if character.is_some() { length } else { 1 }, character)
}

/// Returns whether the character at `position` has nothing before it that a
/// mark belongs on.
fn hangs(text: &[u8], position: usize, written: usize) -> bool {
    // Nothing, or an escape that was just written.
    if position == written {
        return true;
    }
    // An escape that the text has itself, of one letter or of four digits.
    let is_escape = |length| position >= length && text[position - length] == b'\\';
    !(text[position - 1].is_ascii_alphanumeric() || text[position - 1] >= 0x80) || is_escape(2) || is_escape(6)
}

fn write_escape(character: char, out: &mut impl Write) -> io::Result<()> {
    let mut units = [0; 2];
    character.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

/// Returns a text with everything that is unseen, line ends too, as the `\u`
/// escapes of JSON.
#[must_use]
pub fn escape_deceptive(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    // A vector takes every byte.
    let _ = write(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The same for a text of several lines, which stay.
#[must_use]
pub fn escape_deceptive_lines(text: &str) -> String {
    text.split('\n').map(escape_deceptive).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    #[test]
    fn what_is_passed_over_unread_is_visible() {
        let passed: Vec<char> = every().filter(|character| plain_end(character.to_string().as_bytes(), 0) > 0).collect();
        assert_eq!(passed.len(), 95 + 0x240 + 0x80 + 0x5000);
        for character in passed {
            assert!(!is_unseen(character) && !is_mark(character), "{character:?}");
        }
    }

    #[test]
    fn the_known_ones_are_unseen_and_letters_are_not() {
        let ranges = "0-1F 7F-A0 AD 34F 61C 115F-1160 1680 17B4-17B5 180B-180F 2000-200F 2028-202F 205F-206F 2800 3000 3164 \
            D7FC E000-F8FF FDD0-FDEF FE00-FE0F FEFF FFA0 FFF0-FFFC FFFE-FFFF 1BCA0-1BCA3 1D159 1D173-1D17A E0000-E0FFF F0000-10FFFF";
        for range in ranges.split_whitespace() {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let number = |text| u32::from_str_radix(text, 16).unwrap();
            for character in (number(from)..=number(to)).filter_map(char::from_u32) {
                assert!(is_unseen(character), "{:x}", u32::from(character));
            }
        }
        for character in "aZ0 ~ÄßяЁЇאבעربفارسی漢字カ한국हिन्दीไทย€№«»—…🙂❤→".chars() {
            assert!(!is_unseen(character), "{character:?}");
        }
    }

    #[test]
    fn escapes_mean_the_same_to_a_reader_of_json() {
        let text: String = every().flat_map(|character| [character, 'x']).collect();
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        let escaped = escape_deceptive(&quoted);
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        assert!(!escaped.chars().any(is_unseen));
    }

    #[test]
    fn a_mark_without_a_letter_is_shown() {
        assert_eq!(escape_deceptive("\"\u{301}a\u{301}\""), "\"\\u0301a\u{301}\"");
        assert_eq!(escape_deceptive("\"\\n\u{301} \u{338}\\u0041\u{301}\""), "\"\\n\\u0301 \\u0338\\u0041\\u0301\"");
        assert_eq!(escape_deceptive("1\u{fe0f}\u{20e3}"), "1\\ufe0f\\u20e3");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut out = Vec::new();
        write(b"a\x9b\xe2\x80b\xf0\x9f", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\ufffd\\ufffd\\ufffdb\\ufffd\\ufffd");
    }

    #[test]
    fn lines_stay_where_they_may() {
        assert_eq!(escape_deceptive("a\nb\u{1b}"), "a\\u000ab\\u001b");
        assert_eq!(escape_deceptive_lines("a\nb\u{1b}\n"), "a\nb\\u001b\n");
    }
}
