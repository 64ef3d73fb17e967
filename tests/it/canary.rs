//! Looks for secrets where none may be: in what a run printed and in every
//! file below the home folder, in every usual spelling and also in part.

use crate::world::{Outcome, World};
use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// So many characters in a row are no chance.
const PART: usize = 10;

/// The secrets of a world.
pub(crate) struct Canaries(AhoCorasick);

impl Canaries {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Canaries {
        let needles: Vec<String> = secrets.into_iter().flat_map(needles).collect();
        Canaries(AhoCorasick::new(needles).unwrap())
    }

    /// Every secret that the portal of a world gives its users.
    pub(crate) fn of(world: &World) -> Canaries {
        let access = world.emulator.access();
        let codes = access.webhooks.iter().map(|webhook| webhook.code.expose());
        Canaries::new(codes.chain([access.client_secret.expose(), access.access_token.expose(), access.refresh_token.expose()]))
    }

    /// Runs a command with the most talkative settings, and fails when a
    /// secret shows up.
    #[track_caller]
    pub(crate) fn run(&self, world: &World, name: &str, command: &mut Command) -> Outcome {
        let outcome = Outcome::of(command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full"));
        self.check(name, "standard output", outcome.stdout.as_bytes());
        self.check(name, "standard error", outcome.stderr.as_bytes());
        for path in files(world.home.path()) {
            self.check(name, &path.display().to_string(), path.display().to_string().as_bytes());
            if !is_for_secrets(world, &path) {
                self.check(name, &path.display().to_string(), &std::fs::read(&path).unwrap_or_default());
            }
        }
        outcome
    }

    #[track_caller]
    fn check(&self, name: &str, place: &str, content: &[u8]) {
        if let Some(found) = self.0.find(content) {
            let needle = String::from_utf8_lossy(&content[found.range()]);
            panic!("{name}: {needle} stands in {place}:\n{}", String::from_utf8_lossy(content));
        }
    }
}

/// Returns the parts of each spelling of a secret.
fn needles(secret: &str) -> Vec<String> {
    assert!(secret.len() >= PART && secret.is_ascii());
    let quoted = serde_json::to_string(secret).unwrap();
    let spellings = [
        secret.to_owned(),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        BASE64_STANDARD.encode(secret),
        BASE64_URL_SAFE_NO_PAD.encode(secret),
        quoted.trim_matches('"').to_owned(),
    ];
    let parts = |text: &str| (0..=text.len() - PART).map(|start| text[start..start + PART].to_owned()).collect::<Vec<_>>();
    spellings.iter().flat_map(|text| parts(text)).collect()
}

/// Files that may hold secrets: the portal's own, the token store, and what
/// the test itself wrote for b24 to read.
fn is_for_secrets(world: &World, path: &Path) -> bool {
    let home = world.home.path();
    [home.join("portal"), home.join("state/tokens"), home.join("state/emulator"), home.join(".config")]
        .iter()
        .any(|folder| path.starts_with(folder))
}

/// Returns every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .flat_map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

/// Fails unless every file of a folder is for its owner alone.
#[track_caller]
pub(crate) fn assert_private(folder: &Path) -> usize {
    let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut count = 0;
    assert_eq!(mode(folder), 0o700, "{}", folder.display());
    for entry in std::fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        if entry.file_type().unwrap().is_dir() {
            count += assert_private(&entry.path());
        } else {
            assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
            count += 1;
        }
    }
    count
}
