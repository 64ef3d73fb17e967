//! The last records of the log, found from its end.

use super::AuditLog;
use super::line::Line;
use super::lines::Lines;
use crate::store::locked::StoreError;
use serde_json::value::RawValue;

/// The last lines of the log, open for reading.
pub struct Tail {
    /// The oldest first.
    files: Vec<Lines>,
    torn: u64,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailLine<'a> {
    /// A record without its frame.
    Record(&'a str),
    /// A record whose hash does not fit it.
    Changed(&'a str),
    /// A line that cannot be read.
    Unreadable,
}

pub(super) fn find(log: &AuditLog, count: usize) -> Result<Tail, StoreError> {
    let _lock = log.read_lock()?;
    let older = log.place.segments()?.into_iter().rev().map(|number| log.place.segment(number));
    let mut tail = Tail { files: Vec::new(), torn: 0 };
    let mut left = count;
    for path in std::iter::once(log.place.current().to_owned()).chain(older) {
        if left == 0 {
            break;
        }
        let Some(mut lines) = Lines::open(&path)? else { continue };
        left -= lines.keep_last(left)?;
        tail.torn += lines.torn();
        tail.files.push(lines);
    }
    tail.files.reverse();
    Ok(tail)
}

impl Tail {
    /// Returns how many bytes stand behind the last line: a crash left them,
    /// and the next record takes them in.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Goes through the lines, the oldest first. Nothing but one line is in
    /// memory, however many there are.
    pub fn each<E: From<StoreError>>(self, mut each: impl FnMut(TailLine) -> Result<(), E>) -> Result<(), E> {
        for lines in self.files {
            lines.each(|bytes| {
                let line = bytes.and_then(Line::parse);
                let text = line.as_ref().and_then(|line| serde_json::from_slice::<&RawValue>(line.body).ok());
                each(match (line, text) {
                    (Some(line), Some(text)) if line.is_genuine() => TailLine::Record(text.get()),
                    (Some(_), Some(text)) => TailLine::Changed(text.get()),
                    _ => TailLine::Unreadable,
                })
            })?;
        }
        Ok(())
    }
}
