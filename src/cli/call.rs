//! `b24 METHOD`, `b24 call`, and the commands that make and run plans.

use super::args::{Call, Global, Plan as PlanCommand};
use super::connect::{Connected, Role, connect_as};
use super::{Stop, help, label, notices, params, plans, printed};
use crate::call::ShapeError;
use crate::catalog;
use crate::credential::Credential;
use crate::error::{Code, Failure, Outcome};
use crate::gate::{self, Consent, Proposal};
use crate::host::Host;
use crate::method::Method;
use crate::output::{self, ErrorFormat};
use crate::pipeline::review::Review;
use crate::pipeline::{self, Completed, Handling};
use crate::secret::MASK;
use crate::settings::{self, Settings};
use crate::store::ledger::Reuse;
use crate::store::patience;
use crate::wire::auth::address_form;
use serde_json::{Value, json};
use std::time::Duration;

/// What is said besides the answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Talk {
    /// `_b24` is always added.
    meta: bool,
    /// No warnings.
    quiet: bool,
}

impl Call {
    fn talk(&self) -> Talk {
        Talk { meta: self.request.meta, quiet: self.request.quiet }
    }
}

/// Runs a call, or one of the things that can be done with it.
pub(super) fn run(call: &Call, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    if call.guards.list_packs {
        return help::packs(None, host);
    }
    let settings = settings::resolve(&call.options(global), host)?;
    let _patience = patience::begin(settings.limits.max_wait);
    if !call.request.quiet {
        notices(&settings, host, format);
    }
    if let Some(id) = &call.plans.execute_plan {
        refuse_beside_plan(call)?;
        return execute(id, settings, handling(call), call.talk(), (host, format));
    }
    let Some(method) = &call.method else {
        return Err(Failure::new(Code::Usage, "no method is given").hint("Methods look like crm.lead.list").into());
    };
    let params = params::read(call.request.params.as_deref(), &call.items, &settings.own_files, host)?;
    let connector = label::given(call.request.auth_connector.as_ref(), host);
    let proposal = Proposal { name: method.clone(), params, api: call.api() };
    let proposal = label::add(proposal, connector.as_deref(), call.request.auth_connector.is_some())?;
    if call.request.curl || call.request.dry_run {
        if proposal.holds_secret(&settings.redactor()) {
            return Err(Failure::from(ShapeError::OwnSecret).into());
        }
        return rehearse(call, &proposal, &settings, host);
    }
    let proposal = locally_checked(proposal, &settings)?;
    let role = role(&proposal.name, &settings);
    let mut connected = connect_as(role, settings, host)?;
    if call.plans.plan_only {
        let plan = pipeline::plan(&mut connected.session, proposal).map_err(|failure| clean(&connected, failure))?;
        return printed(output::value(host, &plans::planned(&plan, &connected.session.settings.policy)));
    }
    let handling = handling(call)(&connected.session.settings);
    let result = pipeline::run(&mut connected.session, proposal, &handling);
    finish(result, &connected, call.talk(), (host, format))
}

/// Returns as what the built-in portal is called: methods that take an
/// application only get one. No other portal asks for the look-up.
fn role(method: &str, settings: &Settings) -> Role {
    if settings.credential.is_some() {
        return Role::Webhook;
    }
    let entry = Method::parse(method).ok().and_then(|method| catalog::generations(&method)[0]);
    match entry.and_then(|entry| entry.details()).is_some_and(|details| details.auth == "oauth") {
        true => Role::Application,
        false => Role::Webhook,
    }
}

/// A plan is sent as it is. Nothing can be added to it, and an option that
/// promises that nothing is sent must not be passed over.
fn refuse_beside_plan(call: &Call) -> Result<(), Failure> {
    let beside = [
        (call.method.is_some(), "a method"),
        (call.request.params.is_some(), "--params"),
        (call.request.dry_run, "--dry-run"),
        (call.request.curl, "--curl"),
        (call.repeat.idempotency_key.is_some(), "--idempotency-key"),
    ];
    match beside.iter().find(|(is_given, _)| *is_given) {
        None => Ok(()),
        Some((_, what)) => Err(Failure::new(Code::Usage, format!("--execute-plan sends what the plan says; it does not go with {what}"))
            .hint("b24 plan show prints what will be sent")),
    }
}

/// Without a usable credential the gates still speak first: what is wrong with
/// the call itself can be said without a portal.
fn locally_checked(proposal: Proposal, settings: &Settings) -> Result<Proposal, Stop> {
    if matches!(settings.credential, Some(Err(_))) {
        gate::appraise(proposal.clone(), &settings.policy)?;
    }
    Ok(proposal)
}

