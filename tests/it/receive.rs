//! The receiver of events, over real connections.

use b24::host::{Clock, SystemClock};
use b24::query_string::{encode_pairs, form_pairs};
use b24::receive::{Alarm, AlarmKind, Counters, Delivery, Options, ReceiveError, Received, Receiver};
use b24::secret::Secret;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

const TOKEN: &str = "canary-51856fefc120afa4b628cc82d3935cce";
const NEXT_TOKEN: &str = "canary-831c76b092f9f135d9b6b36c3a720757";
const FORM: &str = "application/x-www-form-urlencoded";

/// What the reader of the sink does with an event.
#[derive(Clone, Copy)]
enum Store {
    Works,
    Fails,
    Hangs,
}

/// A receiver and the thread that reads its sink.
struct Rig {
    receiver: Receiver,
    reader: JoinHandle<(Vec<Delivery>, Vec<Alarm>)>,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(options(), Store::Works)
    }

    fn with(options: Options, store: Store) -> Rig {
        let (sink, events) = mpsc::sync_channel(128);
        let receiver = Receiver::start(options, sink).unwrap();
        let reader = std::thread::spawn(move || {
            let (mut deliveries, mut alarms, mut held) = (Vec::new(), Vec::new(), Vec::new());
            for received in events {
                match (received, store) {
                    (Received::Alarm(alarm), _) => alarms.push(alarm),
                    (Received::Delivery { delivery, stored }, Store::Works) => {
                        deliveries.push(*delivery);
                        stored.confirm();
                    }
                    (Received::Delivery { stored, .. }, Store::Fails) => stored.refuse(),
                    (Received::Delivery { stored, .. }, Store::Hangs) => held.push(stored),
                }
            }
            (deliveries, alarms)
        });
        Rig { receiver, reader }
    }

    fn address(&self) -> SocketAddr {
        self.receiver.address()
    }

    /// Posts a form and returns the answer.
    fn post(&self, payload: &Value) -> Answer {
        send(self.address(), &request("POST", "/", &[("Content-Type", FORM)], form(payload).as_bytes()))
    }

    /// Ends the receiver and returns what came out of it.
    fn end(self) -> (Vec<Delivery>, Vec<Alarm>, Counters) {
        let counters = self.receiver.counters();
        drop(self.receiver);
        let (deliveries, alarms) = self.reader.join().unwrap();
        assert!(!format!("{deliveries:?}{alarms:?}").contains("canary"), "{deliveries:?}{alarms:?}");
        (deliveries, alarms, counters)
    }
}

fn options() -> Options {
    Options::new(vec![Secret::new(TOKEN.to_owned())], Arc::new(SystemClock))
}

fn form(payload: &Value) -> String {
    let pairs = form_pairs(payload);
    encode_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn deal(token: Option<&str>) -> Value {
    let mut payload = json!({
        "event": "ONCRMDEALADD", "event_handler_id": "185", "data": {"FIELDS": {"ID": "7405"}}, "ts": "1766047124",
        "auth": {
            "access_token": "canary-access", "refresh_token": "canary-refresh", "expires": "1766050724", "expires_in": "3600",
            "scope": "crm", "domain": "acme.bitrix24.com", "server_endpoint": "https://oauth.bitrix.info/rest/", "status": "L",
            "client_endpoint": "https://acme.bitrix24.com/rest/", "member_id": "a223c6b3710f85df22e9377d6c4f7553", "user_id": "1",
        },
    });
    if let Some(token) = token {
        payload["auth"]["application_token"] = json!(token);
    }
    payload
}

fn request(verb: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    [head.as_bytes(), headers.concat().as_bytes(), b"\r\n", body].concat()
}

struct Answer {
    status: u16,
    text: String,
}

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn read_answer(mut stream: TcpStream) -> Answer {
    let mut text = Vec::new();
    // A connection that is reset after the answer has still answered.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, text }
}

fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = open(address);
    stream.write_all(bytes).unwrap();
    read_answer(stream)
}

