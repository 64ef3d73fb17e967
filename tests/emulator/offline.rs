//! The offline queue of events.

use crate::support::{JsonBody, ManualClock, World};
use b24::emulator::Raised;
use b24::host::{Clock, SystemClock};
use serde_json::{Value, json};
use std::time::Duration;

const UPDATE: &str = "ONCRMDEALUPDATE";

fn deal(id: u64) -> Value {
    json!({"FIELDS": {"ID": id.to_string()}})
}

/// A portal whose queue holds updates of deals.
fn queue_of(deals: u64) -> World {
    let world = World::new();
    world.bind_offline(UPDATE);
    raise(&world, deals);
    world
}

fn raise(world: &World, deals: u64) {
    for id in 1..=deals {
        assert_eq!(world.emulator.raise(UPDATE, deal(id)).unwrap(), Raised { queued: 1, deliveries: 0 });
    }
}

/// Returns one column of rows.
fn column(rows: &Value, name: &str) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
}

fn get(world: &World, body: &Value) -> (Value, Vec<String>) {
    let result = world.app("event.offline.get", body);
    (result["process_id"].clone(), column(&result["events"], "ID"))
}

fn listed(world: &World, filter: &Value) -> Vec<String> {
    column(&world.app("event.offline.list", &json!({"filter": filter})), "ID")
}

#[test]
fn rows_look_as_documented() {
    let clock = ManualClock::new();
    let world = World::with(|options| options.clock = clock.clone());
    world.bind_offline("onCrmLeadAdd");
    world.result("crm.lead.add", &json!({"fields": {}}));
    let list = world.call("event.offline.list", &json!({}));
    assert_eq!(list.body["total"], 1);
    let mut row = list.body["result"][0].clone();
    let message = row["MESSAGE_ID"].as_str().unwrap().to_owned();
    assert_eq!(message.len(), 32);
    let stamp = row["TIMESTAMP_X"].as_str().unwrap().to_owned();
    assert_eq!(
        row,
        json!({
            "ID": "1", "TIMESTAMP_X": stamp, "EVENT_NAME": "ONCRMLEADADD", "EVENT_DATA": {"FIELDS": {"ID": "1"}},
            "EVENT_ADDITIONAL": {"user_id": "1"}, "MESSAGE_ID": message, "PROCESS_ID": "", "ERROR": "0",
        })
    );
    row.as_object_mut().unwrap().retain(|name, _| name != "PROCESS_ID" && name != "ERROR");
    assert_eq!(world.app("event.offline.get", &json!({})), json!({"process_id": null, "events": [row]}));
    assert_eq!(world.app("event.offline.get", &json!({})), json!({"process_id": null, "events": []}));
}

#[test]
fn changes_of_one_object_are_one_row_until_it_is_taken() {
    let clock = ManualClock::new();
    let world = World::with(|options| options.clock = clock.clone());
    world.bind_offline(UPDATE);
    world.bind_offline("ONCRMDEALADD");
    for _ in 0..2 {
        world.result("crm.deal.add", &json!({"fields": {}}));
    }
    let update = |id: u64| world.result("crm.deal.update", &json!({"id": id, "fields": {"TITLE": "x"}}));
    update(1);
    let first = world.app("event.offline.list", &json!({"filter": {"EVENT_NAME": UPDATE}}))[0].clone();
    clock.advance(Duration::from_secs(5));
    update(2);
    clock.advance(Duration::from_secs(5));
    for _ in 0..20 {
        update(1);
    }
    let rows = world.app("event.offline.get", &json!({"clear": 0, "filter": {"EVENT_NAME": UPDATE}}));
    // The least recently changed comes first.
    assert_eq!(column(&rows["events"], "ID"), ["4", "3"]);
    let young = &rows["events"][1];
    assert_eq!((&young["ID"], &young["MESSAGE_ID"]), (&first["ID"], &first["MESSAGE_ID"]));
    assert!(young["TIMESTAMP_X"].as_str() > first["TIMESTAMP_X"].as_str());
    update(1);
    let next = world.app("event.offline.get", &json!({"filter": {"EVENT_NAME": UPDATE}}))["events"].clone();
    assert_eq!((column(&next, "ID"), column(&next, "MESSAGE_ID")), (vec!["5".to_owned()], column(&json!([first]), "MESSAGE_ID")));
    assert_eq!(column(&world.app("event.offline.get", &json!({}))["events"], "EVENT_NAME"), ["ONCRMDEALADD", "ONCRMDEALADD"]);
}

