//! The core of a worker: takes events in, hands them over in order, notes what
//! became of them.
//!
//! It works in rounds: collect what sources and handlers say, make one commit
//! of it, hand over what may be handed over now. The more there is to do, the
//! more one commit holds, so that the disk does not set the pace.

mod terms;

pub use terms::{EngineSettings, Parts, Streams, Summary, Until};

use super::commit::{Arrival, Commit, Outcome};
use super::dead_letters::DeadLetters;
use super::event::Job;
use super::handler::{Ending, Report, Running};
use super::inbox::Inbox;
use super::line::{CallKind, Counters};
use super::message::{Losses, Message, Signal};
use super::metrics::Metrics;
use super::retry::pause_ms;
use super::told;
use crate::crash;
use crate::error::{Code, Failure};
use crate::host::{Clock, Random};
use crate::json;
use crate::secret::Redactor;
use crate::store::locked::StoreError;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// How often the engine looks round when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often it looks for workers that died, in nanoseconds.
const LOOK_NS: u64 = 2_000_000_000;

/// How many messages one round takes.
const ROUND: usize = 4096;

/// How often the command may fail to be run before it is given up.
const MOST_NOT_RUN: usize = 3;

/// How much longer a claim lasts than the handler can need.
const LAPSE_MARGIN: Duration = Duration::from_secs(60);

/// The core of a worker.
pub struct Engine {
    inbox: Inbox,
    dead_letters: DeadLetters,
    handler: Option<Running>,
    settings: EngineSettings,
    metrics: Option<Metrics>,
    redactor: Redactor,
    portal: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    messages: Receiver<Message>,
    source: Sender<Signal>,
    work: Work,
}

/// What is under way.
#[derive(Default)]
struct Work {
    in_flight: HashSet<u64>,
    /// Events of which one broke the handler: they go one at a time.
    suspects: HashSet<u64>,
    /// Endings that are known without a message.
    at_once: Vec<(u64, Ending)>,
    looked_ns: Option<u64>,
    is_idle: bool,
    has_no_more: bool,
    is_stopping: bool,
    source_is_told: bool,
    settle_is_told: bool,
    source_ended: bool,
    is_noisy: bool,
    /// What was said each time when the command could not be run.
    not_run: Vec<String>,
    failure: Option<Box<Failure>>,
    before: Option<Counters>,
}

/// What one round is to commit.
#[derive(Default)]
struct Round {
    arrived: Vec<(Vec<super::event::NewEvent>, Option<String>, Sender<Arrival>)>,
    calling: Vec<(String, CallKind, Option<Sender<()>>)>,
    called: Vec<String>,
    foreign: Vec<String>,
    settled: Vec<u64>,
    ended: Vec<(u64, Ending)>,
    questions: Vec<Question>,
}

enum Question {
    Settlements(bool, Sender<Vec<super::inbox::Settlement>>),
    Losses(Vec<String>, Sender<Losses>),
    Unfinished(Sender<usize>),
}

impl Engine {
    /// Puts an engine together.
    #[must_use]
    pub fn new(
        parts: Parts,
        settings: EngineSettings,
        (clock, random): (Arc<dyn Clock>, Arc<dyn Random>),
        (messages, source): (Receiver<Message>, Sender<Signal>),
    ) -> Engine {
        let Parts { inbox, dead_letters, handler, metrics, redactor, portal } = parts;
        Engine { inbox, dead_letters, handler, settings, metrics, redactor, portal, clock, random, messages, source, work: Work::default() }
    }

    /// Works until it is told to stop or nothing is left.
    pub fn run(mut self, streams: &mut Streams<'_>) -> Result<Summary, Failure> {
        loop {
            let mut round = self.collect(streams);
            self.look_round(streams)?;
            round.ended.append(&mut self.work.at_once);
            let jobs = self.commit(round).map_err(told)?;
            self.bury().map_err(told)?;
            self.hand_over(jobs, streams);
            if self.is_over() {
                break;
            }
        }
        self.measure()?;
        if let Some(problem) = self.work.not_run.pop() {
            self.give_up(&problem);
        }
        let before = self.work.before.unwrap_or_default();
        let summary = Summary::between(before, self.inbox.counters(), self.inbox.unfinished());
        match self.work.failure.take() {
            Some(failure) => Err(*failure),
            None => Ok(summary),
        }
    }

