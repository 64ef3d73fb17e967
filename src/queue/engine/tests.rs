//! A worker from arrival to ending, with a real handler and without a portal.

use super::*;
use crate::host::{SystemClock, SystemRandom};
use crate::queue::event::{EventKey, NewEvent, Origin, raw};
use crate::queue::handler::{Conditions, Handler, Screen};
use serde_json::Value;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker on a thread of its own, until nothing is left.
struct Trial {
    messages: Sender<Message>,
    signals: Receiver<Signal>,
    thread: JoinHandle<Result<Summary, Failure>>,
    folder: tempfile::TempDir,
}

impl Trial {
    fn start(handler: &Handler, max_retries: u32) -> Trial {
        let folder = tempfile::tempdir().unwrap();
        let (messages, received) = channel();
        let (told, signals) = channel();
        let engine = engine(folder.path(), handler, max_retries, (&messages, received, told));
        let thread = std::thread::spawn(move || {
            let mut out = Vec::new();
            engine.run(&mut Streams { out: &mut out, note: &mut |_, _, _| {} })
        });
        Trial { messages, signals, thread, folder }
    }

    /// Brings events: entity and order of each.
    fn bring(&self, events: &[(&str, u64)]) {
        let event = |(entity, order): &(&str, u64)| NewEvent {
            key: EventKey::of(&format!("{entity} {order}")),
            name: "ONX".to_owned(),
            entity: (*entity).to_owned(),
            order: Some(*order),
            origin: Origin::Online,
            hold_ms: 0,
            payload: raw(&Value::Null),
            unusable: None,
        };
        let (stored, answer) = channel();
        self.messages.send(Message::Arrived { events: events.iter().map(event).collect(), closes: None, stored }).unwrap();
        assert_eq!(answer.recv_timeout(PATIENCE).unwrap().new, events.len());
    }

    /// Says that nothing more comes, and waits for the end.
    fn end(self) -> (Result<Summary, Failure>, tempfile::TempDir) {
        self.messages.send(Message::Idle).unwrap();
        assert_eq!(self.signals.recv_timeout(PATIENCE).expect("the worker comes to its end"), Signal::Stop);
        self.messages.send(Message::SourceEnded(Ok(()))).unwrap();
        (self.thread.join().unwrap(), self.folder)
    }

    fn wait_for(&self, file: &str) {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if self.folder.path().join(file).exists() {
                return;
            }
            SystemClock.sleep(Duration::from_millis(10));
        }
        panic!("never: {file}");
    }
}

fn engine(
    folder: &Path,
    handler: &Handler,
    max_retries: u32,
    (messages, received, told): (&Sender<Message>, Receiver<Message>, Sender<Signal>),
) -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let conditions = Conditions {
        portal: "p".to_owned(),
        timeout: PATIENCE,
        env,
        folder: folder.to_owned(),
        redactor: Redactor::default(),
        screen: Screen::Stream,
    };
    let reports = messages.clone();
    let running = Running::start(handler, conditions, Arc::new(move |report| drop(reports.send(Message::Handler(report))))).unwrap();
    let parts = Parts {
        inbox: Inbox::open(&folder.join("inbox"), Arc::clone(&clock), Arc::clone(&random)).unwrap(),
        dead_letters: DeadLetters::new(folder.join("dead.jsonl"), "p".to_owned(), (Arc::clone(&clock), Arc::clone(&random))),
        handler: running,
        metrics: None,
        redactor: Redactor::default(),
        portal: "p".to_owned(),
    };
    let retry_delay = Duration::from_millis(1);
    let settings = EngineSettings { concurrency: 8, max_retries, retry_delay, timeout: PATIENCE, until: Until::Empty };
    Engine::new(parts, settings, (clock, random), (received, told))
}

fn serve(command: &str) -> Handler {
    let answer = r#"while read -r line; do printf '{"id":"%s","status":"done"}\n' \
        "$(printf '%s' "$line" | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/')"; done"#;
    Handler::Serve(format!("{command}; {answer}"))
}

