//! Every command of the README runs, and prints what the README says.
//!
//! In a `console` block a line with `$` is a command, `[exit N]` the status it
//! must have (0 if nothing is said), and any other line what standard output
//! must have; `…` stands for anything. All blocks run in one home, in order.

use crate::world::World;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const README: &str = include_str!("../../README.md");

struct Step {
    command: String,
    status: i32,
    output: Vec<String>,
}

fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in README.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), status: 0, output: Vec::new() });
            } else if let Some(status) = line.strip_prefix("[exit ") {
                steps.last_mut().unwrap().status = status.trim_end_matches(']').parse().unwrap();
            } else {
                steps.last_mut().unwrap().output.push(line.to_owned());
            }
        }
    }
    steps
}

/// Puts the programs of the README into a folder: blocks that begin with `#!`,
/// whose next line says `# NAME: …`.
fn write_programs(folder: &Path) {
    for block in README.split("\n```").filter_map(|block| block.split_once('\n').map(|(_, text)| text)) {
        if block.starts_with("#!") {
            let name = block.lines().nth(1).unwrap().trim_start_matches("# ").split(':').next().unwrap();
            std::fs::write(folder.join(name), format!("{block}\n")).unwrap();
            std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// Whether a command can run here: the one other language of the README may
/// not be installed.
fn can_run(command: &str) -> bool {
    let has_python = || Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    let can = !command.contains(".py") || has_python();
    if !can {
        println!("skipped, there is no python3: {command}");
    }
    can
}

/// Whether the pieces of a pattern stand in the text in order, the first at
/// its beginning and the last at its end.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('…').peekable();
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(index) => rest = &rest[index + piece.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[test]
fn every_console_block_runs() {
    let world = World::new();
    let binary = Path::new(env!("CARGO_BIN_EXE_b24"));
    let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
    let steps = steps();
    write_programs(world.home.path());
    assert!(steps.len() > 20);
    for step in steps {
        if step.command == "cargo test" || !can_run(&step.command) {
            continue;
        }
        let command = step.command.replace("cargo run --release --", "b24");
        let output = Command::new("sh")
            .args(["-c", &command])
            .env_clear()
            .env("PATH", &path)
            .env("HOME", world.home.path())
            .current_dir(world.home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(step.status), "{command}\n{stdout}{stderr}");
        if !step.output.is_empty() {
            assert!(matches(&step.output.join("\n"), stdout.trim_end()), "{command}\nprinted\n{stdout}\nnot\n{}", step.output.join("\n"));
        }
    }
}

/// Commands in `sh` blocks need a portal of their own; here they get one.
#[test]
fn the_blocks_with_a_portal_of_their_own_run() {
    let world = World::new();
    let _ = world.run(&["user.current"]).body(0);
    assert!(README.contains("b24 user.current"));
    world.fault("crm.lead.add:execute-then-drop:times=1");
    let rule = "crm.lead.add:execute-then-drop:times=1";
    assert!(README.contains(&format!("b24 emulator serve --data /tmp/portal --fault {rule}")));
    let mut command = world.command(&["crm.lead.add", "fields[TITLE]=Lost", "--confirm-write"]);
    command.env_remove("B24_WEBHOOK_URL").env("B24_WEBHOOK_URL_FILE", world.home.path().join("portal/webhook-url"));
    assert_eq!(crate::world::Outcome::of(&mut command).error(8)["kind"], "outcome_unknown");
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn the_table_of_exit_codes_is_the_programs() {
    let world = World::new();
    let help = world.run(&["help", "exit-codes"]).stdout;
    let table = help.split("\n\n").next().unwrap();
    assert!(README.contains(table), "README.md has not this table:\n{table}");
}

#[test]
fn what_is_not_held_is_said_in_the_programs_words() {
    let words = README.split_whitespace().collect::<Vec<_>>().join(" ");
    for limit in b24::settings::limits::Limit::ALL {
        assert!(words.contains(limit.text()), "README.md does not say: {}", limit.text());
    }
}
