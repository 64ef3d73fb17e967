//! OAuth pairs: refreshed by one process at a time, stored before use.
//!
//! A refresh token works once. The environment or `credentials.toml` gives the
//! first one; its successors live here, in `tokens/<name>.json`, where the name
//! comes from the OAuth server, the application and the first token. The file
//! keeps the hashes of all earlier refresh tokens of its line, so that a
//! process that was started with any token of the line finds the newest pair. A pair that
//! is unknown here starts a line of its own.
//!
//! The lock file is never deleted. While it is held, a refresh may be under
//! way; a waiter re-reads the pair and uses it.

use super::locked::{self, Locked, Mode, StoreError};
use super::{create_folder, temporary_name};
use crate::host::Random;
use crate::json;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What the token file holds; mode 0600.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    v: u8,
    oauth: String,
    client_id: String,
    access_token: String,
    refresh_token: Option<String>,
    user_id: Option<String>,
    member_id: Option<String>,
    /// Hashes of the refresh tokens that came before.
    ancestors: Vec<String>,
}

/// A pair of tokens and whose they are.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The access token.
    pub access: Secret,
    /// The refresh token.
    pub refresh: Option<Secret>,
    /// The user, once known.
    pub user: Option<String>,
    /// The portal's member id, once known.
    pub member: Option<String>,
}

/// The line of pairs that began with one given pair.
#[derive(Debug, Clone)]
pub struct TokenLine {
    folder: PathBuf,
    name: String,
    oauth: String,
    client_id: String,
    first: Pair,
}

impl TokenLine {
    /// Finds the line that a given pair belongs to.
    pub fn open(folder: PathBuf, oauth: &str, client_id: &str, first: Pair) -> Result<TokenLine, StoreError> {
        let seed = hash(first.refresh.as_ref().unwrap_or(&first.access));
        let own = json::sha256_hex(format!("b24-tokens-v1\0{oauth}\0{client_id}\0{seed}"));
        let mut line = TokenLine { folder, name: own, oauth: oauth.to_owned(), client_id: client_id.to_owned(), first };
        if line.row()?.is_none()
            && let Some(name) = line.find_descendant(&seed)
        {
            line.name = name;
        }
        Ok(line)
    }

    /// Returns the newest pair.
    pub fn current(&self) -> Result<Pair, StoreError> {
        Ok(self.row()?.map_or_else(|| self.first.clone(), Row::into_pair))
    }

    /// Takes the line's lock, under which alone a refresh may happen.
    pub fn lock(&self, wait: Duration) -> Result<TokenLock<'_>, StoreError> {
        create_folder(&self.folder)?;
        let file = Locked::open(&self.folder.join(format!("{}.lock", self.name)), Mode::Exclusive, wait)?;
        Ok(TokenLock { line: self, _file: file })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    fn row(&self) -> Result<Option<Row>, StoreError> {
        let path = self.path();
        match locked::read_if_exists(&path)? {
            None => Ok(None),
            Some(bytes) => match serde_json::from_slice(&bytes) {
                Ok(row) => Ok(Some(row)),
                // The parser's message could quote a token.
                Err(_) => Err(StoreError::unusable(&path, "does not hold a token pair")),
            },
        }
    }

    fn find_descendant(&self, seed: &str) -> Option<String> {
        let entries = std::fs::read_dir(&self.folder).ok()?;
        let mut names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
        names.find(|name| {
            let other = TokenLine { name: name.clone(), ..self.clone() };
            let row = other.row().ok().flatten();
            row.is_some_and(|row| row.oauth == self.oauth && row.client_id == self.client_id && row.has(seed))
        })
    }
}

impl Row {
    /// Returns whether a refresh token is one of this line, the newest
    /// included: who starts with it must not start a second line, because two
    /// lines would spend one token twice.
    fn has(&self, seed: &str) -> bool {
        let is_newest = self.refresh_token.as_ref().is_some_and(|token| hash(&Secret::new(token.clone())) == seed);
        is_newest || self.ancestors.iter().any(|hash| hash == seed)
    }

    fn into_pair(self) -> Pair {
        Pair {
            access: Secret::new(self.access_token),
            refresh: self.refresh_token.map(Secret::new),
            user: self.user_id,
            member: self.member_id,
        }
    }
}

/// The right to refresh a pair.
#[must_use]
pub struct TokenLock<'a> {
    line: &'a TokenLine,
    _file: Locked,
}

impl TokenLock<'_> {
    /// Returns the newest pair, as it is under the lock.
    pub fn current(&self) -> Result<Pair, StoreError> {
        self.line.current()
    }

    /// Stores a pair durably; only then may it be used.
    pub fn store(&self, pair: &Pair, random: &dyn Random) -> Result<(), StoreError> {
        let before = self.line.current()?;
        let mut ancestors = self.line.row()?.map(|row| row.ancestors).unwrap_or_default();
        if let Some(refresh) = before.refresh.as_ref() {
            let hash = hash(refresh);
            if !ancestors.contains(&hash) {
                ancestors.push(hash);
            }
        }
        let row = Row {
            v: 1,
            oauth: self.line.oauth.clone(),
            client_id: self.line.client_id.clone(),
            access_token: pair.access.expose().to_owned(),
            refresh_token: pair.refresh.as_ref().map(|token| token.expose().to_owned()),
            user_id: pair.user.clone().or(before.user),
            member_id: pair.member.clone().or(before.member),
            ancestors,
        };
        let text = serde_json::to_vec(&row).unwrap_or_default();
        crate::crash::point("tokens.before_store");
        locked::replace_durable(&self.line.path(), &text, &temporary_name(random))?;
        crate::crash::point("tokens.after_store");
        Ok(())
    }
}

fn hash(token: &Secret) -> String {
    json::sha256_hex(format!("b24-token-v1\0{}", token.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SystemRandom;

    fn pair(access: &str, refresh: &str) -> Pair {
        Pair { access: Secret::new(access.to_owned()), refresh: Some(Secret::new(refresh.to_owned())), user: None, member: None }
    }

    #[test]
    fn any_token_of_a_line_finds_the_newest_pair() {
        let folder = tempfile::tempdir().unwrap();
        let open = |first| TokenLine::open(folder.path().join("tokens"), "https://o.example", "app", first).unwrap();
        let line = open(pair("a1", "r1"));
        assert_eq!(line.current().unwrap().access.expose(), "a1");
        for generation in ["2", "3"] {
            let lock = line.lock(Duration::from_secs(5)).unwrap();
            lock.store(&pair(&format!("a{generation}"), &format!("r{generation}")), &SystemRandom).unwrap();
        }
        for seed in ["1", "2", "3"] {
            let found = open(pair(&format!("a{seed}"), &format!("r{seed}")));
            assert_eq!(found.current().unwrap().access.expose(), "a3", "{seed}");
            assert_eq!(found.path(), line.path(), "{seed}");
        }
        assert_eq!(open(pair("x", "other")).current().unwrap().access.expose(), "x");
    }
}
