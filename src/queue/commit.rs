//! One commit of the inbox: what may be changed, and how.

use super::event::{Job, NewEvent, Origin, Reservation};
use super::journal::{Held, Journal};
use super::line::{CallKind, Line, OpenCall, Received, Tip, Verdict};
use super::state::{Known, Phase, Place, State};
use crate::store::locked::StoreError;
use std::path::Path;

/// One commit in the making. Each step changes the memory at once; the file
/// follows as a whole.
pub struct Commit<'a> {
    pub(super) state: &'a mut State,
    pub(super) journal: &'a Journal,
    pub(super) held: &'a mut Held,
    pub(super) worker: &'a str,
    pub(super) now: i64,
    pub(super) lines: Vec<u8>,
    /// Where the chain of the journal is behind `lines`.
    pub(super) tip: Tip,
    pub(super) durable: bool,
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

impl Commit<'_> {
    pub(super) fn add(&mut self, line: Line) {
        let offset = self.journal.position() + self.lines.len() as u64;
        let before = self.lines.len();
        line.write(&mut self.lines, &mut self.tip);
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
                text.and_then(Line::parse).ok_or_else(missing)?.line
            }
            None => Journal::read(self.held, entry.place)?,
        };
        let Line::Received(received) = line else { return Err(missing()) };
        if (received.seq, received.key) != (seq, entry.key) {
            return Err(self.journal.changed(&entry.place));
        }
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
