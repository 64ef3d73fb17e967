//! `--serve`: one process for all events, JSON Lines both ways.
//!
//! b24 writes one event a line to the process and reads one answer a line:
//! `{"id":"…","status":"done"}`, `"later"`, or `"failed"` with an `"error"`.
//! Answers come in any order. A process that ends is started again. If it had
//! one event in its hands, that event failed; if it had several, nobody knows
//! which one broke it, and they are handed over again one at a time. It is the
//! same when the process gives no answer in time.

use super::exec::timed_out;
use super::process::{command, end, group_of};
use super::voice::{Counts, pass_on};
use super::{Conditions, Ending, Health, NOT_RUN, Report, Reporter, Task};
use rustix::process::Pid;
use serde::Deserialize;
use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a process has to end when there are no more events.
const FAREWELL: Duration = Duration::from_secs(10);

/// Longest pause before the process is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long is waited for what a process that ended may have left behind.
const REST: Duration = Duration::from_millis(200);

/// How long is waited in all.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Longest line that may be an answer, in bytes.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// How much of an answer's reason is kept, in characters.
const LONGEST_REASON: usize = 4096;

/// How often lines that are no answers are told of.
const MOST_NOISES: u32 = 10;

/// How many events are written at once.
const AT_ONCE: usize = 256;

/// An answer of the process.
#[derive(Debug, Deserialize)]
struct Answer {
    id: String,
    status: String,
    #[serde(default)]
    error: Option<String>,
}

/// The process and what it has in its hands.
struct Server {
    line: String,
    conditions: Conditions,
    report: Reporter,
    health: Health,
    /// By event id.
    held: HashMap<String, Held>,
    /// How many events were written.
    written: u64,
    crashes: u32,
    noises: u32,
}

/// An event in the hands of the process.
struct Held {
    /// Its number in the inbox.
    seq: u64,
    /// Which one it was that was written.
    turn: u64,
    /// When it must be answered.
    until: Instant,
}

struct Process {
    child: Child,
    group: Option<Pid>,
    stdin: ChildStdin,
    answers: Answers,
    talking: JoinHandle<String>,
}

/// The lines that a process writes, as bytes: one that is no text is noise and
/// no reason to end.
struct Answers {
    stream: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Answers {
    /// Returns the next line without its end. What was read of one is kept
    /// when this is dropped on the way.
    async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let available = self.stream.fill_buf().await?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let length = end.unwrap_or(available.len());
            if self.line.len() + length > LONGEST_ANSWER {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            self.line.extend_from_slice(&available[..length]);
            let is_over = available.is_empty();
            self.stream.consume(length + usize::from(end.is_some()));
            if end.is_some() || (is_over && !self.line.is_empty()) {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
            if is_over {
                return Ok(None);
            }
        }
    }
}

/// Why a process is left.
enum Left {
    /// There are no more events.
    NoMoreTasks,
    /// It ended, or closed its output.
    Ended,
    /// Events took too long.
    TimedOut,
    /// It wrote a line that has no end.
    TooLong,
}

/// Runs the process until there are no more tasks.
pub(super) async fn run(line: String, conditions: Conditions, mut tasks: UnboundedReceiver<Task>, report: Reporter) {
    let mut server =
        Server { line, conditions, report, health: Health::default(), held: HashMap::new(), written: 0, crashes: 0, noises: 0 };
    // The process is started for the first event, not before.
    while let Some(first) = tasks.recv().await {
        if server.health.is_given_up() {
            (server.report)(Report::Ended(first.seq, Ending::Interrupted));
            continue;
        }
        server.pause().await;
        let Some(process) = server.start(first) else { continue };
        if !server.attend(process, &mut tasks).await {
            return;
        }
    }
}

impl Server {
    async fn pause(&self) {
        if self.crashes > 1 {
            tokio::time::sleep(LONGEST_PAUSE.min(Duration::from_millis(50) * 2_u32.saturating_pow(self.crashes))).await;
        }
    }

