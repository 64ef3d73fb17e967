//! `b24 plan list`, `show`, `cancel` and `prune`: what is printed of saved
//! plans, and nothing of files that are none.

use super::args::Plan as PlanCommand;
use super::{Stop, printed, records};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::ids::PlanId;
use crate::output;
use crate::pipeline::review::Review;
use crate::settings::{Policy, Settings};
use crate::store::plans::{Cancelled, Kept, Plan, Plans};
use serde_json::{Value, json};

pub(super) fn run(command: &PlanCommand, settings: &Settings, host: &mut Host) -> Result<(), Stop> {
    let plans = folder(settings, host)?;
    let (value, changed) = match command {
        PlanCommand::List => list(&plans, settings, host)?,
        PlanCommand::Show { id } => {
            let plan = plans.load(id)?.1;
            let mut value = described(&plan, &settings.policy);
            value["schema"] = json!("b24.plan-shown/1");
            (value, 0)
        }
        PlanCommand::Cancel { id } => {
            records::note_change(settings, host, json!({"type": "plan-cancelled", "plan_id": id}))?;
            (cancel(&plans, id, host)?, 0)
        }
        PlanCommand::Prune => {
            records::note_change(settings, host, json!({"type": "plans-pruned"}))?;
            let pruned = plans.prune(host.clock.now())?;
            let ids: Vec<&str> = pruned.expired.iter().map(PlanId::as_str).collect();
            let kept: Vec<Value> = pruned.changed.iter().map(|id| json!({"plan_id": id.as_str(), "state": "changed"})).collect();
            (json!({"schema": "b24.plans-pruned/1", "pruned": ids, "kept": kept}), pruned.changed.len())
        }
        PlanCommand::Execute { .. } => return Ok(()),
    };
    printed(output::value(host, &value))?;
    match changed {
        0 => Ok(()),
        count => Err(Failure::new(Code::PlanChanged, format!("{count} files are not the plans that were saved under their names"))
            .hint("Nothing of them is shown; b24 plan cancel ID removes such a file")
            .into()),
    }
}

pub(super) fn folder(settings: &Settings, host: &Host) -> Result<Plans, Failure> {
    settings.state.prepare()?;
    let key = settings.state.install_key(host.random.as_ref())?;
    Ok(Plans::new(settings.plans_folder.clone(), key))
}

/// Returns what `--plan-only` prints. The command to run next has no consent
/// in it: that is for the user to give.
pub(super) fn planned(plan: &Plan, policy: &Policy) -> Value {
    let mut value = described(plan, policy);
    value["next"] = json!({"execute_command": format!("b24 --execute-plan {}", plan.plan_id)});
    value
}

/// Returns a plan and what it does. The preview that was saved with it is
/// replaced by one of now.
fn described(plan: &Plan, policy: &Policy) -> Value {
    let reviews: Vec<Value> = reviews(plan, policy).iter().map(Review::to_value).collect();
    let plan = Plan { preview: lines(plan, policy), ..plan.clone() };
    json!({"plan": plan, "review": reviews})
}

fn reviews(plan: &Plan, policy: &Policy) -> Vec<Review> {
    plan.steps.iter().map(|step| Review::of_step(step, policy)).collect()
}

/// Returns the lines that a person reads of a plan.
pub(super) fn lines(plan: &Plan, policy: &Policy) -> Vec<String> {
    reviews(plan, policy).iter().flat_map(Review::lines).collect()
}

fn list(plans: &Plans, settings: &Settings, host: &Host) -> Result<(Value, usize), Stop> {
    let kept = plans.list(host.clock.now())?;
    let changed = kept.iter().filter(|kept| matches!(kept, Kept::Changed { .. })).count();
    let rows = kept.iter().map(|kept| match kept {
        Kept::Sealed { plan, is_cancelled, is_expired } => {
            let state = match (is_cancelled, is_expired) {
                (true, _) => "cancelled",
                (false, true) => "expired",
                (false, false) => "saved",
            };
            json!({"plan_id": plan.plan_id, "state": state, "expires": plan.expires, "cancelled": is_cancelled,
                "profile": plan.profile, "portal": plan.portal, "steps": lines(plan, &settings.policy)})
        }
        Kept::OfOtherVersion { id, .. } => json!({"plan_id": id.as_str(), "state": "of_other_version"}),
        Kept::Changed { id, problem } => json!({"plan_id": id.as_str(), "state": "changed", "problem": problem}),
    });
    Ok((json!({"schema": "b24.plans/1", "plans": rows.collect::<Value>()}), changed))
}

fn cancel(plans: &Plans, id: &str, host: &Host) -> Result<Value, Stop> {
    let (id, state) = match plans.cancel(id, host.random.as_ref())? {
        Cancelled::Plan(id) => (id, "cancelled"),
        Cancelled::Changed(id) => (id, "changed"),
    };
    let mut value = json!({"schema": "b24.plan-cancelled/1", "plan_id": id.as_str(), "state": state});
    if state == "changed" {
        value["note"] = json!("the file was not the plan that was saved; it was removed");
    }
    Ok(value)
}
