//! What this process's server saw.

use super::envelope::Api;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Older requests are forgotten.
const KEPT: usize = 100_000;

/// One HTTP request.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    /// When it arrived, by the portal's clock.
    pub at: DateTime<Utc>,
    /// When it arrived, in nanoseconds since the machine started.
    pub boot_ns: u64,
    /// `GET`, `POST`, …
    pub verb: String,
    /// The path; `***` stands for the webhook's code.
    pub path: String,
    /// The REST method, folded; `oauth.token` for the token endpoint.
    pub method: String,
    /// The generation asked for; `None` outside `/rest/`.
    pub api: Option<Api>,
    /// `X-Request-ID`.
    pub request_id: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Query and body without the credential; `null` when they cannot be read
    /// and for the token endpoint.
    pub params: Value,
    /// What became of it.
    pub status: SeenStatus,
    /// Whether the method ran and was not refused.
    pub executed: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenStatus {
    /// It is being worked on.
    Pending,
    /// It got a response with this HTTP status.
    Answered(u16),
    /// The connection was closed without a response.
    Dropped,
}

/// The requests, numbered from 0.
#[derive(Default)]
pub(super) struct SeenLog(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    forgotten: usize,
    requests: VecDeque<SeenRequest>,
}

impl SeenLog {
    /// Adds a request and returns its number.
    pub(super) fn arrive(&self, request: SeenRequest) -> usize {
        let mut kept = self.kept();
        kept.requests.push_back(request);
        if kept.requests.len() > KEPT {
            kept.requests.pop_front();
            kept.forgotten += 1;
        }
        kept.forgotten + kept.requests.len() - 1
    }

    /// Notes that the method of a request ran.
    pub(super) fn executed(&self, number: usize) {
        self.change(number, |request| request.executed = true);
    }

    /// Notes how a request ended.
    pub(super) fn end(&self, number: usize, status: SeenStatus) {
        self.change(number, |request| request.status = status);
    }

    /// Returns all of them.
    pub(super) fn all(&self) -> Vec<SeenRequest> {
        self.kept().requests.iter().cloned().collect()
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut SeenRequest)) {
        let mut kept = self.kept();
        let index = number.checked_sub(kept.forgotten);
        if let Some(request) = index.and_then(|index| kept.requests.get_mut(index)) {
            change(request);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
