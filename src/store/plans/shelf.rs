//! The plans that lie in the folder: listed, cancelled, pruned.
//!
//! A file that is not the one that was saved counts as a file and nothing more:
//! neither its preview nor its expiry is believed, and it lies there until a
//! person cancels it.

use super::{Plan, PlanError, Plans, is_of_this_version, parse_time};
use crate::host::Random;
use crate::ids::PlanId;
use crate::store::locked::{self, StoreError};
use crate::store::{disk, temporary_name};
use chrono::{DateTime, Utc};

/// One file of the folder.
#[derive(Debug)]
pub enum Kept {
    /// The plan that was saved under this name.
    Sealed {
        /// The plan.
        plan: Box<Plan>,
        /// Whether it was cancelled.
        is_cancelled: bool,
        /// Whether its time is over.
        is_expired: bool,
    },
    /// A plan that was saved here by another version of b24.
    OfOtherVersion {
        /// Its id.
        id: PlanId,
        /// Whether its time is over.
        is_expired: bool,
    },
    /// Something else.
    Changed {
        /// The id that its name gives.
        id: PlanId,
        /// What is wrong, in words of ours.
        problem: String,
    },
}

/// What was cancelled.
#[derive(Debug)]
pub enum Cancelled {
    /// A plan, which stays and is not executed.
    Plan(PlanId),
    /// A file that is not the one that was saved: it was removed, and what was
    /// saved would count as cancelled if it were put back.
    Changed(PlanId),
}

/// What pruning did.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Plans that were deleted.
    pub expired: Vec<PlanId>,
    /// Files that were kept, since nothing in them can be believed.
    pub changed: Vec<PlanId>,
}

impl Plans {
    /// Returns every file of a plan, newest first.
    pub fn list(&self, now: DateTime<Utc>) -> Result<Vec<Kept>, StoreError> {
        let mut kept = Vec::new();
        for id in self.ids()? {
            kept.extend(self.look_at(&id, now));
        }
        kept.reverse();
        Ok(kept)
    }

    /// Returns what a file is; nothing if it is gone by now.
    fn look_at(&self, id: &PlanId, now: DateTime<Utc>) -> Option<Kept> {
        let is_expired = |expires: &str| parse_time(expires).is_none_or(|expires| expires <= now);
        let sealed = match self.sealed(id) {
            Ok(sealed) if !is_of_this_version(&sealed) => {
                return Some(Kept::OfOtherVersion {
                    id: id.clone(),
                    is_expired: is_expired(sealed["expires"].as_str().unwrap_or_default()),
                });
            }
            other => other,
        };
        match sealed.and_then(|sealed| Ok((Plans::understand(id, sealed)?, self.is_cancelled(id)?))) {
            Ok((plan, is_cancelled)) => Some(Kept::Sealed { is_expired: is_expired(&plan.expires), plan: Box::new(plan), is_cancelled }),
            Err(PlanError::NotFound(_) | PlanError::Cancelled(_)) => None,
            Err(error) => Some(Kept::Changed { id: id.clone(), problem: error.to_string() }),
        }
    }

    /// Marks a plan as not to be executed.
    pub fn cancel(&self, text: &str, random: &dyn Random) -> Result<Cancelled, PlanError> {
        let (id, is_changed) = match self.load(text) {
            Ok((id, _)) => (id, false),
            Err(PlanError::Changed { plan, .. }) => (plan, true),
            Err(error) => return Err(error),
        };
        if !self.is_cancelled(&id)? {
            locked::create_durable(&self.cancelled_path(&id), b"", &temporary_name(random))?;
        }
        self.cancelled_witness(&id).write("cancelled", random)?;
        if !is_changed {
            return Ok(Cancelled::Plan(id));
        }
        let path = self.path(&id);
        disk::remove(&path).map_err(StoreError::io("delete", &path))?;
        Ok(Cancelled::Changed(id))
    }

    /// Deletes plans that expired before `now`.
    pub fn prune(&self, now: DateTime<Utc>) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        for id in self.ids()? {
            match self.look_at(&id, now) {
                Some(Kept::Sealed { is_expired: true, .. } | Kept::OfOtherVersion { is_expired: true, .. }) => {
                    let path = self.path(&id);
                    disk::remove(&path).map_err(StoreError::io("delete", &path))?;
                    let _ = disk::remove(&self.cancelled_path(&id));
                    let _ = self.cancelled_witness(&id).remove();
                    pruned.expired.push(id);
                }
                Some(Kept::Sealed { .. } | Kept::OfOtherVersion { .. }) | None => {}
                Some(Kept::Changed { .. }) => pruned.changed.push(id),
            }
        }
        Ok(pruned)
    }

    /// Returns the ids that name a file. A file whose name is not exactly that
    /// of a plan is none.
    fn ids(&self) -> Result<Vec<PlanId>, StoreError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("read", &self.folder)(error)),
        };
        let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<PlanId> =
            names.filter_map(|name| PlanId::parse(name.strip_suffix(".json")?).filter(|id| format!("{id}.json") == name)).collect();
        ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(ids)
    }
}
