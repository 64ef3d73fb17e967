//! `config.toml` (profiles, no secrets) and `credentials.toml` (mode 0600).

use crate::error::{Code, Coded};
use crate::packs::UserPack;
use crate::secret::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Settings that a profile can lock: neither an option nor the environment may
/// then change them.
pub const LOCKABLE: &[&str] = &[
    "allow-unlisted",
    "audit-file",
    "idempotency-file",
    "method-allowlist",
    "no-audit",
    "no-idempotency",
    "no-mask-secrets",
    "packs",
    "plan-file",
    "rate-limiter",
    "state-dir",
];

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
    /// Settings that cannot be changed from outside.
    #[serde(default)]
    pub locked: Vec<String>,
    /// Requests per second.
    pub rate: Option<f64>,
    /// Requests that may go at once.
    pub burst: Option<u32>,
    /// Seconds within which an equal write is refused.
    pub repeat_window: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
    #[serde(default)]
    packs: BTreeMap<String, UserPack>,
}

/// The secrets of one profile in `credentials.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretsRow {
    webhook_code: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    client_secret: Option<String>,
}

/// The secrets of one profile.
#[derive(Debug, Default)]
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

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
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
            ConfigError::Io { .. } | ConfigError::Malformed { .. } | ConfigError::Exposed(_) => Code::ConfigInvalid,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            ConfigError::Exposed(path) => format!("chmod 600 {}", path.display()),
            ConfigError::UnknownProfile { .. } => "Profiles are sections [profiles.NAME] of config.toml; `emulator` is built in".to_owned(),
            ConfigError::Io { .. } | ConfigError::Malformed { .. } => "b24 help profiles describes the files".to_owned(),
        })
    }
}

/// The folder with both files.
#[derive(Debug, Clone)]
pub struct ConfigDir(PathBuf);

impl ConfigDir {
    /// Names the folder.
    #[must_use]
    pub fn new(path: PathBuf) -> ConfigDir {
        ConfigDir(path)
    }

    /// Reads the user's own packs.
    pub fn packs(&self) -> Result<BTreeMap<String, UserPack>, ConfigError> {
        let path = self.0.join("config.toml");
        Ok(read(&path)?.map(|text| parse::<ConfigFile>(&path, &text)).transpose()?.unwrap_or_default().packs)
    }

    /// Reads the addresses of every profile: portals and authorization servers.
    pub fn portals(&self) -> Result<Vec<String>, ConfigError> {
        let path = self.0.join("config.toml");
        let file: ConfigFile = read(&path)?.map(|text| parse(&path, &text)).transpose()?.unwrap_or_default();
        Ok(file.profiles.into_values().flat_map(|profile| [profile.portal, profile.oauth_url]).flatten().collect())
    }

    /// Reads one profile; `None` when there is no configuration of this name
    /// and the caller did not ask for one.
    pub fn profile(&self, name: &str, is_required: bool) -> Result<Option<Profile>, ConfigError> {
        let path = self.0.join("config.toml");
        let file: ConfigFile = match read(&path)? {
            Some(text) => parse(&path, &text)?,
            None => ConfigFile::default(),
        };
        if let Some(profile) = file.profiles.get(name) {
            if let Some(unknown) = profile.locked.iter().find(|lock| !LOCKABLE.contains(&lock.as_str())) {
                let problem = format!("profile {name} locks {}; lockable are {}", crate::method::shown(unknown), LOCKABLE.join(", "));
                return Err(ConfigError::Malformed { path, problem });
            }
            return Ok(Some(profile.clone()));
        }
        if !is_required {
            return Ok(None);
        }
        let mut known: Vec<&str> = file.profiles.keys().map(String::as_str).collect();
        known.push("emulator");
        Err(ConfigError::UnknownProfile { name: crate::method::shown(name), known: format!("there are: {}", known.join(", ")) })
    }

    /// Reads the secrets of one profile; none when there are none.
    pub fn secrets(&self, name: &str) -> Result<Secrets, ConfigError> {
        let path = self.0.join("credentials.toml");
        let Some(text) = read(&path)? else { return Ok(Secrets::default()) };
        refuse_exposed(&path)?;
        let mut rows: BTreeMap<String, SecretsRow> = parse(&path, &text)?;
        let row = rows.remove(name).unwrap_or_default();
        Ok(Secrets {
            webhook_code: row.webhook_code.map(Secret::new),
            access_token: row.access_token.map(Secret::new),
            refresh_token: row.refresh_token.map(Secret::new),
            client_secret: row.client_secret.map(Secret::new),
        })
    }
}

/// Reads a file that holds one secret.
pub fn read_secret(path: &Path) -> Result<String, ConfigError> {
    let text = read(path)?.ok_or_else(|| ConfigError::Io { path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() })?;
    refuse_exposed(path)?;
    Ok(text.trim().to_owned())
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Io { path: path.to_owned(), source }),
    }
}

fn refuse_exposed(path: &Path) -> Result<(), ConfigError> {
    let metadata = std::fs::metadata(path).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
    match metadata.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(ConfigError::Exposed(path.to_owned())),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
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

    fn folder(config: &str, credentials: &str, mode: u32) -> (tempfile::TempDir, ConfigDir) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let path = folder.path().join("credentials.toml");
        std::fs::write(&path, credentials).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let config = ConfigDir::new(folder.path().to_owned());
        (folder, config)
    }

    #[test]
    fn profiles_and_secrets_are_read() {
        let (_keep, config) =
            folder("[profiles.acme]\nportal='acme.example'\nuser=1\nlocked=['packs']", "[acme]\nwebhook_code='canary-1'", 0o600);
        let profile = config.profile("acme", true).unwrap().unwrap();
        assert_eq!(profile.portal.as_deref(), Some("acme.example"));
        assert_eq!(config.secrets("acme").unwrap().webhook_code.unwrap().expose(), "canary-1");
        assert!(config.profile("other", false).unwrap().is_none());
        assert!(matches!(config.profile("other", true), Err(ConfigError::UnknownProfile { .. })));
    }

    #[test]
    fn an_exposed_or_malformed_file_is_refused_without_quoting_it() {
        let (_keep, config) = folder("", "[acme]\nwebhook_code='canary-1'", 0o644);
        assert!(matches!(config.secrets("acme"), Err(ConfigError::Exposed(_))));
        let (_keep, config) = folder("[profiles.acme]\nportall='x'", "[acme]\nwebhook_code=canary-1", 0o600);
        assert!(!config.secrets("acme").unwrap_err().to_string().contains("canary"));
        assert!(config.profile("acme", true).is_err());
        for credentials in [
            "acme='canary-1'",
            "[acme]\ncanary-1='x'",
            "[acme]\n'canary-1, expected '=1",
            "['canary-1",
            "[acme]\naccess_token=['canary-1']",
        ] {
            let (_keep, config) = folder("[profiles.acme]\nuser='canary-1'", credentials, 0o600);
            for error in [config.secrets("acme").unwrap_err(), config.profile("acme", true).unwrap_err()] {
                assert!(error.to_string().contains(" line ") && !error.to_string().contains("canary"), "{error}");
            }
        }
        let (_keep, config) = folder("[profiles.acme]\nlocked=['all']", "", 0o600);
        assert!(config.profile("acme", true).is_err());
    }
}
