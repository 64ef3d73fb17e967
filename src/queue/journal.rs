//! The files of an inbox: `inbox-N.jsonl`, the highest N counts, and their
//! witness `inbox.head`.
//!
//! Protocol: whoever works on the inbox holds `inbox.lock` from reading the
//! lines that others appended to appending his own; so several workers are one.
//! Bytes behind the last line end are the rest of a killed writer and are cut
//! by the next holder of the lock. A journal that is mostly history is replaced:
//! a snapshot is written and synchronised as `inbox-(N+1).jsonl`, then named by
//! the witness, and only then the old file is deleted; a crash between them
//! leaves both, and the higher one is complete.
//!
//! Damage is noticed by the next commit, and nothing goes on:
//!
//! | what happened to the file | what shows it |
//! |--|--|
//! | a byte changed, zeroes | the sum of its line |
//! | a line removed, doubled, moved, of another file | its link ([`Tip`]) |
//! | cut, emptied, removed, an older copy put back | the witness ([`Head`]) |
//! | replaced while b24 runs | what this process has read must still be there |
//! | a stray file with a higher number | it has no complete snapshot |
//!
//! What a commit did not wait for is not in the witness: lines that only say
//! what the portal was told, and are told again when they are lost.

use super::head::{Head, Mark, Witness};
use super::line::{Line, Tip};
use super::state::{Place, State};
use crate::crash;
use crate::host::Random;
use crate::store::locked::{self, Existing, Locked, Mode, StoreError};
use crate::store::{create_folder, disk, temporary_name};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a worker may keep the inbox; it holds no more than two syncs.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// How much of the last line is looked at again: its sum and its link.
const LOOKED_AT: usize = 17;

/// The journal of an inbox as one process has read it.
pub(super) struct Journal {
    folder: PathBuf,
    number: u64,
    /// Everything before this is in the state.
    known: Mark,
    /// Which file that is.
    id: Option<(u64, u64)>,
    /// Where the last line begins, and its first bytes.
    last: Option<(u64, Vec<u8>)>,
    /// There were lines that are linked: none of an earlier version may follow.
    is_linked: bool,
    /// How long the file was when it was made by compaction.
    base: u64,
    /// What the witness said or was told last.
    head: Option<Head>,
    /// The witness could not be told of the last commit.
    untold: Option<StoreError>,
}

/// The journal while this process may change it.
pub(super) struct Held {
    _lock: Locked,
    file: Locked,
    witness: Witness,
}

/// What is known of a journal before it is read.
struct Sight {
    number: u64,
    /// What the witness says; the beginning where there is none.
    head: Head,
    has_witness: bool,
    has_older: bool,
}

/// Which journal counts.
struct Found {
    number: u64,
    /// Files that a compaction has left.
    older: Vec<u64>,
    /// It is there.
    exists: bool,
}

