//! What a run of b24 is allowed and told to do: options, environment and
//! profile made into one set of settings.
//!
//! Order: option, environment, profile, built-in. A profile's `locked` list
//! also covers the environment: who runs b24 may then not loosen what the
//! profile says. Every guard that is loosened is named in the audit.

use crate::catalog::Api;
use crate::credential::{Credential, CredentialError, Sources};
use crate::env::Env;
use crate::error::{Code, Coded};
use crate::host::Host;
use crate::packs::{Allowlist, PacksError};
use crate::secret::Redactor;
use crate::store::audit::AuditPlace;
use crate::store::config::{ConfigDir, ConfigError, Profile};
use crate::store::limiter::Pace;
use crate::store::plans::folder_beside;
use crate::store::{StateDir, StateError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the built-in profile.
pub const EMULATOR: &str = "emulator";

/// Fastest pace that can be set, in requests per second.
const FASTEST: f64 = 50.0;

/// Largest burst that can be set: what the largest plan of Bitrix24 admits
/// (b24restdocs: limits.md).
const LARGEST_BURST: u32 = 250;

/// The options of a call, as given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--packs`.
    pub packs: Option<String>,
    /// `--method-allowlist`.
    pub method_allowlist: Option<String>,
    /// `--allow-unlisted`.
    pub allow_unlisted: bool,
    /// `--allow-unknown-params`.
    pub allow_unknown_params: bool,
    /// `--require-plan`.
    pub require_plan: bool,
    /// `--plan-file`.
    pub plan_file: Option<PathBuf>,
    /// `--plan-ttl-sec`.
    pub plan_ttl_sec: Option<u64>,
    /// `--audit-file`.
    pub audit_file: Option<PathBuf>,
    /// `--no-audit`.
    pub no_audit: bool,
    /// `--idempotency-file`.
    pub idempotency_file: Option<PathBuf>,
    /// `--idempotency-ttl-sec`.
    pub idempotency_ttl_sec: Option<u64>,
    /// `--no-idempotency`.
    pub no_idempotency: bool,
    /// `--auto-key`.
    pub auto_key: bool,
    /// `--no-mask-secrets`.
    pub no_mask_secrets: bool,
    /// `--rate`, which can only slow down.
    pub rate: Option<f64>,
    /// `--timeout`, in seconds.
    pub timeout: Option<u64>,
    /// `--max-wait`, in seconds.
    pub max_wait: Option<u64>,
    /// `--max-attempts`.
    pub max_attempts: Option<u32>,
    /// `--retry none`.
    pub no_retry: bool,
    /// `--api`, or `--rest-v3`.
    pub api: Option<Api>,
}

/// What may be called.
#[derive(Debug)]
pub struct Policy {
    /// Packs and patterns.
    pub allowlist: Allowlist,
    /// Methods outside of them, and unknown ones, may be called.
    pub allow_unlisted: bool,
    /// Parameters that are not documented, but look like a typo, are sent.
    pub allow_unknown_params: bool,
    /// Nothing but reads is sent.
    pub read_only: bool,
    /// Changes go through saved plans only.
    pub require_plan: bool,
}

/// Limits in time and number.
#[derive(Debug, Clone)]
pub struct Limits {
    /// One attempt.
    pub timeout: Duration,
    /// All waiting of a call.
    pub max_wait: Duration,
    /// Attempts of a read, the first included.
    pub read_attempts: u32,
    /// Attempts of a write, the first included.
    pub write_attempts: u32,
}

/// Everything that was decided before a call.
#[derive(Debug)]
pub struct Settings {
    /// Name of the profile; `env` when there is none.
    pub profile: String,
    /// How to authorise; `None` for the built-in portal. Not having one is an
    /// error only when something is to be sent.
    pub credential: Option<Result<Credential, CredentialError>>,
    /// The state folder.
    pub state: StateDir,
    /// What may be called.
    pub policy: Policy,
    /// The pace, unless the limiter is off.
    pub pace: Option<Pace>,
    /// Where the ledger is, when not in the portal's folder.
    pub ledger_folder: Option<PathBuf>,
    /// Where the limiter is, when not in the portal's folder.
    pub limiter_folder: Option<PathBuf>,
    /// Where plans are.
    pub plans_folder: PathBuf,
    /// Where the audit is.
    pub audit: AuditPlace,
    /// Whether reads are audited.
    pub audit_reads: bool,
    /// How long a plan lives.
    pub plan_ttl: chrono::Duration,
    /// Within which time an equal write is refused.
    pub repeat_window: Duration,
    /// `--auto-key`: how long a success answers an equal write.
    pub replay_auto_for: Option<Duration>,
    /// `--no-idempotency`.
    pub no_idempotency: bool,
    /// Whether secret-looking values of the portal's data are masked.
    pub mask_secrets: bool,
    /// Limits in time and number.
    pub limits: Limits,
    /// Further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// The guards that were loosened, for the audit.
    pub loosened: Vec<&'static str>,
    /// What a person should know, for standard error.
    pub notices: Vec<String>,
}