/// `b24 plan …`.
pub(super) fn plan_command(command: &PlanCommand, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let settings = settings::resolve(&global.options(), host)?;
    let _patience = patience::begin(settings.limits.max_wait);
    if let PlanCommand::Execute { id, consent } = command {
        let handling = Handling { consent: consent.consent(), key: None, reuse: plain_reuse(&settings) };
        return execute(id, settings, move |_: &Settings| handling, Talk::default(), (host, format));
    }
    plans::run(command, &settings, host)
}

/// Returns the role in which a plan was made: it is bound to its user. What is
/// wrong with the plan itself is said when it is executed.
fn planned_role(id: &str, settings: &Settings, host: &Host) -> Result<Role, Failure> {
    if settings.credential.is_some() {
        return Ok(Role::Webhook);
    }
    let plan = plans::folder(settings, host)?.load(id);
    let method = plan.ok().and_then(|(_, plan)| plan.steps.into_iter().next()).map(|step| step.method);
    Ok(method.map_or(Role::Webhook, |method| role(&method, settings)))
}

fn execute(
    id: &str,
    settings: Settings,
    handling: impl FnOnce(&Settings) -> Handling,
    talk: Talk,
    (host, format): (&mut Host, ErrorFormat),
) -> Result<(), Stop> {
    let handling = handling(&settings);
    let role = planned_role(id, &settings, host)?;
    let mut connected = connect_as(role, settings, host)?;
    let result = pipeline::execute_plan(&mut connected.session, id, &handling);
    finish(result, &connected, talk, (host, format))
}

pub(super) fn plain_reuse(settings: &Settings) -> Reuse {
    Reuse { repeat_window: settings.repeat_window, replay_auto_for: settings.replay_auto_for, ..Reuse::plain() }
}

/// Returns how a call is to be handled, once the settings are known.
fn handling(call: &Call) -> impl FnOnce(&Settings) -> Handling + use<> {
    let consent: Consent = call.consent.consent();
    let key = call.repeat.idempotency_key.clone();
    let (again, retry_failed, waits) = (call.repeat.again, call.repeat.retry_failed, call.repeat.wait);
    move |settings: &Settings| Handling {
        consent,
        key,
        reuse: Reuse {
            again,
            retry_failed,
            skip: settings.no_idempotency,
            wait: if waits { settings.limits.max_wait } else { Duration::ZERO },
            ..plain_reuse(settings)
        },
    }
}

/// Takes the session's secrets out of a failure.
fn clean(connected: &Connected, failure: Failure) -> Failure {
    let redactor = &connected.session.redactor;
    let details = serde_json::from_str(&redactor.redact_text(&Value::Object(failure.details.clone()).to_string())).unwrap_or_default();
    Failure {
        message: redactor.redact_text(&failure.message),
        hint: failure.hint.map(|hint| redactor.redact_text(&hint)),
        details,
        ..failure
    }
}

pub(super) fn finish(
    result: Result<Completed, Failure>,
    connected: &Connected,
    talk: Talk,
    (host, format): (&mut Host, ErrorFormat),
) -> Result<(), Stop> {
    let completed = result.map_err(|failure| clean(connected, failure))?;
    let session = &connected.session;
    let mut note = completed.note;
    if talk.meta {
        let note = note.get_or_insert_with(|| json!({}));
        note["profile"] = Value::from(session.settings.profile.as_str());
        note["portal"] = Value::from(session.identity.as_str());
    }
    let body = session.redactor.redact(&completed.body);
    let masked = printed(output::body(host, &body, note.as_ref(), session.settings.mask_secrets))
        .map_err(|stop| unprinted(stop, completed.changed))?;
    if masked > 0 && !talk.quiet {
        output::note(host, "warning", "masked", &format!("{masked} secret-looking values are masked"), format);
    }
    if !talk.quiet {
        for (code, text) in &completed.warnings {
            output::note(host, "warning", code, &session.redactor.redact_text(text), format);
        }
    }
    match completed.failure {
        Some(failure) => Err(clean(connected, failure).into()),
        None => Ok(()),
    }
}

/// An answer that cannot be printed does not undo what the portal did.
fn unprinted(stop: Stop, changed: bool) -> Stop {
    match stop {
        Stop::Failed(failure) if changed => {
            Failure { code: Code::ExecutedUnrecorded, message: format!("the portal did it, but {}", failure.message), ..*failure }
                .hint("Do not repeat it; b24 ledger list --all names the record, b24 ledger show prints its answer")
                .sent(Outcome::Applied)
                .into()
        }
        other => other,
    }
}

