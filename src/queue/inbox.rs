//! The durable inbox: every change is one commit, and a commit is on disk
//! when it returns.

use super::commit::Commit;
use super::journal::{Held, Journal};
use super::line::{Counters, Line, OpenCall, PhaseLine, Tip};
use super::state::{Entry, Phase, Place, State};
use super::workers::Workers;
use crate::host::{Clock, Random};
use crate::store::locked::StoreError;
use std::path::Path;
use std::sync::Arc;

/// A journal below this size is not worth compacting, in bytes.
const WORTH_COMPACTING: u64 = 8 * 1024 * 1024;

/// The inbox of one source, as one worker sees it.
pub struct Inbox {
    journal: Journal,
    state: State,
    workers: Workers,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// Events of one reservation whose portal rows are to be cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// `process_id`.
    pub process: String,
    /// The rows.
    pub rows: Vec<SettledRow>,
}

/// A row of the portal whose event is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledRow {
    /// Number in the inbox.
    pub seq: u64,
    /// `ID`.
    pub row: String,
    /// `MESSAGE_ID`.
    pub message: String,
    /// Whether the event went to the dead letters.
    pub is_dead: bool,
}

/// What `queue status` tells of an inbox.
#[derive(Debug, Clone, Default)]
pub struct Depth {
    /// Events that wait for their turn or for their next attempt.
    pub waiting: usize,
    /// Events in the hands of a handler.
    pub running: usize,
    /// Events that are done, but not cleared on the portal.
    pub unsettled: usize,
    /// When the oldest unfinished event arrived, in milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// Calls to the portal whose answer is not known.
    pub open_calls: usize,
    /// What happened so far.
    pub counters: Counters,
}

