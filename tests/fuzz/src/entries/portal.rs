//! What a portal sends: answers and events.

use super::{Read, Stopped, first_line, folder};
use b24::call::{Batch, Request};
use b24::catalog::Api;
use b24::query_string::{self, Bounds};
use b24::queue::{NewEvent, OfflineSource};
use b24::receive::{Delivery, read_delivery};
use b24::secret::Redactor;
use b24::store::operating::{Operating, OperatingSeen};
use b24::wire::answer::{Answer, Reading, Time, operating_reset_in};
use b24::wire::auth::read_tokens;
use b24::wire::batch_answer::BatchReading;
use b24::wire::judge::{Verdict, judge, refusal_code};
use b24::wire::retry::{Ended, Next, next};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static BATCHES: LazyLock<Vec<Batch>> = LazyLock::new(|| {
    let commands = json!({"a": "crm.lead.add?fields[TITLE]=x", "b": "crm.deal.get?id=$result[a]"});
    let listed = json!(["user.current", "crm.lead.get?id=1"]);
    let v3 = json!([{"method": "crm.item.add", "query": {}, "as": "a"}, {"method": "user.current", "query": {}}]);
    let parsed = |params: Value, api| match Request::parse("batch", params, api) {
        Ok(Request::Batch(batch)) => batch,
        other => panic!("{other:?}"),
    };
    vec![
        parsed(json!({"cmd": commands, "halt": 0}), Api::V2),
        parsed(json!({"cmd": commands, "halt": 1}), Api::V2),
        parsed(json!({"cmd": listed}), Api::V2),
        parsed(v3, Api::V3),
    ]
});

/// A status on the first line, a body behind it.
pub(crate) fn answer(bytes: &[u8]) -> Read {
    let (status, body) = first_line(bytes);
    let status = std::str::from_utf8(status).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(200);
    let answer = Answer { status, body: body.to_vec(), retry_after: None, location: None, replayed_by_portal: false };
    let reading = Reading::of(body);
    let verdict = judge(&answer, reading.as_ref());
    certain(status, body, &verdict);
    let _ = read_tokens(status, body, &Redactor::default()).map(|pair| assert!(status < 300 && pair.refresh.is_some()));
    if let Some(events) = OfflineSource::events_of(body) {
        events.iter().for_each(taken_in);
    }
    let Some(reading) = reading else { return Read::Refused };
    if let Some(error) = &reading.error {
        let _ = refusal_code(error);
    }
    reading.time.iter().for_each(operating);
    let Some(result) = reading.result else { return Read::Taken };
    for batch in BATCHES.iter() {
        let Ok(parts) = BatchReading::of(batch, result) else { continue };
        assert_eq!((parts.commands.len(), parts.times.len()), (batch.commands.len(), batch.commands.len()));
        parts.times.iter().flatten().for_each(operating);
        for part in &parts.commands {
            assert_eq!(part.verdict == Verdict::Success, part.result.is_some());
            assert!(part.result.as_ref().is_none_or(|text| serde_json::from_str::<&RawValue>(text).is_ok()));
        }
        let failed = parts.commands.iter().filter(|part| part.verdict != Verdict::Success).count();
        assert_eq!(parts.failures(batch).len(), failed);
    }
    Read::Taken
}

/// Success and "not executed" need their words; all else is in doubt, and a
/// write in doubt is not sent again.
fn certain(status: u16, body: &[u8], verdict: &Verdict) {
    // As bytes: a tree cannot hold a lone surrogate, an answer may.
    let members = serde_json::from_slice::<HashMap<Cow<'_, str>, &RawValue>>(body).unwrap_or_default();
    let has_result = members.contains_key("result");
    let has_error = members.get("error").is_some_and(|error| error.get() != "null");
    let again = next(&Ended::Judged(verdict.clone()), true);
    match verdict {
        Verdict::Success => assert!((200..300).contains(&status) && has_result && !has_error),
        Verdict::NotExecuted(_) => assert!((300..400).contains(&status) || has_error),
        Verdict::Refused(_) => assert!(status < 500 && has_error),
        Verdict::Maybe(_) => assert!(matches!(again, Next::Unknown(_))),
    }
    if matches!(again, Next::Again | Next::AgainAfterLimit | Next::AgainAfterOperating | Next::Refresh) {
        assert!(matches!(verdict, Verdict::NotExecuted(_)));
    }
}

fn operating(time: &Time) {
    if let (Some(operating_s), Some(reset_in_s)) = (time.operating, operating_reset_in(time)) {
        let operating = Operating::new(folder(), Arc::new(Stopped));
        operating.record("p", "m", OperatingSeen { operating_s, reset_in_s }).expect("the folder can be used");
        let _ = operating.before("p", "m", Duration::from_secs(1));
        // Ten minutes are the whole window, whatever the portal says.
        assert!(operating.list().expect("the folder can be used").iter().all(|line| line.blocked_for <= Duration::from_secs(700)));
    }
}

fn taken_in(event: &NewEvent) {
    let row: Value = serde_json::from_str(event.payload.get()).expect("a payload is JSON");
    assert_eq!(NewEvent::of_row(&row, "p").key, event.key, "an event that comes again is known");
    assert!(!event.name.is_empty());
}

/// A media type on the first line, a body behind it.
pub(crate) fn event(bytes: &[u8]) -> Read {
    let (media, body) = first_line(bytes);
    let media = std::str::from_utf8(media).unwrap_or_default();
    let Some(delivery) = read_delivery(media, body) else { return Read::Refused };
    assert!(!delivery.event.is_empty() && !delivery.event.contains(|c: char| c.is_ascii_lowercase() || !c.is_ascii_graphic()));
    assert!(delivery.body_digest.len() == 64);
    for value in [&delivery.data, &delivery.auth] {
        harmless(value);
    }
    // A delivery that comes again, as JSON instead of a form or in another
    // order of members, says the same.
    if media.to_ascii_lowercase().contains("form") {
        let text = std::str::from_utf8(body).unwrap_or_default().trim();
        let payload = query_string::decode_within(text, Bounds { pairs: 2_000, depth: 16 }).expect("it was read");
        let form = query_string::encode(&payload).expect("what was read can be written");
        let turned: Value = payload.into_iter().rev().collect::<serde_json::Map<_, _>>().into();
        let same = |other: Option<Delivery>| assert_eq!(other.as_ref(), Some(&delivery));
        same(read_delivery(media, form.as_bytes()));
        let turned = read_delivery("application/json", turned.to_string().as_bytes()).expect("a form can be said in JSON");
        assert_eq!((turned.event, turned.body_digest), (delivery.event, delivery.body_digest));
    }
    Read::Taken
}

/// Nothing bears the name of a token.
fn harmless(value: &Value) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            let name = name.to_ascii_lowercase();
            assert!(!["token", "secret", "password"].iter().any(|word| name.ends_with(word)), "{name} is handed on");
            harmless(value);
        }),
        Value::Array(items) => items.iter().for_each(harmless),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
