//! The label of our own changes (`auth_connector`): what carries it is not
//! queued as an event for the subscriptions with the same label
//! (b24restdocs: api-reference/events/offline-events.md).
//!
//! Reads change nothing and carry none. A label that comes from the
//! environment and does not fit is left out; one that stands in the arguments
//! must fit.

use crate::catalog::{self, Api};
use crate::error::{Code, Failure};
use crate::gate::Proposal;
use crate::host::Host;
use crate::method::{Method, shown};
use crate::query_string::encode_pairs;
use crate::risk::Risk;
use serde_json::Value;

/// Returns the label: the option's, else the variable's.
pub(super) fn given(option: Option<&String>, host: &Host) -> Option<String> {
    option.map(String::as_str).or(host.env.get("B24_AUTH_CONNECTOR")).filter(|label| !label.is_empty()).map(str::to_owned)
}

/// Adds the label to a proposal.
pub(super) fn add(mut proposal: Proposal, label: Option<&str>, is_option: bool) -> Result<Proposal, Failure> {
    let Some(label) = label else { return Ok(proposal) };
    let Ok(method) = Method::parse(&proposal.name) else { return Ok(proposal) };
    let is_second = proposal.api != Some(Api::V3) && (method.is_batch() || generation(&method).is_none_or(|api| api == Api::V2));
    let fits = match &mut proposal.params {
        Value::Object(params) if is_second && method.is_batch() => {
            params.get_mut("cmd").into_iter().for_each(|commands| label_commands(commands, label));
            true
        }
        Value::Object(params) if is_second => {
            if takes_label(&method) {
                params.entry("auth_connector").or_insert(Value::from(label));
            }
            true
        }
        _ => !takes_label(&method),
    };
    match fits || !is_option {
        true => Ok(proposal),
        false => Err(Failure::new(Code::Usage, format!("--auth-connector does not go with {}", shown(&proposal.name)))
            .hint("It is a parameter of the second generation of the REST API")),
    }
}

/// A queue is read under its label, and only it.
fn takes_label(method: &Method) -> bool {
    let class = catalog::generations(method)[0].map(|entry| entry.class);
    class != Some(Risk::Read) || method.as_str().starts_with("event.offline.")
}

fn generation(method: &Method) -> Option<Api> {
    catalog::generations(method)[0].map(|entry| entry.api)
}

fn label_commands(commands: &mut Value, label: &str) {
    let texts: Vec<&mut Value> = match commands {
        Value::Object(commands) => commands.values_mut().collect(),
        Value::Array(commands) => commands.iter_mut().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for command in texts {
        let Value::String(text) = command else { continue };
        let (name, query) = text.split_once('?').unwrap_or((text, ""));
        let takes = Method::parse(name).is_ok_and(|method| takes_label(&method));
        if takes && !query.split('&').any(|pair| pair.starts_with("auth_connector=")) {
            let mark = if text.contains('?') { '&' } else { '?' };
            text.push(mark);
            text.push_str(&encode_pairs(std::iter::once(("auth_connector", label))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labelled(name: &str, params: Value, api: Option<Api>) -> Result<Value, Failure> {
        add(Proposal { name: name.to_owned(), params, api }, Some("a b"), true).map(|proposal| proposal.params)
    }

    #[test]
    fn writes_and_the_queue_carry_the_label_and_reads_do_not() {
        assert_eq!(labelled("crm.deal.add", json!({}), None).unwrap(), json!({"auth_connector": "a b"}));
        assert_eq!(labelled("crm.deal.add", json!({"auth_connector": "own"}), None).unwrap(), json!({"auth_connector": "own"}));
        assert_eq!(labelled("event.offline.list", json!({}), None).unwrap(), json!({"auth_connector": "a b"}));
        assert_eq!(labelled("crm.deal.list", json!({}), None).unwrap(), json!({}));
    }

    #[test]
    fn in_a_batch_each_write_carries_it() {
        let cmd = json!({"a": "crm.deal.add?fields[TITLE]=x", "b": "crm.deal.list", "c": "crm.deal.delete?id=1&auth_connector=own", "d": "user.update"});
        let sent = labelled("batch", json!({"cmd": cmd}), None).unwrap();
        assert_eq!(
            sent["cmd"],
            json!({"a": "crm.deal.add?fields[TITLE]=x&auth_connector=a%20b", "b": "crm.deal.list",
                "c": "crm.deal.delete?id=1&auth_connector=own", "d": "user.update?auth_connector=a%20b"})
        );
    }

    #[test]
    fn where_it_does_not_fit_the_option_is_refused() {
        assert!(labelled("tasks.task.add", json!({}), Some(Api::V3)).is_err());
        let proposal = Proposal { name: "tasks.task.add".to_owned(), params: json!({}), api: Some(Api::V3) };
        assert_eq!(add(proposal, Some("x"), false).unwrap().params, json!({}));
    }
}
