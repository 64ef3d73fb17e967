//! `b24 listen` end to end: what the portal of this process delivers, and what
//! strangers do.

use crate::world::{Outcome, World};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A receiver that runs, and what it said.
struct Listener {
    child: Child,
    address: String,
    stderr: Arc<Mutex<String>>,
}

impl Listener {
    fn start(world: &World, args: &[&str]) -> Listener {
        let mut command = world.command(&[&["listen"], args].concat());
        command.env("B24_APPLICATION_TOKEN", token(world));
        Listener::of(command)
    }

    fn of(mut command: Command) -> Listener {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (kept, pipe) = (stderr.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut first).unwrap();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let ready: Value = serde_json::from_str(&first).unwrap_or_else(|_| panic!("{first}{}", stderr.lock().unwrap()));
        let address = ready["address"].as_str().unwrap().trim_start_matches("http://").to_owned();
        Listener { child, address, stderr }
    }

    fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Ends it as a service manager does, and returns its exit status.
    fn end(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    fn post(&self, body: &str) -> u16 {
        let head = format!(
            "POST /handler HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let _ = stream.write_all(body.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

fn token(world: &World) -> String {
    world.emulator.access().application_token.expose().to_owned()
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn events(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.home.path().join("events")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn event(id: u32, token: &str) -> String {
    format!(
        "event=ONCRMDEALUPDATE&event_handler_id=1&data[FIELDS][ID]={id}&ts=1766047124&auth[domain]=acme.bitrix24.com&auth[member_id]=m&auth[access_token]=canary-access-token&auth[application_token]={token}"
    )
}

#[test]
fn every_token_that_is_given_is_right() {
    let world = World::new();
    for (name, text) in [("first", "0123456789abcdef0123456789abcdef"), ("second", "fedcba9876543210fedcba9876543210")] {
        let path = world.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let args = ["listen", "--application-token", "@first", "--application-token", "@second", "--exec", "cat >> events"];
    // The environment's token is not right when others are given.
    let mut command = world.command(&args);
    command.env("B24_APPLICATION_TOKEN", token(&world));
    let listener = Listener::of(command);
    let posted = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210", &token(&world)]
        .map(|token| listener.post(&event(1, token)));
    assert_eq!(posted, [200, 200, 403]);
    assert_eq!(listener.end(), Some(0));
}

const KEEP: &[&str] = &["--exec", "cat >> events"];

#[test]
fn what_a_portal_delivers_reaches_the_handler() {
    let world = World::new();
    let listener = Listener::start(&world, KEEP);
    let handler = format!("http://{}/handler", listener.address);
    let mut bind = world.oauth_command(&["queue", "bind", "onCrmDealAdd", "--handler", &handler, "--confirm-write"]);
    assert_eq!(Outcome::of(&mut bind).body(0)["result"], true);
    let _ = world.run(&["crm.deal.add", "fields[TITLE]=A", "--confirm-write"]).body(0);
    wait_until("the event is handled", || events(&world).len() == 1);
    let event = events(&world).remove(0);
    assert_eq!(
        (&event["event"], &event["source"], &event["data"]["FIELDS"]["ID"]),
        (&"ONCRMDEALADD".into(), &"online".into(), &"1".into())
    );
    assert_eq!(event["payload"]["auth"]["member_id"], world.emulator.access().member_id);
    assert_eq!(world.emulator.deliveries()[0].status, Some(200));
    assert_eq!(listener.end(), Some(0));
}

#[test]
fn without_the_token_nothing_reaches_the_handler_and_an_alarm_is_raised() {
    let world = World::new();
    let listener = Listener::start(&world, KEEP);
    assert_eq!(listener.post(&event(1, "wrong")), 403);
    assert_eq!(listener.post(&event(2, "")), 403);
    assert_eq!(listener.post("event=ONCRMDEALUPDATE&data[FIELDS][ID]=3"), 403);
    assert_eq!(listener.post(&event(4, &token(&world))), 200);
    wait_until("the right one is handled", || !events(&world).is_empty());
    assert_eq!(events(&world).len(), 1);
    assert_eq!(events(&world)[0]["data"]["FIELDS"]["ID"], "4");
    wait_until("the alarms are raised", || listener.stderr().matches(r#""level":"alarm""#).count() >= 3);
    for word in ["wrong_token", "missing_token"] {
        assert!(listener.stderr().contains(word), "{}", listener.stderr());
    }
    assert_eq!(listener.end(), Some(0));
}

#[test]
fn no_token_is_kept_or_printed() {
    let world = World::new();
    let listener = Listener::start(&world, &["--exec", "cat >> events; echo $B24_APPLICATION_TOKEN >> env; exit 1", "--max-retries", "1"]);
    assert_eq!(listener.post(&event(1, &token(&world))), 200);
    let dead = || world.run(&["queue", "dlq", "list", "--source", "online"]).stdout;
    wait_until("it is a dead letter", || dead().contains("ONCRMDEALUPDATE"));
    let mut all = format!("{}{}", listener.stderr(), dead());
    let mut folders = vec![world.state().join("queue")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                all.push_str(&String::from_utf8_lossy(&std::fs::read(entry).unwrap()));
            }
        }
    }
    all.push_str(&std::fs::read_to_string(world.home.path().join("env")).unwrap());
    assert!(all.contains("ONCRMDEALUPDATE"));
    assert!(!all.contains(&token(&world)) && !all.contains("canary-access-token"));
    assert_eq!(listener.end(), Some(0));
}

#[test]
fn a_delivery_that_is_repeated_is_handled_once() {
    let world = World::new();
    let listener = Listener::start(&world, KEEP);
    for id in [1, 1, 2, 1] {
        assert_eq!(listener.post(&event(id, &token(&world))), 200);
    }
    wait_until("both are handled", || events(&world).len() >= 2);
    assert_eq!(listener.post(&event(1, &token(&world))), 200);
    assert_eq!(listener.end(), Some(0));
    let status = world.run(&["queue", "status", "--source", "online"]).body(0);
    assert_eq!((&status["counters"]["handled"], &status["counters"]["duplicates"]), (&2.into(), &3.into()));
    assert_eq!(events(&world).len(), 2);
}

#[test]
fn what_was_answered_survives_a_kill() {
    let world = World::new();
    let mut listener = Listener::start(&world, &["--exec", "while [ ! -e go ]; do sleep 0.05; done"]);
    for id in 1..=20 {
        assert_eq!(listener.post(&event(id, &token(&world))), 200);
    }
    listener.child.kill().unwrap();
    listener.child.wait().unwrap();
    // The handlers of the killed worker go on and hold its claims.
    std::fs::write(world.home.path().join("go"), "").unwrap();
    let again = Listener::start(&world, KEEP);
    wait_until("all are handled", || events(&world).len() >= 20);
    let mut ids: Vec<u32> = events(&world).iter().map(|event| event["data"]["FIELDS"]["ID"].as_str().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, (1..=20).collect::<Vec<u32>>());
    assert_eq!(again.end(), Some(0));
}

#[test]
fn a_body_of_100_mb_and_a_malformed_one_are_refused_without_memory() {
    let world = World::new();
    let listener = Listener::start(&world, KEEP);
    assert_eq!(listener.post(&event(1, &token(&world))), 200);
    let before = peak_kib(listener.child.id());
    let mut stream = TcpStream::connect(&listener.address).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 104857600\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'a'; 1 << 20];
    let _ = (0..100).try_for_each(|_| stream.write_all(&piece));
    let mut chunked = TcpStream::connect(&listener.address).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n";
    chunked.write_all(head.as_bytes()).unwrap();
    let _ = (0..100).try_for_each(|_| {
        chunked.write_all(b"100000\r\n")?;
        chunked.write_all(&piece)?;
        chunked.write_all(b"\r\n")
    });
    for body in ["%zz", "event[]=x", "event=%ff%fe", "a[b[c]=1&event=X", &"a[b]=1&".repeat(5_000)] {
        let status = listener.post(body);
        assert!((400..500).contains(&status), "{status} for {}", &body[..body.len().min(40)]);
    }
    let grown = peak_kib(listener.child.id()) - before;
    println!("the receiver's peak grew by {grown} KiB over two bodies of 100 MB");
    assert!(grown < 16 * 1024, "{grown} KiB");
    wait_until("the first event is handled", || events(&world).len() == 1);
    assert!(listener.stderr().contains("too_large"));
    assert_eq!(listener.end(), Some(0));
}

fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn events_are_forwarded_as_a_portal_delivers_them() {
    let world = World::new();
    let receiver = Listener::start(&world, &["--exec", "cat >> events", "--state-file", "second"]);
    let to = format!("http://{}/app", receiver.address);
    let forwarder = Listener::start(&world, &["--forward-to", &to, "--forward-token"]);
    assert_eq!(forwarder.post(&event(5, &token(&world))), 200);
    wait_until("it came through both", || events(&world).len() == 1);
    assert_eq!(events(&world)[0]["payload"]["data"]["FIELDS"]["ID"], "5");
    assert_eq!((forwarder.end(), receiver.end()), (Some(0), Some(0)));
    for target in ["https://acme.bitrix24.com/h", "http://example.com/h", "http://127.0.0.1/rest/1/x/crm.deal.add"] {
        let mut command = world.command(&["listen", "--forward-to", target]);
        command.env("B24_APPLICATION_TOKEN", token(&world));
        assert_eq!(Outcome::of(&mut command).error(3)["kind"], "policy_denied", "{target}");
    }
}

#[test]
fn a_handler_that_is_not_there_costs_no_attempt() {
    let world = World::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let to = format!("http://127.0.0.1:{port}/app");
    let forwarder = Listener::start(&world, &["--forward-to", &to, "--max-retries", "1", "--retry-delay", "0.1"]);
    assert_eq!(forwarder.post(&event(5, &token(&world))), 200);
    let status = || world.run(&["queue", "status", "--source", "online"]).body(0);
    wait_until("it was put off twice", || status()["counters"]["later"].as_u64() >= Some(2));
    let port = port.to_string();
    let receiver = Listener::start(&world, &["--exec", "cat >> events", "--state-file", "second", "--port", &port]);
    // A handler that checks the token refuses an event without it: that is a
    // failure.
    wait_until("it is a dead letter", || status()["dead_letters"] == 1);
    assert!(receiver.stderr().contains("missing_token"));
    assert_eq!((forwarder.end(), receiver.end()), (Some(0), Some(0)));
}

#[test]
fn the_signal_of_the_offline_queue_wakes_its_worker() {
    let world = World::new();
    let listener = Listener::start(&world, KEEP);
    let handler = format!("http://{}/handler", listener.address);
    for args in [
        vec!["queue", "bind", "ONOFFLINEEVENT", "--handler", &handler, "--min-timeout", "0", "--confirm-write"],
        vec!["queue", "bind", "ONCRMLEADADD", "--offline", "--confirm-write"],
    ] {
        let _ = Outcome::of(&mut world.oauth_command(&args)).body(0);
    }
    let mut worker = world.oauth_command(&["queue", "work", "--sleep", "3600", "--exec", "cat >> events"]);
    let mut worker = worker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let polls = || world.requests().iter().filter(|request| request.method == "event.offline.get").count();
    wait_until("the worker sleeps", || polls() >= 1);
    let _ = world.run(&["crm.lead.add", "fields[TITLE]=A", "--confirm-write"]).body(0);
    wait_until("the worker was woken", || events(&world).len() == 1);
    assert_eq!(events(&world)[0]["source"], "offline");
    let _ = Command::new("kill").arg(worker.id().to_string()).status().unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    assert_eq!(listener.end(), Some(0));
}

#[test]
fn a_receiver_that_cannot_tell_anybody_from_the_portal_does_not_start() {
    let world = World::new();
    let error = world.run(&["listen", "--exec", "true"]).error(2);
    assert!(error["hint"].as_str().unwrap().contains("B24_APPLICATION_TOKEN"), "{error}");
    let error = world.run(&["listen", "--exec", "true", "--application-token", "0123456789abcdef0123456789abcdef"]).error(2);
    assert!(!error.to_string().contains("0123456789abcdef"));
    let mut command = world.command(&["listen"]);
    command.env("B24_APPLICATION_TOKEN", token(&world));
    assert_eq!(Outcome::of(&mut command).error(2)["kind"], "usage");
}

#[test]
fn a_label_keeps_our_own_changes_from_coming_back() {
    let world = World::new();
    let bind = ["queue", "bind", "ONCRMLEADADD", "--offline", "--auth-connector", "sync", "--confirm-write"];
    let _ = Outcome::of(&mut world.oauth_command(&bind)).body(0);
    let _ = world.run(&["crm.lead.add", "fields[TITLE]=Ours", "--auth-connector", "sync", "--confirm-write"]).body(0);
    let mut batch = world.command(&["batch", "--params", r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=Ours too"}}"#, "--confirm-write"]);
    let _ = Outcome::of(batch.env("B24_AUTH_CONNECTOR", "sync")).body(0);
    let _ = world.run(&["crm.lead.add", "fields[TITLE]=Theirs", "--confirm-write"]).body(0);
    // A handler's own calls carry the label, too.
    let handler = "echo $B24_AUTH_CONNECTOR >> labels; cat >> events";
    let work = ["queue", "work", "--until-empty", "--auth-connector", "sync", "--exec", handler];
    let _ = Outcome::of(&mut world.oauth_command(&work)).body(0);
    assert_eq!(events(&world).len(), 1);
    assert_eq!(events(&world)[0]["data"]["FIELDS"]["ID"], "3");
    assert_eq!(std::fs::read_to_string(world.home.path().join("labels")).unwrap(), "sync\n");
}

#[test]
fn path_size_and_pace_are_what_the_options_say() {
    let world = World::new();
    let limits = ["--path", "/handler", "--body-limit", "2048", "--rate", "1", "--burst", "1"];
    let listener = Listener::start(&world, &[&["--exec", "cat >> events"][..], &limits].concat());
    let token = token(&world);
    assert_eq!(listener.post(&format!("{}&data[x]={}", event(1, &token), "x".repeat(2048))), 413);
    assert_eq!(listener.post(&event(2, &token)), 200);
    let mut id = 2;
    wait_until("one came too fast", || {
        id += 1;
        listener.post(&event(id, &token)) == 429
    });
    assert_eq!(listener.end(), Some(0));

    let elsewhere = Listener::start(&world, &["--exec", "cat >> events", "--path", "/other"]);
    assert_eq!(elsewhere.post(&event(7000, &token)), 404);
    assert_eq!(elsewhere.end(), Some(0));
    assert!(!events(&world).iter().any(|event| ["1", "7000"].map(Value::from).contains(&event["data"]["FIELDS"]["ID"])));
}

#[test]
fn a_handler_is_bound_for_the_user_that_the_option_names() {
    let world = World::new();
    let handler = "http://127.0.0.1:9/handler";
    let bind = ["queue", "bind", "ONCRMLEADADD", "--handler", handler, "--auth-type", "1", "--confirm-write"];
    let _ = Outcome::of(&mut world.oauth_command(&bind)).body(0);
    let bound = Outcome::of(&mut world.oauth_command(&["queue", "events"])).body(0)["bound"].clone();
    assert_eq!((&bound[0]["handler"], &bound[0]["auth_type"]), (&Value::from(handler), &Value::from("1")));
}
