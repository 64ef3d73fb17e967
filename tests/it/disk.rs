//! A disk that is full, broken or not ours: what cannot be recorded is not
//! sent, and what was done is said to be done.

use crate::crashes::passings;
use crate::kept::{carry_through, made, records};
use crate::world::{Outcome, World};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn add(world: &World) -> Command {
    world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "k"])
}

fn batch(world: &World) -> Command {
    let params = r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=t","b":"crm.lead.add?fields[TITLE]=t-b"}}"#;
    world.command(&["batch", "--params", params, "--confirm-write"])
}

/// A broken disk leads to one of these: nothing left and the exit says so, or
/// the write was done once, and the exit says that.
#[track_caller]
fn assert_honest(world: &World, outcome: &Outcome, context: &str) {
    let context = format!("{context}: exit {} {}{}", outcome.status, outcome.stdout, outcome.stderr);
    match outcome.status {
        12 => assert!(world.requests().is_empty(), "{context}"),
        0 | 8 | 13 => assert_eq!(made(world, "t"), 1, "{context}"),
        _ => panic!("{context}"),
    }
    if [0, 13].contains(&outcome.status) {
        assert!(outcome.stdout.contains("\"result\":"), "the answer is printed: {context}");
    }
    if outcome.status == 13 {
        assert!(outcome.stderr.contains("\"outcome\":\"applied\""), "{context}");
    }
}

/// When a file operation of a write happens, which decides the exit status.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Before the answer: nothing leaves.
    Before,
    /// The portal did it, and what is broken keeps that from being recorded.
    Answered,
    /// All is recorded; a mark that stays costs the next one a look.
    CleaningUp,
}

/// Returns every passing of a fault with its phase, as the points before it
/// tell.
fn phases(world: &World, mut command: Command) -> Vec<(String, Phase)> {
    let trace = world.home.path().join("trace");
    let outcome = Outcome::of(command.env("B24_POINTS_TRACE", &trace));
    assert!(outcome.status >= 0, "{}", outcome.stderr);
    let (mut phase, mut counts, mut found) = (Phase::Before, BTreeMap::<String, u32>::new(), Vec::new());
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        match line.split_once(' ').unwrap() {
            ("point", "transport.after_answer" | "ledger.before_settle") => phase = Phase::Answered,
            ("point", "ledger.after_settle") => phase = Phase::CleaningUp,
            ("point", _) => {}
            (_, name) => {
                if name == "audit.outcome" {
                    phase = Phase::Answered;
                }
                let count = counts.entry(name.to_owned()).or_default();
                *count += 1;
                found.push((format!("{name}:{count}"), phase));
            }
        }
    }
    found
}

fn break_every_operation(command: fn(&World) -> Command) {
    let world = World::new();
    let points = phases(&world, command(&world));
    let mut exits: BTreeMap<i32, usize> = BTreeMap::new();
    for (point, phase) in &points {
        for errno in ["ENOSPC", "EIO"] {
            let world = World::new();
            let outcome = Outcome::of(command(&world).env("B24_FAULT_POINT", format!("{point}={errno}")));
            let context = format!("{point}={errno}");
            assert_honest(&world, &outcome, &context);
            let expected = match phase {
                Phase::Before => 12,
                Phase::Answered => 13,
                Phase::CleaningUp => 0,
            };
            assert_eq!(outcome.status, expected, "{context}: {}", outcome.stderr);
            *exits.entry(outcome.status).or_default() += 1;
            let _ = carry_through(&world, "t", || command(&world), &context);
            assert!(made(&world, "t-b") <= 1, "{context}");
            let _ = records(&world);
        }
    }
    assert!(exits.contains_key(&12) && exits.contains_key(&13), "{exits:?}");
    println!("{} file operations, two errors each; exits {exits:?}", points.len());
}

#[test]
fn every_file_operation_of_a_write_may_fail() {
    break_every_operation(add);
}

#[test]
fn every_file_operation_of_a_batch_may_fail() {
    break_every_operation(batch);
}

/// Makes a command that may write files of so many blocks of 512 bytes only.
fn with_small_files(command: &Command, blocks: u32) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