#[test]
fn a_suspect_behind_an_earlier_event_of_its_entity_holds_nobody_up() {
    let trial =
        Trial::start(&serve("[ -e broken ] || { read -r a; read -r b; touch broken; while [ ! -e go ]; do sleep 0.02; done; exit 1; }"), 5);
    trial.bring(&[("x", 5), ("y", 5)]);
    trial.wait_for("broken");
    // They come while both are in the hands of the handler that breaks.
    trial.bring(&[("x", 3), ("y", 3)]);
    std::fs::write(trial.folder.path().join("go"), "").unwrap();
    let summary = trial.end().0.unwrap();
    assert_eq!((summary.counters.handled, summary.counters.interrupted, summary.left), (4, 2, 0));
}

#[test]
fn one_event_that_breaks_the_handler_is_found_among_many() {
    let bad = r#"while read -r line; do case "$line" in *'"entity":"bad"'*) exit 1 ;; esac
        printf '{"id":"%s","status":"done"}\n' "$(printf '%s' "$line" | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/')"; done"#;
    let trial = Trial::start(&Handler::Serve(bad.to_owned()), 2);
    trial.bring(&[("a", 1), ("b", 1), ("bad", 1), ("c", 1), ("d", 1), ("e", 1)]);
    let summary = trial.end().0.unwrap();
    assert_eq!((summary.counters.handled, summary.counters.dead, summary.left), (5, 1, 0));
}

#[test]
fn an_event_that_always_fails_becomes_one_dead_letter() {
    let trial = Trial::start(&Handler::Exec("exit 1".to_owned()), 3);
    trial.bring(&[("x", 1), ("x", 2)]);
    let (summary, folder) = trial.end();
    let summary = summary.unwrap();
    assert_eq!((summary.counters.failed, summary.counters.dead, summary.left), (6, 2, 0));
    assert_eq!(std::fs::read_to_string(folder.path().join("dead.jsonl")).unwrap().lines().count(), 2);
}

/// Chance that is always the same: pauses are not spread.
struct NoChance;

impl Random for NoChance {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

#[test]
fn pauses_grow_with_what_was_put_off_and_with_what_failed_each_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut inbox = Inbox::open(&folder.path().join("inbox"), clock, Arc::new(SystemRandom)).unwrap();
    let retry_delay = Duration::from_millis(10);
    let settings = EngineSettings { concurrency: 1, max_retries: 3, retry_delay, timeout: PATIENCE, until: Until::Empty };
    let event = NewEvent {
        key: EventKey::of("one"),
        name: "ONX".to_owned(),
        entity: "x:1".to_owned(),
        order: None,
        origin: Origin::Online,
        hold_ms: 0,
        payload: raw(&Value::Null),
        unusable: None,
    };
    inbox.commit(|commit| Ok(commit.receive(vec![event]))).unwrap();
    let mut told = Vec::new();
    for (ending, status) in [
        (Ending::Later, "put off"),
        (Ending::Failed("x", "error".to_owned()), "failed"),
        (Ending::Later, "put off"),
        (Ending::NotRun("x".to_owned()), "put off"),
        (Ending::Interrupted, "interrupted"),
        (Ending::Suspect, "interrupted"),
        (Ending::Failed("x", "error".to_owned()), "failed"),
        (Ending::Failed("x", "error".to_owned()), "dead"),
    ] {
        let seq = inbox.commit(|commit| commit.start(1, 1000, |_| true)).unwrap()[0].seq;
        let pause = inbox
            .commit(|commit| {
                let outcome = outcome(commit, (seq, ending), &settings, &NoChance, &Redactor::default());
                let now = commit.now();
                let (word, pause, outcome) = match outcome {
                    Outcome::Later(due) => ("put off", due - now, Outcome::Later(now)),
                    Outcome::Failed(due) => ("failed", due - now, Outcome::Failed(now)),
                    Outcome::Dead(reason, error) => {
                        assert_eq!((reason.as_str(), error.as_str()), ("x", "error"));
                        ("dead", 0, Outcome::Done)
                    }
                    Outcome::Interrupted => ("interrupted", 0, Outcome::Interrupted),
                    Outcome::Done => ("done", 0, Outcome::Done),
                };
                commit.end(seq, outcome);
                Ok((word, pause))
            })
            .unwrap();
        told.push(pause);
        assert_eq!(pause.0, status);
    }
    assert_eq!(told.iter().map(|(_, pause)| *pause).collect::<Vec<_>>(), [10, 10, 20, 40, 0, 0, 20, 0]);
}
