//! `credentials.toml` (mode 0600): the secrets of each profile, and under what
//! they may be used.
//!
//! A row may say more than a secret: the profiles that may use it, and rules
//! that hold wherever the row is read from, in a copied or linked file too.

use super::config::{ConfigError, Profile, parse};
use super::given::{LONGEST_SETTING, read_given_file};
use super::trust::{Untrusted, refuse_changeable};
use crate::secret::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One row as it stands in the file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRow {
    webhook_code: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    client_secret: Option<String>,
    profiles: Option<Vec<String>>,
    portal: Option<String>,
    #[serde(rename = "oauth-url")]
    oauth_url: Option<String>,
    packs: Option<Vec<String>>,
    allow: Option<Vec<String>>,
    #[serde(default, rename = "read-only")]
    read_only: bool,
    #[serde(default, rename = "require-plan")]
    require_plan: bool,
    #[serde(default)]
    locked: Vec<String>,
    #[serde(rename = "state-dir")]
    state_dir: Option<PathBuf>,
}

/// The secrets of one profile, and the rules of their use.
#[derive(Debug, Clone, Default)]
pub struct Row {
    secrets: Secrets,
    /// The only profiles that may use it; `None`: any.
    pub profiles: Option<Vec<String>>,
    /// Rules that hold whichever profile uses it.
    pub rules: Profile,
}

/// The secrets of one profile.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The webhook's code.
    pub webhook_code: Option<Secret>,
    /// The OAuth access token.
    pub access_token: Option<Secret>,
    /// The OAuth refresh token.
    pub refresh_token: Option<Secret>,
    /// The OAuth application's secret.
    pub client_secret: Option<Secret>,
}

impl Row {
    /// Returns its secrets.
    pub fn every_secret(&self) -> impl Iterator<Item = &Secret> {
        let Secrets { webhook_code, access_token, refresh_token, client_secret } = &self.secrets;
        [webhook_code, access_token, refresh_token, client_secret].into_iter().flatten()
    }
}

impl From<WrittenRow> for Row {
    fn from(row: WrittenRow) -> Row {
        Row {
            secrets: Secrets {
                webhook_code: row.webhook_code.map(Secret::new),
                access_token: row.access_token.map(Secret::new),
                refresh_token: row.refresh_token.map(Secret::new),
                client_secret: row.client_secret.map(Secret::new),
            },
            profiles: row.profiles,
            rules: Profile {
                portal: row.portal,
                oauth_url: row.oauth_url,
                packs: row.packs,
                allow: row.allow,
                read_only: row.read_only,
                require_plan: row.require_plan,
                locked: row.locked,
                state_dir: row.state_dir,
                ..Profile::default()
            },
        }
    }
}

/// The file of credentials as it was read.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    rows: BTreeMap<String, Row>,
    identity: Option<(u64, u64)>,
    /// Why its secrets may not be used; they are known all the same, so that
    /// none of them is sent as data.
    problem: Option<Problem>,
}

#[derive(Debug, Clone)]
enum Problem {
    Exposed(PathBuf),
    Changeable(PathBuf),
}

impl Credentials {
    pub(super) fn read(path: &Path) -> Result<Credentials, ConfigError> {
        let given = match read_given_file(path, LONGEST_SETTING) {
            Ok(given) => given,
            Err(error) if error.is_absent() => return Ok(Credentials::default()),
            Err(error) => return Err(error.into()),
        };
        let identity = Some((given.metadata.dev(), given.metadata.ino()));
        let problem = match given.metadata.mode() & 0o077 {
            0 => refuse_changeable(path).err().map(|Untrusted(part)| Problem::Changeable(part)),
            _ => Some(Problem::Exposed(path.to_owned())),
        };
        let written: BTreeMap<String, WrittenRow> = parse(path, &given.into_text()?)?;
        let rows: BTreeMap<String, Row> = written.into_iter().map(|(name, row)| (name, row.into())).collect();
        for (name, row) in &rows {
            let check = row.rules.check(&format!("the row {name}"));
            check.map_err(|problem| ConfigError::Malformed { path: path.to_owned(), problem })?;
        }
        Ok(Credentials { rows, identity, problem })
    }

    /// Returns what the system calls the file.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        self.identity
    }

    /// Returns every row with its name.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.iter().map(|(name, row)| (name.as_str(), row))
    }

    /// Returns the secrets of a profile, if nobody else can read or change the
    /// file.
    pub(super) fn secrets(&self, name: &str) -> Result<Secrets, ConfigError> {
        match &self.problem {
            None => Ok(self.rows.get(name).map(|row| row.secrets.clone()).unwrap_or_default()),
            Some(Problem::Exposed(path)) => Err(ConfigError::Exposed(path.clone())),
            Some(Problem::Changeable(path)) => Err(Untrusted(path.clone()).into()),
        }
    }
}
