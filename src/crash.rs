//! Points at which tests kill the process or make an operation fail.
//!
//! Without the feature `crash-points` a point compiles to nothing: there is no
//! switch in the shipped program. With it, `B24_CRASH_POINT=name:3` kills the
//! process at the third passing of the point, as `kill -9` would,
//! `B24_PANIC_POINT=name` makes b24 panic there with a text that quotes
//! secrets, and `B24_FAULT_POINT=name:1=ENOSPC` makes the operation at the
//! point fail. `B24_POINTS_TRACE=FILE` lists the passings of both kinds, and
//! `B24_DISK_TRACE=FILE` what happens to files between them (`recorder.rs`).

#[cfg(feature = "crash-points")]
#[expect(clippy::disallowed_methods, reason = "the switch of the tests is an environment variable")]
mod recorder;

use std::fs::File;
use std::io;
use std::path::Path;

/// A change of what is on disk. Whoever makes one describes it; nobody looks at
/// it but the tests.
pub enum Change<'a> {
    /// A file is opened, and made when it is not there.
    Open(&'a Path),
    /// Bytes are written.
    Write {
        /// The file.
        file: &'a File,
        /// Where in it.
        at: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A file gets another length.
    Cut {
        /// The file.
        file: &'a File,
        /// Its length.
        length: u64,
    },
    /// The content of a file is synchronised.
    SyncData(&'a File),
    /// A file is synchronised.
    SyncAll(&'a File),
    /// The names in a folder are synchronised.
    SyncFolder(&'a Path),
    /// A file gets a further name.
    Link {
        /// One of its names.
        file: &'a Path,
        /// The new one.
        name: &'a Path,
    },
    /// A file gets another name.
    Rename {
        /// The old one.
        from: &'a Path,
        /// The new one.
        to: &'a Path,
    },
    /// A name goes.
    Remove(&'a Path),
    /// A folder is made, and those above it.
    Folders(&'a Path),
}

/// Where a test wants the changes of this thread to be written down, and which
/// syncs are left out, instead of what the environment says.
#[cfg(feature = "crash-points")]
pub fn record_here(trace: Option<(std::path::PathBuf, Option<String>)>) {
    recorder::record_here(trace);
}

/// Makes a change; tests write it down.
#[inline]
pub fn record<T>(change: &Change<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(feature = "crash-points")]
    return recorder::change(change, make);
    #[cfg(not(feature = "crash-points"))]
    {
        let _ = change;
        make()
    }
}

/// Makes a sync; tests write it down, or leave it out to see what it is for.
#[inline]
pub fn record_sync(change: &Change<'_>, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    #[cfg(feature = "crash-points")]
    if recorder::is_left_out(change) {
        return Ok(());
    }
    record(change, make)
}

/// Marks a point between two operations that a crash may fall into.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(feature = "crash-points")]
    enabled::point(name);
    let _ = name;
}

/// Marks an operation on a file that may fail.
#[inline]
pub fn fault(name: &'static str) -> io::Result<()> {
    #[cfg(feature = "crash-points")]
    enabled::fault(name)?;
    let _ = name;
    Ok(())
}

#[cfg(feature = "crash-points")]
#[expect(clippy::disallowed_methods, reason = "the switch of the tests is an environment variable")]
mod enabled {
    use std::collections::HashMap;
    use std::io;
    use std::sync::{Mutex, PoisonError};

    static PASSED: Mutex<Option<HashMap<&'static str, u32>>> = Mutex::new(None);

    fn passed(name: &'static str) -> u32 {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.get_or_insert_with(HashMap::new).entry(name).or_insert(0);
        *count += 1;
        *count
    }

    pub(super) fn point(name: &'static str) {
        trace("point", name);
        super::recorder::point(name);
        let panics = std::env::var("B24_PANIC_POINT").as_deref() == Ok(name);
        assert!(!panics, "at {name} with {:?}", std::env::vars_os().collect::<Vec<_>>());
        let Ok(wanted) = std::env::var("B24_CRASH_POINT") else { return };
        if hit(&wanted, name) {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }

    pub(super) fn fault(name: &'static str) -> io::Result<()> {
        trace("fault", name);
        let Ok(wanted) = std::env::var("B24_FAULT_POINT") else { return Ok(()) };
        let Some((place, errno)) = wanted.split_once('=') else { return Ok(()) };
        if !hit(place, name) {
            return Ok(());
        }
        Err(io::Error::from(match errno {
            "ENOSPC" => rustix::io::Errno::NOSPC,
            "EACCES" => rustix::io::Errno::ACCESS,
            "EROFS" => rustix::io::Errno::ROFS,
            _ => rustix::io::Errno::IO,
        }))
    }

    /// Returns whether this passing of `name` is the one that `wanted` names.
    fn hit(wanted: &str, name: &'static str) -> bool {
        let (wanted, count) = wanted.split_once(':').unwrap_or((wanted, "1"));
        wanted == name && count.parse() == Ok(passed(name))
    }

    /// Notes a passing, for tests that go through all of them.
    fn trace(kind: &str, name: &str) {
        use std::io::Write;
        let Some(path) = std::env::var_os("B24_POINTS_TRACE") else { return };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // In one write: threads pass points side by side.
        let line = format!("{kind} {name}\n");
        if file.and_then(|mut file| file.write_all(line.as_bytes())).is_err() {
            std::process::abort();
        }
    }
}