#[test]
fn an_event_with_the_right_token_is_stored_and_then_answered() {
    let rig = Rig::new();
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    let (deliveries, alarms, counters) = rig.end();
    assert!(alarms.is_empty());
    assert_eq!(counters, Counters { accepted: 1, ..Counters::default() });
    assert_eq!(deliveries[0].event, "ONCRMDEALADD");
    assert_eq!(deliveries[0].data, json!({"FIELDS": {"ID": "7405"}}));
    assert_eq!(deliveries[0].handler_id.as_deref(), Some("185"));
    assert_eq!(deliveries[0].auth["client_endpoint"], "acme.bitrix24.com");
}

#[test]
fn json_is_taken_like_a_form() {
    let rig = Rig::new();
    let body = deal(Some(TOKEN)).to_string();
    let headers = [("Content-Type", "application/json; charset=utf-8")];
    assert_eq!(send(rig.address(), &request("POST", "/any/path?x=1", &headers, body.as_bytes())).status, 200);
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    let (deliveries, ..) = rig.end();
    assert_eq!(deliveries[0].body_digest, deliveries[1].body_digest);
}

#[test]
fn without_the_token_nothing_comes_through_and_nothing_is_told() {
    let rig = Rig::new();
    let almost = &TOKEN[..TOKEN.len() - 1];
    let tokens = [None, Some(""), Some("wrong"), Some(almost), Some(NEXT_TOKEN)];
    let answers: Vec<Answer> = tokens.iter().map(|token| rig.post(&deal(*token))).collect();
    assert!(answers.iter().all(|answer| answer.status == 403 && answer.text.ends_with("\r\n\r\n")));
    let mut listed = deal(None);
    listed["auth"]["application_token"] = json!([TOKEN]);
    assert_eq!(rig.post(&listed).status, 403);
    // Elsewhere than in `auth` a token proves nothing.
    let mut misplaced = deal(None);
    misplaced["application_token"] = json!(TOKEN);
    misplaced["data"]["application_token"] = json!(TOKEN);
    assert_eq!(rig.post(&misplaced).status, 403);
    // A wrong token is refused before anything else is looked at.
    assert_eq!(rig.post(&json!({"auth": {"application_token": "wrong"}})).status, 403);
    let (deliveries, alarms, counters) = rig.end();
    assert!(deliveries.is_empty());
    assert_eq!(counters, Counters { refused_token: 8, ..Counters::default() });
    assert_eq!([alarms[0].kind, alarms[2].kind], [AlarmKind::MissingToken, AlarmKind::WrongToken]);
    assert_eq!(alarms[0].event.as_deref(), Some("ONCRMDEALADD"));
    assert_eq!(alarms[0].domain.as_deref(), Some("acme.bitrix24.com"));
    assert!(alarms[0].peer.is_loopback());
}

#[test]
fn two_tokens_are_right_while_one_replaces_the_other() {
    let application_tokens = [TOKEN, NEXT_TOKEN].map(|token| Secret::new(token.to_owned())).to_vec();
    let rig = Rig::with(Options { application_tokens, ..options() }, Store::Works);
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    assert_eq!(rig.post(&deal(Some(NEXT_TOKEN))).status, 200);
    assert_eq!(rig.post(&deal(Some("other"))).status, 403);
    let (deliveries, ..) = rig.end();
    assert_eq!(deliveries.len(), 2);
    assert_eq!(deliveries[0].body_digest, deliveries[1].body_digest);
}

#[test]
fn a_receiver_without_a_token_does_not_start() {
    for application_tokens in [vec![], vec![Secret::new(String::new())]] {
        let result = Receiver::start(Options { application_tokens, ..options() }, mpsc::sync_channel(1).0);
        assert!(matches!(result, Err(ReceiveError::NoToken)));
    }
}

