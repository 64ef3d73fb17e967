//! `b24 trigger`, against a receiver and against handlers that misbehave.

use crate::world::{Outcome, World};
use b24::host::SystemClock;
use b24::receive::{Delivery, Options, Received, Receiver};
use b24::secret::Secret;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

const TOKEN: &str = "canary-51856fefc120afa4b628cc82d3935cce";

/// A handler that knows the application token.
struct Handler {
    receiver: Receiver,
    deliveries: mpsc::Receiver<Delivery>,
    reader: JoinHandle<()>,
}

impl Handler {
    fn new() -> Handler {
        let (sink, events) = mpsc::sync_channel(128);
        let (keep, deliveries) = mpsc::channel();
        let options = Options::new(vec![Secret::new(TOKEN.to_owned())], Arc::new(SystemClock));
        let receiver = Receiver::start(options, sink).unwrap();
        let reader = std::thread::spawn(move || {
            for received in events {
                if let Received::Delivery { delivery, stored } = received {
                    stored.confirm();
                    keep.send(*delivery).unwrap();
                }
            }
        });
        Handler { receiver, deliveries, reader }
    }

    fn url(&self) -> String {
        format!("http://{}/handler", self.receiver.address())
    }

    fn end(self) -> Vec<Delivery> {
        drop(self.receiver);
        self.reader.join().unwrap();
        self.deliveries.into_iter().collect()
    }
}

/// A handler that answers one request with this, and returns what it saw.
fn answering(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/handler", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !is_whole(&request) {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (url, thread)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap().trim().parse().unwrap();
    body.len() >= length
}

/// The command with the token in its environment.
fn trigger(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(&[&["trigger"], args].concat());
    command.env("B24_APPLICATION_TOKEN", TOKEN);
    command
}

fn run(world: &World, args: &[&str]) -> Outcome {
    let outcome = Outcome::of(&mut trigger(world, args));
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("canary"), "{}{}", outcome.stdout, outcome.stderr);
    outcome
}

#[test]
fn each_family_of_events_arrives_in_its_form() {
    let world = World::new();
    let handler = Handler::new();
    let cases = [
        (vec!["oncrmdealadd", "42"], "ONCRMDEALADD", json!({"FIELDS": {"ID": "42"}})),
        (vec!["onCrmDynamicItemAdd_147", "5"], "ONCRMDYNAMICITEMADD_147", json!({"FIELDS": {"ID": "5", "ENTITY_TYPE_ID": "147"}})),
        (
            vec!["OnTaskUpdate", "7"],
            "ONTASKUPDATE",
            json!({"FIELDS_BEFORE": {"ID": "7"}, "FIELDS_AFTER": {"ID": "7"},
                "IS_ACCESSIBLE_BEFORE": "undefined", "IS_ACCESSIBLE_AFTER": "undefined"}),
        ),
        (vec!["onCrmTimelineCommentAdd", "8"], "ONCRMTIMELINECOMMENTADD", json!({"ID": "8"})),
        (vec!["OnCalendarEntryAdd"], "ONCALENDARENTRYADD", json!({"id": "1"})),
        (vec!["ONOFFLINEEVENT"], "ONOFFLINEEVENT", json!([])),
        (vec!["CATALOG.PRICE.ON.ADD", "3"], "CATALOG.PRICE.ON.ADD", json!({"FIELDS": {"ID": "3"}})),
        (vec!["--unlisted", "onMyThing"], "ONMYTHING", json!({"FIELDS": {"ID": "1"}})),
    ];
    for (args, event, _) in &cases {
        let url = handler.url();
        let body = run(&world, &[args.as_slice(), &["--to", &url]].concat()).body(0);
        assert_eq!(body, json!({"schema": "b24.trigger/1", "event": event, "to": url, "status": 200, "delivered": 1}));
    }
    let deliveries = handler.end();
    assert_eq!(deliveries.len(), cases.len());
    for (delivery, (_, event, data)) in deliveries.iter().zip(&cases) {
        assert_eq!((&delivery.event.as_str(), &delivery.data), (event, data));
        assert_eq!(delivery.handler_id.is_none(), *event == "ONOFFLINEEVENT");
        assert!(delivery.ts.as_ref().unwrap().parse::<u64>().unwrap() > 1_700_000_000);
        assert_eq!(delivery.domain.as_deref(), Some("portal.example"));
        assert_eq!(delivery.auth["client_endpoint"], "portal.example");
    }
    assert!(world.requests().is_empty() && world.changes().is_empty());
}

#[test]
fn every_documented_event_can_be_delivered() {
    let world = World::new();
    for event in b24::catalog::events::all().map(|event| event.name) {
        let plan = run(&world, &[event, "--to", "http://localhost/", "--dry-run"]).body(0);
        assert_eq!(plan["event"], event.to_ascii_uppercase());
    }
}