    /// Waits for something to do, and takes all that has come.
    fn collect(&mut self, streams: &mut Streams<'_>) -> Round {
        let mut round = Round::default();
        match self.messages.recv_timeout(self.patience()) {
            Ok(message) => self.take(message, &mut round, streams),
            Err(RecvTimeoutError::Timeout) => return round,
            Err(RecvTimeoutError::Disconnected) => {
                (self.work.is_stopping, self.work.source_ended) = (true, true);
                return round;
            }
        }
        for message in self.messages.try_iter().take(ROUND).collect::<Vec<_>>() {
            self.take(message, &mut round, streams);
        }
        round
    }

    fn patience(&self) -> Duration {
        if !self.work.at_once.is_empty() || self.work.before.is_none() {
            return Duration::ZERO;
        }
        let now = self.clock.now().timestamp_millis();
        match self.inbox.next_due() {
            Some(due) if self.capacity() > 0 => HEARTBEAT.min(Duration::from_millis(u64::try_from(due - now).unwrap_or(0))),
            Some(_) | None => HEARTBEAT,
        }
    }

    fn take(&mut self, message: Message, round: &mut Round, streams: &mut Streams<'_>) {
        match message {
            Message::Arrived { events, closes, stored } => {
                self.work.is_idle = false;
                round.arrived.push((events, closes, stored));
            }
            Message::Calling { nonce, kind, noted } => round.calling.push((nonce, kind, noted)),
            Message::Called(nonce) => round.called.push(nonce),
            Message::Foreign(processes) => round.foreign.extend(processes),
            Message::Settled(seqs) => round.settled.extend(seqs),
            Message::Settlements { complete, answer } => round.questions.push(Question::Settlements(complete, answer)),
            Message::Losses { processes, answer } => round.questions.push(Question::Losses(processes, answer)),
            Message::Unfinished(answer) => round.questions.push(Question::Unfinished(answer)),
            Message::Handler(Report::Ended(seq, ending)) => round.ended.push((seq, ending)),
            Message::Handler(Report::Noise) => {
                if !std::mem::replace(&mut self.work.is_noisy, true) {
                    (streams.note)(
                        "warning",
                        "handler",
                        "the handler writes lines to standard output that are no answers; they are passed over",
                    );
                }
            }
            Message::Handler(Report::Unusable(problem)) => self.give_up(&problem),
            Message::Idle => self.work.is_idle = true,
            Message::NoMore => self.work.has_no_more = true,
            Message::Note(level, code, text) => (streams.note)(level, code, &self.redactor.redact_text(&text)),
            Message::Stop => self.work.is_stopping = true,
            Message::SourceEnded(result) => {
                (self.work.source_ended, self.work.is_stopping) = (true, true);
                if let Err(failure) = result {
                    self.work.failure.get_or_insert(failure);
                }
            }
        }
    }

    /// Ends because the handler works for no event.
    fn give_up(&mut self, problem: &str) {
        let text = format!("the handler works for no event: {}", self.redactor.redact_text(problem));
        let failure = Failure::new(Code::HandlerUnusable, text)
            .hint("Try it by hand with one event: b24 help events shows what it reads; no event was lost");
        self.work.failure.get_or_insert(Box::new(failure));
        self.work.is_stopping = true;
    }

    /// Counts how often the command could not be run while it never was.
    fn note_not_run(&mut self, ending: &Ending) {
        match ending {
            Ending::NotRun(problem) => self.work.not_run.push(problem.clone()),
            Ending::Done | Ending::Later | Ending::Failed(..) | Ending::Suspect | Ending::Interrupted => self.work.not_run.clear(),
        }
        if self.work.not_run.len() >= MOST_NOT_RUN {
            let problem = std::mem::take(&mut self.work.not_run).swap_remove(0);
            self.give_up(&problem);
        }
    }

