//! What an engine is made of, how it works, and what it says at the end.

use crate::queue::dead_letters::DeadLetters;
use crate::queue::handler::Running;
use crate::queue::inbox::Inbox;
use crate::queue::line::Counters;
use crate::queue::metrics::Metrics;
use crate::secret::Redactor;
use std::io::Write;
use std::time::Duration;

/// What an engine is made of.
pub struct Parts {
    /// The inbox.
    pub inbox: Inbox,
    /// The dead letters.
    pub dead_letters: DeadLetters,
    /// The handler; `None` for lines on standard output.
    pub handler: Option<Running>,
    /// Where to write measurements.
    pub metrics: Option<Metrics>,
    /// Takes secrets out of what handlers say.
    pub redactor: Redactor,
    /// The portal, as handlers are told.
    pub portal: String,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// How many events are in the hands of the handler at once.
    pub concurrency: usize,
    /// How many attempts may fail.
    pub max_retries: u32,
    /// Pause after the first failed attempt.
    pub retry_delay: Duration,
    /// How long one event may take.
    pub timeout: Duration,
    /// When to stop.
    pub until: Until,
}

/// When a worker stops by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Stopped,
    /// When the source brings nothing more and nothing can be handed over now.
    Drained,
    /// When nothing is left, also no event that waits for its next attempt.
    Empty,
}

/// What a worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// What happened while it ran, in the whole inbox.
    pub counters: Counters,
    /// How many events are left to be handled.
    pub left: usize,
}

/// Where the engine's words go.
pub struct Streams<'a> {
    /// Lines of events, for the handler that is a stream.
    pub out: &'a mut dyn Write,
    /// Notes for people: level, code, text.
    pub note: &'a mut dyn FnMut(&str, &str, &str),
}

impl Summary {
    /// Returns what happened between two moments.
    pub(super) fn between(before: Counters, now: Counters, left: usize) -> Summary {
        let counters = Counters {
            received: now.received - before.received,
            duplicates: now.duplicates - before.duplicates,
            handled: now.handled - before.handled,
            failed: now.failed - before.failed,
            later: now.later - before.later,
            dead: now.dead - before.dead,
            interrupted: now.interrupted - before.interrupted,
        };
        Summary { counters, left }
    }
}
