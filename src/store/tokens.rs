//! OAuth pairs: refreshed by one process at a time, stored before use.
//!
//! A refresh token works once. The environment or `credentials.toml` gives the
//! first one; its successors live here, in `tokens/<name>.json`, where the name
//! comes from the OAuth server, the application and the first token. The file
//! keeps the hashes of all earlier refresh tokens of its line, so that a
//! process that was started with any token of the line finds the newest pair. A pair that
//! is unknown here starts a line of its own.
//!
//! A pair that was lost must not be replaced by an older one in silence: its
//! refresh token was spent. So each stored pair has a number and a check, and a
//! [`Witness`] knows the number of the newest one and the tokens that came
//! before it. An older copy, a changed file and a file that is gone are errors
//! that ask for a new login; a new pair starts a line of its own.
//!
//! The lock file is never deleted. While it is held, a refresh may be under
//! way; a waiter re-reads the pair and uses it.

use super::locked::{self, Locked, Mode, StoreError};
use super::witness::Witness;
use super::{create_folder, temporary_name};
use crate::host::Random;
use crate::json;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many tokens that were used up a witness knows, and how much of each
/// hash.
const KNOWN_ANCESTORS: usize = 200;
const ANCESTOR: usize = 16;

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
    /// How often the line was stored; 0 from versions that did not count.
    #[serde(default)]
    generation: u64,
    /// Digest of everything else; none from those versions.
    #[serde(default)]
    check: Option<String>,
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
        if line.row()?.is_none() {
            match line.find_descendant(&seed)? {
                Some(name) => line.name = name,
                None => line.refuse_lost(&seed)?,
            }
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

    /// Reads the newest pair. The witness is read first: a pair that is stored
    /// meanwhile is newer than what it says.
    fn row(&self) -> Result<Option<Row>, StoreError> {
        let seen = self.witness(&self.name).read()?.and_then(|text| Seen::parse(&text));
        let path = self.path();
        let Some(bytes) = locked::read_if_exists(&path)? else {
            return match seen {
                None => Ok(None),
                Some(_) => Err(lost(&path, "is missing, and with it the tokens that followed the given ones")),
            };
        };
        // The parser's message could quote a token.
        let row: Row = serde_json::from_slice(&bytes).map_err(|_| StoreError::unusable(&path, "does not hold a token pair"))?;
        if !row.is_genuine() {
            return Err(lost(&path, "was changed"));
        }
        match seen {
            Some(seen) if seen.generation > row.generation => {
                Err(lost(&path, "holds an older pair of tokens than the last one that was stored"))
            }
            Some(_) | None => Ok(Some(row)),
        }
    }

    fn witness(&self, name: &str) -> Witness {
        Witness::at(self.seen().join(name))
    }

    fn seen(&self) -> PathBuf {
        self.folder.with_file_name("seen").join("tokens")
    }

    /// Finds a line whose pairs came from a given token. A line that cannot be
    /// read is passed over when its witness knows nothing of the token: it must
    /// not stand in the way of a new login.
    fn find_descendant(&self, seed: &str) -> Result<Option<String>, StoreError> {
        let mut unreadable = Ok(None);
        for name in names_in(&self.folder).into_iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned)) {
            let other = TokenLine { name: name.clone(), ..self.clone() };
            match other.row() {
                Ok(Some(row)) if row.oauth == self.oauth && row.client_id == self.client_id && row.has(seed) => return Ok(Some(name)),
                Ok(_) => {}
                Err(error) => match self.witness(&name).read()?.and_then(|text| Seen::parse(&text)) {
                    Some(seen) if !seen.has(seed) && !seen.is_newest(seed) => {}
                    Some(_) | None => unreadable = Err(error),
                },
            }
        }
        unreadable
    }

    /// Refuses a token whose line is known to have gone on, and is gone.
    fn refuse_lost(&self, seed: &str) -> Result<(), StoreError> {
        for name in names_in(&self.seen()) {
            let seen = self.witness(&name).read()?.and_then(|text| Seen::parse(&text));
            let other = TokenLine { name, ..self.clone() };
            if seen.is_some_and(|seen| seen.has(seed)) && !other.path().exists() {
                return Err(lost(&other.path(), "is missing, and with it the tokens that followed the given ones"));
            }
        }
        Ok(())
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.')).collect()
}

fn lost(path: &Path, problem: &str) -> StoreError {
    let next = "Log in to the application again: a new pair of tokens starts a line of its own. The old refresh token was used up";
    StoreError::lost(path, problem, next)
}

/// What the witness of a line tells: how often it was stored, and the beginnings
/// of the hashes of the newest token and of those that were used up.
struct Seen {
    generation: u64,
    newest: String,
    ancestors: Vec<String>,
}

impl Seen {
    fn of(row: &Row) -> Seen {
        let start = |hash: &String| hash[..hash.len().min(ANCESTOR)].to_owned();
        let known = &row.ancestors[row.ancestors.len().saturating_sub(KNOWN_ANCESTORS)..];
        let newest = row.refresh_token.as_ref().map(|token| start(&hash(&Secret::new(token.clone())))).unwrap_or_default();
        Seen { generation: row.generation, newest, ancestors: known.iter().map(start).collect() }
    }

