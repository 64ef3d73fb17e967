//! The right to send one write, from the barrier to the outcome.

use super::chain::Chain;
use super::marks::Mark;
use super::record::{DispatchLine, Line, ReasonLine, RefusalLine, SuccessLine};
use super::witness::Names;
use crate::crash;
use crate::error::Code;
use crate::host::{self, Clock};
use crate::store::locked::{self, Locked, StoreError};
use serde_json::Value;
use std::sync::Arc;

/// The right to send one write, held by the process that will settle it.
#[derive(Debug)]
#[must_use = "dispatch and settle it; dropping it leaves the record as it is"]
pub struct Claim {
    pub(super) file: Locked,
    pub(super) name: String,
    pub(super) generation: u32,
    pub(super) chain: Chain,
    /// How often it was dispatched, and where that is said; nobody counts the
    /// calls of a worker.
    pub(super) dispatches: Option<(usize, Names)>,
    pub(super) mark: Option<Mark>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) dispatched: bool,
}

/// How a dispatched write ended.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// The portal did it.
    Succeeded {
        /// SHA-256 of its answer.
        digest: String,
        /// The answer itself, without secrets, if it is to be kept.
        answer: Option<String>,
        /// The ids in an answer that is not to be kept.
        ids: Option<Value>,
    },
    /// It surely was not executed.
    NotExecuted(String),
    /// The method refused it.
    Refused {
        /// HTTP status.
        status: u16,
        /// What kind of refusal it is.
        kind: Code,
        /// The portal's error code.
        code: String,
        /// The portal's text.
        text: String,
    },
    /// Nobody knows.
    Unknown(String),
}

impl Claim {
    /// Returns the record's name.
    #[must_use]
    pub fn record(&self) -> &str {
        &self.name
    }

    /// Returns the key that REST v3 deduplicates by: the same bytes for every
    /// attempt of one generation.
    #[must_use]
    pub fn header(&self) -> String {
        format!("b24-{}-g{}", self.name, self.generation)
    }

    /// Passes the barrier: after this returns, a byte may leave.
    pub fn dispatch(&mut self, request_id: &str) -> Result<(), StoreError> {
        let line = DispatchLine { at: host::timestamp(self.clock.now()), request_id: request_id.to_owned() };
        self.append(&Line::D(line))?;
        crash::point("ledger.after_append_dispatch");
        crash::fault("ledger.dispatch").map_err(StoreError::io("synchronise", self.file.path()))?;
        self.file.sync_data()?;
        if !self.dispatched {
            locked::sync_parent(self.file.path())?;
        }
        if let Some((count, names)) = &mut self.dispatches {
            *count += 1;
            names.give(*count)?;
        }
        self.dispatched = true;
        crash::point("ledger.after_dispatch");
        Ok(())
    }

    /// Says that the attempt surely was not executed; the claim goes on.
    pub fn withdraw(&mut self, why: &str) -> Result<(), StoreError> {
        self.write(Settlement::NotExecuted(why.to_owned()))
    }

    /// Writes the outcome and gives the record free.
    pub fn settle(mut self, settlement: Settlement) -> Result<(), StoreError> {
        let is_open = matches!(settlement, Settlement::Unknown(_));
        crash::point("ledger.before_settle");
        self.write(settlement)?;
        crash::point("ledger.after_settle");
        if let Some(mark) = self.mark.take().filter(|_| !is_open) {
            mark.remove();
        }
        Ok(())
    }

    fn write(&mut self, settlement: Settlement) -> Result<(), StoreError> {
        let at = host::timestamp(self.clock.now());
        let line = match settlement {
            Settlement::Succeeded { digest, answer, ids } => Line::S(SuccessLine { at, answer, digest, ids }),
            Settlement::NotExecuted(why) => Line::N(ReasonLine { at, why }),
            Settlement::Refused { status, kind, code, text } => {
                Line::F(RefusalLine { at, status, kind: kind.text().to_owned(), code, text })
            }
            Settlement::Unknown(why) => Line::U(ReasonLine { at, why }),
        };
        self.append(&line)?;
        crash::point("ledger.after_append_outcome");
        self.file.sync_data()
    }

    /// What could not be appended is not part of the chain.
    fn append(&mut self, line: &Line) -> Result<(), StoreError> {
        let mut chain = self.chain.clone();
        self.file.append(&chain.push(line))?;
        self.chain = chain;
        Ok(())
    }
}
