//! The durable inbox: every change is one commit, and a commit is on disk
//! when it returns.

use super::event::{Job, NewEvent, Origin, Reservation};
use super::journal::{Held, Journal};
use super::line::{CallKind, Counters, Line, OpenCall, PhaseLine, Received, Verdict};
use super::state::{Entry, Known, Phase, Place, State};
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

/// One commit in the making. Each step changes the memory at once; the file
/// follows as a whole.
pub struct Commit<'a> {
    state: &'a mut State,
    journal: &'a Journal,
    held: &'a mut Held,
    worker: &'a str,
    now: i64,
    lines: Vec<u8>,
    durable: bool,
}

/// What became of events that arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrival {
    /// How many were new.
    pub new: usize,
    /// How many were known.
    pub known: usize,
}

/// What a handler made of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is to be tried at this time, in milliseconds since 1970; that costs
    /// no attempt.
    Later(i64),
    /// It failed and is tried again at this time.
    Failed(i64),
    /// It failed for the last time: reason word and error text.
    Dead(String, String),
    /// The handler broke off, and not because of this event alone.
    Interrupted,
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

/// A dead letter that is to be written.
#[derive(Debug, Clone)]
pub struct Dead {
    /// The event, as its last handler had it.
    pub job: Job,
    /// Why: one word.
    pub reason: String,
    /// What the handler said.
    pub error: String,
    /// `MESSAGE_ID` of the portal's row, if it has one.
    pub message: Option<String>,
    /// How many attempts failed.
    pub failures: u32,
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