impl Inbox {
    /// Opens the inbox of a folder as a new worker.
    pub fn open(folder: &Path, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Inbox, StoreError> {
        let journal = Journal::find(folder)?;
        let workers = Workers::join(folder, random.as_ref())?;
        Ok(Inbox { journal, state: State::default(), workers, clock, random })
    }

    /// Reads everything that is there, so that damage shows before anything is
    /// begun.
    pub fn check(&mut self) -> Result<(), StoreError> {
        self.commit(|_| Ok(()))
    }

    /// Makes one commit. An error means that nothing of it happened.
    pub fn commit<T>(&mut self, work: impl FnOnce(&mut Commit<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut held = self.journal.lock(&mut self.state, self.random.as_ref())?;
        let now = self.clock.now().timestamp_millis();
        let (result, lines, tip, durable) = {
            let worker = self.workers.own();
            let (journal, state) = (&self.journal, &mut self.state);
            let mut commit = Commit { state, journal, held: &mut held, worker, now, lines: Vec::new(), tip: journal.tip(), durable: false };
            let result = work(&mut commit);
            (result, commit.lines, commit.tip, commit.durable)
        };
        let appended = match &result {
            Ok(_) if !lines.is_empty() => self.journal.append(&mut held, (&lines, tip), durable),
            Ok(_) | Err(_) => Ok(()),
        };
        if result.is_err() || appended.is_err() {
            // The memory is ahead of the file: the next commit reads anew.
            self.journal.rewind();
        }
        appended?;
        let result = result?;
        self.state.forget_old(now);
        if self.compact_if_worth(held).is_err() {
            // The commit is done all the same, and the long journal as good
            // as a short one: it is tried again when it has doubled.
            self.journal.put_off_compaction();
        }
        Ok(result)
    }

    fn compact_if_worth(&mut self, held: Held) -> Result<(), StoreError> {
        let needed = self.state.live_bytes + 64 * self.state.remembered() as u64;
        if self.journal.position() < WORTH_COMPACTING.max(4 * needed).max(2 * self.journal.base()) {
            return Ok(());
        }
        let mut held = held;
        let snapshot = self.snapshot(&mut held)?;
        self.journal.replace(held, (&snapshot.0, snapshot.1), self.random.as_ref())
    }

    /// Returns the journal that leads to the same state, without history.
    fn snapshot(&mut self, held: &mut Held) -> Result<(Vec<u8>, Tip), StoreError> {
        let (mut bytes, mut tip) = (Vec::new(), self.journal.next_start());
        let mut add = |line: &Line| line.write(&mut bytes, &mut tip);
        let keys = self.state.over().collect();
        let entries: Vec<(u64, Entry)> = self.state.entries().map(|(seq, entry)| (seq, entry.clone())).collect();
        for call in self.state.calls.values() {
            add(&Line::Calling(call.clone()));
        }
        for (process, at) in &self.state.foreign {
            add(&Line::Foreign { process: process.clone(), at: *at });
        }
        for (seq, entry) in entries {
            // What came again has no line to be copied, and one phase only.
            if let (true, Phase::Done { worker }) = (entry.place == Place::default(), &entry.phase) {
                add(&Line::Again { seq, key: entry.key, origin: entry.origin, worker: worker.to_string() });
                continue;
            }
            let mut line = Journal::read(held, entry.place)?;
            if let Line::Received(received) = &mut line {
                received.origin = entry.origin.clone();
            }
            add(&line);
            add(&state_line(seq, &entry));
        }
        // Last: the lines above count as arrivals when they are read.
        add(&Line::Snapshot { next_seq: self.state.next_seq, counters: self.state.counters, keys });
        Ok((bytes, tip))
    }

    /// Returns the name of this worker.
    #[must_use]
    pub fn worker(&self) -> &str {
        self.workers.own()
    }

    /// Returns whether every event is over, as of the last commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// Returns how many events are still to be handled, as of the last commit.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.state.unfinished()
    }

    /// Returns when the next event can be handed over, in milliseconds since
    /// 1970, as of the last commit.
    #[must_use]
    pub fn next_due(&self) -> Option<i64> {
        self.state.next_due()
    }

    /// Looks which other workers live, and takes back what dead ones were
    /// handling. Returns how many events that were.
    pub fn release_dead(&mut self) -> Result<usize, StoreError> {
        self.commit(|_| Ok(()))?;
        self.workers.look(self.state.worker_names())?;
        let now = self.clock.now().timestamp_millis();
        let is_lost = |entry: &Entry| match &entry.phase {
            Phase::Running { worker, until } => self.workers.is_dead(worker) || (**worker != *self.workers.own() && *until < now),
            Phase::Waiting | Phase::Done { .. } | Phase::Dead { .. } => false,
        };
        let lost: Vec<(u64, Phase)> =
            self.state.entries().filter(|(_, entry)| is_lost(entry)).map(|(seq, entry)| (seq, entry.phase.clone())).collect();
        if lost.is_empty() {
            return Ok(0);
        }
        self.commit(|commit| {
            // Another worker may have taken them back in the meantime.
            let is_still = |(seq, phase): &(u64, Phase)| commit.state.entry(*seq).is_some_and(|entry| entry.phase == *phase);
            let seqs: Vec<u64> = lost.iter().filter(|lost| is_still(lost)).map(|(seq, _)| *seq).collect();
            let count = seqs.len();
            if count > 0 {
                commit.add(Line::Interrupted { seqs });
            }
            Ok(count)
        })
    }

    /// Returns how many other workers live.
    pub fn living_workers(&mut self) -> Result<usize, StoreError> {
        self.workers.look(self.state.worker_names())
    }

    /// Returns what is in the inbox.
    pub fn depth(&mut self) -> Result<Depth, StoreError> {
        self.commit(|_| Ok(()))?;
        let mut depth = Depth { counters: self.state.counters, open_calls: self.state.calls.len(), ..Depth::default() };
        for (_, entry) in self.state.entries() {
            match entry.phase {
                Phase::Waiting => depth.waiting += 1,
                Phase::Running { .. } => depth.running += 1,
                Phase::Done { .. } | Phase::Dead { .. } => depth.unsettled += 1,
            }
            if matches!(entry.phase, Phase::Waiting | Phase::Running { .. }) {
                depth.oldest_ms = Some(depth.oldest_ms.map_or(entry.at, |oldest| oldest.min(entry.at)));
            }
        }
        Ok(depth)
    }

    /// Returns whether there are dead letters to be written, as of the last
    /// commit.
    #[must_use]
    pub fn has_unburied(&self) -> bool {
        self.state.unburied().next().is_some()
    }

    /// Returns whether there is something that this worker can tell the
    /// portal, as of the last commit. What other workers have done they tell
    /// it themselves.
    #[must_use]
    pub fn has_unsettled(&self) -> bool {
        let worker = |seq| match &self.state.entry(seq)?.phase {
            Phase::Done { worker } | Phase::Dead { worker, .. } => Some(worker),
            Phase::Waiting | Phase::Running { .. } => None,
        };
        self.state.unsettled().filter_map(worker).any(|worker| self.workers.may_take_over(worker))
    }

    /// Returns what happened so far, as of the last commit.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state.counters
    }

