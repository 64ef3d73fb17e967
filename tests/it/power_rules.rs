//! Every rule of durability, left out once: the model of `power_loss.rs` finds
//! what it is for. A rule whose absence nothing shows is not needed, or the
//! model is too weak.

use crate::power_loss::{Broken, Report};
use crate::{power_inbox, power_ledger, power_state};

/// A sync (as for `B24_DISK_SKIP`), where it is left out, and what is broken
/// then.
struct Rule {
    sync: &'static str,
    way: &'static str,
    breaks: Broken,
}

const fn rule(sync: &'static str, way: &'static str, breaks: Broken) -> Rule {
    Rule { sync, way, breaks }
}

const LEDGER: &[Rule] = &[
    rule("sync_all:/ledger/", "key", Broken::Stuck),
    rule("sync_data:/ledger/@ledger.after_append_dispatch", "key", Broken::SecondExecution),
    rule("sync_data:/ledger/@ledger.after_append_dispatch", "auto key", Broken::SecondExecution),
    rule("sync_data:/ledger/@ledger.after_append_dispatch", "plan", Broken::SecondExecution),
    rule("sync_data:/ledger/@ledger.after_append_dispatch#2", "part of a batch", Broken::SecondExecution),
    rule("sync_folder:/ledger/@ledger.after_append_dispatch", "key", Broken::SecondExecution),
    rule("sync_folder:/ledger$", "key", Broken::SecondExecution),
    rule("sync_folder:/portals/PORTAL$", "key", Broken::SecondExecution),
    rule("sync_folder:/portals$", "key", Broken::SecondExecution),
    rule("sync_folder:/state$", "key", Broken::MissingIntent),
    rule("sync_folder:HOME$", "key", Broken::MissingIntent),
    rule("sync_data:/ledger/@ledger.after_append_outcome", "key", Broken::LostOutcome),
    rule("sync_data:/ledger/@ledger.after_append_outcome", "auto key", Broken::LostOutcome),
    rule("sync_data:/ledger/@ledger.after_append_outcome", "plan", Broken::LostOutcome),
    rule("sync_data:/open/", "other key", Broken::SecondExecution),
    rule("sync_folder:/open$", "other key", Broken::SecondExecution),
    rule("sync_data:/audit/@audit.written#1", "key", Broken::MissingIntent),
    rule("sync_data:/audit/@audit.written#2", "key", Broken::LostRecord),
    rule("sync_folder:/audit$", "key", Broken::MissingIntent),
    rule("sync_all:/portals/PORTAL/.tmp", "key", Broken::LostOutcome),
    rule("sync_all:/state/.tmp", "key", Broken::LostOutcome),
    rule("sync_folder:/state$@store.create.before_unlink", "key", Broken::Stuck),
];

const PEOPLE: &[Rule] = &[
    rule("sync_folder:/sent$", "forgotten", Broken::LostOutcome),
    rule("sync_data:/ledger/", "executed, says a person", Broken::LostOutcome),
    rule("sync_data:/ledger/", "not executed, says a person", Broken::LostOutcome),
    rule("sync_data:/ledger/", "a person about a damaged record", Broken::LostOutcome),
    rule("sync_folder:/sent$", "a person about a damaged record", Broken::LostOutcome),
    rule("sync_all:/ledger/", "a person about a missing record", Broken::LostOutcome),
    rule("sync_folder:/ledger/", "a person about a missing record", Broken::SecondExecution),
    rule("sync_folder:/sent$", "a person about a missing record", Broken::LostOutcome),
];

const TOKENS: &[Rule] = &[
    rule("sync_all:/tokens/", "tokens", Broken::LostTokens),
    rule("sync_folder:/tokens$", "tokens", Broken::LostTokens),
    rule("sync_folder:/state$@transport.after_answer", "tokens", Broken::LostTokens),
];

const PLANS: &[Rule] = &[
    rule("sync_all:/plans/", "plan saved", Broken::LostOutcome),
    rule("sync_folder:/plans$", "plan saved", Broken::LostOutcome),
    rule("sync_folder:/state$", "plan saved", Broken::LostOutcome),
    rule("sync_folder:/plans$", "plan cancelled", Broken::SecondExecution),
];

/// What is broken first depends on how the threads of a worker take turns.
const INBOX: &[(&str, &[Broken])] = &[
    ("sync_data:/inbox-", &[Broken::LostEvent, Broken::HandledAgain, Broken::Uncounted, Broken::Stuck]),
    ("sync_data:/dead-letters", &[Broken::LostEvent, Broken::Stuck]),
    ("sync_folder:/offline$", &[Broken::LostEvent, Broken::HandledAgain, Broken::Uncounted, Broken::Stuck]),
];

fn show(rules: &[Rule], without: fn(&str, &str) -> Report) {
    let mut missed = Vec::new();
    for Rule { sync, way, breaks } in rules {
        let report = without(way, sync);
        match report.broken.first() {
            Some((broken, text)) => {
                println!("{way} without {sync}: {broken:?} after {} states", report.states);
                if broken != breaks {
                    missed.push(format!("{way} without {sync}: {broken:?} instead of {breaks:?}: {text}"));
                }
            }
            None => missed.push(format!("{way} without {sync}: nothing in {} states", report.states)),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn each_rule_of_the_ledger_is_needed() {
    show(LEDGER, power_ledger::without);
}

#[test]
fn each_rule_of_what_people_do_with_records_is_needed() {
    show(PEOPLE, power_ledger::without);
}

#[test]
fn each_rule_of_tokens_is_needed() {
    show(TOKENS, |_, rule| power_state::tokens(Some(rule)));
}

#[test]
fn each_rule_of_a_worker_is_needed() {
    for (sync, breaks) in INBOX {
        let report = power_inbox::examine(Some(sync));
        let (broken, text) = report.broken.first().unwrap_or_else(|| panic!("without {sync}: nothing in {} states", report.states));
        println!("inbox without {sync}: {broken:?} after {} states", report.states);
        assert!(breaks.contains(broken), "without {sync}: {broken:?}: {text}");
    }
}

#[test]
fn each_rule_of_plans_is_needed() {
    show(PLANS, |way, rule| match way {
        "plan saved" => power_state::plan_saved(Some(rule)),
        _ => power_state::plan_cancelled(Some(rule)),
    });
}
