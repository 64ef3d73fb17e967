//! `b24 describe`: what a method takes and does, without asking a portal.

use super::args::Describe as DescribeArgs;
use super::{Stop, printed};
use crate::catalog::{self, Api, Details, Entry, events};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::method::{self, Method};
use crate::output;
use crate::packs;
use crate::risk;
use crate::schema;
use serde_json::{Map, Value, json};

/// Where the pages of the official documentation are.
const DOCS: &str = "https://apidocs.bitrix24.com/";

/// Characters of a description without `--full`: about 400 tokens.
const SHORT_ANSWER: usize = 1_600;

/// Describes a method, an event or a pack.
pub(super) fn run(args: &DescribeArgs, host: &mut Host) -> Result<(), Stop> {
    let name = &args.name;
    if let Some(pack) = packs::built_in().into_iter().find(|pack| pack.pack.eq_ignore_ascii_case(name)) {
        return printed(output::value(
            host,
            &json!({"schema": "b24.pack/1", "pack": pack.pack, "purpose": pack.purpose, "methods": pack.methods}),
        ));
    }
    if let Some(event) = events::find(name) {
        let value = json!({"schema": "b24.event/1", "event": event.name, "subscribe": "event.bind", "docs": page(event.doc)});
        return printed(output::value(host, &value));
    }
    let method =
        Method::parse(name).map_err(|error| Failure::new(Code::Usage, error.to_string()).hint("Methods look like crm.lead.list"))?;
    let entries = entries(&method, args.api())?;
    if args.skeleton || args.schema {
        // For the generation that a call takes when nothing is said.
        let details = details(&entries[0])?;
        let value = if args.skeleton { skeleton(&details) } else { schema_document(&entries[0], &details) };
        return printed(output::value(host, &value));
    }
    for entry in entries {
        let value = if args.full { described(&entry, &method, Room::ALL)? } else { short(&entry, &method)? };
        printed(output::value(host, &value))?;
    }
    Ok(())
}

/// Returns the method in the generations that are asked for.
fn entries(method: &Method, api: Option<Api>) -> Result<Vec<Entry>, Failure> {
    let all: Vec<Entry> = catalog::generations(method).into_iter().flatten().collect();
    let entries: Vec<Entry> = all.iter().copied().filter(|entry| api.is_none_or(|api| entry.api == api)).collect();
    if !entries.is_empty() {
        return Ok(entries);
    }
    let shown = method::shown(method.as_str());
    if let Some(entry) = all.first() {
        return Err(
            Failure::new(Code::UnknownMethod, format!("{shown} is a method of REST {} alone", entry.api.text())).hint("Leave --api out")
        );
    }
    let suggestions = catalog::suggestions(method.as_str());
    let hint = match suggestions.is_empty() {
        true => "b24 search finds methods by words".to_owned(),
        false => format!("Did you mean {}?", suggestions.join(", ")),
    };
    Err(Failure::new(Code::UnknownMethod, format!("{shown} is not a documented method")).hint(hint).with("suggest", suggestions))
}

fn details(entry: &Entry) -> Result<Details, Failure> {
    entry.details().ok_or_else(|| Failure::new(Code::Internal, "the catalog's row cannot be read"))
}

/// Returns parameters for `--params` with a value for every documented name.
fn skeleton(details: &Details) -> Value {
    let values = details.params.iter().map(|(name, kind, _)| {
        let members = details.fields.get(name).filter(|members| !members.is_empty());
        let value = match members {
            // A list of fields is for one object of a list of objects too.
            Some(members) if kind.contains("object") || kind == "array" || kind.ends_with("[]") => {
                // `UF_*` and its like stand for names that only a portal knows.
                let named = members.iter().filter(|(name, ..)| !name.contains(['*', '.', '…']));
                let object: Map<String, Value> = named.map(|(name, kind, _)| (name.clone(), schema::placeholder(kind))).collect();
                if kind == "object[]" { json!([object]) } else { Value::Object(object) }
            }
            _ => schema::placeholder(kind),
        };
        (name.clone(), value)
    });
    Value::Object(values.collect())
}

/// Returns the JSON Schema as a document of its own.
fn schema_document(entry: &Entry, details: &Details) -> Value {
    let mut document =
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": format!("{} ({})", entry.name, entry.api.text())});
    if let (Some(document), Value::Object(schema)) = (document.as_object_mut(), schema::json_schema(details)) {
        document.extend(schema);
    }
    document
}

/// How many names are shown before `--full` is needed.
#[derive(Debug, Clone, Copy)]
struct Room {
    params: usize,
    keys: usize,
}

impl Room {
    const ALL: Room = Room { params: usize::MAX, keys: usize::MAX };

    /// From the most to the least that is shown without `--full`.
    const SHORT: &'static [Room] = &[
        Room { params: usize::MAX, keys: 12 },
        Room { params: usize::MAX, keys: 6 },
        Room { params: 16, keys: 6 },
        Room { params: 12, keys: 4 },
        Room { params: 8, keys: 3 },
    ];
}

