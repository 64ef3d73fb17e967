//! `b24 trigger`: an event as a portal delivers it, for a handler of one's own.
//!
//! Arguments may come from anybody, and what is delivered leaves without a
//! gate. So to another machine nothing goes that was not written in the
//! arguments themselves: no file by `@`, and no token out of the environment.
//!
//! The form is that of an event that no user caused: `auth` names the portal
//! and proves it by the application token, but carries no access token
//! (b24restdocs: api-reference/events/index.md).

use super::args::{Global, Trigger};
use super::connect::connect;
use super::queue::documented;
use super::{Stop, application_token, params, printed};
use crate::catalog::payloads;
use crate::error::{Code, Failure, Outcome};
use crate::host::Host;
use crate::output::{self, ErrorFormat};
use crate::query_string::form_pairs;
use crate::receive::event_name;
use crate::secret::{MASK, Secret};
use crate::settings::{self, Settings};
use crate::wire::deliver::{DeliverError, Deliverer};
use crate::wire::target::{AllowList, Target};
use serde_json::{Map, Value, json};

/// What items may set.
const ROOTS: &[&str] = &["data", "auth", "ts", "event_handler_id"];

/// Names that would make an event carry what a triggered one must not.
const CREDENTIALS: &[&str] = &["access_token", "refresh_token", "application_token", "client_secret"];

/// Events that come without the number of a subscription.
const WITHOUT_SUBSCRIPTION: &[&str] =
    &["ONAPPINSTALL", "ONAPPUPDATE", "ONAPPUNINSTALL", "ONAPPPAYMENT", "ONAPPMETHODCONFIRM", "ONOFFLINEEVENT"];

/// The portal that a triggered event names unless told otherwise.
const DOMAIN: &str = "portal.example";
const MEMBER_ID: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn run(args: &Trigger, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let event = event(args)?;
    application_token::refuse_literal(args.application_token.as_deref())?;
    let options = global.options();
    let settings = settings::resolve(&options, host)?;
    let Some(to) = args.to.as_deref() else { return raise(args, &event, settings, host) };
    let is_built_in = settings.credential.is_none();
    let portals = settings::known_portals(&options, host, &settings)?;
    let target = Target::parse(to, &AllowList { hosts: args.allow_host.clone(), portals })?;
    let payload = payload(&event, &args.items, Some(&target), (&settings, host))?;
    let (timeout, ca_file) = (settings.limits.timeout, settings.ca_file.clone());
    let token = match token(args, &target, &settings, host)? {
        // Its events carry its own token.
        None if is_built_in && target.is_loopback() => connect(settings, host)?.application_token(),
        token => token,
    };
    if args.dry_run {
        return dry_run(args, payload, &target, token.as_ref(), host);
    }
    if token.is_none() {
        output::note(
            host,
            "notice",
            "no_application_token",
            "the event carries no application token: a handler that checks it refuses",
            format,
        );
    }
    crate::interrupt::watch();
    let deliverer = Deliverer::new(target, timeout, ca_file.as_deref())?;
    let status = deliver(&deliverer, &event, &payload, (token.as_ref(), args.count))?;
    let done = json!({
        "schema": "b24.trigger/1", "event": event, "to": deliverer.target().shown(), "status": status, "delivered": args.count,
    });
    printed(output::value(host, &done))?;
    Ok(())
}

/// Raises the event in the built-in portal, as if a user had caused it: it goes
/// into the offline queues and to the handlers that are bound to it.
fn raise(args: &Trigger, event: &str, settings: Settings, host: &mut Host) -> Result<(), Stop> {
    if settings.credential.is_some() {
        return Err(usage("--to is missing: the address of the handler")
            .hint("For example --to http://127.0.0.1:8080/handler; with --profile emulator the event is raised in the built-in portal")
            .into());
    }
    if args.items.iter().any(|item| item.contains('=') && !item.starts_with("data")) {
        return Err(usage("an event that is raised in the built-in portal takes items of data only").into());
    }
    let payload = payload(event, &args.items, None, (&settings, host))?;
    if args.dry_run {
        let plan = json!({"schema": "b24.trigger/1", "dry_run": true, "event": event, "to": "emulator", "count": args.count, "data": payload["data"]});
        return printed(output::value(host, &plan));
    }
    let connected = connect(settings, host)?;
    let Some(emulator) = connected.emulator() else { return Err(Failure::new(Code::Internal, "there is no built-in portal").into()) };
    let (mut queued, mut deliveries) = (0, 0);
    for _ in 0..args.count {
        let raised = emulator.raise(event, payload["data"].clone())?;
        queued += raised.queued;
        deliveries += raised.deliveries;
    }
    // What is on its way is waited for.
    emulator.stop();
    let failed: Vec<Value> = emulator
        .deliveries()
        .into_iter()
        .filter(|delivery| !delivery.status.is_some_and(|status| (200..300).contains(&status)))
        .map(|delivery| json!({"handler": delivery.handler, "event": delivery.event, "status": delivery.status, "error": delivery.error}))
        .collect();
    let done = json!({
        "schema": "b24.trigger/1", "event": event, "to": "emulator", "count": args.count, "queued": queued, "deliveries": deliveries, "failed": failed,
    });
    printed(output::value(host, &done))?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(Code::ApiError, format!("{} deliveries were not taken", failed.len()))
            .hint("The portal does not repeat them; the handler must be there first")
            .into()),
    }
}

fn usage(message: &str) -> Failure {
    Failure::new(Code::Usage, message)
}

