//! `--exec`: one process for each event.
//!
//! The process reads one JSON object on standard input. Exit status 0 means
//! done, 75 (`EX_TEMPFAIL` of sysexits.h) try later, anything else failed.

use super::process::{command, end, group_of};
use super::voice::{Counts, pass_on};
use super::{Conditions, Ending, Health, NOT_RUN, Report, Reporter, Task};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, JoinSet};

/// How long is waited for what a process that ended has said.
const REST: Duration = Duration::from_millis(200);

/// The exit status that asks for another attempt later.
const TRY_LATER: i32 = 75;

/// Runs a process for each task until there are no more.
pub(super) async fn run(line: String, conditions: Conditions, mut tasks: UnboundedReceiver<Task>, report: Reporter) {
    let shared = Arc::new((line, conditions));
    let mut running: JoinSet<(u64, Ended)> = JoinSet::new();
    let mut health = Health::default();
    loop {
        tokio::select! {
            task = tasks.recv() => match task {
                Some(task) => {
                    let shared = shared.clone();
                    running.spawn(async move { (task.seq, handle(&shared.0, &shared.1, task.line).await) });
                }
                None => break,
            },
            Some(Ok((seq, ended))) = running.join_next() => conclude(seq, ended, &mut health, &report),
        }
    }
    while let Some(Ok((seq, ended))) = running.join_next().await {
        conclude(seq, ended, &mut health, &report);
    }
}

/// How a process ended.
struct Ended {
    ending: Ending,
    could_not_run: bool,
}

fn conclude(seq: u64, ended: Ended, health: &mut Health, report: &Reporter) {
    if !ended.could_not_run {
        health.works();
    }
    report(Report::Ended(
        seq,
        match ended.ending {
            Ending::Failed(_, text) if !health.has_worked() => Ending::NotRun(text),
            ending => ending,
        },
    ));
}

async fn handle(line: &str, conditions: &Conditions, input: String) -> Ended {
    let mut child = match command(line, conditions).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Ended { ending: Ending::Failed("not_started", error.to_string()), could_not_run: true },
    };
    let feeding = child.stdin.take().map(|mut stdin| {
        tokio::spawn(async move {
            // A handler that does not read its input may still succeed.
            let _ = stdin.write_all(format!("{input}\n").as_bytes()).await;
        })
    });
    let voice = conditions.voice(Counts::ForGood);
    // Standard output of b24 is data: what the handler prints is talk.
    let printing = child.stdout.take().map(|stdout| tokio::spawn(pass_on(stdout, voice.clone())));
    let talking = child.stderr.take().map(|stderr| tokio::spawn(pass_on(stderr, voice)));
    let waited = tokio::time::timeout(conditions.timeout, child.wait()).await;
    if waited.is_err() {
        let group = group_of(&child);
        end(&mut child, group).await;
    }
    if let Some(feeding) = feeding {
        feeding.abort();
    }
    let (said, _) = tokio::join!(last_words(talking), last_words(printing));
    match waited {
        Ok(Ok(status)) => judge(status, &said),
        Ok(Err(error)) => Ended { ending: Ending::Failed("not_started", error.to_string()), could_not_run: false },
        Err(_) => Ended { ending: timed_out(conditions), could_not_run: false },
    }
}

/// Returns what a process said last. One that it left behind may hold the
/// stream open; what that says is passed on, too.
async fn last_words(talking: Option<JoinHandle<String>>) -> String {
    match talking {
        Some(talking) => tokio::time::timeout(REST, talking).await.ok().and_then(Result::ok).unwrap_or_default(),
        None => String::new(),
    }
}

/// Returns the failure of an event that took too long.
pub(super) fn timed_out(conditions: &Conditions) -> Ending {
    Ending::Failed("timeout", format!("the handler did not finish within {} s", conditions.timeout.as_secs_f64()))
}

fn judge(status: ExitStatus, said: &str) -> Ended {
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let ending = match (status.code(), status.signal()) {
        (Some(0), _) => Ending::Done,
        (Some(TRY_LATER), _) => Ending::Later,
        (Some(code), _) => Ending::Failed("handler_failed", format!("exit status {code}{said}")),
        (None, signal) => Ending::Failed("handler_crashed", format!("killed by signal {}{said}", signal.unwrap_or(0))),
    };
    Ended { ending, could_not_run: status.code().is_some_and(|code| NOT_RUN.contains(&code)) }
}
