//! The durable points of what must survive: which change of which file stands
//! before and behind which sync, the request, the answer and the output. A sync
//! that is left out, or comes too late, shows here, and so does one more.
//!
//! `INSTA_UPDATE=always` writes the traces anew; look at the difference.

use crate::traced::{Op, Trace, story};
use crate::world::{Outcome, World};
use std::process::Command;

const POINTS: &[&str] =
    &["transport.before_send", "transport.after_answer", "refresh.before_send", "refresh.after_answer", "output.before_print"];

/// A portal that is known here, so that only what the call itself does is
/// traced. Reads leave no ledger.
fn known() -> World {
    let world = World::new();
    let _ = world.run(&["crm.lead.list"]).body(0);
    world
}

/// Somebody else adds a lead: it is on the portal, and nothing of it here.
fn add_elsewhere(world: &World) {
    let mut command = world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write"]);
    let _ = Outcome::of(command.env("B24_STATE_DIR", world.home.path().join("elsewhere"))).body(0);
}

#[track_caller]
fn done(world: &World, command: Command) -> Trace {
    let (outcome, trace) = Trace::of(world, command);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    trace
}

/// Compares a trace with the one that is kept in `snapshots/`.
#[track_caller]
fn compare(name: &str, trace: &Trace) {
    let text = format!("{}\n{} syncs", story(trace, POINTS), trace.syncs());
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("durable_points_of_{}", name.replace(' ', "_")), text));
}

#[test]
fn the_durable_points_of_a_first_run() {
    let world = World::new();
    let trace = done(&world, world.command(&["crm.lead.list"]));
    compare("first run", &trace);
}

#[test]
fn the_durable_points_of_a_write() {
    let world = known();
    let trace = done(&world, world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "k"]));
    compare("write", &trace);
}

