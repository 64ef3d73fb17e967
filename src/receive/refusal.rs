//! How a request that is not accepted is answered, counted and reported.
//!
//! The answers say as little as the portal needs: nothing of them helps to
//! find the token.

use super::alarm::AlarmKind;
use super::delivery::{event_name, host_name};
use serde_json::{Map, Value};
use std::time::Duration;

/// What a request claims to be; proved by nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) event: Option<String>,
    pub(super) domain: Option<String>,
}

impl Claim {
    pub(super) fn of(payload: &Map<String, Value>) -> Claim {
        let domain = payload.get("auth").and_then(|auth| auth["domain"].as_str()).and_then(host_name);
        Claim { event: payload.get("event").and_then(Value::as_str).and_then(event_name), domain }
    }
}

/// Why a request is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound,
    WrongVerb,
    WrongMedia,
    TooLarge,
    TooSlow,
    Malformed(Claim),
    MissingToken(Claim),
    WrongToken(Claim),
    TooFast(Claim, Duration),
    Unavailable(Claim),
}

impl Refusal {
    /// Returns the status of the answer.
    pub(super) fn status(&self) -> u16 {
        match self {
            Refusal::NotFound => 404,
            Refusal::WrongVerb => 405,
            Refusal::WrongMedia => 415,
            Refusal::TooLarge => 413,
            Refusal::TooSlow => 408,
            Refusal::Malformed(_) => 400,
            Refusal::MissingToken(_) | Refusal::WrongToken(_) => 403,
            Refusal::TooFast(..) => 429,
            Refusal::Unavailable(_) => 503,
        }
    }

    /// Returns the header that belongs to the status, if one does.
    pub(super) fn header(&self) -> Option<(&'static str, String)> {
        match self {
            Refusal::WrongVerb => Some(("allow", "POST".to_owned())),
            Refusal::TooFast(_, wait) => Some(("retry-after", wait.as_secs_f64().ceil().max(1.0).to_string())),
            // The rest of the body is not read.
            Refusal::TooLarge | Refusal::TooSlow | Refusal::WrongMedia => Some(("connection", "close".to_owned())),
            Refusal::NotFound | Refusal::Malformed(_) | Refusal::MissingToken(_) | Refusal::WrongToken(_) | Refusal::Unavailable(_) => None,
        }
    }

    /// Returns what to tell the owner; nothing for what is no event at all.
    pub(super) fn alarm(&self) -> Option<(AlarmKind, Claim)> {
        match self {
            Refusal::NotFound | Refusal::WrongVerb => None,
            Refusal::WrongMedia | Refusal::TooSlow => Some((AlarmKind::Malformed, Claim::default())),
            Refusal::TooLarge => Some((AlarmKind::TooLarge, Claim::default())),
            Refusal::Malformed(claim) => Some((AlarmKind::Malformed, claim.clone())),
            Refusal::MissingToken(claim) => Some((AlarmKind::MissingToken, claim.clone())),
            Refusal::WrongToken(claim) => Some((AlarmKind::WrongToken, claim.clone())),
            Refusal::TooFast(claim, _) => Some((AlarmKind::TooFast, claim.clone())),
            Refusal::Unavailable(claim) => Some((AlarmKind::Unavailable, claim.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_keeps_only_what_looks_right() {
        let claim = |payload: Value| Claim::of(payload.as_object().unwrap());
        let good = claim(json!({"event": "onCrmDealAdd", "auth": {"domain": "Acme.bitrix24.com"}}));
        assert_eq!(good, Claim { event: Some("ONCRMDEALADD".to_owned()), domain: Some("acme.bitrix24.com".to_owned()) });
        assert_eq!(claim(json!({"event": "\u{1b}[2J", "auth": {"domain": "a b"}})), Claim::default());
        assert_eq!(claim(json!({"event": {"a": 1}, "auth": "x"})), Claim::default());
    }

    #[test]
    fn the_wait_is_told_in_whole_seconds() {
        let refusal = Refusal::TooFast(Claim::default(), Duration::from_millis(1_200));
        assert_eq!(refusal.header(), Some(("retry-after", "2".to_owned())));
    }
}
