//! What `/healthz` says: whether an event that came now would be stored.
//!
//! The words are few and name no file: whoever can reach the port can read
//! them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Why events would not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// Who stores them has ended; the process ends, too.
    ConsumerGone,
    /// There is no room on the disk, or it takes no writes.
    DiskFull,
    /// Too many events wait to be handled.
    InboxFull,
    /// The last event was not stored in time.
    NotStored,
}

impl Ailment {
    /// Returns the word that is answered.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Ailment::ConsumerGone => "consumer_gone",
            Ailment::DiskFull => "disk_full",
            Ailment::InboxFull => "inbox_full",
            Ailment::NotStored => "not_stored",
        }
    }
}

/// How the receiver and whoever stores its events are, in the hands of both.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeSet<Ailment>>>);

impl Health {
    /// Says that something is wrong.
    pub fn ails(&self, ailment: Ailment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ailment);
    }

    /// Says that it is right again.
    pub fn recovers(&self, ailment: Ailment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&ailment);
    }

    /// Returns the worst that is wrong.
    #[must_use]
    pub fn worst(&self) -> Option<Ailment> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told_until_it_is_over() {
        let health = Health::default();
        assert_eq!(health.worst(), None);
        health.ails(Ailment::InboxFull);
        health.clone().ails(Ailment::DiskFull);
        assert_eq!(health.worst().map(Ailment::text), Some("disk_full"));
        health.recovers(Ailment::DiskFull);
        assert_eq!(health.worst(), Some(Ailment::InboxFull));
    }
}
