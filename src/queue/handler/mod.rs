//! What events are handed to, and what it says of them.
//!
//! A handler runs on a thread of its own, so that a slow one holds up neither
//! the inbox nor the portal. What it makes of an event comes back as an
//! [`Ending`].

mod exec;
mod forward;
mod process;
mod serve;
mod voice;

pub use forward::Forward;
pub use voice::Screen;

use super::event::Job;
use crate::secret::Redactor;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What handles events.
#[derive(Debug, Clone)]
pub enum Handler {
    /// A process for each event.
    Exec(String),
    /// One process for all events.
    Serve(String),
    /// A handler over HTTP.
    Forward(Arc<Forward>),
    /// The lines go to standard output; an event is handled when its line is
    /// written.
    Lines,
}

/// What a handler made of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It is done.
    Done,
    /// It is to be tried later.
    Later,
    /// It failed: a word for the reason, and what the handler said.
    Failed(&'static str, String),
    /// The handler broke off with several events in its hands: it is not known
    /// which one broke it.
    Suspect,
    /// The handler broke off because of another event.
    Interrupted,
    /// The command could not be run, and never was: that says nothing about
    /// the event.
    NotRun(String),
}

/// What a handler reports.
#[derive(Debug)]
pub enum Report {
    /// An event was handled, or not.
    Ended(u64, Ending),
    /// The handler said something that is no answer.
    Noise,
    /// The handler works for no event at all.
    Unusable(String),
}

/// Takes reports; called from the handler's thread.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// How a handler is run.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// The portal, as handlers are told.
    pub portal: String,
    /// How long one event may take.
    pub timeout: Duration,
    /// The environment, without secrets.
    pub env: Vec<(String, String)>,
    /// The folder it runs in.
    pub folder: std::path::PathBuf,
    /// Takes secrets out of what it says.
    pub redactor: Redactor,
    /// Where what it says goes.
    pub screen: Screen,
}

impl Conditions {
    fn voice(&self, counts: voice::Counts) -> voice::Voice {
        voice::Voice { redactor: self.redactor.clone(), screen: self.screen, counts }
    }
}

/// An event on its way to a handler.
struct Task {
    seq: u64,
    id: String,
    line: String,
}

/// A handler that runs; it ends when it is dropped.
pub struct Running {
    tasks: Option<UnboundedSender<Task>>,
    portal: String,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a handler; [`Handler::Lines`] needs none and gives `None`.
    pub fn start(handler: &Handler, conditions: Conditions, report: Reporter) -> io::Result<Option<Running>> {
        if matches!(handler, Handler::Lines) {
            return Ok(None);
        }
        let (tasks, received) = unbounded_channel();
        let portal = conditions.portal.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handler = handler.clone();
        let run = move || match handler {
            Handler::Exec(command) => runtime.block_on(exec::run(command, conditions, received, report)),
            Handler::Serve(command) => runtime.block_on(serve::run(command, conditions, received, report)),
            Handler::Forward(forward) => runtime.block_on(forward::run(forward, conditions, received, report)),
            Handler::Lines => {}
        };
        let thread = std::thread::Builder::new().name("handler".to_owned()).spawn(run)?;
        Ok(Some(Running { tasks: Some(tasks), portal, thread: Some(thread) }))
    }

    /// Hands an event over.
    pub fn submit(&self, job: &Job) {
        let task = Task { seq: job.seq, id: job.key.to_string(), line: job.to_line(&self.portal) };
        if let Some(tasks) = &self.tasks {
            // A handler that has ended has reported why.
            let _ = tasks.send(task);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the thread.
            let _ = thread.join();
        }
    }
}

/// Exit statuses of a shell that could not run the command.
const NOT_RUN: [i32; 2] = [126, 127];

/// How many events may fail in a way that says "the handler does not work"
/// before it is believed, while none has ever succeeded.
const FAILED_STARTS: usize = 3;

/// Tells a handler that does not work from events that it does not bear: the
/// one fails for different events and never succeeds.
#[derive(Debug, Default)]
struct Health {
    has_worked: bool,
    broken_by: std::collections::HashSet<u64>,
}

impl Health {
    /// Returns whether the handler ever handled an event.
    fn has_worked(&self) -> bool {
        self.has_worked
    }

    fn works(&mut self) {
        self.has_worked = true;
        self.broken_by.clear();
    }

    /// Notes that the handler could not start, or broke, for an event; returns
    /// whether it is to be given up.
    fn breaks(&mut self, seq: u64) -> bool {
        if !self.has_worked {
            self.broken_by.insert(seq);
        }
        self.is_given_up()
    }

    /// Returns whether the handler was given up: what is still on its way to it
    /// goes back untried.
    fn is_given_up(&self) -> bool {
        self.broken_by.len() >= FAILED_STARTS
    }
}

#[cfg(test)]
mod tests;
