//! Locked files: who may hold one at once, what a reader can see of one that
//! is being made, and what is no file of ours.

use super::locked::{Existing, Locked, Mode, StoreError, create_durable, open_if_exists, read_if_exists, replace_durable, sync_parent};
use super::waiting::until_awaited;
use crate::error::{Code, Coded};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn there() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    (folder, path)
}

/// Every way to take a lock that is free or not; returns whether it was taken.
type Way = fn(&Path, Mode) -> bool;

const WAYS: [Way; 4] = [
    |path, mode| Locked::open(path, mode, Duration::ZERO).is_ok(),
    |path, mode| Locked::try_open(path, mode).unwrap().is_some(),
    |path, mode| matches!(Locked::try_open_existing(path, mode).unwrap(), Existing::Locked(_)),
    |path, mode| matches!(Locked::open_existing(path, mode, Duration::from_millis(1)).unwrap(), Existing::Locked(_)),
];

#[test]
fn readers_share_a_file_and_an_owner_shares_it_with_nobody() {
    for (number, way) in WAYS.iter().enumerate() {
        for (first, second, together) in [
            (Mode::Shared, Mode::Shared, true),
            (Mode::Shared, Mode::Exclusive, false),
            (Mode::Exclusive, Mode::Shared, false),
            (Mode::Exclusive, Mode::Exclusive, false),
        ] {
            let (_folder, path) = there();
            let held = Locked::open(&path, first, Duration::ZERO).unwrap();
            assert_eq!(way(&path, second), together, "way {number}: {second:?} beside {first:?}");
            drop(held);
            assert!(way(&path, second), "way {number}: the lock ends with its value");
        }
    }
}

