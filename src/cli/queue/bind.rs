//! `b24 queue bind`, `unbind` and `events`: which events there are and where
//! they go.

use super::super::args::{Bind, Global, QueueGuards};
use super::super::call::{Talk, finish, plain_reuse};
use super::super::{Stop, label, printed};
use super::open;
use crate::catalog::{self, Api};
use crate::error::{Code, Failure};
use crate::gate::{Consent, Proposal};
use crate::host::Host;
use crate::method::Method;
use crate::output::{self, ErrorFormat};
use crate::pipeline::{self, Handling};
use crate::session::Session;
use serde_json::{Value, json};

pub(super) fn bind(args: &Bind, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let mut params = target(args, host)?;
    if let Some(seconds) = args.min_timeout {
        params["options"] = json!({"minTimeout": seconds});
    }
    send("event.bind", params, args, (global, host, format))
}

pub(super) fn unbind(args: &Bind, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let params = target(args, host)?;
    send("event.unbind", params, args, (global, host, format))
}

/// Returns the name of a documented event as portals write it.
pub(in crate::cli) fn documented(name: &str) -> Result<String, Failure> {
    if catalog::events::is_known(name) {
        return Ok(name.to_ascii_uppercase());
    }
    let close = catalog::events::suggestions(name);
    let hint = match close.is_empty() {
        true => "b24 search EVENT finds events by words".to_owned(),
        false => format!("Did you mean {}?", close.join(", ")),
    };
    let text = format!("{} is not a documented event", crate::method::shown(name));
    Err(Failure::new(Code::Usage, text).hint(hint).with("suggest", close))
}

fn target(args: &Bind, host: &Host) -> Result<Value, Stop> {
    let mut params = json!({"event": documented(&args.event)?});
    match &args.handler {
        Some(url) => params["handler"] = json!(url),
        None => params["event_type"] = json!("offline"),
    }
    if let Some(label) = label::given(args.auth_connector.as_ref(), host) {
        params["auth_connector"] = json!(label);
    }
    if let Some(user) = args.auth_type {
        params["auth_type"] = json!(user);
    }
    Ok(params)
}

fn send(method: &str, params: Value, args: &Bind, (global, host, format): (&Global, &mut Host, ErrorFormat)) -> Result<(), Stop> {
    let mut connected = open(&args.guards.options(global), host, format)?;
    let proposal = Proposal { name: method.to_owned(), params, api: Some(Api::V2) };
    let handling = Handling { consent: args.consent.consent(), key: None, reuse: plain_reuse(&connected.session.settings) };
    let result = pipeline::run(&mut connected.session, proposal, &handling);
    finish(result, &connected, Talk::default(), (host, format))
}

/// What exists and what is bound. Where the packs do not admit the method
/// that asks the portal, what exists is what is documented.
pub(super) fn events(guards: &QueueGuards, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let mut connected = open(&guards.options(global), host, format)?;
    let bound = read(&mut connected.session, "event.get", json!({}))?;
    let may_ask = Method::parse("events").is_ok_and(|method| connected.session.settings.policy.allowlist.admits(&method));
    let (exist, source) = match may_ask {
        true => (read(&mut connected.session, "events", json!({"FULL": true}))?, "portal"),
        false => (catalog::events::all().map(|event| Value::from(event.name.to_ascii_uppercase())).collect(), "catalog"),
    };
    printed(output::value(host, &json!({"schema": "b24.queue-events/1", "bound": bound, "exist": exist, "exist_source": source})))
}

fn read(session: &mut Session, method: &str, params: Value) -> Result<Value, Failure> {
    let proposal = Proposal { name: method.to_owned(), params, api: Some(Api::V2) };
    let handling = Handling { consent: Consent::default(), key: None, reuse: plain_reuse(&session.settings) };
    let completed = pipeline::run(session, proposal, &handling)?;
    let document: Value = serde_json::from_slice(&completed.body)
        .map_err(|_| Failure::new(Code::Temporary, format!("{method} gave an answer that is no JSON")).hint("Try again"))?;
    Ok(document["result"].clone())
}
