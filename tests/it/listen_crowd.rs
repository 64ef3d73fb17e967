//! Crowds in front of the receiver: who says nothing, who says it slowly, and
//! who says too much. A real event is answered while they are all there.

use crate::inbox_damage_listen::{Listening, status};
use crate::queue_world::until;
use crate::world::World;
use std::io::{Read, Write};
use std::net::TcpStream;

fn listening(world: &World) -> Listening {
    Listening::start(world, &["--exec", "cat >> events"]).unwrap()
}

/// How many of these connections the receiver has not ended yet.
fn still_there(crowd: &mut [TcpStream]) -> usize {
    let mut there = 0;
    for stream in crowd {
        stream.set_nonblocking(true).unwrap();
        let mut byte = [0];
        there += usize::from(matches!(stream.read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    }
    there
}

fn crowd(address: &str, count: usize, says: &str) -> Vec<TcpStream> {
    let one = || {
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(says.as_bytes());
        stream
    };
    (0..count).map(|_| one()).collect()
}

const SLOW_BODY: &str =
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000000\r\n\r\nevent=";

#[test]
fn an_event_is_answered_while_hundreds_say_nothing() {
    for (count, says) in [(200, ""), (200, "POST / HTTP/1.1\r\nX-Slow:"), (200, SLOW_BODY)] {
        let world = World::new();
        let listening = listening(&world);
        let mut crowd = crowd(&listening.address, count, says);
        assert_eq!(listening.post(&world, 1), 200, "{says}");
        let there = still_there(&mut crowd);
        println!("{count} connections: {there} were still there when an event was answered");
        assert!(there > 0, "they were all given up before the event was answered: {says}");
        assert_eq!(listening.health().0, 200);
        until("they are given up", || still_there(&mut crowd.iter().map(|one| one.try_clone().unwrap()).collect::<Vec<_>>()) == 0);
        assert_eq!(listening.end(), Some(0));
    }
}

#[test]
fn an_event_is_answered_while_more_say_nothing_than_there_is_room_for() {
    for says in ["", SLOW_BODY] {
        let world = World::new();
        let listening = listening(&world);
        let mut crowd = crowd(&listening.address, 900, says);
        assert_eq!(listening.post(&world, 1), 200);
        let there = still_there(&mut crowd);
        println!("900 connections: {there} were still there when an event was answered");
        assert!(there > 0 && there < 900, "{there}");
        assert_eq!(listening.end(), Some(0));
    }
}

#[test]
fn the_end_does_not_wait_for_those_who_say_nothing() {
    let world = World::new();
    let listening = listening(&world);
    let mut crowd = crowd(&listening.address, 50, "");
    assert_eq!(listening.post(&world, 1), 200);
    assert!(still_there(&mut crowd) > 0);
    assert_eq!(listening.end(), Some(0));
}

#[test]
fn heads_are_bounded_and_what_is_unusual_is_answered() {
    let world = World::new();
    let listening = listening(&world);
    let token = world.emulator.access().application_token.expose().to_owned();
    let body = |id: u32| format!("event=ONCRMDEALUPDATE&data[FIELDS][ID]={id}&auth[application_token]={token}");
    let post = |id: u32, version: &str, headers: &str| {
        let body = body(id);
        let form = "Content-Type: application/x-www-form-urlencoded";
        format!("POST / HTTP/{version}\r\nHost: x\r\n{form}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
    };
    let send = |request: &str| status(&listening.address, request);
    assert_eq!(send(&post(1, "1.0", "")).0, 200);
    assert_eq!(send(&post(2, "1.1", &"X: y\r\n".repeat(90))).0, 200);
    assert!([431, 0].contains(&send(&post(3, "1.1", &"X: y\r\n".repeat(5_000))).0));
    assert!([431, 0].contains(&send(&post(4, "1.1", &format!("X: {}\r\n", "y".repeat(1_000_000)))).0));
    // Who waits for the word gets it, and then the answer.
    let (first, text) = send(&post(5, "1.1", "Expect: 100-continue\r\n"));
    assert!(first == 100 && text.contains("HTTP/1.1 200"), "{text}");
    // One request for each connection.
    let thousand: String = (10..1010).map(|id| post(id, "1.1", "")).collect();
    let (status, text) = send(&thousand);
    assert!(status == 200 && text.matches("HTTP/1.1").count() == 1, "{text}");
    let handled = || std::fs::read_to_string(world.home.path().join("events")).unwrap_or_default().lines().count();
    until("all that was answered is handled", || handled() == 4);
    assert_eq!(listening.end(), Some(0));
}

#[test]
fn a_receiver_that_cannot_store_says_so() {
    let world = World::new();
    let listening = listening(&world);
    assert_eq!(listening.health(), (200, listening.health().1));
    let queue = std::fs::read_dir(world.state().join("queue")).unwrap().next().unwrap().unwrap().path();
    let room = queue.join("online").join("room");
    until("it has looked for room", || room.exists());
    // A disk that takes nothing.
    std::fs::remove_file(&room).unwrap();
    std::fs::create_dir(&room).unwrap();
    until("it says that it cannot store", || listening.health().0 == 503);
    assert!(listening.health().1.ends_with("disk_full\n"), "{}", listening.health().1);
    std::fs::remove_dir(&room).unwrap();
    until("it is well again", || listening.health().0 == 200);
    assert_eq!(listening.end(), Some(0));
}
