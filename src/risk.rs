//! What a call does to the portal: read, write or destructive.
//!
//! The class of a method is data (`catalog/classes.tsv`), judged page by page:
//! suffixes lie. Parameters that change it are data too
//! (`catalog/params.tsv`): a method must not do as a write what another does as
//! a destructive call. What is not known is destructive, never read.

#![deny(clippy::wildcard_enum_match_arm)]

mod rules;
mod walk;

use crate::method::Method;
use rules::{Condition, Place, Rule};
use serde_json::Value;
use std::fmt;
use walk::Walk;

/// The class of a call. The order matters: the strictest of several wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Changes nothing that a user of the portal could see or miss.
    Read,
    /// Creates or changes.
    Write,
    /// Deletes, empties, ends, consumes, or is unknown.
    Destructive,
}

impl Risk {
    /// Returns `read`, `write` or `destructive`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Risk::Read => "read",
            Risk::Write => "write",
            Risk::Destructive => "destructive",
        }
    }

    /// Parses a class.
    #[must_use]
    pub fn parse(text: &str) -> Option<Risk> {
        [Risk::Read, Risk::Write, Risk::Destructive].into_iter().find(|risk| risk.text() == text)
    }

    /// Returns the option by which a person consents, if consent is needed.
    #[must_use]
    pub fn option(self) -> Option<&'static str> {
        match self {
            Risk::Read => None,
            Risk::Write => Some("--confirm-write"),
            Risk::Destructive => Some("--confirm-destructive"),
        }
    }
}

/// What carries a call. In a batch a text may be a reference.
#[derive(Clone, Copy)]
pub enum Carrier<'a> {
    /// A request of its own.
    Single,
    /// A batch, with whether an object may stand under these keys.
    Batch(&'a dyn Fn(&[String]) -> bool),
}

/// How a parameter made a call stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By its value.
    With,
    /// By not being there.
    Without,
    /// By being a reference, whose value nobody knows.
    Reference,
}

impl How {
    /// Returns `with`, `without` or `reference`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            How::With => "with",
            How::Without => "without",
            How::Reference => "reference",
        }
    }
}

/// The parameter that made a call stricter than it would be without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Where it stands, as a user writes it: `fields[LIST][0][DEL]`. Empty for
    /// the parameters as a whole.
    pub place: String,
    /// How it did.
    pub how: How,
    /// What it does, in our words.
    pub why: &'static str,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() { "the parameters" } else { &self.place };
        match self.how {
            How::With => write!(f, "with `{place}`"),
            How::Without => write!(f, "without `{place}`"),
            How::Reference => write!(f, "with a reference in `{place}`"),
        }
    }
}

/// The class of one call, and what made it stricter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rating {
    /// The class.
    pub risk: Risk,
    /// The parameter that decided, if one did.
    pub cause: Option<Cause>,
}

/// A parameter that decides the class of a method's calls.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Deciding {
    /// Its place: `fields[LIST][*][DEL]`.
    pub param: String,
    /// The class that it makes.
    pub risk: Risk,
    /// When it does.
    pub when: &'static str,
    /// What it does then.
    pub why: &'static str,
    /// Whether it is a parameter of this method, and not a mark that counts in
    /// every write.
    #[serde(skip)]
    pub is_own: bool,
}

/// Returns the class of one call. `class` is the catalog's, `None` for a method
/// that is not documented.
#[must_use]
pub fn rate(method: &Method, class: Option<Risk>, params: &Value, carrier: Carrier<'_>) -> Rating {
    let Some(class) = class else { return Rating { risk: Risk::Destructive, cause: None } };
    let rules = rules::of(method);
    let walk = Walk { carrier, rules: &rules };
    let (marks, own): (Vec<&Rule>, Vec<&Rule>) =
        rules.iter().filter(|rule| rule.condition != Condition::Own).partition(|rule| rule.place == Place::Marks);
    let broken = |rules: &[&Rule]| rules.iter().find_map(|rule| Some((rule.strict, walk.broken(rule, params)?)));
    if let Some((risk, cause)) = broken(&own) {
        return Rating { risk, cause: Some(cause) };
    }
    let risk = own.first().map_or(class, |rule| rule.mild);
    // A mark makes a write destructive; what only reads has filters of any name.
    match (risk == Risk::Write).then(|| broken(&marks)).flatten() {
        Some((risk, cause)) => Rating { risk, cause: Some(cause) },
        None => Rating { risk, cause: None },
    }
}

