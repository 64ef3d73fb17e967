//! What there is, without asking a portal: `search`, `describe`, `explain`,
//! `policy check` and `catalog`.

use crate::catalog::assert_current;
use crate::world::{Outcome, World};
use b24::error::Exit;
use b24::gate::{self, Consent, Proposal, Refusal};
use b24::method::Method;
use b24::packs::Allowlist;
use b24::schema;
use b24::settings::Policy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Statuses and methods of a code; the methods shortest first.
type Uses = (BTreeSet<u64>, BTreeSet<(usize, String)>);

/// How many methods a row of the table of error codes names.
const SOME: usize = 3;

#[test]
fn the_error_codes_are_current() {
    let Ok(shared) = std::env::var("B24_SHARED_DIR") else {
        println!("skipped: B24_SHARED_DIR is not set");
        return;
    };
    let text = std::fs::read_to_string(Path::new(&shared).join("bitrix24/errors.jsonl")).unwrap();
    let mut codes: BTreeMap<(String, String), Uses> = BTreeMap::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let code = row["code"].as_str().unwrap();
        // Some pages give a text in place of a code; texts change.
        if code.is_empty() || !code.is_ascii() || code.contains(char::is_whitespace) {
            continue;
        }
        let (statuses, methods) = codes.entry((code.to_lowercase(), code.to_owned())).or_default();
        statuses.extend(row["http_status"].as_u64());
        let method = row["method"].as_str().unwrap();
        methods.insert((method.len(), method.to_owned()));
    }
    let lines = codes.into_iter().map(|((_, code), (statuses, methods))| {
        let statuses: Vec<String> = statuses.iter().map(u64::to_string).collect();
        let some: Vec<&str> = methods.iter().take(SOME).map(|(_, method)| method.as_str()).collect();
        format!("{code}\t{}\t{}\t{}\n", statuses.join(","), methods.len(), some.join(","))
    });
    assert_current("errors.tsv", &lines.collect::<String>());
}

#[test]
fn every_kind_and_every_exit_status_is_explained() {
    let world = World::new();
    for exit in Exit::ALL {
        let body = world.run(&["explain", &exit.status().to_string()]).body(0);
        assert_eq!(body["schema"], "b24.explain/1");
        assert!(body["meanings"].as_array().unwrap().iter().any(|meaning| meaning["is"] == "exit_status"));
    }
    for code in ["outcome_unknown", "PLAN_USED"] {
        let body = world.run(&["explain", code]).body(0);
        assert_eq!(body["meanings"][0]["is"], "kind");
    }
    assert!(world.requests().is_empty() && !world.state().exists());
}

#[test]
fn a_servers_code_is_explained_in_any_case() {
    let world = World::new();
    let body = world.run(&["explain", "query_limit_exceeded"]).body(0);
    let meaning = &body["meanings"][0];
    assert_eq!((&meaning["code"], &meaning["ran"]), (&json!("QUERY_LIMIT_EXCEEDED"), &json!("no")));
    let body = world.run(&["explain", "200040300010"]).body(0);
    assert!(body["meanings"][0]["methods"]["documented"].as_u64().unwrap() > 100);
    let body = world.run(&["explain", "AccessDeniedException"]).body(0);
    assert_eq!(body["meanings"][0]["http_status"], json!([400, 403]));
    let error = world.run(&["explain", "QUERY_LIMIT_EXCEDED"]).error(5);
    assert_eq!(error["kind"], "unknown_code");
    assert_eq!(error["suggest"][0], "QUERY_LIMIT_EXCEEDED");
}

#[test]
fn a_plan_and_a_ledger_key_are_explained() {
    let world = World::new();
    let id = "01J0000000000000000000000A";
    let body = world.run(&["explain", id]).body(0);
    assert_eq!((&body["meanings"][0]["is"], &body["meanings"][0]["found"]), (&json!("plan_id"), &json!(false)));
    assert!(!world.state().exists());
    let plan = world.run(&["crm.lead.add", "fields[TITLE]=Acme", "--plan-only"]).body(0);
    let body = world.run(&["explain", plan["plan"]["plan_id"].as_str().unwrap()]).body(0);
    assert_eq!(body["meanings"][0]["found"], true);
    let body = world.run(&["explain", "auto:0123456789abcdef"]).body(0);
    assert_eq!(body["meanings"][0]["is"], "ledger_record");
}

