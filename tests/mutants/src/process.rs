//! One test program, run until its first failure.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    /// The first test that failed.
    Failed(String),
    /// The program died.
    Died,
    /// It took too long.
    Hung,
}

/// Runs the tests of a program that are named, until one fails. Whatever they
/// started is ended with them. Returns the number of the group of processes.
pub(crate) fn run(folder: &Path, program: &Path, names: &[&str], threads: usize, patience: Duration) -> io::Result<(Ended, u32)> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let scratch = folder.join(format!("scratch/{}", RUNS.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&scratch)?;
    let mut child = Command::new(program)
        .arg("--exact")
        .args(names)
        .arg(format!("--test-threads={threads}"))
        .current_dir(folder.join("tree"))
        .env("TMPDIR", &scratch)
        .env("INSTA_UPDATE", "no")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let group = format!("-{}", child.id());
    let noted = folder.join("running").join(child.id().to_string());
    std::fs::write(&noted, "")?;
    let stdout = child.stdout.take().expect("it is a pipe");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let until = Instant::now() + patience;
    let ended = loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
                    break Ended::Failed(name.to_owned());
                }
                if line.starts_with("test result: ok") {
                    break Ended::Passed;
                }
                // What a test prints past the harness may hide its own line.
                if line.starts_with("test result: FAILED") {
                    break Ended::Failed(if let [only] = names { (*only).to_owned() } else { "?".to_owned() });
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => break Ended::Hung,
            Err(mpsc::RecvTimeoutError::Disconnected) => break Ended::Died,
        }
    };
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.wait();
    let _ = std::fs::remove_file(noted);
    let _ = std::fs::remove_dir_all(&scratch);
    Ok((ended, child.id()))
}

/// Ends what a run that was stopped left running.
pub(crate) fn end_leftovers(folder: &Path) -> io::Result<()> {
    let running = folder.join("running");
    std::fs::create_dir_all(&running)?;
    for entry in std::fs::read_dir(&running)? {
        let entry = entry?;
        let group = entry.file_name().to_string_lossy().into_owned();
        // The number may be somebody else's by now.
        if std::fs::read_link(format!("/proc/{group}/exe")).is_ok_and(|program| program.starts_with(folder)) {
            Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status()?;
        }
        std::fs::remove_file(entry.path())?;
    }
    Ok(())
}
