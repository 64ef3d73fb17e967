//! `b24 queue work`, and what every worker is put together from.

use super::super::args::{Global, HandlerArgs, QueueWork};
use super::super::{SECRET_VARIABLES, Stop, application_token, printed};
use super::Owner;
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::interrupt;
use crate::output::{self, ErrorFormat};
use crate::queue::{
    Conditions, Counters, DeadLetters, Engine, EngineSettings, Handler, Inbox, Message, Metrics, OfflineSettings, OfflineSource, Parts,
    Running, Screen, Signal, Streams, Summary, Until,
};
use crate::secret::Redactor;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How many unfinished events a worker keeps: the rest waits on the portal.
const ENOUGH: usize = 2_000;

/// What a run prints at its end.
#[derive(Serialize)]
struct Run {
    schema: &'static str,
    #[serde(flatten)]
    counters: Counters,
    left: usize,
}

/// Where a worker keeps its things.
pub(in crate::cli) struct Place {
    /// The inbox.
    pub(in crate::cli) folder: PathBuf,
    /// The dead letters.
    pub(in crate::cli) dead_letters: PathBuf,
    /// `auth_connector`.
    pub(in crate::cli) connector: Option<String>,
}

/// Tells the engine when the thread of the source breaks: an engine without a
/// source would wait for ever.
struct Fall(Sender<Message>);

impl Drop for Fall {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failure = Failure::new(Code::Internal, "the part of b24 that brings events broke");
            let _ = self.0.send(Message::SourceEnded(Err(Box::new(failure))));
        }
    }
}

/// A worker that can be run.
pub(in crate::cli) struct Worker {
    engine: Engine,
    writes_lines: bool,
    /// Where sources and signals write to.
    pub(in crate::cli) messages: Sender<Message>,
    /// What the source is told.
    pub(in crate::cli) signals: Receiver<Signal>,
}

impl Worker {
    /// Puts a worker together: inbox, dead letters, handler, measurements.
    pub(in crate::cli) fn assemble(
        args: &HandlerArgs,
        handler: &Handler,
        place: &Place,
        until: Until,
        (owner, host): (&Owner, &Host),
    ) -> Result<Worker, Stop> {
        let (portal, redactor) = (owner.identity.clone(), owner.redactor.clone());
        let settings = settings(args, handler, until);
        let (messages, received) = channel();
        let (told, signals) = channel();
        let conditions = Conditions {
            portal: portal.clone(),
            timeout: settings.timeout,
            env: environment(host, &redactor, place.connector.as_deref()),
            folder: host.cwd.clone(),
            redactor: redactor.clone(),
            screen: if host.err_is_terminal { Screen::Terminal } else { Screen::Stream },
        };
        let mut inbox = Inbox::open(&place.folder, Arc::clone(&host.clock), Arc::clone(&host.random))?;
        inbox.check().map_err(crate::queue::told)?;
        let reports = messages.clone();
        let reporter = Arc::new(move |report| {
            // Without an engine there is nobody to care.
            let _ = reports.send(Message::Handler(report));
        });
        let running = Running::start(handler, conditions, reporter)
            .map_err(|error| Failure::new(Code::LocalState, format!("the thread of the handler cannot be started: {error}")))?;
        let metrics = args.metrics_file.as_ref().map(|path| {
            let source = place.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Metrics::new(host.cwd.join(path), &source, Arc::clone(&host.random))
        });
        let mut dead_letters =
            DeadLetters::new(place.dead_letters.clone(), portal.clone(), (Arc::clone(&host.clock), Arc::clone(&host.random)));
        dead_letters.check().map_err(crate::queue::told)?;
        let parts = Parts { inbox, dead_letters, handler: running, metrics, redactor, portal };
        let tools = (Arc::clone(&host.clock), Arc::clone(&host.random));
        let engine = Engine::new(parts, settings, tools, (received, told));
        let stop = messages.clone();
        interrupt::ask_first(move || {
            let _ = stop.send(Message::Stop);
        });
        Ok(Worker { engine, writes_lines: matches!(handler, Handler::Lines), messages, signals })
    }

