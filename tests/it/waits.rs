//! How long a call waits, and how much of an answer it takes: each file that
//! could hold it up is held, and each answer is larger than what is wanted.

use crate::kept::now_ns;
use crate::waiting::until_awaited;
use crate::world::{Outcome, World};
use b24::host::SystemClock;
use b24::store::locked::{Locked, Mode};
use b24::store::operating::Operating;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Far more than the second that the calls below may wait, and less than what
/// any of the locks was waited for before there was a bound.
const GENEROUS: Duration = Duration::from_secs(8);

const WRITE: &[&str] = &["crm.lead.add", "fields[TITLE]=t", "--confirm-write"];

fn portal(world: &World) -> PathBuf {
    world.state().join("portals").join(world.emulator.address().to_string())
}

fn hold(path: &Path) -> Locked {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    Locked::open(path, Mode::Exclusive, Duration::ZERO).unwrap()
}

fn only_file(folder: &Path, ending: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// Runs a command that may wait for a second, and asserts that it did not wait
/// much longer.
#[track_caller]
fn in_time(mut command: Command) -> Outcome {
    let start = now_ns();
    let outcome = Outcome::of(command.env("B24_MAX_WAIT", "1"));
    let took = Duration::from_nanos(now_ns() - start);
    assert!(took < GENEROUS, "{took:?}: {}", outcome.stderr);
    outcome
}

#[track_caller]
fn is_busy(outcome: Outcome) {
    let error = outcome.error(7);
    assert_eq!((error["kind"].as_str(), error["sent"].as_bool()), (Some("lock_busy"), Some(false)), "{error}");
}

#[test]
fn a_held_limiter_is_waited_for_as_long_as_allowed() {
    let world = World::new();
    let _held = hold(&portal(&world).join("limiter.bin"));
    is_busy(in_time(world.command(&["user.current"])));
    is_busy(in_time(world.command(WRITE)));
    let _ = in_time(world.command(&["limits"])).error(7);
    let _ = in_time(world.command(&["limits", "reset", "--confirm-write"]));
    assert!(world.requests().is_empty());
}

#[test]
fn a_held_audit_is_waited_for_as_long_as_allowed() {
    let world = World::new();
    let _ = world.run(&["user.current"]).body(0);
    let _held = hold(&world.state().join("audit/audit.lock"));
    is_busy(in_time(world.command(WRITE)));
    let _ = in_time(world.command(&["audit", "tail"])).error(7);
    let _ = in_time(world.command(&["audit", "verify"])).error(7);
    // A read has its answer, whether it can be recorded or not.
    assert_eq!(in_time(world.command(&["user.current"])).status, 0);
    assert!(world.changes().is_empty());
}

#[test]
fn held_marks_are_waited_for_as_long_as_allowed() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop:times=1");
    let _ = world.run(&[WRITE, &["--idempotency-key", "one"]].concat()).error(8);
    // The file with the marks; their second names have a point.
    let files = std::fs::read_dir(portal(&world).join("open")).unwrap().map(|entry| entry.unwrap().path());
    let marks: Vec<PathBuf> = files.filter(|path| path.extension().is_none()).collect();
    assert_eq!(marks.len(), 1, "{marks:?}");
    let _held = hold(&marks[0]);
    is_busy(in_time(world.command(&[WRITE, &["--idempotency-key", "two"]].concat())));
    is_busy(in_time(world.command(WRITE)));
    assert_eq!((world.requests().len(), world.changes().len()), (1, 1));
}

