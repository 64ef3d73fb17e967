//! Faults that a test or a user asks the portal for.

use super::envelope::Refusal;
use crate::error::{Code, Coded};
use crate::method::{Method, Pattern, PatternError};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// One fault: which requests it meets and what it does to them.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The methods; `oauth.token` is the token endpoint.
    pub method: Pattern,
    /// What happens.
    pub kind: FaultKind,
    /// How many requests it meets; `None` for all.
    pub times: Option<u32>,
    /// How many matching requests pass before the first one.
    pub skip: u32,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Closes the connection; nothing is executed.
    DropBeforeExecuting,
    /// Executes, then closes the connection without a byte.
    ExecuteThenDrop,
    /// Executes, then answers 500 without a body.
    ExecuteThen500,
    /// Answers 502 with a page; nothing is executed.
    Html502,
    /// Executes, then answers 502 with a page.
    ExecuteThenHtml502,
    /// Answers 403 with a page; nothing is executed.
    Html403,
    /// Executes, sends half of the answer and closes the connection.
    TruncatedJson,
    /// Executes, then waits before the answer.
    Slow {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Waits, then executes and answers.
    SlowBefore {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// Executes, then holds the answer until the client leaves.
    Held,
    /// Holds the request until the client leaves, then executes.
    HeldBefore,
    /// Answers 302, or another redirect; nothing is executed.
    Redirect {
        /// The HTTP status.
        status: u16,
        /// The `Location`.
        location: String,
    },
    /// Answers 503 `QUERY_LIMIT_EXCEEDED`; nothing is executed.
    QueryLimit,
    /// Answers 503 `OVERLOAD_LIMIT`; nothing is executed.
    Overload,
    /// Answers 429 `OPERATION_TIME_LIMIT`; nothing is executed.
    OperationTimeLimit,
    /// Answers 401 `expired_token`; nothing is executed.
    ExpiredToken,
    /// Answers 401 `METHOD_CONFIRM_WAITING`; nothing is executed.
    MethodConfirm,
    /// Answers an error of choice; nothing is executed.
    Error {
        /// The HTTP status.
        status: u16,
        /// The `error`.
        code: String,
        /// The `Retry-After`, in seconds.
        after: Option<u32>,
    },
    /// Executes, then answers with a status and body of choice.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The body; `None` for the true one.
        body: Option<String>,
    },
    /// Executes; the answer carries more bytes than it needs.
    Padded {
        /// How many more, in MiB.
        mib: u32,
        /// Whether the length is announced; else the body comes in chunks.
        announced: bool,
    },
    /// Executes, then answers 500 `INTERNAL_SERVER_ERROR`.
    InternalError,
    /// Executes, then answers 200 without a body.
    EmptyBody200,
    /// Executes, then answers 200 with something that is no JSON.
    Garbage200,
    /// Executes; the answer has a `\ud800` escape, which is half a character.
    LoneSurrogate,
}

/// Returns every kind's name and what it does, for help texts.
#[must_use]
pub fn fault_kinds() -> &'static [(&'static str, &'static str)] {
    &[
        ("drop-before-executing", "Close the connection; not executed"),
        ("execute-then-drop", "Execute, then close the connection without an answer"),
        ("execute-then-500", "Execute, then answer 500 without a body"),
        ("html-502", "Answer 502 with a page; not executed"),
        ("execute-then-html-502", "Execute, then answer 502 with a page"),
        ("html-403", "Answer 403 with a page; not executed"),
        ("truncated-json", "Execute, send half of the answer, close the connection"),
        ("slow", "Execute, then wait ms=N (1000) before the answer"),
        ("slow-before", "Wait ms=N (1000), then execute"),
        ("held", "Execute, then hold the answer until the client leaves"),
        ("held-before", "Hold the request until the client leaves, then execute"),
        ("redirect", "Answer status=N (302) to location=URL; not executed"),
        ("query-limit", "Answer 503 QUERY_LIMIT_EXCEEDED; not executed"),
        ("overload", "Answer 503 OVERLOAD_LIMIT; not executed"),
        ("operation-time-limit", "Answer 429 OPERATION_TIME_LIMIT; not executed"),
        ("expired-token", "Answer 401 expired_token; not executed"),
        ("method-confirm", "Answer 401 METHOD_CONFIRM_WAITING; not executed"),
        ("error", "Answer status=N (400) and code=WORD (ERROR_CORE), with Retry-After where after=N is given; not executed"),
        ("answer", "Execute, then answer status=N (200), with body=TEXT in place of the true one"),
        ("padded", "Execute; the answer carries mib=N (1) more, in chunks with chunked=1"),
        ("internal-error", "Execute, then answer 500 INTERNAL_SERVER_ERROR"),
        ("empty-body-200", "Execute, then answer 200 without a body"),
        ("garbage-200", "Execute, then answer 200 with something that is no JSON"),
        ("lone-surrogate", "Execute; the answer has a \\ud800 escape"),
    ]
}