    /// Runs until the end, while `source` runs on a thread of its own.
    /// `ended` is told when nothing more is stored or handled.
    pub(in crate::cli) fn run(
        self,
        host: &mut Host,
        format: ErrorFormat,
        source: impl FnOnce(Sender<Message>, Receiver<Signal>) + Send,
        ended: impl FnOnce(),
    ) -> Result<Summary, Stop> {
        let Worker { engine, messages, signals, writes_lines } = self;
        let summary = std::thread::scope(|scope| {
            let fall = Fall(messages.clone());
            scope.spawn(move || {
                // Dropped at the end of the thread, however it comes.
                let _fall = fall;
                source(messages, signals);
            });
            let (out, err) = (&mut host.out, &mut host.err);
            let mut note = |level: &str, code: &str, text: &str| output::note_to(err, (level, code, text), format);
            let result = engine.run(&mut Streams { out, note: &mut note });
            // Nobody is left who could finish anything: a signal ends it all.
            interrupt::ask_nobody();
            ended();
            result
        })?;
        let value = json!(Run { schema: "b24.queue-run/1", counters: summary.counters, left: summary.left });
        if writes_lines {
            output::note(host, "notice", "ended", &value.to_string(), format);
        } else {
            printed(output::value(host, &value))?;
        }
        Ok(summary)
    }
}

/// Works off the offline queue.
pub(super) fn run(args: &QueueWork, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let handler = handler(&args.handler)?;
    application_token::refuse_literal(args.application_token.as_deref())?;
    if args.application_token.is_some() {
        output::note(host, "notice", "application_token", "offline events carry no application token; it is checked by b24 listen", format);
    }
    let mut connected = super::open(&args.inbox.options(args.guards.options(global)), host, format)?;
    let owner = Owner::of(&connected);
    let place = super::place(&args.inbox, &owner, host);
    let until = match (args.once, args.until_empty) {
        (true, _) => Until::Drained,
        (_, true) => Until::Empty,
        _ => Until::Stopped,
    };
    let worker = Worker::assemble(&args.handler, &handler, &place, until, (&owner, host))?;
    let settings = OfflineSettings {
        folder: place.folder.clone(),
        sleep: Duration::from_secs_f64(args.sleep),
        batch: args.batch,
        connector: place.connector.clone(),
        adopt_after: Duration::from_secs(args.adopt_after),
        enough: ENOUGH.max(2 * args.batch as usize),
        once: args.once,
        mark_failed: args.mark_failed,
    };
    let session = &mut connected.session;
    let summary = worker.run(host, format, |messages, signals| OfflineSource::new(session, settings, messages, signals).run(), || {})?;
    conclude(&summary, until)
}

/// An event that was not handled must not end in success, where the caller
/// waits for the end.
fn conclude(summary: &Summary, until: Until) -> Result<(), Stop> {
    let counters = &summary.counters;
    let unhandled = match until {
        Until::Stopped => 0,
        Until::Drained => counters.failed + counters.later,
        Until::Empty => counters.dead,
    };
    if unhandled == 0 {
        return Ok(());
    }
    let text = format!("{unhandled} attempts did not succeed; {} events are dead letters now, {} are left", counters.dead, summary.left);
    Err(Failure::new(Code::Partial, text)
        .hint("b24 queue dlq list shows the dead letters; the others are tried again by the next run")
        .into())
}

pub(in crate::cli) fn handler(args: &HandlerArgs) -> Result<Handler, Stop> {
    match (&args.exec, &args.serve, args.jsonl) {
        (Some(command), _, _) if !command.trim().is_empty() => Ok(Handler::Exec(command.clone())),
        (_, Some(command), _) if !command.trim().is_empty() => Ok(Handler::Serve(command.clone())),
        (None, None, true) => Ok(Handler::Lines),
        _ => Err(Failure::new(Code::Usage, "nothing is said about what handles the events; without it none is taken")
            .hint("Give --exec COMMAND, --serve COMMAND or --jsonl; b24 help events shows examples")
            .into()),
    }
}

fn settings(args: &HandlerArgs, handler: &Handler, until: Until) -> EngineSettings {
    let usual = match handler {
        Handler::Exec(_) | Handler::Forward(_) => 4,
        Handler::Serve(_) => 64,
        Handler::Lines => 256,
    };
    EngineSettings {
        concurrency: args.concurrency.map_or(usual, usize::from),
        max_retries: args.max_retries,
        retry_delay: Duration::from_secs_f64(args.retry_delay),
        timeout: Duration::from_secs_f64(args.handler_timeout.max(0.01)),
        until,
    }
}

/// Returns the environment of a handler: without the variables that hold
/// secrets, and without any whose value is one of ours. A handler that calls
/// the portal takes its credential from a profile.
fn environment(host: &Host, redactor: &Redactor, connector: Option<&str>) -> Vec<(String, String)> {
    let is_harmless = |(name, value): &(&str, &str)| !SECRET_VARIABLES.contains(name) && !redactor.finds(value.as_bytes());
    let mut env: Vec<(String, String)> =
        host.env.all().filter(is_harmless).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if let Some(connector) = connector {
        // Calls of the handler carry the label: they do not come back as events.
        env.retain(|(name, _)| name != "B24_AUTH_CONNECTOR");
        env.push(("B24_AUTH_CONNECTOR".to_owned(), connector.to_owned()));
    }
    env
}
