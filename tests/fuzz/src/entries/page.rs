//! An answer on its way to a terminal.

use super::Read;
use b24::json::{self, Layout, Print};
use b24::secret::{Redactor, Secret};
use serde_json::Value;

/// A document, of a portal or of anybody.
pub(crate) fn document(bytes: &[u8]) -> Read {
    let note = serde_json::json!({"a": 1});
    let written = |document: &[u8], layout, note, mask| {
        let mut out = Vec::new();
        let masked = json::write_document(document, Print { layout, note, mask }, &mut out).expect("memory takes everything");
        (out, masked)
    };
    let (compact, _) = written(bytes, Layout::Compact, None, false);
    let (pretty, _) = written(bytes, Layout::Pretty, None, false);
    let (hidden, masked) = written(bytes, Layout::Compact, None, true);
    let (noted, _) = written(bytes, Layout::Compact, Some(&note), false);
    redacted(bytes);
    // What is no JSON is copied as far as it makes sense; nothing is promised.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Read::Refused };
    for text in [&compact, &pretty, &hidden, &noted] {
        let text = std::str::from_utf8(text).expect("JSON is UTF-8");
        assert!(!text.chars().any(|c| c != '\n' && json::is_unseen(c)), "{text:?}");
        assert!(!compact[..compact.len() - 1].contains(&b'\n'));
    }
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("what is printed is JSON");
    assert_eq!(read(&compact), value);
    assert_eq!(read(&pretty), value);
    assert_eq!(written(&pretty, Layout::Compact, None, false).0, compact);
    assert!(masked > 0 || hidden == compact, "something was masked and not counted");
    assert_eq!(read(&noted).get("_b24"), value.is_object().then_some(&note));
    let _ = read(&hidden);
    if let Ok(strict) = json::parse_strict(std::str::from_utf8(bytes).unwrap_or_default()) {
        let canonical = json::canonical(&strict);
        let again = json::parse_strict(&canonical).expect("the canonical form is JSON");
        assert_eq!(again, strict);
        assert_eq!(json::canonical(&again), canonical);
    }
    Read::Taken
}

/// A secret that stands somewhere in the bytes does not stand there any more.
fn redacted(bytes: &[u8]) {
    let mut redactor = Redactor::default();
    let secret = "canary-51856fefc120";
    redactor.learn(&Secret::new(secret.to_owned()));
    let middle = bytes.len() / 2;
    let joined = [&bytes[..middle], secret.as_bytes(), &bytes[middle..]].concat();
    assert!(redactor.finds(&joined));
    assert!(!redactor.finds(&redactor.redact(&joined)));
}
