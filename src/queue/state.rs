//! The inbox as the journal tells it: pure, without files and clocks.
//!
//! Every event is in one [`Phase`]. An entity has a queue of the events that
//! are not finished; only its first one can be handed over, and only while
//! none of the entity is running. That keeps the order, also across failures:
//! an event that waits for its next attempt holds those behind it back.

mod index;

use super::event::{EventKey, Origin, Reservation};
use super::line::{Counters, Line, OpenCall, PhaseLine, Received, Verdict};
use index::EntityQueue;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// How many events that are over are remembered, to know a second delivery.
const REMEMBERED: usize = 100_000;

/// How long an event that is over is remembered.
const REMEMBERED_MS: i64 = 24 * 3600 * 1000;

/// Where the line of an event stands in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// What is happening to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for its turn, or for its next attempt.
    Waiting,
    /// A worker has it, until then at most.
    Running { worker: Arc<str>, until: i64 },
    /// It was handled; the source must be told.
    Done { worker: Arc<str> },
    /// It goes to the dead letters, or is there and the source must be told.
    Dead { worker: Arc<str>, reason: String, error: String, buried: bool },
}

/// An event that is not over.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: EventKey,
    pub(super) entity: Arc<str>,
    pub(super) order: u64,
    pub(super) origin: Origin,
    pub(super) place: Place,
    pub(super) at: i64,
    pub(super) due: i64,
    pub(super) failures: u32,
    pub(super) starts: u32,
    pub(super) interrupted: u32,
    pub(super) phase: Phase,
}

impl Entry {
    /// Returns whether it is still to be handled.
    fn is_unfinished(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Running { .. })
    }

    /// Returns the reservation that is to be cleared on the portal.
    pub(super) fn reservation(&self) -> Option<&Reservation> {
        match &self.origin {
            Origin::Offline(reservation) => Some(reservation),
            Origin::Online | Origin::Revived => None,
        }
    }
}

/// What is known of an event's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is in the inbox.
    Here(u64),
    /// It is over, since then.
    Over(i64),
}

/// Everything that the journal tells.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) next_seq: u64,
    pub(super) counters: Counters,
    entries: BTreeMap<u64, Entry>,
    keys: HashMap<EventKey, Known>,
    over: VecDeque<(i64, EventKey)>,
    entities: HashMap<Arc<str>, EntityQueue>,
    /// The first event of every entity that has none running, by due time.
    heads: BTreeSet<(i64, u64)>,
    /// Events whose source must be told.
    unsettled: BTreeSet<u64>,
    /// Events in the dead letters' phase whose dead letter is not written.
    unburied: BTreeSet<u64>,
    /// Unfinished events by reservation.
    processes: HashMap<String, usize>,
    workers: HashMap<String, Arc<str>>,
    pub(super) calls: BTreeMap<String, OpenCall>,
    pub(super) foreign: HashMap<String, i64>,
    /// Bytes of the lines of the events that are not over.
    pub(super) live_bytes: u64,
}

impl State {
    /// Takes over what a line says.
    pub(super) fn apply(&mut self, line: Line, place: Place) {
        match line {
            Line::Received(received) => self.receive(received, place),
            Line::Moved { seq, origin } => self.change(seq, |entry| entry.origin = origin),
            Line::Started { worker, until, seqs } => {
                let worker = self.worker(&worker);
                for seq in seqs {
                    self.change(seq, |entry| {
                        entry.starts += 1;
                        entry.phase = Phase::Running { worker: worker.clone(), until };
                    });
                }
            }
            Line::Ended { seq, worker, at, verdict } => self.end(seq, &worker, at, verdict),
            Line::Interrupted { seqs } => {
                self.counters.interrupted += seqs.len() as u64;
                for seq in seqs {
                    self.change(seq, |entry| {
                        entry.interrupted += 1;
                        entry.phase = Phase::Waiting;
                    });
                }
            }
            Line::Buried { seqs } => seqs.into_iter().for_each(|seq| self.bury(seq)),
            Line::Settled { at, seqs } => seqs.into_iter().for_each(|seq| self.finish(seq, at)),
            Line::Known { count } => self.counters.duplicates += count,
            Line::Again { seq, key, origin, worker } => self.again(seq, key, origin, &worker),
            Line::Calling(call) => {
                self.worker(&call.worker);
                self.calls.insert(call.nonce.clone(), call);
            }
            Line::Called { nonce } => {
                self.calls.remove(&nonce);
            }
            Line::Foreign { process, at } => {
                self.foreign.entry(process).or_insert(at);
            }
            Line::Snapshot { next_seq, counters, keys } => {
                self.next_seq = next_seq;
                self.counters = counters;
                keys.into_iter().for_each(|(key, at)| self.remember(key, at));
            }
            Line::State { seq, failures, starts, interrupted, due, phase } => {
                let phase = self.phase_of(phase);
                self.change(seq, |entry| {
                    (entry.failures, entry.starts, entry.interrupted, entry.due) = (failures, starts, interrupted, due);
                    entry.phase = phase;
                });
            }
        }
    }

