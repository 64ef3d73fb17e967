//! Waking a worker that sleeps between two polls: a file of its inbox changes.

use crate::host::{Clock, Random};
use crate::store::locked;
use crate::store::temporary_name;
use std::path::{Path, PathBuf};

fn file(inbox: &Path) -> PathBuf {
    inbox.join("wake")
}

/// Wakes the workers of an inbox. One that is not woken, also because the file
/// cannot be written, polls a little later.
pub fn wake(inbox: &Path, clock: &dyn Clock, random: &dyn Random) {
    let content = clock.boot_ns().to_string();
    let _ = locked::replace_durable(&file(inbox), content.as_bytes(), &temporary_name(random));
}

/// Returns what changes when the workers of an inbox are woken.
pub(super) fn mark(inbox: &Path) -> Option<Vec<u8>> {
    locked::read_if_exists(&file(inbox)).ok().flatten()
}