#[test]
fn events_of_no_object_are_never_one_row() {
    let world = World::new();
    world.bind_offline("ONBOOKINGADD");
    for _ in 0..3 {
        world.emulator.raise("onBookingAdd", json!({"WORD": "same"})).unwrap();
    }
    assert_eq!(get(&world, &json!({})).1, ["1", "2", "3"]);
    assert!(world.emulator.raise("onNothing", json!({})).is_err());
}

#[test]
fn every_kind_of_object_has_its_event() {
    let world = World::new();
    let names = ["ONCRMLEADADD", "ONCRMDEALUPDATE", "ONCRMCONTACTDELETE", "ONCRMCOMPANYADD", "ONCRMQUOTEADD"];
    let typed = ["ONCRMDYNAMICITEMADD", "ONCRMDYNAMICITEMADD_147", "ONCRMDYNAMICITEMADD_148", "ONCRMDYNAMICITEMDELETE"];
    for name in names.iter().chain(&typed).chain(&["ONTASKADD", "ONTASKUPDATE", "ONTASKDELETE"]) {
        world.bind_offline(name);
    }
    for (method, body) in [
        ("crm.item.add", json!({"entityTypeId": 1, "fields": {}})),
        ("crm.deal.add", json!({"fields": {}})),
        ("crm.item.update", json!({"entityTypeId": 2, "id": 1, "fields": {"title": "x"}})),
        ("crm.contact.add", json!({"fields": {}})),
        ("crm.contact.delete", json!({"id": 1})),
        ("crm.company.add", json!({"fields": {}})),
        ("crm.item.add", json!({"entityTypeId": 7, "fields": {}})),
        ("crm.item.add", json!({"entityTypeId": 147, "fields": {}})),
        ("crm.item.delete", json!({"entityTypeId": 147, "id": 1})),
        ("tasks.task.add", json!({"fields": {"TITLE": "x", "RESPONSIBLE_ID": 1}})),
    ] {
        world.result(method, &body);
    }
    world.result_v3("tasks.task.update", &json!({"id": 1, "fields": {"title": "y"}}));
    world.result_v3("tasks.task.delete", &json!({"id": 1}));
    let rows = world.app("event.offline.get", &json!({"order": {"ID": "ASC"}}))["events"].clone();
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| (row["EVENT_NAME"].as_str().unwrap(), &row["EVENT_DATA"])).collect();
    let (one, item) = (json!({"FIELDS": {"ID": "1"}}), json!({"FIELDS": {"ID": "1", "ENTITY_TYPE_ID": "147"}}));
    let task = json!({"ID": 1});
    assert_eq!(rows[..8].iter().map(|(name, _)| *name).collect::<Vec<_>>(), [&names[..], &typed[..2], &typed[3..]].concat());
    assert!(rows[..5].iter().all(|(_, data)| **data == one) && rows[5..8].iter().all(|(_, data)| **data == item));
    let undefined = json!("undefined");
    for (row, (name, before, after, seen_before, seen_after)) in rows[8..].iter().zip([
        ("ONTASKADD", &undefined, &task, "N", "undefined"),
        ("ONTASKUPDATE", &task, &task, "undefined", "undefined"),
        ("ONTASKDELETE", &task, &undefined, "undefined", "N"),
    ]) {
        let data = json!({
            "FIELDS_BEFORE": before, "FIELDS_AFTER": after, "IS_ACCESSIBLE_BEFORE": seen_before, "IS_ACCESSIBLE_AFTER": seen_after,
        });
        assert_eq!((row.0, row.1), (name, &data));
    }
    assert_eq!(rows.len(), 11);
}