impl Journal {
    /// Finds the journal of a folder, or makes the folder.
    pub(super) fn find(folder: &Path) -> Result<Journal, StoreError> {
        create_folder(folder)?;
        let known = Mark { length: 0, tip: Tip::start(0) };
        Ok(Journal {
            folder: folder.to_owned(),
            number: 0,
            known,
            id: None,
            last: None,
            is_linked: false,
            base: 0,
            head: None,
            untold: None,
        })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("inbox-{number:06}.jsonl"))
    }

    fn head_path(&self) -> PathBuf {
        self.folder.join("inbox.head")
    }

    /// Takes the lock and brings the state up to date.
    pub(super) fn lock(&mut self, state: &mut State, random: &dyn Random) -> Result<Held, StoreError> {
        let lock = Locked::open(&self.folder.join("inbox.lock"), Mode::Exclusive, LOCK_WAIT)?;
        let result = match self.untold.take() {
            Some(problem) => Err(problem),
            None => self.open(lock, state, random),
        };
        if result.is_err() {
            // The state may have a part of what the file says.
            self.rewind();
        }
        result
    }

    fn open(&mut self, lock: Locked, state: &mut State, random: &dyn Random) -> Result<Held, StoreError> {
        let opened = Witness::open(&self.head_path())?;
        let found = self.find_newest(opened.as_ref().map(|(_, head)| head))?;
        let path = self.path(found.number);
        let (witness, head) = match opened {
            Some((mut witness, head)) if !found.exists && head.length > 0 => {
                // It was refused, and moved away by its owner.
                let fresh = Head::start(found.number);
                witness.write_durable(&fresh)?;
                (Some(witness), fresh)
            }
            Some((witness, head)) => (Some(witness), head),
            None => (None, Head::start(found.number)),
        };
        // A new witness is there before its journal, but behind the lines of
        // one of an earlier version.
        let witness = match witness {
            None if !found.exists => Some(Witness::create(&self.head_path(), &head, random)?),
            witness => witness,
        };
        let mut file = Journal::open_file(&path, found.exists)?;
        let sight = Sight { number: found.number, head, has_witness: witness.is_some(), has_older: !found.older.is_empty() };
        let mut witness = witness;
        if let Err(error) = self.refresh(&mut file, state, &sight) {
            if let (Some(witness), StoreError::Unusable { .. }) = (&mut witness, &error) {
                let _ = witness.mark_refused(head);
            }
            return Err(error);
        }
        let witness = match witness {
            Some(mut witness) => {
                if head.refused {
                    witness.write(&Head { refused: false, ..head })?;
                }
                witness
            }
            None => {
                // What an earlier version left may not be on disk yet.
                file.sync_data()?;
                let head = Head { number: found.number, length: self.known.length, tip: self.known.tip, refused: false };
                self.head = Some(head);
                Witness::create(&self.head_path(), &head, random)?
            }
        };
        for old in found.older {
            let _ = disk::remove(&self.path(old));
        }
        Ok(Held { _lock: lock, file, witness })
    }

    /// Returns which journal counts.
    fn find_newest(&self, head: Option<&Head>) -> Result<Found, StoreError> {
        let is_known = self.number > 0 && head.is_some_and(|head| head.number == self.number);
        if is_known && self.path(self.number).exists() && !self.path(self.number + 1).exists() {
            return Ok(Found { number: self.number, older: Vec::new(), exists: true });
        }
        let entries = std::fs::read_dir(&self.folder).map_err(StoreError::io("read", &self.folder))?;
        let number = |name: &str| name.strip_prefix("inbox-")?.strip_suffix(".jsonl")?.parse::<u64>().ok();
        let mut numbers: Vec<u64> = entries.filter_map(|entry| number(&entry.ok()?.file_name().to_string_lossy())).collect();
        numbers.sort_unstable();
        let newest = numbers.pop();
        match (newest, head) {
            (None, Some(head)) if head.length == 0 || head.refused => Ok(Found { number: head.number, older: numbers, exists: false }),
            (newest, Some(head)) if newest.is_none_or(|newest| newest < head.number) => Err(self.gone(head)),
            (Some(number), _) => Ok(Found { number, older: numbers, exists: true }),
            (None, _) => Ok(Found { number: 1, older: numbers, exists: false }),
        }
    }

    fn gone(&self, head: &Head) -> StoreError {
        let problem =
            format!("is gone; {} bytes of events were written to it, and {} still says so", head.length, self.head_path().display());
        StoreError::unusable(&self.path(head.number), problem)
    }

    fn open_file(path: &Path, exists: bool) -> Result<Locked, StoreError> {
        match Locked::open_existing(path, Mode::Exclusive, LOCK_WAIT)? {
            Existing::Locked(file) => Ok(file),
            Existing::Held => Err(StoreError::Busy(path.to_owned())),
            Existing::Absent if exists => Err(StoreError::unusable(path, "was removed while it was opened")),
            Existing::Absent => {
                let file = Locked::open(path, Mode::Exclusive, LOCK_WAIT)?;
                locked::sync_parent(path)?;
                Ok(file)
            }
        }
    }

    /// Reads what is new, and checks that what was there still is.
    fn refresh(&mut self, file: &mut Locked, state: &mut State, sight: &Sight) -> Result<(), StoreError> {
        let Sight { number, head, .. } = *sight;
        let mut marks = Vec::new();
        let id = file.id()?;
        if number == self.number && self.id != Some(id) {
            // Another file stands there. It will do if it says the same.
            marks.push(self.known);
        }
        if number != self.number || self.id != Some(id) {
            *state = State::default();
            (self.number, self.base, self.last, self.is_linked) = (number, 0, None, false);
            self.known = Mark { length: 0, tip: Tip::start(number) };
            (self.id, self.head) = (Some(id), None);
        }
        if head.number == number && self.head != Some(head) {
            marks.push(Mark { length: head.length, tip: head.tip });
        }
        let length = file.length()?;
        if length < self.known.length {
            return Err(StoreError::unusable(file.path(), "is shorter than before; it was replaced by something else"));
        }
        self.check_last(file)?;
        // A mark before what is known: a witness that lags, or was put back.
        // Everything up to here was checked when it was read.
        marks.retain(|mark| mark.length >= self.known.length);
        let whole = self.scan(file, state, marks)?;
        if self.base == 0 && (sight.has_older || head.number < number) {
            let problem = "is not what a compaction leaves: it has no snapshot, and there was a journal before it";
            return Err(StoreError::unusable(file.path(), problem));
        }
        if !sight.has_witness && self.is_linked {
            let problem = format!("has no {} beside it any more, so nobody knows whether lines were lost", self.head_path().display());
            return Err(StoreError::unusable(file.path(), problem));
        }
        if !whole {
            file.truncate(self.known.length)?;
        }
        self.head = Some(head);
        Ok(())
    }

    /// Looks whether the last line is still the one that was read.
    fn check_last(&self, file: &mut Locked) -> Result<(), StoreError> {
        match &self.last {
            Some((offset, begin)) if file.read_range(*offset, begin.len())? != *begin => {
                let problem = format!("was changed behind b24's back at byte {offset}");
                Err(StoreError::unusable(file.path(), problem))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads the lines behind what is known. Returns whether the file ends
    /// with one.
    fn scan(&mut self, file: &mut Locked, state: &mut State, mut marks: Vec<Mark>) -> Result<bool, StoreError> {
        let bad = |file: &Locked, problem: String| Err(StoreError::unusable(file.path(), problem));
        let tail = if file.length()? == self.known.length { Vec::new() } else { file.read_from(self.known.length)? };
        let complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        self.pass(&mut marks, file)?;
        for text in tail[..complete].split_inclusive(|byte| *byte == b'\n') {
            let offset = self.known.length;
            let Some(parsed) = Line::parse(&text[..text.len() - 1]) else {
                return bad(file, format!("has a damaged line at byte {offset}"));
            };
            let (tip, follows) = parsed.follow(self.known.tip);
            if follows == Some(false) || (follows.is_none() && self.is_linked) {
                return bad(
                    file,
                    format!("has a line at byte {offset} that does not follow the one before it: lines were removed, doubled or moved"),
                );
            }
            self.is_linked |= follows.is_some();
            let is_end_of_snapshot = matches!(parsed.line, Line::Snapshot { .. });
            state.apply(parsed.line, Place { offset, length: text.len().try_into().unwrap_or(u32::MAX) });
            self.known = Mark { length: offset + text.len() as u64, tip };
            self.last = Some((offset, text[..text.len().min(LOOKED_AT)].to_vec()));
            if is_end_of_snapshot {
                self.base = self.known.length;
            }
            self.pass(&mut marks, file)?;
        }
        match marks.first() {
            Some(mark) => {
                let (has, had) = (self.known.length + (tail.len() - complete) as u64, mark.length);
                bad(file, format!("has lost lines: it ends at byte {has}, and {had} bytes of it were on disk"))
            }
            None => Ok(complete == tail.len()),
        }
    }

    /// Takes out the marks that the scan has come to.
    fn pass(&self, marks: &mut Vec<Mark>, file: &Locked) -> Result<(), StoreError> {
        let Mark { length, tip } = self.known;
        if marks.iter().any(|mark| mark.length < length || mark.check(length, tip) == Some(false)) {
            let problem = format!("is not what was written up to byte {length}: an older copy, or lines were changed");
            return Err(StoreError::unusable(file.path(), problem));
        }
        marks.retain(|mark| mark.length != length);
        Ok(())
    }

    /// Appends lines whose effect the state has already, and which lead the
    /// chain to a tip; `durable` waits for the disk.
    pub(super) fn append(&mut self, held: &mut Held, (bytes, tip): (&[u8], Tip), durable: bool) -> Result<(), StoreError> {
        crash::point("queue.before_append");
        held.file.append(bytes)?;
        let begin = bytes[..bytes.len().saturating_sub(1)].iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        let last = &bytes[begin..bytes.len().min(begin + LOOKED_AT)];
        self.last = Some((self.known.length + begin as u64, last.to_vec()));
        self.known = Mark { length: self.known.length + bytes.len() as u64, tip };
        self.is_linked = true;
        crash::point("queue.after_append");
        if durable {
            held.file.sync_data()?;
            crash::point("queue.after_sync");
            let head = Head { number: self.number, length: self.known.length, tip, refused: false };
            self.head = Some(head);
            // The commit is on disk all the same; that its witness is not is
            // told before the next one.
            self.untold = held.witness.write(&head).err();
        }
        Ok(())
    }

    /// Returns where the next line will stand.
    pub(super) fn position(&self) -> u64 {
        self.known.length
    }

    /// Returns where the chain is.
    pub(super) fn tip(&self) -> Tip {
        self.known.tip
    }

    /// Returns where the chain of the next journal begins.
    pub(super) fn next_start(&self) -> Tip {
        Tip::start(self.number + 1)
    }

    /// Returns the length at the last compaction.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Says that the journal is to grow again before it is compacted.
    pub(super) fn put_off_compaction(&mut self) {
        self.base = self.known.length;
    }

    /// Forgets what was read: the next lock reads everything.
    pub(super) fn rewind(&mut self) {
        self.number = 0;
    }

    /// Reads the line of an event.
    pub(super) fn read(held: &mut Held, place: Place) -> Result<Line, StoreError> {
        let text = held.file.read_range(place.offset, place.length as usize)?;
        let line = text.strip_suffix(b"\n").and_then(Line::parse).map(|parsed| parsed.line);
        line.ok_or_else(|| StoreError::unusable(held.file.path(), format!("has a damaged line at byte {}", place.offset)))
    }

    /// Says that another line stands where one was read.
    pub(super) fn changed(&self, place: &Place) -> StoreError {
        StoreError::unusable(&self.path(self.number), format!("was changed behind b24's back at byte {}", place.offset))
    }

    /// Replaces the journal by a snapshot; the next lock reads it.
    pub(super) fn replace(&mut self, mut held: Held, (snapshot, tip): (&[u8], Tip), random: &dyn Random) -> Result<(), StoreError> {
        let number = self.number + 1;
        if locked::create_durable(&self.path(number), snapshot, &temporary_name(random))? {
            crash::point("queue.between_journals");
            held.witness.write(&Head { number, length: snapshot.len() as u64, tip, refused: false })?;
            crash::point("queue.after_new_head");
            held.file.remove()?;
        }
        self.rewind();
        Ok(())
    }
}
