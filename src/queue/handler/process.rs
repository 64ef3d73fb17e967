//! Starting and ending the processes of handlers.

use super::Conditions;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long a process has between the request to end and its end.
const GRACE: Duration = Duration::from_secs(3);

/// How often it is looked whether a group has ended.
const BLINK: Duration = Duration::from_millis(20);

/// Prepares a command line for `/bin/sh`, in a process group of its own: what
/// it starts is ended with it, and a Ctrl-C at the terminal reaches b24 alone,
/// which lets handlers finish.
pub(super) fn command(line: &str, conditions: &Conditions) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).current_dir(&conditions.folder).env_clear().envs(conditions.env.iter().cloned());
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

/// Returns the group of a process that was not waited for yet.
pub(super) fn group_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// Ends a process and everything in its group, gently first. The group may
/// outlive the process: what it started has the same time to end.
pub(super) async fn end(child: &mut Child, group: Option<Pid>) {
    let Some(group) = group else { return };
    let until = Instant::now() + GRACE;
    if kill_process_group(group, Signal::TERM).is_err() {
        let _ = tokio::time::timeout_at(until, child.wait()).await;
        return;
    }
    let _ = tokio::time::timeout_at(until, child.wait()).await;
    while test_kill_process_group(group).is_ok() && Instant::now() < until {
        tokio::time::sleep(BLINK).await;
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait().await;
}
