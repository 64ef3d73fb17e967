//! Who holds and awaits the lock of a file, as the kernel tells it: for tests
//! that start somebody who is to wait, and must not go on before he does.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a test looks before it fails, or goes on without knowing.
const LONGEST: Duration = Duration::from_secs(60);

/// Blocks until so many wait for the lock of the file.
#[track_caller]
pub(crate) fn until_awaited(path: &Path, waiters: usize) {
    let inode = std::fs::metadata(path).unwrap().ino();
    let start = Instant::now();
    while locks(inode).iter().filter(|line| line.contains("->")).count() < waiters {
        assert!(start.elapsed() < LONGEST, "nobody waits for {}", path.display());
        std::thread::yield_now();
    }
}

/// Blocks until nobody holds the lock of the file. A process that was just
/// started holds the locks of the one that started it until it runs its own
/// program.
pub(crate) fn until_free(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let start = Instant::now();
    while !locks(metadata.ino()).is_empty() && start.elapsed() < LONGEST {
        std::thread::yield_now();
    }
}

/// Returns the lines about a file.
fn locks(inode: u64) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/locks").unwrap();
    let place = format!(":{inode} ");
    text.lines().filter(|line| line.contains("FLOCK") && line.contains(&place)).map(str::to_owned).collect()
}
