//! Tricks by profile, environment and files around the call.

use crate::world::{Outcome, World};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const WRITE: [&str; 3] = ["crm.lead.add", "fields[TITLE]=x", "--confirm-write"];

/// A portal, and a profile `acme` of it with further lines.
fn world(lines: &str) -> World {
    let world = World::new();
    let host = world.emulator.origin();
    write_config(
        &world,
        "config.toml",
        &format!("[profiles.acme]\nportal = '{host}'\nuser = 1\nstate-dir = '{}'\n{lines}\n", world.state().display()),
        0o600,
    );
    let code = world.emulator.access().admin().code.expose().to_owned();
    write_config(&world, "credentials.toml", &format!("[acme]\nwebhook_code = '{code}'\n"), 0o600);
    world
}

fn write_config(world: &World, name: &str, text: &str, mode: u32) {
    let folder = world.home.path().join(".config/b24");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
    std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
}

/// The binary with the profile and nothing of the environment's portal or pace.
fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(args);
    for name in ["B24_WEBHOOK_URL", "B24_RATE_LIMITER_RATE", "B24_RATE_LIMITER_BURST", "B24_STATE_DIR"] {
        command.env_remove(name);
    }
    command.env("B24_PROFILE", "acme");
    command
}

#[track_caller]
fn expect(world: &World, name: &str, status: i32, command: &mut Command) {
    Outcome::of(command).refused(world, name, status).unwrap_or_else(|problem| panic!("{problem}"));
}

#[test]
fn the_profile_itself_works() {
    let world = world("");
    assert_eq!(Outcome::of(&mut command(&world, &WRITE)).body(0)["result"], 1);
}

#[test]
fn a_profile_that_only_reads_cannot_be_talked_into_writing() {
    let world = world("read-only = true");
    for extra in [&["--confirm-destructive"][..], &["--allow-unlisted"], &["--plan-only"], &["--again"], &["--idempotency-key", "k"]] {
        expect(&world, "read-only profile", 3, command(&world, &WRITE).args(extra));
    }
    expect(&world, "read-only profile, variable says no", 3, command(&world, &WRITE).env("B24_READ_ONLY", "0"));
    let batch = r#"{"cmd":["crm.lead.list","crm.lead.add?fields[TITLE]=x"]}"#;
    expect(&world, "read-only profile, batch", 3, &mut command(&world, &["batch", "--params", batch, "--confirm-write"]));
    assert_eq!(Outcome::of(&mut command(&world, &["crm.lead.list"])).status, 0);
}

#[test]
fn variables_that_guard_are_never_misread_as_off() {
    let world = World::new();
    for value in ["1", "true", "YES", " on "] {
        expect(&world, "B24_READ_ONLY", 3, world.command(&WRITE).env("B24_READ_ONLY", value));
        expect(&world, "B24_REQUIRE_PLAN", 10, world.command(&WRITE).env("B24_REQUIRE_PLAN", value));
    }
    for value in ["2", "y", "ja", "enabled", "tru"] {
        expect(&world, "B24_READ_ONLY", 2, world.command(&WRITE).env("B24_READ_ONLY", value));
        expect(&world, "B24_REQUIRE_PLAN", 2, world.command(&WRITE).env("B24_REQUIRE_PLAN", value));
    }
}

#[test]
fn a_required_plan_cannot_be_switched_off() {
    let world = world("require-plan = true");
    expect(&world, "profile", 10, &mut command(&world, &WRITE));
    expect(&world, "profile, variable says no", 10, command(&world, &WRITE).env("B24_REQUIRE_PLAN", "no"));
    expect(&world, "profile, key", 10, command(&world, &WRITE).args(["--idempotency-key", "k"]));
    expect(&world, "profile, unlisted", 10, command(&world, &WRITE).arg("--allow-unlisted"));
}

