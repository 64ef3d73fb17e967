//! Dead letters and what is seen from outside: `queue status` and `queue dlq`.

use crate::queue_world::{Rig, proof, run};
use crate::world::Outcome;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn dlq(rig: &Rig, args: &[&str]) -> Outcome {
    Outcome::of(&mut rig.queue(&[&["dlq"], args].concat()))
}

/// Three dead letters and one event that was handled.
fn with_letters() -> Rig {
    let rig = Rig::new("case $entity in crmdeal:*) status=1;; esac");
    (1..=3).for_each(|id| rig.raise("ONCRMDEALADD", id));
    rig.raise("ONCRMLEADADD", 1);
    let _ = run(rig.exec(&["--until-empty", "--max-retries", "2"]), 6);
    rig
}

fn file(rig: &Rig) -> PathBuf {
    let status = rig.status();
    PathBuf::from(status["dead_letters_file"].as_str().unwrap())
}

#[test]
fn dead_letters_are_listed_shown_retried_dropped_and_exported() {
    let rig = with_letters();
    let letters = rig.letters();
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| letter["retry_count"] == 2 && letter["reason"] == "handler_failed"), "{letters:?}");
    assert_eq!(rig.status()["dead_letters"], 3);
    let id = |number: usize| letters[number]["id"].as_str().unwrap().to_owned();
    assert_eq!(dlq(&rig, &["show", &id(0)[..8]]).body(0)["payload"]["EVENT_NAME"], "ONCRMDEALADD");
    assert_eq!(dlq(&rig, &["show", "feedfeedfeed"]).error(5)["kind"], "not_found");
    assert_eq!(dlq(&rig, &["retry", "feedfeedfeed"]).error(5)["kind"], "not_found");
    let exported = dlq(&rig, &["export"]);
    let fields: Vec<String> =
        serde_json::from_str::<Value>(exported.stdout.lines().next().unwrap()).unwrap().as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["tenant", "event", "message_id", "retry_count", "error", "payload", "ts"]);
    assert_eq!(dlq(&rig, &["verify"]).body(0)["lines"], 3);
    let unconfirmed = dlq(&rig, &["drop", &id(0), "--reason", "not wanted"]).error(10);
    assert_eq!(unconfirmed["gate"]["option"], "--confirm-destructive");
    assert_eq!(dlq(&rig, &["drop", &id(0), "--reason", "not wanted", "--confirm-destructive"]).body(0)["dropped"], 1);
    assert_eq!(dlq(&rig, &["retry", &id(0)]).error(5)["kind"], "not_found");
    rig.rule("");
    assert_eq!(dlq(&rig, &["retry", &id(1)]).body(0)["retried"], 1);
    let _ = run(rig.exec(&["--until-empty"]), 0);
    let row = letters[1]["payload"]["ID"].as_str().unwrap().parse().unwrap();
    assert_eq!((rig.letters().len(), proof(&rig.log()).done), (1, [row, 4].into()));
    assert_eq!(dlq(&rig, &["verify"]).body(0)["lines"], 5);
    let actions: Vec<Value> = rig.world.audit().into_iter().filter(|record| record["type"].to_string().contains("dead-letters")).collect();
    assert_eq!(actions.len(), 2);
}

#[test]
fn a_letter_that_somebody_changed_or_took_out_shows() {
    let rig = with_letters();
    let path = file(&rig);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let missing = format!("{}\n{}\n", lines[0], lines[2]);
    for (changed, line) in [(text.replacen("handler_failed", "handler_failes", 1), 1), (missing, 2)] {
        std::fs::write(&path, changed).unwrap();
        let error = dlq(&rig, &["verify"]).error(1);
        assert_eq!(error["kind"], "audit_broken");
        assert!(error["message"].as_str().unwrap().contains(&format!("line {line} ")), "{error}");
    }
}

