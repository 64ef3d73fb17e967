//! Who holds and awaits the lock of a file, as the kernel tells it: for tests
//! that start somebody who is to wait, and must not go on before he does.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How often a test looks before it fails, or goes on without knowing: for a
/// minute or more.
const MOST_LOOKS: u32 = 3_000_000;

/// Blocks until so many wait for the lock of the file.
#[track_caller]
pub(crate) fn until_awaited(path: &Path, waiters: usize) {
    let inode = std::fs::metadata(path).unwrap().ino();
    for _ in 0..MOST_LOOKS {
        if locks(inode).iter().filter(|line| line.contains("->")).count() >= waiters {
            return;
        }
        std::thread::yield_now();
    }
    panic!("nobody waits for {}", path.display());
}

/// Blocks until nobody holds the lock of the file. A process that was just
/// started holds the locks of the one that started it until it runs its own
/// program.
pub(crate) fn until_free(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    for _ in 0..MOST_LOOKS {
        if locks(metadata.ino()).is_empty() {
            return;
        }
        std::thread::yield_now();
    }
}

/// Returns the lines about a file.
fn locks(inode: u64) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/locks").unwrap();
    let place = format!(":{inode} ");
    text.lines().filter(|line| line.contains("FLOCK") && line.contains(&place)).map(str::to_owned).collect()
}
