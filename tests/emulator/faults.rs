//! Every fault, and whether the call was executed.

use crate::support::{JsonBody, World, get};
use b24::emulator::{SeenStatus, fault_kinds};
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

fn add(world: &World) -> RequestBuilder {
    world.client.post(world.url("crm.lead.add")).json_body(&json!({"fields": {"TITLE": "x"}}))
}

/// What a client gets: a status and a text, or nothing usable.
fn outcome(request: RequestBuilder) -> Option<(u16, String)> {
    let response = request.send().ok()?;
    let status = response.status().as_u16();
    Some((status, response.text().ok()?))
}

#[test]
fn every_fault_does_what_its_help_says() {
    let expected: &[(&str, Option<u16>, bool)] = &[
        ("drop-before-executing", None, false),
        ("execute-then-drop", None, true),
        ("execute-then-500", Some(500), true),
        ("html-502", Some(502), false),
        ("execute-then-html-502", Some(502), true),
        ("html-403", Some(403), false),
        ("truncated-json", None, true),
        ("slow:ms=1", Some(200), true),
        ("slow-before:ms=1", Some(200), true),
        ("held", None, true),
        ("held-before", None, true),
        ("redirect:location=https://other.example/", Some(302), false),
        ("query-limit", Some(503), false),
        ("overload", Some(503), false),
        ("operation-time-limit", Some(429), false),
        ("expired-token", Some(401), false),
        ("method-confirm", Some(401), false),
        ("error:status=400:code=ERROR_CORE", Some(400), false),
        ("answer", Some(200), true),
        (r#"answer:status=303:body={"result":1}"#, Some(303), true),
        ("redirect:status=307", Some(307), false),
        ("padded", Some(200), true),
        ("padded:mib=2:chunked=1", Some(200), true),
        ("internal-error", Some(500), true),
        ("empty-body-200", Some(200), true),
        ("garbage-200", Some(200), true),
        ("lone-surrogate", Some(200), true),
    ];
    for (name, _) in fault_kinds() {
        assert!(expected.iter().any(|(fault, ..)| fault.split(':').next() == Some(name)), "{name} is not tested");
    }
    for (fault, status, executed) in expected {
        let world = World::new();
        world.fault(&format!("crm.lead.add:{fault}:times=1"));
        let is_held = fault.starts_with("held");
        let got = if is_held { leave_when_seen(&world) } else { outcome(add(&world)) };
        assert_eq!(got.as_ref().map(|(status, _)| *status), *status, "{fault}");
        assert_eq!(world.changes().len(), usize::from(*executed), "{fault}");
        let seen = &world.emulator.requests()[0];
        let dropped = matches!(*fault, "drop-before-executing" | "execute-then-drop");
        assert_eq!((seen.status == SeenStatus::Dropped, seen.executed), (dropped, *executed), "{fault}");
        assert_eq!(get(add(&world)).status, 200, "{fault} is over");
    }
}

/// Sends an addition and leaves once it is seen; waits until it is executed.
fn leave_when_seen(world: &World) -> Option<(u16, String)> {
    let path = world.url("crm.lead.add").replace(&world.emulator.origin(), "");
    let mut stream = TcpStream::connect(world.emulator.address()).unwrap();
    write!(stream, "POST {path}?fields[TITLE]=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let is_seen = || world.emulator.requests().iter().any(|request| request.status == SeenStatus::Pending);
    while !is_seen() {
        std::thread::yield_now();
    }
    drop(stream);
    while !world.emulator.requests()[0].executed {
        std::thread::yield_now();
    }
    None
}

#[test]
fn what_is_held_before_is_executed_only_when_the_client_has_left() {
    let world = World::new();
    world.fault("crm.lead.add:held-before:times=1");
    let path = world.url("crm.lead.add").replace(&world.emulator.origin(), "");
    let mut stream = TcpStream::connect(world.emulator.address()).unwrap();
    write!(stream, "POST {path}?fields[TITLE]=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    while world.emulator.requests().is_empty() {
        std::thread::yield_now();
    }
    // A later call is answered, and this one has changed nothing yet.
    assert_eq!(get(add(&world)).status, 200);
    assert_eq!(world.changes().len(), 1);
    drop(stream);
    while world.changes().len() < 2 {
        std::thread::yield_now();
    }
}

#[test]
fn a_truncated_answer_announces_all_and_sends_half() {
    let world = World::new();
    world.fault("profile:truncated-json");
    let path = world.url("profile").replace(&world.emulator.origin(), "");
    let mut stream = TcpStream::connect(world.emulator.address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let announced = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned)).unwrap();
    assert_eq!(body.len(), announced.parse::<usize>().unwrap() / 2);
    assert!(body.starts_with("{\"result\":"));
}

#[test]
fn a_dropped_connection_gets_no_byte() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop");
    let path = world.url("crm.lead.add").replace(&world.emulator.origin(), "");
    let mut stream = TcpStream::connect(world.emulator.address()).unwrap();
    write!(stream, "POST {path}?fields[TITLE]=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn a_lone_surrogate_stands_in_json_that_is_otherwise_whole() {
    let world = World::new();
    world.fault("profile:lone-surrogate");
    let (_, text) = outcome(world.client.get(world.url("profile"))).unwrap();
    assert!(text.contains("\\ud800") && !text.contains("\\ud800\\u"));
    let repaired: Value = serde_json::from_str(&text.replace("\\ud800", "?")).unwrap();
    assert_eq!(repaired["result"]["ID"], "1");
}

#[test]
fn a_redirect_carries_its_location() {
    let world = World::new();
    world.fault("*:redirect:location=http://127.0.0.1:9/rest/:times=1");
    let response = add(&world).send().unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["location"].to_str().unwrap()), (302, "http://127.0.0.1:9/rest/"));
}

#[test]
fn faults_are_counted_skipped_and_cleared() {
    let world = World::new();
    world.fault("crm.*:error:status=403:code=ACCESS_DENIED:times=1:skip=1");
    let statuses: Vec<u16> = (0..3).map(|_| get(add(&world)).status).collect();
    assert_eq!(statuses, [200, 403, 200]);
    world.fault("*:query-limit");
    assert_eq!(get(add(&world)).status, 503);
    world.emulator.clear_faults();
    assert_eq!(get(add(&world)).status, 200);
}

#[test]
fn a_fault_that_answers_an_error_meets_inner_commands_too() {
    let world = World::new();
    world.fault("crm.lead.add:operation-time-limit:times=1");
    let batch = json!({"cmd": {"a": "crm.lead.add?fields[TITLE]=a", "b": "crm.lead.add?fields[TITLE]=b"}});
    let result = world.result("batch", &batch);
    assert_eq!(result["result_error"]["a"]["error"], "OPERATION_TIME_LIMIT");
    assert_eq!(result["result"], json!({"b": 1}));
}

#[test]
fn latency_passes_before_the_call_is_executed() {
    let clock = crate::support::ManualClock::new();
    let world = World::with(|options| {
        options.clock = clock.clone();
        options.limits.latency = std::time::Duration::from_secs(7);
    });
    add(&world).send().unwrap();
    let seen = world.emulator.requests()[0].at;
    assert_eq!(world.changes()[0].at, (seen + chrono::Duration::seconds(7)).format("%Y-%m-%dT%H:%M:%S+00:00").to_string());
}