#[test]
fn what_is_not_stored_is_not_answered_with_200() {
    let rig = Rig::with(options(), Store::Fails);
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 503);
    let (_, alarms, counters) = rig.end();
    assert_eq!((alarms[0].kind, counters.unavailable, counters.accepted), (AlarmKind::Unavailable, 1, 0));

    let rig = Rig::with(Options { time_limit: Duration::from_millis(200), ..options() }, Store::Hangs);
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 503);
    let (_, alarms, _) = rig.end();
    assert_eq!(alarms[0].kind, AlarmKind::Unavailable);

    let receiver = Receiver::start(options(), mpsc::sync_channel(1).0).unwrap();
    let bytes = request("POST", "/", &[("Content-Type", FORM)], form(&deal(Some(TOKEN))).as_bytes());
    assert_eq!(send(receiver.address(), &bytes).status, 503);
}

#[test]
fn requests_that_are_no_events_are_refused() {
    let rig = Rig::with(Options { path: Some("/hook".to_owned()), ..options() }, Store::Works);
    let right = form(&deal(Some(TOKEN)));
    let cases = [
        ("GET", "/hook", "", String::new(), 405),
        ("HEAD", "/hook", "", String::new(), 405),
        ("PUT", "/hook", FORM, right.clone(), 405),
        ("POST", "/", FORM, right.clone(), 404),
        ("POST", "/hook/", FORM, right.clone(), 404),
        ("POST", "/hook", "", right.clone(), 415),
        ("POST", "/hook", "text/plain", right.clone(), 415),
        ("POST", "/hook", FORM, "event=%f".to_owned(), 400),
        ("POST", "/hook", FORM, "event=%ff%fe".to_owned(), 400),
        ("POST", "/hook", FORM, "a[b=1".to_owned(), 400),
        ("POST", "/hook", FORM, right.replace("event=ONCRMDEALADD", "x=1"), 400),
        ("POST", "/hook", FORM, right.replace("ONCRMDEALADD", "ON%00"), 400),
        ("POST", "/hook", FORM, "a=1&".repeat(2_001), 400),
        ("POST", "/hook", FORM, format!("{right}&data{}=1", "[x]".repeat(16)), 400),
        ("POST", "/hook", "application/json", "[".repeat(100_000), 400),
        ("GET", "/healthz", "", String::new(), 200),
        ("POST", "/hook", FORM, right, 200),
    ];
    for (verb, path, media, body, status) in cases {
        let headers = [("Content-Type", media)];
        let headers = if media.is_empty() { &headers[..0] } else { &headers };
        let answer = send(rig.address(), &request(verb, path, headers, body.as_bytes()));
        assert_eq!(answer.status, status, "{verb} {path} {body:.60}");
        assert!(status != 405 || answer.text.to_ascii_lowercase().contains("allow: post"));
    }
    let (deliveries, _, counters) = rig.end();
    assert_eq!((deliveries.len(), counters.accepted, counters.malformed), (1, 1, 10));
}

/// Resident memory of this process in kilobytes.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Writes until the other side has had enough; returns how much it took.
fn pour(stream: &mut TcpStream, unit: &[u8], total: usize) -> usize {
    let mut written = 0;
    while written < total && stream.write_all(unit).is_ok() {
        written += unit.len();
    }
    written
}

const HUGE: usize = 100 * 1024 * 1024;

/// Announces a huge body: refused before a byte of it is sent, and read no
/// further when it is sent all the same.
fn announce_too_much(address: SocketAddr) {
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {HUGE}\r\n\r\n");
    assert_eq!(send(address, head.as_bytes()).status, 413);
    let mut stream = open(address);
    stream.write_all(head.as_bytes()).unwrap();
    let taken = pour(&mut stream, &vec![b'a'; 64 * 1024], HUGE);
    assert!(taken < HUGE / 2, "{taken} bytes went out");
}

/// Sends a huge body that was not announced: refused at the limit.
fn send_too_much(address: SocketAddr) {
    let mut stream = open(address);
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n".as_slice(), &vec![b'a'; 64 * 1024], b"\r\n"].concat();
    let taken = pour(&mut stream, &chunk, HUGE);
    assert!(taken < HUGE / 2, "{taken} bytes went out");
    assert!([0, 413].contains(&read_answer(stream).status));
}