#[test]
fn items_set_what_the_event_carries() {
    let world = World::new();
    let handler = Handler::new();
    let items = [
        "42",
        "data[FIELDS][TITLE]=A&B=c d",
        "data[LIST][]=x",
        "data[FLAG]:=true",
        "data[OFF]:=false",
        "auth[domain]=acme.example",
        "auth[user_id]=7",
        "ts=1766047124",
        "event_handler_id=185",
    ];
    let url = handler.url();
    let _ = run(&world, &[&["ONCRMDEALADD"], items.as_slice(), &["--to", &url]].concat()).body(0);
    let delivery = handler.end().remove(0);
    assert_eq!(delivery.data, json!({"FIELDS": {"ID": "42", "TITLE": "A&B=c d"}, "LIST": ["x"], "FLAG": "1", "OFF": "0"}));
    assert_eq!((delivery.ts.as_deref(), delivery.handler_id.as_deref()), (Some("1766047124"), Some("185")));
    assert_eq!((&delivery.auth["user_id"], &delivery.auth["client_endpoint"]), (&json!("7"), &json!("acme.example")));
}

#[test]
fn an_event_is_delivered_as_often_as_asked() {
    let world = World::new();
    let handler = Handler::new();
    let url = handler.url();
    assert_eq!(run(&world, &["ONCRMDEALADD", "--to", &url, "--count", "3"]).body(0)["delivered"], 3);
    let deliveries = handler.end();
    assert_eq!(deliveries.len(), 3);
    assert_eq!(deliveries[0], deliveries[2]);
}

