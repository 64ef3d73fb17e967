//! The audit log at sizes that years of work make.

use crate::world::{Outcome, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a log of any length may add to the memory of a command.
const MOST_KIB: u64 = 16 * 1024;

/// Writes a log as b24 does: pairs of intent and outcome, in segments that are
/// ended and chained. `B24_TEST_AUDIT_MB` asks for another size.
struct Writer {
    prev: String,
    seq: u64,
    folder: std::path::PathBuf,
}

impl Writer {
    fn line(&mut self, fields: &Value) -> Vec<u8> {
        self.seq += 1;
        let mut body = json!({"seq": self.seq, "prev": self.prev, "ts": "2026-01-01T00:00:00.000Z", "boot": "b"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let body = body.to_string();
        let digest = Sha256::new().chain_update(&self.prev).chain_update(&body).finalize();
        self.prev = digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        format!("{{\"h\":\"{}\",\"b\":{body}}}\n", self.prev).into_bytes()
    }

    /// Writes a file of at least as many bytes; an ended segment when it has a
    /// number.
    fn file(&mut self, number: Option<u64>, bytes: u64) {
        let name = number.map_or("audit.jsonl".to_owned(), |number| format!("seg-{number}.jsonl"));
        let mut file = BufWriter::new(std::fs::File::create(self.folder.join(name)).unwrap());
        let (mut written, padding) = (0, "x".repeat(200));
        while written < bytes {
            let id = format!("01a210d7-4b71-776d-8933-{:012x}", self.seq);
            let intent = json!({"type": "intent", "actor": "user:me", "method": "crm.lead.add", "request_id": id, "params": padding});
            let outcome = json!({"type": "outcome", "actor": "user:me", "method": "crm.lead.add", "request_id": id, "outcome": "applied"});
            for fields in [intent, outcome] {
                let line = self.line(&fields);
                written += line.len() as u64;
                file.write_all(&line).unwrap();
            }
        }
        if let Some(number) = number {
            let end = self.line(&json!({"type": "segment_end", "segment": number}));
            file.write_all(&end).unwrap();
        }
        file.flush().unwrap();
    }
}

fn fill(folder: &Path, megabytes: u64) -> u64 {
    std::fs::create_dir_all(folder).unwrap();
    let mut writer = Writer { prev: "0".repeat(64), seq: 0, folder: folder.to_owned() };
    let segments = megabytes / 64;
    for number in 1..=segments {
        writer.file(Some(number), 64 << 20);
    }
    writer.file(None, (megabytes % 64).max(1) << 20);
    writer.seq
}

/// Runs a command and returns its peak of memory, read until it ends.
fn peak_kib(mut command: Command) -> (u64, Outcome) {
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (path, mut peak) = (format!("/proc/{}/status", child.id()), 0);
    // What is printed waits in the pipe, which holds 64 KiB.
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        peak = line.map_or(peak, |line| line.split_whitespace().nth(1).unwrap().parse().unwrap());
        std::thread::yield_now();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (peak, Outcome { status: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) })
}

#[test]
fn a_log_of_any_length_costs_no_memory() {
    let megabytes = std::env::var("B24_TEST_AUDIT_MB").ok().map_or(96, |text| text.parse().unwrap());
    let (small, large) = (World::new(), World::new());
    let _ = fill(&small.state().join("audit"), 1);
    let records = fill(&large.state().join("audit"), megabytes);
    for args in [&["audit", "verify"][..], &["audit", "tail", "-n", "3"], &["audit", "tail", "-n", "100"]] {
        let (least, _) = peak_kib(small.command(args));
        let (peak, outcome) = peak_kib(large.command(args));
        println!("{}: {peak} KiB for a log of {megabytes} MB, {least} KiB for one of 1 MB", args.join(" "));
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        assert!(peak < least + MOST_KIB, "{args:?}: {peak} KiB, {least} KiB");
        match args[1] {
            "verify" => {
                let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
                assert_eq!((&report["intact"], &report["report"]["records"]), (&json!(true), &json!(records)));
                assert_eq!(report["report"]["open_intent_count"], 0);
            }
            _ => {
                let last: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
                assert_eq!((outcome.stdout.lines().count().to_string().as_str(), &last["seq"]), (args[3], &json!(records)));
            }
        }
    }
}

#[test]
fn tail_crosses_segments_and_tells_what_is_damaged() {
    let world = World::new();
    let folder = world.state().join("audit");
    std::fs::create_dir_all(&folder).unwrap();
    let mut writer = Writer { prev: "0".repeat(64), seq: 0, folder: folder.clone() };
    writer.file(Some(1), 1000);
    writer.file(Some(2), 1000);
    writer.file(None, 1000);
    let records = writer.seq;
    for count in [1, 5, 9, 1000] {
        let outcome = world.run(&["audit", "tail", "-n", &count.to_string()]);
        let seqs: Vec<u64> =
            outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=records).skip(usize::try_from(records).unwrap().saturating_sub(count)).collect::<Vec<_>>());
        assert_eq!(outcome.stderr, "");
    }
    let path = folder.join("audit.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[0] = lines[0].replace("crm.lead.add", "crm.lead.get");
    lines[1].truncate(50);
    std::fs::write(&path, format!("{}\n{}", lines.join("\n"), &lines[2][..40])).unwrap();
    let outcome = world.run(&["audit", "tail", "-n", "4"]);
    assert_eq!(outcome.status, 0);
    let told: Vec<Value> = outcome.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["code"], &told[1]["code"]), (&json!("audit_broken"), &json!("audit_torn")), "{}", outcome.stderr);
    assert!(told[0]["message"].as_str().unwrap().contains("1 lines among them cannot be read, 1 are not what was written"), "{told:?}");
    assert_eq!(world.run(&["audit", "verify"]).status, 1);
}
