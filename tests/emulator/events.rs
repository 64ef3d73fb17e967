//! Who listens to which event.

use crate::handler::Handler;
use crate::support::{World, options};
use b24::emulator::Emulator;
use serde_json::{Value, json};

const URL: &str = "http://127.0.0.1:9/handler";

fn refused(world: &World, method: &str, body: &Value) -> (u16, String, String) {
    let got = world.call(method, body);
    let text = |name: &str| got.body[name].as_str().unwrap_or_default().to_owned();
    (got.status, text("error"), text("error_description"))
}

#[test]
fn handlers_are_bound_shown_and_unbound() {
    let world = World::new();
    assert_eq!(world.app("event.bind", &json!({"event": "onCrmLeadAdd", "handler": URL})), true);
    assert_eq!(world.app("event.bind", &json!({"EVENT": "ONCRMLEADADD", "HANDLER": URL, "AUTH_TYPE": 2})), true);
    assert_eq!(world.app("event.bind", &json!({"event": "OnCrmDynamicItemAdd_147", "event_type": "offline", "auth_connector": "x"})), true);
    assert_eq!(
        world.app("event.get", &json!({})),
        json!([
            {"event": "ONCRMLEADADD", "handler": URL, "auth_type": "0", "offline": 0},
            {"event": "ONCRMLEADADD", "handler": URL, "auth_type": "2", "offline": 0},
            {"event": "ONCRMDYNAMICITEMADD_147", "connector_id": "x", "offline": 1},
        ])
    );
    let unbind = |body: Value| world.app("event.unbind", &body)["count"].clone();
    assert_eq!(unbind(json!({"event": "oncrmleadadd", "handler": URL, "auth_type": ""})), 1);
    assert_eq!(unbind(json!({"event": "oncrmleadadd", "handler": "http://localhost/other"})), 0);
    assert_eq!(unbind(json!({"event": "oncrmleadadd", "handler": URL})), 1);
    assert_eq!(unbind(json!({"event": "ONCRMDYNAMICITEMADD_147", "event_type": "offline"})), 0);
    assert_eq!(unbind(json!({"event": "ONCRMDYNAMICITEMADD_147", "event_type": "offline", "auth_connector": "x"})), 1);
    assert_eq!(world.app("event.get", &json!({})), json!([]));
}

#[test]
fn what_cannot_be_bound_is_refused_as_documented() {
    let world = World::new();
    world.app("event.bind", &json!({"event": "ONCRMLEADADD", "handler": URL}));
    world.bind_offline("ONCRMLEADADD");
    for (body, code, description) in [
        (json!({"handler": URL}), "ERROR_ARGUMENT", "Argument 'EVENT' is null or empty"),
        (json!({"event": "ONCRMLEADADD"}), "ERROR_ARGUMENT", "Argument 'HANDLER' is null or empty"),
        (json!({"event": "ONNOTHING", "handler": URL}), "ERROR_EVENT_NOT_FOUND", "Event not found"),
        (json!({"event": "ONCRMLEADADD_1", "handler": URL}), "ERROR_EVENT_NOT_FOUND", "Event not found"),
        (json!({"event": "ONCRMLEADADD", "handler": URL}), "ERROR_CORE", "Unable to set event handler: Handler already binded"),
        (json!({"event": "ONCRMLEADADD", "event_type": "offline"}), "ERROR_CORE", "Unable to set event handler: Handler already binded"),
        (json!({"event": "ONCRMLEADADD", "event_type": "later"}), "ERROR_ARGUMENT", "Value must be one of {online|offline}"),
        (
            json!({"event": "ONOFFLINEEVENT", "event_type": "offline"}),
            "ERROR_ARGUMENT",
            "Offline event cannot be registered for this event.",
        ),
        (
            json!({"event": "ONCRMLEADADD", "handler": "ftp://127.0.0.1/"}),
            "ERROR_UNSUPPORTED_PROTOCOL",
            "Unsupported event handler protocol",
        ),
        (json!({"event": "ONCRMLEADADD", "handler": "handler.php"}), "ERROR_WRONG_HANDLER_URL", "Wrong handler URL"),
    ] {
        assert_eq!(refused(&world, "event.bind", &body), (400, code.to_owned(), description.to_owned()), "{body}");
    }
    let away = refused(&world, "event.bind", &json!({"event": "ONCRMLEADADD", "handler": "https://example.com/"}));
    assert_eq!((away.0, away.1.as_str()), (400, "ERROR_WRONG_HANDLER_URL"));
    assert!(away.2.contains("loopback") && away.2.contains("example.com"), "{}", away.2);
    assert_eq!(refused(&world, "event.unbind", &json!({"handler": URL})).1, "ERROR_ARGUMENT");
    assert_eq!(refused(&world, "event.unbind", &json!({"event": "ONCRMLEADADD"})).1, "ERROR_ARGUMENT");
    assert_eq!(world.app("event.get", &json!({})).as_array().unwrap().len(), 2);
}

