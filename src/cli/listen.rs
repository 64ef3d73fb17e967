//! `b24 listen`: online events and outgoing webhooks, received without loss.

use super::args::{Global, InboxArgs, Listen};
use super::queue::{Owner, Place, Worker, handler, place};
use super::{Stop, application_token, notices, printed, records};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::output::{self, ErrorFormat};
use crate::queue::{self, Forward, Handler, OnlineSource, Until};
use crate::receive::{Ailment, Health, Options as ReceiveOptions, Receiver};
use crate::secret::Secret;
use crate::settings::{self, Options, Settings};
use crate::wire::deliver::Deliverer;
use crate::wire::target::{AllowList, Target};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// How many unfinished events are too many.
const TOO_MANY: usize = 100_000;

pub(super) fn run(args: &Listen, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    args.application_token.iter().try_for_each(|option| application_token::refuse_literal(Some(option)))?;
    let moves_inbox = args.state_file.is_some() || args.dlq_file.is_some();
    let options = Options { moves_inbox, ..global.options() };
    let settings = settings::resolve(&options, host)?;
    let mut tokens = given_tokens(args, &settings, host)?;
    crate::interrupt::watch();
    notices(&settings, host, format);
    if args.forward_to.is_none() {
        handler(&args.handler)?;
    }
    let target = target(args, &options, &settings, host)?;
    if moves_inbox {
        records::note_change(&settings, host, json!({"type": "inbox-moved"}))?;
    }
    let (timeout, ca_file) = (settings.limits.timeout, settings.ca_file.clone());
    let mut owner = Owner::find(settings, host)?;
    if tokens.is_empty() {
        tokens.extend(owner.application_token.take());
    }
    let Some(first) = tokens.first() else {
        return Err(Failure::new(Code::Usage, "without the application token nobody can be told from the portal")
            .hint("Give --application-token @FILE, or set B24_APPLICATION_TOKEN; the portal sends it in auth[application_token]")
            .into());
    };
    tokens.iter().for_each(|token| owner.redactor.learn(token));
    let handler = chosen(args, (target, timeout, ca_file), first)?;
    let inbox = InboxArgs {
        auth_connector: None,
        state_file: args.state_file.clone(),
        dlq_file: args.dlq_file.clone(),
        source: "online".to_owned(),
    };
    let place = place(&inbox, &owner, host);
    let worker = Worker::assemble(&args.handler, &handler, &place, Until::Stopped, (&owner, host))?;
    let (sink, received) = sync_channel(1024);
    let options = receive_options(args, tokens, host);
    let health = options.health.clone();
    look_for_room(&place.folder, &health);
    let receiver = Receiver::start(options, sink)?;
    announce(&receiver, args, (host, format))?;
    let wake = &waker(&place, host);
    let watch = &|| watch(&receiver, &place.folder, &health);
    let source = |engine, signals| {
        OnlineSource { received, engine, signals, too_many: TOO_MANY, wake, watch, health: health.clone() }.run();
        receiver.stop();
    };
    worker.run(host, format, source, || health.ails(Ailment::ConsumerGone))?;
    Ok(())
}

/// Looks after a receiver that runs.
fn watch(receiver: &Receiver, inbox: &Path, health: &Health) -> Result<(), Box<Failure>> {
    look_for_room(inbox, health);
    match receiver.is_running() {
        true => Ok(()),
        false => Err(Box::new(Failure::new(Code::Internal, "the part of b24 that receives events broke"))),
    }
}

fn look_for_room(inbox: &Path, health: &Health) {
    match queue::try_room(inbox) {
        Ok(()) => health.recovers(Ailment::DiskFull),
        Err(_) => health.ails(Ailment::DiskFull),
    }
}

/// Returns the tokens of the options, else the environment's.
fn given_tokens(args: &Listen, settings: &Settings, host: &mut Host) -> Result<Vec<Secret>, Failure> {
    let mut tokens = Vec::new();
    for option in &args.application_token {
        tokens.push(application_token::read(option, &settings.redactor(), host)?);
    }
    if tokens.is_empty() {
        tokens.extend(application_token::from_env(host)?);
    }
    Ok(tokens)
}

/// Returns where events are forwarded to, before anything is opened.
fn target(args: &Listen, options: &Options, settings: &Settings, host: &Host) -> Result<Option<Target>, Stop> {
    let Some(url) = &args.forward_to else { return Ok(None) };
    let portals = settings::known_portals(options, host, settings)?;
    let target = Target::parse(url, &AllowList { hosts: args.allow_host.clone(), portals })?;
    if args.forward_token && !target.is_loopback() {
        return Err(Failure::new(Code::PolicyDenied, "the application token is forwarded to handlers on this machine only").into());
    }
    Ok(Some(target))
}

fn chosen(args: &Listen, forward: (Option<Target>, Duration, Option<PathBuf>), token: &Secret) -> Result<Handler, Stop> {
    let (Some(target), timeout, ca_file) = forward else { return handler(&args.handler) };
    let deliverer = Deliverer::new(target, timeout, ca_file.as_deref())?;
    let application_token = args.forward_token.then(|| token.clone());
    Ok(Handler::Forward(Arc::new(Forward { deliverer, application_token })))
}

fn receive_options(args: &Listen, tokens: Vec<Secret>, host: &Host) -> ReceiveOptions {
    ReceiveOptions {
        address: args.address,
        port: args.port,
        path: args.path.clone(),
        body_limit: args.body_limit as usize,
        rate_per_s: f64::from(args.rate),
        burst: args.burst,
        ..ReceiveOptions::new(tokens, Arc::clone(&host.clock))
    }
}

fn announce(receiver: &Receiver, args: &Listen, (host, format): (&mut Host, ErrorFormat)) -> Result<(), Stop> {
    let ready = json!({"schema": "b24.listen/1", "address": format!("http://{}", receiver.address())});
    if args.handler.jsonl {
        output::note(host, "notice", "listening", &ready.to_string(), format);
        return Ok(());
    }
    printed(output::value(host, &ready))
}

/// Returns what wakes the workers of the same portal's offline queues.
fn waker(place: &Place, host: &Host) -> impl Fn() + use<> {
    let base = place.folder.parent().unwrap_or(Path::new("/")).to_owned();
    let (clock, random) = (Arc::clone(&host.clock), Arc::clone(&host.random));
    move || {
        let entries = std::fs::read_dir(&base).into_iter().flatten().filter_map(Result::ok);
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("offline")) {
            queue::wake(&entry.path(), clock.as_ref(), random.as_ref());
        }
    }
}
