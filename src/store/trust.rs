//! Who else could change a file: the file itself, its folder, and every folder
//! above.
//!
//! Who can write to one of them chooses what stands there: portal, OAuth
//! server, locks, secrets. A folder with the sticky bit, such as `/tmp`, lets
//! others add names but neither remove nor replace one; what lies in it is
//! judged by its own owner and mode.

use super::home::is_private_group;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Somebody else can change what was to be trusted.
#[derive(Debug, thiserror::Error)]
#[error("{} can be changed by other users", .0.display())]
pub struct Untrusted(pub PathBuf);

impl Untrusted {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        format!("It must be yours or the superuser's, and writable for nobody else: chmod go-w {}", self.0.display())
    }
}

/// Refuses a path of which another user could change a part. Both the path as
/// it is written and the one that it leads to are looked at; a part that is not
/// there yet cannot be changed.
pub fn refuse_changeable(path: &Path) -> Result<(), Untrusted> {
    let real = std::fs::canonicalize(path);
    let real = real.ok().filter(|real| real != path);
    [Some(path), real.as_deref()].into_iter().flatten().flat_map(Path::ancestors).try_for_each(|part| {
        if part.as_os_str().is_empty() {
            return Ok(());
        }
        match std::fs::metadata(part) {
            Ok(metadata) if is_changeable(&metadata) => Err(Untrusted(part.to_owned())),
            // What cannot be looked at is not there, or reading will fail.
            Ok(_) | Err(_) => Ok(()),
        }
    })
}

/// Returns whether another user than its owner, or another owner than this
/// user and the superuser, can change it.
#[must_use]
pub fn is_changeable(metadata: &Metadata) -> bool {
    let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
    let is_sticky_folder = metadata.is_dir() && mode & 0o1000 != 0;
    let is_open = mode & 0o002 != 0 || (mode & 0o020 != 0 && !is_private_group(uid, gid));
    (is_open && !is_sticky_folder) || !(is_mine(uid) || uid == 0 || is_unmapped(uid))
}

fn is_mine(uid: u32) -> bool {
    // b24 never changes it, and every part of every path is compared with it.
    static MINE: LazyLock<u32> = LazyLock::new(|| rustix::process::geteuid().as_raw());
    uid == *MINE
}

/// Returns whether a number stands for all owners that this user namespace
/// does not know: in a sandbox that maps one user, `/` belongs to it. Who that
/// is cannot be told; that nobody may write is what is left to check.
fn is_unmapped(uid: u32) -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid").trim().parse().unwrap_or(65_534);
    uid == overflow && read("/proc/self/uid_map").split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_part_of_a_path_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (above, below) = (folder.path().join("above"), folder.path().join("above/below"));
        std::fs::create_dir_all(&below).unwrap();
        let file = below.join("file");
        std::fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(&above, 0o755);
        mode(&below, 0o700);
        mode(&file, 0o644);
        refuse_changeable(&file).unwrap();
        refuse_changeable(&below.join("none")).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&below, &link).unwrap();
        for path in [&above, &below, &file] {
            let before = std::fs::metadata(path).unwrap().mode();
            mode(path, 0o702 | (before & 0o055));
            assert_eq!(refuse_changeable(&file).unwrap_err().0, *path);
            assert!(refuse_changeable(&link.join("file")).is_err(), "{}", path.display());
            mode(path, before);
        }
        mode(&above, 0o1777);
        refuse_changeable(&file).unwrap();
        mode(&file, 0o1646);
        assert!(refuse_changeable(&file).is_err(), "the sticky bit of a file says nothing");
    }
}
