//! Asks a portal what it has.

use super::{own_read, send_read};
use crate::catalog::Api;
use crate::error::{Code, Failure};
use crate::session::Session;
use crate::wire::answer::Reading;
use serde_json::Value;

/// What a portal can be asked about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The classic methods that this credential may call.
    Methods,
    /// The scopes of this credential.
    Scopes,
    /// The methods of REST 3.0 with their scopes.
    ScopesOfMethods,
}

impl Question {
    /// Returns the method that answers it.
    #[must_use]
    pub fn method(self) -> (&'static str, Api) {
        match self {
            Question::Methods => ("methods", Api::V2),
            Question::Scopes => ("scope", Api::V2),
            Question::ScopesOfMethods => ("rest.scope.list", Api::V3),
        }
    }
}

/// Asks one question and returns the result; a read like any other, whatever
/// packs are enabled.
pub fn ask(session: &mut Session, question: Question) -> Result<Value, Failure> {
    let (name, api) = question.method();
    let completed = send_read(session, own_read(name, api)?)?;
    Reading::of(&completed.body)
        .and_then(|reading| serde_json::from_str(reading.result?.get()).ok())
        .ok_or_else(|| Failure::new(Code::ApiError, format!("the portal's answer to {name} has no result")).with("method", name))
}
