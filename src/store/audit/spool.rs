//! Records that wait for the log to work again: one durable file each.

use super::AuditLog;
use super::journal::temporary_name;
use super::place::names;
use crate::crash;
use crate::host::{random_hex, timestamp, unix_ms};
use crate::store::create_folder;
use crate::store::locked::{StoreError, create_durable, read_if_exists, sync_parent};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// How many records one append takes in; the rest waits for the next one.
const AT_ONCE: usize = 64;

/// A record that waits.
pub(super) struct Waiting {
    path: PathBuf,
    pub(super) fields: Map<String, Value>,
}

/// Writes a record into the spool.
pub(super) fn keep(log: &AuditLog, fields: &Map<String, Value>) -> Result<(), StoreError> {
    let folder = log.place.spool();
    create_folder(folder)?;
    sync_parent(folder)?;
    let mut fields = fields.clone();
    fields.insert("spooled".to_owned(), Value::from(timestamp(log.clock.now())));
    let name = format!("{:014}-{}.json", unix_ms(log.clock.as_ref()), random_hex(log.random.as_ref(), 8));
    create_durable(&folder.join(name), Value::Object(fields).to_string().as_bytes(), &temporary_name(log))?;
    Ok(())
}

/// Returns the records that wait, the oldest first. A file that holds no record
/// is passed over.
pub(super) fn waiting(folder: &Path) -> Result<Vec<Waiting>, StoreError> {
    let mut paths = paths(folder)?;
    paths.truncate(AT_ONCE);
    let mut waiting = Vec::new();
    for path in paths {
        let fields = read_if_exists(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        waiting.extend(fields.map(|fields| Waiting { path, fields }));
    }
    Ok(waiting)
}

/// Returns how many records wait.
pub(super) fn count(folder: &Path) -> Result<usize, StoreError> {
    Ok(paths(folder)?.len())
}

/// Removes what is in the log now. A file that stays is appended once more,
/// which the verifier allows for.
pub(super) fn done(appended: &[Waiting]) {
    for Waiting { path, .. } in appended {
        crash::point("audit.before_unspool");
        let _ = std::fs::remove_file(path);
    }
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths: Vec<PathBuf> = names(folder)?
        .into_iter()
        .map(|name| folder.join(name))
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    paths.sort_unstable();
    Ok(paths)
}
