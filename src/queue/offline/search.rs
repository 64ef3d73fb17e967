//! Looking on the portal for what lost answers may have hidden.

use super::{OfflineSource, Tried, adopt, answer};
use crate::catalog::Api;
use crate::error::{Code, Failure, Outcome};
use crate::gate::{Consent, Proposal, QueueCall};
use crate::pipeline::{self, Handling};
use crate::queue::line::CallKind;
use crate::queue::message::{Losses, Message};
use crate::store::ledger::Reuse;
use serde_json::json;
use std::collections::BTreeMap;

/// How often the portal is searched for reservations that nobody works on.
const SWEEP_NS: u64 = 600_000_000_000;

/// How long after a lost answer the portal is searched again.
const SEARCH_NS: u64 = 5_000_000_000;

impl OfflineSource<'_> {
    /// Searches the portal for what lost answers may have hidden, after a loss
    /// and now and then. Returns whether something was found.
    pub(super) fn search_if_due(&mut self) -> Tried<bool> {
        let now = self.session.tools.clock.boot_ns();
        let age = self.searched_ns.map(|searched| now.saturating_sub(searched));
        let losses: Losses = self.ask(|answer| Message::Losses { processes: Vec::new(), answer })?;
        let (repeatable, reserving): (Vec<_>, Vec<_>) = losses.calls.into_iter().partition(|call| call.kind == CallKind::Repeatable);
        for call in repeatable {
            self.close(&call.nonce, "its worker died; the call is made again where it is needed")?;
        }
        let sweep = u64::try_from(self.settings.adopt_after.as_nanos()).unwrap_or(u64::MAX).clamp(SEARCH_NS, SWEEP_NS);
        let is_due = match age {
            None => true,
            // When the portal has no more events, the search finds that out.
            Some(age) if !reserving.is_empty() => age >= SEARCH_NS || self.answer_was_lost || self.misses_answers,
            Some(age) => age >= sweep,
        };
        if !is_due {
            return Ok(false);
        }
        let found = self.search()?;
        (self.searched_ns, self.answer_was_lost) = (Some(now), false);
        Ok(found)
    }

    fn search(&mut self) -> Tried<bool> {
        let (reserved, is_empty) = self.reserved()?;
        let losses = self.ask(|answer| Message::Losses { processes: reserved.keys().cloned().collect(), answer })?;
        let now = self.session.tools.clock.now().timestamp_millis();
        let adoption = adopt::decide(&losses.calls, &losses.unknown, (now, self.settings.adopt_after), is_empty);
        if !adoption.foreign.is_empty() {
            self.tell_of_foreign(&adoption.foreign, &reserved)?;
            self.tell(Message::Foreign(adoption.foreign))?;
        }
        for process in &adoption.adopt {
            let rows = reserved.get(process).copied().unwrap_or_default();
            self.reread(process, rows.max(self.settings.batch))?;
            self.tell(Message::Note("notice", "adopted", format!("{rows} events of a reservation whose answer was lost were read again")))?;
        }
        for nonce in &adoption.closed {
            self.close(nonce, "the worker searched the portal for what the call had reserved")?;
        }
        Ok(!adoption.adopt.is_empty())
    }

    /// Says, once in a run, that events are in other hands: nobody must take
    /// the queue for empty.
    fn tell_of_foreign(&mut self, foreign: &[String], reserved: &BTreeMap<String, u32>) -> Tried<()> {
        let new: Vec<&String> = foreign.iter().filter(|process| self.foreign_told.insert((*process).clone())).collect();
        if new.is_empty() {
            return Ok(());
        }
        let rows: u32 = new.iter().filter_map(|process| reserved.get(*process)).sum();
        let text = format!(
            "the portal has {rows} events under reservations that are not of this inbox; they are taken over when they have been seen for \
             {} s (--adopt-after), if nobody clears them before",
            self.settings.adopt_after.as_secs_f64()
        );
        self.tell(Message::Note("warning", "foreign_reservation", text))
    }

    /// Returns how many rows each reservation on the portal has, and whether
    /// the queue is empty.
    fn reserved(&mut self) -> Tried<(BTreeMap<String, u32>, bool)> {
        let mut reserved = BTreeMap::new();
        // By ID and not by page: other workers clear rows meanwhile, which
        // would move the others to pages that were read already.
        let (mut last, mut rows) = (0, 0);
        loop {
            let page = self.list(&json!({"!=PROCESS_ID": "", ">ID": last}))?;
            rows += page.rows;
            for (process, count) in page.reserved {
                *reserved.entry(process).or_default() += count;
            }
            if !page.has_more {
                break;
            }
            let next = page.last.filter(|next| *next > last).ok_or_else(|| Box::new(no_list("a page that leads to no other")))?;
            last = next;
        }
        let is_empty = rows == 0 && self.list(&json!({}))?.rows == 0;
        Ok((reserved, is_empty))
    }

    fn list(&mut self, filter: &serde_json::Value) -> Tried<answer::Page> {
        let mut params = json!({"filter": filter, "order": {"ID": "ASC"}});
        if let Some(connector) = &self.settings.connector {
            params["auth_connector"] = json!(connector);
        }
        let proposal = Proposal { name: "event.offline.list".to_owned(), params, api: Some(Api::V2) };
        let handling = Handling { consent: Consent::default(), key: None, reuse: Reuse::plain() };
        let completed = pipeline::run(self.session, proposal, &handling).map_err(Box::new)?;
        answer::page(&completed.body).ok_or_else(|| Box::new(no_list("an answer that is no list")))
    }

    /// Reads a reservation again, which can be repeated at will.
    fn reread(&mut self, process: &str, limit: u32) -> Tried<()> {
        let call = QueueCall::Reread { process: process.to_owned(), limit, connector: self.settings.connector.clone() };
        let completed = self.repeatable(&call)?;
        let events = self.usable(&completed)?;
        self.ask(|stored| Message::Arrived { events, closes: None, stored })?;
        Ok(())
    }
}

fn no_list(what: &str) -> Failure {
    Failure::new(Code::Temporary, format!("event.offline.list gave {what}")).sent(Outcome::NotApplied)
}
