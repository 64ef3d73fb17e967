//! `--forward-to`: events go to a handler over HTTP, as a portal delivers
//! them.
//!
//! 2xx means done. A handler that is not there or asks for patience (429, 503)
//! costs no attempt; any other answer, and none, is a failure.

use super::{Conditions, Ending, Report, Reporter, Task};
use crate::query_string::form_pairs;
use crate::secret::Secret;
use crate::wire::deliver::{DeliverError, Deliverer};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

/// Where events go.
#[derive(Debug)]
pub struct Forward {
    /// The handler.
    pub deliverer: Deliverer,
    /// The application token, for handlers that check it.
    pub application_token: Option<Secret>,
}

/// Delivers each task until there are no more.
pub(super) async fn run(forward: Arc<Forward>, conditions: Conditions, mut tasks: UnboundedReceiver<Task>, report: Reporter) {
    let mut running: JoinSet<(u64, Ending)> = JoinSet::new();
    let timeout = conditions.timeout;
    loop {
        tokio::select! {
            task = tasks.recv() => match task {
                Some(task) => {
                    let forward = forward.clone();
                    running.spawn(async move { (task.seq, deliver(&forward, &task, timeout).await) });
                }
                None => break,
            },
            Some(Ok((seq, ending))) = running.join_next() => report(Report::Ended(seq, ending)),
        }
    }
    while let Some(Ok((seq, ending))) = running.join_next().await {
        report(Report::Ended(seq, ending));
    }
}

async fn deliver(forward: &Forward, task: &Task, timeout: std::time::Duration) -> Ending {
    let line: Value = serde_json::from_str(&task.line).unwrap_or_default();
    let pairs = form_pairs(&line["payload"]);
    let attempt = line["attempt"].to_string();
    let headers = [("X-B24-Event-Id", task.id.as_str()), ("X-B24-Attempt", attempt.as_str())];
    let posted = forward.deliverer.post_form(&pairs, forward.application_token.as_ref(), &headers);
    match tokio::time::timeout(timeout, posted).await {
        Ok(Ok(200..=299)) => Ending::Done,
        Ok(Ok(429 | 503) | Err(DeliverError::NotReached(_) | DeliverError::Setup(_))) => Ending::Later,
        Ok(Ok(status)) => Ending::Failed("handler_failed", format!("the handler answered {status}")),
        Ok(Err(DeliverError::NoAnswer(why))) => Ending::Failed("no_answer", format!("the handler gave no answer: {why}")),
        Err(_) => Ending::Failed("timeout", format!("the handler did not answer within {} s", timeout.as_secs_f64())),
    }
}
