//! The body of a delivery as a value: a form (documented) or JSON.
//!
//! Whoever can reach the port can send a body, and it is decoded before its
//! token can be looked at. So the number of values and the nesting are bounded
//! before anything is built from them.

use crate::json;
use crate::query_string::{Bounds, decode_within};
use serde_json::{Map, Value};

/// Values and nesting of a body. The largest documented payloads, those of
/// chat bots, have about a hundred values and five levels.
const BOUNDS: Bounds = Bounds { pairs: 2_000, depth: 16 };

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/x-www-form-urlencoded`
    Form,
    /// `application/json`
    Json,
}

impl Media {
    /// Reads a `Content-Type`; parameters behind a semicolon do not matter.
    pub(super) fn of(content_type: &str) -> Option<Media> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Some(Media::Form),
            "application/json" => Some(Media::Json),
            _ => None,
        }
    }
}

/// Decodes a body; `None` when it is malformed or out of bounds.
pub(super) fn decode(media: Media, body: &[u8]) -> Option<Map<String, Value>> {
    let text = std::str::from_utf8(body).ok()?;
    match media {
        Media::Form if has_stray_percent(text) => None,
        Media::Form => decode_within(text.trim(), BOUNDS).ok(),
        Media::Json if !is_bounded(text) => None,
        Media::Json => match json::parse_strict(text).ok()? {
            Value::Object(root) => Some(root),
            _ => None,
        },
    }
}

/// Whether a percent sign is not followed by two hex digits. A browser would
/// let it stand for itself; nobody who encodes a form writes one.
fn has_stray_percent(text: &str) -> bool {
    text.split('%').skip(1).any(|rest| rest.len() < 2 || !rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a JSON text stays in bounds; counts brackets and commas outside of
/// strings, without building anything.
fn is_bounded(text: &str) -> bool {
    let (mut depth, mut values, mut in_string, mut is_escaped) = (0_usize, 0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > BOUNDS.depth || values > BOUNDS.pairs {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_form_becomes_a_value() {
        let body =
            b"event=ONCRMDEALADD&event_handler_id=185&data%5BFIELDS%5D%5BID%5D=7405&ts=1&auth[member_id]=m&data[BOT][567][X]=a%20b+c";
        let expected = json!({
            "event": "ONCRMDEALADD", "event_handler_id": "185",
            "data": {"FIELDS": {"ID": "7405"}, "BOT": {"567": {"X": "a b c"}}}, "ts": "1", "auth": {"member_id": "m"},
        });
        assert_eq!(decode(Media::Form, body).map(Value::Object), Some(expected));
        assert_eq!(decode(Media::Json, br#"{"event":"X","data":[]}"#).map(Value::Object), Some(json!({"event": "X", "data": []})));
    }

    #[test]
    fn malformed_bodies_are_nothing() {
        let many = "a=1&".repeat(2_001);
        let deep = format!("a{}=1", "[b]".repeat(16));
        for body in ["a=%", "a=%4", "a=%zz", "a=%c3%28", "a[b=1", "a=1&a=2", "a=1&a[b]=2", "[a]=1", &many, &deep] {
            assert_eq!(decode(Media::Form, body.as_bytes()), None, "{body:.40}");
        }
        let many = format!("{{\"a\":[{}1]}}", "1,".repeat(2_000));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(16), "]".repeat(16));
        for body in ["", "{", "[]", "\"x\"", "{\"a\":1,\"a\":2}", "{\"a\":\u{1}}", &many, &deep] {
            assert_eq!(decode(Media::Json, body.as_bytes()), None, "{body:.40}");
        }
        assert_eq!(decode(Media::Form, b"a=\xff"), None);
        assert!(decode(Media::Json, b"{\"a\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[\"}").is_some());
    }

    #[test]
    fn the_media_type_is_read_without_its_parameters() {
        assert_eq!(Media::of("Application/X-WWW-Form-Urlencoded; charset=UTF-8"), Some(Media::Form));
        assert_eq!(Media::of("application/json"), Some(Media::Json));
        for text in ["", "text/plain", "multipart/form-data; boundary=x", "application/jsonx"] {
            assert_eq!(Media::of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(body in prop::collection::vec(any::<u8>(), 0..80), text in "[a-c=&%\\[\\]0-9{}\",:]{0,60}") {
            for media in [Media::Form, Media::Json] {
                let _ = decode(media, &body);
                let _ = decode(media, text.as_bytes());
            }
        }
    }
}