    fn worker(&mut self, name: &str) -> Arc<str> {
        match self.workers.get(name) {
            Some(worker) => worker.clone(),
            None => {
                let worker: Arc<str> = Arc::from(name);
                self.workers.insert(name.to_owned(), worker.clone());
                worker
            }
        }
    }

    fn phase_of(&mut self, phase: PhaseLine) -> Phase {
        match phase {
            PhaseLine::Waiting => Phase::Waiting,
            PhaseLine::Running { worker, until } => Phase::Running { worker: self.worker(&worker), until },
            PhaseLine::Done { worker } => Phase::Done { worker: self.worker(&worker) },
            PhaseLine::Dead { worker, reason, error, buried } => Phase::Dead { worker: self.worker(&worker), reason, error, buried },
        }
    }

    fn receive(&mut self, received: Received, place: Place) {
        self.next_seq = self.next_seq.max(received.seq + 1);
        self.counters.received += 1;
        let entity: Arc<str> = match self.entities.get_key_value(received.entity.as_str()) {
            Some((entity, _)) => entity.clone(),
            None => Arc::from(received.entity.as_str()),
        };
        self.keys.insert(received.key, Known::Here(received.seq));
        self.live_bytes += u64::from(place.length);
        let entry = Entry {
            key: received.key,
            entity,
            order: received.order,
            origin: received.origin,
            place,
            at: received.at,
            due: received.due,
            failures: 0,
            starts: 0,
            interrupted: 0,
            phase: Phase::Waiting,
        };
        self.index(received.seq, &entry);
        self.entries.insert(received.seq, entry);
    }

    fn again(&mut self, seq: u64, key: EventKey, origin: Origin, worker: &str) {
        self.next_seq = self.next_seq.max(seq + 1);
        let worker = self.worker(worker);
        self.keys.insert(key, Known::Here(seq));
        let entry = Entry {
            key,
            entity: Arc::from(""),
            order: seq,
            origin,
            place: Place::default(),
            at: 0,
            due: 0,
            failures: 0,
            starts: 0,
            interrupted: 0,
            phase: Phase::Done { worker },
        };
        self.index(seq, &entry);
        self.entries.insert(seq, entry);
    }

    fn end(&mut self, seq: u64, worker: &str, at: i64, verdict: Verdict) {
        let worker = self.worker(worker);
        let needs_settling = self.entries.get(&seq).is_some_and(|entry| entry.reservation().is_some());
        match verdict {
            Verdict::Done => {
                self.counters.handled += 1;
                self.change(seq, |entry| entry.phase = Phase::Done { worker });
                if !needs_settling {
                    self.finish(seq, at);
                }
            }
            Verdict::Later { due } => {
                self.counters.later += 1;
                self.change(seq, |entry| (entry.phase, entry.due) = (Phase::Waiting, due));
            }
            Verdict::Failed { due } => {
                self.counters.failed += 1;
                self.change(seq, |entry| {
                    entry.failures += 1;
                    (entry.phase, entry.due) = (Phase::Waiting, due);
                });
            }
            Verdict::Dead { reason, error } => {
                self.counters.failed += 1;
                self.counters.dead += 1;
                self.change(seq, |entry| {
                    entry.failures += 1;
                    entry.phase = Phase::Dead { worker, reason, error, buried: false };
                });
            }
        }
    }