/// Returns as much of the description as an agent can afford to read.
fn short(entry: &Entry, method: &Method) -> Result<Value, Failure> {
    let mut value = Value::Null;
    for room in Room::SHORT {
        value = described(entry, method, *room)?;
        if value.to_string().chars().count() <= SHORT_ANSWER {
            break;
        }
    }
    Ok(value)
}

fn described(entry: &Entry, method: &Method, room: Room) -> Result<Value, Failure> {
    let details = details(entry)?;
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
    add("risk_params", risk_params(entry, method, room));
    add("replay_safe", if entry.replay_safe { json!(true) } else { Value::Null });
    add("deprecated", entry.deprecated.map_or(Value::Null, |deprecation| json!({"use": deprecation.successor})));
    add("packs", json!(packs::that_admit(method)));
    add("scope", json!(details.scope));
    add("auth", if details.auth == "oauth" { json!("oauth") } else { Value::Null });
    add("admin_only", if details.admin { json!(true) } else { Value::Null });
    add("paging", json!(details.paging));
    add("params", params(&details, room));
    let hidden = details.params.len().saturating_sub(room.params);
    add("more_params", if hidden > 0 { json!(format!("{hidden} more with --full")) } else { Value::Null });
    add("example", json!(example(entry, &details)));
    add("docs", json!(page(&details.doc)));
    Ok(value)
}

/// Returns which parameters decide the class; all about them with `--full`.
fn risk_params(entry: &Entry, method: &Method, room: Room) -> Value {
    let deciding = risk::deciding(method, entry.class);
    // What holds for every write is said by `--full` and `b24 help safety`.
    if room.keys == usize::MAX {
        return json!(deciding);
    }
    let mut own: Vec<String> = deciding.into_iter().filter(|one| one.is_own).map(|one| one.param).collect();
    let hidden = own.len().saturating_sub(room.keys);
    own.truncate(room.keys);
    match (own.is_empty(), hidden) {
        (true, _) => Value::Null,
        (false, 0) => json!(own),
        (false, more) => json!([own, vec![format!("{more} more with --full")]].concat()),
    }
}

/// Returns the parameters with their types, as far as there is room; the
/// required ones first where some must go. Never cut in silence.
fn params(details: &Details, room: Room) -> Value {
    let mut all: Vec<_> = details.params.iter().collect();
    if all.len() > room.params {
        all.sort_by_key(|(_, _, is_required)| !is_required);
        all.truncate(room.params);
    }
    let rows = all.into_iter().map(|(name, kind, is_required)| {
        let mut row = json!({"type": kind});
        if *is_required {
            row["required"] = json!(true);
        }
        if let Some(fields) = details.fields.get(name) {
            if room.keys == usize::MAX {
                row["fields"] =
                    fields.iter().map(|(name, kind, required)| (name.clone(), json!({"type": kind, "required": required}))).collect();
            } else {
                add_keys(&mut row, fields, room.keys);
            }
        }
        (name.clone(), row)
    });
    Value::Object(rows.collect())
}

/// Adds the first names of an object's members, the required ones before the
/// others.
fn add_keys(row: &mut Value, fields: &[(String, String, bool)], room: usize) {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(_, _, is_required)| !is_required);
    row["keys"] = fields.iter().take(room).map(|(name, ..)| name.as_str()).collect();
    if fields.len() > room {
        row["more_keys"] = json!(format!("{} more with --full", fields.len() - room));
    }
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

/// Returns the address of a page of the official documentation.
pub(super) fn page(doc: &str) -> String {
    format!("{DOCS}{}.html", doc.trim_end_matches(".md"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Strength;

    #[test]
    fn a_description_is_short_unless_all_is_asked_for() {
        let (mut long, mut count) = (Vec::new(), 0);
        for entry in catalog::entries() {
            let method = Method::parse(entry.name).unwrap();
            let value = short(&entry, &method).unwrap();
            let length = value.to_string().chars().count();
            count += 1;
            if length > SHORT_ANSWER {
                long.push((length, entry.name));
            }
            let details = entry.details().unwrap();
            let shown = value["params"].as_object().unwrap().len();
            assert!(shown == details.params.len() || value["more_params"].is_string(), "{}", entry.name);
            for (name, row) in value["params"].as_object().unwrap() {
                let members = details.fields.get(name).map_or(0, Vec::len);
                let shown = row["keys"].as_array().map_or(0, Vec::len);
                assert!(shown == members || row["more_keys"].is_string(), "{} {name}", entry.name);
            }
        }
        assert!(long.len() * 50 <= count, "{} of {count} are longer: {long:?}", long.len());
    }

    #[test]
    fn a_skeleton_fits_its_method_and_has_every_parameter() {
        for entry in catalog::entries() {
            let details = entry.details().unwrap();
            let skeleton = skeleton(&details);
            assert_eq!(skeleton.as_object().unwrap().len(), details.params.len());
            let method = Method::parse(entry.name).unwrap();
            let problems = schema::check(&method, &details, &skeleton);
            let errors: Vec<_> = problems.into_iter().filter(|problem| problem.strength == Strength::Error).collect();
            assert_eq!(errors, [], "{}: {skeleton}", entry.name);
        }
    }
}
