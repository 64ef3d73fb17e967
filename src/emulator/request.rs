//! What a request asks: address, credential and parameters.

use super::envelope::{Api, Refusal};
use super::php;
use super::portal::Credential;
use crate::secret::MASK;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Map, Value};

/// A request as it came, with its body read.
pub(super) struct Incoming {
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Incoming {
    /// Returns a header as text.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

/// What an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Rest(Api),
    Token,
    Nothing,
}

/// An address, taken apart.
pub(super) struct Address {
    pub(super) target: Target,
    pub(super) method: String,
    pub(super) webhook: Option<(String, String)>,
    /// The path without the webhook's code.
    pub(super) shown: String,
}

impl Address {
    /// Reads a path. Doubled and trailing slashes and the suffix `.json` are
    /// what SDKs send, and portals take them.
    pub(super) fn parse(path: &str) -> Address {
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (target, rest) = match parts.as_slice() {
            ["rest", "api", rest @ ..] => (Target::Rest(Api::V3), rest),
            ["rest", rest @ ..] => (Target::Rest(Api::V2), rest),
            ["oauth", "token"] => (Target::Token, &["oauth.token"][..]),
            _ => (Target::Nothing, &[][..]),
        };
        let (webhook, method) = match rest {
            [method] => (None, *method),
            [user, code, method] if user.bytes().all(|byte| byte.is_ascii_digit()) => {
                (Some(((*user).to_owned(), (*code).to_owned())), *method)
            }
            _ => (None, ""),
        };
        Address { target, method: fold_method(method), webhook, shown: shown(&parts, rest) }
    }
}

/// Returns the path without what stands where a webhook's code stands, also
/// when the address is no good.
fn shown(parts: &[&str], rest: &[&str]) -> String {
    let code = match rest {
        [user, _, ..] if user.bytes().all(|byte| byte.is_ascii_digit()) => Some(parts.len() - rest.len() + 1),
        _ => None,
    };
    let parts = parts.iter().enumerate().map(|(index, part)| if Some(index) == code { MASK } else { part });
    parts.fold(String::new(), |path, part| path + "/" + part)
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// Returns a method name as the portal compares it: without case and without
/// the suffix that asks for a format.
pub(super) fn fold_method(name: &str) -> String {
    let folded = name.to_ascii_lowercase();
    folded.strip_suffix(".json").or_else(|| folded.strip_suffix(".xml")).unwrap_or(&folded).to_owned()
}

/// Parameters and credential of a request.
pub(super) struct Call {
    pub(super) credential: Credential,
    /// An object, or the list of a batch of the third generation.
    pub(super) params: Result<Value, Refusal>,
}

impl Call {
    /// Reads query and body. The credential is looked for in both, and in the
    /// header, on either generation.
    pub(super) fn parse(incoming: &Incoming, address: &Address) -> Call {
        let mut query = php::parse_str(&incoming.query);
        query.retain(|name, _| !name.starts_with("bx24_"));
        let mut access_token = take_auth(&mut query);
        let params = if address.target == Target::Rest(Api::V3) { json_only(incoming) } else { merged(incoming, query) };
        let params = params.map(|mut params| {
            if let Value::Object(entries) = &mut params {
                access_token = take_auth(entries).or(access_token.take());
            }
            params
        });
        let bearer = || incoming.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(|token| token.trim().to_owned());
        let credential = Credential { webhook: address.webhook.clone(), access_token: access_token.or_else(bearer) };
        Call { credential, params }
    }
}

fn take_auth(params: &mut Map<String, Value>) -> Option<String> {
    match params.shift_remove("auth")? {
        Value::String(token) => Some(token),
        _ => Some(String::new()),
    }
}

/// The second generation: parameters of the body win over those of the query.
fn merged(incoming: &Incoming, mut query: Map<String, Value>) -> Result<Value, Refusal> {
    let text = String::from_utf8_lossy(&incoming.body);
    let kind = content_type(incoming);
    let body = if text.trim().is_empty() {
        Map::new()
    } else if kind.contains("application/json") || (kind.is_empty() && text.trim_start().starts_with('{')) {
        match php::json_decode(&incoming.body) {
            Some(Value::Object(body)) => body,
            Some(Value::Array(items)) => items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
            // Not documented; a portal that went on without parameters would
            // hide a broken client.
            _ => return Err(Refusal::v2(400, "INVALID_REQUEST", "The request body is not valid JSON")),
        }
    } else if kind.contains("multipart/form-data") {
        return Err(Refusal::v2(400, "INVALID_REQUEST", "The emulator does not read multipart forms"));
    } else {
        php::parse_str(text.trim())
    };
    query.extend(body);
    Ok(Value::Object(query))
}

/// The third generation reads its parameters from a JSON body only; the query
/// is not looked at.
fn json_only(incoming: &Incoming) -> Result<Value, Refusal> {
    let no_json = || Refusal::v3(400, "INVALIDJSONEXCEPTION", "Unable to parse the request body as JSON");
    let form = ["application/x-www-form-urlencoded", "multipart/form-data"].iter().any(|kind| content_type(incoming).contains(kind));
    if incoming.body.trim_ascii().is_empty() || incoming.verb == "GET" {
        return Ok(Value::Object(Map::new()));
    }
    if form {
        return Err(no_json());
    }
    match php::json_decode(&incoming.body) {
        Some(params @ (Value::Object(_) | Value::Array(_))) => Ok(params),
        _ => Err(no_json()),
    }
}

fn content_type(incoming: &Incoming) -> String {
    incoming.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_shown_without_the_code() {
        for (path, target, method, shown) in [
            ("/rest/1/c0de/crm.lead.ADD.json", Target::Rest(Api::V2), "crm.lead.add", "/rest/1/***/crm.lead.ADD.json"),
            ("//rest//crm.lead.add/", Target::Rest(Api::V2), "crm.lead.add", "/rest/crm.lead.add"),
            ("/rest/api/1/c0de/batch", Target::Rest(Api::V3), "batch", "/rest/api/1/***/batch"),
            ("/rest/api/tasks.task.get", Target::Rest(Api::V3), "tasks.task.get", "/rest/api/tasks.task.get"),
            ("/rest/1/%630de/x/y", Target::Rest(Api::V2), "", "/rest/1/***/x/y"),
            ("/oauth/token/", Target::Token, "oauth.token", "/oauth/token"),
            ("/", Target::Nothing, "", ""),
        ] {
            let address = Address::parse(path);
            assert_eq!((address.target, address.method.as_str(), address.shown.as_str()), (target, method, shown), "{path}");
        }
    }
}