/// Returns the event's name as it is delivered: in upper case.
fn event(args: &Trigger) -> Result<String, Failure> {
    let unnamed = || usage("the event is not a name of letters, digits, dots and underscores").hint("For example ONCRMDEALADD");
    let name = event_name(&args.event).ok_or_else(unnamed)?;
    match args.unlisted {
        true => Ok(name),
        false => documented(&name).map_err(|failure| {
            let hint = failure.hint.clone().unwrap_or_default();
            failure.hint(format!("{hint} (--unlisted takes any name)"))
        }),
    }
}

/// Reads the application token. Out of the environment it goes to handlers on
/// this machine only.
fn token(args: &Trigger, target: &Target, settings: &Settings, host: &mut Host) -> Result<Option<Secret>, Failure> {
    match args.application_token.as_deref() {
        Some(option) => application_token::read(option, &settings.redactor(), host).map(Some),
        None if target.is_loopback() => application_token::from_env(host),
        None => Ok(None),
    }
}

/// Makes the event: what its family carries, then the items.
fn payload(event: &str, items: &[String], target: Option<&Target>, (settings, host): (&Settings, &Host)) -> Result<Value, Failure> {
    let mut shape = payloads::shape(event);
    let (id, items) = match items.split_first() {
        Some((first, rest)) if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) => (Some(first), rest),
        _ => (None, items),
    };
    if id.is_some_and(|id| !shape.set_id(id)) {
        return Err(usage(&format!("{event} carries no id")).hint("Set what it carries by items such as data[KEY]=text"));
    }
    for (index, item) in items.iter().enumerate() {
        check_item(index + 1 + usize::from(id.is_some()), item, target)?;
    }
    let mut payload =
        json!({"event": event, "event_handler_id": "1", "data": shape.data, "ts": host.clock.now().timestamp().to_string(), "auth": {}});
    if let Some(members) = payload.as_object_mut().filter(|_| WITHOUT_SUBSCRIPTION.contains(&event)) {
        members.shift_remove("event_handler_id");
    }
    params::apply(&mut payload, items, params::Files { cwd: &host.cwd, own: &settings.own_files })?;
    let Value::Object(given) = payload["auth"].take() else {
        return Err(usage("auth is an object, set by items such as auth[domain]=text"));
    };
    payload["auth"] = Value::Object(auth(given));
    match carries_credential(&payload) {
        true => {
            Err(Failure::new(Code::CredentialInParams, "a triggered event carries no access token, and its application token is no item")
                .hint("--application-token @FILE sets the application token"))
        }
        false => Ok(payload),
    }
}

fn check_item(number: usize, item: &str, target: Option<&Target>) -> Result<(), Failure> {
    let root = item.split(['[', '=', ':', '@']).next().unwrap_or_default();
    if !ROOTS.contains(&root) {
        let message = format!("item {number} does not begin with data, auth, ts or event_handler_id");
        return Err(usage(&message).hint("A number as the first item is the object's id; else write data[FIELDS][ID]=42"));
    }
    if params::reads_file(item) && target.is_some_and(|target| !target.is_loopback()) {
        return Err(Failure::new(Code::PolicyDenied, format!("item {number} reads a file, which is delivered to this machine only")));
    }
    Ok(())
}

/// Adds to the given members of `auth` those that every event has.
fn auth(given: Map<String, Value>) -> Map<String, Value> {
    let domain = given.get("domain").and_then(Value::as_str).unwrap_or(DOMAIN).to_owned();
    let mut auth = Map::new();
    for (name, value) in [
        ("domain", domain.clone()),
        ("server_endpoint", "https://oauth.bitrix.info/rest/".to_owned()),
        ("status", "L".to_owned()),
        ("client_endpoint", format!("https://{domain}/rest/")),
        ("member_id", MEMBER_ID.to_owned()),
    ] {
        auth.insert(name.to_owned(), Value::from(value));
    }
    auth.extend(given);
    auth
}

/// Looks at the names as they are sent: a key of an item may itself contain
/// brackets.
fn carries_credential(payload: &Value) -> bool {
    let is_credential = |part: &str| CREDENTIALS.iter().any(|known| part.trim().eq_ignore_ascii_case(known));
    form_pairs(payload).iter().any(|(key, _)| key.split(['[', ']']).any(is_credential))
}

fn dry_run(args: &Trigger, mut payload: Value, target: &Target, token: Option<&Secret>, host: &mut Host) -> Result<(), Stop> {
    if token.is_some() {
        payload["auth"]["application_token"] = Value::from(MASK);
    }
    let plan = json!({
        "schema": "b24.trigger/1", "dry_run": true, "event": payload["event"], "to": target.shown(), "count": args.count, "payload": payload,
    });
    printed(output::value(host, &plan))?;
    Ok(())
}

/// Delivers one after the other and returns the last status; stops at the
/// first that is not taken.
fn deliver(deliverer: &Deliverer, event: &str, payload: &Value, how: (Option<&Secret>, u32)) -> Result<u16, Failure> {
    let (token, count) = how;
    let pairs = form_pairs(payload);
    let mut last = 0;
    for delivered in 0..count {
        let tell = |failure: Failure| failure.with("event", event).with("to", deliverer.target().shown()).with("delivered", delivered);
        last = deliverer.post_form_blocking(&pairs, token).map_err(|error| {
            let is_sent = matches!(error, DeliverError::NoAnswer(_));
            let failure = tell(Failure::from(error));
            if is_sent { failure.sent(Outcome::Unknown) } else { failure }
        })?;
        if !(200..300).contains(&last) {
            let failure = Failure::new(Code::ApiError, format!("the handler answered {last}")).sent(Outcome::NotApplied);
            return Err(tell(failure).with("status", last));
        }
    }
    Ok(last)
}
