//! What a profile says holds, although who runs b24 would like it otherwise:
//! by other homes, folders, profiles and copies of files (H3, H4, H5).

use crate::home::can_live_elsewhere;
use crate::person::{Person, WRITE, private};
use crate::world::{Outcome, World};
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::process::Command;

/// Variables that lead to another state folder.
fn other_states(person: &Person) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let away = person.world.home.path().join("away").display().to_string();
    let config = person.config().display().to_string();
    vec![
        ("XDG_STATE_HOME", vec![("XDG_STATE_HOME", away.clone())]),
        ("HOME with B24_CONFIG", vec![("HOME", away.clone()), ("B24_CONFIG", config.clone())]),
        (
            "HOME with XDG_CONFIG_HOME",
            vec![("HOME", away.clone()), ("XDG_CONFIG_HOME", person.home().join(".config").display().to_string())],
        ),
        ("both", vec![("HOME", away.clone()), ("XDG_STATE_HOME", away), ("B24_CONFIG", config)]),
    ]
}

#[test]
fn an_unknown_write_stays_unknown_whatever_home_is_named() {
    if !can_live_elsewhere() {
        return;
    }
    for lock in ["state-dir", "no-idempotency", "idempotency-file", "rate-limiter", "audit-file", "plan-file", "state-file"] {
        let person = Person::new(&format!("locked = ['{lock}']"), "");
        person.world.fault("crm.lead.add:execute-then-drop:times=1");
        assert_eq!(person.run(&person.command(&WRITE)).error(8)["kind"], "outcome_unknown");
        for (name, variables) in other_states(&person) {
            let mut command = person.command(&WRITE);
            command.envs(variables).args(["--idempotency-key", "other"]);
            assert_eq!(person.run(&command).error(8)["sent"], false, "{lock}, {name}");
        }
        assert_eq!(person.world.changes().len(), 1, "{lock}");
        assert!(person.home().join(".local/state/b24/audit/audit.jsonl").exists(), "{lock}");
        person.refuses(lock, 3, person.command(&WRITE).env("B24_STATE_DIR", person.world.state()));
    }
}

#[test]
fn without_the_lock_another_state_folder_is_named_in_the_audit() {
    if !can_live_elsewhere() {
        return;
    }
    let person = Person::new("", "");
    let audited = |folder: &std::path::Path| {
        let text = std::fs::read_to_string(folder.join("audit/audit.jsonl")).unwrap();
        serde_json::from_str::<Value>(text.lines().last().unwrap()).unwrap()["b"]["loosened"].clone()
    };
    let _ = person.run(&person.command(&["crm.lead.list"])).body(0);
    assert_eq!(audited(&person.home().join(".local/state/b24")), Value::Null);
    let away = person.world.home.path().join("away");
    let _ = person.run(person.command(&["crm.lead.list"]).env("XDG_STATE_HOME", &away)).body(0);
    assert_eq!(audited(&away.join("b24")), serde_json::json!(["state-dir"]));
}

#[test]
fn a_limit_that_is_locked_is_one_limit() {
    if !can_live_elsewhere() {
        return;
    }
    let person = Person::new("locked = ['rate-limiter']\nrate = 0.001\nburst = 1", "");
    // Loopback is limited only when the profile says so, as it does.
    let _ = person.run(&person.command(&["crm.lead.list"])).body(0);
    for (name, variables) in other_states(&person) {
        let mut command = person.command(&["crm.lead.list", "--max-wait", "0"]);
        assert_eq!(person.run(command.envs(variables)).status, 7, "{name}");
    }
    assert_eq!(person.world.requests().len(), 1);
    person.refuses("reset", 3, &person.command(&["limits", "reset", "--confirm-write"]));
}

#[test]
fn a_state_folder_of_the_profile_is_used() {
    let person = Person::new("", "");
    let place = person.world.home.path().join("kept");
    person.write_profile(&person.config(), "ag", &format!("locked = ['state-dir']\nstate-dir = '{}'", place.display()));
    let away = person.world.home.path().join("away");
    assert_eq!(Outcome::of(person.command(&WRITE).env("XDG_STATE_HOME", &away)).body(0)["result"], 1);
    assert!(place.join("audit/audit.jsonl").exists() && !away.exists());
    // The place that is locked may be named; another may not.
    assert_eq!(Outcome::of(person.command(&["crm.lead.list"]).env("B24_STATE_DIR", &place)).status, 0);
    assert_eq!(Outcome::of(person.command(&["crm.lead.list"]).env("B24_STATE_DIR", &away)).error(3)["kind"], "policy_denied");
}

