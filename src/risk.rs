//! What a call does to the portal: read, write or destructive.
//!
//! The class of a method is data (`catalog/classes.tsv`), judged page by page:
//! suffixes lie. Here stand the few rules by which parameters change it, and
//! what holds for a method that is not known: it is destructive, never read.

#![deny(clippy::wildcard_enum_match_arm)]

use crate::method::Method;
use serde_json::Value;

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

/// Methods that do several things, told apart by their parameters.
const RULES: &[(&str, Rule)] = &[
    ("entity.rights", Rule::ReadsWithout("ACCESS")),
    ("event.offline.get", Rule::OfflineGet),
    ("im.message.update", Rule::DeletesWhenEmpty("MESSAGE")),
    ("im.v2.event.get", Rule::ReadsWithout("offset")),
    ("imbot.message.update", Rule::DeletesWhenEmpty("MESSAGE")),
    ("imbot.v2.event.get", Rule::ReadsWithout("offset")),
    // Dismisses the user (b24restdocs: api-reference/user/user-update.md).
    ("user.update", Rule::DestructiveUnless("ACTIVE", &["y", "1", "true"])),
];

enum Rule {
    /// Deletes what it returns, unless `clear=0` or a `process_id` is given;
    /// even then it hides rows for up to 30 days
    /// (b24restdocs: api-reference/events/event-offline-get.md).
    OfflineGet,
    /// Only reads without this parameter: with `offset`, events before it are
    /// confirmed and so consumed; with `ACCESS`, rights are replaced.
    ReadsWithout(&'static str),
    /// Takes something away unless the parameter is missing or has one of
    /// these values: PHP takes many other things for "no", too.
    DestructiveUnless(&'static str, &'static [&'static str]),
    /// Deletes the message when its new text is empty
    /// (b24restdocs: api-reference/chats/messages/im-message-update.md).
    DeletesWhenEmpty(&'static str),
}

/// Returns the class of one call. `class` is the catalog's, `None` for a method
/// that is not documented.
#[must_use]
pub fn rate(method: &Method, class: Option<Risk>, params: &Value) -> Risk {
    let Some(class) = class else { return Risk::Destructive };
    match RULES.iter().find(|(name, _)| *name == method.as_str()) {
        None => class,
        Some((_, Rule::OfflineGet)) if keeps_events(params) => Risk::Write,
        Some((_, Rule::OfflineGet)) => Risk::Destructive,
        Some((_, Rule::ReadsWithout(name))) if param(params, name).is_none() => Risk::Read,
        Some((_, Rule::ReadsWithout(_))) => class.max(Risk::Write),
        Some((_, Rule::DestructiveUnless(name, values))) => match param(params, name) {
            None => class,
            Some(value) if values.contains(&value.to_string().trim_matches('"').to_ascii_lowercase().as_str()) => class,
            Some(_) => Risk::Destructive,
        },
        Some((_, Rule::DeletesWhenEmpty(name))) => match param(params, name) {
            Some(Value::String(text)) if !text.trim().is_empty() => class,
            _ => Risk::Destructive,
        },
    }
}

/// Returns whether the class of a documented method depends on what it is given.
#[must_use]
pub fn depends_on_params(method: &Method) -> bool {
    RULES.iter().any(|(name, _)| *name == method.as_str())
}

/// Returns whether `event.offline.get` is asked to keep what it returns. Only
/// the documented spellings count; anything doubtful is the default, which
/// deletes.
fn keeps_events(params: &Value) -> bool {
    match params.get("clear") {
        Some(Value::Number(number)) => number.to_string() == "0",
        Some(Value::String(text)) => text == "0",
        Some(_) => false,
        None => matches!(params.get("process_id"), Some(Value::String(id)) if !id.is_empty()),
    }
}

fn param<'a>(params: &'a Value, name: &str) -> Option<&'a Value> {
    params.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use serde_json::json;

    fn class(name: &str, params: &Value) -> Risk {
        let method = Method::parse(name).unwrap();
        let entry = catalog::generations(&method).into_iter().flatten().next();
        rate(&method, entry.map(|entry| entry.class), params)
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
        assert_eq!(class("event.offline.get", &json!({"clear": "0"})), Risk::Write);
        assert_eq!(class("event.offline.get", &json!({"process_id": "x"})), Risk::Write);
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
    fn every_rule_is_for_a_documented_method() {
        for (name, _) in RULES {
            let method = Method::parse(name).unwrap();
            assert!(catalog::generations(&method)[0].is_some(), "{name}");
        }
    }
}
