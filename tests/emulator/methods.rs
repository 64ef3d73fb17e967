//! What single methods answer.

use crate::support::{JsonBody, World, get};
use serde_json::{Value, json};

#[test]
fn a_portal_tells_about_itself() {
    let world = World::new();
    assert_eq!(world.result("user.current", &json!({}))["ID"], "1");
    assert_eq!(world.result("profile", &json!({}))["ADMIN"], true);
    assert_eq!(world.result("user.admin", &json!({})), true);
    assert!(world.result("scope", &json!({})).as_array().unwrap().contains(&json!("crm")));
    assert!(world.result("methods", &json!({})).as_array().unwrap().contains(&json!("crm.item.list")));
    assert!(world.result("server.time", &json!({})).as_str().unwrap().contains('T'));
    assert_eq!(world.result("method.get", &json!({"name": "crm.lead.ADD"})), json!({"isExisting": true, "isAvailable": true}));
    assert_eq!(world.result("method.get", &json!({})), json!({"isExisting": false, "isAvailable": false}));
    assert_eq!(world.result("feature.get", &json!({"CODE": "rest_auth_connector"})), json!({"value": "Y"}));
    assert_eq!(world.post("feature.get", &json!({})).body["error"], "CODE_EMPTY");
    assert_eq!(world.post("app.info", &json!({})).body["error"], "ACCESS_DENIED");
    let token = world.emulator.access().access_token.expose();
    let info = get(world.client.get(format!("{}/rest/app.info?auth={token}", world.emulator.origin())));
    assert_eq!(info.body["result"]["INSTALLED"], true);
}

#[test]
fn every_listed_method_is_there() {
    let world = World::new();
    for name in world.result("methods", &json!({})).as_array().unwrap() {
        assert_ne!(world.post(name.as_str().unwrap(), &json!({})).body["error"], "ERROR_METHOD_NOT_FOUND", "{name}");
    }
}

#[test]
fn classic_crm_objects_live_a_whole_life() {
    let world = World::new();
    for entity in ["lead", "deal", "contact", "company"] {
        let call = |action: &str, params: Value| world.result(&format!("crm.{entity}.{action}"), &params);
        assert_eq!(call("add", json!({"fields": {"TITLE": "one", "NAME": "one", "COMMENTS": "c"}})), 1);
        let row = call("get", json!({"id": "1"}));
        assert_eq!((&row["ID"], &row["COMMENTS"], &row["ASSIGNED_BY_ID"]), (&json!("1"), &json!("c"), &json!("1")));
        assert_eq!(call("update", json!({"ID": 1, "fields": {"COMMENTS": "d", "DATE_CREATE": "no"}})), true);
        let changed = call("get", json!({"id": 1}));
        assert_eq!((&changed["COMMENTS"], &changed["DATE_CREATE"]), (&json!("d"), &row["DATE_CREATE"]));
        assert_eq!(call("fields", json!({}))["ID"]["isReadOnly"], true);
        assert_eq!(call("delete", json!({"id": 1})), true);
        let gone = world.post(&format!("crm.{entity}.get"), &json!({"id": 1}));
        assert_eq!((gone.status, &gone.body["error"], &gone.body["error_description"]), (400, &json!(""), &json!("Not found")));
        for action in ["update", "delete"] {
            let got = world.post(&format!("crm.{entity}.{action}"), &json!({"id": 1, "fields": {"COMMENTS": "x"}}));
            assert_eq!((got.status, got.body["error"].as_str()), (400, Some("")));
        }
    }
    let got = world.post("crm.lead.get", &json!({"id": "x"}));
    assert_eq!(got.body["error_description"], "ID is not defined or invalid.");
    assert_eq!(world.post("crm.lead.add", &json!({"fields": 1})).body["error_description"], "Parameter 'fields' must be array.");
}

