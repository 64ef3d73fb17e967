//! Makes one set of settings out of options, environment and profile.

use super::size;
use super::{FASTEST, LARGEST_BURST, Limits, Options, Policy, Settings, SettingsError};
use crate::credential::{Credential, CredentialError};
use crate::env::Env;
use crate::packs::{Allowlist, UserPack};
use crate::store::StateDir;
use crate::store::audit::AuditPlace;
use crate::store::config::Profile;
use crate::store::limiter::Pace;
use crate::store::plans::folder_beside;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) struct Resolver<'a> {
    pub(super) options: &'a Options,
    pub(super) env: &'a Env,
    pub(super) cwd: &'a Path,
    pub(super) name: String,
    pub(super) profile: Profile,
    pub(super) own_packs: BTreeMap<String, UserPack>,
    pub(super) loosened: Vec<&'static str>,
    pub(super) notices: Vec<String>,
}

impl Resolver<'_> {
    pub(super) fn finish(mut self, credential: Option<Result<Credential, CredentialError>>) -> Result<Settings, SettingsError> {
        let is_emulator = credential.is_none();
        if self.env.is_set("B24_STATE_DIR") {
            self.refuse_if_locked("state-dir")?;
        }
        let state = StateDir::find(self.env, self.cwd)?;
        let packs_are_set = self.packs_are_set();
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
            packs_are_set,
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
            allowlist: Allowlist::with_user_packs(&packs, &allow, &self.own_packs)?,
            allow_unlisted: self.options.allow_unlisted,
            allow_unknown_params: self.options.allow_unknown_params,
            read_only: self.guard("B24_READ_ONLY")? || self.profile.read_only,
            require_plan: self.guard("B24_REQUIRE_PLAN")? || self.profile.require_plan || self.options.require_plan,
        })
    }

    fn packs_are_set(&self) -> bool {
        let is_given = self.options.packs.is_some() || self.env.get("B24_PACKS").is_some();
        is_given || self.profile.packs.is_some() || self.refuse_if_locked("packs").is_err()
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
