//! What no lock can hold against a program that runs as the agent's own user.
//!
//! Each sentence stands here and nowhere else in the source: `b24 policy check`
//! prints those that are true of the profile at hand, and a test finds all of
//! them in the README.

use super::Settings;
use crate::store::guard::Guard;
use crate::store::home::fixed_home;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One thing that is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The credential can be read.
    Credential,
    /// b24 can be shown another machine.
    Machine,
    /// The profile can be edited.
    Profile,
    /// Another profile can be chosen.
    OtherProfile,
    /// Not every guard is locked.
    Unlocked,
    /// The state folder is not locked.
    State,
    /// The state can be deleted.
    StateFiles,
    /// The audit can be cut.
    Audit,
    /// A person can be played.
    Person,
    /// Nothing but the environment names a home.
    Home,
}

impl Limit {
    /// All of them, in the order in which they are told.
    pub const ALL: &[Limit] = &[
        Limit::Credential,
        Limit::Machine,
        Limit::Profile,
        Limit::OtherProfile,
        Limit::Unlocked,
        Limit::State,
        Limit::StateFiles,
        Limit::Audit,
        Limit::Person,
        Limit::Home,
    ];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Limit::Credential => "credential",
            Limit::Machine => "machine",
            Limit::Profile => "profile",
            Limit::OtherProfile => "other-profile",
            Limit::Unlocked => "unlocked",
            Limit::State => "state",
            Limit::StateFiles => "state-files",
            Limit::Audit => "audit",
            Limit::Person => "person",
            Limit::Home => "home",
        }
    }

    /// Returns what it means, in one sentence or two.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Limit::Credential => "A program that runs as your user can read the credential and call the portal without b24.",
            Limit::Machine => "It can run b24 in a namespace with another password database, or another program in the place of b24.",
            Limit::Profile => {
                "A configuration that your user can write can be edited, its locks included. Let it belong to the superuser, or run the agent as another user."
            }
            Limit::OtherProfile => {
                "Another profile of the same configuration can be chosen, unless the row of the credential names its profiles."
            }
            Limit::Unlocked => "What no profile locks can be loosened by whoever runs b24; the audit names it.",
            Limit::State => "Where the state folder is not locked, another one means another ledger, rate limit and audit.",
            Limit::StateFiles => "Your user can delete the state folder or put back an old copy; then nothing remembers what was sent.",
            Limit::Audit => "The end of the audit can be cut off without a trace unless a hash is kept elsewhere.",
            Limit::Person => "A pseudo terminal passes for a person, also for settling unknown outcomes.",
            Limit::Home => "A user without an entry in the password database has no home but the one that HOME names.",
        }
    }

    fn is_true_of(self, settings: &Settings) -> bool {
        match self {
            Limit::Credential => matches!(settings.credential, Some(Ok(_))),
            Limit::Profile => is_writable(&settings.config_folder),
            Limit::OtherProfile => settings.credential.is_some() && !settings.is_bound,
            Limit::Unlocked => settings.locked.len() < Guard::ALL.len(),
            Limit::State => settings.locked.iter().all(|(guard, _)| *guard != Guard::StateDir),
            Limit::Machine | Limit::StateFiles | Limit::Audit | Limit::Person => true,
            Limit::Home => fixed_home().is_none(),
        }
    }
}

/// Returns what is not held for the profile at hand.
#[must_use]
pub fn of(settings: &Settings) -> Vec<Limit> {
    Limit::ALL.iter().copied().filter(|limit| limit.is_true_of(settings)).collect()
}

/// Returns whether this user could change the configuration, or put one where
/// none is.
fn is_writable(folder: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    let is_mine = |path: &Path| std::fs::metadata(path).is_ok_and(|metadata| metadata.uid() == me);
    let nearest = folder.ancestors().find(|path| path.exists());
    me == 0 || is_mine(&folder.join("config.toml")) || nearest.is_some_and(is_mine)
}
