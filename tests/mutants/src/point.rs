//! One mutation of one place in the source.

use sha2::{Digest, Sha256};

/// A place and what is done to it. The texts around it are what makes it a
/// switch: off, the place is what it was.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// The file, from the root of the package.
    pub(crate) file: String,
    /// The function, with its type where it is a method.
    pub(crate) function: String,
    /// What is done, as a person reads it.
    pub(crate) what: String,
    /// Where it begins and ends, in bytes; equal for what is put in.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The lines of the place, from 1.
    pub(crate) lines: (usize, usize),
    /// What stands before and behind it in the copy; `{n}` is its number.
    pub(crate) before: String,
    pub(crate) behind: String,
    /// The bytes in which the compiler may complain about it, where that is
    /// not the place itself.
    pub(crate) blamed: Option<(usize, usize)>,
}

impl Point {
    /// What it is known by, whatever happens to other places.
    pub(crate) fn key(&self) -> String {
        format!("{}\t{}\t{}", self.file, self.function, self.what)
    }

    /// The same as a short name for tables that only machines read.
    pub(crate) fn id(&self) -> String {
        digest(&self.key())[..16].to_owned()
    }
}

/// The SHA-256 of a text in hex.
pub(crate) fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// A text of the source on one line, shortened in its middle.
pub(crate) fn short(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let count = text.chars().count();
    if count <= 90 {
        return text;
    }
    let head: String = text.chars().take(60).collect();
    let tail: String = text.chars().skip(count - 27).collect();
    format!("{head}…{tail}")
}
