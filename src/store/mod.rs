//! Durable state: what lies where, and who may read it.
//!
//! ```text
//! install.key
//! portals/<id>/{portal.json, ledger/, sent/, open/, limiter.bin, operating/, retry.bin}
//! seen/   audit.head     second witnesses: of tokens and the key, of the audit
//! plans/<ulid>.json   audit/   tokens/<hash>.{json,lock}   emulator/
//! ```
//!
//! Folders are 0700 and files 0600, created with these modes. State belongs to
//! a portal and a user, not to a profile: two profiles of one user share keys
//! and limits.
//!
//! Lock order, so that nobody waits in a circle: plan, ledger record, marks,
//! token, limiter, audit. Only the ledger record and the token lock are held
//! while a request is under way.

pub mod audit;
pub mod config;
pub mod credentials;
pub mod disk;
pub mod given;
pub mod guard;
pub mod hole;
pub mod home;
pub mod ledger;
pub mod limiter;
pub mod locked;
#[cfg(test)]
mod locked_tests;
pub mod operating;
pub mod patience;
pub mod plans;
pub mod retry_budget;
pub mod tokens;
pub mod trust;
#[cfg(test)]
pub(crate) mod waiting;
pub mod witness;

use crate::error::{Code, Coded};
use crate::host::{Random, random_hex};
use locked::{Locked, Mode, StoreError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use witness::Witness;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no place for it.
    #[error("there is no home folder to keep state in")]
    NoHome,
    /// It is locked, and nothing says where it is but the environment.
    #[error("the state folder is locked, but neither the profile nor the password database says where it is")]
    NoFixedHome,
    /// Another user could change it.
    #[error("{} can be changed by other users", .0.display())]
    Shared(PathBuf),
    /// Locks and syncs do not hold there.
    #[error("{} is on a network file system, where locks and syncs cannot be relied on", .0.display())]
    Network(PathBuf),
    /// A file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coded for StateError {
    fn code(&self) -> Code {
        match self {
            StateError::NoHome | StateError::NoFixedHome | StateError::Shared(_) | StateError::Network(_) => Code::LocalState,
            StateError::Store(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            StateError::NoHome | StateError::Network(_) => {
                "State stands on a local disk: in the home folder, or where state-dir of the profile says".to_owned()
            }
            StateError::NoFixedHome => "Ask the person who keeps the profile to set state-dir in it".to_owned(),
            StateError::Shared(path) => format!("Take write permission from group and others: chmod go-w {}", path.display()),
            StateError::Store(error) => return error.hint(),
        })
    }
}

/// The state folder.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
    homes: Vec<PathBuf>,
}

impl StateDir {
    /// Names the state folder. Nothing is created.
    #[must_use]
    pub fn at(root: PathBuf) -> StateDir {
        StateDir { root, homes: home::fixed_home().map(Path::to_owned).into_iter().collect() }
    }

    /// Adds a folder that is taken for the user's home.
    #[must_use]
    pub fn within(mut self, home: Option<PathBuf>) -> StateDir {
        self.homes.extend(home);
        self
    }

    /// Creates the folder if needed and refuses one that cannot be trusted.
    pub fn prepare(&self) -> Result<(), StateError> {
        create_folder(&self.root)?;
        self.refuse_shared()?;
        refuse_network(&self.root)
    }

    /// Refuses a state folder that another user can change, and folders above it
    /// through which it could be replaced. In the home folder and in `/var`
    /// neither a group nor a sticky bit is an excuse: these are b24's own.
    fn refuse_shared(&self) -> Result<(), StateError> {
        let is_private_ground = |path: &Path| {
            path == self.root
                || self.homes.iter().any(|home| path.starts_with(home) && path != home)
                || (path.starts_with("/var") && path != Path::new("/var") && path != Path::new("/var/tmp"))
        };
        for path in self.root.ancestors().filter(|path| is_private_ground(path)) {
            let metadata = std::fs::metadata(path).map_err(StoreError::io("read", path))?;
            if metadata.mode() & 0o022 != 0 {
                return Err(StateError::Shared(path.to_owned()));
            }
        }
        trust::refuse_changeable(&self.root).map_err(|trust::Untrusted(path)| StateError::Shared(path))
    }

    /// Returns the folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of one portal.
    #[must_use]
    pub fn portal(&self, id: &str) -> PathBuf {
        self.root.join("portals").join(file_name(id))
    }

