//! The idempotency ledger: nothing is sent twice, and nothing that may have
//! been sent is forgotten.
//!
//! # Protocol
//!
//! One record file per key, in 256 folders. The exclusive lock on the record
//! proves that its owner lives: it is taken before the file has a name and
//! held until the outcome is written, so there are no leases and no clocks.
//! A write passes these points, in this order:
//!
//! 1. **Claim**: create the record locked, with a `C` line, or take over one
//!    whose last line allows it ([`decide`]).
//! 2. **Marks**: look for the same write under other keys ([`marks`]). Any
//!    record with `D`, `U` or `O` as its last line blocks the write.
//! 3. **Barrier** ([`Claim::dispatch`]): `D` appended and synchronised, the
//!    folder synchronised, the name of the dispatch given ([`witness`]). Only
//!    now may a byte leave. A takeover repeats all three, because the one
//!    before may have died between them.
//! 4. **Outcome**: exactly one of `S`, `N`, `F`, `U`, synchronised.
//!
//! A process that dies before 3 leaves `C`: anybody goes on. One that dies
//! after 3 leaves `D` without a lock: the next one appends `O` and the outcome
//! is unknown until a person resolves it. The protocol was model-checked; the
//! removal of any sync but that of `C` gives a duplicate. With one damage of
//! the record or of its witness at any moment it holds, too; with the witness
//! written after the first byte it does not.

pub mod admin;
pub mod chain;
mod claim;
mod earlier;
mod marks;
pub mod record;
mod refusal;
mod resolve;
mod retention;
mod witness;

pub use claim::{Claim, Settlement};
pub use refusal::LedgerError;

use crate::crash;
use crate::error::Code;
use crate::host::{self, Clock, Random};
use crate::json;
use crate::risk::Risk;
use crate::store::locked::{Existing, Locked, Mode, StoreError};
use crate::store::temporary_name;
use chain::Chain;
use record::{ClaimLine, Line, Owner, ReasonLine, Record, Verdict};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How the keys of a worker's calls begin; no other key may.
const ONCE: &str = "queue:";

/// Under which key a write is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `--idempotency-key`.
    Given(String),
    /// The plan that is executed.
    Plan(String),
    /// The fingerprint of the write; the number tells equal commands of one
    /// batch apart.
    Auto(usize),
    /// One call of a worker, by its nonce. No other write has its fingerprint,
    /// so it blocks none and none blocks it.
    Once(String),
}

impl Key {
    /// Returns the key's text for a fingerprint.
    #[must_use]
    pub fn text(&self, fingerprint: &str) -> String {
        match self {
            Key::Given(key) | Key::Plan(key) => key.clone(),
            Key::Once(nonce) => Key::once(nonce),
            Key::Auto(1) => format!("auto:{fingerprint}"),
            Key::Auto(number) => format!("auto:{fingerprint}#{number}"),
        }
    }

    /// Returns the text of the key of a worker's call.
    #[must_use]
    pub fn once(nonce: &str) -> String {
        format!("{ONCE}{nonce}")
    }
}

/// A write that wants to be recorded.
#[derive(Debug, Clone)]
pub struct Write {
    /// Its key.
    pub key: Key,
    /// What makes two calls the same write.
    pub fingerprint: String,
    /// The same as earlier versions put it, whose records still count.
    pub legacy_fingerprint: Option<String>,
    /// The method.
    pub method: String,
    /// The API generation.
    pub api: &'static str,
    /// The class.
    pub risk: Risk,
    /// The plan that it belongs to.
    pub plan: Option<String>,
    /// Whether a repetition leaves the portal as it is: setting the same field
    /// to the same value needs no guard against repetition.
    pub replay_safe: bool,
}

/// What an earlier record of the same key means for this run.
#[derive(Debug, Clone)]
pub struct Reuse {
    /// How long an equal write without a key is refused after a success.
    pub repeat_window: Duration,
    /// The caller says that the repetition is meant.
    pub again: bool,
    /// With `--auto-key`: how long a success answers an equal write.
    pub replay_auto_for: Option<Duration>,
    /// `--no-idempotency`: neither replay nor repeat guard.
    pub skip: bool,
    /// Send again what the portal refused under this key.
    pub retry_failed: bool,
    /// How long to wait for another process that is sending the same write.
    pub wait: Duration,
}

