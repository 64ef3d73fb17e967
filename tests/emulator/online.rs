//! What online handlers get, and what becomes of it.

use crate::handler::Handler;
use crate::support::{JsonBody, World, get};
use b24::emulator::Delivery;
use b24::host::{Clock, SystemClock};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

fn bind(world: &World, event: &str, handler: &str) {
    assert_eq!(world.app("event.bind", &json!({"event": event, "handler": handler})), true);
}

fn add_lead(world: &World) {
    world.result("crm.lead.add", &json!({"fields": {}}));
}

fn passed(begun_ns: u64) -> Duration {
    Duration::from_nanos(SystemClock.boot_ns() - begun_ns)
}

/// Waits for that many deliveries to end.
fn ended(world: &World, count: usize) -> Vec<Delivery> {
    let begun_ns = SystemClock.boot_ns();
    loop {
        let deliveries = world.emulator.deliveries();
        if deliveries.len() >= count {
            return deliveries;
        }
        assert!(passed(begun_ns) < Duration::from_secs(30), "{deliveries:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_handler_gets_what_is_documented() {
    let world = World::new();
    let handler = Handler::new();
    bind(&world, "ONTASKADD", &handler.url);
    bind(&world, "onCrmDynamicItemAdd", &handler.url);
    world.result("crm.item.add", &json!({"entityTypeId": 147, "fields": {"title": "x"}}));
    let event = handler.next();
    assert!(event.head.starts_with("POST /handler.php?app=1 HTTP/1.1\r\n"), "{}", event.head);
    assert!(event.head.to_lowercase().contains("content-type: application/x-www-form-urlencoded\r\n"));
    let access = world.emulator.access();
    let token = event.field("auth[access_token]").to_owned();
    assert!(token.len() > 20 && token != access.access_token.expose());
    let (ts, left) = (event.field("ts").to_owned(), event.field("auth[expires_in]").to_owned());
    assert!(ts.parse::<u64>().unwrap() > 1_700_000_000 && (1..=3600).contains(&left.parse::<u64>().unwrap()));
    let endpoint = format!("{}/rest/", world.emulator.origin());
    let expected: BTreeMap<String, String> = [
        ("event", "ONCRMDYNAMICITEMADD"),
        ("event_handler_id", "2"),
        ("data[FIELDS][ID]", "1"),
        ("data[FIELDS][ENTITY_TYPE_ID]", "147"),
        ("ts", &ts),
        ("auth[access_token]", &token),
        ("auth[expires_in]", &left),
        ("auth[scope]", "crm"),
        ("auth[domain]", &world.emulator.address().to_string()),
        ("auth[server_endpoint]", &endpoint),
        ("auth[status]", "L"),
        ("auth[client_endpoint]", &endpoint),
        ("auth[member_id]", &access.member_id),
        ("auth[application_token]", access.application_token.expose()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    assert_eq!(event.fields, expected);
    world.result("tasks.task.add", &json!({"fields": {"TITLE": "x", "RESPONSIBLE_ID": 1}}));
    let task = handler.next();
    assert_eq!(
        (task.field("data[FIELDS_AFTER][ID]"), task.field("data[FIELDS_BEFORE]"), task.field("auth[scope]")),
        ("1", "undefined", "task")
    );
    // The same token again: events do not fill the journal with tokens.
    assert_eq!(task.field("auth[access_token]"), token);
}

#[test]
fn an_event_acts_for_whoever_caused_it_or_for_whom_the_handler_named() {
    let world = World::new();
    let (causing, named) = (Handler::new(), Handler::new());
    bind(&world, "ONCRMLEADADD", &causing.url);
    world.app("event.bind", &json!({"event": "ONCRMLEADADD", "handler": named.url, "auth_type": 3}));
    let ben = world.emulator.access().webhooks[1].url.expose().to_owned();
    get(world.client.post(format!("{ben}crm.lead.add")).json_body(&json!({"fields": {}})));
    for (handler, user) in [(&causing, "2"), (&named, "3")] {
        let token = handler.next().field("auth[access_token]").to_owned();
        assert_eq!(world.call_with(&token, "user.current", &json!({})).body["result"]["ID"], user);
    }
}

#[test]
fn event_test_sends_its_parameters() {
    let world = World::new();
    let handler = Handler::new();
    bind(&world, "ONAPPTEST", &handler.url);
    assert_eq!(world.app("event.test", &json!({"any": "data", "list": [1, {"a b": "ü&="}]})), 1);
    let event = handler.next();
    let data = ["data[QUERY][any]", "data[QUERY][list][0]", "data[QUERY][list][1][a b]"].map(|name| event.field(name));
    assert_eq!((event.field("event"), data), ("ONAPPTEST", ["data", "1", "ü&="]));
}

#[test]
fn events_come_in_order_and_after_the_answer_was_made() {
    let world = World::new();
    let handler = Handler::new();
    bind(&world, "ONCRMLEADADD", &handler.url);
    for _ in 0..30 {
        add_lead(&world);
    }
    let ids: Vec<String> = (0..30).map(|_| handler.next().field("data[FIELDS][ID]").to_owned()).collect();
    assert_eq!(ids, (1..=30).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_source_key_keeps_an_echo_from_its_handler() {
    let world = World::new();
    let handler = Handler::new();
    world.app("event.bind", &json!({"event": "ONCRMLEADADD", "handler": handler.url, "auth_connector": "me"}));
    world.result("crm.lead.add", &json!({"fields": {}, "auth_connector": "me"}));
    world.result("crm.lead.add", &json!({"fields": {}, "auth_connector": "you"}));
    assert_eq!(handler.next().field("data[FIELDS][ID]"), "2");
}

#[test]
fn a_failed_delivery_is_noted_and_not_repeated() {
    let world = World::new();
    let gone = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let broken = Handler::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let elsewhere = Handler::new();
    let moved = Handler::answering("HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    for handler in [&gone, &broken.url, &moved.url, &"https://127.0.0.1:1/".to_owned(), &elsewhere.url] {
        bind(&world, "ONCRMLEADADD", handler);
    }
    add_lead(&world);
    let deliveries = ended(&world, 5);
    let of = |handler: &str| deliveries.iter().find(|delivery| delivery.handler == handler).unwrap();
    assert_eq!((of(&broken.url).status, of(&moved.url).status, of(&elsewhere.url).status), (Some(500), Some(302), Some(200)));
    assert_eq!(of(&broken.url).event, "ONCRMLEADADD");
    assert!(of(&gone).error.as_deref().unwrap().contains("cannot connect"));
    assert!(of("https://127.0.0.1:1/").error.as_deref().unwrap().contains("http only"));
    world.emulator.stop();
    assert_eq!((broken.come().len(), moved.come().len(), elsewhere.come().len()), (1, 1, 1));
}

#[test]
fn a_silent_handler_holds_nobody_up() {
    let world = World::new();
    let (silent, quick) = (Handler::answering(""), Handler::new());
    bind(&world, "ONCRMLEADADD", &silent.url);
    bind(&world, "ONCRMLEADADD", &quick.url);
    for _ in 0..3 {
        add_lead(&world);
    }
    for id in ["1", "2", "3"] {
        assert_eq!(quick.next().field("data[FIELDS][ID]"), id);
    }
    assert_eq!(silent.next().field("data[FIELDS][ID]"), "1");
    let begun_ns = SystemClock.boot_ns();
    world.emulator.stop();
    assert!((4..9).contains(&passed(begun_ns).as_secs()), "{:?}", passed(begun_ns));
    // One order at a time: two never left.
    let unsent = world.emulator.deliveries().into_iter().filter(|delivery| delivery.error.is_some());
    assert_eq!(unsent.map(|delivery| delivery.handler).collect::<Vec<_>>(), [silent.url.clone(), silent.url.clone()]);
    assert!(world.emulator.raise("ONCRMLEADADD", json!({})).is_err());
}

#[test]
fn an_emulator_that_ends_delivers_first() {
    let world = World::new();
    let handler = Handler::new();
    bind(&world, "ONCRMLEADADD", &handler.url);
    for _ in 0..20 {
        add_lead(&world);
    }
    drop(world);
    assert_eq!(handler.come().len(), 20);
}

#[test]
fn the_lost_answer_of_a_change_does_not_lose_its_event() {
    let world = World::new();
    let handler = Handler::new();
    bind(&world, "ONCRMLEADADD", &handler.url);
    world.fault("crm.lead.add:execute-then-drop:times=1");
    assert!(world.client.post(world.url("crm.lead.add")).json_body(&json!({"fields": {}})).send().is_err());
    assert_eq!(handler.next().field("data[FIELDS][ID]"), "1");
}
