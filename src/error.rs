//! The closed list of what can go wrong: one stable word, one exit status and
//! one meaning each, and the failure that carries it to the edge.
//!
//! Words and exit statuses never change meaning: scripts and agents branch on
//! them. A new kind of failure is a new row here, never a reused one.

use serde_json::{Map, Value};

/// Builds [`Code`] and its table from one list, so that the word, the exit
/// status and the meaning of a code cannot drift apart.
macro_rules! codes {
    ($($variant:ident $text:literal $exit:ident $meaning:literal;)*) => {
        /// What went wrong, as a word that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $meaning] $variant,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// Returns the stable word (`kind` of the error object).
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// Returns the exit status.
            #[must_use]
            pub fn exit(self) -> Exit {
                match self { $(Code::$variant => Exit::$exit,)* }
            }

            /// Returns one line that says when this code is given.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    ApiError "api_error" ApiError "Bitrix24 refused the call and no narrower code fits";
    Usage "usage" Usage "The command line cannot be understood";
    InvalidParams "invalid_params" Usage "The parameters do not have the shape that the method takes";
    CredentialInParams "credential_in_params" Usage "The parameters carry a credential, which belongs in the profile or the environment";
    PolicyDenied "policy_denied" PolicyDenied "The configured packs, allowlist or policy forbid the call";
    Auth "auth" Auth "No usable credential, or the portal refused it";
    LoginNeeded "login_needed" Auth "The refresh token no longer works; log in again";
    PortalMoved "portal_moved" Auth "The portal answered with a redirect, which is never followed";
    UnknownMethod "unknown_method" NotFound "No such method is documented";
    UnknownCode "unknown_code" NotFound "b24 explain knows no such code, status or id";
    NotFound "not_found" NotFound "The portal says that the object is not there";
    Partial "partial" Partial "Some commands of a batch failed, or some events were not handled";
    HandlerUnusable "handler_unusable" Usage "The command that is to handle events does not work for any of them";
    RateLimited "rate_limited" Temporary "No slot of the rate limit was free in time";
    OperatingLimited "operating_limited" Temporary "The method used up its operating time on the portal";
    AnswerTooLarge "answer_too_large" ApiError "The portal's answer to a read is larger than --max-answer";
    Temporary "temporary" Temporary "A read got no usable answer from the portal";
    Offline "offline" Temporary "No connection to the portal could be made; nothing was sent";
    LockBusy "lock_busy" Temporary "Another process kept a state file locked for too long";
    RefreshUnknown "refresh_unknown" Temporary "The answer of a token refresh was lost";
    OutcomeUnknown "outcome_unknown" OutcomeUnknown "A write was sent and no trustworthy answer came";
    InProgress "in_progress" Conflict "Another process is sending this write now";
    KeyReused "key_reused" Conflict "The idempotency key belongs to another write";
    LooksRepeated "looks_repeated" Conflict "The same write succeeded a moment ago";
    Abandoned "abandoned" Conflict "An operator closed this key as abandoned";
    PlanNotFound "plan_not_found" Conflict "No plan has this id";
    PlanExpired "plan_expired" Conflict "The plan is too old to be executed";
    PlanUsed "plan_used" Conflict "The plan was executed already";
    PlanChanged "plan_changed" Conflict "The plan file is not the one that was saved";
    PlanForeign "plan_foreign" Conflict "The plan belongs to another portal, user, profile or set of packs";
    PlanCancelled "plan_cancelled" Conflict "The plan was cancelled";
    ConfirmationRequired "confirmation_required" Confirmation "The call changes the portal and was not confirmed";
    PlanRequired "plan_required" Confirmation "Changes are allowed through a saved plan only";
    LocalState "local_state" LocalState "A local file cannot be read or written";
    LedgerCorrupt "ledger_corrupt" LocalState "A ledger record is damaged or missing; its write is never repeated";
    ConfigInvalid "config_invalid" LocalState "A configuration or credentials file cannot be used";
    ExecutedUnrecorded "executed_unrecorded" ExecutedUnrecorded "The portal did it, the local record could not be written";
    AnswerNotKept "answer_not_kept" ExecutedUnrecorded "The write was done before, and its answer was not kept";
    AuditBroken "audit_broken" ApiError "The audit log is not what was written";
    Internal "internal" Internal "A bug in b24";
    Interrupted "interrupted" Interrupted "Stopped by Ctrl-C";
    Terminated "terminated" Terminated "Stopped by a termination signal";
}

/// Builds [`Exit`] and its table from one list.
macro_rules! exits {
    ($($variant:ident $status:literal $name:literal $when:literal $changed:literal;)*) => {
        /// The exit statuses of the program.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Exit { $(#[doc = $when] $variant,)* }

        impl Exit {
            /// Every exit status, in the order of the table.
            pub const ALL: &'static [Exit] = &[$(Exit::$variant,)*];

            /// Returns the number that the process ends with.
            #[must_use]
            pub fn status(self) -> u8 { match self { $(Exit::$variant => $status,)* } }

            /// Returns the name of the row.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Exit::$variant => $name,)* } }

            /// Returns when this status is given.
            #[must_use]
            pub fn when(self) -> &'static str { match self { $(Exit::$variant => $when,)* } }

            /// Returns whether the portal was changed.
            #[must_use]
            pub fn portal_changed(self) -> &'static str { match self { $(Exit::$variant => $changed,)* } }
        }
    };
}

exits! {
    Ok 0 "ok" "Done, or replayed from the ledger (`_b24.replayed`)" "as asked";
    ApiError 1 "api_error" "Bitrix24 refused it and no other row fits" "no";
    Usage 2 "usage" "Bad option, bad JSON, parameters that do not fit the method" "no, not sent";
    PolicyDenied 3 "policy_denied" "The configured packs, allowlist or policy forbid it" "no, not sent";
    Auth 4 "auth" "No or bad credential, missing scope, wrong kind of auth, portal moved" "no";
    NotFound 5 "not_found" "Unknown method, or the portal says that the object is not there" "no";
    Partial 6 "partial" "Some commands of a batch failed, or some events were not handled" "some of it";
    Temporary 7 "temporary" "Rate or operating limit, no connection, lost answer of a read, busy lock: try again as it is" "no";
    OutcomeUnknown 8 "outcome_unknown" "A write was sent and no trustworthy answer came: look before you repeat" "unknown";
    Conflict 9 "conflict" "Plan missing, expired, used, changed or foreign; key reused; same write in progress or just done" "no";
    Confirmation 10 "confirmation_required" "A write, destructive or plan gate is not passed" "no, not sent";
    Changes 11 "changes" "Only with --detailed-exitcode: what was compared differs" "no";
    LocalState 12 "local_state" "A configuration, state or audit file cannot be read or written: writes stop here" "no, not sent";
    ExecutedUnrecorded 13 "executed_unrecorded" "The portal did it, the local record could not be written or does not hold the answer: do not repeat" "as asked";
    Internal 70 "internal" "A bug in b24" "see `sent`";
    Interrupted 130 "interrupted" "Ctrl-C" "see `outcome`";
    Terminated 143 "terminated" "Termination signal" "see `outcome`";
}

/// What became of a call on the portal, as far as b24 knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No byte of the request left.
    NotSent,
    /// The portal answered that it did not run the call.
    NotApplied,
    /// The portal answered that it ran the call.
    Applied,
    /// An earlier answer was returned from the ledger; nothing was sent.
    Replayed,
    /// Some commands of a batch ran, some did not.
    Partial,
    /// The request left and nobody knows whether it ran.
    Unknown,
}

