//! Damaged state: whatever happens to one file of the state folder, no write is
//! executed a second time, and what was lost is said.
//!
//! The state is made by the binary: every way in which a write can end, under
//! keys of every kind. Then each file is damaged in every way, the same writes
//! are asked for again, and the state is put right. A write may then say what it
//! said before the damage, or refuse with a reason and a next step; the portal
//! shows whether anything was done.

use crate::damage_kinds::{Case, Tree, damages, read, restore};
use crate::kept::{as_person, asked, in_process, made, plan};
use crate::world::{Outcome, World};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A write that is asked for again after a damage.
struct Question {
    title: &'static str,
    args: Vec<String>,
    /// How often it may be executed: once when it never was.
    allowed: usize,
    /// What it says when nothing is damaged.
    usual: (i32, String),
}

/// A world with a state to damage.
struct Scene {
    world: World,
    state: Tree,
    /// What the files held earlier.
    older: BTreeMap<PathBuf, Vec<Vec<u8>>>,
    questions: Vec<Question>,
    /// The records by name: their title, and what they are called in every
    /// scene.
    records: BTreeMap<String, (&'static str, String)>,
    /// The plans by id, and their title.
    plans: BTreeMap<String, &'static str>,
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn add(title: &str, options: &[&str]) -> Vec<String> {
    let title = format!("fields[TITLE]={title}");
    [words(&["crm.lead.add", &title, "--confirm-write"]), words(options)].concat()
}

fn batch() -> Vec<String> {
    let params = r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=batch-a","b":"crm.lead.add?fields[TITLE]=batch-b"}}"#;
    words(&["batch", "--params", params, "--confirm-write", "--idempotency-key", "batch"])
}

/// A way in which a write ended, and what is asked afterwards.
struct History {
    title: &'static str,
    /// The faults of the portal and the runs, in order.
    runs: &'static [(&'static str, i32)],
    options: &'static [&'static str],
    verdict: Option<&'static str>,
    allowed: usize,
    /// Whether the same write under other keys must be refused, too.
    is_unknown: bool,
}

const LOST: &str = "crm.lead.add:execute-then-drop:times=1";
const NEVER: &str = "crm.lead.add:drop-before-executing:times=1";
const REFUSED: &str = "crm.lead.add:error:status=400:code=ERROR_CORE:times=1";
const LIMIT: &str = "crm.lead.add:query-limit:times=1";