#[test]
fn a_skeleton_can_be_sent_and_a_schema_is_one_document() {
    let world = World::new();
    let skeleton = world.run(&["describe", "crm.lead.list", "--skeleton"]).body(0);
    assert!(skeleton["filter"].is_object() && skeleton["select"].is_array());
    let _ = world.run(&["crm.lead.list", "--dry-run", "--params", &skeleton.to_string()]).body(0);
    let schema = world.run(&["describe", "tasks.task.add", "--schema", "--api", "v3"]).body(0);
    assert_eq!((&schema["type"], &schema["title"]), (&json!("object"), &json!("tasks.task.add (v3)")));
    assert_eq!(world.run(&["describe", "crm.lead.add", "--api", "v3"]).error(5)["kind"], "unknown_method");
}

#[test]
fn a_search_answers_events_and_errors_only_when_they_match() {
    let world = World::new();
    let body = world.run(&["search", "lead", "added", "event"]).body(0);
    assert!(body.get("errors").is_none());
    let body = world.run(&["search", "lead", "add"]).body(0);
    assert!(body["events"].as_array().unwrap().contains(&json!("onCrmLeadAdd")));
    let body = world.run(&["search", "QUERY_LIMIT_EXCEEDED"]).body(0);
    assert_eq!((&body["methods"], &body["errors"]), (&json!([]), &json!(["QUERY_LIMIT_EXCEEDED"])));
}

#[test]
fn a_policy_check_says_what_the_gate_would_say() {
    let world = World::new();
    let check = |args: &[&str]| world.run(&[&["policy", "check"], args].concat());
    let body = check(&["crm.lead.list"]).body(0);
    assert_eq!((&body["schema"], &body["allowed"]), (&json!("b24.policy/1"), &json!(true)));
    assert_eq!(body["needs"], json!({"option": null, "plan": false}));
    let body = check(&["crm.lead.delete", "--require-plan"]).body(0);
    assert_eq!(body["needs"], json!({"option": "--confirm-destructive", "plan": true}));
    assert_eq!(body["gates"][5], json!({"name": "consent", "state": "missing"}));
    assert_eq!(check(&["user.update"]).body(0)["risk_depends_on_params"], true);
    for (args, status, step) in [
        (["crm.lead.lst", "--packs=core"], 5, "method"),
        (["disk.file.get", "--packs=core"], 3, "packs"),
        (["crm lead", "--packs=core"], 2, "shape"),
        (["batch", "--packs=core"], 2, "shape"),
    ] {
        let outcome = check(&args);
        let body: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(body["allowed"], false, "{args:?}");
        let stopped = body["gates"].as_array().unwrap().last().unwrap();
        assert_eq!(stopped, &json!({"name": step, "state": "refused"}), "{args:?}");
        assert_eq!(outcome.error(status)["outcome"], "not_sent");
    }
    let mut command = world.command(&["policy", "check", "crm.lead.add"]);
    command.env("B24_READ_ONLY", "1");
    assert_eq!(Outcome::of(&mut command).error(3)["kind"], "policy_denied");
    assert!(world.requests().is_empty() && !world.state().exists());
}

/// Nothing is allowed that the gate refuses, and the other way round.
#[test]
fn a_policy_check_never_differs_from_the_gate() {
    let policies = [("", false, false), ("content,people", false, false), ("core", true, false), ("core", false, true)];
    for (packs, read_only, require_plan) in policies {
        let policy = Policy {
            allowlist: Allowlist::parse(packs, "").unwrap(),
            allow_unlisted: false,
            allow_unknown_params: false,
            read_only,
            require_plan,
        };
        for entry in b24::catalog::entries() {
            let standing = gate::standing(entry.name, Some(entry.api), &policy);
            let proposal = Proposal { name: entry.name.to_owned(), params: json!({}), api: Some(entry.api) };
            let refusal = match gate::appraise(proposal, &policy) {
                Ok(appraised) => appraised.confirm(&policy, Consent::default(), false).err(),
                // What parameters lack is not looked at.
                Err(Refusal::Params { .. }) => continue,
                Err(refusal) => Some(refusal),
            };
            let said = match standing {
                Ok(standing) => standing.missing,
                Err(refusal) => Some(refusal),
            };
            assert_eq!(said.map(|refusal| refusal.to_string()), refusal.map(|refusal| refusal.to_string()), "{}", entry.name);
        }
    }
}

