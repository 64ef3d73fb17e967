//! What a person reads of a plan: what it acts on, everything or a count, and
//! nothing of a file that is no plan.

use crate::plans::{saved, saved_id};
use crate::world::{Outcome, World};
use b24::json::{canonical, is_unseen, sha256_hex};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::path::PathBuf;

const OTHER_ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

fn path(world: &World, id: &str) -> PathBuf {
    world.state().join(format!("plans/{id}.json"))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// The lines that `plan list` prints of the only plan.
fn listed(world: &World) -> Vec<String> {
    texts(&world.run(&["plan", "list"]).body(0)["plans"][0]["steps"])
}

/// Seals a plan as the installation does, to stand for another version.
fn sealed(world: &World, mut plan: Value) -> String {
    let key = std::fs::read(world.state().join("install.key")).unwrap();
    let fields = plan.as_object_mut().unwrap();
    fields.shift_remove("digest");
    fields.shift_remove("seal");
    let digest = sha256_hex(canonical(&plan));
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(&key).unwrap();
    mac.update(b"b24-plan-v1\0");
    mac.update(digest.as_bytes());
    plan["seal"] = json!(hex::encode(mac.finalize().into_bytes()));
    plan["digest"] = json!(digest);
    plan.to_string()
}

#[test]
fn no_parameter_pushes_away_what_is_acted_on() {
    let world = World::new();
    let params = json!({"A0": "y".repeat(220), "A1": "z".repeat(5000), "id": 77, "fields": {"TITLE": "T"}});
    let plan = saved(&world, &["crm.lead.update", "--params", &params.to_string()]);
    let lines = listed(&world);
    assert_eq!(texts(&plan["preview"]), lines);
    assert!(lines[0].starts_with("write: crm.lead.update (v2): "), "{lines:?}");
    assert!(lines.iter().position(|line| line == "acts on id = 77").unwrap() <= 2, "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(" … 140 more characters of A0")), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(" … 4920 more characters of A1")), "{lines:?}");
    let shown = world.run(&["plan", "show", plan["plan_id"].as_str().unwrap()]).body(0);
    assert_eq!(shown["plan"]["steps"][0]["params"], params);
    assert_eq!(shown["review"][0]["calls"][0]["targets"], json!([{"path": "id", "value": 77}]));
    assert!(world.requests().is_empty());
}

#[test]
fn the_class_and_the_loss_stand_first_in_every_block() {
    let world = World::new();
    let names = ["crm.lead.get (read): Reads a lead", "x\u{202e}\u{2028}", "ok\u{a0}", "סבב", &"n".repeat(100)];
    let cmd: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), json!(format!("crm.lead.delete?id={}&x={}", name.len(), "y".repeat(300))))).collect();
    let params = json!({"cmd": cmd}).to_string();
    let plan = saved(&world, &["batch", "--allow-unknown-params", "--params", &params]);
    let lines = listed(&world);
    assert!(lines[0].starts_with("destructive: batch, commands: 5 (5 destructive); "), "{lines:?}");
    let heads: Vec<usize> = (0..lines.len()).filter(|index| lines[*index].starts_with("command ")).collect();
    assert_eq!(heads.len(), 5);
    for (number, head) in heads.iter().enumerate() {
        assert!(lines[*head].starts_with(&format!("command {} of 5: destructive: crm.lead.delete (v2): ", number + 1)), "{lines:?}");
        let block: Vec<&str> = lines[head + 1..].iter().map(String::as_str).take_while(|line| line.starts_with("  ")).collect();
        let name = block.iter().position(|line| line.starts_with("  its name: \"")).unwrap();
        assert_eq!(block[name + 1], format!("  acts on id = \"{}\"", names[number].len()));
        assert!(block[..name].iter().all(|line| line.starts_with("  reaches ")), "{block:?}");
        assert!(block[name + 2].ends_with(" … 220 more characters of x"), "{block:?}");
    }
    assert!(!lines.concat().chars().any(|c| is_unseen(c) || b24::json::turns_the_line(c)), "{lines:?}");
    let review = &world.run(&["plan", "show", plan["plan_id"].as_str().unwrap()]).body(0)["review"][0];
    assert_eq!((&review["count"], &review["risk"]), (&json!(5), &json!("destructive")));
}

