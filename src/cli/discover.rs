//! `b24 search` and `b24 describe`: what there is, without asking a portal.

use super::{Stop, printed};
use crate::catalog::{self, Api, Details, Entry};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::method::{self, Method};
use crate::output;
use crate::packs;
use serde_json::{Map, Value, json};

/// Where the pages of the official documentation are.
const DOCS: &str = "https://apidocs.bitrix24.com/";

/// Names of object parameters that are listed before `--full` is needed.
const SHORT_LIST: usize = 12;

/// Words of the product's screens and the ones that methods use instead.
const SYNONYMS: &[(&str, &str)] = &[
    ("chat", "im"),
    ("copilot", "ai"),
    ("department", "humanresources"),
    ("drive", "disk"),
    ("file", "disk"),
    ("group", "sonet_group"),
    ("invoice", "crm.item"),
    ("open line", "imopenlines"),
    ("openline", "imopenlines"),
    ("opportunity", "deal"),
    ("phone", "telephony"),
    ("pipeline", "category"),
    ("spa", "crm.item"),
    ("workflow", "bizproc"),
    ("workgroup", "sonet_group"),
    ("бизнес-процесс", "bizproc"),
    ("группа", "sonet_group"),
    ("диск", "disk"),
    ("задач", "task"),
    ("звон", "telephony"),
    ("календар", "calendar"),
    ("компани", "company"),
    ("контакт", "contact"),
    ("лид", "lead"),
    ("открыт", "imopenlines"),
    ("отдел", "department"),
    ("пользовател", "user"),
    ("почт", "mail"),
    ("сделк", "deal"),
    ("склад", "catalog"),
    ("событи", "event"),
    ("товар", "product"),
    ("файл", "disk"),
    ("чат", "im"),
];

/// Finds methods by words of their name and purpose, best first.
pub(super) fn search(words: &[String], limit: usize, host: &mut Host) -> Result<(), Stop> {
    let words: Vec<String> = words.iter().flat_map(|word| word.split_whitespace()).map(str::to_lowercase).collect();
    if words.is_empty() {
        return Err(Failure::new(Code::Usage, "there is nothing to search for").hint("For example b24 search add deal").into());
    }
    let text = words.join(" ");
    let meanings: Vec<&str> = SYNONYMS.iter().filter(|(said, _)| text.contains(said)).map(|(_, meant)| *meant).collect();
    let mut found: Vec<(i32, Entry, Details)> = catalog::entries()
        .filter_map(|entry| {
            let details = entry.details()?;
            let score = score(&entry, &details.purpose.to_lowercase(), &words, &meanings);
            (score > 0).then_some((score, entry, details))
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.folded.len().cmp(&b.1.folded.len())).then(a.1.folded.cmp(b.1.folded)));
    let total = found.len();
    let rows: Vec<Value> = found
        .into_iter()
        .take(limit)
        .map(|(_, entry, details)| {
            let mut row = json!({"method": entry.name, "api": entry.api.text(), "risk": entry.class.text(), "purpose": details.purpose});
            if let Some(deprecation) = entry.deprecated {
                row["deprecated"] = json!({"use": deprecation.successor});
            }
            row
        })
        .collect();
    printed(output::value(host, &json!({"schema": "b24.search/1", "found": total, "methods": rows})))
}

/// Words in the name count most; a method whose development has ended comes
/// after the one that took its place.
fn score(entry: &Entry, purpose: &str, words: &[String], meanings: &[&str]) -> i32 {
    let mut score = 0;
    let mut missed = 0;
    for word in words {
        let stem = word.trim_end_matches('s');
        if entry.folded.split(['.', '_']).any(|part| part == stem || part == word) {
            score += 6;
        } else if entry.folded.contains(stem) {
            score += 4;
        } else if purpose.contains(stem) {
            score += 3;
        } else {
            missed += 1;
        }
    }
    let meant = meanings.iter().filter(|meant| entry.folded.starts_with(*meant) || entry.folded.contains(*meant)).count();
    score += 5 * i32::try_from(meant).unwrap_or(0);
    if score == 0 || missed > meant + words.len() / 2 {
        return 0;
    }
    score - i32::from(entry.deprecated.is_some()) * 2
}

