//! Files of the inbox.

use super::{Counted, Read, Stopped, folder, relined};
use b24::json;
use b24::queue::{Action, DeadLetters, Inbox, NewEvent, Outcome};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The journal of an inbox, its lines without their checksums: as versions
/// before the chain wrote it, for a chained one has a witness beside it.
pub(crate) fn inbox(bytes: &[u8]) -> Read {
    let file = relined(bytes, |text| format!("{:08x} {text}\n", crc32c::crc32c(text.as_bytes())).into_bytes());
    let place = folder();
    let path = place.join("inbox-000001.jsonl");
    std::fs::write(&path, &file).expect("a file");
    let random = Arc::new(Counted::default());
    let mut inbox = Inbox::open(&place, Arc::new(Stopped), random.clone()).expect("the folder can be used");
    let whole = file.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let Ok(depth) = inbox.depth() else {
        assert_eq!(std::fs::read(&path).expect("the file can be read"), file, "a damaged journal is left alone");
        return Read::Refused;
    };
    assert_eq!(std::fs::read(&path).expect("the file can be read"), &file[..whole], "only a torn end is cut");
    let said = inbox.release_dead().and_then(|_| inbox.depth()).expect("the journal was read");
    assert_eq!(said.waiting + said.running + said.unsettled, depth.waiting + depth.running + depth.unsettled);
    let _ = (inbox.settlements(true), inbox.settlements(false), inbox.lost_calls(true), inbox.next_due(), inbox.oldest_ms());
    let event = NewEvent::of_row(&json!({"ID": "1000000", "EVENT_NAME": "ONX", "EVENT_DATA": {"ID": "new"}}), "p");
    let taken = inbox.commit(|commit| {
        let arrival = commit.receive(vec![event.clone(), event]);
        let jobs = commit.start(3, 1_000, |_| true)?;
        jobs.iter().for_each(|job| commit.end(job.seq, Outcome::Done));
        let dead = commit.unburied()?.iter().map(|dead| dead.job.seq).collect();
        commit.bury(dead);
        Ok((arrival.new + arrival.known, jobs.len()))
    });
    // What one worker has in mind, another reads from the file.
    if let Ok((arrived, _)) = taken {
        assert_eq!(arrived, 2);
        let own = inbox.depth().expect("the journal was read");
        let mut other = Inbox::open(&place, Arc::new(Stopped), random).expect("the folder can be used");
        let read = other.depth().expect("what was written can be read");
        let numbers = |depth: &b24::queue::Depth| (depth.waiting, depth.running, depth.unsettled, depth.open_calls, depth.counters);
        assert_eq!(numbers(&read), numbers(&own));
    }
    Read::of(whole > 0)
}

/// The file of the dead letters. Lines with an `h` get the one that fits.
pub(crate) fn letters(bytes: &[u8]) -> Read {
    let mut before = "0".repeat(64);
    let file = relined(bytes, |text| {
        let Ok(mut row) = serde_json::from_str::<Map<String, Value>>(text) else { return format!("{text}\n").into_bytes() };
        if row.remove("h").is_some() {
            row.insert("prev".to_owned(), Value::from(before.as_str()));
            before = json::sha256_hex(json::canonical(&Value::Object(row.clone())));
            row.insert("h".to_owned(), Value::from(before.as_str()));
        }
        format!("{}\n", Value::Object(row)).into_bytes()
    });
    let path = folder().join("dead.jsonl");
    std::fs::write(&path, &file).expect("a file");
    let open = || DeadLetters::new(path.clone(), "t".to_owned(), (Arc::new(Stopped), Arc::new(Counted::default())));
    let mut letters = open();
    let _ = letters.verify().expect("the file can be read");
    let Ok(list) = letters.list() else {
        // A whole last line gets its end before the others are looked at.
        let now = std::fs::read(&path).expect("the file can be read");
        assert!(
            now.strip_prefix(&file[..]).is_some_and(|more| more.is_empty() || more == b"\n"),
            "a file that cannot be read is left alone"
        );
        return Read::Refused;
    };
    let now = std::fs::read(&path).expect("the file can be read");
    assert!(file.starts_with(now.strip_suffix(b"\n").unwrap_or(&now)), "only a torn end is cut or closed");
    assert_eq!(letters.count().expect("it was read"), list.len());
    let ids: Vec<String> = list.iter().map(|letter| letter["id"].as_str().expect("a letter has an id").to_owned()).collect();
    // A whole last line has its end by now, and counts.
    let verified = letters.verify().expect("the file can be read");
    let closed = letters.close(&ids, Action::Dropped, "a", None).expect("letters can be closed");
    assert_eq!(closed, ids.len());
    assert_eq!((letters.count().expect("it was read"), open().count().expect("what was written can be read")), (0, 0));
    assert!(std::fs::read(&path).expect("the file can be read").starts_with(&now), "nothing is taken out");
    if let Ok(count) = verified {
        assert_eq!(open().verify().expect("it was read"), Ok(count + closed));
    }
    Read::of(!list.is_empty())
}