    /// Takes over what workers that died left behind, now and then.
    fn look_round(&mut self, streams: &mut Streams<'_>) -> Result<(), Failure> {
        let now = self.clock.boot_ns();
        if self.work.looked_ns.is_some_and(|looked| now < looked + LOOK_NS) {
            return Ok(());
        }
        self.work.looked_ns = Some(now);
        let released = self.inbox.release_dead().map_err(told)?;
        if released > 0 {
            let text = format!("{released} events were in the hands of a worker that died; they are handed over again");
            (streams.note)("warning", "interrupted", &text);
        }
        // They are written rarely; what happens to the file meanwhile is told
        // before the portal is told that its events are over.
        self.dead_letters.check().map_err(told)?;
        self.work.before.get_or_insert(self.inbox.counters());
        self.measure()
    }

    fn capacity(&self) -> usize {
        if self.work.is_stopping {
            return 0;
        }
        let most = if self.work.suspects.is_empty() { self.settings.concurrency } else { 1 };
        most.saturating_sub(self.work.in_flight.len())
    }

    fn commit(&mut self, round: Round) -> Result<Vec<Job>, StoreError> {
        let Round { arrived, calling, called, foreign, settled, ended, questions } = round;
        let ended: Vec<(u64, Ending)> = ended.into_iter().filter(|(seq, _)| self.work.in_flight.remove(seq)).collect();
        for (seq, ending) in &ended {
            match ending {
                Ending::Suspect => self.work.suspects.insert(*seq),
                Ending::Done | Ending::Later | Ending::Failed(..) | Ending::Interrupted | Ending::NotRun(_) => {
                    self.work.suspects.remove(seq)
                }
            };
            self.note_not_run(ending);
        }
        let capacity = self.capacity();
        let (settings, random, redactor, suspects) = (&self.settings, self.random.as_ref(), &self.redactor, &self.work.suspects);
        // With --serve an event may wait behind all the others in hand.
        let longest = settings.timeout.saturating_mul(u32::try_from(settings.concurrency).unwrap_or(u32::MAX));
        let lapse = i64::try_from((longest + LAPSE_MARGIN).as_millis()).unwrap_or(i64::MAX);
        let (jobs, replies, suspects) = self.inbox.commit(|commit| {
            for (nonce, kind, _) in &calling {
                commit.calling(nonce, *kind);
            }
            let mut replies = Vec::new();
            for (events, closes, stored) in arrived {
                replies.push((stored, commit.receive(events)));
                closes.iter().for_each(|nonce| commit.called(nonce));
            }
            called.iter().for_each(|nonce| commit.called(nonce));
            foreign.iter().for_each(|process| commit.see_foreign(process));
            for (seq, ending) in ended {
                let outcome = outcome(commit, (seq, ending), settings, random, redactor);
                commit.end(seq, outcome);
            }
            if !settled.is_empty() {
                commit.settle(settled);
            }
            // One that another worker has taken, or that waits for an earlier
            // event of its entity, must not be waited for.
            let suspects: HashSet<u64> = suspects.iter().copied().filter(|seq| commit.is_in_reach(*seq)).collect();
            let admitted = |seq: u64| suspects.is_empty() || suspects.contains(&seq);
            Ok((commit.start(capacity, lapse, admitted)?, replies, suspects))
        })?;
        self.work.suspects = suspects;
        crash::point("queue.after_commit");
        // Whoever asked may have gone.
        for (stored, arrival) in replies {
            let _ = stored.send(arrival);
        }
        for noted in calling.into_iter().filter_map(|(_, _, noted)| noted) {
            let _ = noted.send(());
        }
        for question in questions {
            self.work.settle_is_told &= !matches!(question, Question::Settlements(..));
            self.answer(question);
        }
        Ok(jobs)
    }

    fn answer(&self, question: Question) {
        match question {
            Question::Settlements(complete, answer) => drop(answer.send(self.inbox.settlements(complete))),
            Question::Unfinished(answer) => drop(answer.send(self.inbox.unfinished())),
            Question::Losses(processes, answer) => {
                let unknown = processes.into_iter().filter(|process| !self.inbox.has_process(process));
                let unknown = unknown.map(|process| (process.clone(), self.inbox.foreign_since(&process))).collect();
                drop(answer.send(Losses { calls: self.inbox.lost_calls(true), unknown }));
            }
        }
    }