#[test]
fn every_file_operation_around_a_refusal_may_fail() {
    let ready = || {
        let world = World::new();
        world.fault("crm.lead.add:redirect:times=1");
        world
    };
    let world = ready();
    let points = phases(&world, add(&world));
    for (point, phase) in &points {
        let world = ready();
        let outcome = Outcome::of(add(&world).env("B24_FAULT_POINT", format!("{point}=ENOSPC")));
        let context = format!("{point}: exit {} {}", outcome.status, outcome.stderr);
        assert_eq!(outcome.status, if *phase == Phase::Before { 12 } else { 4 }, "{context}");
        assert_eq!(world.requests().len(), usize::from(*phase != Phase::Before), "{context}");
        assert_eq!(made(&world, "t"), 0, "{context}");
        world.emulator.clear_faults();
        let _ = carry_through(&world, "t", || add(&world), &context);
    }
    println!("{} file operations around a refusal", points.len());
}

#[test]
fn every_file_operation_around_a_token_refresh_may_fail() {
    let command = |world: &World| {
        let mut command = add(world);
        world.with_oauth(&mut command);
        command
    };
    let world = World::with_token_that_expires_at_the_add();
    let points = passings(&world, command(&world), "fault");
    let mut exits: BTreeMap<i32, usize> = BTreeMap::new();
    for point in &points {
        let world = World::with_token_that_expires_at_the_add();
        let outcome = Outcome::of(command(&world).env("B24_FAULT_POINT", format!("{point}=ENOSPC")));
        let context = format!("{point}: exit {} {}", outcome.status, outcome.stderr);
        let expected = usize::from([0, 8, 13].contains(&outcome.status));
        assert!([0, 4, 7, 8, 12, 13].contains(&outcome.status), "{context}");
        assert_eq!(made(&world, "t"), expected, "{context}");
        *exits.entry(outcome.status).or_default() += 1;
        let again = Outcome::of(&mut command(&world));
        assert!(again.status != 0 || made(&world, "t") == 1, "{context}");
        assert!(made(&world, "t") <= 1, "{context}");
    }
    println!("{} file operations around a token refresh; exits {exits:?}", points.len());
}

#[test]
fn no_file_can_grow() {
    let mut exits: BTreeMap<i32, usize> = BTreeMap::new();
    for blocks in 0..12 {
        let world = World::new();
        // A read makes the folders and files that have a fixed length.
        assert_eq!(world.run(&["crm.lead.list"]).status, 0);
        let before = world.requests().len();
        let outcome = Outcome::of(&mut with_small_files(&add(&world), blocks));
        let context = format!("{blocks} blocks: exit {} {}{}", outcome.status, outcome.stdout, outcome.stderr);
        match outcome.status {
            12 => assert_eq!(world.requests().len(), before, "{context}"),
            0 | 8 | 13 => assert_eq!(made(&world, "t"), 1, "{context}"),
            _ => panic!("{context}"),
        }
        *exits.entry(outcome.status).or_default() += 1;
        let _ = carry_through(&world, "t", || add(&world), &context);
    }
    assert!(exits.contains_key(&12) && exits.contains_key(&0), "{exits:?}");
    println!("12 limits of the length of a file: exits {exits:?}");
}

/// Replaces what stands at a path by something that is of no use.
fn replace(world: &World, path: &str, by_folder: bool) {
    let path = world.state().join(path);
    let _ = std::fs::remove_dir_all(&path);
    let _ = std::fs::remove_file(&path);
    if by_folder {
        std::fs::create_dir_all(path).unwrap();
    } else {
        std::fs::write(path, "").unwrap();
    }
}

#[test]
fn state_that_is_in_the_way_stops_a_write() {
    let host = |world: &World| world.emulator.address().to_string();
    for (path, by_folder) in [
        ("audit", false),
        ("audit/audit.jsonl", true),
        ("audit/audit.lock", true),
        ("portals/HOST/ledger", false),
        ("portals/HOST/open", false),
        ("portals/HOST/limiter.bin", true),
        ("install.key", true),
    ] {
        let world = World::new();
        assert_eq!(world.run(&["crm.lead.add", "fields[TITLE]=warm", "--confirm-write"]).status, 0);
        let before = world.requests().len();
        replace(&world, &path.replace("HOST", &host(&world)), by_folder);
        let error = Outcome::of(&mut add(&world)).error(12);
        assert_eq!((error["sent"].as_bool(), error["outcome"].as_str()), (Some(false), Some("not_sent")), "{path}: {error}");
        assert_eq!(world.requests().len(), before, "{path}");
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_stops_a_write() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root can write everywhere");
        return;
    }
    let world = World::new();
    std::fs::create_dir(world.state()).unwrap();
    std::fs::set_permissions(world.state(), std::fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(Outcome::of(&mut add(&world)).error(12)["sent"], false);
    assert!(world.requests().is_empty());
    std::fs::set_permissions(world.state(), std::fs::Permissions::from_mode(0o700)).unwrap();
}