impl Settings {
    /// Returns what masks the secrets of the configured credential, for what
    /// is printed before there is a session.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        let mut redactor = Redactor::default();
        if let Some(Ok(credential)) = &self.credential {
            credential.secrets().iter().for_each(|secret| redactor.learn(secret));
        }
        redactor
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value is out of range.
    #[error("{name} is {value}, not {expected}")]
    Value {
        /// Option or variable.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would fit.
        expected: &'static str,
    },
    /// The profile locks the setting.
    #[error("the profile {profile} locks {setting}")]
    Locked {
        /// The profile.
        profile: String,
        /// The setting.
        setting: &'static str,
    },
    /// Packs.
    #[error(transparent)]
    Packs(#[from] PacksError),
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Coded for SettingsError {
    fn code(&self) -> Code {
        match self {
            SettingsError::Value { .. } => Code::Usage,
            SettingsError::Locked { .. } => Code::PolicyDenied,
            SettingsError::Packs(error) => error.code(),
            SettingsError::Config(error) => error.code(),
            SettingsError::State(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SettingsError::Value { .. } => Some("b24 help env lists the variables, b24 call --help the options".to_owned()),
            SettingsError::Locked { .. } => Some("Ask the person who keeps the profile".to_owned()),
            SettingsError::Packs(error) => error.hint(),
            SettingsError::Config(error) => error.hint(),
            SettingsError::State(error) => error.hint(),
        }
    }
}

/// Makes the settings.
pub fn resolve(options: &Options, host: &Host) -> Result<Settings, SettingsError> {
    let name = options.profile.clone().or_else(|| host.env.get("B24_PROFILE").map(str::to_owned));
    let config = ConfigDir::new(config_folder(options, host));
    let is_emulator = name.as_deref() == Some(EMULATOR);
    let profile = match &name {
        Some(_) if is_emulator => config.profile(EMULATOR, false)?,
        Some(name) => config.profile(name, true)?,
        None => config.profile("default", false)?,
    };
    let profile_name = match (&name, &profile) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => "default".to_owned(),
        (None, None) => "env".to_owned(),
    };
    let credential = (!is_emulator)
        .then(|| Sources { env: &host.env, cwd: &host.cwd, config: &config, name: &profile_name, profile: profile.as_ref() }.find());
    let profile = profile.unwrap_or_default();
    Resolver { options, env: &host.env, cwd: &host.cwd, name: profile_name, profile, loosened: Vec::new(), notices: Vec::new() }
        .finish(credential)
}

fn config_folder(options: &Options, host: &Host) -> PathBuf {
    if let Some(path) = &options.config {
        return host.cwd.join(path);
    }
    match (host.env.get("B24_CONFIG"), host.env.get("XDG_CONFIG_HOME"), host.env.get("HOME")) {
        (Some(path), _, _) => host.cwd.join(path),
        (None, Some(base), _) => Path::new(base).join("b24"),
        (None, None, Some(home)) => Path::new(home).join(".config/b24"),
        (None, None, None) => PathBuf::from("/etc/b24"),
    }
}

struct Resolver<'a> {
    options: &'a Options,
    env: &'a Env,
    cwd: &'a Path,
    name: String,
    profile: Profile,
    loosened: Vec<&'static str>,
    notices: Vec<String>,
}

impl Resolver<'_> {
    fn finish(mut self, credential: Option<Result<Credential, CredentialError>>) -> Result<Settings, SettingsError> {
        let is_emulator = credential.is_none();
        if self.env.is_set("B24_STATE_DIR") {
            self.refuse_if_locked("state-dir")?;
        }
        let state = StateDir::find(self.env, self.cwd)?;
        let policy = self.policy()?;
        let (audit, audit_reads) = self.audit(&state)?;
        let replay_ttl = self.seconds("B24_IDEMPOTENCY_TTL_SEC", self.options.idempotency_ttl_sec, 86_400)?;
        let auto_key = self.options.auto_key || self.env.flag("B24_AUTO_KEY");
        self.loosen(self.options.no_idempotency, "no-idempotency")?;
        self.loosen(self.options.no_mask_secrets, "no-mask-secrets")?;
        self.notice_seed_files();
        Ok(Settings {
            pace: self.pace(is_emulator)?,
            ledger_folder: self.place("idempotency-file", self.options.idempotency_file.clone(), "B24_IDEMPOTENCY_FILE")?,
            limiter_folder: self.place("rate-limiter", None, "B24_RATE_LIMITER_FILE")?,
            plans_folder: self.place("plan-file", self.options.plan_file.clone(), "B24_PLAN_FILE")?.unwrap_or_else(|| state.place("plans")),
            plan_ttl: self.plan_ttl()?,
            repeat_window: Duration::from_secs(self.profile.repeat_window.unwrap_or(60)),
            replay_auto_for: auto_key.then_some(replay_ttl),
            no_idempotency: self.options.no_idempotency,
            mask_secrets: !self.options.no_mask_secrets,
            limits: self.limits()?,
            ca_file: self.env.get("B24_CA_FILE").map(|path| self.cwd.join(path)),
            profile: self.name,
            credential,
            state,
            policy,
            audit,
            audit_reads,
            loosened: self.loosened,
            notices: self.notices,
        })
    }

