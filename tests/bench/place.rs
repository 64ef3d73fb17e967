//! What is measured against: a portal in another process, small and large
//! state folders, and a server whose answers are large.

use b24::host::{Clock, SystemClock, SystemRandom, timestamp};
use b24::json::sha256_hex;
use b24::store::ledger::Ledger;
use b24::store::ledger::chain::Chain;
use b24::store::ledger::record::{ClaimLine, DispatchLine, Line, Owner, SuccessLine};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// Length at which a segment of the audit is ended.
const SEGMENT: usize = 64 * 1024 * 1024;

/// Ended segments; with the current one they make a gigabyte.
const SEGMENTS: usize = 15;

/// A portal that lives as long as this value.
pub(crate) struct Portal {
    process: Child,
    pub(crate) webhook: String,
}

impl Portal {
    pub(crate) fn start(data: &Path) -> Portal {
        let mut command = Command::new(env!("CARGO_BIN_EXE_b24"));
        command
            .args(["emulator", "serve", "--data"])
            .arg(data)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let webhook = fs::read_to_string(ready["webhook_url_file"].as_str().unwrap()).unwrap().trim().to_owned();
        Portal { process, webhook }
    }

    /// `curl` with the same request.
    pub(crate) fn curl(&self, method: &str, body: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-s", "-X", "POST", "-H", "Content-Type: application/json", "-d", body]);
        command.arg(format!("{}{method}", self.webhook));
        command
    }

    /// `b24` with a state folder and without a limiter.
    pub(crate) fn b24(&self, state: &Path, args: &[&str]) -> Command {
        b24(&self.webhook, state, args)
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `b24` with an environment of nothing else.
pub(crate) fn b24(webhook: &str, state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_b24"));
    command.args(args).env_clear().env("B24_WEBHOOK_URL", webhook).env("B24_STATE_DIR", state).env("B24_RATE_LIMITER", "off");
    command.env("HOME", state.parent().unwrap());
    command
}

/// Serves an answer of a length to everybody, and returns its webhook.
pub(crate) fn serve_answer(bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let webhook = format!("http://{}/rest/1/benchmark0/", listener.local_addr().unwrap());
    let row = r#"{"ID":"1","TITLE":"A lead of ordinary length","OPPORTUNITY":"10.10"},"#;
    let rows = row.repeat(bytes / row.len());
    let body = format!(r#"{{"result":[{}]}}"#, rows.trim_end_matches(','));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..length]);
            }
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        }
    });
    webhook
}

/// Fills a state folder that was used once with records and an audit of long
/// use.
pub(crate) fn fill(state: &Path, records: usize) {
    let portal = fs::read_dir(state.join("portals")).unwrap().next().unwrap().unwrap().path();
    fill_ledger(&portal, records);
    fill_audit(&state.join("audit"));
    // Else the syncs of the measured calls would wait for all of this.
    rustix::fs::sync();
}

fn fill_ledger(portal: &Path, records: usize) {
    let identity = portal.file_name().unwrap().to_str().unwrap().to_owned();
    let ledger = Ledger::new(portal.to_owned(), identity, "webhook:1".to_owned(), Arc::new(SystemClock), Arc::new(SystemRandom));
    let folder = portal.join("ledger");
    for shard in 0..256 {
        fs::create_dir_all(folder.join(format!("{shard:02x}"))).unwrap();
    }
    for number in 0..records {
        let key = format!("old-{number}");
        let name = ledger.record_name(&key);
        let mut chain = Chain::default();
        let bytes: Vec<u8> = lines(key).iter().flat_map(|line| chain.push(line)).collect();
        fs::write(folder.join(&name[..2]).join(&name[2..]), bytes).unwrap();
    }
}

fn lines(key: String) -> [Line; 3] {
    let at = timestamp(SystemClock.now());
    let claim = ClaimLine {
        v: 1,
        generation: 1,
        fingerprint: sha256_hex(&key),
        key,
        method: "crm.lead.add".to_owned(),
        api: "v2".to_owned(),
        risk: "write".to_owned(),
        plan: None,
        owner: Owner { pid: 1, boot: SystemClock.boot_id(), b24: "0.1.0".to_owned() },
        at: at.clone(),
    };
    let answer = r#"{"result":1}"#.to_owned();
    [
        Line::C(claim),
        Line::D(DispatchLine { at: at.clone(), request_id: "01a1fd41-9159-7f15-a8ee-6b9e5af8fa50".to_owned() }),
        Line::S(SuccessLine { at, digest: sha256_hex(&answer), answer: Some(answer), ids: None }),
    ]
}

/// Writes a chain of records that is almost as long as a segment, as the
/// current one and in place of the ended ones.
fn fill_audit(folder: &Path) {
    let current = folder.join("audit.jsonl");
    let mut text = Vec::with_capacity(SEGMENT);
    let mut prev = "0".repeat(64);
    for seq in 1_u64.. {
        let body = audit_body(seq, &prev);
        let hash = sha256_hex(format!("{prev}{body}"));
        writeln!(text, r#"{{"h":"{hash}","b":{body}}}"#).unwrap();
        prev = hash;
        if text.len() > SEGMENT - 1024 * 1024 {
            break;
        }
    }
    fs::write(&current, &text).unwrap();
    for number in 1..=SEGMENTS {
        fs::write(folder.join(format!("seg-{number}.jsonl")), &text).unwrap();
    }
}

fn audit_body(seq: u64, prev: &str) -> String {
    let fields = json!({"seq": seq, "prev": prev, "ts": timestamp(SystemClock.now()), "boot": SystemClock.boot_id(),
        "type": "read", "actor": "user:-", "uid": 0, "pid": 1, "profile": "env", "portal": "portal.example", "principal": "webhook:1",
        "method": "user.current", "request_id": "01a1fd41-9159-7f15-a8ee-6b9e5af8fa50", "attempts": 1, "outcome": "applied", "status": 200});
    fields.to_string()
}
