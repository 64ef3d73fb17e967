use super::*;
use crate::host::SystemRandom;
use std::process::{Command, Stdio};

fn join(inbox: &Path) -> Workers {
    Workers::join(inbox, &SystemRandom).unwrap()
}

fn look(workers: &mut Workers, names: &[&str]) -> usize {
    workers.look(names.iter().map(|name| (*name).to_owned())).unwrap()
}

#[test]
fn a_worker_that_left_is_dead_and_one_that_was_not_looked_for_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, two) = (join(folder.path()), join(folder.path()));
    let name = two.own().to_owned();
    let own = one.own().to_owned();
    assert_eq!(look(&mut one, &[&name, &own]), 1);
    drop(two);
    assert!(!one.is_dead(&name) && !one.may_take_over(&name));
    assert_eq!(look(&mut one, &[&name]), 0);
    assert!(one.is_dead(&name) && one.may_take_over(&name));
    assert!(one.may_take_over(&own) && !one.is_dead(&own));
}

#[test]
fn the_file_of_a_killed_worker_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = join(folder.path());
    let left = folder.path().join("workers").join("0011223344556677");
    std::fs::write(&left, "").unwrap();
    assert_eq!(look(&mut one, &["0011223344556677"]), 0);
    assert!(one.is_dead("0011223344556677") && !left.exists());
}

#[test]
fn a_worker_lives_as_long_as_its_handlers() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (join(folder.path()), join(folder.path()));
    let name = two.own().to_owned();
    // Without the lock's own file: as after a kill, which deletes nothing.
    let mut handler = Command::new("/bin/sh").args(["-c", "read -r line"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(two.lock.take());
    assert_eq!(look(&mut one, &[&name]), 1);
    assert!(!one.is_dead(&name));
    drop(handler.stdin.take());
    handler.wait().unwrap();
    // Other tests start processes, too, which hold the lock for their time.
    while look(&mut one, &[&name]) > 0 {
        std::thread::yield_now();
    }
    assert!(one.is_dead(&name));
}