#[test]
fn a_webhook_is_no_application() {
    let world = World::new();
    let methods = world.result("methods", &json!({}));
    let methods: Vec<&str> =
        methods.as_array().unwrap().iter().filter_map(Value::as_str).filter(|name| name.starts_with("event")).collect();
    assert_eq!(methods.len(), 9);
    for method in methods {
        let got = world.post(method, &json!({"event": "ONCRMLEADADD", "handler": URL}));
        assert_eq!((got.status, got.body["error"].as_str()), (403, Some("WRONG_AUTH_TYPE")), "{method}");
        assert_eq!(got.body["error_description"], "Current authorization type is denied for this method");
        assert_eq!(world.result("method.get", &json!({"name": method}))["isExisting"], true);
    }
}

#[test]
fn an_employee_without_rights_has_only_handlers_of_his_own() {
    let world = World::new();
    let token = world.token_of(2);
    world.app("event.bind", &json!({"event": "ONCRMDEALADD", "handler": URL}));
    world.bind_offline("ONCRMDEALADD");
    let call = |method: &str, body: Value| world.call_with(&token, method, &body);
    assert_eq!(call("event.bind", json!({"event": "ONCRMLEADADD", "handler": URL})).body["result"], true);
    assert_eq!(
        call("event.get", json!({})).body["result"],
        json!([{"event": "ONCRMLEADADD", "handler": URL, "auth_type": "2", "offline": 0}])
    );
    let offline = json!({"event": "ONCRMLEADADD", "event_type": "offline"});
    let foreign = json!({"event": "ONCRMLEADADD", "handler": URL, "auth_type": 3});
    for (method, body, description) in [
        ("event.bind", &offline, "Access denied! Offline events binding requires administrator access rights"),
        ("event.bind", &foreign, "Access denied! Event binding with AUTH_TYPE requires administrator access rights"),
        ("event.unbind", &offline, "Access denied! Offline events unbinding requires administrator access rights"),
        ("event.unbind", &foreign, "Access denied! Event unbinding with AUTH_TYPE requires administrator access rights"),
        ("event.offline.get", &json!({}), "Access denied!"),
        ("event.offline.list", &json!({}), "Access denied!"),
        ("event.offline.clear", &json!({"process_id": "x"}), "Access denied!"),
        ("event.offline.error", &json!({"process_id": "x"}), "Access denied!"),
    ] {
        let got = call(method, body.clone());
        assert_eq!((got.status, &got.body["error"], &got.body["error_description"]), (403, &json!("ACCESS_DENIED"), &json!(description)));
    }
    assert_eq!(call("event.unbind", json!({"event": "ONCRMDEALADD", "handler": URL})).body["result"]["count"], 0);
    assert_eq!(call("event.unbind", json!({"event": "ONCRMLEADADD", "handler": URL})).body["result"]["count"], 1);
}

#[test]
fn events_can_be_listed() {
    let world = World::new();
    let list = |body: Value| -> Vec<String> { serde_json::from_value(world.app("events", &body)).unwrap() };
    let own = list(json!({}));
    for name in ["ONAPPINSTALL", "ONAPPTEST", "ONOFFLINEEVENT", "ONUSERADD", "ONCRMLEADADD", "ONTASKADD"] {
        assert!(own.iter().any(|known| known == name), "{name}");
    }
    assert!(!own.iter().any(|name| name == "ONBOOKINGADD"));
    assert!(list(json!({"FULL": true})).iter().any(|name| name == "ONBOOKINGADD"));
    assert!(list(json!({"full": 1})).len() > 200);
    let tasks = list(json!({"SCOPE": "task", "FULL": true}));
    assert!(tasks.len() == 6 && tasks.iter().all(|name| name.starts_with("ONTASK")), "{tasks:?}");
}

