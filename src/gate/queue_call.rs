//! The calls that a worker of the offline queue makes without a flag for each.
//!
//! `b24 queue work` is standing consent for exactly these four forms, and for
//! nothing else: the form is a type, the request is made here, and it passes
//! every other step like any call. Packs, the read-only switch and a required
//! plan hold.

#![deny(clippy::wildcard_enum_match_arm)]

use super::{Appraised, Consent, Proposal, Refusal, Reviewed, appraise};
use crate::catalog::Api;
use crate::risk::Risk;
use crate::settings::Policy;
use serde_json::{Value, json};

/// A call to the offline queue that keeps what it returns, or names what it
/// clears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueCall {
    /// `event.offline.get` with `clear=0`: takes events under a new
    /// reservation.
    Reserve {
        /// How many at most.
        limit: u32,
        /// `auth_connector`.
        connector: Option<String>,
    },
    /// `event.offline.get` with `clear=0` and a `process_id`: reads a
    /// reservation again.
    Reread {
        /// The reservation.
        process: String,
        /// How many at most.
        limit: u32,
        /// `auth_connector`.
        connector: Option<String>,
    },
    /// `event.offline.error`: marks events as failed. The portal deletes every
    /// other unmarked row of the same messages, also what changed since and
    /// what another process holds; all of them must be named.
    MarkFailed {
        /// The reservation.
        process: String,
        /// `MESSAGE_ID`s.
        messages: Vec<String>,
        /// `auth_connector`.
        connector: Option<String>,
    },
    /// `event.offline.clear` with ids. Without ids it would clear the whole
    /// reservation, so there must be some.
    Clear {
        /// The reservation.
        process: String,
        /// `ID`s of the rows.
        rows: Vec<String>,
        /// `auth_connector`.
        connector: Option<String>,
    },
}

impl QueueCall {
    /// Returns the method that is called.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            QueueCall::Reserve { .. } | QueueCall::Reread { .. } => "event.offline.get",
            QueueCall::MarkFailed { .. } => "event.offline.error",
            QueueCall::Clear { .. } => "event.offline.clear",
        }
    }

    fn proposal(&self) -> Proposal {
        // The label counts in all four: self-hosted portals do not find the
        // rows of a labelled queue without it, and answer `true` all the same.
        let (params, connector) = match self {
            QueueCall::Reserve { limit, connector } => (json!({"clear": 0, "limit": limit}), connector),
            QueueCall::Reread { process, limit, connector } => (json!({"clear": 0, "process_id": process, "limit": limit}), connector),
            QueueCall::MarkFailed { process, messages, connector } => (json!({"process_id": process, "message_id": messages}), connector),
            QueueCall::Clear { process, rows, connector } => (json!({"process_id": process, "id": rows}), connector),
        };
        Proposal { name: self.method().to_owned(), params: with_connector(params, connector.as_deref()), api: Some(Api::V2) }
    }

    /// Returns whether every list and name that narrows the call is there.
    fn is_narrow(&self) -> bool {
        let named = |names: &[String]| !names.is_empty() && names.iter().all(|name| !name.is_empty());
        match self {
            QueueCall::Reserve { limit, .. } => *limit > 0,
            QueueCall::Reread { process, limit, .. } => !process.is_empty() && *limit > 0,
            QueueCall::MarkFailed { process, messages: names, .. } | QueueCall::Clear { process, rows: names, .. } => {
                !process.is_empty() && named(names)
            }
        }
    }

    /// Returns the class that the call must have and no more.
    fn risk(&self) -> Risk {
        match self {
            QueueCall::Reserve { .. } | QueueCall::Reread { .. } => Risk::Write,
            QueueCall::MarkFailed { .. } | QueueCall::Clear { .. } => Risk::Destructive,
        }
    }
}

fn with_connector(mut params: Value, connector: Option<&str>) -> Value {
    if let Some(connector) = connector {
        params["auth_connector"] = Value::from(connector);
    }
    params
}

