//! Tricks with saved plans: none sends anything, none uses the plan up.

use crate::plans::{saved, saved_id};
use crate::world::{Outcome, World};
use b24::env::Env;
use b24::host::{Clock, Host, SystemClock};
use b24::json::{canonical, sha256_hex};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

const CONSENT: [&str; 2] = ["--confirm-write", "--confirm-destructive"];

fn path(world: &World, id: &str) -> PathBuf {
    world.state().join(format!("plans/{id}.json"))
}

#[track_caller]
fn refused(world: &World, trick: &str, status: i32, args: &[&str]) {
    world.run(args).refused(world, trick, status).unwrap_or_else(|problem| panic!("{problem}"));
}

#[track_caller]
fn executes_once(world: &World, id: &str) {
    let before = world.requests().len();
    let outcome = world.run(&["--execute-plan", id, "--confirm-write"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert_eq!(world.requests().len(), before + 1);
}

/// Returns other values of the same type and of another one.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::String(text) => vec![json!(format!("{text}x")), json!(""), json!(null), json!(1)],
        Value::Array(_) | Value::Object(_) | Value::Null => vec![json!([]), json!({}), json!("x"), json!({"method": "crm.lead.delete"})],
        Value::Bool(_) | Value::Number(_) => vec![json!(0)],
    }
}

/// Returns every way to change, remove or add one field of a plan.
fn edits(plan: &Value) -> Vec<(String, Value)> {
    let mut edited = Vec::new();
    for (field, value) in plan.as_object().unwrap() {
        for other in others(value).into_iter().filter(|other| other != value) {
            let mut changed = plan.clone();
            changed[field] = other;
            edited.push((field.clone(), changed));
        }
        let mut without = plan.clone();
        without.as_object_mut().unwrap().shift_remove(field);
        edited.push((format!("without {field}"), without));
    }
    for (field, value) in
        [("method", json!("crm.lead.delete")), ("api", json!("v3")), ("risk", json!("read")), ("params", json!({"id": 7}))]
    {
        let mut changed = plan.clone();
        changed["steps"][0][field] = value;
        edited.push((format!("step's {field}"), changed));
    }
    let mut more = plan.clone();
    let step = more["steps"][0].clone();
    more["steps"].as_array_mut().unwrap().push(step);
    edited.push(("a second step".to_owned(), more));
    let mut extra = plan.clone();
    extra["approved"] = json!(true);
    edited.push(("extra field".to_owned(), extra));
    edited
}

#[test]
fn no_field_of_the_file_can_be_edited() {
    let world = World::new();
    let plan = saved(&world, &["crm.lead.add", "fields[TITLE]=Plan"]);
    let id = plan["plan_id"].as_str().unwrap();
    let genuine = std::fs::read(path(&world, id)).unwrap();
    for (name, mut edited) in edits(&plan) {
        std::fs::write(path(&world, id), edited.to_string()).unwrap();
        refused(&world, &name, 9, &[&["--execute-plan", id][..], &CONSENT].concat());
        // With a digest that fits, but without the key of the seal.
        if let Some(fields) = edited.as_object_mut().filter(|fields| fields.contains_key("digest") && fields.contains_key("seal")) {
            let (seal, _) = (fields.shift_remove("seal").unwrap(), fields.shift_remove("digest"));
            let digest = sha256_hex(canonical(&Value::Object(fields.clone())));
            fields.insert("digest".to_owned(), json!(digest));
            fields.insert("seal".to_owned(), seal);
            std::fs::write(path(&world, id), edited.to_string()).unwrap();
            // A plan without its unknown extras may be the genuine one again.
            if name != "digest" {
                refused(&world, &format!("{name}, with a fitting digest"), 9, &[&["--execute-plan", id][..], &CONSENT].concat());
            }
        }
    }
    for text in ["", "{}", "[]", "null", "\u{0}", "{\"plan_id\":1"] {
        std::fs::write(path(&world, id), text).unwrap();
        refused(&world, text, 9, &[&["--execute-plan", id][..], &CONSENT].concat());
    }
    let text = String::from_utf8(genuine.clone()).unwrap();
    std::fs::write(path(&world, id), text.replacen('{', "{\"schema\":\"b24.plan/1\",", 1)).unwrap();
    refused(&world, "a key twice", 9, &[&["--execute-plan", id][..], &CONSENT].concat());
    std::fs::write(path(&world, id), genuine).unwrap();
    executes_once(&world, id);
}