/// `--dry-run` and `--curl`: passes the gates that record nothing and shows
/// what would be sent. Needs no credential and writes no state.
fn rehearse(call: &Call, proposal: &Proposal, settings: &Settings, host: &mut Host) -> Result<(), Stop> {
    let appraised = gate::appraise(proposal.clone(), &settings.policy);
    let appraised = match appraised {
        Ok(appraised) => appraised,
        Err(refusal) => {
            let gates = gates_until(refusal.step());
            return Err(Failure::from(refusal).with("gates", gates).into());
        }
    };
    let request = appraised.request();
    let (url, body) = (masked_url(settings, request.wire_name(), request.api()), request.body().map_err(Failure::from)?);
    if call.request.curl {
        let address = shell_url(settings, request.wire_name(), request.api());
        let (header, data) = shell_token(settings, &body.to_string());
        let line = format!("curl -sS -X POST {address} -H 'Content-Type: application/json'{header} --data {data}");
        return printed(output::text(host, &line));
    }
    let (risk, name) = (appraised.risk(), request.wire_name().to_owned());
    let review = Review::of(request, appraised.risks()).to_value();
    let consent = appraised.confirm(&settings.policy, call.consent.consent(), false);
    let (state, plan_needed) = match &consent {
        Ok(_) => ("passed", false),
        Err(gate::Refusal::PlanRequired { .. }) => ("missing", true),
        Err(_) => ("missing", false),
    };
    let mut gates = gates_until("consent");
    if let Some(last) = gates.as_array_mut().and_then(|gates| gates.last_mut()) {
        *last = json!({"name": "consent", "state": state, "option": risk.option(), "plan": plan_needed});
    }
    let shown = json!({
        "schema": "b24.dry-run/1",
        "request": {"method": name, "url_masked": url, "risk": risk.text(), "body": body},
        "review": review,
        "gates": gates,
        "requests": 1,
        "complete": consent.is_ok(),
        "note": "client only, the portal was not asked",
    });
    printed(output::value(host, &shown))
}

/// Returns the steps before `stopped` as passed, and that one as refused.
fn gates_until(stopped: &str) -> Value {
    let mut gates = Vec::new();
    for step in gate::STEPS {
        if *step == stopped {
            gates.push(json!({"name": step, "state": "refused"}));
            break;
        }
        gates.push(json!({"name": step, "state": "passed"}));
    }
    Value::from(gates)
}

fn masked_url(settings: &Settings, name: &str, api: crate::catalog::Api) -> String {
    match &settings.credential {
        Some(Ok(credential)) => address_form(credential, name, api, MASK),
        Some(Err(_)) => format!("https://PORTAL/rest/…/{name}"),
        None => format!("http://127.0.0.1/rest/1/{MASK}/{name}"),
    }
}

/// Returns the address for a shell, with the secret as a variable.
fn shell_url(settings: &Settings, name: &str, api: crate::catalog::Api) -> String {
    match &settings.credential {
        Some(Ok(credential)) => format!("\"{}\"", address_form(credential, name, api, "$B24_WEBHOOK_CODE")),
        Some(Err(_)) | None => {
            let segment = if api == crate::catalog::Api::V3 { "api/" } else { "" };
            format!("\"https://$B24_DOMAIN/rest/{segment}$B24_WEBHOOK_USER_ID/$B24_WEBHOOK_CODE/{name}\"")
        }
    }
}

/// Returns a further header and the body for a shell. A token stands in the
/// body, as b24 sends it, or in a header where the body has no room for it.
fn shell_token(settings: &Settings, body: &str) -> (&'static str, String) {
    let is_token = matches!(settings.credential, Some(Ok(Credential::OAuth(_))));
    match body.strip_prefix('{') {
        _ if !is_token => ("", shell_quoted(body)),
        None => (" -H \"Authorization: Bearer $B24_ACCESS_TOKEN\"", shell_quoted(body)),
        Some(members) => {
            let comma = if members == "}" { "" } else { "," };
            ("", format!("'{{\"auth\":\"'\"$B24_ACCESS_TOKEN\"'\"{comma}'{}", shell_quoted(members)))
        }
    }
}

/// Quotes a text for a shell. JSON has no line end that a shell could take for
/// the end of a command, and what prints nothing is escaped on its way out.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
