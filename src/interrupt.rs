//! What Ctrl-C and a termination signal leave behind: one error object that
//! says whether something is under way.
//!
//! The signal ends the process at once. That is safe: a write that was
//! dispatched keeps its `D` line, and the next run finds its outcome unknown.

use crate::error::{Code, Failure, Outcome};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

/// A request that may be on its way.
#[derive(Debug, Clone)]
pub struct UnderWay {
    /// The method.
    pub method: String,
    /// The request id.
    pub request_id: String,
    /// The ledger records, empty for a read.
    pub records: Vec<String>,
}

static UNDER_WAY: Mutex<Option<UnderWay>> = Mutex::new(None);

/// What the first signal asks for instead of the end.
static REQUEST: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

/// Makes the first signal a request to finish; the second one ends the process
/// like any other.
pub fn ask_first(request: impl FnOnce() + Send + 'static) {
    *REQUEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(request));
}

/// Takes the request back: nobody is there any more to finish, and the next
/// signal ends the process.
pub fn ask_nobody() {
    *REQUEST.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Says that a request is about to leave.
pub fn departed(under_way: UnderWay) {
    *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(under_way);
}

/// Says that the request has its outcome.
pub fn landed() {
    *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Watches for the two signals on a thread of its own, from the first call on.
/// Commands that neither send nor serve do not need it and do not pay for it.
/// Where it cannot be set up, a signal ends the process without a word.
pub fn watch() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let _ = try_watch();
    });
}

fn try_watch() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let request = REQUEST.lock().unwrap_or_else(PoisonError::into_inner).take();
            match request {
                Some(request) => request(),
                None => end(if signal == SIGINT { Code::Interrupted } else { Code::Terminated }),
            }
        }
    })?;
    Ok(())
}

#[expect(clippy::exit, reason = "a signal ends the process wherever it is")]
fn end(code: Code) {
    let failure = with_under_way(Failure::new(code, "stopped by a signal"));
    let _ = writeln!(io::stderr(), "{}", crate::output::error_object(&failure));
    std::process::exit(i32::from(code.exit().status()));
}

/// Adds to a failure what is under way.
#[must_use]
pub fn with_under_way(failure: Failure) -> Failure {
    let Some(under_way) = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return failure };
    let writes = !under_way.records.is_empty();
    let failure = failure.with("method", under_way.method).with("request_id", under_way.request_id).sent(if writes {
        Outcome::Unknown
    } else {
        Outcome::NotApplied
    });
    if writes {
        failure
            .with("ledger", under_way.records.first().cloned().unwrap_or_default())
            .with("retry", json!({"safe": false}))
            .hint("The write may have happened; b24 ledger list shows it")
    } else {
        failure
    }
}
