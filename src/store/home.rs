//! The user's home: what the environment says, and what the password database
//! says.
//!
//! `HOME` and the `XDG_` variables are for whoever runs b24 to set. What a
//! profile locks must not follow them, so there the password database decides:
//! the entry of the user as whom the process runs.

use crate::env::Env;
use nix::unistd::{Group, Uid, User};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Returns the home of the password database; `None` when the user has no
/// entry or none with an absolute path.
#[must_use]
pub fn fixed_home() -> Option<&'static Path> {
    static HOME: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir).filter(|home| home.is_absolute());
    HOME.get_or_init(find).as_deref()
}

/// Returns the home that the environment names, else the one that the system
/// knows.
#[must_use]
pub fn home(env: &Env) -> Option<PathBuf> {
    absolute(env, "HOME").or_else(|| directories::BaseDirs::new().map(|base| base.home_dir().to_owned()))
}

/// Returns the state folder that the environment leads to.
#[must_use]
pub fn state_folder(env: &Env) -> Option<PathBuf> {
    absolute(env, "XDG_STATE_HOME").map(|base| base.join("b24")).or_else(|| home(env).map(|home| default_state(&home)))
}

/// Returns the configuration folder that the environment leads to.
#[must_use]
pub fn config_folder(env: &Env) -> Option<PathBuf> {
    absolute(env, "XDG_CONFIG_HOME").map(|base| base.join("b24")).or_else(|| home(env).map(|home| default_config(&home)))
}

/// Returns the state folder in a home.
#[must_use]
pub fn default_state(home: &Path) -> PathBuf {
    home.join(".local/state/b24")
}

/// Returns the configuration folder in a home.
#[must_use]
pub fn default_config(home: &Path) -> PathBuf {
    home.join(".config/b24")
}

fn absolute(env: &Env, name: &str) -> Option<PathBuf> {
    env.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Returns whether a group is the owner's alone: it is the owner's first
/// group, bears the owner's name and lists nobody else. What such a group may
/// write, nobody else may. The superuser's group is never taken for one:
/// services are often members of it.
#[must_use]
pub fn is_private_group(uid: u32, gid: u32) -> bool {
    let owner = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let group = Group::from_gid(gid.into()).ok().flatten();
    match (owner, group) {
        (Some(owner), Some(group)) => is_alone((&owner.name, uid, owner.gid.as_raw()), (&group.name, gid, &group.mem)),
        _ => false,
    }
}

fn is_alone((owner, uid, first): (&str, u32, u32), (group, gid, members): (&str, u32, &[String])) -> bool {
    uid != 0 && first == gid && group == owner && members.iter().all(|member| member == owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_private_when_nobody_else_can_be_in_it() {
        let group = |uid, first, name, members: &[&str]| {
            let members: Vec<String> = members.iter().map(|name| (*name).to_owned()).collect();
            is_alone(("ann", uid, first), (name, 1000, &members))
        };
        assert!(group(1000, 1000, "ann", &[]));
        assert!(group(1000, 1000, "ann", &["ann"]));
        assert!(!group(1000, 1000, "ann", &["ann", "bob"]));
        assert!(!group(1000, 1000, "users", &[]));
        assert!(!group(1000, 1001, "ann", &[]));
        assert!(!group(0, 1000, "ann", &[]));
    }

    #[test]
    fn relative_folders_of_the_environment_are_not_followed() {
        let env = Env::new([("HOME".to_owned(), "/h".to_owned()), ("XDG_STATE_HOME".to_owned(), "x".to_owned())]);
        assert_eq!(state_folder(&env).unwrap(), Path::new("/h/.local/state/b24"));
        let env = Env::new([("HOME".to_owned(), "/h".to_owned()), ("XDG_CONFIG_HOME".to_owned(), "/c".to_owned())]);
        assert_eq!(config_folder(&env).unwrap(), Path::new("/c/b24"));
    }
}