#[test]
fn values_are_stored_as_the_portal_stores_them() {
    let world = World::new();
    let sums = [("10.10", "10.10", "10.1"), ("10", "10.00", "10"), ("0.5", "0.50", "0.5")];
    for (given, classic, universal) in sums {
        let body = format!("{{\"fields\":{{\"OPPORTUNITY\":{given},\"OPENED\":true,\"ASSIGNED_BY_ID\":2}}}}");
        let id =
            get(world.client.post(world.url("crm.deal.add")).header("Content-Type", "application/json").body(body)).body["result"].clone();
        let row = world.result("crm.deal.get", &json!({"id": id}));
        assert_eq!((&row["OPPORTUNITY"], &row["OPENED"], &row["ASSIGNED_BY_ID"]), (&json!(classic), &json!("Y"), &json!("2")));
        let item = world.result("crm.item.get", &json!({"entityTypeId": 2, "id": id}))["item"].clone();
        assert_eq!((item["opportunity"].to_string().as_str(), &item["assignedById"]), (universal, &json!(2)));
    }
}

#[test]
fn a_stage_decides_what_follows_from_it() {
    let world = World::new();
    world.result("crm.deal.add", &json!({"fields": {"STAGE_ID": "C1:NEW"}}));
    world.result("crm.deal.update", &json!({"id": 1, "fields": {"STAGE_ID": "C1:WON"}}));
    let deal = world.result("crm.deal.get", &json!({"id": 1}));
    assert_eq!((&deal["STAGE_SEMANTIC_ID"], &deal["CLOSED"]), (&json!("S"), &json!("Y")));
}

#[test]
fn multiple_values_are_added_changed_and_removed() {
    let world = World::new();
    let phones = |world: &World| world.result("crm.contact.get", &json!({"id": 1}))["PHONE"].clone();
    world.result("crm.contact.add", &json!({"fields": {"NAME": "n", "PHONE": [{"VALUE": "+1", "VALUE_TYPE": "HOME"}, {"VALUE": "+2"}]}}));
    let before = phones(&world);
    assert_eq!((&before[0]["VALUE_TYPE"], &before[1]["VALUE_TYPE"]), (&json!("HOME"), &json!("WORK")));
    let id = before[0]["ID"].clone();
    world.result("crm.contact.update", &json!({"id": 1, "fields": {"PHONE": [{"ID": id, "VALUE": "+9"}, {"VALUE": "+3"}]}}));
    let values: Vec<_> = phones(&world).as_array().unwrap().iter().map(|phone| phone["VALUE"].clone()).collect();
    assert_eq!(values, ["+9", "+2", "+3"]);
    world.result("crm.contact.update", &json!({"id": 1, "fields": {"PHONE": [{"ID": id, "VALUE": ""}]}}));
    assert_eq!(phones(&world).as_array().unwrap().len(), 2);
    assert_eq!(world.result("crm.contact.list", &json!({"filter": {"PHONE": "+3"}}))[0]["ID"], "1");
}

#[test]
fn universal_and_classic_methods_share_rows() {
    let world = World::new();
    let added =
        world.result("crm.item.add", &json!({"entityTypeId": 1, "fields": {"title": "t", "stageId": "IN_PROCESS", "ufCrm_1700": 5}}));
    assert_eq!((&added["item"]["id"], &added["item"]["entityTypeId"]), (&json!(1), &json!(1)));
    let lead = world.result("crm.lead.get", &json!({"id": 1}));
    assert_eq!((&lead["STATUS_ID"], &lead["UF_CRM_1700"]), (&json!("IN_PROCESS"), &json!("5")));
    let item = world.result("crm.item.update", &json!({"entityTypeId": 1, "id": 1, "fields": {"assignedById": 3}}))["item"].clone();
    assert_eq!((&item["assignedById"], &item["stageId"], &item["createdBy"]), (&json!(3), &json!("IN_PROCESS"), &json!(1)));
    assert_eq!(world.result("crm.item.delete", &json!({"entityTypeId": 1, "id": 1})), json!([]));
    let gone = world.post("crm.item.get", &json!({"entityTypeId": 1, "id": 1}));
    assert_eq!((gone.status, gone.body["error"].as_str()), (400, Some("NOT_FOUND")));
}