#[test]
fn a_file_is_made_where_that_is_asked_for_and_nowhere_else() {
    let (_folder, path) = there();
    assert!(matches!(Locked::try_open_existing(&path, Mode::Exclusive).unwrap(), Existing::Absent));
    assert!(matches!(Locked::open_existing(&path, Mode::Shared, Duration::from_secs(1)).unwrap(), Existing::Absent));
    assert!(read_if_exists(&path).unwrap().is_none() && open_if_exists(&path).unwrap().is_none());
    assert!(!path.exists());
    drop(Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    std::fs::remove_file(&path).unwrap();
    drop(Locked::try_open(&path, Mode::Exclusive).unwrap().unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    // What is in it stays.
    std::fs::write(&path, "old").unwrap();
    assert_eq!(Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap().read_all().unwrap(), b"old");
}

#[test]
fn a_new_file_is_locked_and_whole_before_it_has_its_name() {
    let (folder, path) = there();
    let created = Locked::create_new(&path, b"content", ".tmp").unwrap().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    assert!(Locked::try_open(&path, Mode::Shared).unwrap().is_none(), "it is locked");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary name is gone");
    drop(created);
    assert!(Locked::create_new(&path, b"other", ".tmp").unwrap().is_none());
    assert!(!create_durable(&path, b"other", ".tmp").unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // A temporary name that is taken is not written over.
    std::fs::write(folder.path().join("taken"), "mine").unwrap();
    assert!(Locked::create_new(&folder.path().join("new"), b"x", "taken").is_err());
    assert!(!folder.path().join("new").exists());
}

#[test]
fn a_file_is_replaced_as_a_whole_or_not_at_all() {
    let (folder, path) = there();
    std::fs::write(&path, "old").unwrap();
    let before = std::fs::metadata(&path).unwrap().ino();
    replace_durable(&path, b"new", ".tmp").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), before);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // A folder cannot be replaced: what was prepared is taken away.
    let blocked = folder.path().join("folder");
    std::fs::create_dir_all(blocked.join("x")).unwrap();
    assert!(replace_durable(&blocked, b"new", ".tmp2").is_err());
    assert!(!folder.path().join(".tmp2").exists());
}

#[test]
fn what_is_no_file_of_ours_is_neither_opened_nor_followed() {
    let (folder, path) = there();
    std::fs::write(&path, "x").unwrap();
    let [link, pipe, dangling] = ["link", "pipe", "dangling"].map(|name| folder.path().join(name));
    symlink(&path, &link).unwrap();
    symlink(folder.path().join("nowhere"), &dangling).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let null = PathBuf::from("/dev/null");
    for odd in [&link, &dangling, &pipe, &null, &folder.path().to_owned()] {
        let name = odd.display();
        assert!(Locked::open(odd, Mode::Exclusive, Duration::ZERO).is_err(), "{name}");
        assert!(Locked::try_open(odd, Mode::Exclusive).is_err(), "{name}");
        assert!(Locked::try_open_existing(odd, Mode::Shared).is_err(), "{name}");
        assert!(read_if_exists(odd).is_err() && open_if_exists(odd).is_err(), "{name}");
        assert!(odd == &dangling || Locked::create_new(odd, b"x", ".tmp").map_or(true, |file| file.is_none()), "{name}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
    assert!(!folder.path().join("nowhere").exists());
}

#[test]
fn bytes_are_read_and_written_where_they_belong() {
    let (_folder, path) = there();
    let mut file = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    file.append(b"01234").unwrap();
    file.append(b"56789").unwrap();
    assert_eq!((file.length().unwrap(), file.path()), (10, path.as_path()));
    assert_eq!(file.read_all().unwrap(), b"0123456789");
    assert_eq!(file.read_from(7).unwrap(), b"789");
    assert_eq!(file.read_from(20).unwrap(), b"");
    for (position, length, expected) in [(0, 3, "012"), (8, 2, "89"), (8, 5, "89"), (10, 1, ""), (30, 4, "")] {
        assert_eq!(file.read_range(position, length).unwrap(), expected.as_bytes(), "{position} {length}");
    }
    file.write_at(2, b"ab").unwrap();
    // An append goes to the end, wherever was read before.
    assert_eq!(file.read_range(0, 1).unwrap(), b"0");
    file.append(b"!").unwrap();
    assert_eq!(file.read_all().unwrap(), b"01ab456789!");
    file.truncate(3).unwrap();
    file.append(b"z").unwrap();
    assert_eq!(file.read_all().unwrap(), b"01az");
    file.sync_data().unwrap();
    sync_parent(&path).unwrap();
}

#[test]
fn a_file_knows_whether_its_name_still_leads_to_it() {
    let (folder, path) = there();
    let mut file = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(file.id().unwrap(), (metadata.dev(), metadata.ino()));
    assert!(file.is_in_place().unwrap());
    let other = folder.path().join("other");
    file.rename(&other).unwrap();
    assert!(file.is_in_place().unwrap() && file.path() == other && !path.exists());
    assert!(Locked::try_open(&other, Mode::Shared).unwrap().is_none(), "the lock went with it");
    std::fs::write(folder.path().join("third"), "").unwrap();
    std::fs::rename(folder.path().join("third"), &other).unwrap();
    assert!(!file.is_in_place().unwrap(), "another file has its name");
    std::fs::remove_file(&other).unwrap();
    assert!(!file.is_in_place().unwrap(), "no file has its name");
    drop(file);
    let file = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    file.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_child_holds_a_shared_lock_as_long_as_it_lives() {
    let (_folder, path) = there();
    let file = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    let start = || std::process::Command::new("/bin/sh").args(["-c", "read -r line"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut other = start();
    file.share_with_children().unwrap();
    let mut child = start();
    drop(file);
    assert!(Locked::try_open(&path, Mode::Exclusive).unwrap().is_none());
    drop(child.stdin.take());
    child.wait().unwrap();
    // The one that was started before has not inherited it.
    super::waiting::until_free(&path);
    assert!(Locked::try_open(&path, Mode::Exclusive).unwrap().is_some());
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn every_error_of_a_file_names_it_and_has_its_code_and_a_next_step() {
    let path = Path::new("/folder/file");
    let io = StoreError::io("write", path)(std::io::Error::from(std::io::ErrorKind::StorageFull));
    for (error, code) in [
        (io, Code::LocalState),
        (StoreError::Busy(path.to_owned()), Code::LockBusy),
        (StoreError::unusable(path, "is not a file"), Code::LocalState),
        (StoreError::lost(path, "is gone", "do this"), Code::LocalState),
    ] {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("/folder/file"), "{error}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    }
}

#[test]
fn a_held_lock_is_waited_for_and_then_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let held = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    assert!(matches!(Locked::open(&path, Mode::Exclusive, Duration::from_millis(20)), Err(StoreError::Busy(_))));
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || Locked::open(&path, Mode::Exclusive, Duration::from_secs(60)).map(drop)
    });
    until_awaited(&path, 1);
    drop(held);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_file_removed_while_waiting_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let held = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || Locked::open(&path, Mode::Exclusive, Duration::from_secs(60)).map(|mut file| file.append(b"x"))
    });
    until_awaited(&path, 1);
    held.remove().unwrap();
    waiting.join().unwrap().unwrap().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
}

#[test]
fn a_file_that_must_be_there_is_not_made_again_when_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let held = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    // The name that a process killed in `create_new` leaves behind.
    std::fs::hard_link(&path, folder.path().join(".tmp-1-2")).unwrap();
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || Locked::open_existing(&path, Mode::Exclusive, Duration::from_secs(60))
    });
    until_awaited(&path, 1);
    held.remove().unwrap();
    assert!(matches!(waiting.join().unwrap().unwrap(), Existing::Absent));
    assert!(!path.exists());
}

#[test]
fn files_are_private_and_links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    assert!(create_durable(&path, b"one", "t1").unwrap());
    assert!(!create_durable(&path, b"two", "t2").unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Locked::open(&link, Mode::Exclusive, Duration::ZERO).is_err());
    assert!(read_if_exists(&link).is_err());
    assert!(read_if_exists(folder.path()).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