impl Reuse {
    /// An earlier record counts in full and nothing is waited for.
    #[must_use]
    pub fn plain() -> Reuse {
        Reuse { repeat_window: Duration::ZERO, again: false, replay_auto_for: None, skip: false, retry_failed: false, wait: Duration::ZERO }
    }
}

/// What the ledger says to a write.
#[derive(Debug)]
pub enum Claimed {
    /// Go on; the claim must be settled.
    Fresh(Claim),
    /// It was done before; the stored answer, if it was small enough.
    Done(Done),
}

/// An earlier success.
#[derive(Debug, Clone)]
pub struct Done {
    /// The record.
    pub record: String,
    /// When.
    pub at: String,
    /// The stored answer.
    pub answer: Option<String>,
    /// SHA-256 of the answer.
    pub digest: Option<String>,
    /// The ids in an answer that was too long to be kept.
    pub ids: Option<Value>,
}

/// The ledger of one user of one portal.
pub struct Ledger {
    folder: PathBuf,
    portal: String,
    principal: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// The same user's ledgers under other names of the portal.
    earlier: Vec<Ledger>,
}

/// What a record's state means for a new attempt.
#[derive(Debug)]
enum Decision {
    /// Take it over within the same generation.
    Continue,
    /// Start another generation.
    Anew,
    /// A dispatch whose owner died: append `O`.
    Orphan,
    /// It was done.
    Done(Done),
    /// It is refused.
    Refuse(LedgerError),
}