#[test]
fn the_file_of_the_python_worker_is_read_and_its_letters_are_tried_again() {
    let rig = Rig::new("");
    let row = |id: u64| {
        json!({"tenant": "acme", "event": "ONCRMDEALUPDATE", "message_id": format!("m{id}"), "retry_count": 5, "error": "boom",
            "payload": {"ID": id.to_string(), "EVENT_NAME": "ONCRMDEALUPDATE", "EVENT_DATA": {"FIELDS": {"ID": id.to_string()}}},
            "ts": 1_760_000_000})
        .to_string()
    };
    // The last line has no end.
    let text = format!("{}\n{}\n{}", row(7), row(8), row(9));
    std::fs::write(rig.path("old.jsonl"), &text).unwrap();
    let args = |command: &'static [&'static str]| [command, &["--dlq-file", "old.jsonl"]].concat();
    for _ in 0..2 {
        assert_eq!(dlq(&rig, &args(&["list"])).stdout.lines().count(), 3);
    }
    assert!(std::fs::read_to_string(rig.path("old.jsonl")).unwrap().starts_with(&text), "nothing is taken out of the file");
    assert_eq!(dlq(&rig, &args(&["retry", "--all"])).body(0)["retried"], 3);
    let _ = run(rig.exec(&["--until-empty", "--dlq-file", "old.jsonl"]), 0);
    assert_eq!(proof(&rig.log()).done, [7, 8, 9].into());
    assert!(rig.log().iter().all(|entry| entry.entity.starts_with("crmdeal:")));
    assert!(dlq(&rig, &args(&["list"])).stdout.is_empty());
    assert_eq!(dlq(&rig, &args(&["verify"])).body(0)["lines"], 3);
}

#[test]
fn polls_leave_no_ledger_records_and_secrets_stay_inside() {
    let rig = Rig::new(
        "echo \"${B24_ACCESS_TOKEN-}${B24_CLIENT_SECRET-}${B24_REFRESH_TOKEN-}${COPY-}\" >> seen; echo \"$(cat known)\" >&2; status=1",
    );
    let access = rig.world.emulator.access().clone();
    let secret = access.client_secret.expose();
    std::fs::write(rig.path("known"), format!("it says {secret}")).unwrap();
    for id in 1..=5 {
        rig.raise("ONCRMDEALADD", id);
        let mut worker = rig.exec(&["--until-empty", "--max-retries", "1", "--metrics-file", "metrics.prom"]);
        worker.env("COPY", secret).env("PATH", "/usr/bin:/bin");
        let _ = run(worker, 6);
        assert_eq!(crate::kept::records(&rig.world).len(), 0, "no record is left by a poll");
    }
    assert_eq!(std::fs::read_to_string(rig.path("seen")).unwrap().trim(), "", "the environment of a handler has no secrets");
    let letters = rig.letters();
    assert_eq!(letters.len(), 5);
    assert!(letters.iter().all(|letter| letter["error"].as_str().unwrap().contains("it says ***")), "{letters:?}");
    let metrics = std::fs::read_to_string(rig.path("metrics.prom")).unwrap();
    assert!(
        metrics.contains("b24_queue_dead_total{source=\"offline\"} 5\n") && metrics.contains("b24_queue_depth{source=\"offline\"} 0\n"),
        "{metrics}"
    );
    let secrets = [access.client_secret.expose(), access.access_token.expose(), access.refresh_token.expose()];
    files(&rig.world.state().join("queue"), &mut |path, mode, text| {
        assert_eq!(mode, 0o600, "{}", path.display());
        assert!(!secrets.iter().any(|secret| text.contains(*secret)), "{}", path.display());
    });
    let mode = std::fs::metadata(rig.path("metrics.prom")).unwrap().permissions().mode() & 0o777;
    assert!(mode & 0o133 == 0, "{mode:o}");
}

fn files(folder: &Path, look: &mut impl FnMut(&Path, u32, &str)) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), look),
            false => {
                let text = String::from_utf8(std::fs::read(entry.path()).unwrap()).unwrap();
                look(&entry.path(), entry.metadata().unwrap().permissions().mode() & 0o777, &text);
            }
        }
    }
}