#[test]
fn a_missing_consent_says_what_would_be_done() {
    let world = World::new();
    let error = world.run(&["crm.lead.delete", "id=77"]).error(10);
    let lines = texts(&error["review"]);
    assert!(lines[0].starts_with("destructive: crm.lead.delete (v2): ") && lines.contains(&"acts on id = \"77\"".to_owned()), "{lines:?}");
    let text = world.run(&["crm.lead.delete", "id:=77", "--error-format", "text"]);
    assert!(text.stderr.lines().any(|line| line == "  review: acts on id = 77"), "{}", text.stderr);
    let id = saved(&world, &["crm.lead.delete", "id:=78"])["plan_id"].as_str().unwrap().to_owned();
    let error = world.run(&["--execute-plan", &id]).error(10);
    assert!(texts(&error["review"]).contains(&"acts on id = 78".to_owned()), "{error}");
    let rehearsed = world.run(&["crm.lead.delete", "id:=79", "--dry-run"]).body(0);
    assert_eq!(rehearsed["review"]["calls"][0]["targets"][0]["value"], 79);
    // A batch of any size does not flood the error.
    let cmd: Vec<String> = (0..50).map(|id| format!("crm.lead.delete?id={id}")).collect();
    let error = world.run(&["batch", "--params", &json!({"cmd": cmd}).to_string()]).error(10);
    let lines = texts(&error["review"]);
    assert_eq!(lines.len(), 41);
    assert!(lines[40].ends_with(" more lines; --dry-run or --plan-only prints all"), "{lines:?}");
    assert!(world.requests().is_empty());
}

