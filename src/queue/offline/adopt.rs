//! Which reservations on the portal are this worker's lost ones.
//!
//! What Bitrix24 guarantees (b24restdocs: api-reference/events/offline-events.md,
//! event-offline-get.md, event-offline-list.md): `event.offline.get` with
//! `clear=0` stamps the events that it returns with a new `process_id` and
//! hides them from other calls; a call with that `process_id` returns them
//! again until they are cleared; `event.offline.list` shows them, with their
//! `PROCESS_ID`. It does not say which client a reservation belongs to. So when
//! the answer that names it is lost, what is left is a reservation that nobody
//! knows. It is taken for ours when as many new ones are there as answers were
//! lost, and otherwise when it has been there for so long that no living
//! worker can be at it.

use crate::queue::line::{CallKind, OpenCall};
use std::time::Duration;

/// How long a call whose answer was lost may still be carried out, in
/// milliseconds: 20 s until the connection is given up, 60 s that the portal
/// gives a request, and 40 s to be safe.
pub(super) const FENCE_MS: i64 = 120_000;

/// What is done about unknown reservations.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adoption {
    /// They are read again and handled.
    pub(super) adopt: Vec<String>,
    /// They are remembered.
    pub(super) foreign: Vec<String>,
    /// Lost calls that are accounted for.
    pub(super) closed: Vec<String>,
}

/// Decides about the reservations that are not in the inbox, each with the
/// time at which it was seen first. `is_empty` says that the portal's queue
/// holds nothing at all.
pub(super) fn decide(
    calls: &[OpenCall],
    unknown: &[(String, Option<i64>)],
    (now, adopt_after): (i64, Duration),
    is_empty: bool,
) -> Adoption {
    let lost: Vec<&OpenCall> = calls.iter().filter(|call| call.kind == CallKind::Reserve).collect();
    let oldest = lost.iter().map(|call| call.at).min().unwrap_or(i64::MAX);
    let adopt_after = i64::try_from(adopt_after.as_millis()).unwrap_or(i64::MAX);
    let is_fresh = |seen: Option<i64>| seen.is_none_or(|seen| seen >= oldest);
    let fresh = unknown.iter().filter(|(_, seen)| is_fresh(*seen)).count();
    let are_ours = fresh > 0 && fresh <= lost.len();
    let mut adoption = Adoption::default();
    for (process, seen) in unknown {
        let is_old = now.saturating_sub(seen.unwrap_or(now)) >= adopt_after;
        if is_old || (are_ours && is_fresh(*seen)) {
            adoption.adopt.push(process.clone());
        } else {
            adoption.foreign.push(process.clone());
        }
    }
    let is_accounted_for = |call: &OpenCall| is_empty || (are_ours && fresh == lost.len()) || now.saturating_sub(call.at) > FENCE_MS;
    adoption.closed.extend(lost.iter().filter(|call| is_accounted_for(call)).map(|call| call.nonce.clone()));
    adoption
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn lost(at: i64) -> OpenCall {
        OpenCall { nonce: format!("n{at}"), kind: CallKind::Reserve, worker: "w".to_owned(), at }
    }

    fn unknown(processes: &[(&str, Option<i64>)]) -> Vec<(String, Option<i64>)> {
        processes.iter().map(|(process, seen)| ((*process).to_owned(), *seen)).collect()
    }

    #[test]
    fn a_new_reservation_after_a_lost_answer_is_ours() {
        let adoption = decide(&[lost(1000)], &unknown(&[("p", None)]), (2000, HOUR), false);
        assert_eq!((adoption.adopt, adoption.closed), (vec!["p".to_owned()], vec!["n1000".to_owned()]));
    }

    #[test]
    fn a_reservation_that_was_there_before_is_somebody_elses_until_it_is_old() {
        let seen = unknown(&[("p", Some(500))]);
        assert_eq!(decide(&[lost(1000)], &seen, (2000, HOUR), false).adopt, Vec::<String>::new());
        assert_eq!(decide(&[], &seen, (500 + 3_600_000, HOUR), false).adopt, ["p"]);
    }

    #[test]
    fn more_reservations_than_lost_answers_are_left_alone() {
        let adoption = decide(&[lost(1000)], &unknown(&[("p", None), ("q", None)]), (2000, HOUR), false);
        assert!(adoption.adopt.is_empty() && adoption.closed.is_empty());
        assert_eq!(adoption.foreign, ["p", "q"]);
    }

    #[test]
    fn a_lost_call_is_closed_when_it_can_no_longer_be_carried_out() {
        assert!(decide(&[lost(1000)], &[], (2000, HOUR), false).closed.is_empty());
        assert_eq!(decide(&[lost(1000)], &[], (1001 + FENCE_MS, HOUR), false).closed, ["n1000"]);
        assert_eq!(decide(&[lost(1000)], &[], (2000, HOUR), true).closed, ["n1000"]);
    }
}
