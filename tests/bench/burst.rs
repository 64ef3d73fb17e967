//! A portal with a queue full of events, and the ways to empty it.

use crate::handler::{self, now_ms};
use b24::store::locked::{Locked, Mode};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A portal that lives as long as this value.
pub(crate) struct Portal {
    process: Child,
    data: PathBuf,
    origin: String,
    access_token: String,
}

/// What working off a burst took.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) events: u32,
    pub(crate) took: Duration,
    /// When the handler had the last event, counted from the start.
    pub(crate) last_event: Option<Duration>,
    pub(crate) peak_mb: Option<f64>,
}

impl Portal {
    pub(crate) fn start(data: &Path) -> Portal {
        let mut command = Command::new(env!("CARGO_BIN_EXE_b24"));
        command.args(["emulator", "serve", "--data"]).arg(data).env_clear();
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let access: Value = serde_json::from_slice(&fs::read(ready["oauth_file"].as_str().unwrap()).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Portal { process, data: data.to_owned(), origin: text(&ready["address"]), access_token: text(&access["access_token"]) }
    }

    /// Puts events of different objects into the offline queue: as the portal
    /// writes them itself, but all at once.
    pub(crate) fn raise(&self, numbers: Range<u32>) {
        let at = now_ms();
        let mut lines = Vec::new();
        for number in numbers {
            let event = json!({"queued": {
                "id": number + 1, "connector": "", "event": "ONCRMDEALUPDATE", "message_id": format!("{number:032x}"),
                "at": at / 1000, "stamp": "2026-01-01T12:00:00+03:00",
                "data": {"FIELDS": {"ID": (number + 1).to_string(), "RAISED": at.to_string()}}, "additional": {"user_id": "1"},
            }});
            writeln!(lines, "{event}").unwrap();
        }
        let mut journal = Locked::open(&self.data.join("journal.jsonl"), Mode::Exclusive, Duration::from_secs(60)).unwrap();
        journal.append(&lines).unwrap();
    }

    /// Takes and clears as a client that keeps nothing: no other way can be
    /// faster.
    pub(crate) fn take_and_clear(&self, batch: u32, events: u32) -> Run {
        // An earlier client may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::blocking::Client::new();
        let call = |method: &str, mut body: Value| -> Value {
            body["auth"] = json!(self.access_token);
            let request = client.post(format!("{}/rest/{method}.json", self.origin)).header("Content-Type", "application/json");
            serde_json::from_slice(&request.body(body.to_string()).send().unwrap().bytes().unwrap()).unwrap()
        };
        let (start, mut taken) = (now(), 0);
        loop {
            let answer = call("event.offline.get", json!({"clear": 0, "limit": batch}));
            let rows = answer["result"]["events"].as_array().unwrap();
            if rows.is_empty() {
                break;
            }
            taken += rows.len();
            let ids: Vec<&Value> = rows.iter().map(|row| &row["ID"]).collect();
            call("event.offline.clear", json!({"process_id": answer["result"]["process_id"], "id": ids}));
        }
        assert_eq!(taken, events as usize);
        Run { events, took: start.elapsed(), last_event: None, peak_mb: None }
    }

    /// Works a burst off through the fast handler.
    pub(crate) fn serve(&self, state: &Path, batch: u32, events: u32) -> Run {
        let report = state.with_extension("report");
        let mut command = self.worker(state, batch);
        command.args(["--serve", &handler_line(&report), "--until-empty"]);
        let (start, run) = (now_ms(), measured(&command, events));
        let seen = reported(&report);
        assert_eq!(seen.len(), events as usize);
        let last = seen.iter().map(|(_, came)| came - start).max().unwrap();
        Run { last_event: Some(Duration::from_millis(last)), ..run }
    }

    /// Works a burst off with a process for each event.
    pub(crate) fn exec(&self, state: &Path, batch: u32, events: u32) -> Run {
        let mut command = self.worker(state, batch);
        command.args(["--exec", "true", "--until-empty"]);
        measured(&command, events)
    }

    /// Raises events at a pace while a worker runs; returns how late each one
    /// came to the handler, in milliseconds and in the order of raising.
    pub(crate) fn steady(&self, state: &Path, seconds: u32, pace: u32) -> Vec<u64> {
        let report = state.with_extension("report");
        let mut command = self.worker(state, 500);
        command.args(["--serve", &handler_line(&report), "--sleep", "0.1"]);
        let mut worker = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = now();
        for tick in 0..seconds * 10 {
            self.raise(tick * pace / 10..(tick + 1) * pace / 10);
            pause((Duration::from_millis(100) * (tick + 1)).saturating_sub(start.elapsed()));
        }
        pause(Duration::from_secs(2));
        let pid = rustix::process::Pid::from_raw(worker.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        worker.wait().unwrap();
        let mut seen = reported(&report);
        assert_eq!(seen.len(), (seconds * pace) as usize);
        seen.sort_unstable();
        seen.into_iter().map(|(raised, came)| came - raised).collect()
    }

    /// A worker with an environment of nothing else and without a limiter.
    fn worker(&self, state: &Path, batch: u32) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_b24"));
        command.args(["queue", "work", "--batch", &batch.to_string()]).env_clear();
        command.env("B24_AUTH_MODE", "oauth").env("B24_DOMAIN", &self.origin).env("B24_ACCESS_TOKEN", &self.access_token);
        command.env("B24_STATE_DIR", state).env("B24_RATE_LIMITER", "off").env("HOME", state.parent().unwrap());
        command
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a worker under GNU time, to its end.
fn measured(command: &Command, events: u32) -> Run {
    let mut measured = Command::new("/usr/bin/time");
    measured.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args()).env_clear();
    measured.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let start = now();
    let output = measured.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let took = start.elapsed();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["handled"], &summary["left"]), (&json!(events), &json!(0)), "{summary}");
    let kilobytes: u32 = text.lines().last().unwrap().parse().unwrap();
    Run { events, took, last_event: None, peak_mb: Some(f64::from(kilobytes) / 1000.0) }
}

fn handler_line(report: &Path) -> String {
    let own = std::env::current_exe().unwrap();
    format!("exec '{}' {} '{}'", own.display(), handler::NAME, report.display())
}

/// Returns when each event was raised and when it came.
fn reported(report: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(report).unwrap();
    let number = |text: &str| text.parse::<u64>().unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(raised, came)| (number(raised), number(came))).collect()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "events come at a pace")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
