//! Files that a user names: parameters, variables, secrets, configuration.
//!
//! Everything of that kind is read here. What stands behind a name may be a
//! pipe, a device, or larger than memory: only a regular file is read, it is
//! opened without waiting, and never more of it than its use can need. Links
//! are followed, unlike in the state folder: the name is the user's.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest file, or standard input, that is taken as a value: 64 MB. The
/// request that carries it must fit as well.
pub const LONGEST_VALUE: u64 = 64 * 1024 * 1024;

/// Longest file of configuration, variables or a secret: 1 MB.
pub const LONGEST_SETTING: u64 = 1024 * 1024;

/// Why a file that was named cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pipe, a device, a folder, a socket.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It has more than its use can need.
    #[error("{} is larger than {} MB", path.display(), limit / (1024 * 1024))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is taken at most, in bytes.
        limit: u64,
    },
    /// It is not text.
    #[error("{} is not UTF-8", .0.display())]
    NotText(PathBuf),
}

impl GivenError {
    /// Returns whether there is no such file.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, GivenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A file that was read, and what the system says about what was opened: a
/// later look at the name could meet another file.
#[derive(Debug)]
pub struct Given {
    /// Its name.
    pub path: PathBuf,
    /// Owner, mode, device and number.
    pub metadata: Metadata,
    /// Whether it is a view of the system, such as `/proc`, and not a file.
    pub is_of_the_system: bool,
    content: Vec<u8>,
}

impl Given {
    /// Returns the content as text.
    pub fn into_text(self) -> Result<String, GivenError> {
        String::from_utf8(self.content).map_err(|_| GivenError::NotText(self.path))
    }

    /// Returns the content.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.content
    }
}

/// Reads a file that the user named, whole.
pub fn read_given_file(path: &Path, limit: u64) -> Result<Given, GivenError> {
    let failed = |source| GivenError::Io { path: path.to_owned(), source };
    let (file, metadata) = open_given_file(path)?;
    let mut content = Vec::new();
    Read::take(&file, limit + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > limit {
        return Err(GivenError::TooLarge { path: path.to_owned(), limit });
    }
    let is_of_the_system = rustix::fs::fstatfs(&file).is_ok_and(|stat| SYSTEM_TYPES.contains(&stat.f_type));
    Ok(Given { path: path.to_owned(), metadata, is_of_the_system, content })
}

/// Reads the first bytes of a file that the user named.
pub fn read_start(path: &Path, length: u64) -> Result<Vec<u8>, GivenError> {
    let (file, _) = open_given_file(path)?;
    let mut start = Vec::new();
    Read::take(&file, length).read_to_end(&mut start).map_err(|source| GivenError::Io { path: path.to_owned(), source })?;
    Ok(start)
}

/// Reads a stream to its end, if that comes before the limit.
pub fn read_stream(stream: &mut dyn Read, limit: u64) -> Result<Vec<u8>, GivenError> {
    let path = PathBuf::from("standard input");
    let mut content = Vec::new();
    stream.take(limit + 1).read_to_end(&mut content).map_err(|source| GivenError::Io { path: path.clone(), source })?;
    if content.len() as u64 > limit {
        return Err(GivenError::TooLarge { path, limit });
    }
    Ok(content)
}

/// File system types that show the system itself (statfs(2)): proc, sysfs,
/// debugfs, tracefs, cgroup (two), securityfs.
const SYSTEM_TYPES: &[i64] = &[0x9FA0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x0027_E0EB, 0x6367_7270, 0x7363_6673];

/// Opens without waiting for whoever might write to a pipe; what kind of file
/// it is, is asked of what was opened.
fn open_given_file(path: &Path) -> Result<(File, Metadata), GivenError> {
    use rustix::fs::OFlags;
    let failed = |source| GivenError::Io { path: path.to_owned(), source };
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        // A socket cannot be opened at all.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Err(GivenError::NotAFile(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(GivenError::NotAFile(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_given_file(&path, 5).unwrap().into_text().unwrap(), "12345");
        assert!(matches!(read_given_file(&path, 4), Err(GivenError::TooLarge { .. })));
        assert_eq!(read_start(&path, 2).unwrap(), b"12");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_given_file(&link, 5).is_ok());
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let socket = folder.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [folder.path(), &pipe, &socket, Path::new("/dev/zero"), Path::new("/dev/null")] {
            assert!(matches!(read_given_file(path, 5), Err(GivenError::NotAFile(_))), "{}", path.display());
        }
        assert!(read_given_file(&folder.path().join("none"), 5).unwrap_err().is_absent());
        assert!(read_given_file(Path::new("/proc/self/status"), 65_536).unwrap().is_of_the_system);
    }

    #[test]
    fn a_stream_that_does_not_end_is_left() {
        assert!(matches!(read_stream(&mut io::repeat(b'x'), 10), Err(GivenError::TooLarge { .. })));
        assert_eq!(read_stream(&mut &b"abc"[..], 3).unwrap(), b"abc");
    }
}
