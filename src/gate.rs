//! The safety story: the one sequence that every call passes before a byte of
//! it can leave, whichever door it came through.
//!
//! [`Gate::clear`] is the only maker of a [`ClearedCall`], and only a
//! [`ClearedCall`] can become the [`Departure`] that `wire::Transport::send`
//! takes. Each step consumes the value of the step before, so that leaving one
//! out, or turning two round, does not compile.
//!
//! The order decides which refusal a caller sees:
//!
//! | step | refusal | exit |
//! |--|--|--|
//! | shape: name, parameters, batch taken apart, no credentials | [`Refusal::Shape`] | 2 |
//! | known: the method is documented | [`Refusal::Unknown`] | 5 |
//! | admitted: enabled packs and allowlist | [`Refusal::OutsidePacks`] | 3 |
//! | valid: the parameters fit the method's schema | [`Refusal::Params`] | 2 |
//! | rated, then permitted: the read-only switch | [`Refusal::ReadOnly`] | 3 |
//! | confirmed: plan where one is required, flag of the class | [`Refusal::PlanRequired`], [`Refusal::Unconfirmed`] | 10 |
//! | plan: not expired, not for something else | [`Refusal::Plan`] | 9 |
//! | claimed: the ledger | [`Refusal::Ledger`] | 8, 9 |
//!
//! After that, per attempt: a slot of the rate limit, the audit intent, the
//! dispatch line, the bytes ([`ClearedCall::depart`]).
//!
//! ```compile_fail
//! // A call that was not cleared cannot be made up:
//! let call = b24::gate::ClearedCall { request: todo!(), risks: Vec::new(), claims: Vec::new() };
//! ```
//!
//! ```compile_fail
//! // A permit is spent by departing:
//! fn twice(call: b24::gate::ClearedCall, a: b24::store::limiter::Slot, b: b24::store::limiter::Slot) {
//!     let _ = call.depart("r", a, None);
//!     let _ = call.depart("r", b, None);
//! }
//! ```
//!
//! ```
//! // The same with one departure compiles:
//! fn once(call: b24::gate::ClearedCall, a: b24::store::limiter::Slot) {
//!     let _ = call.depart("r", a, None);
//! }
//! ```

#![deny(clippy::wildcard_enum_match_arm)]

mod permit;
mod queue_call;
mod rating;
mod refusal;
mod standing;

pub use permit::{ClearedCall, Departure, Flight, NotDeparted};
pub use queue_call::{QueueCall, review_queue_call};
pub use rating::Decided;
pub use refusal::Refusal;
pub use standing::{Standing, standing};

use crate::call::{Call, Fingerprint, Request};
use crate::catalog::{self, Api};
use crate::json;
use crate::method::Method;
use crate::packs;
use crate::risk::{Cause, Risk};
use crate::schema::{self, Problem, Strength};
use crate::secret::Redactor;
use crate::settings::Policy;
use crate::store::ledger::{Claim, Claimed, Done, Key, Ledger, Reuse, Write};
use serde_json::{Map, Value};

/// What the caller consents to, by the flags of this invocation. Neither
/// implies the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Consent {
    /// `--confirm-write`.
    pub write: bool,
    /// `--confirm-destructive`.
    pub destructive: bool,
}

impl Consent {
    fn covers(self, risk: Risk) -> bool {
        match risk {
            Risk::Read => true,
            Risk::Write => self.write,
            Risk::Destructive => self.destructive,
        }
    }
}

/// Steps of the gate in order, for `--dry-run`.
pub const STEPS: &[&str] = &["shape", "method", "packs", "params", "policy", "consent"];

/// A request with a name that is one, and parameters of a possible shape.
struct Shaped(Request);
/// All methods are documented, or the caller may call unlisted ones.
struct Known(Request);
/// All methods are in an enabled pack or on the allowlist.
struct Admitted(Request);
/// The parameters of every call fit its schema, apart from what is odd.
struct Valid {
    request: Request,
    oddities: Vec<(String, Problem)>,
}
/// Every call has its class.
struct Rated {
    request: Request,
    risks: Vec<Risk>,
    /// What made each call stricter.
    causes: Vec<Option<Cause>>,
    oddities: Vec<(String, Problem)>,
}
/// The policy allows the strictest class.
struct Permitted(Rated);
/// The caller consents to the strictest class.
struct Confirmed(Permitted);