#[test]
fn a_lock_holds_against_options_and_variables() {
    let locks = "'allow-unlisted','audit-file','idempotency-file','method-allowlist','no-audit','no-idempotency','no-mask-secrets','packs','plan-file','rate-limiter','state-dir'";
    let world = world(&format!("packs = ['content']\nlocked = [{locks}]"));
    for option in [
        &["--allow-unlisted"][..],
        &["--audit-file", "a"],
        &["--idempotency-file", "i"],
        &["--method-allowlist", "crm.*"],
        &["--no-audit"],
        &["--no-idempotency"],
        &["--no-mask-secrets"],
        &["--packs", "core"],
        &["--packs="],
        &["--plan-file", "p"],
    ] {
        expect(&world, option[0], 3, command(&world, &WRITE).args(option));
    }
    for (name, value) in [
        ("B24_AUDIT_FILE", "a"),
        ("B24_AUDIT_FILE", ""),
        ("B24_IDEMPOTENCY_FILE", "i"),
        ("B24_METHOD_ALLOWLIST", "crm.*"),
        ("B24_PACKS", "core"),
        ("B24_PLAN_FILE", "p"),
        ("B24_RATE_LIMITER", "off"),
        ("B24_RATE_LIMITER_FILE", "r"),
        ("B24_RATE_LIMITER_RATE", "50"),
        ("B24_RATE_LIMITER_BURST", "250"),
        ("B24_STATE_DIR", "s"),
    ] {
        expect(&world, name, 3, command(&world, &WRITE).env(name, value));
        let file = format!("{name}={value}\n");
        write_config(&world, "env", &file, 0o600);
        expect(&world, &format!("{name} in a file"), 3, command(&world, &WRITE).args(["--env-file", ".config/b24/env"]));
    }
    expect(&world, "the packs of the profile", 3, &mut command(&world, &WRITE));
    expect(&world, "an empty variable", 3, command(&world, &WRITE).env("B24_PACKS", ""));
}

#[test]
fn a_profile_cannot_consent() {
    for line in ["confirm-write = true", "confirm_write = true", "yes = true", "allow-unlisted = true", "locked = ['confirm-write']"] {
        let world = world(line);
        expect(&world, line, 12, command(&world, &WRITE).arg("--confirm-destructive"));
    }
}

#[test]
fn a_state_folder_that_others_can_write_is_refused() {
    let world = World::new();
    let folder = world.home.path().join("shared");
    std::fs::create_dir(&folder).unwrap();
    for mode in [0o777, 0o770, 0o1777, 0o702] {
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
        for state in [folder.clone(), folder.join("below")] {
            expect(&world, &format!("{mode:o}"), 12, world.command(&WRITE).env("B24_STATE_DIR", &state));
            expect(&world, &format!("{mode:o}, read"), 12, world.command(&["crm.lead.list"]).env("B24_STATE_DIR", &state));
        }
    }
}

#[test]
fn addresses_that_lead_elsewhere_are_refused() {
    let world = World::new();
    let address = world.emulator.address();
    for url in [
        "http://acme.example/rest/1/canary1234/",
        "http://127.0.0.1.acme.example/rest/1/canary1234/",
        "ftp://127.0.0.1/rest/1/canary1234/",
        "https://127.0.0.1/1/canary1234/",
        &format!("http://user@{address}/rest/1/canary1234/"),
        &format!("http://:secret@{address}/rest/1/canary1234/"),
        &format!("http://{address}/rest/1/canary1234%2f..%2f..%2f/"),
        &format!("http://{address}/rest/one/canary1234/"),
    ] {
        expect(&world, url, 4, world.command(&WRITE).env("B24_WEBHOOK_URL", url));
    }
    for domain in ["http://acme.example", "acme.example@127.0.0.1", "file:///etc/passwd", "", "https://"] {
        let mut command = world.command(&WRITE);
        command.env_remove("B24_WEBHOOK_URL").env("B24_DOMAIN", domain);
        expect(&world, domain, 4, command.env("B24_WEBHOOK_USER_ID", "1").env("B24_WEBHOOK_CODE", "canary1234"));
    }
}

