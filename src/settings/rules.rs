//! Whose rules hold for a run.
//!
//! The profile that was chosen is not all. Whoever runs b24 chooses the
//! configuration folder and the profile, and could choose ones that forbid
//! nothing. So a call must pass under each of these, and the strictest decides:
//!
//! 1. the chosen profile, or none;
//! 2. when no profile was chosen, each profile of the configuration that names
//!    the portal of the credential, or no portal;
//! 3. when the configuration is not the one in the user's home (of the
//!    password database), each profile of that one that bears the same name,
//!    names the portal of the credential, or no portal, if the credential comes
//!    from the environment or is one of that configuration's, by file or by
//!    value;
//! 4. each row of `credentials.toml` that holds the credential.

use super::{EMULATOR, SettingsError};
use crate::credential::{Credential, CredentialError, DEFAULT_OAUTH, Origin};
use crate::ids::Portal;
use crate::packs::{Allowlist, PacksError, UserPack};
use crate::store::config::{ConfigDir, ConfigError, Profile};
use crate::store::guard::Guard;
use crate::store::home::{default_config, default_state, fixed_home};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The configuration in use and, when that is another one, the user's own.
pub(super) struct Configuration {
    pub(super) used: ConfigDir,
    pub(super) own: Option<ConfigDir>,
}

impl Configuration {
    /// Reads both. One that is there but cannot be read is not passed over.
    pub(super) fn read(used: PathBuf) -> Result<Configuration, ConfigError> {
        let own = fixed_home().map(default_config).filter(|own| *own != used);
        let used = ConfigDir::read(used)?;
        let own = own.map(ConfigDir::read).transpose()?;
        Ok(Configuration { own: own.filter(|own| !own.is_empty() && !own.is_same_as(&used)), used })
    }

    /// Returns both.
    pub(super) fn each(&self) -> impl Iterator<Item = &ConfigDir> {
        std::iter::once(&self.used).chain(&self.own)
    }
}

/// One set of rules, and what it is called.
struct Rule {
    name: String,
    profile: Profile,
    packs: BTreeMap<String, UserPack>,
    /// A profile without packs means the usual ones; a row without packs says
    /// nothing about them.
    is_row: bool,
}

/// Every rule that holds; the first is the chosen profile.
pub(super) struct Rules {
    list: Vec<Rule>,
    is_bound: bool,
}

/// What was chosen, and with what.
pub(super) struct Chosen<'a> {
    pub(super) name: &'a str,
    pub(super) profile: Option<&'a Profile>,
    /// `None` for the built-in portal.
    pub(super) credential: Option<&'a Result<(Credential, Origin), CredentialError>>,
}

impl Rules {
    pub(super) fn gather(configuration: &Configuration, chosen: &Chosen) -> Result<Rules, SettingsError> {
        let profile = chosen.profile.cloned().unwrap_or_default();
        let first = Rule { name: chosen.name.to_owned(), profile, packs: configuration.used.packs().clone(), is_row: false };
        let mut rules = Rules { list: vec![first], is_bound: false };
        if chosen.profile.is_none() && chosen.credential.is_some() {
            rules.govern(&configuration.used, |_, profile| is_for(profile, chosen.credential))?;
        }
        if let Some(own) = &configuration.own {
            match chosen.credential {
                None => rules.govern(own, |name, _| name == EMULATOR)?,
                Some(credential) if is_governed(configuration, own, credential) => {
                    rules.govern(own, |name, profile| name == chosen.name || is_for(profile, chosen.credential))?;
                }
                Some(_) => {}
            }
        }
        if let Some(Ok((credential, _))) = chosen.credential {
            configuration.each().try_for_each(|config| rules.add_rows(config, credential, configuration.own.is_none()))?;
        }
        Ok(rules)
    }

