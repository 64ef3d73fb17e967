//! What a run of b24 is allowed and told to do: options, environment and
//! profile made into one set of settings.
//!
//! Order: option, environment, profile, built-in. A profile's `locked` list
//! also covers the environment: who runs b24 may then not loosen what the
//! profile says. Every guard that is loosened is named in the audit. Which
//! profiles have a say is told in [`rules`]; what none of this can hold, in
//! [`limits`].

pub mod limits;
mod own_files;
mod resolver;
mod rules;
pub mod size;

use crate::catalog::Api;
use crate::credential::{Credential, CredentialError, Sources};
use crate::error::{Code, Coded};
use crate::host::Host;
use crate::ids::Portal;
use crate::packs::{Allowlist, PacksError};
use crate::secret::{Redactor, Secret};
use crate::store::audit::AuditPlace;
use crate::store::config::ConfigError;
use crate::store::guard::Guard;
use crate::store::limiter::Pace;
use crate::store::{StateDir, StateError, home, tokens};
pub use own_files::OwnFiles;
use resolver::Resolver;
use rules::{Chosen, Configuration, Rules};
use std::path::PathBuf;
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
    /// `--env-file`, whose variables are in the environment already.
    pub env_file: Option<PathBuf>,
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
    /// `--again`.
    pub again: bool,
    /// `--state-file` or `--dlq-file`.
    pub moves_inbox: bool,
    /// `--no-mask-secrets`.
    pub no_mask_secrets: bool,
    /// `--rate`, which can only slow down.
    pub rate: Option<f64>,
    /// `--timeout`, in seconds.
    pub timeout: Option<u64>,
    /// `--max-wait`, in seconds.
    pub max_wait: Option<u64>,
    /// `--max-answer`, such as `64MB`.
    pub max_answer: Option<String>,
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
    /// Bytes of one answer.
    pub max_answer: u64,
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
    /// Every secret of ours: of all profiles and of the stored tokens.
    pub secrets: Vec<Secret>,
    /// Files that are never sent as data.
    pub own_files: OwnFiles,
    /// The configuration folder in use.
    pub config_folder: PathBuf,
    /// Whether the credential's row names the profiles that may use it.
    pub is_bound: bool,
    /// The locked guards, and who locks each.
    pub locked: Vec<(Guard, String)>,
    /// The state folder.
    pub state: StateDir,
    /// What may be called.
    pub policy: Policy,
    /// Whether somebody said, or locked, which packs there are: then b24's own
    /// questions need one of them as well.
    pub packs_are_set: bool,
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
    /// Returns what masks every secret of ours, for what is printed before
    /// there is a session.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        let mut redactor = Redactor::default();
        if let Some(Ok(credential)) = &self.credential {
            credential.secrets().iter().for_each(|secret| redactor.learn(secret));
        }
        self.secrets.iter().for_each(|secret| redactor.learn(secret));
        redactor
    }

    /// Refuses what loosens a guard for once, if it is locked.
    pub fn refuse_if_locked(&self, guard: Guard) -> Result<(), SettingsError> {
        match self.locked.iter().find(|(locked, _)| *locked == guard) {
            Some((_, profile)) => Err(SettingsError::Locked { profile: profile.clone(), guard }),
            None => Ok(()),
        }
    }
}