#[test]
fn a_taken_row_is_hidden_until_its_process_gives_it_up() {
    let world = queue_of(5);
    let (first, ids) = get(&world, &json!({"clear": 0, "limit": 2}));
    assert_eq!(ids, ["1", "2"]);
    let (second, ids) = get(&world, &json!({"clear": "0", "limit": 2}));
    assert_eq!(ids, ["3", "4"]);
    assert!(first.as_str().unwrap().len() == 32 && first != second);
    assert_eq!(listed(&world, &json!({"PROCESS_ID": first})), ["1", "2"]);
    assert_eq!(listed(&world, &json!({"!PROCESS_ID": ""})), ["1", "2", "3", "4"]);
    // The same process again: its own rows, and no new ones.
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": first})), (first.clone(), vec!["1".to_owned(), "2".to_owned()]));
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": "unknown"})), (json!("unknown"), vec![]));
    let clear = |body: Value| assert_eq!(world.app("event.offline.clear", &body), true);
    clear(json!({"process_id": first, "id": [1, 3]}));
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": first})).1, ["2"]);
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": second})).1, ["3", "4"]);
    let message = column(&world.app("event.offline.list", &json!({"filter": {"ID": 4}})), "MESSAGE_ID");
    clear(json!({"process_id": second, "id": [], "message_id": message}));
    assert_eq!(listed(&world, &json!({})), ["2", "3", "4", "5"]);
    clear(json!({"process_id": second, "message_id": message}));
    assert_eq!(listed(&world, &json!({})), ["2", "3", "5"]);
    clear(json!({"process_id": "unknown"}));
    clear(json!({"process_id": second}));
    assert_eq!(listed(&world, &json!({})), ["2", "5"]);
    // With `clear=1` the answer still names the process, and ends it.
    assert_eq!(get(&world, &json!({"process_id": first})), (first, vec!["2".to_owned()]));
    assert_eq!(get(&world, &json!({})), (Value::Null, vec!["5".to_owned()]));
}

#[test]
fn failed_rows_are_kept_apart() {
    let world = queue_of(3);
    let (process, _) = get(&world, &json!({"clear": 0}));
    let message = column(&world.app("event.offline.list", &json!({"filter": {"ID": 2}})), "MESSAGE_ID");
    world.emulator.raise(UPDATE, deal(2)).unwrap();
    assert_eq!(world.app("event.offline.error", &json!({"process_id": process, "message_id": message})), true);
    assert_eq!(listed(&world, &json!({"ERROR": 1})), ["2"]);
    // The failed row stands for the one that waited, and for later changes.
    assert_eq!(listed(&world, &json!({})), ["1", "2", "3"]);
    world.emulator.raise(UPDATE, deal(2)).unwrap();
    assert_eq!(listed(&world, &json!({})), ["1", "2", "3"]);
    world.app("event.offline.clear", &json!({"process_id": process}));
    assert_eq!(get(&world, &json!({})).1, Vec::<String>::new());
    let (again, ids) = get(&world, &json!({"error": 1, "clear": 0}));
    assert_eq!(ids, ["2"]);
    world.emulator.raise(UPDATE, deal(2)).unwrap();
    assert_eq!(get(&world, &json!({})).1, ["5"]);
    assert_eq!(get(&world, &json!({"process_id": again, "clear": 0})).1, Vec::<String>::new());
    assert_eq!(get(&world, &json!({"process_id": again, "clear": 0, "error": 1})).1, ["2"]);
    world.app("event.offline.clear", &json!({"process_id": again}));
    assert_eq!(listed(&world, &json!({})), Vec::<String>::new());
    raise(&world, 2);
    let (process, _) = get(&world, &json!({"clear": 0}));
    world.app("event.offline.error", &json!({"process_id": process}));
    assert_eq!(get(&world, &json!({"error": 1})).1.len(), 2);
}

