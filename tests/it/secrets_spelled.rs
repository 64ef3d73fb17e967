//! A portal that repeats a secret in another spelling: it is not printed and
//! not kept.

use crate::world::{Outcome, World};
use b24::emulator::{Fault, FaultKind};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use std::path::{Path, PathBuf};

fn each(secret: &str, spell: impl Fn(usize, u32) -> String) -> String {
    secret.chars().enumerate().map(|(index, c)| spell(index, u32::from(c))).collect()
}

fn in_part(index: usize, escaped: String, plain: u32) -> String {
    if index.is_multiple_of(3) { escaped } else { char::from_u32(plain).unwrap().to_string() }
}

/// The spellings, with what must not be left of each.
fn spellings(secret: &str) -> Vec<(&'static str, String)> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let mut spellings = vec![
        ("raw", secret.to_owned()),
        ("hex", hex.clone()),
        ("upper hex", hex.to_uppercase()),
        ("backwards", secret.chars().rev().collect()),
        ("\\u", each(secret, |_, c| format!("\\u{c:04x}"))),
        ("upper \\u", each(secret, |_, c| format!("\\u{c:04X}"))),
        ("\\u in part", each(secret, |index, c| in_part(index, format!("\\u{c:04X}"), c))),
        ("\\u twice", each(secret, |_, c| format!("\\\\u{c:04x}"))),
        ("\\x", each(secret, |_, c| format!("\\\\x{c:02x}"))),
        ("percent", each(secret, |_, c| format!("%{c:02X}"))),
        ("percent in part", each(secret, |index, c| in_part(index, format!("%{c:02x}"), c))),
        ("percent, one case each", each(secret, |index, c| if index % 2 == 0 { format!("%{c:02x}") } else { format!("%{c:02X}") })),
        ("percent twice", each(secret, |_, c| format!("%25{c:02X}"))),
        ("HTML", each(secret, |_, c| format!("&#{c};"))),
        ("HTML hex in part", each(secret, |index, c| in_part(index, format!("&#x{c:X};"), c))),
        ("quoted-printable", each(secret, |_, c| format!("={c:02X}"))),
        ("a mixture", each(secret, |index, c| [format!("%{c:02x}"), format!("\\u{c:04x}"), format!("&#{c};")][index % 3].clone())),
    ];
    for (before, after) in [("", ""), ("x", ""), ("xy", ""), ("", "z"), ("x", "yz"), ("user:", ""), ("ab", "c\u{ff}")] {
        let text = format!("{before}{secret}{after}");
        for engine in [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD] {
            spellings.push(("base64", engine.encode(&text)));
        }
    }
    spellings.sort();
    spellings.dedup();
    spellings
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }).collect()
}

/// Nothing of the spelling is left but its edges, which it shares with what
/// stands beside it in base64.
fn middle(spelling: &str) -> &str {
    let cut = spelling.len() / 4;
    &spelling[cut..spelling.len() - cut]
}

#[track_caller]
fn assert_masked(world: &World, outcome: &Outcome, (name, spelling): &(&str, String), place: &str) {
    let needle = middle(spelling);
    let unescaped = needle.replace("\\\\", "\\");
    let is_there = |text: &str| text.contains(needle) || text.contains(&unescaped);
    assert!(!is_there(&outcome.stdout), "{name} on standard output ({place}): {}", outcome.stdout);
    assert!(!is_there(&outcome.stderr), "{name} on standard error ({place}): {}", outcome.stderr);
    for path in files(&world.state()) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
        assert!(!is_there(&text), "{name} in {} ({place}): {text}", path.display());
    }
}

#[test]
fn a_secret_in_another_spelling_is_not_printed_and_not_kept() {
    let world = World::new();
    let webhook = world.webhook(1);
    let secret = webhook.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
    let spellings = spellings(&secret);
    let mut echoes = 0;
    for (number, spelling) in spellings.iter().enumerate() {
        let echo = &spelling.1;
        for (place, status, body) in [
            ("result", 200, format!(r#"{{"result":{{"TITLE":"<{echo}>"}}}}"#)),
            ("refusal", 400, format!(r#"{{"error":"X","error_description":"<{echo}>"}}"#)),
            ("code", 400, format!(r#"{{"error":"{echo}","error_description":"y"}}"#)),
            ("v3", 400, format!(r#"{{"error":{{"code":"X","message":"{echo}"}}}}"#)),
            ("page", 502, format!("<html>{echo}</html>")),
        ] {
            let mut fault: Fault = "crm.lead.add:answer:times=1".parse().unwrap();
            fault.kind = FaultKind::Answer { status, body: Some(body) };
            world.emulator.add_fault(fault);
            let title = format!("fields[TITLE]=t{number}-{place}");
            let outcome = world.run(&["crm.lead.add", &title, "--confirm-write"]);
            let expected = if place == "result" {
                0
            } else if place == "page" {
                8
            } else {
                1
            };
            assert_eq!(outcome.status, expected, "{place} {spelling:?}: {}", outcome.stderr);
            if place == "result" {
                assert!(outcome.stdout.contains("***"), "{spelling:?}: {}", outcome.stdout);
            }
            assert_masked(&world, &outcome, spelling, place);
            echoes += 1;
        }
    }
    let _ = world.run(&["audit", "verify"]).body(0);
    println!("{echoes} echoes in {} spellings", spellings.len());
}

#[test]
fn a_secret_in_another_spelling_is_no_data_either() {
    let world = World::new();
    let webhook = world.webhook(1);
    let secret = webhook.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
    for (name, spelling) in spellings(&secret) {
        let outcome = world.run(&["crm.lead.add", &format!("fields[TITLE]={spelling}"), "--plan-only"]);
        outcome.refused(&world, name, 2).unwrap();
    }
}