    fn policy(&mut self) -> Result<Policy, SettingsError> {
        let given_packs = self.given("packs", self.options.packs.clone(), "B24_PACKS")?;
        let given_allow = self.given("method-allowlist", self.options.method_allowlist.clone(), "B24_METHOD_ALLOWLIST")?;
        let own_packs = self.profile.packs.as_ref().map(|packs| if packs.is_empty() { "none".to_owned() } else { packs.join(",") });
        let packs = given_packs.or(own_packs).unwrap_or_default();
        let allow = given_allow.or_else(|| self.profile.allow.as_ref().map(|allow| allow.join(","))).unwrap_or_default();
        self.loosen(self.options.allow_unlisted, "allow-unlisted")?;
        Ok(Policy {
            allowlist: Allowlist::parse(&packs, &allow)?,
            allow_unlisted: self.options.allow_unlisted,
            allow_unknown_params: self.options.allow_unknown_params,
            read_only: self.guard("B24_READ_ONLY")? || self.profile.read_only,
            require_plan: self.guard("B24_REQUIRE_PLAN")? || self.profile.require_plan || self.options.require_plan,
        })
    }

    fn guard(&self, name: &'static str) -> Result<bool, SettingsError> {
        let value = || crate::method::shown(self.env.get(name).unwrap_or_default());
        self.env.guard(name).ok_or_else(|| SettingsError::Value { name, value: value(), expected: "1 or 0" })
    }

    /// Returns a setting that replaces the profile's, if it is not locked.
    fn given(&mut self, setting: &'static str, option: Option<String>, variable: &str) -> Result<Option<String>, SettingsError> {
        let value = option.or_else(|| self.env.get(variable).map(str::to_owned));
        self.loosen(value.is_some(), setting)?;
        Ok(value)
    }

    /// Notes that a guard is loosened, and refuses it when the profile says so.
    fn loosen(&mut self, is_loosened: bool, setting: &'static str) -> Result<(), SettingsError> {
        if is_loosened {
            self.refuse_if_locked(setting)?;
            self.loosened.push(setting);
        }
        Ok(())
    }

    fn refuse_if_locked(&self, setting: &'static str) -> Result<(), SettingsError> {
        match self.profile.locked.iter().any(|locked| locked == setting) {
            true => Err(SettingsError::Locked { profile: self.name.clone(), setting }),
            false => Ok(()),
        }
    }

    /// Returns the folder for a kind of state whose file the Python script let
    /// the user name.
    fn place(&mut self, setting: &'static str, option: Option<PathBuf>, variable: &str) -> Result<Option<PathBuf>, SettingsError> {
        let Some(path) = option.or_else(|| self.env.get(variable).map(PathBuf::from)) else { return Ok(None) };
        self.loosen(true, setting)?;
        let folder = folder_beside(&self.cwd.join(path));
        self.notices.push(format!("{setting}: {} is used instead of the state folder; other runs do not see it", folder.display()));
        Ok(Some(folder))
    }

    fn audit(&mut self, state: &StateDir) -> Result<(AuditPlace, bool), SettingsError> {
        let is_emptied = self.env.is_set("B24_AUDIT_FILE") && self.env.get("B24_AUDIT_FILE").is_none();
        let wants_none = self.options.no_audit || (is_emptied && self.options.audit_file.is_none());
        self.loosen(wants_none, "no-audit")?;
        let file = self.options.audit_file.clone().or_else(|| self.env.get("B24_AUDIT_FILE").map(PathBuf::from));
        let place = match file {
            Some(path) => {
                self.refuse_if_locked("audit-file")?;
                self.audit_file(self.cwd.join(path))
            }
            None => AuditPlace::Folder(state.place("audit")),
        };
        Ok((place, !wants_none))
    }

    /// A file of another program, such as the Python script's log, is left
    /// alone; the audit then stands in the folder beside it.
    fn audit_file(&mut self, path: PathBuf) -> AuditPlace {
        match is_audit_or_absent(&path) {
            true => AuditPlace::File(path),
            false => {
                let folder = folder_beside(&path);
                self.notices.push(format!("{} is not an audit log of b24 and is left alone; {} is used", path.display(), folder.display()));
                AuditPlace::Folder(folder)
            }
        }
    }

