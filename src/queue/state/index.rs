//! The indexes over the events that are not over: whose turn it is, and what
//! is still to be said of whom.

use super::{Entry, Phase, State};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The unfinished events of one entity.
#[derive(Debug, Default)]
pub(super) struct EntityQueue {
    waiting: BTreeSet<(u64, u64)>,
    running: usize,
    pub(super) listed: Option<(i64, u64)>,
}

impl State {
    pub(super) fn index(&mut self, seq: u64, entry: &Entry) {
        if entry.is_unfinished() {
            if let Some(reservation) = entry.reservation() {
                *self.processes.entry(reservation.process.clone()).or_default() += 1;
            }
            let line = self.entities.entry(entry.entity.clone()).or_default();
            match entry.phase {
                Phase::Running { .. } => line.running += 1,
                _ => {
                    line.waiting.insert((entry.order, seq));
                }
            }
            self.relist(&entry.entity, Some((seq, entry.due)));
        }
        match &entry.phase {
            Phase::Dead { buried: false, .. } => {
                self.unburied.insert(seq);
            }
            Phase::Done { .. } | Phase::Dead { .. } if entry.reservation().is_some() => {
                self.unsettled.insert(seq);
            }
            Phase::Waiting | Phase::Running { .. } | Phase::Done { .. } | Phase::Dead { .. } => {}
        }
    }

    pub(super) fn unindex(&mut self, seq: u64, entry: &Entry) {
        if entry.is_unfinished() {
            if let Some(process) = entry.reservation().map(|reservation| &reservation.process) {
                let left = self.processes.get(process).copied().unwrap_or(0).saturating_sub(1);
                match left {
                    0 => self.processes.remove(process),
                    left => self.processes.insert(process.clone(), left),
                };
            }
            if let Some(line) = self.entities.get_mut(&entry.entity) {
                match entry.phase {
                    Phase::Running { .. } => line.running -= 1,
                    _ => {
                        line.waiting.remove(&(entry.order, seq));
                    }
                }
            }
            self.relist(&entry.entity, None);
        }
        self.unsettled.remove(&seq);
        self.unburied.remove(&seq);
    }

    /// Lists the first event of an entity as one that can be handed over, or
    /// takes it off the list. `arriving` is one that is not in the table yet.
    fn relist(&mut self, entity: &Arc<str>, arriving: Option<(u64, i64)>) {
        let Some(line) = self.entities.get_mut(entity) else { return };
        if let Some(listed) = line.listed.take() {
            self.heads.remove(&listed);
        }
        if line.waiting.is_empty() && line.running == 0 {
            self.entities.remove(entity);
            return;
        }
        if line.running > 0 {
            return;
        }
        let first = line.waiting.first().map(|(_, seq)| *seq);
        let due = first.and_then(|first| match arriving {
            Some((seq, due)) if seq == first => Some(due),
            _ => self.entries.get(&first).map(|entry| entry.due),
        });
        if let (Some(seq), Some(due)) = (first, due) {
            line.listed = Some((due, seq));
            self.heads.insert((due, seq));
        }
    }
}