/// A request that passed every step before consent.
pub struct Appraised(Permitted);

/// A request that passed every step but plan and ledger: nothing was recorded.
pub struct Reviewed(Confirmed);

/// What a caller wants to send.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The method as written.
    pub name: String,
    /// The parameters.
    pub params: Value,
    /// The generation, when the caller chose one.
    pub api: Option<Api>,
}

impl Proposal {
    /// Returns whether a known secret stands in the name or the parameters.
    #[must_use]
    pub fn holds_secret(&self, redactor: &Redactor) -> bool {
        redactor.finds(self.name.as_bytes()) || redactor.finds(self.params.to_string().as_bytes())
    }
}

/// How the write is told from others in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// `--idempotency-key`.
    Key(String),
    /// A plan.
    Plan(String),
    /// Its fingerprint.
    Auto,
    /// One call of a worker, which is never the same as another: what its
    /// worker does after a lost answer keeps it from doing harm twice.
    Once(String),
}

/// What the ledger had to say.
pub enum Decision {
    /// It may be sent.
    Cleared(ClearedCall),
    /// It was done before: the stored answers, by command name.
    Done(Vec<(String, Done)>),
}

impl Shaped {
    fn parse(proposal: Proposal) -> Result<Shaped, Refusal> {
        let api = choose_api(&proposal);
        Ok(Shaped(Request::parse(&proposal.name, proposal.params, api)?))
    }

    /// Fills in the catalog's spelling, which is the one that is sent.
    fn know(self, policy: &Policy) -> Result<Known, Refusal> {
        let mut request = self.0;
        for call in request.calls_mut() {
            match catalog::find(&call.method, call.api) {
                Some(entry) => entry.name.clone_into(&mut call.name),
                None if policy.allow_unlisted || policy.allowlist.own_class(&call.method).is_some() => {}
                None => return Err(unknown(call)),
            }
        }
        Ok(Known(request))
    }
}

impl Known {
    fn admit(self, policy: &Policy) -> Result<Admitted, Refusal> {
        let outside = self.0.calls().map(|(_, call)| call).find(|call| !policy.allowlist.admits(&call.method));
        match outside {
            Some(call) if !policy.allow_unlisted => {
                Err(Refusal::OutsidePacks { name: call.name.clone(), packs: packs::that_admit(&call.method) })
            }
            _ => Ok(Admitted(self.0)),
        }
    }
}

impl Admitted {
    /// Checks every call, so that all problems are told at once.
    fn validate(self, policy: &Policy) -> Result<Valid, Refusal> {
        let mut problems = Vec::new();
        for (command, call) in self.0.calls() {
            let Some(details) = catalog::find(&call.method, call.api).and_then(|entry| entry.details()) else { continue };
            let found = schema::check(&call.method, &details, &call.params);
            problems.extend(found.into_iter().map(|problem| (command.to_owned(), problem)));
        }
        let (errors, oddities): (Vec<_>, Vec<_>) = problems
            .into_iter()
            .partition(|(_, problem)| problem.strength == Strength::Error && !(problem.is_unknown && policy.allow_unknown_params));
        match errors.is_empty() {
            true => Ok(Valid { request: self.0, oddities }),
            false => {
                let name = self.0.wire_name().to_owned();
                Err(Refusal::Params { name, problems: errors })
            }
        }
    }
}

impl Valid {
    fn rate(self, policy: &Policy) -> Rated {
        let (risks, causes) = ratings(&self.request, policy).map(|rating| (rating.risk, rating.cause)).unzip();
        Rated { request: self.request, risks, causes, oddities: self.oddities }
    }
}

/// Judges each call of a request.
fn ratings(request: &Request, policy: &Policy) -> impl Iterator<Item = crate::risk::Rating> {
    let is_batch = matches!(request, Request::Batch(_));
    request.calls().map(move |(_, call)| rating::rate(call, is_batch, policy))
}

/// Returns the class of each call of a request. Only the gate can do anything
/// with it but show it.
#[must_use]
pub fn classes(request: &Request, policy: &Policy) -> Vec<Risk> {
    ratings(request, policy).map(|rating| rating.risk).collect()
}