#[test]
fn a_file_is_good_in_its_place_only() {
    let world = World::new();
    let (id, other) = (saved_id(&world), saved_id(&world));
    std::fs::copy(path(&world, &id), path(&world, &other)).unwrap();
    refused(&world, "copied under another id", 9, &["--execute-plan", &other, "--confirm-write"]);
    let free = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    std::fs::copy(path(&world, &id), path(&world, free)).unwrap();
    refused(&world, "copied under a free id", 9, &["--execute-plan", free, "--confirm-write"]);
    std::fs::remove_file(path(&world, free)).unwrap();
    std::os::unix::fs::symlink(path(&world, &id), path(&world, free)).unwrap();
    refused(&world, "link to another plan", 12, &["--execute-plan", free, "--confirm-write"]);
    let aside = world.home.path().join("aside.json");
    std::fs::rename(path(&world, &id), &aside).unwrap();
    std::os::unix::fs::symlink(&aside, path(&world, &id)).unwrap();
    refused(&world, "link to the plan itself", 12, &["--execute-plan", &id, "--confirm-write"]);
    refused(&world, "another folder", 9, &["--execute-plan", &id, "--confirm-write", "--plan-file", "elsewhere"]);
    let folder = world.home.path().join("elsewhere.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&aside, folder.join("unrelated.json")).unwrap();
    for id in [
        "../plans/X",
        "/etc/passwd",
        "unrelated",
        "X.json",
        "",
        " ",
        ".",
        "..",
        "%2e%2e",
        "01ARZ3NDEKTSV4RRFFQ69G5FA/",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV/../X",
    ] {
        refused(&world, id, 2, &["--execute-plan", id, "--confirm-write", "--plan-file", "elsewhere"]);
        refused(&world, id, 2, &["plan", "execute", id, "--confirm-write"]);
        refused(&world, id, 2, &["plan", "cancel", id]);
    }
    std::fs::remove_file(path(&world, &id)).unwrap();
    std::fs::rename(&aside, path(&world, &id)).unwrap();
    executes_once(&world, &id);
}

#[test]
fn a_plan_is_good_for_its_portal_user_profile_and_packs_only() {
    let (world, other) = (World::new(), World::new());
    let id = saved_id(&world);
    let execute = ["--execute-plan", id.as_str(), "--confirm-write"];
    let with = |trick: &str, status: i32, name: &str, value: String| {
        let outcome = Outcome::of(world.command(&execute).env(name, value));
        outcome.refused(&world, trick, status).unwrap_or_else(|problem| panic!("{problem}"));
    };
    with("another portal", 9, "B24_WEBHOOK_URL", other.webhook(1));
    assert!(other.requests().is_empty());
    with("another user", 9, "B24_WEBHOOK_URL", world.webhook(2));
    let config = world.home.path().join("config");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("config.toml"), "[profiles.other]\n").unwrap();
    refused(&world, "another profile", 9, &[&execute[..], &["--config", "config", "--profile", "other"]].concat());
    refused(&world, "the emulator", 9, &[&execute[..], &["--profile", "emulator"]].concat());
    refused(&world, "more packs", 9, &[&execute[..], &["--packs", "core,content"]].concat());
    refused(&world, "more patterns", 9, &[&execute[..], &["--method-allowlist", "disk.*"]].concat());
    refused(&world, "fewer packs", 3, &[&execute[..], &["--packs", "none"]].concat());
    refused(&world, "other packs", 3, &[&execute[..], &["--packs", "content"]].concat());
    with("more packs by variable", 9, "B24_PACKS", "core,sites".to_owned());
    with("reads only by now", 3, "B24_READ_ONLY", "1".to_owned());
    let state = world.home.path().join("state2");
    with("another state folder", 9, "B24_STATE_DIR", state.display().to_string());
    // Moving plan and key along does not move the ledger's memory: the plan is
    // not used yet, and here it stays so.
    executes_once(&world, &id);
}

