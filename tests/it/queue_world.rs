//! The harness of the worker's tests: a portal with an offline queue, a
//! handler that keeps a log, and what the log must say.

use crate::kept::{ended, spawn};
use crate::world::{Outcome, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Faults after which a worker goes on by itself.
pub(crate) const FAULTS: &[&str] = &[
    "execute-then-drop",
    "execute-then-500",
    "drop-before-executing",
    "truncated-json",
    "html-502",
    "execute-then-html-502",
    "query-limit",
    "slow:ms=50",
    "slow-before:ms=50",
    "expired-token",
    "internal-error",
    "empty-body-200",
    "garbage-200",
    "lone-surrogate",
    "error:status=500",
];

/// The handler. It reads events, one as `--exec` or many as `--serve`, asks
/// the rules of the test what to do with each, and keeps a log: `begin`, then
/// `done` or `left`.
const HANDLER: &str = r#"
exec 3>>"$LOG"
field() { rest=${line#*"\"$1\":"}; rest=${rest#\"}; value=${rest%%[\",\}]*}; }
handle() {
  field id; id=$value; field event; event=$value; field entity; entity=$value
  field attempt; attempt=$value; field interrupted; interrupted=$value
  rest=${line##*'"payload":{"ID":"'}; row=${rest%%\"*}
  printf 'begin %s %s %s %s %s\n' "$row" "$entity" "$event" "$attempt" "$interrupted" >&3
  status=0
  . ./rules
  word=left; [ "$status" = 0 ] && word=done
  printf '%s %s %s %s %s %s\n' "$word" "$row" "$entity" "$event" "$attempt" "$interrupted" >&3
}
if [ "$1" = exec ]; then IFS= read -r line; handle; exit "$status"; fi
while IFS= read -r line; do
  handle
  case $status in 0) word=done;; 75) word=later;; *) word=failed;; esac
  printf '{"id":"%s","status":"%s","error":"asked for"}\n' "$id" "$word"
done
"#;

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A portal with bound events, and a handler.
pub(crate) struct Rig {
    pub(crate) world: World,
    client: reqwest::blocking::Client,
}

/// A line of the handler's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) word: String,
    pub(crate) row: u64,
    pub(crate) entity: String,
    pub(crate) event: String,
    pub(crate) attempt: u32,
    pub(crate) interrupted: u32,
}

impl Rig {
    /// A portal that queues the usual events, and a handler that does what
    /// the rules say: shell lines that set `status`.
    pub(crate) fn new(rules: &str) -> Rig {
        Rig::of(World::new(), rules)
    }

    /// The same with a world that was made ready.
    pub(crate) fn of(world: World, rules: &str) -> Rig {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::blocking::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let rig = Rig { world, client };
        std::fs::write(rig.path("handler.sh"), HANDLER).unwrap();
        rig.rule(rules);
        for kind in ["CRMDEAL", "CRMLEAD", "CRMCONTACT", "TASK"] {
            for verb in ["ADD", "UPDATE", "DELETE"] {
                assert_eq!(rig.call("event.bind", &json!({"event": format!("ON{kind}{verb}"), "event_type": "offline"})), true);
            }
        }
        rig
    }

    /// Sets what the handler does from now on.
    pub(crate) fn rule(&self, rules: &str) {
        let new = self.path("rules.new");
        std::fs::write(&new, format!("{rules}\n")).unwrap();
        std::fs::rename(new, self.path("rules")).unwrap();
    }