    /// Environment and profile may set the pace up to [`FASTEST`]; the option
    /// can only lower it.
    fn pace(&mut self, is_emulator: bool) -> Result<Option<Pace>, SettingsError> {
        let mode = self.env.get("B24_RATE_LIMITER").unwrap_or("file").to_ascii_lowercase();
        if ["off", "none", "noop"].contains(&mode.as_str()) {
            self.loosen(true, "rate-limiter")?;
            return Ok(None);
        }
        if mode != "file" {
            return Err(SettingsError::Value { name: "B24_RATE_LIMITER", value: mode, expected: "file or off" });
        }
        let (rate, burst) = if is_emulator { (FASTEST, 50) } else { (2.0, 10) };
        let set_rate = self.number("B24_RATE_LIMITER_RATE")?;
        let set_burst = self.number("B24_RATE_LIMITER_BURST")?;
        self.loosen(set_rate.is_some() || set_burst.is_some(), "rate-limiter")?;
        let rate = set_rate.or(self.profile.rate).unwrap_or(rate);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be between 1 and 250")]
        let burst = set_burst.map(|burst| burst.clamp(0.0, 1e6) as u32).or(self.profile.burst).unwrap_or(burst);
        let rate = self.options.rate.map_or(rate, |slower| slower.min(rate));
        if !(rate > 0.0 && rate <= FASTEST) {
            return Err(SettingsError::Value { name: "the rate", value: rate.to_string(), expected: "above 0 and at most 50 a second" });
        }
        if !(1..=LARGEST_BURST).contains(&burst) {
            return Err(SettingsError::Value { name: "the burst", value: burst.to_string(), expected: "between 1 and 250" });
        }
        Ok(Some(Pace { rate, burst }))
    }

    fn number(&self, name: &'static str) -> Result<Option<f64>, SettingsError> {
        let Some(text) = self.env.get(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(SettingsError::Value { name, value: crate::method::shown(text), expected: "a number" }),
        }
    }

    fn seconds(&self, name: &'static str, option: Option<u64>, default: u64) -> Result<Duration, SettingsError> {
        let seconds = match (option, self.env.get(name)) {
            (Some(seconds), _) => seconds,
            (None, Some(text)) => text.parse().map_err(|_| SettingsError::Value {
                name,
                value: crate::method::shown(text),
                expected: "a number of seconds",
            })?,
            (None, None) => default,
        };
        Ok(Duration::from_secs(seconds))
    }

    fn plan_ttl(&self) -> Result<chrono::Duration, SettingsError> {
        let ttl = self.seconds("B24_PLAN_TTL_SEC", self.options.plan_ttl_sec, 1800)?.as_secs();
        match i64::try_from(ttl) {
            Ok(seconds @ 60..=86_400) => Ok(chrono::Duration::seconds(seconds)),
            _ => Err(SettingsError::Value { name: "--plan-ttl-sec", value: ttl.to_string(), expected: "between 60 and 86400" }),
        }
    }

    fn limits(&self) -> Result<Limits, SettingsError> {
        let timeout = self.seconds("B24_TIMEOUT", self.options.timeout, 90)?;
        if timeout.is_zero() {
            return Err(SettingsError::Value { name: "--timeout", value: "0".to_owned(), expected: "at least 1" });
        }
        let most = match (self.options.no_retry, self.options.max_attempts) {
            (_, Some(0)) => {
                return Err(SettingsError::Value { name: "--max-attempts", value: "0".to_owned(), expected: "at least 1" });
            }
            (true, _) => 1,
            (false, attempts) => attempts.unwrap_or(u32::MAX),
        };
        Ok(Limits {
            timeout,
            max_wait: self.seconds("B24_MAX_WAIT", self.options.max_wait, 30)?,
            read_attempts: most.min(4),
            write_attempts: most.min(3),
        })
    }

    /// Names the Python script's files once, so that nobody believes that they
    /// are still used.
    fn notice_seed_files(&mut self) {
        let folder = self.cwd.join(".runtime");
        let found = ["bitrix24_plans.json", "bitrix24_idempotency.json", "bitrix24_audit.jsonl", "bitrix24_rate_limiter.json"];
        if found.iter().any(|name| folder.join(name).exists()) {
            self.notices.push(format!("files of the Python script in {} are neither read nor written", folder.display()));
        }
    }
}

/// Returns whether a file can be the audit log: it is not there, empty, or
/// begins as a record does.
fn is_audit_or_absent(path: &Path) -> bool {
    use std::io::Read;
    let Ok(mut file) = std::fs::File::open(path) else { return true };
    let mut start = Vec::new();
    let read = file.by_ref().take(6).read_to_end(&mut start);
    read.is_ok() && (start.is_empty() || start == b"{\"h\":\"")
}
