//! What the gate says of a method before its parameters are known.

#![deny(clippy::wildcard_enum_match_arm)]

use super::{Admitted, Consent, Proposal, Refusal, Shaped, Valid};
use crate::catalog::Api;
use crate::risk::Risk;
use crate::settings::Policy;
use serde_json::{Map, Value};

/// A method that is known, admitted and permitted. It holds no request, so
/// nothing can be sent with it.
#[derive(Debug)]
pub struct Standing {
    /// The catalog's spelling.
    pub name: String,
    /// The generation that would be called.
    pub api: Api,
    /// Its class without parameters.
    pub risk: Risk,
    /// What consent is missing, if it needs any.
    pub missing: Option<Refusal>,
}

/// Passes a method without parameters through every step before the plan, but
/// for the one that checks parameters.
pub fn standing(name: &str, api: Option<Api>, policy: &Policy) -> Result<Standing, Refusal> {
    let proposal = Proposal { name: name.to_owned(), params: Value::Object(Map::new()), api };
    let Admitted(request) = Shaped::parse(proposal)?.know(policy)?.admit(policy)?;
    let (name, api) = (request.wire_name().to_owned(), request.api());
    let rated = Valid { request, oddities: Vec::new() }.rate(policy);
    let risk = rated.strictest().risk;
    let missing = rated.permit(policy)?.confirm(policy, Consent::default(), false).err();
    Ok(Standing { name, api, risk, missing })
}