    /// A path in the home of the user.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.world.home.path().join(name)
    }

    /// Calls the portal directly, in the name of the application.
    pub(crate) fn call(&self, method: &str, params: &Value) -> Value {
        let token = self.token();
        let url = format!("{}/rest/{method}", self.world.emulator.origin());
        let request = self.client.post(url).bearer_auth(token).header("Content-Type", "application/json").body(params.to_string());
        let text = request.send().unwrap().text().unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(body.get("error").is_none(), "{method}: {body}");
        body["result"].clone()
    }

    /// The newest access token: a worker may have renewed it.
    fn token(&self) -> String {
        let files = std::fs::read_dir(self.world.state().join("tokens")).into_iter().flatten().map(|file| file.unwrap().path());
        let pairs = files.filter(|file| file.extension().is_some_and(|ending| ending == "json"));
        let pairs = pairs.filter_map(|file| serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).ok());
        let stored = pairs.filter_map(|pair| pair["access_token"].as_str().map(str::to_owned)).last();
        stored.unwrap_or_else(|| self.world.emulator.access().access_token.expose().to_owned())
    }

    /// Every row of the portal's queue, also reserved and failed ones.
    pub(crate) fn rows(&self) -> Vec<Value> {
        self.world.emulator.clear_faults();
        let mut rows = Vec::new();
        loop {
            let page = self.call("event.offline.list", &json!({"start": rows.len(), "order": {"ID": "ASC"}}));
            let page = page.as_array().unwrap();
            rows.extend(page.iter().cloned());
            if page.len() < 50 {
                return rows;
            }
        }
    }

    /// Something happens to an object; a new row, unless one waits for it.
    pub(crate) fn raise(&self, event: &str, id: usize) {
        let data = match event.starts_with("ONTASK") {
            true => json!({"FIELDS_BEFORE": {"ID": id}, "FIELDS_AFTER": {"ID": id}}),
            false => json!({"FIELDS": {"ID": id.to_string()}}),
        };
        let _ = self.world.emulator.raise(event, data).unwrap();
    }

    /// Deals that are added and then changed: two rows each, in this order.
    pub(crate) fn raise_deals(&self, count: usize) {
        for event in ["ONCRMDEALADD", "ONCRMDEALUPDATE"] {
            (1..=count).for_each(|id| self.raise(event, id));
        }
    }

    /// A command of `b24 queue`, as the application.
    pub(crate) fn queue(&self, args: &[&str]) -> Command {
        let mut command = self.world.oauth_command(&[&["queue"], args].concat());
        command.env("LOG", self.path("log"));
        command
    }

    /// A worker with a process for each event.
    pub(crate) fn exec(&self, args: &[&str]) -> Command {
        self.queue(&[&["work", "--exec", "exec sh ./handler.sh exec", "--retry-delay", "0.02", "--sleep", "0.05"], args].concat())
    }

    /// A worker with one process for all events.
    pub(crate) fn serve(&self, args: &[&str]) -> Command {
        self.queue(&[&["work", "--serve", "exec sh ./handler.sh serve", "--retry-delay", "0.02", "--sleep", "0.05"], args].concat())
    }

    /// What the handler has written; half a line of a killed one is passed
    /// over.
    pub(crate) fn log(&self) -> Vec<Entry> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let entry = |line: &str| -> Option<Entry> {
            let mut parts = line.split(' ');
            let mut next = || parts.next().map(str::to_owned);
            Some(Entry {
                word: next()?,
                row: next()?.parse().ok()?,
                entity: next()?,
                event: next()?,
                attempt: next()?.parse().ok()?,
                interrupted: next()?.parse().ok()?,
            })
        };
        text.lines().filter_map(entry).collect()
    }

    /// How many lines of the log begin with this word.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.log().iter().filter(|entry| entry.word == word).count()
    }

    /// What `b24 queue status` prints.
    pub(crate) fn status(&self) -> Value {
        Outcome::of(&mut self.queue(&["status"])).body(0)
    }

    /// The dead letters, as `b24 queue dlq list` prints them.
    pub(crate) fn letters(&self) -> Vec<Value> {
        let outcome = Outcome::of(&mut self.queue(&["dlq", "list"]));
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The calls of a method that the portal saw after this many requests.
    pub(crate) fn seen(&self, method: &str) -> Vec<Value> {
        self.world.requests().into_iter().filter(|request| request.method == method).map(|request| request.params).collect()
    }
}

/// Starts a worker.
pub(crate) fn start(command: Command) -> Child {
    spawn(command)
}

/// Runs a worker to its end, which must be this exit status.
#[track_caller]
pub(crate) fn run(command: Command, status: i32) -> Outcome {
    let outcome = ended(spawn(command));
    assert_eq!(outcome.status, status, "stdout: {}\nstderr: {}", outcome.stdout, tail(&outcome.stderr));
    outcome
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(4000);
    text.get(from..).unwrap_or(text)
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come");
        pause(2);
    }
}

/// Leaves the processor to others between two looks.
pub(crate) fn pause(ms: u64) {
    std::thread::park_timeout(Duration::from_millis(ms));
}

/// Sends a signal to a process.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// What a log proves.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// Rows that were handled.
    pub(crate) done: BTreeSet<u64>,
    /// How often a row was handled once more.
    pub(crate) again: usize,
}

/// Asserts that every entity's events were first handled in the order of
/// their rows, and that a row was handled again only after an interruption.
#[track_caller]
pub(crate) fn proof(log: &[Entry]) -> Proof {
    let mut proof = Proof::default();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in log.iter().filter(|entry| entry.word == "done") {
        if !proof.done.insert(entry.row) {
            assert!(entry.interrupted > 0, "handled again without an interruption: {entry:?}");
            proof.again += 1;
            continue;
        }
        if let Some(before) = last.insert(&entry.entity, entry.row) {
            assert!(before < entry.row, "{}: {} was handled after {before}", entry.entity, entry.row);
        }
    }
    proof
}

/// Asserts that nothing was asked for or cleared in a way that can lose
/// events.
#[track_caller]
pub(crate) fn assert_careful(rig: &Rig) {
    for params in rig.seen("event.offline.get") {
        assert!(["0", "\"0\""].contains(&params["clear"].to_string().as_str()), "{params}");
    }
    for params in rig.seen("event.offline.clear") {
        assert!(params["id"].as_array().is_some_and(|ids| !ids.is_empty()), "{params}");
    }
}
