use super::*;
use crate::host::SystemClock;
use crate::queue::event::{EventKey, Job, raw};

fn letters(folder: &Path) -> DeadLetters {
    DeadLetters::new(
        folder.join("new").join("dead.jsonl"),
        "acme.bitrix24.com".to_owned(),
        (Arc::new(SystemClock), Arc::new(crate::host::SystemRandom)),
    )
}

fn dead(number: u64) -> Dead {
    let job = Job {
        seq: number,
        key: EventKey::of(&number.to_string()),
        name: "ONCRMDEALUPDATE".to_owned(),
        entity: format!("crmdeal:{number}"),
        attempt: 5,
        interrupted: 1,
        received_ms: 1,
        source: "offline",
        payload: raw(&json!({"ID": number.to_string(), "n": 1})),
    };
    Dead { job, reason: "handler_failed".to_owned(), error: "no".to_owned(), message: Some(format!("m{number}")), failures: 5 }
}

fn ids(letters: &mut DeadLetters) -> Vec<String> {
    letters.list().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

fn key(number: u64) -> String {
    EventKey::of(&number.to_string()).to_string()
}

fn lines(letters: &DeadLetters) -> Vec<String> {
    std::fs::read_to_string(letters.path()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_letter_is_written_once_whoever_repeats_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (letters(folder.path()), letters(folder.path()));
    one.write(&[dead(1), dead(2)]).unwrap();
    two.write(&[dead(2), dead(3)]).unwrap();
    one.write(&[dead(1), dead(2), dead(3)]).unwrap();
    assert_eq!(ids(&mut one), [key(1), key(2), key(3)]);
    assert_eq!((lines(&one).len(), one.count().unwrap(), one.verify().unwrap()), (3, 3, Ok(3)));
}

#[test]
fn a_letter_has_what_the_python_worker_writes_and_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut letters = letters(folder.path());
    letters.write(&[dead(1)]).unwrap();
    let row = letters.list().unwrap().remove(0);
    for name in ["tenant", "event", "message_id", "retry_count", "error", "payload", "ts", "id", "reason", "attempts", "entity"] {
        assert!(row.get(name).is_some_and(|value| !value.is_null()), "{name}");
    }
    assert_eq!((&row["message_id"], &row["payload"]["ID"]), (&json!("m1"), &json!("1")));
}

#[test]
fn nothing_is_made_by_looking() {
    let folder = tempfile::tempdir().unwrap();
    let mut letters = letters(folder.path());
    assert_eq!((letters.count().unwrap(), letters.list().unwrap().len(), letters.verify().unwrap()), (0, 0, Ok(0)));
    assert!(!letters.path().exists() && !letters.path().parent().unwrap().exists());
}

#[test]
fn every_change_by_hand_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut letters = letters(folder.path());
    letters.write(&(1..=4).map(dead).collect::<Vec<_>>()).unwrap();
    let whole = lines(&letters);
    let path = letters.path().to_owned();
    let mut verdict = |lines: &[String]| {
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        letters.verify().unwrap()
    };
    let changed = |place: usize, from: &str, to: &str| {
        let mut lines = whole.clone();
        assert!(lines[place].contains(from), "{from}");
        lines[place] = lines[place].replace(from, to);
        lines
    };
    assert_eq!(verdict(&whole), Ok(4));
    assert_eq!(verdict(&changed(1, r#""error":"no""#, r#""error":"yes""#)), Err(2));
    assert_eq!(verdict(&changed(3, r#""ID":"4""#, r#""ID":"5""#)), Err(4));
    assert_eq!(verdict(&changed(2, "{", "")), Err(3));
    let mut without = whole.clone();
    without.remove(1);
    assert_eq!(verdict(&without), Err(2));
    let mut swapped = whole.clone();
    swapped.swap(0, 1);
    assert_eq!(verdict(&swapped), Err(1));
    let bare = whole[1].split(r#","prev""#).next().unwrap().to_owned() + "}";
    let mut unhashed = whole.clone();
    unhashed[1] = bare;
    assert_eq!(verdict(&unhashed), Err(3));
}

#[test]
fn rows_of_the_python_worker_are_read_and_can_be_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut letters = letters(folder.path());
    std::fs::create_dir_all(letters.path().parent().unwrap()).unwrap();
    let old = r#"{"tenant":"t","event":"ONCRMLEADADD","message_id":"m","retry_count":3,"error":"x","payload":{"ID":"9"},"ts":1}"#;
    std::fs::write(letters.path(), format!("{old}\n{}\n", old.replace("\"9\"", "\"10\""))).unwrap();
    letters.write(&[dead(1)]).unwrap();
    let found = ids(&mut letters);
    assert_eq!((found.len(), &found[2]), (3, &key(1)));
    assert_eq!(letters.close(&found[..1], Action::Dropped, "user:me", None).unwrap(), 1);
    assert_eq!((ids(&mut letters), letters.verify().unwrap()), (found[1..].to_vec(), Ok(2)));
}

#[test]
fn a_closed_letter_stays_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = letters(folder.path());
    one.write(&[dead(1), dead(2)]).unwrap();
    let closed = [key(1), "unknown".to_owned()];
    assert_eq!(one.close(&closed, Action::Retried, "user:me", Some("mended")).unwrap(), 1);
    assert_eq!(one.close(&closed, Action::Dropped, "user:me", None).unwrap(), 0);
    one.write(&[dead(1)]).unwrap();
    let mut other = letters(folder.path());
    assert_eq!((ids(&mut one), ids(&mut other)), (vec![key(2)], vec![key(2)]));
    assert_eq!((lines(&one).len(), one.verify().unwrap()), (3, Ok(3)));
    let note: Value = serde_json::from_str(&lines(&one)[2]).unwrap();
    assert_eq!((&note["action"], &note["by"], &note["why"]), (&json!("retried"), &json!("user:me"), &json!("mended")));
}

#[test]
fn half_a_letter_is_cut_and_does_not_count_as_tampering() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = letters(folder.path());
    one.write(&[dead(1)]).unwrap();
    let whole = std::fs::read(one.path()).unwrap();
    std::fs::write(one.path(), [whole.as_slice(), &whole[..whole.len() / 2]].concat()).unwrap();
    assert_eq!(one.verify().unwrap(), Ok(1));
    let mut other = letters(folder.path());
    other.write(&[dead(2)]).unwrap();
    assert_eq!((ids(&mut other), other.verify().unwrap()), (vec![key(1), key(2)], Ok(2)));
}

#[test]
fn damage_and_a_shorter_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = letters(folder.path());
    one.write(&[dead(1)]).unwrap();
    std::fs::write(one.path(), "no letter\n").unwrap();
    assert!(letters(folder.path()).write(&[dead(2)]).is_err());
    assert!(one.write(&[dead(2)]).is_err());
}
