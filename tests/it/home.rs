//! The home of the password database, which no variable moves: a command is
//! run in a user and mount namespace that has a password database of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What stands before the password database and the command itself.
const BEFORE: [&str; 5] = ["-rm", "sh", "-c", "mount --bind \"$1\" /etc/passwd && shift && exec \"$@\"", "sh"];

/// Returns a command that runs another one as a user whose home, in the
/// password database, is `home`. Everything else stays: the process, the
/// environment, the current folder.
pub(crate) fn living_in(home: &Path, command: &Command) -> Command {
    let database = database(home);
    let mut wrapped = Command::new("unshare");
    let mut inner: Vec<&OsStr> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    if command.get_program() == "unshare" {
        // It lives in another home already, and the innermost one would count.
        inner.drain(..=BEFORE.len() + 1);
    }
    wrapped.args(BEFORE).arg(database).args(inner).env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// Writes the password database of a user; once for each home, because a file
/// that is mounted must not be replaced.
fn database(home: &Path) -> PathBuf {
    let path = home.with_extension("passwd");
    if !path.exists() {
        std::fs::write(&path, format!("root:x:0:0:root:{}:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", home.display())).unwrap();
    }
    path
}

/// Returns whether such namespaces work here; says so once if they do not.
pub(crate) fn can_live_elsewhere() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let works = living_in(&folder.path().join("h"), &Command::new("true")).status().is_ok_and(|status| status.success());
        if !works {
            println!("skipped: no user namespaces here, and without them no password database of our own");
        }
        works
    })
}

/// The home of whoever runs the tests, if there is a configuration in it: it
/// would govern the runs of the tests, too.
pub(crate) fn testers_configuration() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || b24::store::home::fixed_home().map(b24::store::home::default_config).filter(|folder| folder.exists());
    FOUND.get_or_init(find).clone()
}
