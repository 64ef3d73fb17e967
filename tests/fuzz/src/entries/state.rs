//! Files of the state folder that decide whether something is sent: plans,
//! ledger records, the audit log, tokens.

use super::{Counted, Read, Stopped, folder, relined};
use b24::call::Request;
use b24::catalog::Api;
use b24::json;
use b24::risk::Risk;
use b24::secret::Secret;
use b24::store::audit::{AuditLog, AuditPlace, Durability, TailLine};
use b24::store::ledger::chain::Chain;
use b24::store::ledger::record::{Line, Record};
use b24::store::locked::StoreError;
use b24::store::plans::{Binding, Kept, Plan, PlanError, Plans};
use b24::store::tokens::{Pair, TokenLine};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

const PLAN: &str = "01KF5S2JK00000000000000000";
const KEY: [u8; 32] = [7; 32];
const WAIT: Duration = Duration::from_secs(5);

/// The file of a plan. Id, digest and seal are put right when it is an object.
pub(crate) fn plan(bytes: &[u8]) -> Read {
    let place = folder().join("plans");
    std::fs::create_dir(&place).expect("a folder");
    let path = place.join(format!("{PLAN}.json"));
    std::fs::write(&path, sealed_plan(bytes).unwrap_or_else(|| bytes.to_vec())).expect("a file");
    let plans = Plans::new(place, KEY);
    let now = DateTime::<Utc>::from_timestamp(1_800_000_000, 0).expect("a time");
    let listed = plans.list(now).expect("the folder can be read");
    let (id, plan) = match plans.load(PLAN) {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(matches!(error, PlanError::Changed { .. }), "{error}");
            assert!(matches!(listed[..], [Kept::Changed { .. } | Kept::OfOtherVersion { .. }]), "{listed:?}");
            return Read::Refused;
        }
    };
    assert_eq!(id.as_str(), PLAN);
    assert!(matches!(&listed[..], [Kept::Sealed { plan: listed, is_cancelled: false, .. }] if listed.digest == plan.digest));
    let again: Plan = serde_json::from_str(&serde_json::to_string(&plan).expect("a plan can be written")).expect("a plan can be read");
    assert_eq!(again.digest, plan.digest);
    let binding = Binding {
        profile: plan.profile.clone(),
        portal: plan.portal.clone(),
        principal: plan.principal.clone(),
        packs: plan.packs.clone(),
        ledger: plan.ledger.clone(),
    };
    let _ = plan.check(&id, &binding, now);
    let other = Binding { portal: format!("{}x", plan.portal), ..binding };
    assert!(matches!(plan.check(&id, &other, now), Err(PlanError::Foreign { .. })));
    for step in &plan.steps {
        let api = Api::parse(&step.api).unwrap_or(Api::V2);
        let _ = Request::parse(&step.method, step.params.clone(), api).map(|request| request.body());
        let _ = Risk::parse(&step.risk);
    }
    plans.cancel(PLAN, &Counted::default()).expect("a plan can be cancelled");
    assert!(matches!(plans.load(PLAN), Err(PlanError::Cancelled(_))));
    let _ = plans.prune(now).expect("the folder can be read");
    assert!(matches!(plans.load(PLAN), Err(PlanError::Cancelled(_) | PlanError::NotFound(_))), "a cancelled plan stays so");
    Read::Taken
}

fn sealed_plan(bytes: &[u8]) -> Option<Vec<u8>> {
    let Value::Object(mut plan) = json::parse_strict(std::str::from_utf8(bytes).ok()?).ok()? else { return None };
    plan.shift_remove("digest");
    plan.shift_remove("seal");
    plan.insert("plan_id".to_owned(), Value::from(PLAN));
    let digest = json::sha256_hex(json::canonical(&Value::Object(plan.clone())));
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&KEY).ok()?;
    mac.update(b"b24-plan-v1\0");
    mac.update(digest.as_bytes());
    plan.insert("digest".to_owned(), Value::from(digest));
    plan.insert("seal".to_owned(), Value::from(hex::encode(mac.finalize().into_bytes())));
    Some(Value::Object(plan).to_string().into_bytes())
}

/// A ledger record, its lines without their checks. A line that begins with a
/// space is one of the versions before the chain.
pub(crate) fn ledger(bytes: &[u8]) -> Read {
    let mut tip = String::new();
    let file = relined(bytes, |text| {
        let json = text.trim_start_matches(' ');
        let link = Sha256::new().chain_update(b"b24-line-v2\0").chain_update(&tip).chain_update(b"\0").chain_update(json).finalize();
        tip = hex::encode(&link[..4]);
        let check = if json == text { tip.clone() } else { format!("{:08x}", crc32c::crc32c(json.as_bytes())) };
        format!("{check} {json}\n").into_bytes()
    });
    let Some(record) = Record::parse(&file) else { return Read::Refused };
    let valid = usize::try_from(record.valid).expect("a length");
    assert!(valid <= file.len() && file[valid - 1] == b'\n');
    assert!(record.claim().is_some() && record.last().is_some() && record.checks.len() == record.lines.len());
    let written = |record: &Record| {
        let mut chain = Chain::default();
        record.lines.iter().flat_map(|line| chain.push(line)).collect::<Vec<u8>>()
    };
    // Cutting what a crash left, writing the lines anew, and going on from
    // them change nothing.
    let cut = Record::parse(&file[..valid]).expect("a record of whole lines");
    assert_eq!((cut.valid, written(&cut)), (record.valid, written(&record)));
    let again = Record::parse(&written(&record)).expect("a record of whole lines");
    assert_eq!(written(&again), written(&record));
    let next = Chain::behind(&record).push(record.lines.last().expect("a line"));
    let longer = Record::parse(&[&file[..valid], &next].concat()).expect("a record of whole lines");
    assert_eq!(longer.lines.len(), record.lines.len() + 1);
    assert_eq!(record.to_value("r")["state"], record.last().map(Line::state).expect("a last line"));
    // A line that is lost in the middle is never passed over.
    if record.lines.len() > 2 {
        let second = file.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        let mut damaged = file[..valid].to_vec();
        damaged[second] ^= 1;
        assert!(Record::parse(&damaged).is_none(), "a damaged line is passed over");
    }
    Read::Taken
}