impl Ledger {
    /// Opens the ledger of a user of a portal. Nothing is created yet.
    #[must_use]
    pub fn new(folder: PathBuf, portal: String, principal: String, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Ledger {
        Ledger { folder, portal, principal, clock, random, earlier: Vec::new() }
    }

    /// Returns the name of the record of a key.
    #[must_use]
    pub fn record_name(&self, key: &str) -> String {
        json::sha256_hex(format!("b24-key-v1\0{}\0{}\0{key}", self.portal, self.principal))
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.folder.join("ledger").join(&name[..2]).join(&name[2..])
    }

    /// Claims writes that travel in one request: all or none. The records are
    /// locked in the order of their names, so that two batches cannot wait for
    /// each other. The result is in the order of the writes.
    pub fn claim(&self, writes: &[Write], reuse: &Reuse) -> Result<Vec<Claimed>, (usize, LedgerError)> {
        let names: Vec<String> = writes.iter().map(|write| self.record_name(&write.key.text(&write.fingerprint))).collect();
        let mut order: Vec<usize> = (0..writes.len()).collect();
        order.sort_by(|a, b| names[*a].cmp(&names[*b]));
        let mut claimed: Vec<Option<Claimed>> = writes.iter().map(|_| None).collect();
        for index in order {
            let result = self.claim_record(&writes[index], &names[index], &names, reuse);
            claimed[index] = Some(result.map_err(|error| (index, error))?);
        }
        Ok(claimed.into_iter().flatten().collect())
    }

    fn claim_record(&self, write: &Write, name: &str, siblings: &[String], reuse: &Reuse) -> Result<Claimed, LedgerError> {
        if let Some(done) = self.ask_earlier(write, siblings, reuse)? {
            return Ok(Claimed::Done(done));
        }
        let path = self.record_path(name);
        self.create_folders(&path)?;
        let owned = match self.create(write, name, &path)? {
            Some(owned) => owned,
            None => match self.take_over(write, name, &path, reuse)? {
                Taken::Own(owned) => owned,
                Taken::Done(done) => return Ok(Claimed::Done(done)),
            },
        };
        crash::point("ledger.after_claim");
        let mark = self.check_marks(write, name, siblings)?;
        self.sweep_sometimes(&path);
        let Owned { file, generation, chain, dispatches } = owned;
        let dispatches = (!matches!(write.key, Key::Once(_))).then(|| (dispatches, self.names(name)));
        let clock = Arc::clone(&self.clock);
        Ok(Claimed::Fresh(Claim { file, name: name.to_owned(), generation, chain, dispatches, mark, clock, dispatched: false }))
    }

    /// Creates the record of a write; `None` when there is one.
    fn create(&self, write: &Write, name: &str, path: &Path) -> Result<Option<Owned>, LedgerError> {
        let mut chain = Chain::default();
        let first = chain.push(&Line::C(self.claim_line(write, 1)));
        let Some(file) = Locked::create_new(path, &first, &temporary_name(self.random.as_ref()))? else { return Ok(None) };
        let file = if matches!(write.key, Key::Once(_)) { file } else { self.refuse_missing(file, name)? };
        Ok(Some(Owned { file, generation: 1, chain, dispatches: 0 }))
    }

    /// Looks at a record that exists, first as a reader, then as its owner.
    fn take_over(&self, write: &Write, name: &str, path: &Path, reuse: &Reuse) -> Result<Taken, LedgerError> {
        for mode in [Mode::Shared, Mode::Exclusive] {
            let mut file = match Locked::open_existing(path, mode, reuse.wait)? {
                Existing::Locked(file) => file,
                // Gone between two looks (garbage collection): begin again.
                Existing::Absent => {
                    let created = self.create(write, name, path)?;
                    return created.map(Taken::Own).ok_or_else(|| LedgerError::InProgress(name.to_owned()));
                }
                Existing::Held => return Err(LedgerError::InProgress(name.to_owned())),
            };
            let record = self.read_record(&mut file, name)?;
            let claim = record.claim();
            if claim.is_some_and(|claim| !claim.key.is_empty() && self.record_name(&claim.key) != name) {
                return Err(LedgerError::damaged(name, path, "is the record of another key".to_owned()));
            }
            let generation = claim.map_or(1, |claim| claim.generation);
            let (mut chain, dispatches) = (Chain::behind(&record), witness::dispatches(&record));
            match decide(&record, name, write, reuse, self.clock.as_ref()) {
                Decision::Done(done) => return Ok(Taken::Done(done)),
                Decision::Refuse(error) => return Err(error),
                _ if mode == Mode::Shared => {}
                Decision::Orphan => {
                    self.close_orphan(&mut file, name, &record)?;
                    return Err(LedgerError::Unknown { record: name.to_owned() });
                }
                Decision::Continue => {
                    file.truncate(record.valid)?;
                    return Ok(Taken::Own(Owned { file, generation, chain, dispatches }));
                }
                Decision::Anew => {
                    file.truncate(record.valid)?;
                    file.append(&chain.push(&Line::C(self.claim_line(write, generation + 1))))?;
                    return Ok(Taken::Own(Owned { file, generation: generation + 1, chain, dispatches }));
                }
            }
        }
        Err(LedgerError::InProgress(name.to_owned()))
    }

    /// Notes that the owner of a dispatch died. What stands behind the dispatch
    /// and cannot be read may be the outcome: it is kept for the person who
    /// has to find out.
    fn close_orphan(&self, file: &mut Locked, name: &str, record: &Record) -> Result<(), LedgerError> {
        let rest = file.read_from(record.valid)?;
        let mut why = "the process that sent it died".to_owned();
        if !rest.is_empty() {
            let place = self.keep_aside(name, &rest)?;
            why = format!("{} bytes behind the dispatch cannot be read; they are kept in {}", rest.len(), place.display());
        }
        file.truncate(record.valid)?;
        file.append(&Chain::behind(record).push(&Line::O(ReasonLine { at: self.now(), why })))?;
        Ok(file.sync_data()?)
    }

    fn create_folders(&self, path: &Path) -> Result<(), StoreError> {
        super::create_folder(path.parent().unwrap_or(&self.folder))
    }

    fn claim_line(&self, write: &Write, generation: u32) -> ClaimLine {
        ClaimLine {
            v: 1,
            generation,
            key: write.key.text(&write.fingerprint),
            fingerprint: write.fingerprint.clone(),
            method: write.method.clone(),
            api: write.api.to_owned(),
            risk: write.risk.text().to_owned(),
            plan: write.plan.clone(),
            owner: Owner { pid: std::process::id(), boot: self.clock.boot_id(), b24: env!("CARGO_PKG_VERSION").to_owned() },
            at: self.now(),
        }
    }

    fn now(&self) -> String {
        host::timestamp(self.clock.now())
    }
}

enum Taken {
    Own(Owned),
    Done(Done),
}

/// A record that this process owns.
struct Owned {
    file: Locked,
    generation: u32,
    chain: Chain,
    dispatches: usize,
}

/// Says what the state of a record means for a write: the table of the
/// protocol.
fn decide(record: &Record, name: &str, write: &Write, reuse: &Reuse, clock: &dyn Clock) -> Decision {
    let record_name = name.to_owned();
    let (Some(claim), Some(last)) = (record.claim(), record.last()) else { return Decision::Orphan };
    // A record that a person wrote anew after the loss of the old one may not
    // know what it was about.
    if !claim.fingerprint.is_empty() && !write.has_fingerprint(&claim.fingerprint) {
        return Decision::Refuse(LedgerError::KeyReused { record: record_name, method: claim.method.clone() });
    }
    let is_auto = matches!(write.key, Key::Auto(_));
    // A plan is used once: no option of a later run makes it new again.
    let (skip, retry_failed) = match write.key {
        Key::Plan(_) => (false, false),
        Key::Given(_) | Key::Auto(_) | Key::Once(_) => (reuse.skip, reuse.retry_failed),
    };
    let reuse = &Reuse { skip, retry_failed, ..reuse.clone() };
    // A claim that goes on bears the fingerprint that others look for.
    let go_on = if claim.fingerprint == write.fingerprint { Decision::Continue } else { Decision::Anew };
    match last {
        Line::C(_) | Line::N(_) => go_on,
        Line::D(_) => Decision::Orphan,
        Line::U(_) | Line::O(_) => Decision::Refuse(LedgerError::Unknown { record: record_name }),
        Line::F(_) if is_auto || reuse.retry_failed || reuse.skip => go_on,
        Line::F(line) => {
            let kind = Code::ALL.iter().copied().find(|code| code.text() == line.kind).unwrap_or(Code::ApiError);
            Decision::Refuse(LedgerError::RefusedBefore { record: record_name, kind, code: line.code.clone(), text: line.text.clone() })
        }
        Line::S(line) => {
            let (at, digest) = (line.at.clone(), Some(line.digest.clone()));
            let done = Done { record: record_name, at, answer: line.answer.clone(), digest, ids: line.ids.clone() };
            decide_done(done, write, reuse, clock)
        }
        Line::R(line) => match line.verdict {
            Verdict::NotExecuted => go_on,
            Verdict::Executed => {
                let done = Done { record: record_name, at: line.at.clone(), answer: None, digest: None, ids: None };
                decide_done(done, write, reuse, clock)
            }
            Verdict::Abandoned if is_auto && reuse.again => Decision::Anew,
            Verdict::Abandoned => Decision::Refuse(LedgerError::Abandoned(record_name)),
        },
    }
}

fn decide_done(done: Done, write: &Write, reuse: &Reuse, clock: &dyn Clock) -> Decision {
    let age = age_of(&done.at, clock);
    let is_auto = matches!(write.key, Key::Auto(_));
    if reuse.skip {
        Decision::Anew
    } else if !is_auto || reuse.replay_auto_for.is_some_and(|ttl| age <= ttl) {
        Decision::Done(done)
    } else if age < reuse.repeat_window && !reuse.again && !write.replay_safe {
        Decision::Refuse(LedgerError::LooksRepeated { record: done.record, seconds: age.as_secs() })
    } else {
        Decision::Anew
    }
}

/// Returns how old a time is; a time in the future is new.
fn age_of(at: &str, clock: &dyn Clock) -> Duration {
    chrono::DateTime::parse_from_rfc3339(at).ok().and_then(|at| (clock.now() - at.to_utc()).to_std().ok()).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