/// Passes a call to the offline queue through every step before the ledger.
pub fn review_queue_call(call: &QueueCall, policy: &Policy) -> Result<Reviewed, Refusal> {
    let appraised = appraise(call.proposal(), policy)?;
    let unconfirmed = |appraised: &Appraised| {
        let request = appraised.request();
        Refusal::Unconfirmed { name: request.wire_name().to_owned(), api: request.api(), risk: appraised.risk(), cause: None }
    };
    if !call.is_narrow() || appraised.risk() > call.risk() {
        return Err(unconfirmed(&appraised));
    }
    appraised.confirm(policy, Consent { write: true, destructive: call.risk() == Risk::Destructive }, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packs::Allowlist;

    fn policy(packs: &str) -> Policy {
        Policy {
            allowlist: Allowlist::parse(packs, "").unwrap(),
            allow_unlisted: false,
            allow_unknown_params: false,
            read_only: false,
            require_plan: false,
        }
    }

    fn calls() -> Vec<QueueCall> {
        let process = "p".to_owned();
        vec![
            QueueCall::Reserve { limit: 50, connector: Some("c".to_owned()) },
            QueueCall::Reread { process: process.clone(), limit: 50, connector: None },
            QueueCall::MarkFailed { process: process.clone(), messages: vec!["1".to_owned()], connector: None },
            QueueCall::Clear { process, rows: vec!["1".to_owned()], connector: Some("c".to_owned()) },
        ]
    }

    #[test]
    fn the_four_calls_pass_and_keep_their_class() {
        for call in calls() {
            assert_eq!(review_queue_call(&call, &policy("core")).map_err(|refusal| refusal.step()).unwrap().risk(), call.risk());
        }
    }

    #[test]
    fn packs_the_read_only_switch_and_plans_hold() {
        for call in calls() {
            assert!(matches!(review_queue_call(&call, &policy("none")), Err(Refusal::OutsidePacks { .. })));
            let read_only = Policy { read_only: true, ..policy("core") };
            assert!(matches!(review_queue_call(&call, &read_only), Err(Refusal::ReadOnly { .. })));
            let planned = Policy { require_plan: true, ..policy("core") };
            assert!(matches!(review_queue_call(&call, &planned), Err(Refusal::PlanRequired { .. })));
        }
    }

    #[test]
    fn a_call_that_would_clear_more_than_it_names_is_not_consented_to() {
        let process = "p".to_owned();
        for call in [
            QueueCall::Clear { process: process.clone(), rows: Vec::new(), connector: None },
            QueueCall::Clear { process: process.clone(), rows: vec![String::new()], connector: None },
            QueueCall::Clear { process: String::new(), rows: vec!["1".to_owned()], connector: None },
            QueueCall::MarkFailed { process, messages: Vec::new(), connector: None },
            QueueCall::Reread { process: String::new(), limit: 1, connector: None },
        ] {
            assert!(matches!(review_queue_call(&call, &policy("core")), Err(Refusal::Unconfirmed { .. })), "{call:?}");
        }
    }

    #[test]
    fn each_of_the_four_calls_says_what_it_means_and_bears_the_label_of_its_queue() {
        let (process, label) = (|| "p".to_owned(), || Some("c".to_owned()));
        for (call, method, params) in [
            (QueueCall::Reserve { limit: 50, connector: label() }, "event.offline.get", json!({"clear": 0, "limit": 50})),
            (
                QueueCall::Reread { process: process(), limit: 7, connector: label() },
                "event.offline.get",
                json!({"clear": 0, "process_id": "p", "limit": 7}),
            ),
            (
                QueueCall::MarkFailed { process: process(), messages: vec!["m".to_owned()], connector: label() },
                "event.offline.error",
                json!({"process_id": "p", "message_id": ["m"]}),
            ),
            (
                QueueCall::Clear { process: process(), rows: vec!["1".to_owned(), "2".to_owned()], connector: label() },
                "event.offline.clear",
                json!({"process_id": "p", "id": ["1", "2"]}),
            ),
        ] {
            let proposal = call.proposal();
            let mut expected = params.clone();
            expected["auth_connector"] = json!("c");
            assert_eq!((proposal.name.as_str(), proposal.params, proposal.api), (method, expected, Some(Api::V2)));
            let bare = match call {
                QueueCall::Reserve { limit, .. } => QueueCall::Reserve { limit, connector: None },
                QueueCall::Reread { process, limit, .. } => QueueCall::Reread { process, limit, connector: None },
                QueueCall::MarkFailed { process, messages, .. } => QueueCall::MarkFailed { process, messages, connector: None },
                QueueCall::Clear { process, rows, .. } => QueueCall::Clear { process, rows, connector: None },
            };
            assert_eq!(bare.proposal().params, params);
        }
    }

    #[test]
    fn every_name_that_narrows_a_call_must_be_there() {
        let (some, none) = (|| "p".to_owned(), String::new);
        for (call, is_narrow) in [
            (QueueCall::Reserve { limit: 1, connector: None }, true),
            (QueueCall::Reserve { limit: 0, connector: None }, false),
            (QueueCall::Reread { process: some(), limit: 1, connector: None }, true),
            (QueueCall::Reread { process: some(), limit: 0, connector: None }, false),
            (QueueCall::Reread { process: none(), limit: 1, connector: None }, false),
            (QueueCall::MarkFailed { process: some(), messages: vec![some()], connector: None }, true),
            (QueueCall::MarkFailed { process: none(), messages: vec![some()], connector: None }, false),
            (QueueCall::MarkFailed { process: some(), messages: vec![some(), none()], connector: None }, false),
            (QueueCall::Clear { process: some(), rows: vec![some()], connector: None }, true),
            (QueueCall::Clear { process: none(), rows: vec![some()], connector: None }, false),
            (QueueCall::Clear { process: some(), rows: vec![none(), some()], connector: None }, false),
        ] {
            assert_eq!(call.is_narrow(), is_narrow, "{call:?}");
            assert_eq!(review_queue_call(&call, &policy("core")).is_ok(), is_narrow, "{call:?}");
        }
    }
}