    fn govern(&mut self, config: &ConfigDir, holds: impl Fn(&str, &Profile) -> bool) -> Result<(), ConfigError> {
        for (name, profile) in config.profiles()? {
            if holds(name, profile) {
                self.list.push(Rule { name: name.to_owned(), profile: profile.clone(), packs: config.packs().clone(), is_row: false });
            }
        }
        Ok(())
    }

    /// Adds the rows that hold the credential, and refuses it where they do not
    /// admit it.
    fn add_rows(&mut self, config: &ConfigDir, credential: &Credential, is_own: bool) -> Result<(), SettingsError> {
        let chosen = self.list[0].name.clone();
        let secrets = credential.secrets();
        for (name, row) in config.rows_with(&secrets) {
            if let Some(allowed) = row.profiles.as_ref().filter(|allowed| !allowed.contains(&chosen)) {
                return Err(SettingsError::NotUnder { profile: chosen, allowed: allowed.join(", ") });
            }
            self.is_bound |= row.profiles.is_some();
            refuse_elsewhere((row.rules.portal.as_deref(), row.rules.oauth_url.as_deref()), credential)?;
            if let Some(profile) = config.profile(name, false)? {
                let server = profile.oauth_url.as_deref().unwrap_or(DEFAULT_OAUTH);
                refuse_elsewhere((profile.portal.as_deref(), Some(server)), credential)?;
            }
            let mut rules = row.rules.clone();
            if is_own {
                rules.state_dir = rules.state_dir.or_else(|| self.list[0].profile.state_dir.clone());
            }
            self.list.push(Rule { name: format!("credential {name}"), profile: rules, packs: config.packs().clone(), is_row: true });
        }
        Ok(())
    }

    /// Returns whether the credential names the profiles that may use it.
    pub(super) fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// Returns who locks a guard.
    fn locker(&self, guard: Guard) -> Option<&str> {
        self.list.iter().find(|rule| rule.profile.locks(guard)).map(|rule| rule.name.as_str())
    }

    /// Returns every locked guard and who locks it. With what lies in the state
    /// folder the folder is locked, too.
    pub(super) fn locked(&self) -> Vec<(Guard, String)> {
        let locker = |guard: &Guard| {
            let in_state = || Guard::ALL.iter().filter(|other| other.is_kept_in_state()).find_map(|other| self.locker(*other));
            let own = self.locker(*guard);
            if *guard == Guard::StateDir { own.or_else(in_state) } else { own }.map(str::to_owned)
        };
        Guard::ALL.iter().filter_map(|guard| Some((*guard, locker(guard)?))).collect()
    }

    /// Returns whether somebody said, or locked, which packs there are.
    pub(super) fn say_packs(&self) -> bool {
        self.locker(Guard::Packs).is_some() || self.profiles().any(|profile| profile.packs.is_some())
    }

    pub(super) fn read_only(&self) -> bool {
        self.list.iter().any(|rule| rule.profile.read_only)
    }

    pub(super) fn require_plan(&self) -> bool {
        self.list.iter().any(|rule| rule.profile.require_plan)
    }

    /// Returns the chosen profile.
    pub(super) fn chosen(&self) -> &Profile {
        &self.list[0].profile
    }

    /// Returns the longest time within which an equal write is refused.
    pub(super) fn repeat_window(&self) -> u64 {
        self.profiles().map(|profile| profile.repeat_window.unwrap_or(60)).max().unwrap_or(60)
    }

    /// Returns the slowest rate; `usual` is that of a profile that sets none.
    pub(super) fn rate(&self, usual: f64) -> f64 {
        self.profiles().map(|profile| profile.rate.unwrap_or(usual)).fold(f64::INFINITY, f64::min)
    }

    /// Returns the smallest burst.
    pub(super) fn burst(&self, usual: u32) -> u32 {
        self.profiles().map(|profile| profile.burst.unwrap_or(usual)).min().unwrap_or(usual)
    }

    fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.list.iter().filter(|rule| !rule.is_row).map(|rule| &rule.profile)
    }

    /// Returns the place of the state for those who lock it; all of them must
    /// mean the same.
    pub(super) fn locked_state(&self) -> Result<Option<PathBuf>, SettingsError> {
        let locks = |rule: &&Rule| Guard::ALL.iter().any(|guard| guard.is_kept_in_state() && rule.profile.locks(*guard));
        let place = |rule: &Rule| rule.profile.state_dir.clone().or_else(|| fixed_home().map(default_state));
        let mut places = self.list.iter().filter(locks).map(place);
        let first = places.next().flatten();
        match places.all(|other| other == first) {
            true => Ok(first),
            false => Err(SettingsError::TwoPlaces),
        }
    }

    /// Returns the OAuth servers that those who lock the address mean.
    pub(super) fn locked_servers(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let locks = |rule: &&Rule| rule.profile.locks(Guard::OauthUrl);
        self.list.iter().filter(locks).map(|rule| (rule.name.as_str(), rule.profile.oauth_url.as_deref()))
    }

    /// Returns what may be called: what each rule admits. Given packs and
    /// patterns stand in the place of a profile's, never in that of a row's.
    pub(super) fn allowlist(&self, packs: Option<&str>, allow: Option<&str>) -> Result<Allowlist, PacksError> {
        let mut whole: Option<Allowlist> = None;
        for rule in &self.list {
            let (own_packs, own_allow) = (rule.profile.packs.as_ref(), rule.profile.allow.as_ref());
            if rule.is_row && own_packs.is_none() && own_allow.is_none() {
                continue;
            }
            let own_packs = match own_packs {
                Some(packs) if packs.is_empty() => Some("none".to_owned()),
                None if rule.is_row => Some("none".to_owned()),
                packs => packs.map(|packs| packs.join(",")),
            };
            let own_allow = own_allow.map(|allow| allow.join(","));
            let given = |given: Option<&str>| given.filter(|_| !rule.is_row).map(str::to_owned);
            let packs = given(packs).or(own_packs).unwrap_or_default();
            let allow = given(allow).or(own_allow).unwrap_or_default();
            let allowlist = Allowlist::with_user_packs(&packs, &allow, &rule.packs)?;
            match &mut whole {
                None => whole = Some(allowlist),
                Some(whole) => whole.narrow(allowlist),
            }
        }
        Ok(whole.unwrap_or_default())
    }
}

/// Returns whether a profile is meant for the portal of a credential: it names
/// it, or none.
fn is_for(profile: &Profile, credential: Option<&Result<(Credential, Origin), CredentialError>>) -> bool {
    let Some(host) = &profile.portal else { return true };
    let Some(Ok((credential, _))) = credential else { return false };
    // A name that cannot be read is not taken for another portal's.
    Portal::parse(host).map_or(true, |portal| portal == *credential.portal())
}

/// Returns whether the user's own configuration has a say in how a credential
/// is used under another one.
fn is_governed(configuration: &Configuration, own: &ConfigDir, credential: &Result<(Credential, Origin), CredentialError>) -> bool {
    match credential {
        Err(_) | Ok((_, Origin::Environment)) => true,
        Ok((credential, Origin::Row)) => {
            let secrets = credential.secrets();
            configuration.used.shares_credentials_with(own) || own.rows_with(&secrets).next().is_some()
        }
    }
}

/// Refuses to send a secret to another portal or OAuth server than the ones
/// that are named beside it.
fn refuse_elsewhere((portal, server): (Option<&str>, Option<&str>), credential: &Credential) -> Result<(), CredentialError> {
    let refuse_other = |named: Option<&str>, used: &Portal| match named.map(Portal::parse).transpose()? {
        Some(named) if named != *used => Err(CredentialError::OtherPortal { env: used.to_string(), profile: named.to_string() }),
        _ => Ok(()),
    };
    refuse_other(portal, credential.portal())?;
    match credential {
        Credential::OAuth(oauth) if oauth.client_secret.is_some() => refuse_other(server, &oauth.server),
        Credential::OAuth(_) | Credential::Webhook { .. } => Ok(()),
    }
}
