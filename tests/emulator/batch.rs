//! `batch` of the second generation.

use crate::support::{JsonBody, World, get};
use serde_json::{Map, json};

#[test]
fn named_commands_run_in_order_and_refer_to_earlier_results() {
    let world = World::new();
    let result = world.result(
        "batch",
        &json!({"halt": 0, "cmd": {
            "company": "crm.company.add?fields[TITLE]=Acme",
            "deal": "crm.deal.add?fields[TITLE]=For $result[company]&fields[COMPANY_ID]=$result[company]",
            "read": "crm.deal.get?id=$result[deal]",
            "list": "crm.deal.list?filter[ID]=$result[read][ID]&select[]=ID",
            "user": "user.current",
            "whole": "crm.lead.add?fields[UF_CRM_1]=$result[user][UF_DEPARTMENT]",
            "first": "crm.lead.add?fields[TITLE]=$result[list][0][ID]",
        }}),
    );
    assert_eq!((&result["result"]["read"]["TITLE"], &result["result"]["read"]["COMPANY_ID"]), (&json!("For 1"), &json!("1")));
    assert_eq!(result["result"]["list"], json!([{"ID": "1"}]));
    assert_eq!(world.result("crm.lead.get", &json!({"id": 1}))["UF_CRM_1"], json!(["1"]));
    assert_eq!(world.result("crm.lead.get", &json!({"id": 2}))["TITLE"], "1");
    assert_eq!((&result["result_error"], &result["result_next"]), (&json!([]), &json!([])));
    assert_eq!(result["result_total"], json!({"list": 1}));
    assert_eq!(result["result_time"].as_object().unwrap().len(), 7);
}

#[test]
fn a_reference_that_leads_nowhere_stays_as_text() {
    let world = World::new();
    world.result(
        "batch",
        &json!({"cmd": {"a": "crm.lead.add?fields[TITLE]=$result[no][ID]", "b": "crm.lead.add?fields[TITLE]=$result[a][x]!"}}),
    );
    let titles: Vec<_> = world.changes().iter().map(|change| change.fields["TITLE"].clone()).collect();
    assert_eq!(titles, ["$result[no][ID]", "$result[a][x]!"]);
}

#[test]
fn without_halt_errors_are_collected() {
    let world = World::new();
    let got = world.post("batch", &json!({"cmd": ["crm.lead.get?id=9", "crm.lead.add", "profile"]}));
    assert_eq!(got.status, 200);
    let result = &got.body["result"];
    assert_eq!(result["result_error"][0], json!({"error": "", "error_description": "Not found"}));
    assert_eq!(result["result"], json!({"2": world.result("profile", &json!({}))}));
    assert!(world.changes().is_empty());
}

#[test]
fn with_halt_the_first_error_ends_it() {
    let world = World::new();
    let halts = [json!(1), json!(true), json!("1")];
    for (number, halt) in halts.iter().enumerate() {
        let result = world.result(
            "batch",
            &json!({"halt": halt, "cmd": {"a": "crm.lead.add?fields[TITLE]=a", "b": "crm.lead.get", "c": "crm.lead.add?fields[TITLE]=c"}}),
        );
        assert_eq!(result["result"], json!({"a": number + 1}));
        assert!(result["result_error"].get("b").is_some() && result["result_error"].get("c").is_none());
    }
}

#[test]
fn numbered_commands_give_lists() {
    let world = World::new();
    let result = world.result("batch", &json!({"cmd": ["crm.lead.add?fields[TITLE]=a", "crm.lead.list"]}));
    assert_eq!(result["result"][0], 1);
    assert_eq!(result["result_total"], json!({"1": 1}));
    assert!(result["result_time"].is_array());
    let empty = world.result("batch", &json!({"cmd": {}}));
    for section in ["result", "result_error", "result_total", "result_next", "result_time"] {
        assert_eq!(empty[section], json!([]), "{section}");
    }
}

#[test]
fn fifty_commands_are_the_limit() {
    let world = World::new();
    let commands = |count: usize| json!({"cmd": vec!["crm.lead.add?fields[TITLE]=x"; count]});
    let got = world.post("batch", &commands(51));
    assert_eq!((got.status, got.body["error"].as_str()), (400, Some("ERROR_BATCH_LENGTH_EXCEEDED")));
    assert!(world.changes().is_empty());
    world.result("batch", &commands(50));
    assert_eq!(world.changes().len(), 50);
}

#[test]
fn a_batch_inside_a_batch_is_refused() {
    let world = World::new();
    let result = world.result("batch", &json!({"cmd": {"a": "batch?cmd[x]=profile", "b": "disk.folder.uploadFile?id=1"}}));
    for name in ["a", "b"] {
        assert_eq!(result["result_error"][name]["error"], "ERROR_BATCH_METHOD_NOT_ALLOWED");
    }
}

#[test]
fn a_batch_in_a_query_is_encoded_twice() {
    let world = World::new();
    let got = get(world.client.get(world.url("batch?cmd[a]=crm.lead.add%3Ffields%5BTITLE%5D%3Da%2526b")));
    assert_eq!(got.body["result"]["result"], json!({"a": 1}));
    assert_eq!(world.changes()[0].fields["TITLE"], "a&b");
}

#[test]
fn every_inner_write_is_logged_under_the_request() {
    let world = World::new();
    let commands: Map<_, _> = (0..3).map(|number| (format!("c{number}"), json!("crm.lead.add?fields[TITLE]=x"))).collect();
    get(world.client.post(world.url("batch")).header("X-Request-ID", "r-5").json_body(&json!({"cmd": commands})));
    let changes = world.changes();
    assert_eq!(changes.len(), 3);
    assert!(changes.iter().all(|change| change.request_id.as_deref() == Some("r-5") && change.method == "crm.lead.add"));
}
