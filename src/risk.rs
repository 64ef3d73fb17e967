//! What a call does to the portal: read, write or destructive.
//!
//! Nothing is a read by default. A method is a read only if its last word is
//! in the closed table of words that are known to be queries and no exception
//! says otherwise; every other method is a write, and destructive words and
//! unknown methods are destructive.

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

/// Last words of method names that are queries in every documented method
/// that has them, apart from [`EXCEPTIONS`].
const QUERY_WORDS: &[&str] = &[
    "access",
    "admin",
    "checkcontent",
    "children",
    "count",
    "countries",
    "current",
    "documentation",
    "download",
    "events",
    "fields",
    "findbycomm",
    "get",
    "getaccess",
    "getadditionalfields",
    "getallowedactions",
    "getallowedtaskactionsasstrings",
    "getavailableforpayment",
    "getbyid",
    "getchildren",
    "getcontent",
    "getcontext",
    "getdata",
    "getdescription",
    "getfields",
    "getfieldsbyfilter",
    "getfieldsbytype",
    "getfiles",
    "getlist",
    "getmanifest",
    "getmany",
    "getrights",
    "gettypes",
    "getversions",
    "info",
    "instances",
    "isactionallowed",
    "isexists",
    "items",
    "list",
    "listcontacts",
    "listemployees",
    "log",
    "methods",
    "multidepartment",
    "name",
    "nearest",
    "openapi",
    "profile",
    "scope",
    "search",
    "senders",
    "status",
    "subordinates",
    "tail",
    "text",
    "time",
    "types",
];

/// Beginnings of last words that take something away for good.
const DESTRUCTIVE_STARTS: &[&str] = &[
    "clear",
    "delete",
    "drop",
    "kill",
    "markdelete",
    "mergebatch",
    "purge",
    "recyclebin",
    "remove",
    "reset",
    "terminate",
    "unbind",
    "unregister",
    "unset",
];

/// Methods whose class their last word does not tell.
const EXCEPTIONS: &[(&str, Rule)] = &[
    ("event.offline.get", Rule::OfflineGet),
    ("im.notify.read.list", Rule::Always(Risk::Write)),
    ("im.v2.event.get", Rule::ConfirmsByOffset),
    ("imbot.v2.event.get", Rule::ConfirmsByOffset),
    ("imconnector.delete.messages", Rule::Always(Risk::Destructive)),
];

enum Rule {
    Always(Risk),
    /// Deletes what it returns, unless `clear=0` or a `process_id` is given;
    /// even then it hides rows for up to 30 days
    /// (b24restdocs: api-reference/events/event-offline-get.md).
    OfflineGet,
    /// With `offset` it confirms, and so consumes, the events before it
    /// (b24restdocs: api-reference/chat-bots/chat-bots-v2/imbot.v2/events).
    ConfirmsByOffset,
}

/// Returns the class of one call. `known` says whether the method is
/// documented: an unknown one is destructive whatever its name.
#[must_use]
pub fn rate(method: &Method, known: bool, params: &Value) -> Risk {
    if !known {
        return Risk::Destructive;
    }
    if let Some((_, rule)) = EXCEPTIONS.iter().find(|(name, _)| *name == method.as_str()) {
        return match rule {
            Rule::Always(risk) => *risk,
            Rule::OfflineGet if keeps_events(params) => Risk::Write,
            Rule::ConfirmsByOffset if !has_param(params, "offset") => Risk::Read,
            Rule::OfflineGet | Rule::ConfirmsByOffset => Risk::Destructive,
        };
    }
    let word = method.verb();
    if DESTRUCTIVE_STARTS.iter().any(|start| word.starts_with(start)) {
        Risk::Destructive
    } else if QUERY_WORDS.contains(&word) {
        Risk::Read
    } else {
        Risk::Write
    }
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

fn has_param(params: &Value, name: &str) -> bool {
    params.as_object().is_some_and(|params| params.keys().any(|key| key.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(name: &str, params: &Value) -> Risk {
        let method = Method::parse(name).unwrap();
        rate(&method, crate::catalog::find(&method).is_some(), params)
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
        assert_eq!(class("imbot.v2.Event.get", &json!({"offset": 4})), Risk::Destructive);
        assert_eq!(class("imbot.v2.Event.get", &json!({"limit": 4})), Risk::Read);
    }

    #[test]
    fn unknown_is_never_read() {
        assert_eq!(class("crm.lead.lst", &json!({})), Risk::Destructive);
        assert_eq!(class("no.such.list", &json!({})), Risk::Destructive);
    }

    #[test]
    fn every_query_word_is_used() {
        for word in QUERY_WORDS {
            assert!(crate::catalog::entries().any(|entry| entry.folded.rsplit('.').next() == Some(word)), "{word}");
        }
    }
}