#[test]
fn marking_deletes_the_other_rows_of_a_message() {
    let world = queue_of(3);
    let (first, ids) = get(&world, &json!({"clear": 0, "limit": 1}));
    assert_eq!(ids, ["1"]);
    // A later change of the same object, taken by another process.
    world.emulator.raise(UPDATE, deal(1)).unwrap();
    let (second, ids) = get(&world, &json!({"clear": 0, "filter": {"ID": 4}}));
    assert_eq!(ids, ["4"]);
    let message = |id: u64| column(&world.app("event.offline.list", &json!({"filter": {"ID": id}})), "MESSAGE_ID");
    let named = message(1);
    let mark = |process: &Value, messages: &[String]| {
        assert_eq!(world.app("event.offline.error", &json!({"process_id": process, "message_id": messages})), true);
    };
    mark(&first, &named);
    assert_eq!(listed(&world, &json!({})), ["1", "2", "3"]);
    assert_eq!(listed(&world, &json!({"ERROR": 1})), ["1"]);
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": second})).1, Vec::<String>::new());
    // A process that holds none of them deletes those that wait; what is
    // failed, or is not named, stays.
    mark(&json!("nobody"), &[named, message(2)].concat());
    assert_eq!(listed(&world, &json!({})), ["1", "3"]);
    mark(&json!("nobody"), &[]);
    assert_eq!(listed(&world, &json!({})), ["1", "3"]);
}

#[test]
fn filter_order_and_limit_choose_the_rows() {
    let world = queue_of(60);
    let list = world.call("event.offline.list", &json!({"order": {"ID": "DESC"}}));
    assert_eq!((&list.body["total"], &list.body["next"], &list.body["result"][0]["ID"]), (&json!(60), &json!(50), &json!("60")));
    assert_eq!(column(&world.app("event.offline.list", &json!({"start": 50})), "ID").len(), 10);
    assert_eq!(get(&world, &json!({"filter": {">ID": 57, "!ID": 59}})).1, ["58", "60"]);
    assert_eq!(get(&world, &json!({"order": {"ID": "DESC"}, "limit": "3"})).1, ["59", "57", "56"]);
    assert_eq!(get(&world, &json!({"filter": {"EVENT_NAME": "ONCRMLEADADD"}})).1, Vec::<String>::new());
    assert_eq!(get(&world, &json!({"filter": {"<TIMESTAMP_X": "2020-01-01T00:00:00+00:00"}})).1, Vec::<String>::new());
    assert_eq!(get(&world, &json!({"clear": 0})).1.len(), 50);
    assert_eq!(get(&world, &json!({"limit": 1000})).1.len(), 5);
}

#[test]
fn what_the_queue_cannot_mean_is_refused() {
    let world = queue_of(1);
    for (method, body) in [
        ("event.offline.get", json!({"limit": 0})),
        ("event.offline.get", json!({"limit": "all"})),
        ("event.offline.get", json!({"process_id": ""})),
        ("event.offline.get", json!({"filter": {"EVENT_DATA": 1}})),
        ("event.offline.get", json!({"filter": {"PROCESS_ID": ""}})),
        ("event.offline.get", json!({"order": {"ERROR": "ASC"}})),
        ("event.offline.clear", json!({})),
        ("event.offline.clear", json!({"process_id": "x", "id": 1})),
        ("event.offline.clear", json!({"process_id": "x", "id": ["one"]})),
        ("event.offline.clear", json!({"process_id": "x", "message_id": ["1"]})),
        ("event.offline.error", json!({"message_id": []})),
        ("event.offline.error", json!({"process_id": "x", "message_id": "y"})),
    ] {
        let got = world.call(method, &body);
        assert_eq!((got.status, got.body["error"].as_str()), (400, Some("ERROR_ARGUMENT")), "{method} {body}");
    }
    assert_eq!(listed(&world, &json!({})), ["1"]);
}