    /// Returns when the oldest unfinished event arrived, as of the last commit.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<i64> {
        self.state.entries().find(|(_, entry)| matches!(entry.phase, Phase::Waiting | Phase::Running { .. })).map(|(_, entry)| entry.at)
    }

    /// Returns what is to be told to the portal. With `complete` only
    /// reservations of which nothing is left to be handled.
    #[must_use]
    pub fn settlements(&self, complete: bool) -> Vec<Settlement> {
        let mut found: Vec<Settlement> = Vec::new();
        for seq in self.state.unsettled() {
            let Some((entry, reservation)) = self.state.entry(seq).and_then(|entry| Some((entry, entry.reservation()?))) else { continue };
            let (worker, is_dead) = match &entry.phase {
                Phase::Done { worker } => (worker, false),
                Phase::Dead { worker, .. } => (worker, true),
                Phase::Waiting | Phase::Running { .. } => continue,
            };
            if !self.workers.may_take_over(worker) || (complete && self.state.unfinished_of(&reservation.process) > 0) {
                continue;
            }
            let index = found.iter().position(|settlement| settlement.process == reservation.process).unwrap_or_else(|| {
                let process = reservation.process.clone();
                found.push(Settlement { process, rows: Vec::new() });
                found.len() - 1
            });
            let (row, message) = (reservation.row.clone(), reservation.message.clone());
            found[index].rows.push(SettledRow { seq, row, message, is_dead });
        }
        found
    }

    /// Returns the calls whose answer may have been lost: those of workers
    /// that died, and with `own` those of this one.
    #[must_use]
    pub fn lost_calls(&self, own: bool) -> Vec<OpenCall> {
        let is_lost = |call: &&OpenCall| if call.worker == self.workers.own() { own } else { self.workers.is_dead(&call.worker) };
        self.state.calls.values().filter(is_lost).cloned().collect()
    }

    /// Returns whether a reservation is one of this inbox.
    #[must_use]
    pub fn has_process(&self, process: &str) -> bool {
        self.state.has_process(process)
    }

    /// Returns when a reservation that is not ours was seen first.
    #[must_use]
    pub fn foreign_since(&self, process: &str) -> Option<i64> {
        self.state.foreign.get(process).copied()
    }
}

fn state_line(seq: u64, entry: &Entry) -> Line {
    let phase = match &entry.phase {
        Phase::Waiting => PhaseLine::Waiting,
        Phase::Running { worker, until } => PhaseLine::Running { worker: worker.to_string(), until: *until },
        Phase::Done { worker } => PhaseLine::Done { worker: worker.to_string() },
        Phase::Dead { worker, reason, error, buried } => {
            PhaseLine::Dead { worker: worker.to_string(), reason: reason.clone(), error: error.clone(), buried: *buried }
        }
    };
    Line::State { seq, failures: entry.failures, starts: entry.starts, interrupted: entry.interrupted, due: entry.due, phase }
}

#[cfg(test)]
mod tests;