/// The audit log, its records without their frames; an empty `prev` is made
/// the hash of the record before.
pub(crate) fn audit(bytes: &[u8]) -> Read {
    let mut before = "0".repeat(64);
    let file = relined(bytes, |text| {
        let body = text.replacen("\"prev\":\"\"", &format!("\"prev\":\"{before}\""), 1);
        let prev = serde_json::from_str::<Value>(&body).ok().and_then(|body| body["prev"].as_str().map(str::to_owned));
        before = hex::encode(Sha256::new().chain_update(prev.unwrap_or_default()).chain_update(&body).finalize());
        format!("{{\"h\":\"{before}\",\"b\":{body}}}\n").into_bytes()
    });
    let place = folder();
    let path = place.join("audit.jsonl");
    std::fs::write(&path, &file).expect("a file");
    let log = AuditLog::open(AuditPlace::File(path.clone()), Arc::new(Stopped), Arc::new(Counted::default()));
    let report = log.verify().expect("the file can be read");
    let tail = tail(&log, 3);
    assert!(tail.len() <= 3 && tail.len() as u64 <= report.records);
    let fields = Map::from_iter([("type".to_owned(), Value::from("read")), ("seq".to_owned(), Value::from(9))]);
    match log.append(&fields, Durability::Lazy, WAIT) {
        Ok(receipt) => {
            let after = log.verify().expect("the file can be read");
            assert_eq!(after.last.as_ref(), Some(&receipt));
            let torn = usize::from(file.last().is_some_and(|byte| *byte != b'\n'));
            assert!(after.problem_count <= report.problem_count || !after.is_intact() && report.problem_count > 0, "{:?}", after.problems);
            assert!(!report.is_intact() || after.is_intact(), "{:?}", after.problems);
            assert!(torn == 0 || !after.repaired.is_empty());
            assert_eq!(self::tail(&log, 1)[0]["seq"], receipt.seq);
        }
        Err(_) => {
            assert!(!report.is_intact() || last_number(&report) == Some(u64::MAX), "an intact log takes a record");
            assert_eq!(std::fs::read(&path).expect("the file can be read"), file, "a refused log is left alone");
        }
    }
    Read::of(report.is_intact() && report.records > 0)
}

/// The last lines; one that cannot be read is nothing.
fn tail(log: &AuditLog, count: usize) -> Vec<Value> {
    let mut lines = Vec::new();
    let tail = log.tail(count).expect("the file can be read");
    let each = |line: TailLine| {
        lines.push(match line {
            // A tree cannot hold a lone surrogate, a record may.
            TailLine::Record(text) | TailLine::Changed(text) => serde_json::from_str(text).unwrap_or_default(),
            TailLine::Unreadable => Value::Null,
        });
        Ok::<(), StoreError>(())
    };
    tail.each(each).expect("the file can be read");
    lines
}

fn last_number(report: &b24::store::audit::Report) -> Option<u64> {
    report.last.as_ref().map(|last| last.seq)
}

/// A token file.
pub(crate) fn tokens(bytes: &[u8]) -> Read {
    let state = folder();
    let place = state.join("tokens");
    let pair = |access: &str, refresh: &str| Pair {
        access: Secret::new(access.to_owned()),
        refresh: Some(Secret::new(refresh.to_owned())),
        user: None,
        member: None,
    };
    let open = |first: Pair| TokenLine::open(place.clone(), "https://o.example", "app", first);
    let random = Counted::default();
    let line = open(pair("a1", "r1")).expect("an empty folder");
    line.lock(WAIT).and_then(|lock| lock.store(&pair("a2", "r2"), &random)).expect("a pair can be stored");
    let files = std::fs::read_dir(&place).expect("the folder can be read").map(|entry| entry.expect("a name").path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).expect("the pair's file");
    std::fs::write(&file, bytes).expect("a file");
    std::fs::remove_dir_all(state.join("seen")).expect("the witness of the pair");
    // A line that cannot be read is not one to start anew from.
    let current = match open(pair("a1", "r1")).and_then(|line| line.current()) {
        Ok(current) => current,
        Err(error) => {
            let ends = ["does not hold a token pair", "was changed"];
            assert!(ends.iter().any(|end| error.to_string().ends_with(end)), "{error}");
            assert_eq!(std::fs::read(&file).expect("the file can be read"), bytes);
            return Read::Refused;
        }
    };
    let line = open(pair("a1", "r1")).expect("it was read");
    line.lock(WAIT).and_then(|lock| lock.store(&pair("a3", "r3"), &random)).expect("a pair can be stored");
    let stored = line.current().expect("what is stored can be read");
    assert_eq!(stored.access.expose(), "a3");
    assert!(current.user.is_none() || stored.user == current.user, "the user is kept");
    // Who starts with the token that was the newest finds the line.
    if let Some(refresh) = current.refresh {
        let is_ours = std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\"oauth\":\"https://o.example\",\"client_id\":\"app\""));
        let found =
            open(Pair { refresh: Some(refresh), ..pair("x", "x") }).and_then(|line| line.current()).expect("the folder can be read");
        assert!(!is_ours || found.access.expose() == "a3");
    }
    Read::Taken
}