#[test]
fn a_source_key_has_its_own_queue_and_no_echo() {
    let world = World::new();
    world.bind_offline("ONCRMLEADADD");
    world.app("event.bind", &json!({"event": "ONCRMLEADADD", "event_type": "offline", "auth_connector": "shop"}));
    world.result("crm.lead.add", &json!({"fields": {}}));
    world.result("crm.lead.add", &json!({"fields": {}, "auth_connector": "shop"}));
    world.result("crm.lead.add", &json!({"fields": {}, "auth_connector": "other"}));
    let leads = |body: Value| -> Vec<String> {
        let rows = world.app("event.offline.list", &body);
        rows.as_array().unwrap().iter().map(|row| row["EVENT_DATA"]["FIELDS"]["ID"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(leads(json!({})), ["1", "2", "3"]);
    assert_eq!(leads(json!({"auth_connector": "shop"})), ["1", "3"]);
    assert_eq!(leads(json!({"auth_connector": "other"})), Vec::<String>::new());
    let (process, _) = get(&world, &json!({"clear": 0, "auth_connector": "shop"}));
    // Without the key the call means the other queue, and says nothing.
    assert_eq!(world.app("event.offline.clear", &json!({"process_id": process})), true);
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": process})).1, Vec::<String>::new());
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": process, "auth_connector": "shop"})).1, ["2", "5"]);
    world.app("event.offline.clear", &json!({"process_id": process, "auth_connector": "shop"}));
    assert_eq!(leads(json!({"auth_connector": "shop"})), Vec::<String>::new());
    assert_eq!(leads(json!({})).len(), 3);
}

#[test]
fn every_write_takes_a_source_key() {
    let world = World::new();
    let names = ["ONCRMDEALADD", "ONCRMDEALUPDATE", "ONCRMDEALDELETE", "ONTASKADD", "ONTASKUPDATE", "ONTASKDELETE"];
    for name in names {
        world.app("event.bind", &json!({"event": name, "event_type": "offline", "auth_connector": "me"}));
    }
    let with_key = |mut body: Value| {
        body["auth_connector"] = json!("me");
        body
    };
    for round in ["crm.deal", "crm.item"] {
        let add = world.result(&format!("{round}.add"), &with_key(json!({"entityTypeId": 2, "fields": {"title": "x"}})));
        let id = if round == "crm.deal" { add } else { add["item"]["id"].clone() };
        world.result(&format!("{round}.update"), &with_key(json!({"entityTypeId": 2, "id": id, "fields": {"title": "y"}})));
        world.result(&format!("{round}.delete"), &with_key(json!({"entityTypeId": 2, "id": id})));
    }
    world.result("tasks.task.add", &with_key(json!({"fields": {"TITLE": "x", "RESPONSIBLE_ID": 1}})));
    world.result_v3("tasks.task.add", &with_key(json!({"fields": {"title": "x", "creatorId": 1, "responsibleId": 1}})));
    world.result_v3("tasks.task.update", &with_key(json!({"id": 1, "fields": {"title": "y"}})));
    world.result_v3("tasks.task.delete", &with_key(json!({"id": 1})));
    let command = json!({"cmd": ["crm.deal.add?fields[TITLE]=x"], "auth_connector": "me"});
    assert_eq!(world.result("batch", &command)["result_error"], json!([]));
    assert_eq!(world.app("event.offline.list", &json!({"auth_connector": "me"})), json!([]));
    let command = json!({"cmd": ["crm.deal.add?fields[TITLE]=x&auth_connector=other"], "auth_connector": "me"});
    world.result("batch", &command);
    assert_eq!(world.app("event.offline.list", &json!({"auth_connector": "me"})).as_array().unwrap().len(), 1);
}

#[test]
fn a_reservation_lives_thirty_days() {
    let clock = ManualClock::new();
    let world = World::with(|options| {
        options.clock = clock.clone();
        options.limits.token_ttl_s = 365 * 24 * 3600;
    });
    let day = Duration::from_secs(24 * 3600);
    world.bind_offline(UPDATE);
    raise(&world, 2);
    clock.advance(100 * day);
    let (process, ids) = get(&world, &json!({"clear": 0, "limit": 1}));
    assert_eq!(ids, ["1"]);
    clock.advance(30 * day);
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": process})).1, ["1"]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": process})).1, Vec::<String>::new());
    assert_eq!(listed(&world, &json!({})), ["2"]);
}