    /// Makes one commit. An error means that nothing of it happened.
    pub fn commit<T>(&mut self, work: impl FnOnce(&mut Commit<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut held = self.journal.lock(&mut self.state)?;
        let now = self.clock.now().timestamp_millis();
        let (result, lines, durable) = {
            let worker = self.workers.own();
            let (journal, state) = (&self.journal, &mut self.state);
            let mut commit = Commit { state, journal, held: &mut held, worker, now, lines: Vec::new(), durable: false };
            let result = work(&mut commit);
            (result, commit.lines, commit.durable)
        };
        let appended = match &result {
            Ok(_) if !lines.is_empty() => self.journal.append(&mut held, &lines, durable),
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
        self.journal.replace(held, &snapshot, self.random.as_ref())
    }

    /// Returns the journal that leads to the same state, without history.
    fn snapshot(&mut self, held: &mut Held) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let keys = self.state.over().collect();
        let entries: Vec<(u64, Entry)> = self.state.entries().map(|(seq, entry)| (seq, entry.clone())).collect();
        for call in self.state.calls.values() {
            Line::Calling(call.clone()).write(&mut bytes);
        }
        for (process, at) in &self.state.foreign {
            Line::Foreign { process: process.clone(), at: *at }.write(&mut bytes);
        }
        for (seq, entry) in entries {
            // What came again has no line to be copied, and one phase only.
            if let (true, Phase::Done { worker }) = (entry.place == Place::default(), &entry.phase) {
                Line::Again { seq, key: entry.key, origin: entry.origin, worker: worker.to_string() }.write(&mut bytes);
                continue;
            }
            let mut line = Journal::read(held, entry.place)?;
            if let Line::Received(received) = &mut line {
                received.origin = entry.origin.clone();
            }
            line.write(&mut bytes);
            state_line(seq, &entry).write(&mut bytes);
        }
        // Last: the lines above count as arrivals when they are read.
        Line::Snapshot { next_seq: self.state.next_seq, counters: self.state.counters, keys }.write(&mut bytes);
        Ok(bytes)
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

    /// Returns whether there is something to be told to the portal, as of the
    /// last commit.
    #[must_use]
    pub fn has_unsettled(&self) -> bool {
        self.state.unsettled().next().is_some()
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

impl Commit<'_> {
    fn add(&mut self, line: Line) {
        let offset = self.journal.position() + self.lines.len() as u64;
        let before = self.lines.len();
        line.write(&mut self.lines);
        let length = (self.lines.len() - before).try_into().unwrap_or(u32::MAX);
        self.state.apply(line, Place { offset, length });
    }

    /// Returns the time of this commit, in milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Takes events in. One that is known is not taken in again; if it is over
    /// and has a reservation, that is settled again: the portal still has it.
    pub fn receive(&mut self, events: Vec<NewEvent>) -> Arrival {
        let mut arrival = Arrival::default();
        self.durable = true;
        for event in events {
            match self.state.known(event.key) {
                None => {
                    arrival.new += 1;
                    self.take_in(event);
                }
                Some(known) => {
                    arrival.known += 1;
                    self.see_again(known, event);
                }
            }
        }
        if arrival.known > 0 {
            self.add(Line::Known { count: arrival.known as u64 });
        }
        arrival
    }

    fn take_in(&mut self, event: NewEvent) {
        let seq = self.state.next_seq;
        let received = Received {
            seq,
            key: event.key,
            name: event.name,
            entity: event.entity,
            order: event.order.unwrap_or(seq),
            at: self.now,
            due: if event.hold_ms > 0 { self.now + event.hold_ms } else { 0 },
            origin: event.origin,
            payload: event.payload,
        };
        self.add(Line::Received(received));
        if let Some(problem) = event.unusable {
            let verdict = Verdict::Dead { reason: "invalid_event".to_owned(), error: problem };
            self.add(Line::Ended { seq, worker: self.worker.to_owned(), at: self.now, verdict });
        }
    }

    fn see_again(&mut self, known: Known, event: NewEvent) {
        match known {
            Known::Here(seq) => {
                let is_other = self.state.entry(seq).is_some_and(|entry| entry.reservation().is_some() && entry.origin != event.origin);
                if is_other && matches!(event.origin, Origin::Offline(_)) {
                    self.add(Line::Moved { seq, origin: event.origin });
                }
            }
            Known::Over(_) if matches!(&event.origin, Origin::Offline(reservation) if !reservation.row.is_empty()) => {
                let seq = self.state.next_seq;
                self.add(Line::Again { seq, key: event.key, origin: event.origin, worker: self.worker.to_owned() });
            }
            Known::Over(_) => {}
        }
    }

    /// Hands up to `count` events to this worker, those that `admit` lets
    /// pass. Their claim lapses after `lapse_ms`. It is on disk before a handler
    /// sees them: an event that brings the machine down is counted, too.
    pub fn start(&mut self, count: usize, lapse_ms: i64, admit: impl Fn(u64) -> bool) -> Result<Vec<Job>, StoreError> {
        let seqs: Vec<u64> = self.state.ready(self.now).filter(|seq| admit(*seq)).take(count).collect();
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        self.durable = true;
        self.add(Line::Started { worker: self.worker.to_owned(), until: self.now + lapse_ms, seqs: seqs.clone() });
        seqs.into_iter().map(|seq| self.job(seq)).collect()
    }

    /// Returns an event as a handler sees it.
    fn job(&mut self, seq: u64) -> Result<Job, StoreError> {
        let missing = || StoreError::unusable(Path::new("inbox"), format!("has no event {seq}"));
        let entry = self.state.entry(seq).ok_or_else(missing)?.clone();
        let start = entry.place.offset.checked_sub(self.journal.position());
        let line = match start {
            // It arrived in this very commit.
            Some(start) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let text = self.lines.get(start..start + entry.place.length as usize).and_then(|text| text.strip_suffix(b"\n"));
                text.and_then(Line::parse).ok_or_else(missing)?
            }
            None => Journal::read(self.held, entry.place)?,
        };
        let Line::Received(received) = line else { return Err(missing()) };
        Ok(Job {
            seq,
            key: entry.key,
            name: received.name,
            entity: received.entity,
            attempt: entry.starts,
            interrupted: entry.interrupted,
            received_ms: entry.at,
            source: match entry.origin {
                Origin::Offline(_) => "offline",
                Origin::Online => "online",
                Origin::Revived => "dead-letter",
            },
            payload: received.payload,
        })
    }

    /// Notes what a handler made of an event. A verdict about an event that
    /// this worker no longer has is not counted.
    pub fn end(&mut self, seq: u64, outcome: Outcome) {
        let is_mine =
            self.state.entry(seq).is_some_and(|entry| matches!(&entry.phase, Phase::Running { worker, .. } if **worker == *self.worker));
        if !is_mine {
            return;
        }
        let verdict = match outcome {
            Outcome::Done => Verdict::Done,
            Outcome::Later(due) => Verdict::Later { due },
            Outcome::Failed(due) => Verdict::Failed { due },
            Outcome::Dead(reason, error) => Verdict::Dead { reason, error },
            Outcome::Interrupted => return self.add(Line::Interrupted { seqs: vec![seq] }),
        };
        self.durable = true;
        self.add(Line::Ended { seq, worker: self.worker.to_owned(), at: self.now, verdict });
    }

    /// Returns whether this worker has an event or can be handed it next: it is
    /// not over, no other worker has it, and it is the first of its entity.
    #[must_use]
    pub fn is_in_reach(&self, seq: u64) -> bool {
        self.state.entry(seq).is_some_and(|entry| match &entry.phase {
            Phase::Waiting => self.state.is_next(seq),
            Phase::Running { worker, .. } => **worker == *self.worker,
            Phase::Done { .. } | Phase::Dead { .. } => false,
        })
    }

    /// Returns how many attempts of an event failed.
    #[must_use]
    pub fn failures(&self, seq: u64) -> u32 {
        self.state.entry(seq).map_or(0, |entry| entry.failures)
    }

    /// Returns how many attempts of an event were put off by the handler.
    #[must_use]
    pub fn put_offs(&self, seq: u64) -> u32 {
        self.state.entry(seq).map_or(0, |entry| entry.starts.saturating_sub(entry.failures + entry.interrupted + 1))
    }

    /// Returns the dead letters that are to be written.
    pub fn unburied(&mut self) -> Result<Vec<Dead>, StoreError> {
        let seqs: Vec<u64> = self.state.unburied().collect();
        let mut dead = Vec::new();
        for seq in seqs {
            let job = self.job(seq)?;
            let Some(entry) = self.state.entry(seq) else { continue };
            let Phase::Dead { reason, error, .. } = &entry.phase else { continue };
            dead.push(Dead {
                reason: reason.clone(),
                error: error.clone(),
                message: entry.reservation().map(Reservation::id_for_people),
                failures: entry.failures,
                job,
            });
        }
        Ok(dead)
    }

    /// Notes that dead letters are on disk.
    pub fn bury(&mut self, seqs: Vec<u64>) {
        if !seqs.is_empty() {
            self.durable = true;
            self.add(Line::Buried { seqs });
        }
    }

    /// Notes that the portal was told. Not durable at once: telling it again
    /// does no harm.
    pub fn settle(&mut self, seqs: Vec<u64>) {
        self.add(Line::Settled { at: self.now, seqs });
    }

    /// Announces a call to the offline queue.
    pub fn calling(&mut self, nonce: &str, kind: CallKind) {
        // A reservation that nobody remembers hides its events; the others can
        // be repeated by anybody.
        self.durable |= kind == CallKind::Reserve;
        self.add(Line::Calling(OpenCall { nonce: nonce.to_owned(), kind, worker: self.worker.to_owned(), at: self.now }));
    }

    /// Closes a call.
    pub fn called(&mut self, nonce: &str) {
        self.add(Line::Called { nonce: nonce.to_owned() });
    }

    /// Notes a reservation on the portal that is not one of this inbox.
    pub fn see_foreign(&mut self, process: &str) {
        if !self.state.foreign.contains_key(process) {
            self.add(Line::Foreign { process: process.to_owned(), at: self.now });
        }
    }
}

impl Reservation {
    /// Returns what the Python worker called `message_id`.
    fn id_for_people(&self) -> String {
        if self.message.is_empty() { self.row.clone() } else { self.message.clone() }
    }
}

#[cfg(test)]
mod tests;
