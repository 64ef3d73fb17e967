//! The entry points of everything that b24 reads from outside, each with what
//! must hold for any bytes: a panic is a failure.
//!
//! They are run by AFL++ (`tests/fuzz/run`) and, over the corpora and their
//! mutations, by the ordinary tests (`tests/it/fuzz_entries.rs`). An input is
//! as close as possible to what stands in the file or on the line; where the
//! reader wants a checksum, the entry point puts the right one in, because no
//! chance would find it.

mod call;
mod pace;
mod page;
mod portal;
mod queue;
mod state;
mod text;

use b24::env::Env;
use b24::host::{Clock, Host, Random};
use chrono::{DateTime, Utc};
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// It was understood, at least in part.
    Taken,
    /// It was refused.
    Refused,
}

impl Read {
    fn of(is_taken: bool) -> Read {
        if is_taken { Read::Taken } else { Read::Refused }
    }
}

/// An entry point.
pub(crate) struct Entry {
    /// Its name; its corpus has the same.
    pub(crate) name: &'static str,
    /// Reads any bytes, and checks what must hold.
    pub(crate) run: fn(&[u8]) -> Read,
}

/// All entry points, those first that read what a portal or an agent sends.
pub(crate) const ENTRIES: &[Entry] = &[
    Entry { name: "params", run: call::params },
    Entry { name: "batch", run: call::batch },
    Entry { name: "query", run: call::query },
    Entry { name: "answer", run: portal::answer },
    Entry { name: "event", run: portal::event },
    Entry { name: "page", run: page::document },
    Entry { name: "names", run: text::names },
    Entry { name: "address", run: text::address },
    Entry { name: "config", run: text::config },
    Entry { name: "env", run: text::env_file },
    Entry { name: "plan", run: state::plan },
    Entry { name: "ledger", run: state::ledger },
    Entry { name: "audit", run: state::audit },
    Entry { name: "tokens", run: state::tokens },
    Entry { name: "inbox", run: queue::inbox },
    Entry { name: "letters", run: queue::letters },
    Entry { name: "pace", run: pace::pace },
];

/// A clock that stands.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn boot_ns(&self) -> u64 {
        3_600_000_000_000
    }

    fn boot_id(&self) -> String {
        "boot".to_owned()
    }

    fn sleep(&self, _: Duration) {}
}

/// Chance that is the same in every run: an input that fails once always does.
#[derive(Default)]
struct Counted(AtomicU64);

impl Random for Counted {
    fn fill(&self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(8) {
            let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            part.copy_from_slice(&count.to_be_bytes()[..part.len()]);
        }
    }
}

thread_local! {
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// Returns an empty folder.
fn folder() -> PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let base = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for files"));
        let path = base.path().join("run");
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            _ => std::fs::create_dir(&path).expect("a folder for files"),
        }
        path
    })
}

/// Returns a world that stands still.
fn host(cwd: PathBuf) -> Host {
    Host {
        clock: Arc::new(Stopped),
        random: Arc::new(Counted::default()),
        env: Env::default(),
        cwd,
        stdin: Box::new(io::empty()),
        out: Box::new(io::sink()),
        err: Box::new(io::sink()),
        stdin_is_terminal: false,
        out_is_terminal: false,
        err_is_terminal: false,
    }
}

/// Splits an input at its first line end.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// Returns the lines of a file as a writer of b24 would have written them:
/// every line that is whole gets what `sealed` puts around it.
fn relined(bytes: &[u8], mut sealed: impl FnMut(&str) -> Vec<u8>) -> Vec<u8> {
    let mut file = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n").map(std::str::from_utf8) {
            Some(Ok(text)) if text.trim_start_matches(' ').starts_with('{') => file.extend(sealed(text)),
            _ => file.extend_from_slice(line),
        }
    }
    file
}