#[test]
fn parallel_calls_get_different_rows() {
    let world = queue_of(100);
    let mut ids: Vec<u64> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..10).map(|_| scope.spawn(|| get(&world, &json!({"clear": 0, "limit": 10})).1)).collect();
        calls.into_iter().flat_map(|call| call.join().unwrap()).map(|id| id.parse().unwrap()).collect()
    });
    ids.sort_unstable();
    assert_eq!(ids, (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_lost_answer_leaves_the_rows_with_a_process_nobody_knows() {
    let world = queue_of(2);
    let send = |body: Value| {
        let request = world.client.post(format!("{}/rest/event.offline.get", world.emulator.origin()));
        request.bearer_auth(world.emulator.access().access_token.expose()).json_body(&body).send()
    };
    world.fault("event.offline.get:execute-then-drop:times=1");
    assert!(send(json!({"clear": 0})).is_err());
    assert_eq!(get(&world, &json!({"clear": 0})).1, Vec::<String>::new());
    let rows = world.app("event.offline.list", &json!({"filter": {"!PROCESS_ID": ""}}));
    let process = column(&rows, "PROCESS_ID");
    assert_eq!((process.len(), &process[0]), (2, &process[1]));
    assert_eq!(get(&world, &json!({"clear": 0, "process_id": process[0]})).1, ["1", "2"]);
    world.app("event.offline.clear", &json!({"process_id": process[0]}));
    raise(&world, 1);
    // Without `clear=0` the rows are lost with the answer.
    world.fault("event.offline.get:execute-then-drop:times=1");
    assert!(send(json!({})).is_err());
    assert_eq!(listed(&world, &json!({})), Vec::<String>::new());
    world.fault("event.bind:drop-before-executing:times=1");
    let binding = json!({"event": "ONCRMLEADADD", "event_type": "offline"});
    let request = world.client.post(format!("{}/rest/event.bind", world.emulator.origin()));
    assert!(request.bearer_auth(world.emulator.access().access_token.expose()).json_body(&binding).send().is_err());
    assert_eq!(world.app("event.get", &json!({})).as_array().unwrap().len(), 1);
}

#[test]
fn a_refused_change_queues_nothing_and_the_log_has_changes_only() {
    let world = World::new();
    world.bind_offline(UPDATE);
    world.post("crm.deal.update", &json!({"id": 7, "fields": {}}));
    world.result("crm.deal.add", &json!({"fields": {}}));
    world.result("crm.deal.update", &json!({"id": 1, "fields": {}}));
    world.emulator.raise(UPDATE, deal(9)).unwrap();
    assert_eq!(listed(&world, &json!({})), ["1", "2"]);
    assert_eq!(world.changes().iter().map(|change| change.method.as_str()).collect::<Vec<_>>(), ["crm.deal.add", "crm.deal.update"]);
}

#[test]
fn ten_thousand_rows_are_taken_page_by_page() {
    let world = queue_of(10_000);
    let begun_ns = SystemClock.boot_ns();
    let mut taken = 0;
    for _ in 0..100 {
        let (process, ids) = get(&world, &json!({"clear": 0, "order": {"TIMESTAMP_X": "ASC"}}));
        taken += ids.len();
        world.app("event.offline.clear", &json!({"process_id": process}));
    }
    assert_eq!(taken, 5000);
    assert_eq!(get(&world, &json!({"filter": {">ID": 9990}})).1.len(), 10);
    let list = world.call("event.offline.list", &json!({"start": 4950}));
    assert_eq!((&list.body["total"], list.body["result"].as_array().unwrap().len()), (&json!(4990), 40));
    // 200 calls; a copy of the queue in each would take minutes.
    let taken = Duration::from_nanos(SystemClock.boot_ns() - begun_ns);
    assert!(taken < Duration::from_secs(60), "{taken:?}");
}
