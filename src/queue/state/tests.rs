use super::*;

fn known(state: &mut State, seq: u64, key: &str) {
    let received = Received {
        seq,
        key: EventKey::of(key),
        name: "ONX".to_owned(),
        entity: "x:1".to_owned(),
        order: seq,
        at: 0,
        due: 0,
        origin: Origin::Online,
        payload: super::super::event::raw(&serde_json::Value::Null),
    };
    state.apply(Line::Received(received), Place { offset: 1, length: 10 });
}

fn finished(state: &mut State, seq: u64, at: i64) {
    state.apply(Line::Ended { seq, worker: "w".to_owned(), at, verdict: Verdict::Done }, Place::default());
}

#[test]
fn an_event_that_is_over_is_remembered_for_a_day() {
    let mut state = State::default();
    known(&mut state, 0, "a");
    finished(&mut state, 0, 1000);
    state.forget_old(1000 + REMEMBERED_MS);
    assert_eq!(state.known(EventKey::of("a")), Some(Known::Over(1000)));
    state.forget_old(1001 + REMEMBERED_MS);
    assert_eq!(state.known(EventKey::of("a")), None);
}

#[test]
fn an_event_that_came_again_is_remembered_from_then() {
    let mut state = State::default();
    known(&mut state, 0, "a");
    finished(&mut state, 0, 1000);
    let origin = Origin::Offline(Reservation { process: "p".to_owned(), row: "1".to_owned(), message: String::new() });
    state.apply(Line::Again { seq: 1, key: EventKey::of("a"), origin, worker: "w".to_owned() }, Place::default());
    state.apply(Line::Settled { at: 5000, seqs: vec![1] }, Place::default());
    state.forget_old(1001 + REMEMBERED_MS);
    assert_eq!(state.known(EventKey::of("a")), Some(Known::Over(5000)));
    assert_eq!(state.over().collect::<Vec<_>>(), [(EventKey::of("a"), 5000)]);
}

#[test]
fn no_more_than_so_many_are_remembered() {
    let mut state = State::default();
    for seq in 0..=REMEMBERED as u64 {
        known(&mut state, seq, &seq.to_string());
        finished(&mut state, seq, 0);
    }
    assert_eq!((state.remembered(), state.known(EventKey::of("0"))), (REMEMBERED, None));
    assert_eq!((state.known(EventKey::of("1")), state.live_bytes), (Some(Known::Over(0)), 0));
    assert!(state.is_empty() && state.entities.is_empty() && state.heads.is_empty());
}

#[test]
fn the_next_attempt_of_an_event_holds_its_entity_back() {
    let mut state = State::default();
    known(&mut state, 0, "a");
    known(&mut state, 1, "b");
    assert_eq!(state.ready(0).collect::<Vec<_>>(), [0]);
    state.apply(Line::Started { worker: "w".to_owned(), until: 9, seqs: vec![0] }, Place::default());
    assert_eq!((state.ready(0).count(), state.next_due()), (0, None));
    state.apply(Line::Ended { seq: 0, worker: "w".to_owned(), at: 0, verdict: Verdict::Failed { due: 50 } }, Place::default());
    assert_eq!((state.ready(49).count(), state.next_due()), (0, Some(50)));
    assert_eq!(state.ready(50).collect::<Vec<_>>(), [0]);
    finished(&mut state, 0, 60);
    assert_eq!(state.ready(0).collect::<Vec<_>>(), [1]);
}