#[test]
fn the_catalog_is_counted() {
    let world = World::new();
    let body = world.run(&["catalog", "info"]).body(0);
    assert_eq!(body["methods"]["names"], 1669);
    assert_eq!(body["packs"]["methods_in_a_pack"], body["packs"]["of"]);
    let digest = body["digest"].as_str().unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71);
    assert!(world.requests().is_empty() && !world.state().exists());
}

#[test]
fn the_catalog_is_compared_with_the_portal_by_reads_alone() {
    let world = World::new();
    let outcome = world.run(&["catalog", "diff", "--full"]);
    let body = outcome.body(0);
    assert_eq!((&body["schema"], &body["differs"]), (&json!("b24.catalog-diff/1"), &json!(true)));
    assert_eq!(body["v2"]["unknown_here"], json!({"count": 0, "names": []}));
    let missing = body["v2"]["missing_there"]["names"].as_array().unwrap();
    assert!(missing.contains(&json!("crm.deal.recurring.list")) && !missing.contains(&json!("crm.lead.list")));
    // A method of a scope that the webhook does not have is not missed.
    assert!(!missing.contains(&json!("disk.file.get")));
    assert_eq!(body["v3"]["answered"], true);
    let seen: Vec<String> = world.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(seen, ["methods", "scope", "rest.scope.list"]);
    assert!(world.changes().is_empty());
    assert!(world.audit().iter().all(|record| record["type"] == "read"), "{:?}", world.audit());
    let outcome = world.run(&["catalog", "diff", "--detailed-exitcode"]);
    assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    let body = outcome.body(11);
    assert!(body["v2"]["missing_there"]["more"].as_str().unwrap().ends_with("more with --full"));
}

#[test]
fn the_comparison_asks_nothing_outside_the_packs_that_somebody_set() {
    let profiles = [
        "packs = [\"core\"]\nlocked = [\"packs\"]",
        "packs = []\nlocked = [\"packs\", \"method-allowlist\"]",
        "locked = [\"packs\"]",
        "packs = [\"people\", \"sites\"]",
        "packs = [\"core\"]\nallow = [\"methods\", \"scope\"]",
    ];
    for profile in profiles {
        let world = World::new();
        std::fs::create_dir_all(world.home.path().join(".config/b24")).unwrap();
        std::fs::write(world.home.path().join(".config/b24/config.toml"), format!("[profiles.default]\n{profile}\n")).unwrap();
        let error = world.run(&["catalog", "diff"]).error(3);
        assert_eq!((&error["kind"], &error["sent"]), (&json!("policy_denied"), &json!(false)), "{profile}: {error}");
        assert!(error["hint"].as_str().unwrap().contains("diagnostics"), "{profile}: {error}");
        assert!(world.requests().is_empty(), "{profile}");
        assert!(world.audit().iter().any(|record| record["type"] == "denied" && record["step"] == "packs"), "{profile}");
    }
    let world = World::new();
    let _ = Outcome::of(world.command(&["catalog", "diff"]).env("B24_PACKS", "core")).error(3);
    assert!(world.requests().is_empty());
    let _ = Outcome::of(world.command(&["catalog", "diff"]).env("B24_PACKS", "core,diagnostics")).body(0);
    assert_eq!(world.requests().len(), 3);
}

/// Ordinary requests of our own: nothing that people do every day is refused.
#[test]
fn ordinary_requests_are_accepted() {
    let (mut methods, mut refused) = (BTreeSet::new(), Vec::new());
    for line in include_str!("requests.jsonl").lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        let name = request["method"].as_str().unwrap();
        let method = Method::parse(name).unwrap();
        let entry = b24::catalog::generations(&method).into_iter().flatten().next().unwrap_or_else(|| panic!("{name} is not known"));
        let problems = schema::check(&method, &entry.details().unwrap(), &request["params"]);
        let errors: Vec<_> = problems.into_iter().filter(|problem| problem.strength == schema::Strength::Error).collect();
        refused.extend(errors.into_iter().map(|problem| format!("{line}: {problem:?}")));
        methods.insert(method.to_string());
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(methods.len() >= 100, "{}", methods.len());
}
