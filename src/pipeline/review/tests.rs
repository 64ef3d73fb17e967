//! What a review shows, and what no caller can make it show.

use super::*;
use crate::catalog::Api;
use crate::packs::Allowlist;
use crate::settings::Policy;
use serde_json::json;

fn review(name: &str, params: Value) -> Review {
    let request = Request::parse(name, params, Api::V2).unwrap();
    let policy = Policy {
        allowlist: Allowlist::parse("none", "*").unwrap(),
        allow_unlisted: false,
        allow_unknown_params: false,
        read_only: false,
        require_plan: false,
    };
    let risks = gate::classes(&request, &policy);
    Review::of(&request, &risks)
}

fn lines(name: &str, params: Value) -> Vec<String> {
    review(name, params).lines()
}

#[test]
fn what_is_acted_on_stands_before_everything_else() {
    let lines = lines("crm.lead.update", json!({"A0": "y".repeat(220), "fields": {"TITLE": "T", "ASSIGNED_BY_ID": 3}, "id": 77}));
    assert!(lines[0].starts_with("write: crm.lead.update (v2): "), "{lines:?}");
    let rest: Vec<&str> = lines.iter().skip(1).map(String::as_str).collect();
    let begun = "y".repeat(80);
    assert_eq!(
        rest,
        [
            "acts on id = 77",
            "with fields[ASSIGNED_BY_ID] = 3",
            "with fields[TITLE] = \"T\"",
            &format!("with A0 = \"{begun}\" … 140 more characters of A0"),
        ]
    );
}

#[test]
fn what_is_left_out_is_counted() {
    let many: serde_json::Map<String, Value> = (0..100).map(|index| (format!("UF_{index}"), json!(index))).collect();
    let ids: Vec<u32> = (1..=1000).collect();
    let lines = lines("crm.lead.update", json!({"id": ids, "fields": many}));
    let line = lines.iter().find(|line| line.starts_with("acts on")).unwrap();
    let shown = line.trim_start_matches("acts on id = [").split(" … ").next().unwrap().split(", ").count();
    assert!(line.ends_with(&format!(" … {} more items of id", 1000 - shown)), "{line}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("with fields")).count(), 24);
    assert_eq!(lines.last().unwrap(), "with 76 more parameters; b24 plan show ID prints all");
    let value = review("crm.lead.update", json!({"id": ids, "fields": many})).to_value();
    assert_eq!((&value["calls"][0]["more_params"], &value["calls"][0]["targets"][0]["more_items"]), (&json!(76), &json!(1000 - shown)));
}

#[test]
fn a_list_begins_with_something() {
    let lines = lines("crm.lead.update", json!({"id": 1, "fields": {"A": ["y".repeat(100), "z"], "B": [], "C": [1, "b", null]}}));
    let begun = format!("with fields[A] = [\"{} … 28 more characters of fields[A]", "y".repeat(78));
    assert!(lines.contains(&begun), "{lines:?}");
    assert!(
        lines.contains(&"with fields[B] = []".to_owned()) && lines.contains(&"with fields[C] = [1, \"b\", null]".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_name_cannot_imitate_a_line() {
    for name in ["crm.lead.get (read): x", "a\u{202e}b", "a\u{a0}b", "אב", "n\u{301}", "x".repeat(90).as_str(), "\"}, read: crm.lead.get"]
    {
        let lines = lines("batch", json!({"cmd": {name: "crm.lead.delete?id=1", "b": "crm.lead.get?id=2"}}));
        assert_eq!(lines[0], "destructive: batch, commands: 2 (1 destructive, 1 read); an error does not stop the others");
        assert!(lines[1].starts_with("command 1 of 2: destructive: crm.lead.delete (v2): "), "{lines:?}");
        let named: Vec<&String> = lines.iter().filter(|line| line.contains("its name: ")).collect();
        assert!(named.iter().all(|line| line.starts_with("  its name: \"")), "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("command ")).count(), 2);
        assert!(!lines.concat().chars().any(|c| json::is_unseen(c) || json::turns_the_line(c)), "{lines:?}");
    }
}

#[test]
fn a_key_or_a_value_cannot_imitate_a_line() {
    let fields =
        json!({"loses: nothing\u{2028}": "a\nloses: nothing\rread: x", "k\"": "\u{1b}[2K", "": {"deep [x] = 1": [{"a": "\u{7f}"}]}});
    let lines = lines("crm.lead.update", json!({"id": "7\nread: crm.lead.get", "fields": fields}));
    let starts = [
        "write: crm.lead.update (v2): ",
        "its class: ",
        "loses: ",
        "reaches beyond the portal: ",
        "acts on id = \"7\\nread",
        "with fields[\"",
    ];
    for line in &lines {
        assert!(starts.iter().any(|start| line.starts_with(start)), "{line}");
        assert!(!line.chars().any(json::is_unseen), "{line:?}");
    }
    assert!(lines.iter().any(|line| line == "with fields[\"\"][\"deep [x] = 1\"][0][a] = \"\\u007f\""), "{lines:?}");
}

#[test]
fn ids_are_known_by_their_names() {
    let is_target = |key: &str| lines("crm.item.update", json!({key: 5})).contains(&format!("acts on {key} = 5"));
    for key in ["id", "ID", "ids", "IDS", "ENTITY_ID", "entityTypeId", "taskIds", "OWNER_TYPE_ID"] {
        assert!(is_target(key), "{key}");
    }
    for key in ["PAID", "VALID", "idea", "fluid", "grids"] {
        assert!(!is_target(key), "{key}");
    }
}

#[test]
fn a_mark_of_deletion_is_not_hidden_behind_other_members() {
    let list: Vec<Value> = (0..200).map(|index| json!({"ID": index, "VALUE": "v", "DEL": if index == 199 { "Y" } else { "N" }})).collect();
    let lines = lines("crm.lead.userfield.update", json!({"id": 1, "fields": {"A": 1, "LIST": [{"ID": 5, "DEL": "Y"}], "B": list}}));
    assert!(lines.iter().position(|line| line == "with fields[LIST][0][DEL] = \"Y\"").unwrap() < 6, "{lines:?}");
}

#[test]
fn a_step_that_is_not_understood_says_so() {
    let policy = Policy {
        allowlist: crate::packs::Allowlist::parse("none", "").unwrap(),
        allow_unlisted: false,
        allow_unknown_params: false,
        read_only: false,
        require_plan: false,
    };
    let step = |method: &str, risk: &str| Step {
        method: method.to_owned(),
        api: "v2".to_owned(),
        params: json!({"id": 1}),
        risk: risk.to_owned(),
    };
    let lines = Review::of_step(&step("not a method", "write"), &policy).lines();
    assert!(lines[0].starts_with("warning: ") && lines[1] == "write", "{lines:?}");
    let lines = Review::of_step(&step("crm.lead.delete", "read"), &policy).lines();
    assert!(lines[0].starts_with("warning: its class is another one here and now"), "{lines:?}");
    assert!(lines[1].starts_with("destructive: crm.lead.delete"));
    assert!(!Review::of_step(&step("crm.lead.delete", "destructive"), &policy).lines()[0].starts_with("warning"));
}
