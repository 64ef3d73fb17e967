//! The third generation: tasks, batch, idempotency.

use crate::support::{Got, JsonBody, ManualClock, World, get};
use serde_json::{Value, json};
use std::time::Duration;

const PREFIX: &str = "BITRIX_REST_V3_EXCEPTION_";

fn task(title: &str) -> Value {
    json!({"fields": {"title": title, "creatorId": 1, "responsibleId": 2}})
}

fn add(world: &World, count: usize) {
    for number in 1..=count {
        world.result_v3("tasks.task.add", &task(&format!("task {number}")));
    }
}

fn refused(got: &Got, status: u16, code: &str) {
    assert_eq!((got.status, got.body["error"]["code"].as_str()), (status, Some(format!("{PREFIX}{code}").as_str())), "{}", got.body);
    assert!(got.body["error"]["message"].is_string());
}

#[test]
fn a_task_lives_a_whole_life() {
    let world = World::new();
    let item = world.result_v3("tasks.task.add", &task("t"))["item"].clone();
    assert_eq!((&item["id"], &item["status"], &item["creatorId"]), (&json!(1), &json!("pending"), &json!(1)));
    assert_eq!(world.result_v3("tasks.task.update", &json!({"id": 1, "fields": {"status": "completed"}})), json!({"result": true}));
    let got = world.result_v3("tasks.task.get", &json!({"id": 1, "select": ["id", "status", "nonsense", "responsible.name"]}));
    assert_eq!(got, json!({"item": {"id": 1, "status": "completed", "responsible": {"name": "Ben"}}}));
    assert_eq!(world.result("tasks.task.get", &json!({"taskId": 1}))["task"]["status"], "5");
    assert_eq!(world.result_v3("tasks.task.delete", &json!({"id": 1})), json!({"result": true}));
    refused(&world.post_v3("tasks.task.get", &json!({"id": 1})), 400, "ENTITYNOTFOUNDEXCEPTION");
    refused(&world.post_v3("tasks.task.delete", &json!({"id": 1})), 400, "ACCESSDENIEDEXCEPTION");
}