impl Rated {
    fn permit(self, policy: &Policy) -> Result<Permitted, Refusal> {
        let rating::Strictest { risk, name, api, cause } = self.strictest();
        match risk {
            Risk::Write | Risk::Destructive if policy.read_only => Err(Refusal::ReadOnly { name, api, risk, cause }),
            Risk::Read | Risk::Write | Risk::Destructive => Ok(Permitted(self)),
        }
    }
}

impl Permitted {
    fn confirm(self, policy: &Policy, consent: Consent, has_plan: bool) -> Result<Confirmed, Refusal> {
        let rating::Strictest { risk, name, api, cause } = self.0.strictest();
        if risk > Risk::Read && policy.require_plan && !has_plan {
            return Err(Refusal::PlanRequired { name, api, risk, cause });
        }
        if !consent.covers(risk) {
            return Err(Refusal::Unconfirmed { name, api, risk, cause });
        }
        Ok(Confirmed(self))
    }
}

/// Passes a proposal through every step before consent. The result can be
/// shown and planned, not sent.
pub fn appraise(proposal: Proposal, policy: &Policy) -> Result<Appraised, Refusal> {
    let shaped = Shaped::parse(proposal)?;
    let known = shaped.know(policy)?;
    let admitted = known.admit(policy)?;
    let valid = admitted.validate(policy)?;
    let rated = valid.rate(policy);
    let permitted = rated.permit(policy)?;
    Ok(Appraised(permitted))
}

impl Appraised {
    /// Returns the request.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.0.0.request
    }

    /// Returns the strictest class.
    #[must_use]
    pub fn risk(&self) -> Risk {
        self.0.0.strictest().risk
    }

    /// Returns the class of each call, in order.
    #[must_use]
    pub fn risks(&self) -> &[Risk] {
        &self.0.0.risks
    }

    /// Returns what is odd about the parameters, with the name of the command.
    #[must_use]
    pub fn oddities(&self) -> &[(String, Problem)] {
        &self.0.0.oddities
    }

    /// Returns the calls whose development has ended, with what takes their
    /// place.
    #[must_use]
    pub fn deprecated(&self) -> Vec<(String, Option<&'static str>)> {
        let entries = self.request().calls().filter_map(|(_, call)| catalog::find(&call.method, call.api));
        entries.filter_map(|entry| Some((entry.name.to_owned(), entry.deprecated?.successor))).collect()
    }

    /// Asks for the plan and the flag that the strictest class needs.
    pub fn confirm(self, policy: &Policy, consent: Consent, has_plan: bool) -> Result<Reviewed, Refusal> {
        self.0.confirm(policy, consent, has_plan).map(Reviewed)
    }
}

impl Reviewed {
    /// Returns the request.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.0.0.0.request
    }

    /// Returns the strictest class.
    #[must_use]
    pub fn risk(&self) -> Risk {
        self.0.0.0.strictest().risk
    }

    /// Clears a request that only reads, which the ledger has nothing to say
    /// to; a write is given back.
    pub fn clear_read(self) -> Result<ClearedCall, Box<Reviewed>> {
        if self.risk() > Risk::Read {
            return Err(Box::new(self));
        }
        let Rated { request, risks, .. } = self.0.0.0;
        let claims = request.calls().map(|_| None).collect();
        Ok(ClearedCall { request, risks, claims })
    }

    /// Claims every write in the ledger: the last step.
    pub fn claim(self, ledger: &Ledger, identity: &Identity, reuse: &Reuse) -> Result<Decision, Refusal> {
        let Rated { request, risks, .. } = self.0.0.0;
        let writes = writes_of(&request, &risks, identity);
        let claimed = {
            let writes: Vec<Write> = writes.iter().map(|(_, write)| write.clone()).collect();
            ledger.claim(&writes, reuse)
        };
        let names: Vec<&str> = request.calls().map(|(name, _)| name).collect();
        let claimed = claimed.map_err(|(index, source)| {
            let command = names.get(writes[index].0).copied().unwrap_or_default().to_owned();
            Refusal::Ledger { command, source }
        })?;
        let mut claims: Vec<Option<Claim>> = request.calls().map(|_| None).collect();
        let mut done = Vec::new();
        let count = writes.len();
        for ((index, _), claimed) in writes.iter().zip(claimed) {
            match claimed {
                Claimed::Fresh(claim) => claims[*index] = Some(claim),
                Claimed::Done(earlier) => done.push((names[*index].to_owned(), earlier)),
            }
        }
        if done.is_empty() {
            return Ok(Decision::Cleared(ClearedCall { request, risks, claims }));
        }
        if done.len() < count {
            return Err(Refusal::PartlyDone(done.into_iter().map(|(name, _)| name).collect()));
        }
        Ok(Decision::Done(done))
    }
}

