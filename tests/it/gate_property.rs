//! Properties of the gate over all documented methods and spellings.

use b24::call::Request;
use b24::catalog::{self, Api, Entry};
use b24::gate::{Appraised, Consent, Proposal, Refusal, appraise};
use b24::method::Method;
use b24::packs::Allowlist;
use b24::risk::{self, Carrier, Risk};
use b24::settings::Policy;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Everything is admitted: only class and consent decide.
fn open() -> Policy {
    Policy {
        allowlist: Allowlist::parse("none", "*").unwrap(),
        allow_unlisted: false,
        allow_unknown_params: false,
        read_only: false,
        require_plan: false,
    }
}

fn class_of(entry: &Entry, params: &Value) -> Risk {
    risk::rate(&Method::parse(entry.name).unwrap(), Some(entry.class), params, Carrier::Single).risk
}

/// Parameters that fit the method: the id of what it acts on, where it has one.
fn fitting(entry: &Entry) -> Value {
    let details = entry.details().unwrap();
    let ids = details.params.iter().filter(|(name, ..)| name.eq_ignore_ascii_case("id"));
    ids.map(|(name, ..)| (name.clone(), json!("1"))).collect()
}

fn proposed(name: &str, api: Option<Api>, params: Value) -> Result<Appraised, Refusal> {
    appraise(Proposal { name: name.to_owned(), params, api }, &open())
}

const CONSENTS: [Consent; 4] = [
    Consent { write: false, destructive: false },
    Consent { write: true, destructive: false },
    Consent { write: false, destructive: true },
    Consent { write: true, destructive: true },
];

/// Says whether a class may pass with a consent, in other words than the gate.
fn may_pass(risk: Risk, consent: Consent) -> bool {
    matches!((risk, consent.write, consent.destructive), (Risk::Read, _, _) | (Risk::Write, true, _) | (Risk::Destructive, _, true))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let entries: Vec<Entry> = catalog::entries().collect();
    prop::sample::select(entries)
}

/// A spelling of a name: any case, any number of format suffixes.
fn spelled(name: &str) -> impl Strategy<Value = String> + use<> {
    let name = name.to_owned();
    let capitals = prop::collection::vec(any::<bool>(), name.len());
    let suffixes = prop::collection::vec(prop::sample::select(vec![".json", ".xml", ".JSON", ".Xml"]), 0..3);
    (capitals, suffixes).prop_map(move |(capitals, suffixes)| {
        let letters = name.chars().zip(capitals);
        let name: String = letters.map(|(c, up)| if up { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
        name + &suffixes.concat()
    })
}

fn spelled_entry() -> impl Strategy<Value = (Entry, String)> {
    any_entry().prop_flat_map(|entry| (Just(entry), spelled(entry.name)))
}

/// Some methods of one generation.
fn spelled_batch() -> impl Strategy<Value = (Api, Vec<(Entry, String)>)> {
    prop::sample::select(vec![Api::V2, Api::V3]).prop_flat_map(|api| {
        let entries: Vec<Entry> = catalog::entries().filter(|entry| entry.api == api).collect();
        let command = prop::sample::select(entries).prop_flat_map(|entry| (Just(entry), spelled(entry.name)));
        (Just(api), prop::collection::vec(command, 1..8))
    })
}

/// A spelling with something done to it that no name has.
fn garbled() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        " ", "\t", "\n", "\0", "/", "%2e", "%", "?", "#", "&", "..", "\u{200b}", "\u{430}", "\u{ff41}", "\u{131}", "\u{212a}", "$", "[",
        "-", ":", "batch", ".", "_", "x", "json",
    ]);
    (any_entry(), odd, any::<prop::sample::Index>()).prop_map(|(entry, odd, index)| {
        let mut name = entry.name.to_owned();
        name.insert_str(index.index(name.len() + 1), odd);
        name
    })
}

#[test]
fn every_documented_method_passes_with_the_consent_of_its_class_only() {
    for entry in catalog::entries() {
        let class = class_of(&entry, &fitting(&entry));
        for consent in CONSENTS {
            let appraised =
                proposed(entry.name, Some(entry.api), fitting(&entry)).unwrap_or_else(|refusal| panic!("{}: {refusal}", entry.name));
            assert_eq!(appraised.risk(), class, "{}", entry.name);
            let passed = appraised.confirm(&open(), consent, false).is_ok();
            assert_eq!(passed, may_pass(class, consent), "{} with {consent:?}", entry.name);
        }
    }
}

#[test]
fn only_what_is_a_read_is_cleared_without_the_ledger() {
    for entry in catalog::entries() {
        let consent = Consent { write: true, destructive: true };
        let reviewed =
            proposed(entry.name, Some(entry.api), fitting(&entry)).and_then(|appraised| appraised.confirm(&open(), consent, false));
        let Ok(reviewed) = reviewed else { panic!("{}", entry.name) };
        assert_eq!(reviewed.clear_read().is_ok(), class_of(&entry, &fitting(&entry)) == Risk::Read, "{}", entry.name);
    }
}