#[test]
fn files_with_secrets_that_others_can_read_are_refused() {
    let world = world("");
    let path = world.home.path().join(".config/b24/credentials.toml");
    for mode in [0o644, 0o640, 0o604, 0o660, 0o610] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        expect(&world, &format!("credentials.toml {mode:o}"), 12, &mut command(&world, &WRITE));
    }
    write_config(&world, "code", world.emulator.access().admin().code.expose(), 0o644);
    let mut by_file = command(&world, &WRITE);
    by_file.env_remove("B24_PROFILE").env("B24_DOMAIN", world.emulator.origin()).env("B24_WEBHOOK_USER_ID", "1");
    expect(&world, "B24_WEBHOOK_CODE_FILE 0644", 12, by_file.env("B24_WEBHOOK_CODE_FILE", ".config/b24/code"));
    expect(&world, "--env-file 0644", 12, command(&world, &WRITE).args(["--env-file", ".config/b24/code"]));
}

#[test]
fn two_portals_are_never_mixed() {
    let other = World::new();
    let world = world("");
    // The profile's portal with the environment's secret, and the other way round.
    expect(&world, "webhook of another portal", 4, command(&world, &WRITE).env("B24_WEBHOOK_URL", other.webhook(1)));
    let mut by_parts = command(&world, &WRITE);
    by_parts.env("B24_DOMAIN", other.emulator.origin()).env("B24_WEBHOOK_USER_ID", "1").env("B24_WEBHOOK_CODE", "canary1234");
    expect(&world, "parts of another portal", 4, &mut by_parts);
    expect(&world, "another host alone", 4, command(&world, &WRITE).env("B24_DOMAIN", other.emulator.origin()));
    assert!(other.requests().is_empty());
    expect(&world, "profile that is not there", 2, command(&world, &WRITE).env("B24_PROFILE", "acme2"));
    expect(&world, "folder without the profile", 2, command(&world, &WRITE).args(["--config", "elsewhere"]));
}

#[test]
fn the_audit_cannot_be_taken_away_from_a_write() {
    let world = World::new();
    let log = world.state().join("audit/audit.jsonl");
    assert_eq!(world.run(&["plan", "list"]).status, 0);
    std::fs::create_dir_all(&log).unwrap();
    expect(&world, "a folder in the place of the audit", 12, &mut world.command(&WRITE));
    std::fs::remove_dir(&log).unwrap();
    std::os::unix::fs::symlink(Path::new("/dev/null"), &log).unwrap();
    expect(&world, "a link to nothing in the place of the audit", 12, &mut world.command(&WRITE));
    std::fs::remove_file(&log).unwrap();
    let outcome = Outcome::of(world.command(&WRITE).env("B24_AUDIT_FILE", "").arg("--no-audit"));
    assert_eq!(outcome.body(0)["result"], 1);
    assert_eq!(world.audit().len(), 2, "a write is audited all the same");
}

/// They can be read, but not compiled.
#[test]
fn a_pattern_that_is_too_much_admits_nothing() {
    let deep = format!("crm.{}a{}", "{".repeat(400), "}".repeat(400));
    for pattern in [deep, format!("crm.{}?", "a".repeat(100_000))] {
        let own = world(&format!("packs = ['core', 'mine']\n[packs.mine]\nmethods = ['{pattern}']"));
        expect(&own, "pattern of a pack", 2, &mut command(&own, &WRITE));
        let plain = world("");
        expect(&plain, "pattern of a variable", 2, command(&plain, &WRITE).env("B24_METHOD_ALLOWLIST", &pattern));
        let fault = format!("{pattern}:drop-before-executing");
        expect(&plain, "pattern of a fault", 2, &mut plain.command(&["emulator", "serve", "--fault", &fault]));
    }
}
