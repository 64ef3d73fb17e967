//! A loss of power around what is not one write: a token that is renewed, a
//! plan that is saved, a plan that is cancelled.

use crate::disk_model::Breadth;
use crate::kept::{self, asked};
use crate::power_ledger::{add_elsewhere, rule_for};
use crate::power_loss::{Broken, Report, Search, Trial};
use crate::traced::Trace;
use crate::world::World;

const POINTS: &[&str] =
    &["refresh.before_send", "refresh.after_answer", "transport.before_send", "transport.after_answer", "output.before_print"];

/// A token that is renewed by the first call, and used.
pub(crate) fn tokens(skip: Option<&str>) -> Report {
    let mut world = World::in_memory_with_expired_token();
    let call = world.oauth_command(&["user.current"]);
    let before = world.memory();
    let rule = skip.map(|rule| rule_for(&world, rule));
    let (outcome, trace) = Trace::of_person(&world, &call, rule.as_deref());
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let after = world.memory();
    let search = Search {
        trace: &trace,
        from: 0,
        points: POINTS,
        sending: ("refresh.before_send", "refresh.after_answer"),
        stops: skip.is_some(),
        short: (Breadth::SHORT, 1),
    };
    search.run(|found| {
        world.remember(if found.executed > 0 { &after } else { &before });
        let outcome = asked(&world, &call, || Trial::make(&world, found.state));
        let said = || format!("exit {}: {}", outcome.status, outcome.stderr);
        // The second call of the run bears the new token.
        let is_used = found.moment.passed("transport.before_send") > 1;
        match outcome.status {
            0 => Ok(()),
            // The old one was spent, and the new one never seen or not yet kept.
            4 if found.executed > 0 && !is_used => Ok(()),
            4 | 12 if is_used => Err((Broken::LostTokens, said())),
            _ => Err((Broken::Stuck, said())),
        }
    })
}

/// A plan that is saved: once its caller was told, it can be executed.
pub(crate) fn plan_saved(skip: Option<&str>) -> Report {
    let world = World::in_memory();
    let mut trial = Trial::new(world);
    let save = trial.world.command(&["crm.lead.add", "fields[TITLE]=t", "--plan-only"]);
    let rule = skip.map(|rule| rule_for(&trial.world, rule));
    let (outcome, trace) = Trace::of_person(&trial.world, &save, rule.as_deref());
    let id = outcome.body(0)["plan"]["plan_id"].as_str().unwrap().to_owned();
    let execute = trial.world.command(&["--execute-plan", &id, "--confirm-write"]);
    let list = trial.world.command(&["plan", "list"]);
    search(&trace, skip).run(|found| {
        if !found.moment.is_told() {
            let (listed, _) = trial.run(found.state, &list, "crm.lead.add");
            if listed.status != 0 {
                return Err((Broken::Stuck, format!("exit {}: {}{}", listed.status, listed.stdout, listed.stderr)));
            }
        }
        let (outcome, requests) = trial.run(found.state, &execute, "crm.lead.add");
        match (outcome.status, requests) {
            (0, 1) => Ok(()),
            (9, 0) if !found.moment.is_told() && outcome.stderr.contains("plan_not_found") => Ok(()),
            _ if found.moment.is_told() => Err((Broken::LostOutcome, format!("exit {}: {}", outcome.status, outcome.stderr))),
            _ => Err((Broken::Stuck, format!("exit {}: {}", outcome.status, outcome.stderr))),
        }
    })
}

/// A plan that is cancelled: once its caller was told, it is never executed.
pub(crate) fn plan_cancelled(skip: Option<&str>) -> Report {
    let world = World::in_memory();
    add_elsewhere(&world);
    let id = kept::plan(&world, &["crm.lead.delete", "id=1"]);
    let mut trial = Trial::new(world);
    let cancel = trial.world.command(&["plan", "cancel", &id]);
    let rule = skip.map(|rule| rule_for(&trial.world, rule));
    let (outcome, trace) = Trace::of_person(&trial.world, &cancel, rule.as_deref());
    let _ = outcome.body(0);
    let execute = trial.world.command(&["--execute-plan", &id, "--confirm-destructive"]);
    search(&trace, skip).run(|found| {
        let (outcome, requests) = trial.run(found.state, &execute, "crm.lead.delete");
        match (outcome.status, requests) {
            (9, 0) => Ok(()),
            // The lead is gone after the first state.
            (0 | 5, 1) if !found.moment.is_told() => Ok(()),
            (_, 1) => Err((Broken::SecondExecution, format!("exit {}: {}", outcome.status, outcome.stderr))),
            _ => Err((Broken::Stuck, format!("exit {}: {}", outcome.status, outcome.stderr))),
        }
    })
}

fn search<'a>(trace: &'a Trace, skip: Option<&str>) -> Search<'a> {
    Search { trace, from: 0, points: POINTS, sending: ("none", "none"), stops: skip.is_some(), short: (Breadth::SHORT, 1) }
}

#[test]
fn a_loss_of_power_around_a_token_that_is_renewed() {
    tokens(None).assert_kept("tokens");
}

#[test]
fn a_loss_of_power_around_a_plan_that_is_saved() {
    plan_saved(None).assert_kept("plan saved");
}

#[test]
fn a_loss_of_power_around_a_plan_that_is_cancelled() {
    plan_cancelled(None).assert_kept("plan cancelled");
}