impl FaultKind {
    /// Returns the refusal that this fault answers with, if it does.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            FaultKind::QueryLimit => Refusal::v2(503, "QUERY_LIMIT_EXCEEDED", "Too many requests"),
            FaultKind::Overload => Refusal::v2(503, "OVERLOAD_LIMIT", "REST API is blocked due to overload"),
            FaultKind::OperationTimeLimit => Refusal::v2(429, "OPERATION_TIME_LIMIT", "Method is blocked due to operation time limit"),
            FaultKind::ExpiredToken => Refusal::v2(401, "expired_token", "The access token provided has expired."),
            FaultKind::MethodConfirm => Refusal::v2(401, "METHOD_CONFIRM_WAITING", "Waiting for confirmation"),
            FaultKind::Error { status, code, .. } => Refusal::v2(*status, code, "An error that was asked for"),
            FaultKind::DropBeforeExecuting
            | FaultKind::ExecuteThenDrop
            | FaultKind::ExecuteThen500
            | FaultKind::Html502
            | FaultKind::ExecuteThenHtml502
            | FaultKind::Html403
            | FaultKind::TruncatedJson
            | FaultKind::Slow { .. }
            | FaultKind::SlowBefore { .. }
            | FaultKind::Held
            | FaultKind::HeldBefore
            | FaultKind::Redirect { .. }
            | FaultKind::Answer { .. }
            | FaultKind::Padded { .. }
            | FaultKind::InternalError
            | FaultKind::EmptyBody200
            | FaultKind::Garbage200
            | FaultKind::LoneSurrogate => return None,
        })
    }
}

/// Why a text is not a fault.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// There is no kind.
    #[error("the fault `{0}` has no kind; write METHOD:KIND, for example crm.lead.add:execute-then-drop:times=1")]
    Shape(String),
    /// The method cannot be read.
    #[error(transparent)]
    Method(#[from] PatternError),
    /// The kind is not known.
    #[error("no fault is called `{0}`; the kinds are {list}", list = kind_list())]
    Kind(String),
    /// A setting is not one of this kind, or its value cannot be read.
    #[error("the fault setting `{0}` cannot be used here; there are times=N, skip=N and those that the kind names")]
    Setting(String),
}

impl Coded for FaultError {
    fn code(&self) -> Code {
        Code::Usage
    }
}

fn kind_list() -> String {
    fault_kinds().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Fault {
    type Err = FaultError;

    /// Reads `METHOD:KIND[:SETTING=VALUE…]`.
    fn from_str(text: &str) -> Result<Fault, FaultError> {
        let mut parts = text.split(':');
        let (Some(method), Some(kind)) = (parts.next(), parts.next()) else { return Err(FaultError::Shape(text.to_owned())) };
        let mut settings = Settings::parse(parts)?;
        let (times, skip) = (settings.number("times")?, settings.number("skip")?.unwrap_or(0));
        let kind = kind_of(kind, &mut settings)?;
        match settings.0.into_iter().next() {
            Some((name, value)) => Err(FaultError::Setting(format!("{name}={value}"))),
            None => Ok(Fault { method: Pattern::parse(method)?, kind, times, skip }),
        }
    }
}

fn kind_of(name: &str, settings: &mut Settings) -> Result<FaultKind, FaultError> {
    Ok(match name {
        "drop-before-executing" => FaultKind::DropBeforeExecuting,
        "execute-then-drop" => FaultKind::ExecuteThenDrop,
        "execute-then-500" => FaultKind::ExecuteThen500,
        "html-502" => FaultKind::Html502,
        "execute-then-html-502" => FaultKind::ExecuteThenHtml502,
        "html-403" => FaultKind::Html403,
        "truncated-json" => FaultKind::TruncatedJson,
        "slow" => FaultKind::Slow { ms: settings.wait_ms()? },
        "slow-before" => FaultKind::SlowBefore { ms: settings.wait_ms()? },
        "held" => FaultKind::Held,
        "held-before" => FaultKind::HeldBefore,
        "redirect" => FaultKind::Redirect {
            status: settings.status(302)?,
            location: settings.take("location").unwrap_or_else(|| "https://moved.example/".to_owned()),
        },
        "answer" => FaultKind::Answer { status: settings.status(200)?, body: settings.take("body") },
        "padded" => FaultKind::Padded { mib: settings.number("mib")?.unwrap_or(1), announced: settings.number("chunked")? != Some(1) },
        "query-limit" => FaultKind::QueryLimit,
        "overload" => FaultKind::Overload,
        "operation-time-limit" => FaultKind::OperationTimeLimit,
        "expired-token" => FaultKind::ExpiredToken,
        "method-confirm" => FaultKind::MethodConfirm,
        "error" => FaultKind::Error {
            status: settings.status(400)?,
            code: settings.take("code").unwrap_or_else(|| "ERROR_CORE".to_owned()),
            after: settings.number("after")?,
        },
        "internal-error" => FaultKind::InternalError,
        "empty-body-200" => FaultKind::EmptyBody200,
        "garbage-200" => FaultKind::Garbage200,
        "lone-surrogate" => FaultKind::LoneSurrogate,
        other => return Err(FaultError::Kind(other.to_owned())),
    })
}

/// Settings that nobody has taken yet.
struct Settings(Vec<(String, String)>);

impl Settings {
    /// A part without `=` belongs to the value before it, which had a colon
    /// (`location=https://…`).
    fn parse<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Settings, FaultError> {
        let mut settings: Vec<(String, String)> = Vec::new();
        for part in parts {
            match (part.split_once('='), settings.last_mut()) {
                (Some((name, value)), _) if name.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                    settings.push((name.to_owned(), value.to_owned()));
                }
                (_, Some((_, value))) => {
                    value.push(':');
                    value.push_str(part);
                }
                (_, None) => return Err(FaultError::Setting(part.to_owned())),
            }
        }
        Ok(Settings(settings))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let position = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(position).1)
    }

    fn number(&mut self, name: &str) -> Result<Option<u32>, FaultError> {
        self.take(name).map(|value| value.parse().map_err(|_| FaultError::Setting(format!("{name}={value}")))).transpose()
    }

    fn status(&mut self, default: u16) -> Result<u16, FaultError> {
        let Some(status) = self.number("status")? else { return Ok(default) };
        let valid = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
        valid.ok_or_else(|| FaultError::Setting(format!("status={status}")))
    }

    fn wait_ms(&mut self) -> Result<u64, FaultError> {
        Ok(self.number("ms")?.unwrap_or(1000).into())
    }
}

