//! One call, start to finish: gate, slot, intent, dispatch, send, outcome.
//!
//! Order inside one attempt of a write: operating time, slot of the rate
//! limit, audit intent (durable), `D` line (durable), bytes, outcome line
//! (durable), audit outcome. A slot that is not got in time leaves `N`; a token
//! is refreshed between an `N` and the next `D`. A read takes a slot for each
//! attempt and leaves one audit record after the last.

mod attempt;
pub mod inventory;
mod record;
mod replay;
pub mod review;
mod settle;

use crate::call::ShapeError;
use crate::catalog::Api;
use crate::error::{Code, Failure, Outcome};
use crate::gate::{self, Appraised, Consent, Decision, Identity, Proposal, QueueCall, Refusal, Reviewed};
use crate::ids::{self, PlanId, Principal};
use crate::method::{self, Method};
use crate::risk::Risk;
use crate::session::Session;
use crate::store::ledger::admin::AdminError;
use crate::store::ledger::record::Verdict;
use crate::store::ledger::{Key, Reuse};
use crate::store::locked::StoreError;
use crate::store::patience;
use crate::store::plans::{Binding, Plan, PlanError, Plans, Step};
use crate::wire::answer::Reading;
use review::Review;
use serde_json::{Map, Value};

/// How a caller wants one call to be handled.
#[derive(Debug, Clone)]
pub struct Handling {
    /// The flags of this invocation.
    pub consent: Consent,
    /// `--idempotency-key`.
    pub key: Option<String>,
    /// What an earlier record means.
    pub reuse: Reuse,
}