fn of_once(fingerprint: &str, nonce: &str) -> String {
    json::sha256_hex(format!("{fingerprint}\0{nonce}"))
}

/// Returns the writes of a request with the index of their call.
fn writes_of(request: &Request, risks: &[Risk], identity: &Identity) -> Vec<(usize, Write)> {
    let fingerprints = request.fingerprints();
    let mut writes: Vec<(usize, Write)> = Vec::new();
    for (index, (name, call)) in request.calls().enumerate().filter(|(index, _)| risks[*index] > Risk::Read) {
        let Fingerprint { current, legacy } = fingerprints[index].clone();
        let (fingerprint, legacy_fingerprint) = match identity {
            Identity::Once(nonce) => (of_once(&current, nonce), Some(of_once(&legacy, nonce))),
            Identity::Key(_) | Identity::Plan(_) | Identity::Auto => (current, Some(legacy)),
        };
        let named = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{key}#{name}") };
        let key = match identity {
            Identity::Key(key) => Key::Given(named(key)),
            Identity::Plan(id) => Key::Plan(named(id)),
            Identity::Once(nonce) => Key::Once(nonce.clone()),
            Identity::Auto => Key::Auto(1 + writes.iter().filter(|(_, write)| write.fingerprint == fingerprint).count()),
        };
        let plan = match identity {
            Identity::Plan(id) => Some(id.clone()),
            Identity::Key(_) | Identity::Auto | Identity::Once(_) => None,
        };
        let replay_safe = catalog::find(&call.method, call.api).is_some_and(|entry| entry.replay_safe);
        let (method, api, risk) = (call.name.clone(), call.api.text(), risks[index]);
        writes.push((index, Write { key, fingerprint, legacy_fingerprint, method, api, risk, plan, replay_safe }));
    }
    writes
}

/// Returns what a person should know of a method before consenting: what it
/// does in this generation, what is lost, and what reaches beyond the portal.
#[must_use]
pub fn effects(name: &str, api: Api) -> Map<String, Value> {
    let mut effects = Map::new();
    let details = Method::parse(name).ok().and_then(|method| catalog::find(&method, api)?.details());
    let Some(details) = details else { return effects };
    effects.insert("purpose".to_owned(), Value::from(details.purpose));
    if let Some(note) = details.note {
        effects.insert("loses".to_owned(), Value::from(note));
    }
    if let Some(external) = details.external {
        effects.insert("external_effect".to_owned(), Value::from(external));
    }
    effects
}

/// Without a choice of the caller's: the classic generation where it has the
/// method, REST 3.0 for methods that exist there alone, and for a batch what
/// its form says.
fn choose_api(proposal: &Proposal) -> Api {
    if let Some(api) = proposal.api {
        return api;
    }
    let Ok(method) = Method::parse(&proposal.name) else { return Api::V2 };
    match catalog::generations(&method)[0] {
        Some(oldest) => oldest.api,
        None if method.is_batch() && proposal.params.is_array() => Api::V3,
        None => Api::V2,
    }
}

fn unknown(call: &Call) -> Refusal {
    let name = call.method.to_string();
    match catalog::generations(&call.method)[0] {
        Some(entry) => {
            let other = entry.api.text();
            Refusal::Unknown {
                elsewhere: format!(" of REST {}; it is one of REST {other}", call.api.text()),
                suggestions: Vec::new(),
                name: entry.name.to_owned(),
            }
        }
        None => Refusal::Unknown { suggestions: catalog::suggestions(&name), elsewhere: String::new(), name },
    }
}