#[test]
fn the_durable_points_of_a_write_without_a_key() {
    let world = known();
    let trace = done(&world, world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write"]));
    compare("write without a key", &trace);
}

#[test]
fn the_durable_points_of_a_plan_and_of_the_destructive_call_that_it_holds() {
    let world = known();
    add_elsewhere(&world);
    let plan = done(&world, world.command(&["crm.lead.delete", "id=1", "--plan-only"]));
    let id = crate::kept::plan_files(&world).pop().unwrap();
    let executed = done(&world, world.command(&["--execute-plan", &id, "--confirm-destructive"]));
    compare("plan made", &plan);
    compare("plan executed", &executed);
}

#[test]
fn the_durable_points_of_a_batch() {
    let shards = |trace: &Trace| trace.ops.iter().filter(|op| matches!(op, Op::Mkdir { path } if path.contains("/ledger/"))).count();
    // Once in 256 times both records are in one folder.
    let trace = loop {
        let world = known();
        let params = r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=a","b":"crm.lead.delete?id=7"}}"#;
        let (_, trace) =
            Trace::of(&world, world.command(&["batch", "--params", params, "--confirm-destructive", "--idempotency-key", "k"]));
        if shards(&trace) == 2 {
            break trace;
        }
    };
    compare("batch", &trace);
}

#[test]
fn the_durable_points_of_a_token_refresh() {
    let world = World::with_expired_token();
    let trace = done(&world, world.oauth_command(&["user.current"]));
    compare("token refresh", &trace);
}

/// Runs a command under strace; what the kernel was asked to do to the state
/// folder, and to a socket, in the order in which it was asked. Nothing when
/// there is no strace here, or it may not look.
fn judged(world: &World, command: &Command) -> Option<Vec<String>> {
    let log = world.home.path().join("strace");
    let calls = "trace=pwrite64,write,ftruncate,fsync,fdatasync,sync_file_range,link,linkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,sendto,sendmsg,writev";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-yy", "-s", "0", "-e", calls, "-o"]).arg(&log).arg(command.get_program()).args(command.get_args()).env_clear();
    strace
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("B24_DISK_TRACE", world.home.path().join("disk-trace"));
    let output = strace.current_dir(world.home.path()).output().ok()?;
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    if text.is_empty() {
        println!("skipped: strace may not look at processes: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("unfinished"), "one thread works on files: {text}");
    let mut seen: Vec<String> = Vec::new();
    for call in text.lines().filter_map(|line| system_call(line, world.home.path().to_str().unwrap())) {
        // One request is sent in pieces.
        if call != "send" || seen.last().is_none_or(|last| last != "send") {
            seen.push(call);
        }
    }
    Some(seen)
}

/// Returns what a line of strace says about the state folder or a socket.
fn system_call(line: &str, home: &str) -> Option<String> {
    let (_, line) = line.split_once(' ')?;
    let (name, rest) = line.trim_start().split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") ")?;
    if result.trim_start().trim_start_matches('=').trim_start().starts_with('-') {
        return None;
    }
    // Of an open file its path, of names those in quotes.
    let described = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned());
    let quoted: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
    let is_ours = |path: &str| path.starts_with(&format!("{home}/state")) || path == home;
    match name {
        "sendto" | "sendmsg" | "writev" | "write" if arguments.contains("<TCP") => Some("send".to_owned()),
        "sendto" | "sendmsg" | "writev" => None,
        "pwrite64" | "write" | "ftruncate" | "fsync" | "fdatasync" | "sync_file_range" => {
            let path = described.filter(|path| is_ours(path))?;
            Some(format!("{name} {}", path.replace(" (deleted)", "")))
        }
        "rename" | "renameat" | "renameat2" => is_ours(quoted[0]).then(|| format!("rename {} {}", quoted[0], quoted[1])),
        "link" | "linkat" => is_ours(quoted[1]).then(|| format!("link {}", quoted[1])),
        "unlink" | "unlinkat" | "rmdir" => is_ours(quoted[0]).then(|| format!("unlink {}", quoted[0])),
        "mkdir" | "mkdirat" => is_ours(quoted[0]).then(|| format!("mkdir {}", quoted[0])),
        other => Some(other.to_owned()),
    }
}

/// What the recorder wrote down, in the same words. An open file is called by
/// the name under which it was opened.
fn system_calls(trace: &Trace, home: &str) -> Vec<String> {
    let mut opened: Vec<(u64, String)> = trace.files.iter().map(|kept| (kept.file, kept.path.clone())).collect();
    let full = |path: &str| format!("{home}/{path}").trim_end_matches('/').to_owned();
    let mut calls = Vec::new();
    for op in &trace.ops {
        let path_of = |file: &u64| opened.iter().rfind(|(other, _)| other == file).map_or_else(String::new, |(_, path)| full(path));
        calls.push(match op {
            Op::Create { path, file } => {
                opened.push((*file, path.clone()));
                continue;
            }
            Op::Write { file, .. } => format!("pwrite64 {}", path_of(file)),
            Op::Cut { file, .. } => format!("ftruncate {}", path_of(file)),
            Op::SyncData { file } => format!("fdatasync {}", path_of(file)),
            Op::SyncAll { file } => format!("fsync {}", path_of(file)),
            Op::SyncFolder { path } => format!("fsync {}", full(path)),
            Op::Link { path, .. } => format!("link {}", full(path)),
            Op::Rename { from, path, .. } => format!("rename {} {}", full(from), full(path)),
            Op::Remove { path } => format!("unlink {}", full(path)),
            Op::Mkdir { path } => format!("mkdir {}", full(path)),
            Op::Point { name, .. } if name.ends_with(".before_send") => "send".to_owned(),
            Op::Point { .. } => continue,
        });
    }
    calls
}

type Call<'a> = &'a dyn Fn(&World) -> Command;

/// The recorder is b24's own: what it says is compared with what the kernel
/// was really asked for.
#[test]
fn the_kernel_is_asked_for_what_the_trace_says() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: no strace here");
        return;
    }
    let plan = |world: &World| crate::kept::plan(world, &["crm.lead.delete", "id=1"]);
    let batch = r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=a","b":"crm.lead.add?fields[TITLE]=b"}}"#;
    let calls: &[(&str, Call)] = &[
        ("write", &|world| world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "k"])),
        ("plan", &|world| world.command(&["crm.lead.add", "fields[TITLE]=t", "--plan-only"])),
        ("plan executed", &|world| world.command(&["--execute-plan", &plan(world), "--confirm-destructive"])),
        ("batch", &|world| world.command(&["batch", "--params", batch, "--confirm-write", "--idempotency-key", "k"])),
        ("refresh", &|world| world.oauth_command(&["crm.lead.list"])),
    ];
    let mut counts = Vec::new();
    for (name, command) in calls {
        let world = if *name == "refresh" { World::with_expired_token() } else { known() };
        if *name == "plan executed" {
            add_elsewhere(&world);
        }
        let command = command(&world);
        let mut trace = Trace::begin(&world);
        let Some(judged) = judged(&world, &command) else { return };
        trace.read(&world, "disk-trace");
        let told = system_calls(&trace, world.home.path().to_str().unwrap());
        assert_eq!(judged, told, "{name}");
        let syncs = judged.iter().filter(|call| call.starts_with("fsync ") || call.starts_with("fdatasync ")).count();
        assert_eq!(syncs, trace.syncs(), "{name}");
        counts.push(format!("{name}: {syncs} syncs, {} calls", judged.len()));
    }
    println!("{}", counts.join("; "));
}
