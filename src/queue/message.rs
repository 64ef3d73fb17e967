//! What the parts of a worker tell each other.
//!
//! The engine owns the inbox. Sources and handlers run on threads of their own
//! and write to its channel; what they wait for comes back through a channel
//! that the message carries, after the commit that holds it.

use super::commit::Arrival;
use super::event::NewEvent;
use super::handler::Report;
use super::inbox::Settlement;
use super::line::{CallKind, OpenCall};
use crate::error::Failure;
use std::sync::mpsc::Sender;

/// What the engine is told.
pub enum Message {
    /// Events arrived; the answer comes when they are on disk.
    Arrived {
        /// The events.
        events: Vec<NewEvent>,
        /// The call that brought them.
        closes: Option<String>,
        /// Where the answer goes.
        stored: Sender<Arrival>,
    },
    /// A call to the offline queue is about to leave.
    Calling {
        /// Its nonce.
        nonce: String,
        /// What it does.
        kind: CallKind,
        /// Told when that is on disk, where that matters.
        noted: Option<Sender<()>>,
    },
    /// A call has its outcome.
    Called(String),
    /// Reservations that are not of this inbox were seen.
    Foreign(Vec<String>),
    /// The portal was told of these.
    Settled(Vec<u64>),
    /// What is to be told to the portal?
    Settlements {
        /// Only reservations of which nothing is left to be handled.
        complete: bool,
        /// Where the answer goes.
        answer: Sender<Vec<Settlement>>,
    },
    /// What is known about lost calls and foreign reservations?
    Losses {
        /// The reservations in question.
        processes: Vec<String>,
        /// Where the answer goes.
        answer: Sender<Losses>,
    },
    /// How many events are still to be handled?
    Unfinished(Sender<usize>),
    /// A handler reports.
    Handler(Report),
    /// The source has looked and found nothing new.
    Idle,
    /// The source will bring nothing more.
    NoMore,
    /// Something that a person should know: level, code, text.
    Note(&'static str, &'static str, String),
    /// Stop: finish what is in the hands of handlers, begin nothing.
    Stop,
    /// The source has ended.
    SourceEnded(Result<(), Box<Failure>>),
}

/// What the inbox knows that recovery needs.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Calls whose answer may have been lost.
    pub calls: Vec<OpenCall>,
    /// Reservations that are not of this inbox, with the time at which they
    /// were seen first.
    pub unknown: Vec<(String, Option<i64>)>,
}

/// What a source is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// There is something to tell the portal.
    Settle,
    /// Tell the portal what there is to tell, and end.
    Stop,
}