/// What a source is called, and how a command gets it.
type Source<'a> = (&'static str, Box<dyn Fn(&mut Command) + 'a>);

/// Where the agent takes the credential from.
fn credentials(person: &Person) -> Vec<Source<'_>> {
    let file = person.world.home.path().join("code");
    private(&file, &person.code());
    let url_file = person.world.home.path().join("url");
    private(&url_file, &person.world.webhook(1));
    let parts = |command: &mut Command| {
        command.env("B24_DOMAIN", person.world.emulator.origin()).env("B24_WEBHOOK_USER_ID", "1");
    };
    vec![
        ("variable", Box::new(|command: &mut Command| _ = command.env("B24_WEBHOOK_URL", person.world.webhook(1)))),
        (
            "parts",
            Box::new(move |command: &mut Command| {
                parts(command);
                command.env("B24_WEBHOOK_CODE", person.code());
            }),
        ),
        (
            "code in a file",
            Box::new(move |command: &mut Command| {
                parts(command);
                command.env("B24_WEBHOOK_CODE_FILE", &file);
            }),
        ),
        ("address in a file", Box::new(move |command: &mut Command| _ = command.env("B24_WEBHOOK_URL_FILE", &url_file))),
    ]
}

/// What the person's profile says, the method that it forbids, and the exit.
const HOLDS: &[(&str, &[&str], i32)] = &[
    ("read-only = true", &WRITE, 3),
    ("require-plan = true", &WRITE, 10),
    ("packs = ['content']", &["crm.lead.list"], 3),
    ("packs = []\nallow = ['crm.lead.add']", &["crm.lead.list"], 3),
    ("locked = ['allow-unlisted']", &["disk.file.get", "id=1", "--allow-unlisted"], 3),
    ("locked = ['config']", &["crm.lead.list"], 3),
];

#[test]
fn another_folder_with_a_profile_of_the_same_name_undoes_nothing() {
    if !can_live_elsewhere() {
        return;
    }
    let mut count = 0;
    for (lines, args, status) in HOLDS {
        let person = Person::new(lines, "");
        // The agent's folder: as loose as can be, under two names.
        let mine = person.mine();
        person.write_profile(&mine, "ag", "packs = ['core', 'content', 'all']\n[packs.all]\nmethods = ['*']");
        let text = std::fs::read_to_string(mine.join("config.toml")).unwrap();
        std::fs::write(
            mine.join("config.toml"),
            format!("{text}{}", text.replace("profiles.ag", "profiles.free").split("[packs").next().unwrap()),
        )
        .unwrap();
        for (way, lead) in person.ways_to(&mine) {
            for (source, give) in credentials(&person) {
                for profile in ["ag", "free", ""] {
                    let mut command = person.command(args);
                    lead(&mut command);
                    give(&mut command);
                    if profile.is_empty() {
                        command.env_remove("B24_PROFILE")
                    } else {
                        command.env("B24_PROFILE", profile)
                    };
                    person.refuses(&format!("{lines}: {way}, {source}, {profile}"), *status, &command);
                    count += 1;
                }
            }
        }
        // The same by the file of credentials: linked in both ways, and copied.
        let file = person.config().join("credentials.toml");
        for by in ["symlink", "hard link", "copy"] {
            let _ = std::fs::remove_file(mine.join("credentials.toml"));
            match by {
                "symlink" => symlink(&file, mine.join("credentials.toml")).unwrap(),
                "hard link" => std::fs::hard_link(&file, mine.join("credentials.toml")).unwrap(),
                _ => drop(std::fs::copy(&file, mine.join("credentials.toml")).unwrap()),
            }
            for (way, lead) in person.ways_to(&mine) {
                let mut command = person.command(args);
                lead(&mut command);
                person.refuses(&format!("{lines}: {way}, {by}"), *status, &command);
                count += 1;
            }
        }
    }
    println!("{count} ways to another configuration");
}

#[test]
fn without_a_profile_the_configuration_governs_the_environments_credential() {
    if !can_live_elsewhere() {
        return;
    }
    for (lines, args, status) in HOLDS.iter().filter(|(lines, ..)| !lines.contains("config")) {
        let person = Person::new(lines, "");
        for (source, give) in credentials(&person) {
            let mut command = person.command(args);
            give(&mut command);
            command.env_remove("B24_PROFILE");
            person.refuses(&format!("{lines}: no profile, {source}"), *status, &command);
        }
    }
    // Another portal's profile says nothing about this one.
    let person = Person::new("", "");
    std::fs::write(person.config().join("config.toml"), "[profiles.other]\nportal = 'acme.example'\nread-only = true\n").unwrap();
    let mut command = person.command(&WRITE);
    command.env_remove("B24_PROFILE").env("B24_WEBHOOK_URL", person.world.webhook(1));
    assert_eq!(person.run(&command).body(0)["result"], 1);
}