    fn bury(&mut self, seq: u64) {
        let Some(entry) = self.entries.get(&seq) else { return };
        let (needs_settling, at) = (entry.reservation().is_some_and(|reservation| !reservation.row.is_empty()), entry.at);
        self.change(seq, |entry| {
            if let Phase::Dead { buried, .. } = &mut entry.phase {
                *buried = true;
            }
        });
        if !needs_settling {
            self.finish(seq, at);
        }
    }

    /// Forgets an event that is over, but for its key.
    fn finish(&mut self, seq: u64, at: i64) {
        let Some(entry) = self.entries.remove(&seq) else { return };
        self.unindex(seq, &entry);
        self.live_bytes -= u64::from(entry.place.length);
        self.remember(entry.key, at);
    }

    fn remember(&mut self, key: EventKey, at: i64) {
        self.keys.insert(key, Known::Over(at));
        self.over.push_back((at, key));
        while self.over.len() > REMEMBERED {
            self.forget_oldest();
        }
    }

    /// Forgets the key that was over first, unless it was over once more later.
    fn forget_oldest(&mut self) {
        let Some((at, key)) = self.over.pop_front() else { return };
        if self.keys.get(&key) == Some(&Known::Over(at)) {
            self.keys.remove(&key);
        }
    }

    /// Forgets the keys of events that were over long ago.
    pub(super) fn forget_old(&mut self, now: i64) {
        while self.over.front().is_some_and(|(at, _)| *at < now - REMEMBERED_MS) {
            self.forget_oldest();
        }
    }

    fn change(&mut self, seq: u64, change: impl FnOnce(&mut Entry)) {
        let Some(mut entry) = self.entries.remove(&seq) else { return };
        self.unindex(seq, &entry);
        change(&mut entry);
        self.index(seq, &entry);
        self.entries.insert(seq, entry);
    }
}

/// Looking at the state.
impl State {
    /// Returns an event that is not over.
    pub(super) fn entry(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(&seq)
    }

    /// Returns the events that are not over, in the order of arrival.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(seq, entry)| (*seq, entry))
    }

    /// Returns the keys of events that are over, oldest first.
    pub(super) fn over(&self) -> impl Iterator<Item = (EventKey, i64)> {
        self.over.iter().filter(|(at, key)| self.keys.get(key) == Some(&Known::Over(*at))).map(|(at, key)| (*key, *at))
    }

    /// Returns how many events that are over are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.over.len()
    }

    /// Returns the workers that the journal names.
    pub(super) fn worker_names(&self) -> impl Iterator<Item = String> {
        self.workers.keys().cloned()
    }

    /// Returns what is known of a key.
    pub(super) fn known(&self, key: EventKey) -> Option<Known> {
        self.keys.get(&key).copied()
    }

    /// Returns events that can be handed over now, the longest due first.
    pub(super) fn ready(&self, now: i64) -> impl Iterator<Item = u64> {
        self.heads.iter().take_while(move |(due, _)| *due <= now).map(|(_, seq)| *seq)
    }

    /// Returns whether an event is the next one of its entity.
    pub(super) fn is_next(&self, seq: u64) -> bool {
        let queue = self.entries.get(&seq).and_then(|entry| self.entities.get(&entry.entity));
        queue.and_then(|queue| queue.listed).is_some_and(|(_, listed)| listed == seq)
    }

    /// Returns when the next event can be handed over.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.heads.first().map(|(due, _)| *due)
    }

    /// Returns how many events are still to be handled.
    pub(super) fn unfinished(&self) -> usize {
        self.entries.len() - self.unsettled.len() - self.unburied.len()
    }

    /// Returns whether every event is over.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the events whose source must be told.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = u64> {
        self.unsettled.iter().copied()
    }

    /// Returns the events whose dead letter is to be written.
    pub(super) fn unburied(&self) -> impl Iterator<Item = u64> {
        self.unburied.iter().copied()
    }

    /// Returns how many events of a reservation are still to be handled.
    pub(super) fn unfinished_of(&self, process: &str) -> usize {
        self.processes.get(process).copied().unwrap_or(0)
    }

    /// Returns whether events of a reservation are in the inbox.
    pub(super) fn has_process(&self, process: &str) -> bool {
        self.processes.contains_key(process)
            || self.entries.values().any(|entry| entry.reservation().is_some_and(|reservation| reservation.process == process))
    }
}

#[cfg(test)]
mod tests;