/// Describes a method or a pack.
pub(super) fn describe(name: &str, full: bool, host: &mut Host) -> Result<(), Stop> {
    if let Some(pack) = packs::built_in().into_iter().find(|pack| pack.pack.eq_ignore_ascii_case(name)) {
        return printed(output::value(
            host,
            &json!({"schema": "b24.pack/1", "pack": pack.pack, "purpose": pack.purpose, "methods": pack.methods}),
        ));
    }
    let method =
        Method::parse(name).map_err(|error| Failure::new(Code::Usage, error.to_string()).hint("Methods look like crm.lead.list"))?;
    let entries: Vec<Entry> = catalog::generations(&method).into_iter().flatten().collect();
    if entries.is_empty() {
        let suggestions = catalog::suggestions(method.as_str());
        let hint = match suggestions.is_empty() {
            true => "b24 search finds methods by words".to_owned(),
            false => format!("Did you mean {}?", suggestions.join(", ")),
        };
        return Err(Failure::new(Code::UnknownMethod, format!("{} is not a documented method", method::shown(name)))
            .hint(hint)
            .with("suggest", suggestions)
            .into());
    }
    for entry in entries {
        printed(output::value(host, &described(&entry, &method, full)?))?;
    }
    Ok(())
}

fn described(entry: &Entry, method: &Method, full: bool) -> Result<Value, Failure> {
    let details = entry.details().ok_or_else(|| Failure::new(Code::Internal, "the catalog's row cannot be read"))?;
    let mut value = json!({"schema": "b24.method/1", "method": entry.name, "api": entry.api.text(), "purpose": details.purpose,
        "risk": entry.class.text(), "why": details.reason});
    let mut add = |key: &str, item: Value| {
        if !item.is_null() {
            value[key] = item;
        }
    };
    add("loses", json!(details.note));
    add("external_effect", json!(details.external));
    add("consent", json!(entry.class.option()));
    add("replay_safe", if entry.replay_safe { json!(true) } else { Value::Null });
    add("deprecated", entry.deprecated.map_or(Value::Null, |deprecation| json!({"use": deprecation.successor})));
    add("packs", json!(packs::that_admit(method)));
    add("scope", json!(details.scope));
    add("auth", if details.auth == "oauth" { json!("oauth") } else { Value::Null });
    add("admin_only", if details.admin { json!(true) } else { Value::Null });
    add("paging", json!(details.paging));
    add("params", params(&details, full));
    add("example", json!(example(entry, &details)));
    add("docs", json!(format!("{DOCS}{}", details.doc.trim_end_matches(".md").to_owned() + ".html")));
    Ok(value)
}

/// Returns the parameters with their types; of large objects only the first
/// names, unless all are asked for. Never cut in silence.
fn params(details: &Details, full: bool) -> Value {
    let mut shown = Map::new();
    for (name, kind, is_required) in &details.params {
        let mut row = json!({"type": kind});
        if *is_required {
            row["required"] = json!(true);
        }
        if let Some(fields) = details.fields.get(name) {
            if full {
                row["fields"] =
                    fields.iter().map(|(name, kind, required)| (name.clone(), json!({"type": kind, "required": required}))).collect();
            } else {
                let mut names: Vec<&str> = fields.iter().filter(|field| field.2).map(|field| field.0.as_str()).collect();
                names.extend(fields.iter().filter(|field| !field.2).map(|field| field.0.as_str()));
                let hidden = names.len().saturating_sub(SHORT_LIST);
                names.truncate(SHORT_LIST);
                row["keys"] = json!(names);
                if hidden > 0 {
                    row["more_keys"] = json!(format!("{hidden} more with --full"));
                }
            }
        }
        shown.insert(name.clone(), row);
    }
    Value::Object(shown)
}

/// Returns a command that runs as it stands, up to the values.
fn example(entry: &Entry, details: &Details) -> String {
    let mut line = format!("b24 {}", entry.name);
    for (name, kind, _) in details.params.iter().filter(|param| param.2).take(4) {
        let item = match (kind.as_str(), details.fields.get(name).and_then(|fields| fields.first())) {
            ("object", Some((field, ..))) => format!(" '{name}[{field}]=…'"),
            ("object" | "array", None) => format!(" '{name}:={}'", if kind == "array" { "[]" } else { "{}" }),
            _ => format!(" {name}=…"),
        };
        line.push_str(&item);
    }
    if entry.api == Api::V3 {
        line.push_str(" --api v3");
    }
    if entry.class.option().is_some() {
        line.push_str(" --dry-run");
    }
    line
}
