//! Characters that print nothing: none reaches a terminal raw, whichever way
//! it takes, and all of them arrive at a program.

use crate::queue_world::{Rig, run};
use crate::world::{Outcome, World};
use b24::env::Env;
use b24::host::Host;
use b24::json::is_unseen;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use unicode_general_category::{GeneralCategory, get_general_category};

/// Characters of one call's text.
const CHUNK: usize = 100_000;

/// Every character but NUL, which no parameter may hold.
fn every() -> impl Iterator<Item = char> {
    '\u{1}'..=char::MAX
}

/// What must not be printed, asked of a table that b24 does not use, and of
/// the blanks that no table knows.
fn prints_nothing(character: char) -> bool {
    let is_known = match get_general_category(character) {
        GeneralCategory::Control
        | GeneralCategory::Format
        | GeneralCategory::Surrogate
        | GeneralCategory::PrivateUse
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => true,
        GeneralCategory::SpaceSeparator => character != ' ',
        _ => false,
    };
    let is_blank = matches!(
        u32::from(character),
        0x34F | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x2800 | 0x3164 | 0xFE00..=0xFE0F | 0xFFA0 | 0xE0000..=0xE0FFF | 0xFDD0..=0xFDEF
    );
    is_known || is_blank || u32::from(character) & 0xFFFE == 0xFFFE || is_unseen(character)
}

#[track_caller]
fn is_clean(what: &str, text: &str) {
    let is_plain = |c: char| matches!(c, ' '..='~' | '\n');
    let found = text.chars().find(|c| !is_plain(*c) && prints_nothing(*c));
    assert_eq!(found, None, "{what}: {:?}", &text.chars().take(300).collect::<String>());
}

/// A sample with every kind of them: all but what is merely unassigned or
/// private, and the ends of those ranges.
fn sample() -> String {
    let counts = |c: char| matches!(get_general_category(c), GeneralCategory::Unassigned | GeneralCategory::PrivateUse);
    let mut before = false;
    let mut sample = String::new();
    for character in every().filter(|c| prints_nothing(*c) && !c.is_control()) {
        let now = counts(character);
        if !now || !before || u32::from(character) & 0xFFFF == 0xFFFF {
            sample.push(character);
        }
        before = now;
    }
    sample
}

/// The sample in pieces of at most this many bytes.
fn pieces(bytes: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for character in sample().chars() {
        if pieces.last().unwrap().len() + character.len_utf8() > bytes {
            pieces.push(String::new());
        }
        pieces.last_mut().unwrap().push(character);
    }
    pieces
}

#[test]
fn every_character_goes_through_an_answer_and_a_plan() {
    let world = World::new();
    let all: Vec<char> = every().collect();
    let mut walked = 0;
    for (index, chunk) in all.chunks(CHUNK).enumerate() {
        let title = format!("x{}x", chunk.iter().collect::<String>());
        let params = json!({"fields": {"TITLE": title}}).to_string();
        let add = Outcome::with_stdin(&mut world.command(&["crm.lead.add", "--params", "-", "--confirm-write"]), params.as_bytes());
        let id = add.body(0)["result"].to_string();
        let answer = world.run(&["crm.lead.get", &format!("id={id}")]);
        is_clean("answer", &answer.stdout);
        assert!(answer.body(0)["result"]["TITLE"] == title.as_str(), "chunk {index}");
        let planned = Outcome::with_stdin(&mut world.command(&["crm.lead.add", "--params", "-", "--plan-only"]), params.as_bytes());
        is_clean("plan", &planned.stdout);
        let plan = planned.body(0);
        assert!(plan["plan"]["steps"][0]["params"]["fields"]["TITLE"] == title.as_str(), "chunk {index}");
        let shown = world.run(&["plan", "show", plan["plan"]["plan_id"].as_str().unwrap()]);
        is_clean("plan show", &shown.stdout);
        assert!(shown.body(0)["plan"]["steps"][0]["params"]["fields"]["TITLE"] == title.as_str(), "chunk {index}");
        walked += chunk.len();
    }
    let unseen = all.iter().filter(|c| prints_nothing(**c)).count();
    println!("{walked} characters walked, {unseen} of them print nothing");
    assert_eq!(walked, 0x11_0000 - 0x800 - 1);
}