    /// Returns the ids of the portals that have a folder here.
    #[must_use]
    pub fn portals(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("portals")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Returns the place of a kind of state that is not a portal's.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the folder of the events of a portal.
    #[must_use]
    pub fn queue(&self, id: &str) -> PathBuf {
        self.root.join("queue").join(file_name(id))
    }

    /// Returns this installation's key, by which values are blinded in the
    /// audit and plans are sealed; makes it at first use.
    pub fn install_key(&self, random: &dyn Random) -> Result<[u8; 32], StoreError> {
        let path = self.root.join("install.key");
        let witness = Witness::at(self.root.join("seen").join("install.key"));
        let unusable = |problem| StoreError::unusable(&path, problem);
        let known = witness.read()?;
        loop {
            if let Some(bytes) = locked::read_if_exists(&path)? {
                let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| unusable("does not hold a key of 32 bytes"))?;
                let check = key_check(&key);
                match &known {
                    Some(known) if *known != check => return Err(lost_key(&path, "is not the key that it was", &witness)),
                    Some(_) => {}
                    None if key == [0; 32] => return Err(unusable("holds no key")),
                    None => witness.write(&check, random)?,
                }
                return Ok(key);
            }
            if witness.is_there()? {
                return Err(lost_key(&path, "is missing", &witness));
            }
            let mut key = [0; 32];
            random.fill(&mut key);
            if locked::create_durable(&path, &key, &temporary_name(random))? {
                witness.write(&key_check(&key), random)?;
                return Ok(key);
            }
        }
    }
}

/// Tells whether a key is the one that was made, and nothing about it.
fn key_check(key: &[u8; 32]) -> String {
    crate::json::sha256_hex([b"b24-key-check-v1\0".as_slice(), key].concat())[..32].to_owned()
}

fn lost_key(path: &Path, problem: &str, witness: &Witness) -> StoreError {
    let next = format!(
        "Put it back from a copy. A person who moves it and {} away gets a new key: plans saved before are void then, and values in the audit cannot be compared with earlier ones",
        witness.path().display()
    );
    StoreError::lost(path, problem, next)
}

/// Returns the name of a temporary file that no other process uses.
#[must_use]
pub fn temporary_name(random: &dyn Random) -> String {
    format!(".tmp-{}-{}", std::process::id(), random_hex(random, 8))
}

/// Creates a folder and its parents, readable by the user alone. The names of
/// new folders are durable when this returns, also of those that another
/// process has made a moment ago, or before it died: a record is no safer than
/// the folders above it.
pub fn create_folder(path: &Path) -> Result<(), StoreError> {
    if disk::is_settled_folder(path) {
        return Ok(());
    }
    let new: Vec<&Path> = path.ancestors().take_while(|folder| !disk::is_settled_folder(folder)).collect();
    match disk::create_unsettled_folders(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(StoreError::io("create", path)(error)),
        _ => {}
    }
    new.iter().try_for_each(|folder| locked::sync_parent(folder))?;
    new.iter().for_each(|folder| disk::settle_folder(folder));
    Ok(())
}

/// Locks a file and creates its folder first when that is missing.
fn open_with_folder(path: &Path, mode: Mode, wait: Duration) -> Result<Locked, StoreError> {
    match Locked::open(path, mode, wait) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create_folder(path.parent().unwrap_or(Path::new("/")))?;
            Locked::open(path, mode, wait)
        }
        opened => opened,
    }
}

/// Returns an id as a file name: letters, digits, dots, dashes and colons.
#[must_use]
pub fn file_name(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':') { c } else { '_' }).collect()
}

/// File system types whose locks or syncs may not reach other processes or the
/// disk (statfs(2)): NFS, SMB, CIFS, SMB2, 9p, AFS (two), Ceph, FUSE.
const NETWORK_TYPES: &[i64] = &[0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997, 0x5346_414F, 0x6B41_4653, 0x00C3_6400, 0x6573_5546];

fn refuse_network(root: &Path) -> Result<(), StateError> {
    let stat = rustix::fs::statfs(root).map_err(|error| StoreError::io("read", root)(error.into()))?;
    match NETWORK_TYPES.contains(&stat.f_type) {
        true => Err(StateError::Network(root.to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SystemRandom;
    use std::os::unix::fs::PermissionsExt;

    fn state(root: &Path) -> StateDir {
        StateDir::at(root.to_owned())
    }

    #[test]
    fn what_stands_in_the_place_of_a_folder_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("place");
        std::fs::write(&path, "").unwrap();
        for mode in [0o644, 0o1700] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let _ = create_folder(&path);
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
        // A sticky folder of others, too, below which a folder is made.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        create_folder(&folder.path().join("a/b")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(folder.path()), mode(&folder.path().join("a")), mode(&folder.path().join("a/b"))), (0o1777, 0o700, 0o700));
    }

    #[test]
    fn the_key_of_an_installation_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(&folder.path().join("state"));
        state.prepare().unwrap();
        let key = state.install_key(&SystemRandom).unwrap();
        assert_eq!(state.install_key(&SystemRandom).unwrap(), key);
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(state(folder.path()).prepare(), Err(StateError::Shared(_))));
    }
}
