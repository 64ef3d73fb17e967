//! `b24 catalog info` and `b24 catalog diff`: what b24 knows, and how that
//! differs from what a portal has.

use super::args::{Catalog as CatalogCommand, Global};
use super::connect::connect;
use super::{Stop, printed};
use crate::catalog::{self, Api, Entry, events, server_errors};
use crate::error::{Code, Exit, Failure};
use crate::host::Host;
use crate::method::{self, Method};
use crate::output;
use crate::packs;
use crate::pipeline::inventory::{Question, ask, check};
use crate::risk::Risk;
use crate::session::Session;
use crate::settings;
use crate::store::patience;
use crate::store::plans::catalog_digest;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Names of a list that are shown without `--full`.
const SHORT_LIST: usize = 50;

/// A scope that every credential has.
const BASIC: &str = "basic";

pub(super) fn run(command: &CatalogCommand, global: &Global, host: &mut Host) -> Result<(), Stop> {
    match command {
        CatalogCommand::Info => printed(output::value(host, &info())),
        CatalogCommand::Diff { full, detailed_exitcode } => {
            let settings = settings::resolve(&global.options(), host)?;
            let _patience = patience::begin(settings.limits.max_wait);
            let mut connected = connect(settings, host)?;
            let differences = diff(&mut connected.session)?;
            let differs = differences.iter().any(|difference| !difference.is_empty());
            let session = &connected.session;
            let mut answer = json!({"schema": "b24.catalog-diff/1", "portal": session.identity, "differs": differs});
            for difference in &differences {
                answer[difference.api.text()] = difference.to_value(if *full { usize::MAX } else { SHORT_LIST });
            }
            let text = session.redactor.redact_text(&answer.to_string());
            printed(output::body(host, text.as_bytes(), None, false))?;
            if differs && *detailed_exitcode { Err(Stop::Ended(Exit::Changes)) } else { Ok(()) }
        }
    }
}

fn info() -> Value {
    let entries: Vec<Entry> = catalog::entries().collect();
    let count = |fits: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| fits(entry)).count();
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.folded).collect();
    let in_pack = |entry: &Entry| Method::parse(entry.name).is_ok_and(|method| !packs::that_admit(&method).is_empty());
    json!({
        "schema": "b24.catalog/1",
        "methods": {"names": names.len(), "v2": count(&|entry| entry.api == Api::V2), "v3": count(&|entry| entry.api == Api::V3)},
        "classes": {
            "read": count(&|entry| entry.class == Risk::Read),
            "write": count(&|entry| entry.class == Risk::Write),
            "destructive": count(&|entry| entry.class == Risk::Destructive),
        },
        "deprecated": count(&|entry| entry.deprecated.is_some()),
        "packs": {"count": packs::BUILT_IN.len(), "methods_in_a_pack": count(&in_pack), "of": entries.len()},
        "events": events::all().count(),
        "error_codes": server_errors::codes().count(),
        "digest": format!("sha256:{}", catalog_digest()),
    })
}

/// How the catalog and a portal differ in one generation.
struct Difference {
    api: Api,
    /// How many methods the portal named; none if it did not answer.
    portal_count: Option<usize>,
    /// Names that the portal has and we do not know.
    unknown_here: Vec<String>,
    /// Names that we know, that the credential's scopes cover, and that the
    /// portal lacks.
    missing_there: Vec<String>,
    /// Why there is no answer.
    reason: Option<String>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.unknown_here.is_empty() && self.missing_there.is_empty()
    }

    fn to_value(&self, room: usize) -> Value {
        if let Some(reason) = &self.reason {
            return json!({"answered": false, "reason": reason});
        }
        let mut value = json!({"answered": true, "on_portal": self.portal_count});
        for (key, names) in [("unknown_here", &self.unknown_here), ("missing_there", &self.missing_there)] {
            value[key] = json!({"count": names.len(), "names": names.iter().take(room).collect::<Vec<_>>()});
            if names.len() > room {
                value[key]["more"] = json!(format!("{} more with --full", names.len() - room));
            }
        }
        value
    }
}

fn diff(session: &mut Session) -> Result<[Difference; 2], Failure> {
    check(session, &[Question::Methods, Question::Scopes, Question::ScopesOfMethods])?;
    let methods = names(&ask(session, Question::Methods)?);
    let scopes = names(&ask(session, Question::Scopes)?);
    let classic = compare(Api::V2, &methods, &scopes);
    let third = match ask(session, Question::ScopesOfMethods) {
        Ok(answer) => compare(Api::V3, &names(&answer), &scopes),
        // A portal without REST 3.0, or one that does not tell.
        Err(failure) if [Code::ApiError, Code::Auth, Code::NotFound, Code::UnknownMethod].contains(&failure.code) => Difference {
            api: Api::V3,
            portal_count: None,
            unknown_here: Vec::new(),
            missing_there: Vec::new(),
            reason: Some(failure.message),
        },
        Err(failure) => return Err(failure),
    };
    Ok([classic, third])
}

/// Returns the names in an answer: a list, or the keys of a map.
fn names(answer: &Value) -> BTreeSet<String> {
    match answer {
        Value::Array(names) => names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        Value::Object(map) => map.keys().cloned().collect(),
        _ => BTreeSet::new(),
    }
}

fn compare(api: Api, on_portal: &BTreeSet<String>, scopes: &BTreeSet<String>) -> Difference {
    let folded: BTreeSet<String> = on_portal.iter().map(|name| name.to_lowercase()).collect();
    let is_known = |name: &str| match Method::parse(name) {
        Ok(method) => method.is_batch() || catalog::find(&method, api).is_some(),
        Err(_) => false,
    };
    let clean = |name: &String| if Method::parse(name).is_ok() { name.clone() } else { method::shown(name) };
    // Of several scopes the first is the method's own; the others take its
    // place or add to it, which the documentation does not tell apart.
    let is_covered = |entry: &Entry| {
        let needed = entry.details().map(|details| details.scope).unwrap_or_default();
        needed.first().is_none_or(|scope| scope == BASIC || scopes.contains(scope))
    };
    let missing = catalog::entries().filter(|entry| entry.api == api && !folded.contains(entry.folded) && is_covered(entry));
    Difference {
        api,
        portal_count: Some(on_portal.len()),
        unknown_here: on_portal.iter().filter(|name| !is_known(name)).map(clean).collect(),
        missing_there: missing.map(|entry| entry.name.to_owned()).collect(),
        reason: None,
    }
}