#[test]
fn a_batch_can_bind_and_read_the_queue() {
    let world = World::new();
    let got = world.app(
        "batch",
        &json!({"cmd": {
            "bind": "event.bind?event=ONCRMLEADADD&event_type=offline",
            "add": "crm.lead.add?fields[TITLE]=x",
            "own": "crm.lead.add?fields[TITLE]=y&auth_connector=z",
            "take": "event.offline.get?clear=0",
            "clear": "event.offline.clear?process_id=$result[take][process_id]",
            "list": "event.offline.list",
            "no": "event.bind?event=ONNOTHING&handler=x",
        }}),
    );
    assert_eq!(got["result"]["take"]["events"].as_array().unwrap().len(), 2);
    assert_eq!((&got["result"]["clear"], &got["result"]["list"], &got["result_total"]["list"]), (&json!(true), &json!([]), &json!(0)));
    assert_eq!(got["result_error"]["no"]["error"], "ERROR_WRONG_HANDLER_URL");
}

#[test]
fn servers_of_one_folder_share_handlers_and_a_restart_keeps_them() {
    let world = World::new();
    let handler = Handler::new();
    world.app("event.bind", &json!({"event": "ONCRMLEADADD", "handler": handler.url}));
    world.bind_offline("ONCRMLEADADD");
    let bindings = world.app("event.get", &json!({}));
    let other = Emulator::start(options(&world.data)).unwrap();
    other.raise("ONCRMLEADADD", json!({"FIELDS": {"ID": "5"}})).unwrap();
    assert_eq!(handler.next().field("auth[domain]"), other.address().to_string());
    drop(other);
    assert_eq!(world.app("event.offline.list", &json!({}))[0]["EVENT_DATA"], json!({"FIELDS": {"ID": "5"}}));
    world.emulator.stop();
    let again = World::in_folder(&world.data);
    assert_eq!(again.app("event.get", &json!({})), bindings);
    assert_eq!(again.app("event.offline.get", &json!({}))["events"][0]["EVENT_DATA"], json!({"FIELDS": {"ID": "5"}}));
}

#[test]
fn reservations_and_failures_hold_for_every_server_and_after_a_restart() {
    let world = World::new();
    let other = World::in_folder(&world.data);
    world.bind_offline("ONCRMDEALUPDATE");
    for id in 1..=4 {
        other.emulator.raise("ONCRMDEALUPDATE", json!({"FIELDS": {"ID": id}})).unwrap();
    }
    let get = |server: &World, body: Value| server.app("event.offline.get", &body);
    let ids = |answer: &Value| answer["events"].as_array().unwrap().iter().map(|row| row["ID"].clone()).collect::<Vec<_>>();
    let process = get(&world, json!({"clear": 0, "limit": 3}))["process_id"].clone();
    let held = get(&other, json!({"clear": 0, "process_id": process}));
    assert_eq!(ids(&held), ["1", "2", "3"]);
    other.app("event.offline.error", &json!({"process_id": process, "message_id": [held["events"][1]["MESSAGE_ID"]]}));
    other.app("event.offline.clear", &json!({"process_id": process, "id": [3]}));
    world.emulator.stop();
    other.emulator.stop();
    let again = World::in_folder(&world.data);
    assert_eq!(ids(&get(&again, json!({"clear": 0, "process_id": process}))), ["1"]);
    assert_eq!(ids(&get(&again, json!({"error": 1}))), ["2"]);
    assert_eq!(ids(&get(&again, json!({}))), ["4"]);
    // Ids of rows that are gone do not return.
    again.emulator.raise("ONCRMDEALUPDATE", json!({"FIELDS": {"ID": 9}})).unwrap();
    assert_eq!(ids(&get(&again, json!({}))), ["5"]);
}
