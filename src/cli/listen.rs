//! `b24 listen`: online events and outgoing webhooks, received without loss.

use super::args::{Global, InboxArgs, Listen};
use super::queue::{Owner, Place, Worker, handler, notices, place};
use super::{Stop, application_token, printed};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::output::{self, ErrorFormat};
use crate::queue::{Forward, Handler, OnlineSource, Until, WAKE_FILE};
use crate::receive::{Options as ReceiveOptions, Receiver};
use crate::secret::Secret;
use crate::settings::{self, Options, Settings};
use crate::store::locked::replace_durable;
use crate::store::temporary_name;
use crate::wire::deliver::Deliverer;
use crate::wire::target::{AllowList, Target};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

/// How many unfinished events are too many.
const TOO_MANY: usize = 100_000;

pub(super) fn run(args: &Listen, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    application_token::refuse_literal(args.application_token.as_deref())?;
    let options = global.options();
    let settings = settings::resolve(&options, host)?;
    let given = match args.application_token.as_deref() {
        Some(option) => Some(application_token::read(option, host)?),
        None => application_token::from_env(host)?,
    };
    let handler = chosen(args, &options, &settings, given.as_ref(), host)?;
    crate::interrupt::watch();
    notices(&settings, host, format);
    let mut owner = Owner::find(settings, host)?;
    let token = given.or(owner.application_token.take()).ok_or_else(|| {
        Failure::new(Code::Usage, "without the application token nobody can be told from the portal")
            .hint("Give --application-token @FILE, or set B24_APPLICATION_TOKEN; the portal sends it in auth[application_token]")
    })?;
    owner.redactor.learn(&token);
    let inbox = InboxArgs {
        auth_connector: None,
        state_file: args.state_file.clone(),
        dlq_file: args.dlq_file.clone(),
        source: "online".to_owned(),
    };
    let place = place(&inbox, &owner, host);
    let worker = Worker::assemble(&args.handler, &handler, &place, Until::Stopped, (&owner, host))?;
    let (sink, received) = sync_channel(1024);
    let receiver = Receiver::start(receive_options(args, token, host), sink)?;
    announce(&receiver, args, (host, format))?;
    let folders = offline_folders(&place);
    let random = Arc::clone(&host.random);
    let clock = Arc::clone(&host.clock);
    let wake = move || {
        let content = clock.boot_ns().to_string();
        for folder in folders() {
            // A worker that is not woken polls a little later.
            let _ = replace_durable(&folder.join(WAKE_FILE), content.as_bytes(), &temporary_name(random.as_ref()));
        }
    };
    let wake = &wake;
    worker.run(host, format, |engine, signals| {
        OnlineSource { received, engine, signals, too_many: TOO_MANY, wake }.run();
        receiver.stop();
    })?;
    Ok(())
}

fn chosen(args: &Listen, options: &Options, settings: &Settings, token: Option<&Secret>, host: &Host) -> Result<Handler, Stop> {
    let Some(url) = &args.forward_to else { return handler(&args.handler) };
    let portals = settings::known_portals(options, host, settings)?;
    let target = Target::parse(url, &AllowList { hosts: args.allow_host.clone(), portals })?;
    if args.forward_token && !target.is_loopback() {
        return Err(Failure::new(Code::PolicyDenied, "the application token is forwarded to handlers on this machine only").into());
    }
    let deliverer = Deliverer::new(target, settings.limits.timeout, settings.ca_file.as_deref())?;
    let application_token = token.filter(|_| args.forward_token).cloned();
    Ok(Handler::Forward(Arc::new(Forward { deliverer, application_token })))
}

fn receive_options(args: &Listen, token: Secret, host: &Host) -> ReceiveOptions {
    ReceiveOptions {
        address: args.address,
        port: args.port,
        path: args.path.clone(),
        body_limit: args.body_limit as usize,
        rate_per_s: f64::from(args.rate),
        burst: args.burst,
        ..ReceiveOptions::new(vec![token], Arc::clone(&host.clock))
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

/// Returns how to find the inboxes of the offline queues of the same portal.
fn offline_folders(place: &Place) -> impl Fn() -> Vec<PathBuf> + use<> {
    let base = place.folder.parent().unwrap_or(Path::new("/")).to_owned();
    move || {
        let entries = std::fs::read_dir(&base).into_iter().flatten().filter_map(Result::ok);
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("offline")).map(|entry| entry.path()).collect()
    }
}