/// Returns the parameters that decide the class of a documented method's calls.
#[must_use]
pub fn deciding(method: &Method, class: Risk) -> Vec<Deciding> {
    let rules = rules::of(method);
    let own = rules.iter().filter(|rule| rule.condition != Condition::Own && (rule.place != Place::Marks || class == Risk::Write));
    let deciding = |rule: &Rule| Deciding {
        param: rule.param(),
        risk: rule.strict,
        when: rule.words(),
        why: rule.why,
        is_own: rule.place != Place::Marks,
    };
    own.map(deciding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use serde_json::json;

    fn class(name: &str, params: &Value) -> Risk {
        let method = Method::parse(name).unwrap();
        let entry = catalog::generations(&method).into_iter().flatten().next();
        rate(&method, entry.map(|entry| entry.class), params, Carrier::Single).risk
    }

    #[test]
    fn methods_that_the_python_script_took_for_reads() {
        for name in [
            "bizproc.workflow.kill",
            "bizproc.workflow.terminate",
            "sonet_group.create",
            "disk.folder.deletetree",
            "timeman.open",
            "im.chat.leave",
            "tasks.task.delegate",
            "imopenlines.crm.lead.create",
            "im.notify.read.list",
            "disk.file.getExternalLink",
            "landing.landing.publication",
            "event.test",
        ] {
            assert!(class(name, &json!({})) > Risk::Read, "{name}");
        }
    }

    #[test]
    fn the_offline_queue_is_never_read() {
        assert_eq!(class("event.offline.get", &json!({})), Risk::Destructive);
        assert_eq!(class("event.offline.get", &json!({"clear": 1})), Risk::Destructive);
        assert_eq!(class("event.offline.get", &json!({"clear": false})), Risk::Destructive);
        assert_eq!(class("event.offline.get", &json!({"CLEAR": 0})), Risk::Destructive);
        assert_eq!(class("event.offline.get", &json!({"clear": 1, "process_id": "x"})), Risk::Destructive);
        for clear in [json!(null), json!(""), json!("00"), json!(" 0"), json!(0.0), json!([0]), json!({"0": 0}), json!("$result[a]")] {
            assert_eq!(class("event.offline.get", &json!({"clear": clear, "process_id": "x"})), Risk::Destructive, "{clear}");
        }
        assert_eq!(class("event.offline.get", &json!({"process_id": "x"})), Risk::Destructive);
        assert_eq!(class("event.offline.get", &json!({"clear": "0"})), Risk::Write);
        assert_eq!(class("event.offline.get", &json!({"clear": 0, "process_id": "x"})), Risk::Write);
        assert_eq!(class("event.offline.error", &json!({"process_id": "x", "message_id": ["y"]})), Risk::Destructive);
    }

    #[test]
    fn parameters_decide_where_a_method_does_several_things() {
        assert!(class("imbot.v2.Event.get", &json!({"offset": 4})) > Risk::Read);
        assert_eq!(class("imbot.v2.Event.get", &json!({"limit": 4})), Risk::Read);
        assert_eq!(class("entity.rights", &json!({"ENTITY": "x"})), Risk::Read);
        assert!(class("entity.rights", &json!({"ENTITY": "x", "access": {}})) > Risk::Read);
        assert_eq!(class("im.message.update", &json!({"MESSAGE_ID": 1, "MESSAGE": ""})), Risk::Destructive);
        assert_eq!(class("im.message.update", &json!({"MESSAGE_ID": 1})), Risk::Destructive);
        assert_eq!(class("im.message.update", &json!({"MESSAGE_ID": 1, "MESSAGE": "x"})), Risk::Write);
        assert_eq!(class("user.update", &json!({"ID": 1, "NAME": "x"})), Risk::Write);
        assert_eq!(class("user.update", &json!({"ID": 1, "ACTIVE": false})), Risk::Destructive);
        assert_eq!(class("user.update", &json!({"ID": 1, "ACTIVE": "Y"})), Risk::Write);
        assert_eq!(class("user.update", &json!({"ID": 1, "Active": true})), Risk::Write);
        for no in [
            json!("N"),
            json!(""),
            json!(" n"),
            json!("no"),
            json!(0.0),
            json!(-1),
            json!(null),
            json!([]),
            json!(["N"]),
            json!({"0": "N"}),
        ] {
            assert_eq!(class("user.update", &json!({"ID": 1, "active": no})), Risk::Destructive, "{no}");
        }
    }

    #[test]
    fn unknown_is_never_read() {
        assert_eq!(class("crm.lead.lst", &json!({})), Risk::Destructive);
        assert_eq!(class("no.such.list", &json!({})), Risk::Destructive);
    }

    #[test]
    fn a_new_text_of_nothing_but_space_is_none() {
        for (params, expected) in [
            (json!({"MESSAGE_ID": 1, "MESSAGE": "x"}), Risk::Write),
            (json!({"MESSAGE_ID": 1, "MESSAGE": ""}), Risk::Destructive),
            (json!({"MESSAGE_ID": 1, "MESSAGE": " "}), Risk::Destructive),
            (json!({"MESSAGE_ID": 1, "MESSAGE": " \t\n "}), Risk::Destructive),
            (json!({"MESSAGE_ID": 1, "MESSAGE": null}), Risk::Destructive),
            (json!({"MESSAGE_ID": 1}), Risk::Destructive),
        ] {
            assert_eq!(class("im.message.update", &params), expected, "{params}");
        }
    }
}
