//! What a portal is called in its records, fixed at first use.
//!
//! Earlier versions took every name of this machine for a portal of its own.
//! State that they left must go on counting, and its records bear the name of
//! the portal in their own. So where there is such state and none under the
//! present identity, the old name stays in use: `portal.json` under the present
//! identity says so. Where there are several, the others are looked at before
//! every write.

use super::Tools;
use crate::host;
use crate::ids;
use crate::store::locked::{self, StoreError};
use crate::store::{StateDir, create_folder, temporary_name};
use serde_json::{Value, json};
use std::path::Path;

/// What a portal is called here.
pub(super) struct Known {
    /// The name under which everything is kept.
    pub(super) identity: String,
    /// Other names under which something may be found.
    pub(super) earlier: Vec<String>,
}

/// Finds out what a portal is called, and writes it down at first use.
pub(super) fn settle(state: &StateDir, identity: &str, tools: &Tools) -> Result<Known, StoreError> {
    let path = state.portal(identity).join("portal.json");
    let names = names_of(state, identity)?;
    let bytes = match locked::read_if_exists(&path)? {
        Some(bytes) => Some(bytes),
        None => {
            fix(&path, names.first().map_or(identity, String::as_str), tools)?;
            locked::read_if_exists(&path)?
        }
    };
    // Under another name there would be another ledger: of a file that was
    // changed nothing is believed.
    let is_a_name = |name: &String| name == identity || ids::identity_of(name) == identity;
    let name = bytes.and_then(|bytes| name_of(&bytes)).filter(is_a_name);
    let fixed = name.ok_or_else(|| StoreError::unusable(&path, "does not say what this portal is called"))?;
    let mut earlier = names;
    if state.portal(identity).join("ledger").exists() {
        earlier.push(identity.to_owned());
    }
    earlier.retain(|name| *name != fixed);
    create_folder(&state.portal(&fixed))?;
    Ok(Known { identity: fixed, earlier })
}

/// Returns the names, in order, that earlier versions gave to the portal with
/// this identity.
fn names_of(state: &StateDir, identity: &str) -> Result<Vec<String>, StoreError> {
    if !identity.starts_with("127.") {
        return Ok(Vec::new());
    }
    // Every call passes here: only folders of this port, and not our own, can
    // hold another name, and only they are read.
    let port = identity.rsplit_once(':').map_or("", |(_, port)| port);
    let may_hold_one = |folder: &String| folder != identity && (port.is_empty() || folder.ends_with(&format!(":{port}")));
    let mut names = Vec::new();
    for folder in state.portals().into_iter().filter(may_hold_one) {
        if let Some(name) = name_in(&state.portal(&folder).join("portal.json"))?
            && ids::identity_of(&name) == identity
            && name != identity
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn name_in(path: &Path) -> Result<Option<String>, StoreError> {
    Ok(locked::read_if_exists(path)?.and_then(|bytes| name_of(&bytes)))
}

fn name_of(row: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(row).ok()?["identity"].as_str().map(str::to_owned)
}

fn fix(path: &Path, name: &str, tools: &Tools) -> Result<(), StoreError> {
    create_folder(path.parent().unwrap_or(path))?;
    let row = json!({"v": 1, "identity": name, "first_used": host::timestamp(tools.clock.now())});
    locked::create_durable(path, row.to_string().as_bytes(), &temporary_name(tools.random.as_ref())).map(drop)
}