/// Returns the host of every portal and authorization server that is known
/// here: what is configured in any profile or variable, and what this state
/// has seen. Nothing but a call may go to them.
pub fn known_portals(options: &Options, host: &Host, settings: &Settings) -> Result<Vec<String>, SettingsError> {
    let mut known: Vec<String> = settings.credential.iter().flatten().map(|credential| credential.portal().host().to_owned()).collect();
    let configuration = Configuration::read(config_folder(options, host))?;
    let configured = configuration.each().flat_map(|config| config.portals().map(str::to_owned)).collect::<Vec<_>>();
    let variables = ["B24_DOMAIN", "B24_WEBHOOK_URL", "B24_OAUTH_URL"].into_iter().filter_map(|name| host.env.get(name).map(str::to_owned));
    known.extend(
        configured.into_iter().chain(variables).filter_map(|text| Portal::parse(&text).ok()).map(|portal| portal.host().to_owned()),
    );
    // On this machine a port is a portal only while one serves there.
    known.extend(
        settings
            .state
            .portals()
            .iter()
            .filter_map(|id| Portal::parse(id).ok())
            .filter(|portal| !portal.is_loopback())
            .map(|portal| portal.host().to_owned()),
    );
    known.sort_unstable();
    known.dedup();
    Ok(known)
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
    /// The profile locks the guard.
    #[error("the profile {profile} locks {guard}: {}", guard.looser())]
    Locked {
        /// The profile.
        profile: String,
        /// The guard.
        guard: Guard,
    },
    /// The credential is bound to other profiles.
    #[error("the credential may be used under {allowed} only, not under {profile}")]
    NotUnder {
        /// The profile.
        profile: String,
        /// The ones that its row names.
        allowed: String,
    },
    /// Two rules lock the state folder at different places.
    #[error("the profiles that lock the state folder name different places")]
    TwoPlaces,
    /// The credential is bound to another portal.
    #[error(transparent)]
    Credential(#[from] CredentialError),
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
            SettingsError::Locked { .. } | SettingsError::NotUnder { .. } => Code::PolicyDenied,
            SettingsError::TwoPlaces => Code::ConfigInvalid,
            SettingsError::Credential(error) => error.code(),
            SettingsError::Packs(error) => error.code(),
            SettingsError::Config(error) => error.code(),
            SettingsError::State(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SettingsError::Value { .. } => Some("b24 help env lists the variables, b24 call --help the options".to_owned()),
            SettingsError::Locked { .. } | SettingsError::NotUnder { .. } => Some("Ask the person who keeps the profile".to_owned()),
            SettingsError::TwoPlaces => Some("Give them the same state-dir; b24 help profiles".to_owned()),
            SettingsError::Credential(error) => error.hint(),
            SettingsError::Packs(error) => error.hint(),
            SettingsError::Config(error) => error.hint(),
            SettingsError::State(error) => error.hint(),
        }
    }
}

/// Makes the settings.
pub fn resolve(options: &Options, host: &Host) -> Result<Settings, SettingsError> {
    let name = options.profile.clone().or_else(|| host.env.get("B24_PROFILE").map(str::to_owned));
    let configuration = Configuration::read(config_folder(options, host))?;
    let config = &configuration.used;
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
    let credential =
        (!is_emulator).then(|| Sources { env: &host.env, cwd: &host.cwd, config, name: &profile_name, profile: profile.as_ref() }.find());
    let chosen = Chosen { name: &profile_name, profile: profile.as_ref(), credential: credential.as_ref() };
    let rules = Rules::gather(&configuration, &chosen)?;
    let resolver =
        Resolver { options, env: &host.env, cwd: &host.cwd, rules, name: profile_name, loosened: Vec::new(), notices: Vec::new() };
    let mut settings = resolver.finish(&configuration, credential)?;
    settings.own_files.add_variables(&host.env, &host.cwd, options.env_file.as_deref());
    settings.secrets = configuration.each().flat_map(|config| config.every_secret().cloned()).collect();
    let usual = home::fixed_home().map(|home| home::default_state(home).join("tokens"));
    let stores = [Some(settings.state.place("tokens")), usual];
    settings.secrets.extend(stores.iter().flatten().flat_map(|folder| tokens::known_secrets(folder)));
    Ok(settings)
}

fn config_folder(options: &Options, host: &Host) -> PathBuf {
    let named = options.config.clone().or_else(|| host.env.get("B24_CONFIG").map(PathBuf::from));
    let found = named.map(|path| host.cwd.join(path)).or_else(|| home::config_folder(&host.env));
    found.unwrap_or_else(|| PathBuf::from("/etc/b24"))
}
