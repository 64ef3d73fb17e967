//! Makes one set of settings out of options, environment and rules.

use super::rules::{Configuration, Rules};
use super::size;
use super::{FASTEST, LARGEST_BURST, Limits, Options, OwnFiles, Policy, Settings, SettingsError};
use crate::credential::{Credential, CredentialError, DEFAULT_OAUTH, Origin};
use crate::env::Env;
use crate::ids::Portal;
use crate::store::audit::AuditPlace;
use crate::store::config::ConfigDir;
use crate::store::given::read_start;
use crate::store::guard::Guard;
use crate::store::home::{default_state, fixed_home, home, state_folder};
use crate::store::limiter::Pace;
use crate::store::plans::folder_beside;
use crate::store::{StateDir, StateError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Life of a plan in seconds, unless told otherwise.
const USUAL_PLAN_TTL: u64 = 1800;

pub(super) struct Resolver<'a> {
    pub(super) options: &'a Options,
    pub(super) env: &'a Env,
    pub(super) cwd: &'a Path,
    pub(super) name: String,
    pub(super) rules: Rules,
    pub(super) loosened: Vec<Guard>,
    pub(super) notices: Vec<String>,
}

/// What was found of a credential; `None` for the built-in portal.
type Found = Option<Result<(Credential, Origin), CredentialError>>;

