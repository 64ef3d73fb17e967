//! Records that wait for the log to work again: one durable file each, with a
//! check in a second line.
//!
//! A file that was damaged is not passed over: what is left of it becomes a
//! record of its own, so that the log says what was lost.

use super::AuditLog;
use super::journal::temporary_name;
use super::place::names;
use crate::crash;
use crate::host::{random_hex, timestamp, unix_ms};
use crate::store::locked::{StoreError, create_durable, read_if_exists, sync_parent};
use crate::store::{create_folder, disk};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// How many records one append takes in; the rest waits for the next one.
const AT_ONCE: usize = 64;

/// How much of a damaged file is kept.
const REMAINS: usize = 16 * 1024;

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
    let text = Value::Object(fields).to_string();
    let text = format!("{text}\n{}\n", crate::json::sha256_hex(&text));
    create_durable(&folder.join(name), text.as_bytes(), &temporary_name(log))?;
    Ok(())
}

/// Returns the records that wait, the oldest first.
pub(super) fn waiting(folder: &Path) -> Result<Vec<Waiting>, StoreError> {
    let mut paths = paths(folder)?;
    paths.truncate(AT_ONCE);
    let mut waiting = Vec::new();
    for path in paths {
        let Some(bytes) = read_if_exists(&path)? else { continue };
        let fields = fields(&bytes).unwrap_or_else(|| remains(&path, &bytes));
        waiting.push(Waiting { path, fields });
    }
    Ok(waiting)
}

/// Reads a record; versions before this one wrote no check.
fn fields(bytes: &[u8]) -> Option<Map<String, Value>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = match text.split_once('\n') {
        Some((text, check)) => (check.strip_suffix('\n') == Some(&crate::json::sha256_hex(text))).then_some(text)?,
        None => text,
    };
    serde_json::from_str(text).ok()
}

/// Returns the record about a file that holds none.
fn remains(path: &Path, bytes: &[u8]) -> Map<String, Value> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Map::from_iter([
        ("type".to_owned(), Value::from("damaged")),
        ("file".to_owned(), Value::from(name)),
        ("bytes".to_owned(), Value::from(bytes.len())),
        ("content".to_owned(), Value::from(hex::encode(&bytes[..bytes.len().min(REMAINS)]))),
    ])
}

/// Returns the names of the files that hold no record.
pub(super) fn unreadable(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for path in paths(folder)? {
        if read_if_exists(&path)?.is_some_and(|bytes| fields(&bytes).is_none()) {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
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
        let _ = disk::remove(path);
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