/// Asserts that the file under an id is told as changed wherever a plan is
/// shown, and that nothing of it is.
#[track_caller]
fn is_nobodys(world: &World, what: &str, id: &str, words: &[&str]) {
    let says_nothing = |outcome: &Outcome| {
        for word in words {
            assert!(!outcome.stdout.contains(word) && !outcome.stderr.contains(word), "{what}: {}{}", outcome.stdout, outcome.stderr);
        }
    };
    let list = world.run(&["plan", "list"]);
    says_nothing(&list);
    let error: Value = serde_json::from_str(list.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((list.status, &error["kind"]), (9, &json!("plan_changed")), "{what}");
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    let row = list["plans"].as_array().unwrap().iter().find(|row| row["plan_id"] == id).unwrap();
    let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((keys, &row["state"]), (vec!["plan_id", "state", "problem"], &json!("changed")), "{what}");
    let show = world.run(&["plan", "show", id]);
    says_nothing(&show);
    assert_eq!((show.error(9)["kind"].clone(), what), (json!("plan_changed"), what));
    let explained = world.run(&["explain", id]);
    says_nothing(&explained);
    let meaning = explained.body(0)["meanings"][0].clone();
    assert_eq!((&meaning["found"], &meaning["state"]), (&json!(false), &json!("changed")), "{what}");
    let pruned = world.run(&["plan", "prune"]);
    says_nothing(&pruned);
    assert_eq!(pruned.status, 9, "{what}");
    let pruned: Value = serde_json::from_str(&pruned.stdout).unwrap();
    assert!(pruned["kept"].as_array().unwrap().contains(&json!({"plan_id": id, "state": "changed"})), "{what}");
    assert!(path(world, id).exists(), "{what}");
    assert_eq!(world.run(&["--execute-plan", id, "--confirm-write", "--confirm-destructive"]).status, 9, "{what}");
}

#[test]
fn nothing_of_an_edited_file_is_believed_or_shown() {
    let world = World::new();
    let good = saved_id(&world);
    let plan = saved(&world, &["crm.lead.update", "id:=77", "fields[TITLE]=Plan"]);
    let id = plan["plan_id"].as_str().unwrap();
    let genuine = std::fs::read(path(&world, id)).unwrap();
    let edits = [
        ("preview", json!(["read: crm.lead.get (v2): forged-text"])),
        ("expires", json!("2001-01-01T00:00:00.000Z")),
        ("expires", json!("2999-01-01T00:00:00.000Z")),
        ("profile", json!("forged-text")),
        ("portal", json!("forged-text")),
        ("b24", json!("9.9.9")),
        ("schema", json!("forged-text")),
        ("plan_id", json!(OTHER_ID)),
    ];
    for (field, value) in edits {
        let mut edited = plan.clone();
        edited[field] = value;
        std::fs::write(path(&world, id), edited.to_string()).unwrap();
        is_nobodys(&world, field, id, &["forged-text", "2001-01", "2999-01", "crm.lead.get", "9.9.9", OTHER_ID]);
    }
    for (what, bytes) in
        [("text", &b"forged-text"[..]), ("none", b""), ("other bytes", b"\xff\xfe"), ("JSON", b"{\"plan_id\":\"forged-text\"}")]
    {
        std::fs::write(path(&world, id), bytes).unwrap();
        is_nobodys(&world, what, id, &["forged-text"]);
    }
    // Another plan is told as ever.
    let list: Value = serde_json::from_str(&world.run(&["plan", "list"]).stdout).unwrap();
    let row = list["plans"].as_array().unwrap().iter().find(|row| row["plan_id"] == good.as_str()).unwrap();
    assert_eq!((&row["state"], row["steps"].as_array().unwrap().len() > 1), (&json!("saved"), true));
    std::fs::write(path(&world, id), genuine).unwrap();
    assert_eq!(world.run(&["plan", "list"]).status, 0);
    assert_eq!(world.run(&["--execute-plan", id, "--confirm-write"]).status, 5, "the lead is not there");
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn a_file_in_another_place_or_of_another_installation_is_no_plan() {
    let world = World::new();
    let id = saved_id(&world);
    std::fs::copy(path(&world, &id), path(&world, OTHER_ID)).unwrap();
    is_nobodys(&world, "copied under another name", OTHER_ID, &[]);
    std::fs::remove_file(path(&world, OTHER_ID)).unwrap();
    std::os::unix::fs::symlink(path(&world, &id), path(&world, OTHER_ID)).unwrap();
    let list = world.run(&["plan", "list"]);
    assert_eq!(list.status, 9);
    assert_eq!(serde_json::from_str::<Value>(&list.stdout).unwrap()["plans"][1]["state"], "changed");
    std::fs::remove_file(path(&world, OTHER_ID)).unwrap();
    // The same id in other letters is no second plan.
    std::fs::copy(path(&world, &id), path(&world, &id.to_lowercase())).unwrap();
    std::fs::copy(path(&world, &id), world.state().join("plans/unrelated.json")).unwrap();
    assert_eq!(world.run(&["plan", "list"]).body(0)["plans"].as_array().unwrap().len(), 1);
    // A plan of another installation.
    let other = World::new();
    let foreign = saved(&other, &["crm.lead.add", "fields[TITLE]=forged-text"])["plan_id"].as_str().unwrap().to_owned();
    std::fs::copy(path(&other, &foreign), path(&world, &foreign)).unwrap();
    is_nobodys(&world, "of another installation", &foreign, &["forged-text", "crm.lead.add (v2): forged"]);
    assert!(world.requests().is_empty() && other.requests().is_empty());
}

#[test]
fn a_changed_file_goes_when_it_is_cancelled_and_does_not_come_back() {
    let world = World::new();
    let id = saved_id(&world);
    let genuine = std::fs::read_to_string(path(&world, &id)).unwrap();
    std::fs::write(path(&world, &id), genuine.replace("\"expires\": \"20", "\"expires\": \"19")).unwrap();
    assert_eq!(world.run(&["plan", "prune"]).status, 9);
    assert!(path(&world, &id).exists());
    assert_eq!(world.run(&["plan", "cancel", &id]).body(0)["state"], "changed");
    assert!(!path(&world, &id).exists());
    assert_eq!(world.run(&["plan", "show", &id]).error(9)["kind"], "plan_cancelled");
    assert_eq!(world.run(&["plan", "prune"]).body(0)["kept"], json!([]));
    std::fs::write(path(&world, &id), genuine).unwrap();
    assert_eq!(world.run(&["--execute-plan", &id, "--confirm-write"]).error(9)["kind"], "plan_cancelled");
    assert_eq!(world.run(&["plan", "list"]).body(0)["plans"][0]["state"], "cancelled");
    assert!(world.requests().is_empty());
}

#[test]
fn a_plan_of_an_earlier_version_is_shown_as_one_of_now_and_executed() {
    let world = World::new();
    let mut plan = saved(&world, &["crm.lead.add", "fields[TITLE]=Plan", "--allow-unknown-params", &format!("A0={}", "y".repeat(220))]);
    let id = plan["plan_id"].as_str().unwrap().to_owned();
    // As it was written: a line a call, cut after 200 characters.
    plan["preview"] = json!([format!("crm.lead.add (write): Creates a lead: {{\"A0\":\"{}", "y".repeat(193))]);
    std::fs::write(path(&world, &id), sealed(&world, plan)).unwrap();
    for lines in [listed(&world), texts(&world.run(&["plan", "show", &id]).body(0)["plan"]["preview"])] {
        assert!(lines.contains(&"with fields[TITLE] = \"Plan\"".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with(" … 140 more characters of A0")), "{lines:?}");
    }
    assert_eq!(world.run(&["--execute-plan", &id, "--confirm-write", "--allow-unknown-params"]).body(0)["result"], 1);
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn a_plan_of_a_version_that_differs_is_named_and_its_time_believed() {
    let world = World::new();
    let mut plan = saved(&world, &["crm.lead.add", "fields[TITLE]=Plan"]);
    let id = plan["plan_id"].as_str().unwrap().to_owned();
    plan["b24"] = json!("0.99.0");
    plan["later"] = json!("what this version does not know");
    std::fs::write(path(&world, &id), sealed(&world, plan.clone())).unwrap();
    assert_eq!(world.run(&["plan", "list"]).body(0)["plans"], json!([{"plan_id": id, "state": "of_other_version"}]));
    assert_eq!(world.run(&["plan", "show", &id]).error(9)["kind"], "plan_changed");
    assert_eq!(world.run(&["--execute-plan", &id, "--confirm-write"]).status, 9);
    assert_eq!(world.run(&["plan", "prune"]).body(0)["pruned"], json!([]));
    plan["expires"] = json!("2001-01-01T00:00:00.000Z");
    std::fs::write(path(&world, &id), sealed(&world, plan)).unwrap();
    assert_eq!(world.run(&["plan", "prune"]).body(0)["pruned"], json!([id]));
    assert!(world.requests().is_empty());
}
