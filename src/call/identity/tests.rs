//! What is one write and what is two.

use super::*;
use crate::json::parse_strict;
use serde_json::json;

fn request(name: &str, params: &str, api: Api) -> Request {
    Request::parse(name, parse_strict(params).unwrap(), api).unwrap()
}

fn single(name: &str, params: &str) -> String {
    request(name, params, Api::V2).fingerprints().remove(0).current
}

fn batch(params: &Value) -> Vec<String> {
    request("batch", &params.to_string(), Api::V2).fingerprints().into_iter().map(|print| print.current).collect()
}

fn assert_one(name: &str, spellings: &[&str]) {
    for spelling in spellings {
        assert_eq!(single(name, spelling), single(name, spellings[0]), "{spelling}");
    }
}

fn assert_all_differ(name: &str, spellings: &[&str]) {
    let mut prints: Vec<String> = spellings.iter().map(|spelling| single(name, spelling)).collect();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), spellings.len(), "{spellings:?}");
}

#[test]
fn scalars_are_texts() {
    assert_one(
        "crm.lead.add",
        &[r#"{"fields":{"TITLE":5}}"#, r#"{"fields":{"TITLE":"5"}}"#, r#"{"fields":{"TITLE":5.0}}"#, r#"{"fields":{"TITLE":50e-1}}"#],
    );
    assert_one("crm.lead.add", &[r#"{"fields":{"OPENED":true}}"#, r#"{"fields":{"OPENED":1}}"#, r#"{"fields":{"OPENED":"1"}}"#]);
    assert_one("crm.lead.add", &[r#"{"fields":{"OPENED":false}}"#, r#"{"fields":{"OPENED":"0"}}"#]);
    let titles =
        [r#"{"fields":{"TITLE":"5"}}"#, r#"{"fields":{"TITLE":"5.0"}}"#, r#"{"fields":{"TITLE":"05"}}"#, r#"{"fields":{"TITLE":" 5"}}"#];
    assert_all_differ("crm.lead.add", &titles);
}

#[test]
fn what_is_documented_as_a_number_is_one_in_a_text_too() {
    let sums = ["10.10", "10.1", "\"10.10\"", "\"10.1\"", "1.01e1", "\"010.100\"", "\" 10.10\""];
    let spellings: Vec<String> = sums.iter().map(|sum| format!(r#"{{"fields":{{"OPPORTUNITY":{sum}}}}}"#)).collect();
    assert_one("crm.lead.add", &spellings.iter().map(String::as_str).collect::<Vec<_>>());
    assert_one("crm.lead.delete", &[r#"{"id":7}"#, r#"{"id":"7"}"#, r#"{"id":"07"}"#, r#"{"id":"7.0"}"#]);
    assert_all_differ("crm.lead.add", &[r#"{"fields":{"TITLE":"10.10"}}"#, r#"{"fields":{"TITLE":"10.1"}}"#]);
}

#[test]
fn a_list_is_a_map_and_keys_have_no_order() {
    assert_one(
        "crm.lead.add",
        &[
            r#"{"fields":{"X":["a","b"],"Y":1}}"#,
            r#"{"fields":{"Y":1,"X":{"0":"a","1":"b"}}}"#,
            r#"{"fields":{"X":{"1":"b","0":"a"},"Y":1}}"#,
        ],
    );
    assert_all_differ(
        "crm.lead.add",
        &[
            r#"{"fields":{"X":["a","b"]}}"#,
            r#"{"fields":{"X":["b","a"]}}"#,
            r#"{"fields":{"X":{"1":"a","2":"b"}}}"#,
            r#"{"fields":{"X":{"00":"a","1":"b"}}}"#,
        ],
    );
    assert_one("task.commentitem.add", &[r#"[1,{"POST_MESSAGE":"x"}]"#, r#"{"0":1,"1":{"POST_MESSAGE":"x"}}"#]);
}

#[test]
fn what_says_nothing_is_left_out() {
    assert_one(
        "crm.lead.add",
        &[
            r#"{"fields":{"TITLE":"x"}}"#,
            r#"{"fields":{"TITLE":"x","NAME":null,"PHONE":[],"EMAIL":{}},"params":{"a":[null]}}"#,
            r#"{"fields":{"TITLE":"x"},"start":0}"#,
            r#"{"fields":{"TITLE":"x"},"START":"50"}"#,
            r#"{"fields":{"TITLE":"x"},"state":"s","limit":5,"next":1}"#,
            r#"{"fields":{"TITLE":"x"},"auth_connector":"own"}"#,
        ],
    );
    assert_all_differ(
        "crm.lead.add",
        &[r#"{"fields":{"TITLE":"x"}}"#, r#"{"fields":{"TITLE":"x","NAME":""}}"#, r#"{"fields":{"TITLE":"x","start":1}}"#],
    );
    // Where it means something it stays.
    assert_all_differ("event.offline.get", &["{}", r#"{"limit":5}"#, r#"{"auth_connector":"a"}"#]);
    assert_all_differ("event.offline.clear", &[r#"{"process_id":"p"}"#, r#"{"process_id":"p","auth_connector":"a"}"#]);
    assert_all_differ("event.bind", &[r#"{"event":"X"}"#, r#"{"event":"X","auth_connector":"a"}"#]);
    assert_all_differ("crm.documentgenerator.numerator.add", &[r#"{"fields":{"name":"x"}}"#, r#"{"fields":{"name":"x"},"start":1}"#]);
}

#[test]
fn case_counts_where_the_examples_have_one_case() {
    assert_one("task.item.update", &[r#"{"taskId":1}"#, r#"{"TASKID":1}"#]);
    assert_all_differ("crm.lead.add", &[r#"{"fields":{"TITLE":"x"}}"#, r#"{"FIELDS":{"TITLE":"x"}}"#, r#"{"fields":{"title":"x"}}"#]);
    assert_one("crm.lead.add", &["{}"]);
    assert_eq!(single("CRM.Lead.Add.json", "{}"), single("crm.lead.add", "{}"));
    assert_ne!(single("crm.lead.update", "{}"), single("crm.lead.add", "{}"));
}

#[test]
fn a_command_is_the_call_that_it_carries() {
    let alone = single("crm.lead.add", r#"{"fields":{"TITLE":"x","OPPORTUNITY":10.10,"PHONE":[{"VALUE":"1"}]}}"#);
    let commands = json!({"cmd": {
        "text": "crm.lead.add?fields[TITLE]=x&fields[OPPORTUNITY]=10.10&fields[PHONE][0][VALUE]=1",
        "other": "CRM.LEAD.ADD.json?start=0&fields[PHONE][][VALUE]=1&fields%5BOPPORTUNITY%5D=10.1&fields[TITLE]=%78",
        "map": {"method": "crm.lead.add", "params": {"fields": {"PHONE": [{"VALUE": 1}], "TITLE": "x", "OPPORTUNITY": 10.1}}},
        "list": ["crm.lead.add", {"fields": {"PHONE": {"0": {"VALUE": 1}}, "TITLE": "x", "OPPORTUNITY": "10.10"}}],
    }});
    assert!(batch(&commands).iter().all(|print| *print == alone));
}

#[test]
fn a_command_that_refers_is_what_it_refers_to() {
    let prints = |first: (&str, &str), second: &str| {
        batch(&json!({"cmd": {first.0: format!("crm.contact.add?fields[NAME]={}", first.1), "b": second}}))[1].clone()
    };
    let deal = |text: &str| format!("crm.deal.add?fields[TITLE]={text}");
    let refers = prints(("a", "x"), &deal("$result[a]"));
    assert_eq!(refers, prints(("c", "x"), &deal("$result[c]")), "the name of a command says nothing");
    assert_ne!(refers, prints(("a", "y"), &deal("$result[a]")), "what it makes does");
    assert_ne!(refers, prints(("a", "x"), &deal("$result[a][ID]")));
    assert_ne!(refers, prints(("a", "x"), &deal("pre$result[a]")));
    assert_ne!(refers, prints(("ab", "x"), &deal("$result[a]")), "a name that begins another one is another");
    assert_ne!(refers, single("crm.deal.add", r#"{"fields":{"TITLE":"$result[a]"}}"#), "alone it is a text");
    for sign in ["$next[a]", "$TOTAL[a]", "$time[a]", "$error[a]", "x $RESULT[a]"] {
        assert_ne!(prints(("a", "x"), &deal(sign)), prints(("a", "y"), &deal(sign)), "{sign}");
    }
    // What only looks like a reference, or leads to a later command or none.
    for text in ["a", "result[a]", "$resul[a]", "$result", "$5", "$result[b]", "$result[z]"] {
        assert_eq!(prints(("a", "x"), &deal(text)), prints(("a", "y"), &deal(text)), "{text}");
    }
    assert_ne!(prints(("a", "x"), &deal("$result[z]")), single("crm.deal.add", r#"{"fields":{"TITLE":"$result[z]"}}"#));
}

#[test]
fn an_alias_of_a_v3_batch_is_what_it_stands_for() {
    let prints = |alias: &str, title: &str, path: &str| {
        let items = json!([
            {"method": "tasks.task.add", "as": alias, "query": {"fields": {"title": title}}},
            {"method": "tasks.task.update", "query": {"id": {"$ref": path}, "fields": {"title": "z"}}},
        ]);
        request("batch", &items.to_string(), Api::V3).fingerprints()[1].current.clone()
    };
    assert_eq!(prints("a", "x", "a.item.id"), prints("b", "x", "b.item.id"));
    assert_ne!(prints("a", "x", "a.item.id"), prints("a", "y", "a.item.id"));
    assert_ne!(prints("a", "x", "a.item.id"), prints("a", "x", "a.item.parentId"));
    assert_ne!(prints("a", "x", "a.item.id"), prints("ab", "x", "a.item.id"));
}

#[test]
fn generations_are_two_and_v3_keeps_null() {
    let v3 = |params: &str| request("tasks.task.add", params, Api::V3).fingerprints().remove(0).current;
    assert_ne!(v3("{}"), single("tasks.task.add", "{}"));
    assert_ne!(v3(r#"{"fields":{"title":"x","deadline":null}}"#), v3(r#"{"fields":{"title":"x"}}"#));
    assert_eq!(v3(r#"{"fields":{"title":"x","responsibleId":1}}"#), v3(r#"{"fields":{"responsibleId":"1","title":"x"}}"#));
}

#[test]
fn the_fingerprint_of_earlier_versions_stays_what_it_was() {
    let print = request("crm.lead.add", r#"{"fields":{"TITLE":"x","A":10.10}}"#, Api::V2).fingerprints().remove(0).legacy;
    assert_eq!(print, json::sha256_hex("b24-fp-v1\0crm.lead.add\0v2\0{\"fields\":{\"A\":10.10,\"TITLE\":\"x\"}}"));
}