#[test]
fn a_secret_of_the_configuration_goes_to_its_portal_only() {
    if !can_live_elsewhere() {
        return;
    }
    let person = Person::new("", "");
    let evil = World::new();
    let mine = person.mine();
    std::fs::create_dir_all(&mine).unwrap();
    std::fs::write(mine.join("config.toml"), format!("[profiles.ag]\nportal = '{}'\nuser = 1\n", evil.emulator.origin())).unwrap();
    symlink(person.config().join("credentials.toml"), mine.join("credentials.toml")).unwrap();
    person.refuses("linked credentials, another portal", 4, person.command(&["crm.lead.list"]).arg("--config").arg(&mine));
    let mut command = person.command(&["crm.lead.list"]);
    command.env_remove("B24_PROFILE").env("B24_DOMAIN", evil.emulator.origin());
    command.env("B24_WEBHOOK_USER_ID", "1").env("B24_WEBHOOK_CODE", person.code());
    person.refuses("the same by variables", 4, &command);
    assert!(evil.requests().is_empty());
}

#[test]
fn a_row_of_credentials_carries_its_rules_into_every_copy() {
    let rows: &[(&str, &[&str], i32)] = &[
        ("read-only = true", &WRITE, 3),
        ("require-plan = true", &WRITE, 10),
        ("packs = ['content']", &["crm.lead.list"], 3),
        ("packs = ['content']", &["crm.lead.list", "--packs", "core"], 3),
        ("allow = ['crm.lead.add']", &["crm.lead.list"], 3),
        ("locked = ['no-mask-secrets']", &["crm.lead.list", "--no-mask-secrets"], 3),
        ("profiles = ['other']", &["crm.lead.list"], 3),
        ("portal = 'acme.example'", &["crm.lead.list"], 4),
    ];
    for (lines, args, status) in rows {
        let person = Person::new("", lines);
        let mine = person.mine();
        person.write_profile(&mine, "ag", "packs = ['core', 'content']");
        for by in ["copy", "link"] {
            let _ = std::fs::remove_file(mine.join("credentials.toml"));
            match by {
                "copy" => drop(std::fs::copy(person.config().join("credentials.toml"), mine.join("credentials.toml")).unwrap()),
                _ => symlink(person.config().join("credentials.toml"), mine.join("credentials.toml")).unwrap(),
            }
            let mut command = person.command(args);
            let outcome = Outcome::of(command.arg("--config").arg(&mine).env("B24_STATE_DIR", person.world.state()));
            outcome.refused(&person.world, &format!("{lines}, {by}"), *status).unwrap();
        }
        // Taken out of the file, the secret is still known by it.
        let mut command = person.command(args);
        command.env("B24_WEBHOOK_URL", person.world.webhook(1)).env("B24_STATE_DIR", person.world.state());
        Outcome::of(&mut command).refused(&person.world, &format!("{lines}, variable"), *status).unwrap();
    }
    let person = Person::new("", "profiles = ['ag']\nread-only = true");
    let outcome = Outcome::of(person.command(&["crm.lead.list"]).env("B24_STATE_DIR", person.world.state()));
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
}

#[test]
fn a_configuration_at_home_that_cannot_be_read_is_not_passed_over() {
    if !can_live_elsewhere() {
        return;
    }
    let person = Person::new("read-only = true", "");
    std::fs::write(person.config().join("config.toml"), "[profiles.ag\n").unwrap();
    person.write_profile(&person.mine(), "ag", "");
    let mut command = person.command(&WRITE);
    command.env("B24_WEBHOOK_URL", person.world.webhook(1)).arg("--config").arg(person.mine());
    person.refuses("a damaged configuration at home", 12, &command);
}

