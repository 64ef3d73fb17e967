//! Whether there is room for more events: tried out, because quotas and limits
//! of the process leave no other sign.

use crate::store::locked::{Locked, Mode, StoreError};
use std::path::Path;

/// How much is written to see whether there is room: the largest event that
/// is usual, some times over.
const TRIED: usize = 64 * 1024;

/// Writes to a file of the inbox and takes it back. What another worker is
/// trying right now is not tried twice.
pub fn try_room(inbox: &Path) -> Result<(), StoreError> {
    let Some(mut file) = Locked::try_open(&inbox.join("room"), Mode::Exclusive)? else { return Ok(()) };
    let written = file.write_at(0, &vec![0; TRIED]);
    let cut = file.truncate(0);
    written.and(cut)
}
