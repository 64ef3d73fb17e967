//! The entry points of the fuzzer, without a fuzzer: over their corpora, over
//! mutations of these, and over inputs that grew.

use crate::fuzz::{ENTRIES, Entry, Read};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::path::PathBuf;

fn corpus(entry: &Entry) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(entry.name);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut inputs: Vec<(String, Vec<u8>)> =
        files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())).collect();
    inputs.sort();
    inputs
}

/// What stands in the corpora reaches what it is meant to reach.
#[test]
fn the_corpora_are_taken_and_refused_as_their_names_say() {
    for entry in ENTRIES {
        let inputs = corpus(entry);
        assert!(inputs.len() <= 20, "{}", entry.name);
        for start in ["taken-", "refused-"] {
            assert!(inputs.iter().any(|(name, _)| name.starts_with(start)), "{} has nothing {start}", entry.name);
        }
        for (name, bytes) in inputs {
            let expected = if name.starts_with("taken-") { Read::Taken } else { Read::Refused };
            assert_eq!((entry.run)(&bytes), expected, "{}/{name}", entry.name);
        }
    }
}

/// A change of an input, as a fuzzer makes it.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize, usize),
    Copy(usize, usize, usize),
    Put(usize, Vec<u8>),
}

fn any_change() -> impl Strategy<Value = Change> {
    let words =
        ["[]", "&", "=", "{", "}", "[", "]", "\"", ":", ",", "%", "\n", "\\", "0", "18446744073709551615", "-1", "\u{202e}", "null", "."];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let place = 0..4_096_usize;
    prop_oneof![
        (place.clone(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (place.clone(), 1..40_usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (place.clone(), 1..200_usize, place.clone()).prop_map(|(from, length, to)| Change::Copy(from, length, to)),
        (place, prop_oneof![word, prop::collection::vec(any::<u8>(), 1..5)]).prop_map(|(at, word)| Change::Put(at, word)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let place = |at: usize| at % (bytes.len() + 1);
        match change {
            Change::Flip(at, bits) if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] ^= bits;
            }
            Change::Flip(..) => {}
            Change::Cut(at, length) => {
                let at = place(at);
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Change::Copy(from, length, to) => {
                let (from, to) = (place(from), place(to));
                let part = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(to..to, part);
            }
            Change::Put(at, word) => {
                let at = place(at);
                bytes.splice(at..at, word);
            }
        }
    }
    bytes
}

#[test]
fn mutations_of_the_corpora_break_nothing() {
    for entry in ENTRIES {
        let inputs: Vec<Vec<u8>> = corpus(entry).into_iter().map(|(_, bytes)| bytes).collect();
        let input =
            (prop::sample::select(inputs), prop::collection::vec(any_change(), 1..6)).prop_map(|(bytes, changes)| changed(bytes, changes));
        let bytes = prop::collection::vec(any::<u8>(), 0..64);
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(150) });
        runner
            .run(&prop_oneof![9 => input, 1 => bytes], |bytes| {
                let _ = (entry.run)(&bytes);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{}: {error}", entry.name));
    }
}

/// What repeats is read in time and memory that a test has: on a stack of two
/// megabytes, and without squares.
#[test]
fn what_grew_breaks_nothing() {
    let parts: [&[u8]; 14] =
        [b"[]", b"[a]", b"&a[]=1", b"a", b"{\"a\":", b"[", b"\"", b"\\", b"%5B", b"\n", b".", b"{\"a\":1}\n", b"/..", b"\xe2\x80\xae"];
    for entry in ENTRIES {
        let inputs = corpus(entry).into_iter().filter(|(name, _)| name.starts_with("taken-"));
        for (part, (_, bytes)) in parts.into_iter().zip(inputs.collect::<Vec<_>>().iter().cycle()) {
            let end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len() / 2);
            let grown = part.repeat(40_000 / part.len());
            let _ = (entry.run)(&[&bytes[..end], &grown, &bytes[end..]].concat());
            let _ = (entry.run)(&[&bytes[..], &grown].concat());
        }
    }
}