#[test]
fn the_ledger_forgets_by_consent_and_never_when_locked() {
    let world = World::new();
    let write = ["crm.lead.add", "fields[TITLE]=x", "--confirm-write", "--idempotency-key", "k"];
    assert_eq!(world.run(&write).body(0)["result"], 1);
    let refused = world.run(&["ledger", "forget", "k"]).error(10);
    assert_eq!(refused["gate"]["option"], "--confirm-destructive");
    assert!(!refused["hint"].as_str().unwrap().contains("--"), "{refused}");
    assert_eq!(world.run(&["ledger", "forget", "k", "--confirm-write"]).status, 2);
    assert_eq!(world.run(&write).body(0)["_b24"]["replayed"], true);
    let _ = world.run(&["ledger", "forget", "k", "--confirm-destructive"]).body(0);
    let record = world.audit().into_iter().find(|record| record["type"] == "forget").unwrap();
    assert!(record["loosened"].as_array().unwrap().contains(&Value::from("no-idempotency")), "{record}");

    let person = Person::new(&format!("state-dir = '{}'\nlocked = ['no-idempotency', 'rate-limiter']", world.state().display()), "");
    let _ = Outcome::of(&mut person.command(&write)).body(0);
    for command in [&["ledger", "forget", "k", "--confirm-destructive"][..], &["limits", "reset", "--confirm-write"]] {
        assert_eq!(Outcome::of(&mut person.command(command)).error(3)["kind"], "policy_denied");
    }
    assert_eq!(Outcome::of(&mut person.command(&write)).body(0)["_b24"]["replayed"], true);
    assert_eq!(person.world.changes().len(), 1);
}

#[test]
fn what_changes_our_state_is_in_the_audit() {
    let world = World::new();
    assert_eq!(world.run(&["limits", "reset"]).error(10)["gate"]["option"], "--confirm-write");
    let _ = world.run(&["limits", "reset", "--confirm-write"]).body(0);
    let plan = world.run(&["crm.lead.add", "fields[TITLE]=x", "--plan-only"]).body(0);
    let _ = world.run(&["plan", "cancel", plan["plan"]["plan_id"].as_str().unwrap()]).body(0);
    let _ = world.run(&["plan", "prune"]).body(0);
    let types: Vec<String> = world.audit().iter().map(|record| record["type"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(types, ["limits-reset", "plan-cancelled", "plans-pruned"]);
    let reset = &world.audit()[0];
    assert!(reset["loosened"].as_array().unwrap().contains(&Value::from("rate-limiter")), "{reset}");
    // What cannot be audited is not done.
    let log = world.state().join("audit/audit.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    for args in [&["limits", "reset", "--confirm-write"][..], &["ledger", "forget", "k", "--confirm-destructive"], &["plan", "prune"]] {
        assert_eq!(world.run(args).status, 12, "{args:?}");
    }
}

#[test]
fn locked_packs_hold_for_the_comparison_of_the_catalog() {
    let person = Person::new("", "");
    let lines = format!("state-dir = '{}'\npacks = ['content']\nlocked = ['packs']", person.world.state().display());
    person.write_profile(&person.config(), "ag", &lines);
    let outcome = Outcome::of(&mut person.command(&["catalog", "diff"]));
    outcome.refused(&person.world, "catalog diff", 3).unwrap();
}

#[test]
fn what_is_not_held_is_told_for_the_profile_at_hand() {
    if !can_live_elsewhere() {
        return;
    }
    let told = |person: &Person, command: &Command| {
        let body = person.run(command).body(0);
        assert!(person.world.requests().is_empty());
        let names = |key: &str, part: &str| {
            let rows = body[key].as_array().unwrap().iter();
            rows.map(|row| row[part].as_str().unwrap().to_owned()).collect::<Vec<String>>()
        };
        (names("locked", "guard"), names("not_held", "what"))
    };
    let loose = Person::new("", "");
    let (locked, not_held) = told(&loose, &loose.command(&["policy", "check", "crm.lead.add"]));
    assert!(locked.is_empty());
    assert_eq!(not_held, ["credential", "machine", "profile", "other-profile", "unlocked", "state", "state-files", "audit", "person"]);
    let all: Vec<String> = b24::store::guard::Guard::ALL.iter().map(|guard| format!("'{guard}'")).collect();
    let tight = Person::new(&format!("locked = [{}]", all.join(",")), "profiles = ['ag']");
    let (locked, not_held) = told(&tight, &tight.command(&["policy", "check", "crm.lead.add"]));
    assert_eq!(locked.len(), all.len());
    assert_eq!(not_held, ["credential", "machine", "profile", "state-files", "audit", "person"]);
    // No credential, no portal: what there is to lose is less.
    let mut nothing = loose.command(&["policy", "check", "crm.lead.add"]);
    nothing.env("B24_PROFILE", "emulator");
    assert!(!told(&loose, &nothing).1.contains(&"credential".to_owned()));
}