#[test]
fn a_plan_needs_the_flag_of_its_class_and_takes_nothing_else() {
    let world = World::new();
    let id = saved_id(&world);
    let destructive = saved(&world, &["crm.lead.delete", "id=1"])["plan_id"].as_str().unwrap().to_owned();
    refused(&world, "no flag", 10, &["--execute-plan", &id]);
    refused(&world, "other flag", 10, &["--execute-plan", &id, "--confirm-destructive"]);
    refused(&world, "no flag, command", 10, &["plan", "execute", &id]);
    refused(&world, "write flag for a destructive plan", 10, &["--execute-plan", &destructive, "--confirm-write"]);
    let execute = ["--execute-plan", id.as_str(), "--confirm-write"];
    for extra in [
        &["crm.lead.delete", "id=1"][..],
        &["call", "crm.lead.list"],
        &["--params", "{}"],
        &["--dry-run"],
        &["--curl"],
        &["--plan-only"],
        &["--idempotency-key", "again"],
        &["--execute-plan", &destructive],
        &["--confirm-write"],
    ] {
        refused(&world, extra[0], 2, &[&execute, extra].concat());
    }
    refused(&world, "no id", 2, &["--execute-plan=", "--confirm-write"]);
    refused(&world, "id that is not there", 9, &["--execute-plan", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--confirm-write"]);
    executes_once(&world, &id);
}

#[test]
fn a_cancelled_plan_stays_cancelled() {
    let world = World::new();
    let id = saved_id(&world);
    let _ = world.run(&["plan", "cancel", &id]).body(0);
    refused(&world, "cancelled", 9, &["--execute-plan", &id, "--confirm-write"]);
    refused(&world, "cancelled, lower case", 9, &["plan", "execute", &id.to_lowercase(), "--confirm-write"]);
    // A mark that cannot be looked at is no mark that is missing.
    let other = saved_id(&world);
    std::os::unix::fs::symlink("nowhere", world.state().join(format!("plans/{other}.cancelled"))).unwrap();
    refused(&world, "cancelled by a link to nothing", 12, &["--execute-plan", &other, "--confirm-write"]);
}

#[test]
fn a_plan_lives_for_a_minute_at_least_and_a_day_at_most() {
    let world = World::new();
    for seconds in ["0", "59", "86401", "-1", "18446744073709551615", "1e3", ""] {
        let option = format!("--plan-ttl-sec={seconds}");
        refused(&world, &option, 2, &["crm.lead.add", "--plan-only", &option]);
    }
    let by_variable = Outcome::of(world.command(&["crm.lead.add", "--plan-only"]).env("B24_PLAN_TTL_SEC", "999999"));
    by_variable.refused(&world, "variable", 2).unwrap();
    for seconds in ["60", "86400"] {
        let plan = saved(&world, &["crm.lead.add", "--plan-ttl-sec", seconds]);
        let time = |name: &str| chrono::DateTime::parse_from_rfc3339(plan[name].as_str().unwrap()).unwrap();
        assert_eq!((time("expires") - time("created")).num_seconds().to_string(), seconds);
    }
}

#[test]
fn another_key_of_the_installation_seals_nothing() {
    let world = World::new();
    let id = saved_id(&world);
    let key = world.state().join("install.key");
    let genuine = std::fs::read(&key).unwrap();
    let foreign = [7; 32];
    std::fs::write(&key, foreign).unwrap();
    refused(&world, "a key that was exchanged", 12, &["--execute-plan", &id, "--confirm-write"]);
    // And where nobody knows that there was another one before.
    let seen = world.state().join("seen/install.key");
    let known = std::fs::read(&seen).unwrap();
    std::fs::remove_file(&seen).unwrap();
    refused(&world, "another key", 9, &["--execute-plan", &id, "--confirm-write"]);
    std::fs::write(&key, [0; 31]).unwrap();
    refused(&world, "half a key", 12, &["--execute-plan", &id, "--confirm-write"]);
    std::fs::write(&key, genuine).unwrap();
    std::fs::write(&seen, known).unwrap();
    executes_once(&world, &id);
}

/// A clock that goes wrong.
struct Shifted(chrono::Duration);

impl Clock for Shifted {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        SystemClock.now() + self.0
    }

    fn boot_ns(&self) -> u64 {
        SystemClock.boot_ns()
    }

    fn boot_id(&self) -> String {
        SystemClock.boot_id()
    }

    fn sleep(&self, duration: std::time::Duration) {
        SystemClock.sleep(duration);
    }
}

/// Runs b24 in this process, at another time; returns the exit status.
fn run_at(world: &World, shift: chrono::Duration, args: &[&str]) -> u8 {
    let variables = [("B24_STATE_DIR", world.state().display().to_string()), ("B24_WEBHOOK_URL", world.webhook(1))];
    let mut host = Host {
        clock: Arc::new(Shifted(shift)),
        env: Env::new(variables.map(|(name, value)| (name.to_owned(), value))),
        cwd: world.home.path().to_owned(),
        stdin: Box::new(std::io::empty()),
        out: Box::new(std::io::sink()),
        err: Box::new(std::io::sink()),
        ..Host::real()
    };
    b24::run(std::iter::once(&"b24").chain(args).map(Into::into).collect(), &mut host)
}

#[test]
fn a_plan_is_executed_within_its_life_only() {
    let world = World::new();
    let id = saved_id(&world);
    let execute = ["--execute-plan", id.as_str(), "--confirm-write"];
    for minutes in [30, 31, 60 * 24, 60 * 24 * 365, -6, -60 * 24] {
        assert_eq!(run_at(&world, chrono::Duration::minutes(minutes), &execute), 9, "{minutes} minutes");
    }
    assert!(world.requests().is_empty());
    assert_eq!(run_at(&world, chrono::Duration::minutes(29), &execute), 0);
    assert_eq!(world.requests().len(), 1);
    // Pruning takes expired plans alone, and they do not come back as unused.
    let file = std::fs::read(path(&world, &id)).unwrap();
    assert_eq!(run_at(&world, chrono::Duration::minutes(29), &["plan", "prune"]), 0);
    assert!(path(&world, &id).exists());
    assert_eq!(run_at(&world, chrono::Duration::minutes(31), &["plan", "prune"]), 0);
    assert!(!path(&world, &id).exists());
    std::fs::write(path(&world, &id), file).unwrap();
    assert_eq!(run_at(&world, chrono::Duration::minutes(29), &execute), 9);
    assert_eq!(world.requests().len(), 1);
}
