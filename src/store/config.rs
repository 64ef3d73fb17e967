//! `config.toml`: profiles and packs of one's own, no secrets.
//!
//! Both files of the folder are read once, at the start of a run. A file that
//! somebody else could change is not read: it chooses portal, OAuth server and
//! locks.

use super::credentials::{Credentials, Row, Secrets};
use super::given::{GivenError, LONGEST_SETTING, read_given_file};
use super::guard::Guard;
use super::trust::{Untrusted, refuse_changeable};
use crate::error::{Code, Coded};
use crate::packs::UserPack;
use crate::secret::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One profile of `config.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// The portal's host.
    pub portal: Option<String>,
    /// `webhook` or `oauth`.
    pub auth: Option<String>,
    /// The webhook's user id.
    pub user: Option<u64>,
    /// The OAuth server.
    pub oauth_url: Option<String>,
    /// The OAuth application.
    pub client_id: Option<String>,
    /// Enabled packs.
    pub packs: Option<Vec<String>>,
    /// Further allowed patterns.
    pub allow: Option<Vec<String>>,
    /// Nothing but reads is sent.
    #[serde(default)]
    pub read_only: bool,
    /// Changes go through saved plans only.
    #[serde(default)]
    pub require_plan: bool,
    /// Names of the guards that cannot be loosened from outside.
    #[serde(default)]
    pub locked: Vec<String>,
    /// The state folder.
    pub state_dir: Option<PathBuf>,
    /// Requests per second.
    pub rate: Option<f64>,
    /// Requests that may go at once.
    pub burst: Option<u32>,
    /// Seconds within which an equal write is refused.
    pub repeat_window: Option<u64>,
}

impl Profile {
    /// Returns whether it locks a guard.
    #[must_use]
    pub fn locks(&self, guard: Guard) -> bool {
        self.locked.iter().any(|name| name == guard.name())
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self, name: &str) -> Result<(), String> {
        if let Some(unknown) = self.locked.iter().find(|lock| Guard::parse(lock).is_none()) {
            return Err(format!("{name} locks {}; lockable are {}", crate::method::shown(unknown), Guard::names()));
        }
        match &self.state_dir {
            Some(path) if !path.is_absolute() => Err(format!("the state-dir of {name} is not an absolute path")),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
    #[serde(default)]
    packs: BTreeMap<String, UserPack>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error(transparent)]
    Given(#[from] GivenError),
    /// It is not what it should be. Never quotes the file: it may hold secrets.
    #[error("{} cannot be understood: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// Others can read or change it.
    #[error("{} can be read or changed by other users", .0.display())]
    Exposed(PathBuf),
    /// Others can change it, or a folder above it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// No such profile.
    #[error("there is no profile {name}; {known}")]
    UnknownProfile {
        /// The name.
        name: String,
        /// The ones that exist.
        known: String,
    },
}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        match self {
            ConfigError::UnknownProfile { .. } => Code::Usage,
            ConfigError::Given(_) | ConfigError::Malformed { .. } | ConfigError::Exposed(_) | ConfigError::Untrusted(_) => {
                Code::ConfigInvalid
            }
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            ConfigError::Exposed(path) => format!("chmod 600 {}", path.display()),
            ConfigError::UnknownProfile { .. } => "Profiles are sections [profiles.NAME] of config.toml; `emulator` is built in".to_owned(),
            ConfigError::Untrusted(untrusted) => untrusted.hint(),
            ConfigError::Given(_) | ConfigError::Malformed { .. } => "b24 help profiles describes the files".to_owned(),
        })
    }
}

/// The content of a configuration folder.
#[derive(Debug, Clone, Default)]
pub struct ConfigDir {
    folder: PathBuf,
    file: ConfigFile,
    credentials: Credentials,
}

impl ConfigDir {
    /// Reads both files; what is not there is empty.
    pub fn read(folder: PathBuf) -> Result<ConfigDir, ConfigError> {
        let path = folder.join("config.toml");
        let file = match read_setting(&path)? {
            Some(text) => {
                refuse_changeable(&path)?;
                parse(&path, &text)?
            }
            None => ConfigFile::default(),
        };
        let credentials = Credentials::read(&folder.join("credentials.toml"))?;
        Ok(ConfigDir { folder, file, credentials })
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns whether two folders are one, by whatever name.
    #[must_use]
    pub fn is_same_as(&self, other: &ConfigDir) -> bool {
        let identity = |folder: &Path| std::fs::metadata(folder).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        self.folder == other.folder || (identity(&self.folder).is_some() && identity(&self.folder) == identity(&other.folder))
    }

    /// Returns whether there is anything in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.profiles.is_empty() && self.file.packs.is_empty() && self.credentials.rows().next().is_none()
    }

    /// Returns the user's own packs.
    #[must_use]
    pub fn packs(&self) -> &BTreeMap<String, UserPack> {
        &self.file.packs
    }

    /// Returns the addresses of every profile: portals and authorization
    /// servers.
    pub fn portals(&self) -> impl Iterator<Item = &str> {
        self.file.profiles.values().flat_map(|profile| [&profile.portal, &profile.oauth_url]).flatten().map(String::as_str)
    }

    /// Returns every profile with its name, checked.
    pub fn profiles(&self) -> Result<Vec<(&str, &Profile)>, ConfigError> {
        self.file.profiles.iter().map(|(name, profile)| self.checked(name, profile).map(|profile| (name.as_str(), profile))).collect()
    }

    /// Returns one profile; `None` when there is no configuration of this name
    /// and the caller did not ask for one.
    pub fn profile(&self, name: &str, is_required: bool) -> Result<Option<Profile>, ConfigError> {
        if let Some(profile) = self.file.profiles.get(name) {
            return self.checked(name, profile).cloned().map(Some);
        }
        if !is_required {
            return Ok(None);
        }
        let mut known: Vec<&str> = self.file.profiles.keys().map(String::as_str).collect();
        known.push("emulator");
        Err(ConfigError::UnknownProfile { name: crate::method::shown(name), known: format!("there are: {}", known.join(", ")) })
    }

    fn checked<'a>(&self, name: &str, profile: &'a Profile) -> Result<&'a Profile, ConfigError> {
        let path = || self.folder.join("config.toml");
        profile.check(&format!("profile {name}")).map_err(|problem| ConfigError::Malformed { path: path(), problem })?;
        Ok(profile)
    }

    /// Returns the secrets of one profile; none when there are none.
    pub fn secrets(&self, name: &str) -> Result<Secrets, ConfigError> {
        self.credentials.secrets(name)
    }

    /// Returns one row of the credentials.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.credentials.rows().find(|(row, _)| *row == name).map(|(_, row)| row)
    }

    /// Returns the rows that hold one of these secrets.
    pub fn rows_with<'a>(&'a self, secrets: &'a [Secret]) -> impl Iterator<Item = (&'a str, &'a Row)> {
        self.credentials.rows().filter(move |(_, row)| row.every_secret().any(|own| secrets.iter().any(|other| own.is(other))))
    }

    /// Returns whether both folders hold one and the same file of credentials.
    #[must_use]
    pub fn shares_credentials_with(&self, other: &ConfigDir) -> bool {
        self.credentials.identity().is_some() && self.credentials.identity() == other.credentials.identity()
    }

    /// Returns the secrets of every row.
    pub fn every_secret(&self) -> impl Iterator<Item = &Secret> {
        self.credentials.rows().flat_map(|(_, row)| row.every_secret())
    }
}

/// Reads a file that holds one secret, or variables among which one may be.
pub fn read_secret(path: &Path) -> Result<String, ConfigError> {
    let given = read_given_file(path, LONGEST_SETTING)?;
    if given.metadata.mode() & 0o077 != 0 {
        return Err(ConfigError::Exposed(path.to_owned()));
    }
    refuse_changeable(path)?;
    Ok(given.into_text()?.trim().to_owned())
}

fn read_setting(path: &Path) -> Result<Option<String>, ConfigError> {
    match read_given_file(path, LONGEST_SETTING) {
        Ok(given) => Ok(Some(given.into_text()?)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        // The error's own text quotes the line, which may hold a secret.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        ConfigError::Malformed { path: path.to_owned(), problem: format!("line {line}{}", without_values(error.message())) }
    })
}

/// Returns what a parser expected. What it found instead it quotes, and that
/// may be a secret in the wrong place.
fn without_values(message: &str) -> String {
    message.rsplit_once("expected ").map_or_else(String::new, |(_, expected)| format!(": expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(config: &str, credentials: &str, mode: u32) -> (tempfile::TempDir, Result<ConfigDir, ConfigError>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let path = folder.path().join("credentials.toml");
        std::fs::write(&path, credentials).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let config = ConfigDir::read(folder.path().to_owned());
        (folder, config)
    }

    #[test]
    fn profiles_and_secrets_are_read() {
        let (_keep, config) =
            folder("[profiles.acme]\nportal='acme.example'\nuser=1\nlocked=['packs']", "[acme]\nwebhook_code='canary-1'", 0o600);
        let config = config.unwrap();
        let profile = config.profile("acme", true).unwrap().unwrap();
        assert_eq!(profile.portal.as_deref(), Some("acme.example"));
        assert!(profile.locks(Guard::Packs) && !profile.locks(Guard::NoAudit));
        assert_eq!(config.secrets("acme").unwrap().webhook_code.unwrap().expose(), "canary-1");
        assert!(config.profile("other", false).unwrap().is_none());
        assert!(matches!(config.profile("other", true), Err(ConfigError::UnknownProfile { .. })));
    }

    #[test]
    fn an_exposed_or_malformed_file_is_refused_without_quoting_it() {
        let (_keep, config) = folder("", "[acme]\nwebhook_code='canary-1'", 0o644);
        assert!(matches!(config.unwrap().secrets("acme"), Err(ConfigError::Exposed(_))));
        let (_keep, config) = folder("[profiles.acme]\nuser=1", "[acme]\nwebhook_code=canary-1", 0o600);
        assert!(!config.unwrap_err().to_string().contains("canary"));
        for (config, credentials) in [
            ("", "acme='canary-1'"),
            ("", "[acme]\ncanary-1='x'"),
            ("", "[acme]\n'canary-1, expected '=1"),
            ("", "['canary-1"),
            ("", "[acme]\naccess_token=['canary-1']"),
            ("[profiles.acme]\nuser='canary-1'", ""),
        ] {
            let error = folder(config, credentials, 0o600).1.unwrap_err();
            assert!(error.to_string().contains(" line ") && !error.to_string().contains("canary"), "{error}");
        }
        for config in ["portall='x'", "locked=['all']", "state-dir='relative'"] {
            let (_keep, config) = folder(&format!("[profiles.acme]\n{config}"), "", 0o600);
            assert!(config.and_then(|config| config.profile("acme", true)).is_err());
        }
    }
}
