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

/// The page of `event.offline.list`.
const PAGE: u64 = 50;

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

    /// Returns how many rows each reservation on the portal has, and whether
    /// the queue is empty.
    fn reserved(&mut self) -> Tried<(BTreeMap<String, u32>, bool)> {
        let mut reserved = BTreeMap::new();
        let (mut start, mut rows) = (Some(0), 0);
        while let Some(from) = start {
            let page = self.list(&json!({"!=PROCESS_ID": ""}), from)?;
            rows += page.rows;
            for (process, count) in page.reserved {
                *reserved.entry(process).or_default() += count;
            }
            start = page.next.filter(|next| *next >= from + PAGE);
        }
        let is_empty = rows == 0 && self.list(&json!({}), 0)?.rows == 0;
        Ok((reserved, is_empty))
    }

    fn list(&mut self, filter: &serde_json::Value, start: u64) -> Tried<answer::Page> {
        let mut params = json!({"filter": filter, "order": {"ID": "ASC"}, "start": start});
        if let Some(connector) = &self.settings.connector {
            params["auth_connector"] = json!(connector);
        }
        let proposal = Proposal { name: "event.offline.list".to_owned(), params, api: Some(Api::V2) };
        let handling = Handling { consent: Consent::default(), key: None, reuse: Reuse::plain() };
        let completed = pipeline::run(self.session, proposal, &handling).map_err(Box::new)?;
        answer::page(&completed.body).ok_or_else(|| {
            Box::new(Failure::new(Code::Temporary, "event.offline.list gave an answer that is no list").sent(Outcome::NotApplied))
        })
    }

    /// Reads a reservation again, which can be repeated at will.
    fn reread(&mut self, process: &str, limit: u32) -> Tried<()> {
        let call = QueueCall::Reread { process: process.to_owned(), limit, connector: self.settings.connector.clone() };
        let completed = self.repeatable(&call)?;
        let taken = self.usable(&completed)?;
        self.ask(|stored| Message::Arrived { events: taken.events, closes: None, stored })?;
        Ok(())
    }
}