impl Resolver<'_> {
    pub(super) fn finish(mut self, configuration: &Configuration, found: Found) -> Result<Settings, SettingsError> {
        let is_emulator = found.is_none();
        self.loosen(configuration.own.is_some(), Guard::Config)?;
        let state = self.state()?;
        let packs_are_set = self.packs_are_set();
        let policy = self.policy()?;
        let (audit, audit_reads) = self.audit(&state)?;
        let replay_ttl = self.seconds("B24_IDEMPOTENCY_TTL_SEC", self.options.idempotency_ttl_sec, 86_400)?;
        let auto_key = self.options.auto_key || self.env.flag("B24_AUTO_KEY");
        self.loosen(auto_key, Guard::AutoKey)?;
        self.loosen(self.options.again, Guard::Again)?;
        self.loosen(self.options.no_idempotency, Guard::NoIdempotency)?;
        self.loosen(self.options.no_mask_secrets, Guard::NoMaskSecrets)?;
        self.loosen(self.options.moves_inbox, Guard::StateFile)?;
        self.network(&found)?;
        self.notice_seed_files();
        let mut own_files = OwnFiles::of(configuration.each().map(ConfigDir::folder), state.root());
        if let AuditPlace::File(path) = &audit {
            own_files.add_folder(path);
        }
        let pace = self.pace(is_emulator)?;
        let ledger_folder = self.place(Guard::IdempotencyFile, self.options.idempotency_file.clone(), "B24_IDEMPOTENCY_FILE")?;
        let limiter_folder = self.place(Guard::RateLimiter, None, "B24_RATE_LIMITER_FILE")?;
        let plans_folder = self.place(Guard::PlanFile, self.options.plan_file.clone(), "B24_PLAN_FILE")?;
        [&ledger_folder, &limiter_folder, &plans_folder].into_iter().flatten().for_each(|folder| own_files.add_folder(folder));
        let plan_ttl = self.plan_ttl()?;
        let credential = found.map(|found| found.map(|(credential, _)| credential));
        self.loosened.sort_unstable();
        self.loosened.dedup();
        Ok(Settings {
            pace,
            ledger_folder,
            limiter_folder,
            plans_folder: plans_folder.unwrap_or_else(|| state.place("plans")),
            plan_ttl,
            repeat_window: Duration::from_secs(self.rules.repeat_window()),
            replay_auto_for: auto_key.then_some(replay_ttl),
            no_idempotency: self.options.no_idempotency,
            mask_secrets: !self.options.no_mask_secrets,
            limits: self.limits()?,
            ca_file: self.env.get("B24_CA_FILE").map(|path| self.cwd.join(path)),
            locked: self.rules.locked(),
            is_bound: self.rules.is_bound(),
            config_folder: configuration.used.folder().to_owned(),
            secrets: Vec::new(),
            own_files,
            profile: self.name,
            credential,
            state,
            packs_are_set,
            policy,
            audit,
            audit_reads,
            loosened: self.loosened.iter().map(|guard| guard.name()).collect(),
            notices: self.notices,
        })
    }

    /// Finds the state folder. Where it is locked, also because of what lies in
    /// it, neither a variable of ours nor one of the system moves it.
    fn state(&mut self) -> Result<StateDir, SettingsError> {
        let named = self.env.get("B24_STATE_DIR").map(|path| self.cwd.join(path));
        let followed = state_folder(self.env);
        let of_profile = self.rules.chosen().state_dir.clone();
        let is_locked = self.rules.locked().iter().any(|(guard, _)| *guard == Guard::StateDir);
        if !is_locked {
            let usual = of_profile.clone().or_else(|| fixed_home().map(default_state));
            let root = named.or(of_profile).or(followed).ok_or(StateError::NoHome)?;
            self.loosen(usual.as_ref() != Some(&root), Guard::StateDir)?;
            return Ok(StateDir::at(root).within(home(self.env)));
        }
        let root = self.rules.locked_state()?.ok_or(StateError::NoFixedHome)?;
        self.loosen(named.is_some_and(|named| named != root), Guard::StateDir)?;
        if of_profile.is_none() && followed.is_some_and(|followed| followed != root) {
            self.notices.push(format!("the state folder is locked: {} is used, whatever HOME and XDG_STATE_HOME say", root.display()));
        }
        Ok(StateDir::at(root))
    }

    fn policy(&mut self) -> Result<Policy, SettingsError> {
        let packs = self.given(Guard::Packs, self.options.packs.clone(), "B24_PACKS")?;
        let allow = self.given(Guard::MethodAllowlist, self.options.method_allowlist.clone(), "B24_METHOD_ALLOWLIST")?;
        self.loosen(self.options.allow_unlisted, Guard::AllowUnlisted)?;
        self.loosen(self.options.allow_unknown_params, Guard::AllowUnknownParams)?;
        Ok(Policy {
            allowlist: self.rules.allowlist(packs.as_deref(), allow.as_deref())?,
            allow_unlisted: self.options.allow_unlisted,
            allow_unknown_params: self.options.allow_unknown_params,
            read_only: self.guard("B24_READ_ONLY")? || self.rules.read_only(),
            require_plan: self.guard("B24_REQUIRE_PLAN")? || self.rules.require_plan() || self.options.require_plan,
        })
    }

    fn packs_are_set(&self) -> bool {
        let is_given = self.options.packs.is_some() || self.env.get("B24_PACKS").is_some();
        is_given || self.rules.say_packs()
    }

    /// What leads requests elsewhere, or lets others answer them.
    fn network(&mut self, found: &Found) -> Result<(), SettingsError> {
        let is_set = |guard: Guard| guard.variables().iter().any(|name| self.env.get(name).is_some());
        let (trusts_others, has_proxy) = (is_set(Guard::CaFile), is_set(Guard::Proxy));
        self.loosen(trusts_others, Guard::CaFile)?;
        let Some(Ok((credential, _))) = found else { return Ok(()) };
        self.loosen(has_proxy && !credential.portal().is_loopback(), Guard::Proxy)?;
        let Credential::OAuth(oauth) = credential else { return Ok(()) };
        let is_other = |server: Option<&str>| Portal::parse(server.unwrap_or(DEFAULT_OAUTH)).map_or(true, |server| server != oauth.server);
        if let Some((profile, _)) = self.rules.locked_servers().find(|(_, server)| is_other(*server)) {
            return Err(SettingsError::Locked { profile: profile.to_owned(), guard: Guard::OauthUrl });
        }
        if is_other(self.rules.chosen().oauth_url.as_deref()) {
            self.loosened.push(Guard::OauthUrl);
        }
        Ok(())
    }

    fn guard(&self, name: &'static str) -> Result<bool, SettingsError> {
        let value = || crate::method::shown(self.env.get(name).unwrap_or_default());
        self.env.guard(name).ok_or_else(|| SettingsError::Value { name, value: value(), expected: "1 or 0" })
    }

    /// Returns a setting that replaces the profile's, if it is not locked.
    fn given(&mut self, guard: Guard, option: Option<String>, variable: &str) -> Result<Option<String>, SettingsError> {
        let value = option.or_else(|| self.env.get(variable).map(str::to_owned));
        self.loosen(value.is_some(), guard)?;
        Ok(value)
    }

    /// Notes that a guard is loosened, and refuses it when a rule says so.
    fn loosen(&mut self, is_loosened: bool, guard: Guard) -> Result<(), SettingsError> {
        if !is_loosened {
            return Ok(());
        }
        match self.rules.locked().into_iter().find(|(locked, _)| *locked == guard) {
            Some((_, profile)) => Err(SettingsError::Locked { profile, guard }),
            None => {
                self.loosened.push(guard);
                Ok(())
            }
        }
    }

    /// Returns the folder for a kind of state whose file the Python script let
    /// the user name.
    fn place(&mut self, guard: Guard, option: Option<PathBuf>, variable: &str) -> Result<Option<PathBuf>, SettingsError> {
        let Some(path) = option.or_else(|| self.env.get(variable).map(PathBuf::from)) else { return Ok(None) };
        self.loosen(true, guard)?;
        let folder = folder_beside(&self.cwd.join(path));
        self.notices.push(format!("{guard}: {} is used instead of the state folder; other runs do not see it", folder.display()));
        Ok(Some(folder))
    }

    fn audit(&mut self, state: &StateDir) -> Result<(AuditPlace, bool), SettingsError> {
        let is_emptied = self.env.is_set("B24_AUDIT_FILE") && self.env.get("B24_AUDIT_FILE").is_none();
        let wants_none = self.options.no_audit || (is_emptied && self.options.audit_file.is_none());
        self.loosen(wants_none, Guard::NoAudit)?;
        let file = self.options.audit_file.clone().or_else(|| self.env.get("B24_AUDIT_FILE").map(PathBuf::from));
        let place = match file {
            Some(path) => {
                self.loosen(true, Guard::AuditFile)?;
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
            self.loosen(true, Guard::RateLimiter)?;
            return Ok(None);
        }
        if mode != "file" {
            return Err(SettingsError::Value { name: "B24_RATE_LIMITER", value: mode, expected: "file or off" });
        }
        let (rate, burst) = if is_emulator { (FASTEST, 50) } else { (2.0, 10) };
        let set_rate = self.number("B24_RATE_LIMITER_RATE")?;
        let set_burst = self.number("B24_RATE_LIMITER_BURST")?;
        self.loosen(set_rate.is_some() || set_burst.is_some(), Guard::RateLimiter)?;
        let rate = set_rate.unwrap_or_else(|| self.rules.rate(rate));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be between 1 and 250")]
        let burst = set_burst.map_or_else(|| self.rules.burst(burst), |burst| burst.clamp(0.0, 1e6) as u32);
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

    fn plan_ttl(&mut self) -> Result<chrono::Duration, SettingsError> {
        let ttl = self.seconds("B24_PLAN_TTL_SEC", self.options.plan_ttl_sec, USUAL_PLAN_TTL)?.as_secs();
        self.loosen(ttl > USUAL_PLAN_TTL, Guard::PlanTtl)?;
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
            max_answer: self.max_answer()?,
            read_attempts: most.min(4),
            write_attempts: most.min(3),
        })
    }

    fn max_answer(&self) -> Result<u64, SettingsError> {
        let Some(text) = self.options.max_answer.as_deref().or_else(|| self.env.get("B24_MAX_ANSWER")) else { return Ok(size::DEFAULT) };
        let wrong = || SettingsError::Value {
            name: "--max-answer",
            value: crate::method::shown(text),
            expected: "a size such as 64MB, from 1KB to 16GB",
        };
        size::parse(text).filter(|bytes| (size::KB..=16 * size::GB).contains(bytes)).ok_or_else(wrong)
    }

    /// Names the Python script's files once, so that nobody believes that they
    /// are still used.
    fn notice_seed_files(&mut self) {
        let folder = self.cwd.join(".runtime");
        let found = ["bitrix24_plans.json", "bitrix24_idempotency.json", "bitrix24_audit.jsonl", "bitrix24_rate_limiter.json"];
        // The folder first: every call passes here, and few have it.
        if folder.is_dir() && found.iter().any(|name| folder.join(name).exists()) {
            self.notices.push(format!("files of the Python script in {} are neither read nor written", folder.display()));
        }
    }
}

/// Returns whether a file can be the audit log: it is not there, empty, or
/// begins as a record does.
fn is_audit_or_absent(path: &Path) -> bool {
    match read_start(path, 6) {
        Ok(start) => start.is_empty() || start == b"{\"h\":\"",
        // What is there but no file is refused when it is opened.
        Err(_) => true,
    }
}
