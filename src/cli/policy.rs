//! `b24 policy check METHOD`: may this be called here, and why not. Asks no
//! portal and writes nothing.

use super::args::{Global, Policy as PolicyCommand};
use super::{Stop, printed};
use crate::error::Failure;
use crate::gate::{self, Refusal, Standing};
use crate::host::Host;
use crate::method::Method;
use crate::output;
use crate::risk;
use crate::settings::{self, Settings, limits};
use serde_json::{Value, json};

pub(super) fn run(command: &PolicyCommand, global: &Global, host: &mut Host) -> Result<(), Stop> {
    let PolicyCommand::Check(check) = command;
    let settings = settings::resolve(&check.options(global), host)?;
    match gate::standing(&check.method, check.api(), &settings.policy) {
        Ok(standing) => printed(output::value(host, &allowed(&standing, &settings))),
        Err(refusal) => {
            // A name that is none may be anything, also somebody's secret.
            let is_name = Method::parse(&check.method).is_ok();
            let method = if is_name { json!(check.method) } else { Value::Null };
            let answer = answer(&method, false, &gates(Some(&refusal)), &settings);
            printed(output::value(host, &answer))?;
            Err(Failure::from(refusal).with("profile", settings.profile.as_str()).into())
        }
    }
}

fn answer(method: &Value, is_allowed: bool, gates: &Value, settings: &Settings) -> Value {
    json!({"schema": "b24.policy/1", "method": method, "allowed": is_allowed, "gates": gates, "profile": settings.profile,
        "packs": settings.policy.allowlist.packs(), "read_only": settings.policy.read_only,
        "locked": settings.locked.iter().map(|(guard, by)| json!({"guard": guard.name(), "by": by})).collect::<Value>(),
        "not_held": limits::of(settings).iter().map(|limit| json!({"what": limit.name(), "text": limit.text()})).collect::<Value>()})
}

fn allowed(standing: &Standing, settings: &Settings) -> Value {
    let mut value = answer(&json!(standing.name), true, &gates(standing.missing.as_ref()), settings);
    value["api"] = json!(standing.api.text());
    value["risk"] = json!(standing.risk.text());
    let needs_plan = matches!(standing.missing, Some(Refusal::PlanRequired { .. }));
    value["needs"] = json!({"option": standing.risk.option(), "plan": needs_plan});
    let deciding = Method::parse(&standing.name).map(|method| risk::deciding(&method, standing.risk)).unwrap_or_default();
    if !deciding.is_empty() {
        value["risk_depends_on_params"] = json!(true);
        value["risk_params"] = json!(deciding);
    }
    value
}

/// Returns the steps with their states; without parameters theirs is not
/// passed, only passed over.
fn gates(stopped: Option<&Refusal>) -> Value {
    let mut gates = Vec::new();
    for step in gate::STEPS {
        let state = match stopped {
            _ if *step == "params" => "not_checked",
            Some(refusal) if refusal.step() == *step && *step == "consent" => "missing",
            Some(refusal) if refusal.step() == *step => "refused",
            Some(_) | None => "passed",
        };
        gates.push(json!({"name": step, "state": state}));
        if state == "refused" {
            break;
        }
    }
    Value::from(gates)
}