#[test]
fn wrong_calls_get_the_documented_codes() {
    let world = World::new();
    add(&world, 1);
    for (action, params, status, code) in [
        ("add", json!({"fields": {"title": "t"}}), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION"),
        ("add", json!({}), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION"),
        ("get", json!({}), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION"),
        ("get", json!({"id": "1"}), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION"),
        ("get", json!({"id": 1, "select": ["responsible.nonsense"]}), 400, "UNKNOWNDTOPROPERTYEXCEPTION"),
        ("get", json!({"id": 1, "select": "id"}), 400, "INVALIDSELECTEXCEPTION"),
        ("update", json!({"id": 1, "fields": {"creatorId": 2}}), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION"),
        ("update", json!({"id": 9, "fields": {"title": "x"}}), 400, "ACCESSDENIEDEXCEPTION"),
        ("list", json!({"filter": {">id": 1}}), 400, "UNKNOWNFILTEROPERATOREXCEPTION"),
        ("list", json!({"filter": [["id", "like", 1]]}), 400, "UNKNOWNFILTEROPERATOREXCEPTION"),
        ("list", json!({"filter": [["nonsense", 1]]}), 400, "UNKNOWNDTOPROPERTYEXCEPTION"),
        ("list", json!({"filter": [["title", "t"]]}), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION"),
        ("list", json!({"filter": [[1]]}), 400, "INVALIDFILTEREXCEPTION"),
        ("list", json!({"order": {"id": "up"}}), 400, "INVALIDORDEREXCEPTION"),
        ("list", json!({"pagination": {"limit": 0}}), 400, "INVALIDPAGINATIONEXCEPTION"),
        ("list", json!({"pagination": {"limit": "abc"}}), 400, "INVALIDPAGINATIONEXCEPTION"),
        ("list", json!({"pagination": {"limit": -1}}), 500, "INTERNAL_INTERNALEXCEPTION"),
    ] {
        refused(&world.post_v3(&format!("tasks.task.{action}"), &params), status, code);
    }
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn only_a_json_body_has_parameters() {
    let world = World::new();
    add(&world, 1);
    refused(&get(world.client.get(world.url_v3("tasks.task.get?id=1"))), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION");
    let form = world.client.post(world.url_v3("tasks.task.get")).header("Content-Type", "application/x-www-form-urlencoded").body("id=1");
    refused(&get(form), 400, "INVALIDJSONEXCEPTION");
    refused(&get(world.client.post(world.url_v3("tasks.task.get")).body("{")), 400, "INVALIDJSONEXCEPTION");
    assert_eq!(get(world.client.get(world.url_v3("rest.scope.list"))).body["result"]["tasks.task.add"], json!(["tasks"]));
    for name in ["documentation", "rest.documentation.openapi"] {
        let document = get(world.client.get(world.url_v3(name))).body;
        assert_eq!((&document["openapi"], document.get("result")), (&json!("3.0.0"), None));
        assert!(document["paths"]["/tasks.task.add"].is_object());
    }
}

#[test]
fn lists_are_cut_to_fifty_rows() {
    let world = World::new();
    add(&world, 60);
    let list = |params: Value| -> Vec<u64> {
        let items = world.result_v3("tasks.task.list", &params)["items"].clone();
        items.as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(list(json!({"pagination": {"limit": 1000}})).len(), 50);
    assert_eq!(list(json!({"pagination": {"page": 2, "limit": 50}})), (51..=60).collect::<Vec<_>>());
    assert_eq!(list(json!({"pagination": {"offset": 58}})), [59, 60]);
    assert_eq!(list(json!({"order": {"id": "DESC"}, "pagination": {"limit": 2}})), [60, 59]);
    assert_eq!(list(json!({"filter": [["id", ">", 57], ["id", "!=", 59]]})), [58, 60]);
    assert_eq!(list(json!({"filter": [["id", [3, 4]]]})), [3, 4]);
    assert_eq!(list(json!({"filter": [["id", "between", [5, 7]]]})), [5, 6, 7]);
    assert_eq!(list(json!({"filter": [{"logic": "or", "conditions": [["id", 1], ["id", ">=", 60]]}]})), [1, 60]);
    assert_eq!(world.result_v3("tasks.task.list", &json!({"filter": [["id", 1]]})), json!({"items": [{"id": 1}]}));
}

#[test]
fn a_batch_is_a_bare_list_with_references() {
    let world = World::new();
    add(&world, 2);
    let result = world.result_v3(
        "batch",
        &json!([
            {"method": "tasks.task.add", "as": "new", "query": task("n")},
            {"method": "tasks.task.get", "query": {"id": {"$ref": "new.item.id"}, "select": ["title"]}},
            {"method": "tasks.task.list", "as": "t", "query": {"select": ["id"]}},
            {"method": "tasks.task.list", "query": {"select": ["id"], "filter": [["id", "in", {"$refArray": "t.id"}]]}},
        ]),
    );
    assert_eq!(result[1], json!({"item": {"title": "n"}}));
    assert_eq!(result[3], json!({"items": [{"id": 1}, {"id": 2}, {"id": 3}]}));
}

#[test]
fn an_error_ends_a_batch_and_is_all_that_comes_back() {
    let world = World::new();
    let got = world.post_v3(
        "batch",
        &json!([
            {"method": "tasks.task.add", "query": task("stays")},
            {"method": "tasks.task.get", "query": {"id": 99}},
            {"method": "tasks.task.add", "query": task("never")},
        ]),
    );
    refused(&got, 400, "ENTITYNOTFOUNDEXCEPTION");
    assert_eq!(world.changes().len(), 1);
    for body in [json!({"cmd": {}, "halt": 0}), json!([{"method": "tasks.task.list", "params": {}}]), json!([["tasks.task.list"]])] {
        refused(&world.post_v3("batch", &body), 400, "INVALIDSELECTEXCEPTION");
    }
    let unresolved = json!([{"method": "tasks.task.get", "query": {"id": {"$ref": "no.item.id"}}}]);
    refused(&world.post_v3("batch", &unresolved), 400, "INVALIDSELECTEXCEPTION");
    assert_eq!(world.result_v3("batch", &json!({"0": {"method": "tasks.task.list", "query": []}})), json!([{"items": [{"id": 1}]}]));
}

fn keyed(world: &World, key: &str, body: &Value) -> Got {
    get(world.client.post(world.url_v3("tasks.task.add")).header("Idempotency-Key", key).json_body(body))
}

#[test]
fn a_key_makes_a_repeated_write_one() {
    let world = World::new();
    let first = keyed(&world, "k1", &task("t"));
    assert_eq!((first.headers["idempotency-key"].to_str().unwrap(), first.headers.get("idempotent-replayed")), ("k1", None));
    let second = keyed(&world, "k1", &task("t"));
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(second.body, first.body);
    assert_eq!(world.changes().len(), 1);
    assert!(!world.emulator.requests()[1].executed);
    refused(&keyed(&world, "k1", &task("other")), 422, "IDEMPOTENCYKEYREUSEDEXCEPTION");
    assert_eq!(keyed(&world, "k2", &task("t")).body["result"]["item"]["id"], 2);
    refused(&keyed(&world, &"x".repeat(256), &task("t")), 400, "INVALIDIDEMPOTENCYKEYEXCEPTION");
    refused(&keyed(&world, "", &task("t")), 400, "INVALIDIDEMPOTENCYKEYEXCEPTION");
    assert_eq!(keyed(&world, &"x".repeat(255), &task("t")).status, 200);
}

#[test]
fn a_lost_answer_is_found_again_under_its_key() {
    let world = World::new();
    world.fault("tasks.task.add:execute-then-drop:times=1");
    let request = world.client.post(world.url_v3("tasks.task.add")).header("Idempotency-Key", "k").json_body(&task("t"));
    assert!(request.send().is_err());
    let got = keyed(&world, "k", &task("t"));
    assert_eq!((&got.headers["idempotent-replayed"], &got.body["result"]["item"]["id"]), (&"true".parse().unwrap(), &json!(1)));
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn an_error_is_not_kept_and_an_answer_lives_for_a_day() {
    let clock = ManualClock::new();
    let world = World::with(|options| options.clock = clock.clone());
    refused(&keyed(&world, "k", &json!({"fields": {}})), 400, "VALIDATION_REQUESTVALIDATIONEXCEPTION");
    assert_eq!(keyed(&world, "k", &task("t")).status, 200);
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert!(keyed(&world, "k", &task("t")).headers.contains_key("idempotent-replayed"));
    clock.advance(Duration::from_secs(1));
    assert!(!keyed(&world, "k", &task("t")).headers.contains_key("idempotent-replayed"));
    assert_eq!(world.changes().len(), 2);
}

#[test]
fn the_second_generation_knows_no_keys() {
    let world = World::new();
    for _ in 0..2 {
        let request = world.client.post(world.url("crm.lead.add")).header("Idempotency-Key", "k").json_body(&json!({"fields": {}}));
        assert!(!get(request).headers.contains_key("idempotency-key"));
    }
    assert_eq!(world.changes().len(), 2);
}
