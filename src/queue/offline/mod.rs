//! The offline queue of a portal as a source of events.
//!
//! Protocol of one poll: `poll.lock` is taken, so that the workers of one
//! inbox take their turns and the events of an entity arrive in order (it is
//! held across the network call; who waits for it does other work). The call is
//! announced in the inbox, on disk, before it leaves. What it returns is in
//! the inbox, on disk, before anything else is done with it. An answer that
//! does not come leaves the announcement open, and before the next poll the
//! portal is searched for what that call may have taken ([`adopt`]).
//!
//! The queue is never read in the way that deletes what it returns. What was
//! handled, or has a dead letter on disk, is cleared by id. A dead letter is
//! marked with `event.offline.error` only on demand: on a self-hosted portal
//! a marked row leaves its reservation, so that clearing it does not find it,
//! and from then on swallows the changes of its object.

mod adopt;
mod answer;
mod search;

use super::event::NewEvent;
use super::inbox::{SettledRow, Settlement};
use super::line::CallKind;
use super::message::{Message, Signal};
use super::wake;
use crate::crash;
use crate::error::{Code, Exit, Failure, Outcome};
use crate::gate::QueueCall;
use crate::host::random_hex;
use crate::pipeline::{self, Completed};
use crate::session::Session;
use crate::store::locked::{Locked, Mode};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How many rows one call clears or marks.
const AT_ONCE: usize = 500;

/// How often a sleeping source looks whether it was woken.
const BLINK: Duration = Duration::from_millis(250);

/// Longest pause after errors.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often the portal is told at the end, while answers are lost.
const LAST_WORDS: u32 = 3;

/// After how many refusals of the portal in a row the source gives up, as the
/// Python worker does.
const MOST_REFUSALS: u32 = 10;

/// How the offline queue is read.
#[derive(Debug, Clone)]
pub struct OfflineSettings {
    /// The inbox's folder.
    pub folder: PathBuf,
    /// Pause after an empty answer.
    pub sleep: Duration,
    /// How many events one call takes.
    pub batch: u32,
    /// `auth_connector`.
    pub connector: Option<String>,
    /// When a reservation that nobody works on is taken over.
    pub adopt_after: Duration,
    /// How many unfinished events are enough: the rest waits on the portal.
    pub enough: usize,
    /// Poll once, and say that no more will come.
    pub once: bool,
    /// Events that went to the dead letters are marked as failed on the
    /// portal (`event.offline.error`) instead of being cleared. A marked row
    /// has no reservation any more, so it cannot be cleared afterwards, and
    /// later changes of its object only refresh it: who marks must also ask
    /// for failed rows. Marking deletes the other rows of the same event and
    /// object, also those that another process holds.
    pub mark_failed: bool,
}

/// The offline queue as a source.
pub struct OfflineSource<'a> {
    session: &'a mut Session,
    settings: OfflineSettings,
    engine: Sender<Message>,
    signals: Receiver<Signal>,
    searched_ns: Option<u64>,
    answer_was_lost: bool,
    /// There are calls of which it is not known what they took.
    misses_answers: bool,
    /// Reservations of others that were spoken of.
    foreign_told: HashSet<String>,
    refusals: u32,
    pause: Duration,
    wake: Option<Vec<u8>>,
    stops: bool,
}

/// What ends a wait early.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wakes {
    /// Whatever there is to do.
    Anything,
    /// The request to stop.
    Stop,
}

/// What came of a step.
enum Step {
    /// It found something to do.
    Busy,
    /// It found nothing.
    Idle,
    /// Another worker is at it.
    Elsewhere,
}

/// The engine is gone: there is nothing to work for.
struct Gone;

impl From<Gone> for Box<Failure> {
    fn from(_: Gone) -> Box<Failure> {
        Box::new(Failure::new(Code::Internal, "the queue's engine ended before its source"))
    }
}

type Tried<T> = Result<T, Box<Failure>>;