#[test]
fn a_policy_that_only_reads_lets_reads_through_alone() {
    let policy = Policy { read_only: true, ..open() };
    for entry in catalog::entries() {
        let proposal = Proposal { name: entry.name.to_owned(), params: fitting(&entry), api: Some(entry.api) };
        assert_eq!(appraise(proposal, &policy).is_ok(), class_of(&entry, &fitting(&entry)) == Risk::Read, "{}", entry.name);
    }
}

#[test]
fn a_method_outside_the_packs_never_passes() {
    let policy = Policy { allowlist: Allowlist::parse("none", "").unwrap(), ..open() };
    for entry in catalog::entries() {
        let api = entry.api;
        let single = Proposal { name: entry.name.to_owned(), params: fitting(&entry), api: Some(api) };
        assert!(matches!(appraise(single, &policy), Err(Refusal::OutsidePacks { .. })), "{}", entry.name);
        let batched = Proposal { name: "batch".to_owned(), params: batch(&[(entry, entry.name.to_owned())], api), api: Some(api) };
        assert!(matches!(appraise(batched, &policy), Err(Refusal::OutsidePacks { .. })), "{}", entry.name);
    }
}

fn batch(commands: &[(Entry, String)], api: Api) -> Value {
    match api {
        Api::V2 => json!({"cmd": commands.iter().map(|(entry, name)| json!([name, fitting(entry)])).collect::<Vec<_>>()}),
        Api::V3 => commands.iter().map(|(entry, name)| json!({"method": name, "query": fitting(entry)})).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_spelling_is_the_canonical_one((entry, spelling) in spelled_entry()) {
        let appraised = proposed(&spelling, Some(entry.api), fitting(&entry)).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        prop_assert_eq!(appraised.risk(), class_of(&entry, &fitting(&entry)));
        prop_assert_eq!(appraised.request().wire_name(), entry.name);
    }

    #[test]
    fn garbage_is_refused_or_is_what_it_folds_to(name in garbled()) {
        let policy = Policy { allow_unlisted: true, ..open() };
        if let Ok(appraised) = appraise(Proposal { name: name.clone(), params: json!({}), api: None }, &policy) {
            let method = Method::parse(&name).unwrap();
            let expected = catalog::generations(&method)[0].map_or(Risk::Destructive, |entry| class_of(&entry, &json!({})));
            prop_assert_eq!(appraised.risk(), expected);
            let sent = appraised.request().wire_name();
            prop_assert!(sent.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.'), "{}", sent);
            prop_assert!(sent.eq_ignore_ascii_case(method.as_str()));
        }
    }

    #[test]
    fn any_text_is_refused_or_destructive_or_documented(name in "\\PC{0,30}|[a-zA-Z._]{0,30}|\\x00{0,3}[a-z.]{0,9}") {
        let policy = Policy { allow_unlisted: true, ..open() };
        if let Ok(appraised) = appraise(Proposal { name: name.clone(), params: json!({}), api: None }, &policy) {
            let is_documented = Method::parse(&name).ok().and_then(|method| catalog::generations(&method)[0]).is_some();
            prop_assert!(is_documented || appraised.risk() == Risk::Destructive);
        }
    }

    #[test]
    fn the_strictest_command_of_a_batch_decides(
        (api, commands) in spelled_batch(), bits in 0_usize..4
    ) {
        let strictest = commands.iter().map(|(entry, _)| class_of(entry, &fitting(entry))).max().unwrap();
        let appraised = proposed("batch", Some(api), batch(&commands, api)).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        prop_assert_eq!(appraised.risk(), strictest);
        let names: Vec<&str> = appraised.request().calls().map(|(_, call)| call.name.as_str()).collect();
        prop_assert_eq!(names, commands.iter().map(|(entry, _)| entry.name).collect::<Vec<_>>());
        let consent = CONSENTS[bits];
        prop_assert_eq!(appraised.confirm(&open(), consent, false).is_ok(), may_pass(strictest, consent));
    }

    #[test]
    fn what_a_batch_sends_reads_back_as_what_was_checked(
        commands in prop::collection::vec((spelled_entry(), "[a-zA-Z]{1,8}", "\\PC{0,12}"), 1..6)
    ) {
        let v2 = commands.into_iter().filter(|((entry, _), _, _)| entry.api == Api::V2);
        let cmd: Vec<Value> = v2.map(|((_, name), key, value)| json!([name, {key: {"x": value}}])).collect();
        prop_assume!(!cmd.is_empty());
        if let Ok(request) = Request::parse("batch", json!({"cmd": cmd}), Api::V2) {
            let again = Request::parse("batch", request.body().unwrap(), Api::V2).unwrap();
            prop_assert_eq!(again, request);
        }
    }
}