    fn start(&mut self, first: Task) -> Option<(Process, Task)> {
        let spawned = command(&self.line, &self.conditions).stdout(Stdio::piped()).spawn();
        let pipes = |mut child: Child| {
            let (stdin, stdout, stderr) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
            let (group, answers) = (group_of(&child), Answers { stream: BufReader::new(stdout), line: Vec::new() });
            let talking = tokio::spawn(pass_on(stderr, self.conditions.voice(Counts::ASecond)));
            Some(Process { child, group, stdin, answers, talking })
        };
        let problem = match spawned {
            Ok(child) => match pipes(child) {
                Some(process) => return Some((process, first)),
                None => "its streams cannot be opened".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        match self.health.has_worked() {
            true => self.break_off(&problem, first.seq),
            false => self.not_run(first.seq, &problem),
        }
        None
    }

    /// Exchanges lines with a process until it or the tasks end. Returns
    /// whether there may be more tasks.
    async fn attend(&mut self, (mut process, first): (Process, Task), tasks: &mut UnboundedReceiver<Task>) -> bool {
        let left = self.exchange(&mut process, first, tasks).await;
        if matches!(left, Left::NoMoreTasks) {
            drop(process.stdin);
            if tokio::time::timeout(FAREWELL, process.child.wait()).await.is_err() {
                end(&mut process.child, process.group).await;
            }
            return false;
        }
        if matches!(left, Left::Ended) {
            // It may have closed its output and live on.
            let _ = tokio::time::timeout(REST, process.child.wait()).await;
        }
        end(&mut process.child, process.group).await;
        let status = process.child.try_wait().ok().flatten();
        let not_run = status.and_then(|status| status.code()).is_some_and(|code| NOT_RUN.contains(&code)) && !self.health.has_worked();
        let status = match left {
            Left::TooLong => format!("it wrote a line of more than {LONGEST_ANSWER} bytes, which is no answer"),
            Left::Ended | Left::TimedOut | Left::NoMoreTasks => status.map_or_else(|| "it ended".to_owned(), |status| status.to_string()),
        };
        let said = tokio::time::timeout(REST, process.talking).await.ok().and_then(Result::ok).unwrap_or_default();
        let text = format!("{status}{}{said}", if said.is_empty() { "" } else { ": " });
        match not_run {
            true => std::mem::take(&mut self.held).into_values().for_each(|held| self.not_run(held.seq, &text)),
            false => self.give_back(&left, &text),
        }
        true
    }

    async fn exchange(&mut self, process: &mut Process, first: Task, tasks: &mut UnboundedReceiver<Task>) -> Left {
        if let Err(error) = self.write(process, vec![first]).await {
            return left_by(&error);
        }
        let mut batch = Vec::new();
        let mut is_open = true;
        loop {
            let next = self.held.values().map(|held| held.until).min();
            let until = next.unwrap_or_else(|| Instant::now() + self.conditions.timeout);
            tokio::select! {
                read = process.answers.next() => match read {
                    Ok(Some(line)) => self.answered(&line),
                    Ok(None) => return Left::Ended,
                    Err(error) => return left_by(&error),
                },
                count = tasks.recv_many(&mut batch, AT_ONCE), if is_open => {
                    is_open = count > 0;
                    if let Err(error) = self.write(process, std::mem::take(&mut batch)).await {
                        return left_by(&error);
                    }
                }
                // What it started may hold its output open for ever.
                _ = process.child.wait() => {
                    self.read_rest(process).await;
                    return Left::Ended;
                }
                () = tokio::time::sleep_until(until), if next.is_some() => return Left::TimedOut,
            }
            if !is_open && self.held.is_empty() {
                return Left::NoMoreTasks;
            }
        }
    }

    /// Reads the answers that a process left behind when it ended.
    async fn read_rest(&mut self, process: &mut Process) {
        // What it has started may go on for ever.
        let until = Instant::now() + LONGEST_REST;
        while Instant::now() < until {
            let Ok(Ok(Some(line))) = tokio::time::timeout(REST, process.answers.next()).await else { return };
            self.answered(&line);
        }
    }

    /// Writes events to the process. A process that does not read while b24
    /// writes is taken for one that hangs.
    async fn write(&mut self, process: &mut Process, tasks: Vec<Task>) -> std::io::Result<()> {
        let timeout = self.conditions.timeout;
        let mut until = Instant::now() + timeout;
        let mut text = String::new();
        for task in tasks {
            self.written += 1;
            self.held.insert(task.id, Held { seq: task.seq, turn: self.written, until });
            text.push_str(&task.line);
            text.push('\n');
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // Answers are read while events are written: a process may well
            // answer before it has read everything.
            tokio::select! {
                written = process.stdin.write(rest) => {
                    rest = &rest[written?..];
                    until = Instant::now() + timeout;
                }
                read = process.answers.next() => match read? {
                    Some(line) => self.answered(&line),
                    None => return Err(std::io::ErrorKind::BrokenPipe.into()),
                },
                () = tokio::time::sleep_until(until) => return Err(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }

    fn answered(&mut self, line: &[u8]) {
        let answer = match serde_json::from_slice::<Answer>(line) {
            Ok(answer) => answer,
            Err(_) if line.trim_ascii().is_empty() => return,
            // It says something that is no answer; its events will time out if
            // it never answers.
            Err(_) => return self.hear_noise(),
        };
        let Some(Held { seq, turn, .. }) = self.held.remove(&answer.id) else { return };
        // Those that were written after it may have waited for it: their time
        // begins now. A process may handle one event after another.
        let until = Instant::now() + self.conditions.timeout;
        self.held.values_mut().filter(|held| held.turn > turn).for_each(|held| held.until = until);
        self.health.works();
        self.crashes = 0;
        let ending = match answer.status.as_str() {
            "done" => Ending::Done,
            "later" => Ending::Later,
            "failed" => Ending::Failed("handler_failed", self.reason(answer.error)),
            other => Ending::Failed("handler_failed", format!("the handler answered with the status {}", crate::method::shown(other))),
        };
        (self.report)(Report::Ended(seq, ending));
    }

    /// Returns why an event failed. Secrets are taken out before it is cut.
    fn reason(&self, error: Option<String>) -> String {
        let Some(error) = error else { return "the handler gave no reason".to_owned() };
        let text = self.conditions.redactor.redact_text(&error);
        match text.char_indices().nth(LONGEST_REASON) {
            Some((end, _)) => format!("{}… {} more bytes", &text[..end], text.len() - end),
            None => text,
        }
    }

    /// Tells a few times that lines are no answers: a flood of them must not
    /// fill the engine's hands.
    fn hear_noise(&mut self) {
        self.noises += 1;
        if self.noises <= MOST_NOISES {
            (self.report)(Report::Noise);
        }
    }

    /// Gives back what a process had in its hands when it was left.
    fn give_back(&mut self, left: &Left, status: &str) {
        self.crashes += 1;
        let held = std::mem::take(&mut self.held);
        let now = Instant::now();
        let is_alone = held.len() == 1;
        let expired = held.values().filter(|held| held.until <= now).count();
        for Held { seq, until, .. } in held.into_values() {
            match left {
                Left::TimedOut if until <= now && expired == 1 => (self.report)(Report::Ended(seq, timed_out(&self.conditions))),
                // Nobody knows which of them the others waited for.
                Left::TimedOut if until <= now => (self.report)(Report::Ended(seq, Ending::Suspect)),
                Left::TimedOut => (self.report)(Report::Ended(seq, Ending::Interrupted)),
                Left::Ended | Left::TooLong if is_alone => self.break_off(status, seq),
                Left::Ended | Left::TooLong | Left::NoMoreTasks => (self.report)(Report::Ended(seq, Ending::Suspect)),
            }
        }
    }

    fn not_run(&self, seq: u64, problem: &str) {
        (self.report)(Report::Ended(seq, Ending::NotRun(problem.to_owned())));
    }

    fn break_off(&mut self, problem: &str, seq: u64) {
        if self.health.breaks(seq) {
            (self.report)(Report::Ended(seq, Ending::Interrupted));
            return (self.report)(Report::Unusable(problem.to_owned()));
        }
        (self.report)(Report::Ended(seq, Ending::Failed("handler_crashed", format!("the handler ended: {problem}"))));
    }
}

/// Says why a process is left to which nothing could be written.
fn left_by(error: &std::io::Error) -> Left {
    match error.kind() {
        std::io::ErrorKind::TimedOut => Left::TimedOut,
        std::io::ErrorKind::InvalidData => Left::TooLong,
        _ => Left::Ended,
    }
}
