//! The receiver's half of the damage to an inbox, and damage under those that
//! run.

use crate::inbox_damage::{copy, put};
use crate::queue_world::{Rig, until};
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// An inbox of a receiver with events that are over, that wait, and that are
/// dead letters.
pub(crate) struct Receiver {
    world: World,
    pub(crate) folder: PathBuf,
    pub(crate) now: PathBuf,
    pub(crate) older: PathBuf,
    waiting: BTreeSet<String>,
}

/// A receiver that runs.
pub(crate) struct Listening {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Listening {
    /// Starts a receiver; `Err` with its exit status and words when it does
    /// not listen.
    pub(crate) fn start(world: &World, args: &[&str]) -> Result<Listening, (Option<i32>, String)> {
        let mut command = world.command(&[&["listen", "--retry-delay", "0.02"], args].concat());
        command.env("B24_APPLICATION_TOKEN", world.emulator.access().application_token.expose());
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(world.home.path().join("stderr")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        match serde_json::from_str::<Value>(&first).ok().filter(|ready| ready["address"].is_string()) {
            Some(ready) => {
                let address = ready["address"].as_str().unwrap().trim_start_matches("http://").to_owned();
                Ok(Listening { child, address })
            }
            None => {
                let status = child.wait().unwrap().code();
                Err((status, std::fs::read_to_string(world.home.path().join("stderr")).unwrap()))
            }
        }
    }

    pub(crate) fn post(&self, world: &World, id: u32) -> u16 {
        let token = world.emulator.access().application_token.expose().to_owned();
        let body = format!("event=ONCRMDEALUPDATE&data[FIELDS][ID]={id}&ts=1766047124&auth[application_token]={token}");
        let head = "Host: x\r\nContent-Type: application/x-www-form-urlencoded";
        status(&self.address, &format!("POST / HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).0
    }

    pub(crate) fn health(&self) -> (u16, String) {
        status(&self.address, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    }

    /// Ends it as a service manager does, and returns its exit status.
    pub(crate) fn end(mut self) -> Option<i32> {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

/// Sends a request; returns the status of the answer, 0 without one, and its
/// text.
pub(crate) fn status(address: &str, request: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
}

const RULES: &str = "read -r line; case $line in *'\"ID\":\"9'*) exit 1;; *'\"ID\":\"2'*) exit 75;; esac";

impl Receiver {
    pub(crate) fn with_events() -> Receiver {
        let world = World::new();
        let listening = Listening::start(&world, &["--exec", RULES, "--max-retries", "1"]).unwrap();
        let folder = std::fs::read_dir(world.state().join("queue")).unwrap().next().unwrap().unwrap().path().join("online");
        let (now, older) = (world.home.path().join("now"), world.home.path().join("older"));
        let handled = |count: u64| {
            let status = world.run(&["queue", "status", "--source", "online"]).body(0);
            status["counters"]["handled"].as_u64().unwrap() + status["dead_letters"].as_u64().unwrap() >= count
        };
        [1, 91, 21].iter().for_each(|id| assert_eq!(listening.post(&world, *id), 200));
        until("the first are over", || handled(2));
        copy(&folder, &older);
        [3, 92, 22, 23].iter().for_each(|id| assert_eq!(listening.post(&world, *id), 200));
        until("the others are over", || handled(4));
        assert_eq!(listening.end(), Some(0));
        copy(&folder, &now);
        let waiting = ["21", "22", "23"].map(str::to_owned).into();
        Receiver { world, folder, now, older, waiting }
    }

    fn handled(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.world.home.path().join("events")).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter_map(|event| event["data"]["FIELDS"]["ID"].as_str().map(str::to_owned)).collect()
    }

    /// Runs a receiver on the inbox as it is. Returns whether damage was told.
    pub(crate) fn receives(&self, context: &str) -> bool {
        for name in ["events", "stderr"] {
            let _ = std::fs::remove_file(self.world.home.path().join(name));
        }
        match Listening::start(&self.world, &["--exec", "cat >> events"]) {
            Err((code, stderr)) => {
                assert_eq!(code, Some(12), "{context}: {stderr}");
                assert!(stderr.contains(self.folder.to_str().unwrap()) && stderr.contains("\"hint\""), "{context}: {stderr}");
                true
            }
            Ok(listening) => {
                until(context, || self.waiting.is_subset(&self.handled()));
                let letters = std::fs::read_to_string(self.folder.join("dead-letters.jsonl")).unwrap_or_default();
                assert_eq!((letters.lines().count(), listening.end()), (2, Some(0)), "{context}: {letters}");
                false
            }
        }
    }
}

/// Damage to a file of a living inbox.
fn strike(folder: &Path, older: &Path, (name, kind): (&str, &str)) {
    let path = match name {
        "worker" => std::fs::read_dir(folder.join("workers")).unwrap().next().unwrap().unwrap().path(),
        name => folder.join(name),
    };
    let bytes = std::fs::read(&path).unwrap();
    let old = || std::fs::read(older.join(name)).unwrap();
    match kind {
        "emptied" => put(&path, Some(b"")),
        "removed" => put(&path, None),
        "zeroed" => put(&path, Some(&vec![0; bytes.len()])),
        "cut" => put(&path, Some(&bytes[..bytes.len() / 2])),
        "older" => put(&path, Some(&old())),
        // Another file under its name.
        "exchanged" => {
            let new = folder.join("new");
            put(&new, Some(&old()));
            std::fs::rename(new, &path).unwrap();
        }
        "without its first line" => {
            let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            put(&path, Some(&bytes[end + 1..]));
        }
        other => panic!("{other}"),
    }
}

const STRIKES: &[(&str, &str)] = &[
    ("inbox-000001.jsonl", "emptied"),
    ("inbox-000001.jsonl", "removed"),
    ("inbox-000001.jsonl", "zeroed"),
    ("inbox-000001.jsonl", "cut"),
    ("inbox-000001.jsonl", "older"),
    ("inbox-000001.jsonl", "exchanged"),
    ("inbox-000001.jsonl", "without its first line"),
    ("inbox.head", "emptied"),
    ("inbox.head", "removed"),
    ("inbox.head", "zeroed"),
    ("dead-letters.jsonl", "emptied"),
    ("dead-letters.jsonl", "removed"),
    ("dead-letters.jsonl", "exchanged"),
    ("dead-letters.jsonl.head", "zeroed"),
    ("worker", "removed"),
];

/// Waits for the end that a process comes to by itself. A commit that was under
/// way writes a witness anew, which undoes its damage.
fn end_of(child: &mut Child, folder: &Path, (name, kind): (&str, &str)) -> ExitStatus {
    let child = std::cell::RefCell::new(child);
    until(&format!("the end after {name} was {kind}"), || {
        let path = folder.join(name);
        let _ = match (name.contains(".head"), kind) {
            (true, "removed") => std::fs::remove_file(path),
            (true, "emptied") => std::fs::write(path, ""),
            (true, _) => std::fs::write(path, [0; 128]),
            (false, _) => Ok(()),
        };
        child.borrow_mut().try_wait().unwrap().is_some()
    });
    child.into_inner().wait().unwrap()
}

/// Runs every strike in a world of its own, a few at a time.
fn each(strikes: &[(&'static str, &'static str)], trial: impl Fn((&'static str, &'static str)) + Sync) {
    for some in strikes.chunks(5) {
        std::thread::scope(|scope| some.iter().for_each(|strike| drop(scope.spawn(|| trial(*strike)))));
    }
}

#[test]
fn a_receiver_whose_inbox_is_damaged_under_it_ends() {
    each(STRIKES, |case| {
        let world = World::new();
        let mut listening = Listening::start(&world, &["--exec", RULES, "--max-retries", "1"]).unwrap();
        assert_eq!(listening.health().0, 200);
        let folder = std::fs::read_dir(world.state().join("queue")).unwrap().next().unwrap().unwrap().path().join("online");
        [91, 21].iter().for_each(|id| assert_eq!(listening.post(&world, *id), 200));
        let letters =
            |count: usize| std::fs::read_to_string(folder.join("dead-letters.jsonl")).unwrap_or_default().lines().count() == count;
        until("the first dead letter is written", || letters(1));
        let older = world.home.path().join("older");
        copy(&folder, &older);
        [92, 22].iter().for_each(|id| assert_eq!(listening.post(&world, *id), 200));
        until("the second dead letter is written", || letters(2));
        strike(&folder, &older, case);
        // It ends by itself, without a request and without a signal.
        let status = end_of(&mut listening.child, &folder, case);
        let stderr = std::fs::read_to_string(world.home.path().join("stderr")).unwrap();
        assert_eq!(status.code(), Some(12), "{case:?}: {stderr}");
        let error = stderr.lines().last().unwrap();
        assert!(error.contains(folder.to_str().unwrap()) && error.contains("hint"), "{case:?}: {error}");
    });
    println!("listen, damaged while it ran: {} cases", STRIKES.len());
}

#[test]
fn a_worker_whose_inbox_is_damaged_under_it_ends_and_clears_nothing() {
    each(STRIKES, |case| {
        let rig = Rig::new("case $entity in crmlead:*) status=1;; *) status=75;; esac");
        let args = ["--max-retries", "1", "--metrics-file", "metrics"];
        rig.raise("ONCRMLEADADD", 1);
        rig.raise("ONCRMDEALADD", 1);
        let mut command = rig.exec(&args);
        let stderr = std::fs::File::create(rig.path("stderr")).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let cleared = |rig: &Rig| rig.seen("event.offline.clear").len();
        until("the first dead letter is cleared", || cleared(&rig) >= 1);
        let folder = std::fs::read_dir(rig.world.state().join("queue")).unwrap().next().unwrap().unwrap().path().join("offline");
        let older = rig.path("older");
        copy(&folder, &older);
        rig.raise("ONCRMLEADADD", 2);
        rig.raise("ONCRMDEALADD", 2);
        until("the second one, too", || cleared(&rig) >= 2);
        strike(&folder, &older, case);
        let status = end_of(&mut child, &folder, case);
        let stderr = std::fs::read_to_string(rig.path("stderr")).unwrap();
        assert_eq!(status.code(), Some(12), "{case:?}: {stderr}");
        assert!(stderr.contains(folder.to_str().unwrap()), "{case:?}: {stderr}");
        // The two that nobody handled are still on the portal.
        assert_eq!((rig.rows().len(), rig.count("done")), (2, 0), "{case:?}");
    });
    println!("queue work, damaged while it ran: {} cases", STRIKES.len());
}
