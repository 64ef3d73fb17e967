//! Asks a portal what it has.

use super::{own_read, refuse, send_read};
use crate::catalog::Api;
use crate::error::{Code, Failure};
use crate::gate::{self, Consent, Proposal, Reviewed};
use crate::session::Session;
use crate::wire::answer::Reading;
use serde_json::{Map, Value};

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
    /// Every question.
    pub const ALL: &[Question] = &[Question::Methods, Question::Scopes, Question::ScopesOfMethods];

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

/// Refuses before anything is sent when the packs that somebody set do not have
/// all that is to be asked.
pub fn check(session: &Session, questions: &[Question]) -> Result<(), Failure> {
    questions.iter().try_for_each(|question| review(session, *question).map(drop))
}

/// Passes the gate: under the packs of the profile, like every call. Only where
/// nobody said which packs there are, what a portal has may be asked although
/// the default pack is about other things.
fn review(session: &Session, question: Question) -> Result<Reviewed, Failure> {
    let (name, api) = question.method();
    let policy = &session.settings.policy;
    if !session.settings.packs_are_set {
        return own_read(name, api);
    }
    let proposal = Proposal { name: name.to_owned(), params: Value::Object(Map::new()), api: Some(api) };
    gate::appraise(proposal, policy)
        .and_then(|appraised| appraised.confirm(policy, Consent::default(), false))
        .map_err(|refusal| refuse(session, name, refusal))
}

/// Asks one question and returns the result.
pub fn ask(session: &mut Session, question: Question) -> Result<Value, Failure> {
    let (name, _) = question.method();
    let reviewed = review(session, question)?;
    let completed = send_read(session, reviewed)?;
    Reading::of(&completed.body)
        .and_then(|reading| serde_json::from_str(reading.result?.get()).ok())
        .ok_or_else(|| Failure::new(Code::ApiError, format!("the portal's answer to {name} has no result")).with("method", name))
}