impl Outcome {
    /// Returns the word that output, audit and ledger use.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Outcome::NotSent => "not_sent",
            Outcome::NotApplied => "not_applied",
            Outcome::Applied => "applied",
            Outcome::Replayed => "replayed",
            Outcome::Partial => "partial",
            Outcome::Unknown => "unknown",
        }
    }
}

/// An error of one module that knows its code.
pub trait Coded: std::error::Error {
    /// Returns the stable code.
    fn code(&self) -> Code;

    /// Returns the next step for the person or agent; never a confirm flag in
    /// a line that can be run.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Returns further fields of the error object.
    fn details(&self) -> Map<String, Value> {
        Map::new()
    }
}

/// What the edge prints: a code, one sentence, one hint and typed details.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// One sentence without a period.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
    /// What became of the call on the portal.
    pub outcome: Outcome,
    /// Whether a byte of the request left.
    pub sent: bool,
    /// Further fields of the error object, in the order they were added.
    pub details: Map<String, Value>,
}

impl Failure {
    /// Makes a failure of a call that was not sent.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), hint: None, outcome: Outcome::NotSent, sent: false, details: Map::new() }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a field of the error object; a field that is there already stays.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Failure {
        if !self.details.contains_key(key) {
            self.details.insert(key.to_owned(), value.into());
        }
        self
    }

    /// Says that the request left and what became of it.
    #[must_use]
    pub fn sent(mut self, outcome: Outcome) -> Failure {
        self.sent = true;
        self.outcome = outcome;
        self
    }
}

impl<E: Coded> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure {
            code: error.code(),
            message: error.to_string(),
            hint: error.hint(),
            outcome: Outcome::NotSent,
            sent: false,
            details: error.details(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_and_statuses_are_unique() {
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.text()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        let statuses: HashSet<_> = Exit::ALL.iter().map(|exit| exit.status()).collect();
        assert_eq!(statuses.len(), Exit::ALL.len());
    }
}
