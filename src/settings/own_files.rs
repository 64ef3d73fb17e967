//! Files of ours, which are never sent as data: configuration, state, secrets.
//!
//! A name can lead to them in many ways: by links of both kinds, by `..`, by
//! `/proc/self`, by another mount. So the file that was opened is compared: by
//! where its name leads in the end, and by device and number. What `/proc` and
//! its like show of this machine is treated as ours, too: one of its files
//! holds this process's environment.

use crate::env::Env;
use crate::store::given::Given;
use crate::store::home::{default_state, fixed_home};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Variables that name a file with a secret.
const SECRET_FILES: &[&str] =
    &["B24_WEBHOOK_URL_FILE", "B24_WEBHOOK_CODE_FILE", "B24_ACCESS_TOKEN_FILE", "B24_REFRESH_TOKEN_FILE", "B24_CLIENT_SECRET_FILE"];

/// Where secrets lie in the state folder; small folders and files that are
/// always compared by number.
const SECRETS_IN_STATE: &[&str] = &["tokens", "emulator"];

/// The files of a built-in portal's data, wherever the data lies.
const PORTAL_FILES: &[&str] = &["webhook-url", "oauth.json", PORTAL_JOURNAL];

/// What shows that a folder holds a built-in portal's data.
const PORTAL_JOURNAL: &str = "journal.jsonl";

/// Folders and files that are never sent.
#[derive(Debug, Default)]
pub struct OwnFiles {
    /// Folders with everything in them.
    folders: Vec<PathBuf>,
    /// Folders whose files are compared by number.
    small: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl OwnFiles {
    /// Names the configuration folders and the state folder.
    pub(super) fn of<'a>(config: impl Iterator<Item = &'a Path>, state: &Path) -> OwnFiles {
        let mut own = OwnFiles::default();
        for folder in config {
            own.small.push(folder.to_owned());
            own.folders.push(folder.to_owned());
        }
        own.add_state(state);
        // What an earlier run left there is ours, wherever this one keeps its own.
        fixed_home().map(default_state).iter().for_each(|usual| own.add_state(usual));
        own
    }

    fn add_state(&mut self, state: &Path) {
        self.small.push(state.to_owned());
        self.small.extend(SECRETS_IN_STATE.iter().map(|name| state.join(name)));
        self.folders.push(state.to_owned());
    }

    /// Adds a folder that was named.
    pub(super) fn add_folder(&mut self, folder: &Path) {
        self.folders.push(folder.to_owned());
    }

    /// Adds the files that variables name, and the one that they come from.
    pub(super) fn add_variables(&mut self, env: &Env, cwd: &Path, env_file: Option<&Path>) {
        let named = SECRET_FILES.iter().filter_map(|name| env.get(name));
        self.files.extend(named.map(|path| cwd.join(path)));
        self.files.extend(env_file.map(|path| cwd.join(path)));
    }

    /// Returns whether a file that was read is one of ours.
    #[must_use]
    pub fn holds(&self, given: &Given) -> bool {
        if given.is_of_the_system {
            return true;
        }
        // What cannot be followed cannot be told apart from ours.
        let Ok(real) = std::fs::canonicalize(&given.path) else { return true };
        let is_below = |folder: &PathBuf| std::fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
        let number = (given.metadata.dev(), given.metadata.ino());
        let is_it = |path: &Path| std::fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == number);
        self.folders.iter().any(is_below)
            || is_of_a_portal(&real)
            || self.files.iter().any(|file| is_it(file))
            || self.small.iter().any(|folder| any_file(folder, 0, &is_it))
            // Only a file with a second name can lie in ours and elsewhere.
            || (given.metadata.nlink() > 1 && self.folders.iter().any(|folder| any_file(folder, DEEPEST, &is_it)))
    }
}

/// Deeper than any folder of ours.
const DEEPEST: usize = 8;

fn any_file(folder: &Path, depth: usize, is_it: &impl Fn(&Path) -> bool) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => depth > 0 && any_file(&entry.path(), depth - 1, is_it),
        Ok(_) | Err(_) => is_it(&entry.path()),
    })
}

fn is_of_a_portal(path: &Path) -> bool {
    let is_named_so = path.file_name().is_some_and(|name| PORTAL_FILES.iter().any(|known| name == *known));
    is_named_so && path.with_file_name(PORTAL_JOURNAL).exists()
}