impl<'a> OfflineSource<'a> {
    /// Prepares the source; nothing is sent.
    #[must_use]
    pub fn new(
        session: &'a mut Session,
        settings: OfflineSettings,
        engine: Sender<Message>,
        signals: Receiver<Signal>,
    ) -> OfflineSource<'a> {
        let mut source = OfflineSource {
            session,
            settings,
            engine,
            signals,
            searched_ns: None,
            answer_was_lost: true,
            misses_answers: false,
            foreign_told: HashSet::new(),
            refusals: 0,
            pause: Duration::ZERO,
            wake: None,
            stops: false,
        };
        source.wake = wake::mark(&source.settings.folder);
        source
    }

    /// Reads what an answer of `event.offline.get` brings; `None` when it is
    /// not one, and events may be hidden.
    #[must_use]
    pub fn events_of(body: &[u8]) -> Option<Vec<NewEvent>> {
        answer::taken(body)
    }

    /// Works until it is told to stop, and tells the engine how it ended.
    pub fn run(mut self) {
        let result = self.work();
        let _ = self.engine.send(Message::SourceEnded(result));
    }

    fn work(&mut self) -> Tried<()> {
        loop {
            let (wait, wakes) = match self.step() {
                Ok(Step::Busy) => (Duration::ZERO, Wakes::Anything),
                Ok(Step::Idle) => {
                    // What a lost answer hides is not known to be nothing.
                    if !self.misses_answers {
                        self.tell(Message::Idle)?;
                    }
                    (self.settings.sleep, Wakes::Anything)
                }
                Ok(Step::Elsewhere) => (BLINK.min(self.settings.sleep), Wakes::Anything),
                // Events that get done meanwhile must not cut the pause short.
                Err(failure) => (self.after(failure)?, Wakes::Stop),
            };
            if self.stops {
                return self.last_words();
            }
            if let Err(failure) = self.wait(wait, wakes) {
                let pause = self.after(failure)?;
                self.wait(pause, Wakes::Stop)?;
            }
        }
    }

    fn step(&mut self) -> Tried<Step> {
        // Only whole reservations while there is more to do: fewer calls.
        let has_settled = self.settle(true)?;
        if self.stops {
            return Ok(Step::Busy);
        }
        let polled = self.poll()?;
        (self.refusals, self.pause) = (0, Duration::ZERO);
        if self.settings.once && !matches!(polled, Step::Elsewhere) {
            self.tell(Message::NoMore)?;
            self.wait_for_stop();
            return Ok(Step::Busy);
        }
        match polled {
            Step::Busy => Ok(Step::Busy),
            Step::Idle | Step::Elsewhere if has_settled || self.settle(false)? => Ok(Step::Busy),
            other => Ok(other),
        }
    }

    /// Waits until what was taken is dealt with; it is told at the end.
    fn wait_for_stop(&mut self) {
        while !self.stops {
            match self.signals.recv() {
                Ok(Signal::Settle) => {}
                Ok(Signal::Stop) | Err(_) => self.stops = true,
            }
        }
    }

    /// Says how long to wait after a failure, or that it is the end.
    fn after(&mut self, failure: Box<Failure>) -> Tried<Duration> {
        let is_lost = failure.code == Code::OutcomeUnknown;
        self.answer_was_lost |= is_lost;
        self.refusals += u32::from(failure.code == Code::ApiError);
        let may_pass = match failure.code.exit() {
            Exit::Temporary | Exit::OutcomeUnknown => true,
            Exit::ApiError => self.refusals < MOST_REFUSALS,
            _ => false,
        };
        // With --once the answer is given now, except that a lost answer is
        // looked for first.
        if !may_pass || (self.settings.once && !is_lost) {
            return Err(failure);
        }
        if self.stops {
            return Ok(Duration::ZERO);
        }
        self.tell(Message::Note("warning", failure.code.text(), failure.message.clone()))?;
        self.pause = (self.pause * 2).clamp(Duration::from_millis(200), LONGEST_PAUSE);
        Ok(self.pause)
    }

    /// Tells the portal everything that there is to tell. What cannot be told
    /// now is told by the next run.
    fn last_words(&mut self) -> Tried<()> {
        let mut told = self.settle(false);
        for _ in 1..LAST_WORDS {
            // A lost answer is no reason to leave the rows to the next run.
            if told.as_ref().is_err_and(|failure| failure.code.exit() == Exit::OutcomeUnknown) {
                told = self.settle(false);
            }
        }
        match told {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.code.exit(), Exit::Temporary | Exit::OutcomeUnknown) => {
                let text = format!("the portal was not told of everything that is done; the next run will: {}", failure.message);
                self.tell(Message::Note("warning", failure.code.text(), text))
            }
            Err(failure) => Err(failure),
        }
    }

    fn tell(&self, message: Message) -> Tried<()> {
        Ok(self.engine.send(message).map_err(|_| Gone)?)
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Message) -> Tried<T> {
        let (answer, answered) = channel();
        self.tell(question(answer))?;
        Ok(answered.recv().map_err(|_| Gone)?)
    }

    /// Waits, unless there is something to do earlier: stopping, or a call from
    /// the receiver. What gets done meanwhile is told to the portal, a
    /// reservation at a time; it is no reason to ask for more.
    fn wait(&mut self, wait: Duration, wakes: Wakes) -> Tried<()> {
        let clock = std::sync::Arc::clone(&self.session.tools.clock);
        let end = clock.boot_ns().saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let left = Duration::from_nanos(end.saturating_sub(clock.boot_ns()));
            match self.signals.recv_timeout(left.min(BLINK)) {
                Ok(Signal::Settle) if wakes == Wakes::Anything && !left.is_zero() => {
                    self.settle(true)?;
                }
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.stops = true;
                    return Ok(());
                }
                Ok(Signal::Settle) | Err(RecvTimeoutError::Timeout) => {}
            }
            if left.is_zero() {
                return Ok(());
            }
            if wakes == Wakes::Stop {
                continue;
            }
            let mark = wake::mark(&self.settings.folder);
            if mark != self.wake {
                self.wake = mark;
                return Ok(());
            }
        }
    }

    /// Takes events from the portal.
    fn poll(&mut self) -> Tried<Step> {
        if self.ask(Message::Unfinished)? >= self.settings.enough {
            return Ok(Step::Elsewhere);
        }
        let lock = self.settings.folder.join("poll.lock");
        let Some(_turn) = Locked::try_open(&lock, Mode::Exclusive).map_err(|error| Box::new(error.into()))? else {
            return Ok(Step::Elsewhere);
        };
        let found = self.search_if_due()?;
        let nonce = random_hex(self.session.tools.random.as_ref(), 16);
        self.ask(|noted| Message::Calling { nonce: nonce.clone(), kind: CallKind::Reserve, noted: Some(noted) })?;
        crash::point("queue.before_reserve");
        let call = QueueCall::Reserve { limit: self.settings.batch, connector: self.settings.connector.clone() };
        let result = pipeline::run_queue_call(self.session, &call, &nonce);
        crash::point("queue.after_reserve");
        let (events, unrecorded) = match result {
            Ok(completed) => (self.usable(&completed)?, completed.failure),
            Err(failure) => {
                if failure.outcome != Outcome::Unknown && failure.code != Code::ExecutedUnrecorded {
                    self.tell(Message::Called(nonce))?;
                }
                return Err(Box::new(failure));
            }
        };
        let count = events.len();
        self.ask(|stored| Message::Arrived { events, closes: Some(nonce), stored })?;
        crash::point("queue.after_arrival");
        if let Some(failure) = unrecorded {
            // The events are safe; what is wrong with the records is told.
            return Err(Box::new(failure));
        }
        if count > 0 || found {
            self.misses_answers = false;
            return Ok(Step::Busy);
        }
        let losses = self.ask(|answer| Message::Losses { processes: Vec::new(), answer })?;
        self.misses_answers = losses.calls.iter().any(|call| call.kind == CallKind::Reserve);
        Ok(Step::Idle)
    }

    /// Reads what was taken. An answer that cannot be read is a lost one.
    fn usable(&mut self, completed: &Completed) -> Tried<Vec<NewEvent>> {
        self.pass_warnings(completed)?;
        answer::taken(&completed.body).ok_or_else(|| {
            let text = "event.offline.get gave an answer that does not say what was taken";
            Box::new(Failure::new(Code::OutcomeUnknown, text).sent(Outcome::Unknown))
        })
    }

    fn pass_warnings(&self, completed: &Completed) -> Tried<()> {
        completed.warnings.iter().try_for_each(|(code, text)| self.tell(Message::Note("warning", code, text.clone())))
    }

    /// Makes a call that does no harm when it is made twice.
    fn repeatable(&mut self, call: &QueueCall) -> Tried<Completed> {
        let nonce = random_hex(self.session.tools.random.as_ref(), 16);
        // Announced before it leaves, so that a crash leaves no ledger record
        // that nobody closes.
        self.ask(|noted| Message::Calling { nonce: nonce.clone(), kind: CallKind::Repeatable, noted: Some(noted) })?;
        let result = pipeline::run_queue_call(self.session, call, &nonce);
        match &result {
            Err(failure) if failure.outcome == Outcome::Unknown => self.close(&nonce, "the call is made again")?,
            Ok(_) | Err(_) => self.tell(Message::Called(nonce))?,
        }
        let completed = result.map_err(Box::new)?;
        match completed.failure {
            // What could not be recorded is done again by the next run.
            Some(failure) => Err(Box::new(failure)),
            None => Ok(completed),
        }
    }

    fn close(&mut self, nonce: &str, reason: &str) -> Tried<()> {
        pipeline::close_queue_call(self.session, nonce, reason).map_err(Box::new)?;
        self.tell(Message::Called(nonce.to_owned()))
    }

    /// Tells the portal what is done; returns whether there was anything.
    fn settle(&mut self, complete: bool) -> Tried<bool> {
        let settlements = self.ask(|answer| Message::Settlements { complete, answer })?;
        let has_any = !settlements.is_empty();
        for settlement in settlements {
            self.settle_one(settlement)?;
        }
        Ok(has_any)
    }

    fn settle_one(&mut self, settlement: Settlement) -> Tried<()> {
        let Settlement { process, rows } = settlement;
        let marks = |row: &SettledRow| self.settings.mark_failed && row.is_dead && !row.message.is_empty();
        let (marked, cleared): (Vec<SettledRow>, Vec<SettledRow>) = rows.into_iter().partition(marks);
        for rows in marked.chunks(AT_ONCE) {
            let messages = rows.iter().map(|row| row.message.clone()).collect();
            self.settle_rows(
                rows,
                &QueueCall::MarkFailed { process: process.clone(), messages, connector: self.settings.connector.clone() },
            )?;
        }
        crash::point("queue.before_clear");
        for rows in cleared.chunks(AT_ONCE) {
            let ids = rows.iter().map(|row| row.row.clone()).collect();
            self.settle_rows(rows, &QueueCall::Clear { process: process.clone(), rows: ids, connector: self.settings.connector.clone() })?;
        }
        Ok(())
    }

    fn settle_rows(&mut self, rows: &[SettledRow], call: &QueueCall) -> Tried<()> {
        self.repeatable(call)?;
        crash::point("queue.after_clear");
        self.tell(Message::Settled(rows.iter().map(|row| row.seq).collect()))
    }
}