#[test]
fn a_held_record_is_waited_for_as_long_as_allowed() {
    let world = World::new();
    let keyed = [WRITE, &["--idempotency-key", "one", "--wait"]].concat();
    let _ = world.run(&keyed).body(0);
    let shard = only_file(&portal(&world).join("ledger"), "");
    let _held = hold(&only_file(&shard, ""));
    assert_eq!(in_time(world.command(&keyed)).error(9)["kind"], "in_progress");
    let _ = in_time(world.command(&["ledger", "resolve", "one", "--as", "executed", "--reason", "x"]));
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn a_held_token_is_waited_for_as_long_as_allowed() {
    let world = World::with_expired_token();
    let _ = Outcome::of(&mut world.oauth_command(&["user.current"])).body(0);
    let _held = hold(&only_file(&world.state().join("tokens"), ".lock"));
    world.fault("user.current:expired-token:times=1");
    let error = in_time(world.oauth_command(&["user.current"])).error(7);
    assert_eq!((error["kind"].as_str(), error["outcome"].as_str()), (Some("lock_busy"), Some("not_applied")), "{error}");
}

#[test]
fn held_counters_are_waited_for_as_long_as_allowed() {
    let world = World::new();
    let _ = world.run(&["user.current"]).body(0);
    let folder = portal(&world).join("operating");
    Operating::new(folder.clone(), Arc::new(SystemClock)).block("webhook:1", "user.current", None).unwrap();
    let held = hold(&only_file(&folder, ""));
    is_busy(in_time(world.command(&["user.current"])));
    drop(held);
    // The method rests for longer than is allowed.
    assert_eq!(in_time(world.command(&["user.current"])).error(7)["kind"], "operating_limited");
    let _budget = hold(&portal(&world).join("retry.bin"));
    world.fault("crm.lead.list:html-502");
    let error = in_time(world.command(&["crm.lead.list"])).error(7);
    assert_eq!((error["kind"].as_str(), error["retry"]["attempts"].as_u64()), (Some("temporary"), Some(1)), "{error}");
}

#[test]
fn a_busy_moment_is_no_reason_to_fail() {
    let world = World::new();
    let path = portal(&world).join("limiter.bin");
    let held = hold(&path);
    let mut child = world.command(&["user.current", "--max-wait", "20"]).stdout(Stdio::null()).spawn().unwrap();
    until_awaited(&path, 1);
    drop(held);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_answer_that_is_too_large_is_refused_as_such() {
    let world = World::new();
    for (chunked, most) in [("", "2MB"), (":chunked=1", "2MB"), ("", "2097152"), (":chunked=1", "2 mib")] {
        world.emulator.clear_faults();
        world.fault(&format!("*:padded:mib=3{chunked}"));
        let requests = world.requests().len();
        let outcome = world.run(&["crm.lead.list", "--max-answer", most]);
        assert_eq!(outcome.stdout, "");
        let error = outcome.error(1);
        assert_eq!((error["kind"].as_str(), error["http_status"].as_u64()), (Some("answer_too_large"), Some(200)), "{error}");
        assert!(error["message"].as_str().unwrap().contains("2 MB") && error["hint"].as_str().unwrap().contains("--max-answer"), "{error}");
        assert_eq!(world.requests().len(), requests + 1, "it would be as large again");
        assert_eq!(Outcome::of(world.command(&["crm.lead.list"]).env("B24_MAX_ANSWER", most)).error(1)["kind"], "answer_too_large");
        assert_eq!(world.run(&["crm.lead.list", "--max-answer", "4MB"]).status, 0);
    }
    for most in ["0", "1", "x", "1TB", "-1", "17GB"] {
        let _ = world.run(&["crm.lead.list", &format!("--max-answer={most}")]).refused(&world, most, 2);
        assert_eq!(world.run(&["crm.lead.list", &format!("--max-answer={most}")]).error(2)["kind"], "usage", "{most}");
    }
}

#[test]
fn a_write_whose_answer_is_too_large_is_unknown() {
    let batch = ["batch", "--params", r#"{"cmd":{"new":"crm.lead.add?fields[TITLE]=b"}}"#, "--confirm-write"];
    for (fault, args) in [("crm.lead.add", WRITE), ("batch", &batch[..])] {
        for chunked in ["", ":chunked=1"] {
            let world = World::new();
            world.fault(&format!("{fault}:padded:mib=3{chunked}:times=1"));
            let args = [args, &["--max-answer", "2MB"]].concat();
            let error = world.run(&args).error(8);
            assert!(error["message"].as_str().unwrap().contains("2 MB"), "{error}");
            assert_eq!(world.run(&args).error(8)["sent"], false);
            assert_eq!((world.requests().len(), world.changes().len()), (1, 1));
        }
    }
}

#[test]
fn memory_stays_within_the_bound_whatever_comes() {
    let world = World::new();
    for chunked in ["", ":chunked=1"] {
        world.emulator.clear_faults();
        world.fault(&format!("*:padded:mib=3000{chunked}"));
        let b24 = world.command(&["crm.lead.list", "--max-answer", "8MB"]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("ulimit -v 600000; exec \"$@\"").arg("sh").arg(b24.get_program()).args(b24.get_args());
        shell.env_clear().envs(b24.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(world.home.path());
        assert_eq!(Outcome::of(&mut shell).error(1)["kind"], "answer_too_large", "{chunked}");
    }
}

#[test]
fn a_token_answer_that_is_too_large_is_lost() {
    for chunked in ["", ":chunked=1"] {
        let world = World::with_expired_token();
        world.fault(&format!("oauth.token:padded:mib=2{chunked}"));
        let error = Outcome::of(&mut world.oauth_command(&["user.current"])).error(7);
        assert_eq!(error["kind"], "refresh_unknown", "{error}");
    }
}
