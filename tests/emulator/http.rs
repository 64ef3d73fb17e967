//! Addresses, encodings, envelopes.

use crate::support::{JsonBody, World, get};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn every_spelling_of_an_address_that_sdks_send_is_taken() {
    let world = World::new();
    let webhook = world.url("");
    for url in [
        world.url("profile"),
        world.url("profile/"),
        world.url("profile.json"),
        world.url("PROFILE.JSON"),
        world.url("/profile/?bx24_request_id=1&bx24_sdk_ver=2"),
        webhook.replace("/rest/", "//rest//") + "profile",
    ] {
        assert_eq!(get(world.client.get(&url)).body["result"]["ID"], "1", "{url}");
    }
}

#[test]
fn a_query_a_form_and_json_say_the_same() {
    let world = World::new();
    let query = get(world.client.get(world.url("crm.lead.add?fields[TITLE]=a%26b&fields[PHONE][0][VALUE]=%2B1")));
    let form = get(world
        .client
        .post(world.url("crm.lead.add"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("fields%5BTITLE%5D=a%26b&fields[PHONE][0][VALUE]=%2B1"));
    let json = world.post("crm.lead.add", &json!({"fields": {"TITLE": "a&b", "PHONE": [{"VALUE": "+1"}]}}));
    for (got, id) in [(query, 1), (form, 2), (json, 3)] {
        assert_eq!(got.body["result"], id);
        let lead = world.result("crm.lead.get", &json!({"id": id}));
        assert_eq!(lead["TITLE"], "a&b");
        assert_eq!(lead["PHONE"][0]["VALUE"], "+1");
    }
}

#[test]
fn answers_have_the_envelope_of_the_documentation() {
    let world = World::new();
    let got = get(world.client.post(world.url("crm.lead.list")).header("X-Request-ID", "r-1").json_body(&json!({})));
    assert_eq!(got.headers["x-request-id"], "r-1");
    assert_eq!(got.body["result"], json!([]));
    assert_eq!(got.body["total"], 0);
    assert!(got.body.get("next").is_none());
    let time = &got.body["time"];
    assert!(time["finish"].as_f64().unwrap() >= time["start"].as_f64().unwrap());
    assert!(time["date_start"].as_str().unwrap().ends_with("+00:00"));
    assert!(time.get("operating").is_none());
}

#[test]
fn unknown_methods_and_pages_are_not_found() {
    let world = World::new();
    let got = world.post("crm.nothing.add", &json!({}));
    assert_eq!((got.status, got.body["error"].as_str()), (404, Some("ERROR_METHOD_NOT_FOUND")));
    // A method of the third generation, at the address of the second.
    assert_eq!(world.post("rest.scope.list", &json!({})).status, 404);
    let got = world.post_v3("crm.lead.add", &json!({}));
    assert_eq!((got.status, got.body["error"]["code"].as_str()), (404, Some("BITRIX_REST_V3_EXCEPTION_METHODNOTFOUNDEXCEPTION")));
    assert_eq!(world.client.get(world.emulator.origin()).send().unwrap().status(), 404);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let world = World::new();
    let mut stream = TcpStream::connect(world.emulator.address()).unwrap();
    write!(stream, "POST /rest/1/x/profile HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    assert!(world.emulator.requests().is_empty());
}

#[test]
fn requests_are_seen_without_secrets() {
    let world = World::new();
    get(world.client.post(world.url("crm.lead.add")).header("X-Request-ID", "r-9").json_body(&json!({"fields": {"TITLE": "x"}})));
    get(world.client.get(format!("{}/rest/profile?auth={}", world.emulator.origin(), world.emulator.access().access_token.expose())));
    let seen = world.emulator.requests();
    assert_eq!(seen[0].path, "/rest/1/***/crm.lead.add");
    assert_eq!((seen[0].request_id.as_deref(), seen[0].executed), (Some("r-9"), true));
    assert_eq!(seen[0].params, json!({"fields": {"TITLE": "x"}}));
    assert!(seen[1].boot_ns > seen[0].boot_ns);
    let access = world.emulator.access();
    for secret in [&access.admin().code, &access.access_token] {
        assert!(!format!("{seen:?}").contains(secret.expose()));
    }
}

#[test]
fn a_wrong_credential_is_refused_as_documented() {
    let world = World::new();
    let origin = world.emulator.origin();
    let code = world.emulator.access().admin().code.expose().to_owned();
    for (url, error) in [
        (format!("{origin}/rest/1/wrongcode1/profile"), "INVALID_CREDENTIALS"),
        (format!("{origin}/rest/2/{code}/profile"), "INVALID_CREDENTIALS"),
        (format!("{origin}/rest/api/1/wrongcode1/tasks.task.list"), "INVALID_CREDENTIALS"),
        (format!("{origin}/rest/profile"), "NO_AUTH_FOUND"),
        (format!("{origin}/rest/profile?auth=unknown"), "invalid_token"),
    ] {
        let got = get(world.client.get(url));
        assert_eq!((got.status, got.body["error"].as_str()), (401, Some(error)));
    }
    assert!(world.emulator.requests().iter().all(|request| !request.executed));
}

#[test]
fn a_slow_answer_holds_up_nobody() {
    let world = World::new();
    world.fault("crm.lead.list:slow:ms=60000:times=1");
    let url = world.url("crm.lead.list");
    let client = world.client.clone();
    // The client gives up, the portal goes on waiting.
    let slow = std::thread::spawn(move || client.get(url).timeout(std::time::Duration::from_millis(300)).send().is_err());
    while world.emulator.requests().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(world.result("profile", &json!({}))["ID"], "1");
    assert!(slow.join().unwrap());
}

#[test]
fn sixty_four_clients_work_at_once() {
    let world = World::new();
    std::thread::scope(|scope| {
        for number in 0..64 {
            let world = &world;
            scope.spawn(move || world.result("crm.lead.add", &json!({"fields": {"TITLE": format!("lead {number}")}})));
        }
    });
    let mut ids: Vec<u64> = world.changes().iter().map(|change| change.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=64).collect::<Vec<_>>());
}