/// A call that has an answer to print.
#[derive(Debug)]
pub struct Completed {
    /// Bitrix24's body.
    pub body: Vec<u8>,
    /// What the reader must know, for `_b24`.
    pub note: Option<Value>,
    /// Warnings for standard error: code and text.
    pub warnings: Vec<(&'static str, String)>,
    /// Whether the call changed the portal.
    pub changed: bool,
    /// What is wrong although there is an answer: a failed command of a batch,
    /// a record that could not be written.
    pub failure: Option<Failure>,
}

/// Runs a call through every gate and sends it.
pub fn run(session: &mut Session, proposal: Proposal, handling: &Handling) -> Result<Completed, Failure> {
    let _patience = patience::begin(session.settings.limits.max_wait);
    let name = proposal.name.clone();
    refuse_own_secrets(session, &proposal, handling.key.as_deref())?;
    let appraised = gate::appraise(proposal, &session.settings.policy).map_err(|refusal| refuse(session, &name, refusal))?;
    let deprecated = appraised.deprecated();
    let oddities = appraised.oddities().to_vec();
    let reviewed = confirm(session, appraised, (&name, handling.consent))?;
    let identity = match &handling.key {
        Some(key) => Identity::Key(check_key(key)?),
        None => Identity::Auto,
    };
    let mut completed = send(session, reviewed, &identity, handling)?;
    for (name, successor) in deprecated {
        let instead = successor.map_or_else(String::new, |successor| format!("; use {successor}"));
        completed.warnings.push(("deprecated", format!("the development of {name} has ended{instead}")));
    }
    for (command, problem) in oddities {
        let place = if command.is_empty() { String::new() } else { format!("{}: ", method::shown(&command)) };
        completed.warnings.push(("params", format!("{place}{} {}", method::shown(&problem.path), problem.problem)));
    }
    Ok(completed)
}

/// Asks for the consent that a call needs. Who is to give it is told what would
/// be done.
fn confirm(session: &Session, appraised: Appraised, (name, consent): (&str, Consent)) -> Result<Reviewed, Failure> {
    let request = (appraised.risk() > Risk::Read).then(|| (appraised.request().clone(), appraised.risks().to_vec()));
    appraised.confirm(&session.settings.policy, consent, false).map_err(|refusal| {
        let failure = refuse(session, name, refusal);
        match &request {
            Some((request, risks)) => failure.with("review", Review::of(request, risks).short_lines()),
            None => failure,
        }
    })
}

/// Runs a call of a worker of the offline queue. Its ledger record, which
/// nobody will ask for, is deleted when the outcome is known; after a lost
/// answer it stays until [`close_queue_call`].
pub fn run_queue_call(session: &mut Session, call: &QueueCall, nonce: &str) -> Result<Completed, Failure> {
    let _patience = patience::begin(session.settings.limits.max_wait);
    let reviewed = gate::review_queue_call(call, &session.settings.policy);
    let reviewed = reviewed.map_err(|refusal| refuse(session, call.method(), refusal))?;
    let handling = Handling { consent: Consent::default(), key: None, reuse: Reuse::plain() };
    let result = send(session, reviewed, &Identity::Once(nonce.to_owned()), &handling);
    let is_known = match &result {
        Ok(_) => true,
        Err(failure) => failure.outcome != Outcome::Unknown,
    };
    if is_known {
        forget_queue_call(session, nonce);
    }
    result
}

/// Settles the record of a call whose answer was lost, now that its worker
/// knows what became of it or has done it again.
pub fn close_queue_call(session: &mut Session, nonce: &str, reason: &str) -> Result<(), Failure> {
    let _patience = patience::begin(session.settings.limits.max_wait);
    let principal = principal(session)?;
    let ledger = session.ledger(&principal);
    match ledger.resolve(&Key::once(nonce), Verdict::Abandoned, reason, &session.tools.actor) {
        // Not open: its process died before the dispatch, or after the outcome.
        Ok(_) | Err(AdminError::NotOpen(_)) => forget_queue_call(session, nonce),
        // It died before that, or another worker was faster.
        Err(AdminError::NotFound(_)) => {}
        // Somebody looks at the record: no reason for a worker to end.
        Err(error @ AdminError::Held) => return Err(Failure::new(Code::LockBusy, error.to_string())),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Deletes a record that tells nothing any more. Left behind by a crash, it
/// expires like any other.
fn forget_queue_call(session: &Session, nonce: &str) {
    if let Some(principal) = session.authorizer.principal() {
        let _ = session.ledger(&principal).forget(&Key::once(nonce));
    }
}

/// Saves a plan of one call; nothing is sent.
pub fn plan(session: &mut Session, proposal: Proposal) -> Result<Plan, Failure> {
    let _patience = patience::begin(session.settings.limits.max_wait);
    let name = proposal.name.clone();
    refuse_own_secrets(session, &proposal, None)?;
    let appraised = gate::appraise(proposal, &session.settings.policy).map_err(|refusal| refuse(session, &name, refusal))?;
    let step = step_of(&appraised).map_err(|refusal| refuse(session, &name, refusal))?;
    let principal = principal(session)?;
    let tools = session.tools.clone();
    let binding = binding(session, &principal);
    let preview = Review::of_step(&step, &session.settings.policy).lines();
    let plan =
        plans(session).create(&binding, (vec![step], preview), session.settings.plan_ttl, (tools.clock.as_ref(), tools.random.as_ref()))?;
    Ok(plan)
}

/// Executes a saved plan: what is sent is what the file says, checked again by
/// the policy of now.
pub fn execute_plan(session: &mut Session, id: &str, handling: &Handling) -> Result<Completed, Failure> {
    let _patience = patience::begin(session.settings.limits.max_wait);
    let (id, plan) = plans(session).load(id).map_err(|error| refuse(session, "plan", error.into()))?;
    let [step] = plan.steps.as_slice() else {
        let error = PlanError::Changed { plan: id, problem: "it has not one step" };
        return Err(refuse(session, "plan", error.into()));
    };
    let proposal = Proposal { name: step.method.clone(), params: step.params.clone(), api: Api::parse(&step.api) };
    let reviewed = gate::appraise(proposal, &session.settings.policy)
        .and_then(|appraised| match appraised.risk().text() == step.risk {
            true => appraised.confirm(&session.settings.policy, handling.consent, true),
            false => Err(PlanError::Changed { plan: id.clone(), problem: "its class is another one now" }.into()),
        })
        .map_err(|refusal| {
            let is_consent = matches!(refusal, Refusal::Unconfirmed { .. });
            let failure = refuse(session, &step.method, refusal);
            match is_consent {
                true => failure.with("review", Review::of_step(step, &session.settings.policy).short_lines()),
                false => failure,
            }
        })?;
    let principal = principal(session)?;
    let checked = plan.check(&id, &binding(session, &principal), session.tools.clock.now());
    checked.map_err(|error| refuse(session, &step.method, error.into()))?;
    let identity = Identity::Plan(id.to_string());
    send(session, reviewed, &identity, handling).map_err(|failure| failure.with("plan_id", id.as_str()))
}

/// Refuses a call that has a secret of ours among its data: there it would be
/// stored in plans, in the ledger and on the portal.
fn refuse_own_secrets(session: &Session, proposal: &Proposal, key: Option<&str>) -> Result<(), Failure> {
    let holds = proposal.holds_secret(&session.redactor) || key.is_some_and(|key| session.redactor.finds(key.as_bytes()));
    if holds { Err(refuse(session, &proposal.name, ShapeError::OwnSecret.into())) } else { Ok(()) }
}

/// Opens the folder of plans.
#[must_use]
pub fn plans(session: &Session) -> Plans {
    Plans::new(session.settings.plans_folder.clone(), session.install_key)
}

/// Returns the step of a plan: the request as it was checked.
fn step_of(appraised: &Appraised) -> Result<Step, Refusal> {
    let request = appraised.request();
    Ok(Step {
        method: request.wire_name().to_owned(),
        api: request.api().text().to_owned(),
        params: request.body()?,
        risk: appraised.risk().text().to_owned(),
    })
}

fn binding(session: &Session, principal: &Principal) -> Binding {
    let mut packs = session.settings.policy.allowlist.packs();
    packs.extend(session.settings.policy.allowlist.extra());
    Binding {
        profile: session.settings.profile.clone(),
        portal: session.identity.clone(),
        principal: principal.to_string(),
        packs,
        ledger: session.settings.ledger_folder.as_ref().map(|folder| folder.display().to_string()),
    }
}

/// Returns who acts. A user that is not known yet is asked for once, with the
/// one method that needs no scope, and kept with the tokens.
pub fn principal(session: &mut Session) -> Result<Principal, Failure> {
    let _patience = patience::begin(session.settings.limits.max_wait);
    if let Some(principal) = session.authorizer.principal() {
        return Ok(principal);
    }
    let completed = send_read(session, own_read("profile", Api::V2)?)?;
    let reading = Reading::of(&completed.body);
    let id = reading
        .and_then(|reading| serde_json::from_str::<Value>(reading.result?.get()).ok())
        .and_then(|result| match &result["ID"] {
            Value::String(id) => ids::user_id(id),
            Value::Number(id) => ids::user_id(&id.to_string()),
            _ => None,
        })
        .ok_or_else(|| Failure::new(Code::Auth, "the portal does not say whose token this is").hint("Try b24 profile"))?;
    let wait = session.settings.limits.max_wait;
    let random = std::sync::Arc::clone(&session.tools.random);
    session.authorizer.learn_user(&id, random.as_ref(), wait)?;
    session.authorizer.principal().ok_or_else(|| Failure::new(Code::Internal, "the user id was not kept"))
}

/// A read that b24 makes for itself. It passes the gate like every call, under
/// an allowlist of its own. There are four, and no others:
///
/// | read | for | under which packs |
/// |--|--|--|
/// | `profile` | whose token it is: ledger, plans and audit are bound to the user | any: asked once, after the call itself was admitted, or by a command about one's own records; it tells nothing but the user |
/// | `methods`, `scope`, `rest.scope.list` | `catalog diff` | any, until somebody says which packs there are; then those decide ([`inventory`]) |
///
/// What `queue work` and `queue bind` read goes through [`run`] and
/// [`run_queue_call`], under the packs of the profile.
fn own_read(name: &str, api: Api) -> Result<Reviewed, Failure> {
    let policy = crate::settings::Policy {
        allowlist: crate::packs::Allowlist::parse("none", name)?,
        allow_unlisted: false,
        allow_unknown_params: false,
        read_only: true,
        require_plan: false,
    };
    let proposal = Proposal { name: name.to_owned(), params: Value::Object(Map::new()), api: Some(api) };
    Ok(gate::appraise(proposal, &policy)?.confirm(&policy, Consent::default(), false)?)
}

fn send_read(session: &mut Session, reviewed: Reviewed) -> Result<Completed, Failure> {
    match reviewed.clear_read() {
        Ok(cleared) => attempt::send(session, cleared, None),
        Err(_) => Err(Failure::new(Code::Internal, "a write was taken for a read")),
    }
}

fn send(session: &mut Session, reviewed: Reviewed, identity: &Identity, handling: &Handling) -> Result<Completed, Failure> {
    if reviewed.risk() == Risk::Read {
        return send_read(session, reviewed);
    }
    let principal = principal(session)?;
    let name = reviewed.request().wire_name().to_owned();
    let commands: Vec<String> = reviewed.request().calls().map(|(name, _)| name.to_owned()).collect();
    let ledger = session.ledger(&principal);
    let plan = match identity {
        Identity::Plan(id) => Some(id.clone()),
        Identity::Key(_) | Identity::Auto | Identity::Once(_) => None,
    };
    match reviewed.claim(&ledger, identity, &handling.reuse).map_err(|refusal| refuse(session, &name, refusal))? {
        Decision::Cleared(cleared) => attempt::send(session, cleared, plan.as_deref()),
        Decision::Done(done) => match plan.as_deref().and_then(PlanId::parse) {
            Some(id) => Err(refuse(session, &name, PlanError::Used(id).into())),
            None => Ok(replay::replay(session, &name, &done, &commands)),
        },
    }
}

/// Records a refusal, as far as that is possible, and turns it into a failure.
/// A name that is none is not repeated: it may be anything of any length, also
/// a pasted address with somebody's secret.
fn refuse(session: &Session, name: &str, refusal: Refusal) -> Failure {
    let step = refusal.step();
    let failure = Failure::from(refusal);
    let name = Method::parse(name).is_ok().then_some(name);
    let recorded = record::denied(session, name.unwrap_or("-"), step, &failure);
    let failure = in_context(session, failure);
    let failure = name.into_iter().fold(failure, |failure, name| failure.with("method", name));
    match recorded {
        Ok(()) => failure,
        Err(error) => failure.with("audit", error.to_string()),
    }
}

/// Adds which portal and profile a failure belongs to.
pub(crate) fn in_context(session: &Session, failure: Failure) -> Failure {
    let failure = match failure.code {
        Code::OutcomeUnknown if !failure.sent => {
            // The refusal of a write that may have run before.
            Failure { outcome: Outcome::Unknown, ..failure }
        }
        _ => failure,
    };
    failure.with("portal", session.identity.as_str()).with("profile", session.settings.profile.as_str())
}

fn check_key(key: &str) -> Result<String, Failure> {
    let fits =
        (1..=255).contains(&key.len()) && !key.chars().any(char::is_control) && !key.starts_with("auto:") && !key.starts_with("queue:");
    match fits {
        true => Ok(key.to_owned()),
        false => Err(Failure::new(
            Code::Usage,
            "an idempotency key has 1 to 255 bytes, no control characters, and does not begin with auto: or queue:",
        )
        .hint("Use the id of what is to be written, for example order-4711")),
    }
}

/// A store error after the portal did it.
fn unrecorded(error: &StoreError) -> Failure {
    Failure::new(Code::ExecutedUnrecorded, format!("the portal did it, but {error}"))
        .hint("Do not repeat it; make room, then b24 ledger list shows what is open")
        .sent(Outcome::Applied)
}