const fn history(title: &'static str, runs: &'static [(&'static str, i32)], options: &'static [&'static str]) -> History {
    History { title, runs, options, verdict: None, allowed: 0, is_unknown: false }
}

const HISTORIES: &[History] = &[
    history("done", &[("", 0)], &["--idempotency-key", "done"]),
    history("done-auto", &[("", 0)], &["--auto-key"]),
    history("withdrawn", &[(LIMIT, 0)], &["--idempotency-key", "withdrawn"]),
    history("twice", &[("", 0), ("again", 0)], &["--auto-key"]),
    History { is_unknown: true, ..history("unknown", &[(LOST, 8)], &["--idempotency-key", "unknown"]) },
    History { is_unknown: true, ..history("unknown-auto", &[(LOST, 8)], &[]) },
    History { verdict: Some("abandoned"), ..history("abandoned", &[(LOST, 8)], &["--idempotency-key", "abandoned"]) },
    History { verdict: Some("executed"), ..history("executed", &[(LOST, 8)], &["--idempotency-key", "executed"]) },
    History { allowed: 1, verdict: Some("not-executed"), ..history("not-executed", &[(NEVER, 8)], &["--idempotency-key", "not-executed"]) },
    History { allowed: 1, ..history("refused", &[(REFUSED, 1)], &["--idempotency-key", "refused"]) },
    History { allowed: 1, ..history("claimed", &[("crash", -1)], &["--idempotency-key", "claimed"]) },
];

impl Scene {
    fn new() -> Scene {
        let world = World::new();
        let (older, records, plans) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut scene = Scene { world, state: Tree::new(), older, questions: Vec::new(), records, plans };
        let used = plan(&scene.world, &["crm.lead.add", "fields[TITLE]=planned"]);
        let cancelled = plan(&scene.world, &["crm.lead.add", "fields[TITLE]=cancelled"]);
        let same = plan(&scene.world, &["crm.lead.add", "fields[TITLE]=unknown"]);
        scene.plans = BTreeMap::from([(used.clone(), "planned"), (cancelled.clone(), "cancelled"), (same.clone(), "unknown")]);
        assert_eq!(scene.world.run(&["plan", "cancel", &cancelled]).status, 0);
        scene.note();
        for history in HISTORIES {
            scene.live_through(history);
        }
        scene.ask("planned", words(&["--execute-plan", &used, "--confirm-write"]), 0, true);
        scene.ask("batch-a", batch(), 0, true);
        scene.ask("cancelled", words(&["--execute-plan", &cancelled, "--confirm-write"]), 0, false);
        scene.ask("unknown", words(&["--execute-plan", &same, "--confirm-write"]), 0, false);
        // The last record of the audit is one of a write: those are counted.
        scene.ask("last", add("last", &["--idempotency-key", "last"]), 0, true);
        scene.state = read(&scene.world.state());
        scene.learn_answers();
        scene
    }

    fn run(&self, args: &[String]) -> Command {
        self.world.command(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Keeps what the files hold now, to be put back later.
    fn note(&mut self) {
        for (path, entry) in read(&self.world.state()) {
            let older = self.older.entry(path).or_default();
            if older.last() != Some(&entry) {
                older.push(entry);
            }
        }
    }

    fn live_through(&mut self, history: &History) {
        let args = add(history.title, history.options);
        for (fault, status) in history.runs {
            let mut command = match *fault {
                "again" => self.run(&add(history.title, &["--again"])),
                _ => self.run(&args),
            };
            match *fault {
                "crash" => drop(command.env("B24_CRASH_POINT", "ledger.after_claim")),
                "" | "again" => {}
                fault => self.world.fault(fault),
            }
            let outcome = Outcome::of(&mut command);
            assert_eq!(outcome.status, *status, "{} {fault}: {}", history.title, outcome.stderr);
            self.note();
        }
        if let Some(verdict) = history.verdict {
            crate::kept::resolve(&self.world, history.title, verdict);
        }
        self.find_records(history.title);
        self.ask(history.title, args, history.allowed, false);
        if history.is_unknown {
            self.ask(history.title, add(history.title, &[]), 0, false);
            self.ask(history.title, add(history.title, &["--idempotency-key", "another"]), 0, false);
        }
    }

    fn ask(&mut self, title: &'static str, args: Vec<String>, allowed: usize, runs_first: bool) {
        if runs_first {
            let outcome = Outcome::of(&mut self.run(&args));
            assert_eq!(outcome.status, 0, "{title}: {}", outcome.stderr);
            self.note();
            self.find_records(title);
        }
        self.questions.push(Question { title, args, allowed, usual: (0, String::new()) });
    }

    /// Takes the records that are new for those of a title.
    fn find_records(&mut self, title: &'static str) {
        for (path, entry) in read(&self.world.state()) {
            let Some(name) = record_name(&path) else { continue };
            let text = String::from_utf8(entry).unwrap();
            let claim: Value = serde_json::from_str(text.lines().next().unwrap().split_once(' ').unwrap().1).unwrap();
            let key = claim["key"].as_str().unwrap();
            let label = if key.contains('#') { key } else { title };
            self.records.entry(name).or_insert_with(|| (title, label.to_owned()));
        }
    }

    /// Returns what a file is called in every scene: their portals differ, and
    /// with them the names of records and marks.
    fn label(&self, path: &Path, entry: &[u8]) -> String {
        let top = path.iter().take(1).chain(path.iter().skip(2).take(1)).map(|part| part.to_string_lossy().into_owned());
        let top: Vec<String> = top.filter(|part| part.len() != 2).collect();
        let of = |name: &str| self.records.get(name).map(|(_, label)| label.clone());
        let text = String::from_utf8_lossy(entry);
        let by_name = record_name(path).and_then(|name| of(&name));
        let label = by_name.or_else(|| of(text.get(..64)?)).unwrap_or_else(|| text.len().to_string());
        format!("{}/{label}", top.join("/"))
    }

    fn learn_answers(&mut self) {
        for index in 0..self.questions.len() {
            let outcome = asked(&self.world, &self.run(&self.questions[index].args), || restore(&self.world.state(), &self.state));
            self.questions[index].usual = (outcome.status, outcome.stdout);
            restore(&self.world.state(), &self.state);
        }
    }

    /// Returns the questions that a file has to do with: a record of a known
    /// title with that title; else the first of each kind.
    fn questions_for(&self, path: &Path) -> Vec<&Question> {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        match record_name(path).and_then(|name| self.records.get(&name)) {
            Some((title, _)) => self.questions.iter().filter(|question| question.title == *title).collect(),
            // Of whose write a file of marks is, its name does not tell.
            None if parts.contains(&"open") => self.questions.iter().filter(|question| question.title == "unknown").collect(),
            None if parts.contains(&"plans") => {
                let title = self.plans.iter().find(|(id, _)| parts.iter().any(|part| part.starts_with(id.as_str()))).unwrap().1;
                self.questions.iter().filter(|question| question.title == *title && question.args[0] == "--execute-plan").collect()
            }
            None => self.questions.iter().filter(|question| ["done", "not-executed"].contains(&question.title)).collect(),
        }
    }

    /// Applies one damage; returns what was said.
    fn try_case(&self, case: &Case) -> Vec<String> {
        let mut said = Vec::new();
        for question in self.questions_for(&case.path) {
            let before = made(&self.world, question.title);
            let outcome = asked(&self.world, &self.run(&question.args), || {
                restore(&self.world.state(), &self.state);
                case.apply(&self.world.state());
            });
            let context = format!("{} / {:?}: exit {}\n{}{}", case.name, question.args, outcome.status, outcome.stdout, outcome.stderr);
            let executed = made(&self.world, question.title) - before;
            assert!(executed <= question.allowed, "executed again: {context}");
            said.push(judge(question, &outcome, executed, &context));
            self.settle(&outcome, &context);
            restore(&self.world.state(), &self.state);
        }
        if case.path.starts_with("audit") {
            case.apply(&self.world.state());
            let verified = in_process(&self.world, &self.world.command(&["audit", "verify"]), false);
            assert!([0, 1, 12].contains(&verified.status), "{}: {}", case.name, verified.stderr);
            let told = verified.status != 0 || said.iter().any(|said| said.contains("local_state"));
            let is_data = case.path.extension().is_some_and(|ending| ending == "jsonl");
            assert!(told || !is_data, "nobody says it: {}", case.name);
            said.push(format!("verify {}", verified.status));
            restore(&self.world.state(), &self.state);
        }
        said
    }

    /// What the ledger calls damaged, a person can settle, and then it is.
    fn settle(&self, outcome: &Outcome, context: &str) {
        let error: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).unwrap_or_default();
        if error["kind"] != "ledger_corrupt" {
            return;
        }
        let record = error["ledger"].as_str().unwrap();
        let shown = as_person(&self.world, &["ledger", "show", record]);
        assert!(shown.stdout.contains("damaged") || shown.stdout.contains("missing"), "{}: {context}", shown.stdout);
        let listed = as_person(&self.world, &["ledger", "list"]);
        assert!(listed.stdout.contains(record), "{}: {context}", listed.stdout);
        let resolved = as_person(&self.world, &["ledger", "resolve", record, "--as", "abandoned", "--reason", "looked"]);
        assert_eq!(resolved.status, 0, "{}: {context}", resolved.stderr);
        let again = as_person(&self.world, &["ledger", "show", record]);
        assert!(again.stdout.contains("\"state\":\"abandoned\""), "{}: {context}", again.stdout);
    }
}

/// Judges what was said: the same as always, or a refusal that helps.
fn judge(question: &Question, outcome: &Outcome, executed: usize, context: &str) -> String {
    let is_same = outcome.status == question.usual.0 && (executed > 0 || outcome.stdout == question.usual.1);
    if outcome.status == 0 {
        assert!(is_same, "another answer than before: {context}");
        return "as always".to_owned();
    }
    let error: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).unwrap_or_default();
    let (kind, hint) = (error["kind"].as_str().unwrap_or_default(), error["hint"].as_str().unwrap_or_default());
    assert!(!kind.is_empty() && kind != "internal" && !hint.is_empty(), "no reason or no next step: {context}");
    assert!(is_same || [1, 8, 9, 12].contains(&outcome.status), "{context}");
    if is_same { "as always".to_owned() } else { format!("{} {kind}", outcome.status) }
}

/// Returns the record that a file of the ledger is, or is another name of.
fn record_name(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        [.., "ledger", shard, rest] => Some(format!("{shard}{rest}")),
        [.., "sent", name] => name.split('.').next().map(str::to_owned),
        _ => None,
    }
}

/// Damages files of one scene a thread until all cases are tried.
fn campaign(threads: usize, scene: fn() -> Scene) -> BTreeMap<String, usize> {
    let is_long = std::env::var_os("B24_LONG_TESTS").is_some();
    let next = AtomicUsize::new(0);
    let tally: Mutex<BTreeMap<String, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let scene = scene();
                let none = Vec::new();
                // In the order that is the same in every scene.
                let mut files: Vec<_> = scene.state.iter().map(|(path, entry)| (scene.label(path, entry), path, entry)).collect();
                files.sort();
                let cases =
                    files.into_iter().flat_map(|(_, path, entry)| damages(path, entry, scene.older.get(path).unwrap_or(&none), is_long));
                let cases: Vec<Case> = cases.filter(|case| is_long || is_in_short_form(case)).collect();
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(index) else { break };
                    let said = scene.try_case(case);
                    let place = case.path.iter().next().unwrap().to_string_lossy().into_owned();
                    let mut tally = tally.lock().unwrap();
                    *tally.entry("cases".to_owned()).or_default() += 1;
                    for said in said {
                        *tally.entry(format!("{place}, {}: {said}", case.kind)).or_default() += 1;
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// The audit has a line for everything that was done, and a plan one for every
/// field: of their damages, the short form of the campaign takes every fifth.
fn is_in_short_form(case: &Case) -> bool {
    let what = case.name.split_once(' ').map_or("", |(_, what)| what);
    let number = what.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    !(case.path.starts_with("audit") || case.path.starts_with("plans")) || case.left.is_none() || number % 5 == 0
}

fn report(name: &str, tally: &BTreeMap<String, usize>) {
    println!("{name}: {} cases", tally["cases"]);
    for (said, count) in tally.iter().filter(|(said, _)| *said != "cases") {
        println!("  {count:5} {said}");
    }
}

#[test]
fn no_damage_of_one_file_executes_a_write_again_or_loses_it_in_silence() {
    let start = crate::kept::now_ns();
    let tally = campaign(2, Scene::new);
    report("state folder", &tally);
    println!("{} s", (crate::kept::now_ns() - start) / 1_000_000_000);
    assert!(tally["cases"] > 500);
}
