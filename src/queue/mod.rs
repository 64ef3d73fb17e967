//! Events without loss: the core of every worker.
//!
//! ```text
//! source -> inbox (on disk) -> in order, one at a time per entity -> handler
//!        <- told what is over <- verdict or dead letter (on disk) <-
//! ```
//!
//! A source (the [`offline`] queue of a portal, the receiver of online events)
//! brings events; the [`engine`] takes them into the [`inbox`], hands them to a
//! [`handler`] and notes what became of them. Every event is handled at least
//! once. It is handled twice only when a crash falls between the end of the
//! handler and the line that says so; the handler is told which attempt it is.
//!
//! What kills elsewhere, and what stops it here:
//!
//! | elsewhere | here |
//! |--|--|
//! | events were cleared that nobody had processed | cleared by id, after the verdict is on disk |
//! | a crash after the reservation hid events for weeks | every call is announced; open ones are searched for |
//! | one bad event was tried for ever | attempts are counted on disk; then a dead letter |
//! | nothing led back out of the dead letters | `b24 queue dlq retry` |
//! | two workers handled one event | one inbox under one lock; claims end with their owner |
//! | an update overtook the creation | an entity's events wait for each other, also across failures |

mod commit;
mod dead_letters;
mod engine;
mod event;
mod handler;
mod head;
mod inbox;
mod journal;
mod line;
mod message;
mod metrics;
mod offline;
mod online;
mod retry;
mod room;
mod state;
mod wake;
mod workers;

pub use commit::{Arrival, Commit, Dead, Outcome};
pub use dead_letters::{Action, DeadLetters};
pub use engine::{Engine, EngineSettings, Parts, Streams, Summary, Until};
pub use event::{EventKey, Job, NewEvent, Origin, Reservation, entity_of};
pub use handler::{Conditions, Forward, Handler, Report, Reporter, Running, Screen};
pub use inbox::{Depth, Inbox, SettledRow, Settlement};
pub use line::{CallKind, Counters, OpenCall};
pub use message::{Losses, Message, Signal};
pub use metrics::{Metrics, Sample};
pub use offline::{OfflineSettings, OfflineSource};
pub use online::{OnlineSource, Watch};
pub use room::try_room;
pub use wake::wake;

use crate::error::Failure;
use crate::store::locked::StoreError;

/// Says what to do about a file of the inbox that cannot be used.
#[must_use]
pub fn told(error: StoreError) -> Failure {
    let is_damage = matches!(error, StoreError::Unusable { .. });
    let failure = Failure::from(error);
    match is_damage {
        true => failure.hint(
            "Nothing was handled or cleared because of it. Keep the file; b24 help events says what can be taken out of it and how to go on",
        ),
        false => failure,
    }
}
