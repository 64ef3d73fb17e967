//! The embedded table of methods is what the facts say.
//!
//! The facts (`methods.jsonl`) are not part of the repository. Where
//! `B24_SHARED_DIR` names their folder, the table is compared with them, and
//! with `B24_UPDATE=1` written anew.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

#[test]
fn catalog_is_current() {
    let Ok(shared) = std::env::var("B24_SHARED_DIR") else {
        println!("skipped: B24_SHARED_DIR is not set");
        return;
    };
    let facts = std::fs::read_to_string(Path::new(&shared).join("bitrix24/methods.jsonl")).unwrap();
    let mut rows: BTreeMap<String, (String, Vec<&str>)> = BTreeMap::new();
    for line in facts.lines() {
        let fact: Value = serde_json::from_str(line).unwrap();
        let name = fact["method"].as_str().unwrap();
        if name == "batch" {
            // A carrier of calls, not a method: `call` takes it apart.
            continue;
        }
        let api = if fact["v3"] == true { "v3" } else { "v2" };
        rows.entry(name.to_lowercase()).or_insert_with(|| (name.to_owned(), Vec::new())).1.push(api);
    }
    let mut table = String::new();
    for (folded, (name, mut apis)) in rows {
        apis.sort_unstable();
        writeln!(table, "{folded}\t{name}\t{}", apis.join(",")).unwrap();
    }
    if std::env::var("B24_UPDATE").is_ok() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalog/methods.tsv"), &table).unwrap();
    }
    assert!(table == b24::catalog::TABLE, "src/catalog/methods.tsv is not what the facts say; run this test with B24_UPDATE=1");
}