/// The faults that are armed in this process.
#[derive(Default)]
pub(super) struct FaultBook(Mutex<Vec<Fault>>);

impl FaultBook {
    pub(super) fn add(&self, fault: Fault) {
        self.faults().push(fault);
    }

    pub(super) fn clear(&self) {
        self.faults().clear();
    }

    /// Returns the fault that a request meets, and counts it.
    pub(super) fn meet(&self, method: &str) -> Option<FaultKind> {
        self.take(method, |_| true)
    }

    /// Refuses an inner command of a batch that a fault names. Only faults
    /// that answer an error can meet one; `*` means whole requests.
    pub(super) fn refuse_inner(&self, method: &str) -> Result<(), Refusal> {
        let met = self.take(method, |fault| fault.method.as_str() != "*" && fault.kind.refusal().is_some());
        met.and_then(|kind| kind.refusal()).map_or(Ok(()), Err)
    }

    fn take(&self, method: &str, suits: impl Fn(&Fault) -> bool) -> Option<FaultKind> {
        let method = Method::parse(method).ok()?;
        let mut faults = self.faults();
        for fault in faults.iter_mut().filter(|fault| fault.method.matches(&method) && fault.times != Some(0)) {
            if !suits(fault) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            return Some(fault.kind.clone());
        }
        None
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_with_its_settings() {
        let fault: Fault = "crm.lead.add:execute-then-drop:times=1:skip=2".parse().unwrap();
        assert_eq!((fault.kind, fault.times, fault.skip), (FaultKind::ExecuteThenDrop, Some(1), 2));
        let fault: Fault = "*:redirect:location=https://a.example:8443/x?y=1:times=3".parse().unwrap();
        assert_eq!(fault.kind, FaultKind::Redirect { status: 302, location: "https://a.example:8443/x?y=1".to_owned() });
        let fault: Fault = r#"crm.lead.add:answer:status=303:body={"result":1,"error":"X"}:times=1"#.parse().unwrap();
        assert_eq!(fault.kind, FaultKind::Answer { status: 303, body: Some(r#"{"result":1,"error":"X"}"#.to_owned()) });
        let fault: Fault = "oauth.token:error:status=400:code=invalid_grant".parse().unwrap();
        assert_eq!(fault.kind, FaultKind::Error { status: 400, code: "invalid_grant".to_owned(), after: None });
    }

    #[test]
    fn every_kind_of_the_help_is_read() {
        for (name, _) in fault_kinds() {
            assert!(format!("crm.*:{name}").parse::<Fault>().is_ok(), "{name}");
        }
    }

    #[test]
    fn a_wrong_fault_says_what_is_there() {
        assert!("x".parse::<Fault>().unwrap_err().to_string().contains("METHOD:KIND"));
        assert!("x:explode".parse::<Fault>().unwrap_err().to_string().contains("execute-then-drop, "));
        assert!("x:slow:ms=soon".parse::<Fault>().unwrap_err().to_string().contains("ms=soon"));
        assert!("x:html-502:status=3".parse::<Fault>().unwrap_err().to_string().contains("status=3"));
    }

    #[test]
    fn skip_and_times_are_counted() {
        let book = FaultBook::default();
        book.add("crm.*:html-502:times=1:skip=1".parse().unwrap());
        assert_eq!(book.meet("crm.lead.add"), None);
        assert_eq!(book.meet("crm.lead.add"), Some(FaultKind::Html502));
        assert_eq!(book.meet("crm.lead.add"), None);
    }
}
