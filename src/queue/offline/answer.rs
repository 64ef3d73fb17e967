//! What the answers of `event.offline.*` say.

use crate::queue::event::{NewEvent, plain};
use crate::wire::answer::Reading;
use serde_json::Value;
use std::collections::BTreeMap;

/// Reads the events of an answer of `event.offline.get`, in the portal's order;
/// `None` when it is not one: then
/// events may be hidden under a reservation that nobody knows.
pub(super) fn taken(body: &[u8]) -> Option<Vec<NewEvent>> {
    let result = result(body)?;
    // Without events the portal may leave the list out, or give an object with
    // numbers for keys: PHP knows one kind of array.
    let rows: Vec<&Value> = match result.get("events") {
        None | Some(Value::Null) if result.is_object() => Vec::new(),
        Some(Value::Array(rows)) => rows.iter().collect(),
        Some(Value::Object(rows)) => rows.values().collect(),
        _ => return None,
    };
    let process = result.get("process_id").map(plain).unwrap_or_default();
    if process.is_empty() && !rows.is_empty() {
        return None;
    }
    Some(rows.into_iter().map(|row| NewEvent::of_row(row, &process)).collect())
}

/// One page of `event.offline.list`.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// How many rows of each reservation it shows.
    pub(super) reserved: BTreeMap<String, u32>,
    /// How many rows it shows in all.
    pub(super) rows: usize,
    /// The highest `ID` that it shows.
    pub(super) last: Option<u64>,
    /// Whether the portal has more.
    pub(super) has_more: bool,
}

/// How many rows a page of `event.offline.list` has.
const PAGE: usize = 50;

/// Reads a page of `event.offline.list`; `None` when it is not one.
pub(super) fn page(body: &[u8]) -> Option<Page> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let result = document.get("result")?;
    let rows: Vec<&Value> = match result {
        Value::Array(rows) => rows.iter().collect(),
        Value::Object(rows) => rows.values().collect(),
        _ => return None,
    };
    let last = rows.iter().filter_map(|row| plain(row.get("ID")?).parse().ok()).max();
    let has_more = document.get("next").is_some_and(|next| !next.is_null()) || rows.len() >= PAGE;
    let mut page = Page { rows: rows.len(), last, has_more, ..Page::default() };
    for process in rows.iter().filter_map(|row| row.get("PROCESS_ID")).map(plain).filter(|process| !process.is_empty()) {
        *page.reserved.entry(process).or_default() += 1;
    }
    Some(page)
}

fn result(body: &[u8]) -> Option<Value> {
    serde_json::from_str(Reading::of(body)?.result?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_its_reservation_is_none() {
        for body in [
            r#"{"result":{"process_id":null,"events":[{"ID":"1","EVENT_NAME":"X"}]}}"#,
            r#"{"result":true}"#,
            r#"{"result":{"process_id":"p","events":"x"}}"#,
            "",
            "{",
        ] {
            assert!(taken(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn an_empty_queue_is_an_answer() {
        for body in [r#"{"result":{"process_id":null,"events":[]}}"#, r#"{"result":{"process_id":"p"}}"#, r#"{"result":{"events":{}}}"#] {
            assert_eq!(taken(body.as_bytes()).map(|events| events.len()), Some(0), "{body}");
        }
    }

    #[test]
    fn reservations_are_counted() {
        let body =
            br#"{"result":[{"ID":"1","PROCESS_ID":"p"},{"ID":"2","PROCESS_ID":""},{"ID":"3","PROCESS_ID":"p"}],"next":50,"total":60}"#;
        let page = page(body).unwrap();
        assert_eq!((page.reserved.get("p"), page.rows, page.last, page.has_more), (Some(&2), 3, Some(3), true));
    }
}