/// Other tests share this process: the quietest of a few rounds counts.
#[test]
fn a_hundred_megabytes_cost_no_memory() {
    let rig = Rig::new();
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    let round = |_| {
        let before = resident_kb();
        announce_too_much(rig.address());
        send_too_much(rig.address());
        resident_kb().saturating_sub(before)
    };
    let grown = (0..5).map(round).min().unwrap();
    assert!(grown < 8 * 1024, "{grown} kB more");
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    let (_, alarms, counters) = rig.end();
    assert_eq!((counters.refused_size, counters.accepted), (15, 2));
    assert!(alarms.iter().all(|alarm| alarm.kind == AlarmKind::TooLarge));
}

#[test]
fn a_body_at_the_limit_is_read_and_one_byte_more_is_not() {
    let body = form(&deal(Some(TOKEN)));
    let chunked = |body: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n");
        format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
    };
    for (body_limit, status) in [(body.len(), 200), (body.len() - 1, 413)] {
        let rig = Rig::with(Options { body_limit, ..options() }, Store::Works);
        assert_eq!(rig.post(&deal(Some(TOKEN))).status, status);
        assert_eq!(send(rig.address(), chunked(&body).as_bytes()).status, status);
        let _ = rig.end();
    }
}

#[test]
fn slow_clients_are_cut_off_while_others_are_served() {
    let rig = Rig::with(Options { time_limit: Duration::from_millis(400), ..options() }, Store::Works);
    let mut slow_body = open(rig.address());
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 100\r\n\r\nevent=");
    slow_body.write_all(head.as_bytes()).unwrap();
    let mut slow_head = open(rig.address());
    slow_head.write_all(b"POST / HTTP/1.1\r\nHost:").unwrap();
    let idle = open(rig.address());
    for _ in 0..5 {
        assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    }
    assert_eq!(read_answer(slow_body).status, 408);
    assert_ne!(read_answer(slow_head).status, 200);
    assert_ne!(read_answer(idle).status, 200);
    let (_, alarms, counters) = rig.end();
    assert_eq!((counters.accepted, counters.malformed, alarms.len()), (5, 1, 1));
}

#[test]
fn an_idle_connection_that_was_kept_ends_too() {
    let rig = Rig::with(Options { time_limit: Duration::from_millis(300), ..options() }, Store::Works);
    let answer = send(rig.address(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.status == 200 && answer.text.ends_with("ok\n"), "{}", answer.text);
    let _ = rig.end();
}

#[test]
fn more_connections_than_allowed_wait_for_their_turn() {
    let rig = Rig::with(Options { max_connections: 2, time_limit: Duration::from_millis(300), ..options() }, Store::Works);
    let idle: Vec<TcpStream> = (0..4).map(|_| open(rig.address())).collect();
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    drop(idle);
    let _ = rig.end();
}

/// A clock that stands until it is moved.
struct StandingClock(AtomicU64);

impl Clock for StandingClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::default()
    }
    fn boot_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn boot_id(&self) -> String {
        String::new()
    }
    fn sleep(&self, _: Duration) {}
}

#[test]
fn events_above_the_pace_are_told_to_come_later() {
    let clock = Arc::new(StandingClock(AtomicU64::new(1_000_000_000_000)));
    let rig = Rig::with(Options { rate_per_s: 0.5, burst: 2, clock: clock.clone(), ..options() }, Store::Works);
    // What has no token does not use the pace up.
    for _ in 0..5 {
        assert_eq!(rig.post(&deal(Some("wrong"))).status, 403);
    }
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    let answer = rig.post(&deal(Some(TOKEN)));
    assert_eq!(answer.status, 429);
    assert!(answer.text.to_ascii_lowercase().contains("retry-after: 2\r\n"), "{}", answer.text);
    clock.0.fetch_add(2_000_000_000, Ordering::SeqCst);
    assert_eq!(rig.post(&deal(Some(TOKEN))).status, 200);
    let (_, alarms, counters) = rig.end();
    assert_eq!((counters.accepted, counters.refused_rate, counters.refused_token), (3, 1, 5));
    assert_eq!(alarms.last().map(|alarm| alarm.kind), Some(AlarmKind::TooFast));
}