#[test]
fn the_request_is_a_form_without_any_credential() {
    let world = World::new();
    let (url, seen) = answering("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(run(&world, &["ONCRMDEALADD", "--to", &url]).body(0)["status"], 202);
    let request = seen.join().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /handler HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/x-www-form-urlencoded"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    assert!(body.contains(&format!("auth%5Bapplication_token%5D={TOKEN}")), "{body}");
    assert!(!body.contains("access_token") && !body.contains("refresh_token"), "{body}");
    let code = world.webhook(1).trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
    assert!(!request.contains(&code));
}

#[test]
fn localhost_is_this_machine_and_needs_no_proxy() {
    let world = World::new();
    let handler = Handler::new();
    let url = format!("http://localhost.:{}/handler", handler.receiver.address().port());
    let mut command = trigger(&world, &["ONCRMDEALADD", "--to", &url]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:1");
    }
    assert_eq!(Outcome::of(&mut command).body(0)["to"], url.replace("localhost.", "localhost"));
    assert_eq!(handler.end().len(), 1);
}

#[test]
fn the_token_comes_from_a_file_or_standard_input_and_never_from_an_argument() {
    let world = World::new();
    let handler = Handler::new();
    let url = handler.url();
    let file = world.home.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let args = ["trigger", "ONCRMDEALADD", "--to", &url, "--application-token"];
    let _ = Outcome::of(&mut world.command(&[args.as_slice(), &["@token"]].concat())).body(0);
    let mut by_stdin = world.command(&[args.as_slice(), &["-"]].concat());
    let _ = Outcome::with_stdin(&mut by_stdin, format!("{TOKEN}\n").as_bytes()).body(0);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(Outcome::of(&mut world.command(&[args.as_slice(), &["@token"]].concat())).error(12)["kind"], "config_invalid");
    for literal in [TOKEN, "@", ""] {
        let outcome = run(&world, &["ONCRMDEALADD", "--to", &url, "--application-token", literal]);
        assert_eq!(outcome.error(2)["kind"], "usage");
    }
    // A file named by mistake is not delivered.
    std::fs::write(&file, "-----BEGIN KEY-----\ncanary\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(Outcome::of(&mut world.command(&[args.as_slice(), &["@token"]].concat())).error(2)["kind"], "usage");
    // Without a token it is delivered all the same, and said so.
    let outcome = Outcome::of(&mut world.command(&args[..4]));
    assert!(outcome.stderr.contains("no_application_token"), "{}", outcome.stderr);
    assert_eq!(outcome.error(1)["status"], 403);
    assert_eq!(handler.end().len(), 2);
}

#[test]
fn a_triggered_event_carries_no_credential() {
    let world = World::new();
    for item in [
        "auth[access_token]=canary",
        "auth[REFRESH_TOKEN]=canary",
        "auth[application_token]=canary",
        "data[bot][auth][access_token]=canary",
        "data:={\"a][access_token\":\"canary\"}",
    ] {
        let error = run(&world, &["ONCRMDEALADD", item, "--to", "http://localhost:9/"]).error(2);
        assert_eq!(error["kind"], "credential_in_params", "{item}");
    }
}

#[test]
fn nothing_goes_to_a_portal_or_to_an_interface_of_one() {
    let world = World::new();
    let origin = world.emulator.origin();
    let port = world.emulator.address().port();
    let targets = [
        world.webhook(1),
        format!("{origin}/handler"),
        format!("http://localhost:{port}/handler"),
        format!("http://[::1]:{port}/handler"),
        format!("http://127.1:{port}/%72est/"),
        "http://127.0.0.1:9/rest/1/x/crm.lead.add".to_owned(),
        "http://127.0.0.1:9/%2572est/1".to_owned(),
        "https://acme.bitrix24.com/handler".to_owned(),
        "https://oauth.bitrix.info/oauth/token/".to_owned(),
        "http://localhost.evil.example/".to_owned(),
        "http://user:pass@localhost/".to_owned(),
        "http://localhost/#x".to_owned(),
        "ftp://localhost/".to_owned(),
    ];
    for target in &targets {
        let allow = ["--allow-host", "acme.bitrix24.com", "--allow-host", "127.0.0.1", "--allow-host", "oauth.bitrix.info"];
        let outcome = run(&world, &[&["ONCRMDEALADD", "--to", target], allow.as_slice()].concat());
        outcome.refused(&world, target, 3).unwrap();
    }
    run(&world, &["ONCRMDEALADD", "--to", "localhost:8080"]).refused(&world, "no scheme", 2).unwrap();
    let mut profile = trigger(&world, &["ONCRMDEALADD", "--to", "https://crm.example/hook", "--allow-host", "crm.example"]);
    let folder = world.home.path().join(".config/b24");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "[profiles.other]\nportal = \"crm.example\"\n").unwrap();
    assert_eq!(Outcome::of(&mut profile).error(3)["kind"], "policy_denied");
}

#[test]
fn to_another_machine_nothing_goes_that_the_arguments_do_not_say() {
    let world = World::new();
    std::fs::write(world.home.path().join("notes"), "canary").unwrap();
    let other = ["--to", "https://handler.example/hook", "--allow-host", "handler.example", "--dry-run"];
    let plan = run(&world, &[&["ONCRMDEALADD"], other.as_slice()].concat()).body(0);
    assert!(plan["payload"]["auth"].get("application_token").is_none());
    for item in ["data[X]@notes", "data[X]:=@notes"] {
        let outcome = run(&world, &[&["ONCRMDEALADD", item], other.as_slice()].concat());
        outcome.refused(&world, item, 3).unwrap();
    }
}

#[test]
fn a_dry_run_shows_the_event_and_delivers_nothing() {
    let world = World::new();
    let handler = Handler::new();
    let url = format!("{}?key=canary", handler.url());
    let plan = run(&world, &["ONCRMDEALADD", "42", "--to", &url, "--count", "2", "--dry-run"]).body(0);
    assert_eq!((&plan["dry_run"], &plan["count"], &plan["to"]), (&json!(true), &json!(2), &json!(handler.url())));
    assert_eq!(plan["payload"]["data"], json!({"FIELDS": {"ID": "42"}}));
    assert_eq!(plan["payload"]["auth"]["application_token"], "***");
    assert!(handler.end().is_empty());
}

#[test]
fn what_the_handler_answers_is_told() {
    let world = World::new();
    for (answer, status) in [
        ("HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\ncanary", 500),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 302),
    ] {
        let (url, seen) = answering(answer);
        let error = run(&world, &["ONCRMDEALADD", "--to", &url, "--count", "5"]).error(1);
        assert_eq!((&error["kind"], &error["status"], &error["delivered"]), (&json!("api_error"), &json!(status), &json!(0)));
        assert_eq!(error["sent"], true);
        let _ = seen.join().unwrap();
    }
    let (url, seen) = answering("");
    let error = run(&world, &["ONCRMDEALADD", "--to", &url]).error(7);
    assert_eq!((&error["kind"], &error["outcome"]), (&json!("temporary"), &json!("unknown")));
    let _ = seen.join().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(&world, &["ONCRMDEALADD", "--to", &format!("http://{free}/")]).error(7);
    assert_eq!((&error["kind"], &error["sent"]), (&json!("offline"), &json!(false)));
}

#[test]
fn a_wrong_command_line_says_what_would_be_right() {
    let world = World::new();
    let hint = |args: &[&str]| -> String {
        let error: Value = run(&world, args).error(2);
        format!("{} {}", error["message"], error["hint"])
    };
    assert!(hint(&["ONCRMDEALAD", "--to", "http://localhost/"]).contains("ONCRMDEALADD"));
    assert!(hint(&["ONCRMDEALADD"]).contains("--to"));
    assert!(hint(&["bad name", "--unlisted", "--to", "http://localhost/"]).contains("name"));
    assert!(hint(&["ONAPPINSTALL", "42", "--to", "http://localhost/"]).contains("carries no id"));
    assert!(hint(&["ONCRMDEALADD", "FIELDS[ID]=42", "--to", "http://localhost/"]).contains("item 1"));
    assert!(hint(&["ONCRMDEALADD", "42", "event=X", "--to", "http://localhost/"]).contains("item 2"));
    assert!(hint(&["ONCRMDEALADD", "auth=x", "--to", "http://localhost/"]).contains("auth"));
    assert!(hint(&["ONCRMDEALADD", "--count", "0", "--to", "http://localhost/"]).contains("--count"));
}
