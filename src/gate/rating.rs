//! The class of each call of a request, and which parameter made it so.

#![deny(clippy::wildcard_enum_match_arm)]

use super::Rated;
use crate::call::Call;
use crate::catalog::{self, Api, Details};
use crate::risk::{self, Carrier, Cause, Rating, Risk};
use crate::settings::Policy;

/// Returns the class of a call; a pack of the user's may make it stricter.
pub(super) fn rate(call: &Call, is_batch: bool, policy: &Policy) -> Rating {
    let entry = catalog::find(&call.method, call.api);
    let own = policy.allowlist.own_class(&call.method);
    let details = if is_batch { entry.and_then(|entry| entry.details()) } else { None };
    let may_be_object = |keys: &[String]| may_be_object(details.as_ref(), keys);
    let carrier = if is_batch { Carrier::Batch(&may_be_object) } else { Carrier::Single };
    let rating = risk::rate(&call.method, entry.map(|entry| entry.class).or(own), &call.params, carrier);
    match own {
        Some(own) if own > rating.risk => Rating { risk: own, cause: None },
        Some(_) | None => rating,
    }
}

/// Returns whether the page lets an object, a file or a list of objects stand
/// under these keys; for a parameter that it does not know it may.
fn may_be_object(details: Option<&Details>, keys: &[String]) -> bool {
    let Some(details) = details else { return true };
    match keys {
        [param] => kind_of(&details.params, param).is_none_or(|kind| is_object(&kind) || is_list(&kind)),
        [param, member] => {
            let members = details.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(param));
            members.and_then(|(_, rows)| kind_of(rows, member)).is_some_and(|kind| is_object(&kind))
        }
        _ => false,
    }
}

/// Returns the documented type under a key, or at a place of a positional
/// method.
fn kind_of(rows: &[(String, String, bool)], key: &str) -> Option<String> {
    let named = rows.iter().find(|(name, ..)| name.eq_ignore_ascii_case(key));
    let row = named.or_else(|| rows.get(key.parse::<usize>().ok()?))?;
    Some(row.1.to_ascii_lowercase())
}

fn is_object(kind: &str) -> bool {
    let is_reference_to_a_record = kind.split('.').nth(1) == Some("id");
    !is_reference_to_a_record && ["object", "file", "multifield", "element", "dto"].iter().any(|word| kind.contains(word))
}

fn is_list(kind: &str) -> bool {
    kind.split('|').any(|kind| ["any", "array"].contains(&kind))
}

/// What the strictest call of a request is.
pub(super) struct Strictest {
    pub(super) risk: Risk,
    pub(super) name: String,
    pub(super) api: Api,
    pub(super) cause: Option<Box<Decided>>,
}

/// What made a call stricter, and which command of a batch it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The parameter.
    pub cause: Cause,
    /// The command; empty for a single call.
    pub command: String,
}

impl Rated {
    pub(super) fn strictest(&self) -> Strictest {
        let calls = self.risks.iter().zip(&self.causes).zip(self.request.calls());
        let Some(((risk, cause), (command, call))) = calls.max_by_key(|((risk, _), _)| **risk) else {
            return Strictest { risk: Risk::Destructive, name: "batch".to_owned(), api: Api::V2, cause: None };
        };
        let decided = |cause: &Cause| Box::new(Decided { cause: cause.clone(), command: command.to_owned() });
        Strictest { risk: *risk, name: call.name.clone(), api: call.api, cause: cause.as_ref().map(decided) }
    }
}
