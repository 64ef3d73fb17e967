//! What there is, without asking a portal: `search`, `describe`, `explain`,
//! `policy check` and `catalog`.

use crate::catalog::assert_current;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many methods a row of the table of error codes names.
const SOME: usize = 3;

#[test]
fn the_error_codes_are_current() {
    let Ok(shared) = std::env::var("B24_SHARED_DIR") else {
        println!("skipped: B24_SHARED_DIR is not set");
        return;
    };
    let text = std::fs::read_to_string(Path::new(&shared).join("bitrix24/errors.jsonl")).unwrap();
    let mut codes: BTreeMap<(String, String), (BTreeSet<u64>, BTreeSet<(usize, String)>)> = BTreeMap::new();
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