    /// Writes the dead letters of events that failed for the last time. Other
    /// workers' are written, too: whoever comes first.
    fn bury(&mut self) -> Result<(), StoreError> {
        if !self.inbox.has_unburied() {
            return Ok(());
        }
        let dead = self.inbox.commit(|commit: &mut Commit<'_>| Commit::unburied(commit))?;
        self.dead_letters.write(&dead)?;
        crash::point("queue.between_letter_and_burial");
        let seqs = dead.into_iter().map(|dead| dead.job.seq).collect();
        self.inbox.commit(|commit| {
            commit.bury(seqs);
            Ok(())
        })
    }

    fn hand_over(&mut self, jobs: Vec<Job>, streams: &mut Streams<'_>) {
        for job in jobs {
            self.work.in_flight.insert(job.seq);
            match &self.handler {
                Some(handler) => handler.submit(&job),
                None => {
                    let written = writeln!(streams.out, "{}", json::escape_deceptive(&job.to_line(&self.portal)));
                    if written.is_err() {
                        self.work.is_stopping = true;
                        self.work.at_once.push((job.seq, Ending::Interrupted));
                    } else {
                        self.work.at_once.push((job.seq, Ending::Done));
                    }
                }
            }
        }
        if self.handler.is_none() && !self.work.at_once.is_empty() && streams.out.flush().is_err() {
            // The reader went away: what was not read is handed over again.
            self.work.is_stopping = true;
            self.work.at_once.iter_mut().for_each(|(_, ending)| *ending = Ending::Interrupted);
        }
        crash::point("queue.after_hand_over");
        if self.inbox.has_unsettled() && !self.work.source_is_told && !std::mem::replace(&mut self.work.settle_is_told, true) {
            let _ = self.source.send(Signal::Settle);
        }
    }

    /// Returns whether the worker has come to its end; tells the source when
    /// nothing more will be handled.
    fn is_over(&mut self) -> bool {
        let is_busy = !self.work.in_flight.is_empty() || !self.work.at_once.is_empty();
        if is_busy {
            return false;
        }
        let now = self.clock.now().timestamp_millis();
        let nothing_now = self.inbox.next_due().is_none_or(|due| due > now);
        match self.settings.until {
            Until::Stopped => {}
            Until::Drained => self.work.is_stopping |= self.work.has_no_more && nothing_now,
            Until::Empty => self.work.is_stopping |= (self.work.is_idle || self.work.has_no_more) && self.inbox.unfinished() == 0,
        }
        if self.work.is_stopping && !self.work.source_is_told {
            self.work.source_is_told = true;
            let _ = self.source.send(Signal::Stop);
        }
        self.work.is_stopping && self.work.source_ended
    }

    fn measure(&mut self) -> Result<(), Failure> {
        let Some(metrics) = &self.metrics else { return Ok(()) };
        let now = self.clock.now().timestamp_millis();
        let lag_ms = self.inbox.oldest_ms().map_or(0, |oldest| now - oldest);
        let depth = super::metrics::Sample { depth: self.inbox.unfinished(), in_flight: self.work.in_flight.len(), lag_ms, at_ms: now };
        Ok(metrics.write(&depth, &self.inbox.counters())?)
    }
}

/// Says what follows from an ending.
fn outcome(
    commit: &Commit<'_>,
    (seq, ending): (u64, Ending),
    settings: &EngineSettings,
    random: &dyn Random,
    redactor: &Redactor,
) -> Outcome {
    let base = u64::try_from(settings.retry_delay.as_millis()).unwrap_or(u64::MAX);
    match ending {
        Ending::Done => Outcome::Done,
        Ending::Suspect | Ending::Interrupted => Outcome::Interrupted,
        Ending::Later | Ending::NotRun(_) => Outcome::Later(commit.now() + pause_ms(base, commit.put_offs(seq) + 1, random)),
        Ending::Failed(reason, error) => {
            let failures = commit.failures(seq) + 1;
            if failures >= settings.max_retries {
                Outcome::Dead(reason.to_owned(), redactor.redact_text(&error))
            } else {
                Outcome::Failed(commit.now() + pause_ms(base, failures, random))
            }
        }
    }
}

#[cfg(test)]
mod tests;