    fn has(&self, seed: &str) -> bool {
        self.ancestors.iter().any(|hash| seed.starts_with(hash.as_str()))
    }

    fn is_newest(&self, seed: &str) -> bool {
        !self.newest.is_empty() && seed.starts_with(&self.newest)
    }

    fn text(&self) -> String {
        format!("1.{}.{}.{}", self.generation, self.newest, self.ancestors.concat())
    }

    fn parse(text: &str) -> Option<Seen> {
        let mut parts = text.strip_prefix("1.")?.split('.');
        let (generation, newest, ancestors) = (parts.next()?.parse().ok()?, parts.next()?.to_owned(), parts.next()?);
        let ancestors = ancestors.as_bytes().chunks(ANCESTOR).map(|hash| String::from_utf8_lossy(hash).into_owned());
        Some(Seen { generation, newest, ancestors: ancestors.collect() })
    }
}

/// How many files of tokens are looked at for secrets.
const MOST_LINES: usize = 256;

/// Returns the tokens of every line in a folder, so that none of them is sent
/// or printed. What cannot be read here is refused where it is used.
#[must_use]
pub fn known_secrets(folder: &std::path::Path) -> Vec<Secret> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|ending| ending == "json")).take(MOST_LINES);
    let rows = files.filter_map(|path| serde_json::from_slice::<Row>(&locked::read_if_exists(&path).ok()??).ok());
    rows.flat_map(|row| [Some(row.access_token), row.refresh_token]).flatten().map(Secret::new).collect()
}

impl Row {
    /// Returns whether a refresh token is one of this line, the newest
    /// included: who starts with it must not start a second line, because two
    /// lines would spend one token twice.
    fn has(&self, seed: &str) -> bool {
        let is_newest = self.refresh_token.as_ref().is_some_and(|token| hash(&Secret::new(token.clone())) == seed);
        is_newest || self.ancestors.iter().any(|hash| hash == seed)
    }

    /// Returns the digest of everything but itself.
    fn digest(&self) -> String {
        let parts = [&self.oauth, &self.client_id, &self.access_token];
        let options = [&self.refresh_token, &self.user_id, &self.member_id];
        let text = serde_json::json!([self.v, parts, options, self.ancestors, self.generation]).to_string();
        json::sha256_hex(format!("b24-pair-v1\0{text}"))
    }

    /// Returns whether the row is what was stored; of a row of versions that
    /// stored no check, nobody knows.
    fn is_genuine(&self) -> bool {
        match &self.check {
            Some(check) => *check == self.digest(),
            None => self.generation == 0,
        }
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
        let (mut ancestors, generation) = self.line.row()?.map(|row| (row.ancestors, row.generation)).unwrap_or_default();
        if let Some(refresh) = before.refresh.as_ref() {
            let hash = hash(refresh);
            if !ancestors.contains(&hash) {
                ancestors.push(hash);
            }
        }
        let mut row = Row {
            v: 1,
            oauth: self.line.oauth.clone(),
            client_id: self.line.client_id.clone(),
            access_token: pair.access.expose().to_owned(),
            refresh_token: pair.refresh.as_ref().map(|token| token.expose().to_owned()),
            user_id: pair.user.clone().or(before.user),
            member_id: pair.member.clone().or(before.member),
            ancestors,
            generation: generation + 1,
            check: None,
        };
        row.check = Some(row.digest());
        let text = serde_json::to_vec(&row).unwrap_or_default();
        crate::crash::point("tokens.before_store");
        locked::replace_durable(&self.line.path(), &text, &temporary_name(random))?;
        // The pair is stored; without the witness only its loss would go unseen.
        let _ = self.line.witness(&self.line.name).write(&Seen::of(&row).text(), random);
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

    #[test]
    fn a_pair_that_is_lost_or_changed_is_not_replaced_by_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let open = |first| TokenLine::open(folder.path().join("tokens"), "https://o.example", "app", first);
        let line = open(pair("a1", "r1")).unwrap();
        let mut copies = Vec::new();
        for generation in ["2", "3", "4"] {
            let lock = line.lock(Duration::from_secs(5)).unwrap();
            lock.store(&pair(&format!("a{generation}"), &format!("r{generation}")), &SystemRandom).unwrap();
            copies.push(std::fs::read(line.path()).unwrap());
        }
        let newest = copies.pop().unwrap();
        let refused = |seed: &str| matches!(open(pair("a", seed)), Err(StoreError::Lost { .. } | StoreError::Unusable { .. }));
        for older in &copies {
            std::fs::write(line.path(), older).unwrap();
            assert!(refused("r1") && refused("r2") && refused("r4") && line.current().is_err());
            open(pair("x", "new login")).unwrap();
        }
        for at in 0..newest.len() {
            let mut flipped = newest.clone();
            flipped[at] ^= 1;
            std::fs::write(line.path(), flipped).unwrap();
            assert!(refused("r1"), "byte {at}");
        }
        std::fs::remove_file(line.path()).unwrap();
        assert!(refused("r1") && refused("r2") && refused("r3"));
        open(pair("x", "new login")).unwrap();
        std::fs::write(line.path(), newest).unwrap();
        assert_eq!(open(pair("a1", "r1")).unwrap().current().unwrap().access.expose(), "a4");
    }
}