#[test]
fn other_types_have_their_own_rows() {
    let world = World::new();
    for kind in [31, 128, 1030] {
        assert_eq!(world.result("crm.item.add", &json!({"entityTypeId": kind, "fields": {"title": "t"}}))["item"]["id"], 1);
    }
    let entities: Vec<_> = world.changes().into_iter().map(|change| change.entity).collect();
    assert_eq!(entities, ["dynamic_31", "dynamic_128", "dynamic_1030"]);
    assert!(world.result("crm.item.fields", &json!({"entityTypeId": 128}))["fields"]["createdTime"]["isReadOnly"].as_bool().unwrap());
}

#[test]
fn tasks_of_the_second_generation() {
    let world = World::new();
    let added = world.result("tasks.task.add", &json!({"fields": {"TITLE": "t", "RESPONSIBLE_ID": 2, "AUDITORS": [3]}}))["task"].clone();
    assert_eq!((&added["id"], &added["responsibleId"], &added["status"]), (&json!("1"), &json!("2"), &json!("2")));
    assert_eq!((&added["auditors"], &added["responsible"]["name"]), (&json!(["3"]), &json!("Ben Baker")));
    world.result("tasks.task.update", &json!({"taskId": 1, "fields": {"STATUS": 5}}));
    let task = world.result("tasks.task.get", &json!({"taskId": 1, "select": ["TITLE", "STATUS"]}))["task"].clone();
    assert_eq!(task, json!({"id": "1", "title": "t", "status": "5"}));
    let got = world.post("tasks.task.list", &json!({"filter": {">ID": 0, "RESPONSIBLE_ID": 2}, "order": {"ID": "asc"}}));
    assert_eq!((&got.body["result"]["tasks"][0]["id"], &got.body["total"]), (&json!("1"), &json!(1)));
    assert_eq!(world.result("tasks.task.delete", &json!({"taskId": 1})), json!({"task": true}));
    assert_eq!(world.result("tasks.task.get", &json!({"taskId": 1})), json!([]));
    assert!(world.result("tasks.task.getFields", &json!({}))["fields"]["TITLE"]["required"].as_bool().unwrap());
}

#[test]
fn wrong_task_calls_are_refused_as_documented() {
    let world = World::new();
    for (action, params, code) in [
        ("add", json!({}), "100"),
        ("add", json!({"fields": {"RESPONSIBLE_ID": 1}}), "ERROR_CORE"),
        ("add", json!({"fields": {"TITLE": "t"}}), "ERROR_CORE"),
        ("add", json!({"fields": {"TITLE": "t", "RESPONSIBLE_ID": 99}}), "ERROR_CORE"),
        ("get", json!({}), "100"),
        ("get", json!({"taskId": "x"}), "0"),
        ("update", json!({"taskId": 9, "fields": {"TITLE": "t"}}), "0"),
        ("delete", json!({"taskId": 9}), "1048582"),
        ("list", json!({"order": {"NONSENSE": "asc"}}), "0"),
    ] {
        let got = world.post(&format!("tasks.task.{action}"), &params);
        assert_eq!((got.status, got.body["error"].as_str()), (400, Some(code)), "{action} {params}");
    }
    assert!(world.changes().is_empty());
}

#[test]
fn unreadable_json_is_refused() {
    let world = World::new();
    let got = get(world.client.post(world.url("crm.lead.add")).header("Content-Type", "application/json").body("{\"fields\":"));
    assert_eq!((got.status, got.body["error"].as_str()), (400, Some("INVALID_REQUEST")));
    assert_eq!(get(world.client.post(world.url("profile")).json_body(&json!([]))).status, 200);
}