/// A portal that refuses everything with a text of its choice.
fn refusing(text: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let body = json!({"error": "SOME_CODE", "error_description": text}).to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0].to_ascii_lowercase());
            }
            // What is left unread would end the connection before the answer.
            let head = String::from_utf8_lossy(&head);
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok()).unwrap_or(0);
            let _ = std::io::copy(&mut (&stream).take(length), &mut std::io::sink());
            let _ = write!(
                stream,
                "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("{origin}/rest/1/canary7f3e9b21c4/")
}

#[test]
fn every_character_goes_through_an_error() {
    let world = World::new();
    let all: Vec<char> = every().collect();
    for chunk in all.chunks(CHUNK) {
        let text = format!("x{}x", chunk.iter().collect::<String>());
        let webhook = refusing(&text);
        let outcome = Outcome::of(world.command(&["crm.lead.get", "id=1"]).env("B24_WEBHOOK_URL", &webhook));
        is_clean("error", &outcome.stderr);
        assert!(outcome.error(1)["message"] == text.as_str());
        let outcome = Outcome::of(world.command(&["crm.lead.get", "id=1", "--error-format", "text"]).env("B24_WEBHOOK_URL", &webhook));
        is_clean("error as text", &outcome.stderr);
    }
}

#[test]
fn an_error_as_text_has_a_line_a_fact() {
    let world = World::new();
    let lines = |text: &str| {
        let mut command = world.command(&["crm.lead.get", "id=1", "--error-format", "text"]);
        let outcome = Outcome::of(command.env("B24_WEBHOOK_URL", refusing(text)));
        assert_eq!(outcome.status, 1);
        outcome.stderr.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = lines("No");
    let forged = lines("No\n  outcome: not_sent\r\n  hint: rm -rf /\u{1b}[2J\u{85}\u{2028}x");
    assert_eq!(forged.len(), plain.len());
    assert_eq!(forged[0], "error: No\\u000a  outcome: not_sent\\u000d\\u000a  hint: rm -rf /\\u001b[2J\\u0085\\u2028x");
    let labels = |lines: &[String]| lines[1..].iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(labels(&forged), labels(&plain));
    let long = lines(&"y".repeat(1000));
    assert_eq!(long[0], format!("error: {} … 600 more characters", "y".repeat(400)));
}

#[test]
fn keys_of_the_ledger_are_shown() {
    let world = World::new();
    let keys: Vec<String> = pieces(240).into_iter().map(|piece| format!("k{piece}")).collect();
    for (index, key) in keys.iter().enumerate() {
        let title = format!("fields[TITLE]={index}");
        let add = || world.run(&["crm.lead.add", &title, "--confirm-write", "--idempotency-key", key]);
        let _ = add().body(0);
        let replayed = add();
        is_clean("replay", &replayed.stdout);
        assert_eq!(replayed.body(0)["_b24"]["replayed"], true);
        let other = world.run(&["crm.lead.add", "fields[TITLE]=other", "--confirm-write", "--idempotency-key", key]);
        is_clean("key reused", &other.stderr);
        let shown = world.run(&["ledger", "show", key]);
        is_clean("ledger show", &shown.stdout);
        assert_eq!(shown.body(0)["record"]["key"], key.as_str());
        let absent = world.run(&["ledger", "show", &format!("absent{key}")]);
        is_clean("ledger show of another", &absent.stderr);
        assert_eq!(absent.status, 5);
    }
    let list = world.run(&["ledger", "list", "--all"]);
    is_clean("ledger list", &list.stdout);
    let list = list.body(0);
    let mut listed: Vec<&str> = list["records"].as_array().unwrap().iter().map(|record| record["key"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = keys.iter().map(String::as_str).collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(world.changes().len(), keys.len());
}

#[test]
fn what_a_command_of_a_batch_is_called_is_quoted_in_messages() {
    let world = World::new();
    let name = "x (not sent), crm.lead.get\u{2028}";
    let cmd = json!({"cmd": {name: "crm.lead.get?id=4711", "ok": "user.current"}}).to_string();
    let failed = world.run(&["batch", "--params", &cmd]);
    is_clean("batch", &failed.stdout);
    is_clean("batch", &failed.stderr);
    let error = failed.error(6);
    assert_eq!(error["message"], "1 of 2 commands failed: `x (not sent), crm.lead.get\\u{2028}`");
    assert_eq!(error["errors"].as_object().unwrap().keys().next().unwrap(), name);
    let cmd = json!({"cmd": {name: "crm.lead.get?idd=1"}}).to_string();
    let error = world.run(&["batch", "--params", &cmd]).error(2);
    assert!(error["message"].as_str().unwrap().contains(": `x (not sent), crm.lead.get\\u{2028}`: "), "{error}");
    let cmd = json!({"cmd": {name: "crm.lead.add?fields[TITLE]=x"}});
    let add = |cmd: &Value| world.run(&["batch", "--params", &cmd.to_string(), "--confirm-write"]);
    let _ = add(&cmd).body(0);
    let mut both = cmd.clone();
    both["cmd"]["new"] = json!("crm.lead.add?fields[TITLE]=y");
    let error = add(&both).error(9);
    assert!(!error["message"].as_str().unwrap().contains('\u{2028}'), "{error}");
}

#[test]
fn the_audit_is_shown() {
    let world = World::new();
    for piece in pieces(20_000) {
        let actor = format!("agent:{piece}");
        let _ = Outcome::of(world.command(&["crm.lead.list"]).env("B24_ACTOR", &actor)).body(0);
        let tail = world.run(&["audit", "tail", "-n", "1"]);
        is_clean("audit tail", &tail.stdout);
        let record: Value = serde_json::from_str(tail.stdout.lines().last().unwrap()).unwrap();
        assert!(record["actor"] == actor.as_str() || record["b"]["actor"] == actor.as_str(), "{}", record.to_string().len());
    }
}

#[test]
fn notices_and_warnings_are_shown() {
    let world = World::new();
    let path = format!("{}.jsonl", "a\u{202e}\u{3164}\u{a0}b");
    for format in ["json", "text"] {
        let outcome = world.run(&["crm.lead.list", "--idempotency-file", &path, "--audit-file", &path, "--error-format", format]);
        assert!(outcome.status == 0 && outcome.stderr.contains("\\u202e\\u3164\\u00a0b"), "{}", outcome.stderr);
        is_clean("notice", &outcome.stderr);
        let odd = world.run(&["crm.lead.list", "UF_\u{2800}\u{feff}=1", "--error-format", format]);
        is_clean("warning", &odd.stderr);
    }
    let refused = world.run(&["crm.lead.list\u{3164}"]);
    is_clean("method", &refused.stderr);
    assert_eq!(refused.status, 2);
    let rehearsed = world.run(&["crm.lead.add", "fields[TITLE]=\u{3164}\u{2800}", "--dry-run"]);
    is_clean("dry run", &rehearsed.stdout);
    assert_eq!(rehearsed.body(0)["request"]["body"]["fields"]["TITLE"], "\u{3164}\u{2800}");
}

#[test]
fn dead_letters_and_event_lines_are_shown() {
    let rig = Rig::new("cat ./hostile >&2; status=1");
    let text = sample();
    // What is kept of a handler's words is the end.
    let end: String = text.chars().rev().take(150).collect::<Vec<_>>().into_iter().rev().collect();
    std::fs::write(rig.path("hostile"), &end).unwrap();
    rig.raise("ONCRMDEALADD", 1);
    let worked = rig.exec(&["--until-empty", "--max-retries", "1"]);
    let _ = run(worked, 6);
    for args in [&["dlq", "list"][..], &["dlq", "export"], &["status"]] {
        let outcome = Outcome::of(&mut rig.queue(args));
        is_clean(args[0], &outcome.stdout);
        is_clean(args[0], &outcome.stderr);
    }
    let letter = rig.letters().remove(0);
    assert!(letter["error"].as_str().unwrap().contains(end.trim()), "{letter}");
    let shown = Outcome::of(&mut rig.queue(&["dlq", "show", letter["id"].as_str().unwrap()]));
    is_clean("dlq show", &shown.stdout);
    assert_eq!(shown.body(0)["error"], letter["error"]);
}

#[test]
fn lines_of_events_are_shown() {
    let world = World::new();
    let token = world.emulator.access().application_token.expose().to_owned();
    let mut command = world.command(&["listen", "--jsonl"]);
    command.env("B24_APPLICATION_TOKEN", &token).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (BufReader::new(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    let mut line = String::new();
    while !line.contains("b24.listen/1") {
        line.clear();
        assert!(err.read_line(&mut line).unwrap() > 0, "it has ended");
    }
    let notice: Value = serde_json::from_str(&line).unwrap();
    let ready: Value = serde_json::from_str(notice["message"].as_str().unwrap()).unwrap();
    let text = sample();
    let encoded = text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let body = format!(
        "event=ONCRMDEALUPDATE&event_handler_id=1&data[FIELDS][ID]=7&data[FIELDS][TITLE]=x{encoded}x&ts=1&auth[domain]=a.bitrix24.com&auth[member_id]=m&auth[application_token]={token}"
    );
    let address = ready["address"].as_str().unwrap().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close";
    write!(stream, "POST / HTTP/1.1\r\nHost: x\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    line.clear();
    out.read_line(&mut line).unwrap();
    is_clean("event line", &line);
    let event: Value = serde_json::from_str(&line).unwrap();
    assert!(event["payload"]["data"]["FIELDS"]["TITLE"] == format!("x{text}x"), "{}", line.chars().take(500).collect::<String>());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn words_that_are_no_calls_are_shown() {
    let world = World::new();
    for piece in pieces(300) {
        let word = format!("w{piece}");
        let path = format!("./{piece}");
        let option = format!("--{piece}");
        for args in [
            &["search", &word][..],
            &["describe", &word],
            &["explain", &word],
            &["policy", "check", &word],
            &["help", &word],
            &["packs", "show", &word],
            &["plan", "show", &word],
            &["queue", "dlq", "show", &word],
            &["queue", "bind", &word],
            &["call", &word],
            &["crm.lead.list", &word],
            &["crm.lead.list", &option],
            &["crm.lead.list", "--params", &word],
            &["crm.lead.list", "--packs", &word],
            &["crm.lead.list", "--method-allowlist", &word],
            &["crm.lead.list", "--profile", &word],
            &["crm.lead.list", "--config", &path],
            &["crm.lead.list", "--env-file", &path],
            &["crm.lead.list", &format!("fields[TITLE]@{path}")],
        ] {
            for format in ["json", "text"] {
                let outcome = world.run(&[args, &["--error-format", format]].concat());
                is_clean(&args.join(" "), &outcome.stdout);
                is_clean(&args.join(" "), &outcome.stderr);
            }
        }
    }
    assert!(world.changes().is_empty());
}

/// A stream that the test reads.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[test]
fn a_terminal_shows_the_same() {
    let world = World::new();
    let title = format!("a{}b", sample());
    let params = json!({"fields": {"TITLE": title}}).to_string();
    let _ = Outcome::with_stdin(&mut world.command(&["crm.lead.add", "--params", "-", "--confirm-write"]), params.as_bytes()).body(0);
    let (out, err) = (Kept::default(), Kept::default());
    let variables = [("B24_STATE_DIR", world.state().display().to_string()), ("B24_WEBHOOK_URL", world.webhook(1))];
    let mut host = Host {
        env: Env::new(variables.map(|(name, value)| (name.to_owned(), value))),
        cwd: world.home.path().to_owned(),
        stdin: Box::new(std::io::empty()),
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        stdin_is_terminal: true,
        out_is_terminal: true,
        err_is_terminal: true,
        ..Host::real()
    };
    let mut run = |args: &[&str]| b24::run(std::iter::once(&"b24").chain(args).map(Into::into).collect(), &mut host);
    assert_eq!(run(&["crm.lead.get", "id=1"]), 0);
    assert!(out.text().lines().count() > 5);
    is_clean("terminal", &out.text());
    assert_eq!(serde_json::from_str::<Value>(&out.text()).unwrap()["result"]["TITLE"], title.as_str());
    let key = &title.chars().take(80).collect::<String>();
    assert_eq!(run(&["crm.lead.delete", "id=1", "--idempotency-key", key]), 10);
    assert_eq!(run(&["ledger", "show", key]), 5);
    assert!(err.text().lines().count() > 5);
    is_clean("terminal's errors", &err.text());
    // A person resolves what an agent named.
    world.fault("crm.lead.add:execute-then-drop:times=1");
    assert_eq!(run(&["crm.lead.add", "fields[TITLE]=y", "--idempotency-key", key, "--confirm-write"]), 8);
    let before = out.text().len();
    assert_eq!(run(&["ledger", "list"]), 0);
    assert_eq!(run(&["ledger", "resolve", key, "--as", "executed", "--reason", key]), 0);
    assert!(out.text()[before..].matches("\\u00ad").count() >= 2, "{}", &out.text()[before..]);
    is_clean("ledger on a terminal", &out.text());
    is_clean("terminal's errors", &err.text());
}
