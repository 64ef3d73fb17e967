//! Reading files of lines piece by piece, so that a log of any length costs the
//! same memory: a block, and one line.

use crate::store::locked::{StoreError, open_if_exists};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How much is read at a time.
const BLOCK: usize = 64 * 1024;

/// No record is longer ([`super::journal`]); of a longer line nothing is kept.
pub(super) const LONGEST_LINE: usize = 8 * 1024 * 1024;

/// A file that is open for reading, with its whole lines as they were when it
/// was opened. What is appended later does not belong to it, and what a crash
/// left behind the last line may be cut off meanwhile.
pub(super) struct Lines {
    file: File,
    path: PathBuf,
    /// Where the first line begins that is read.
    start: u64,
    /// Where the last whole line ends.
    end: u64,
    /// How many bytes stood behind it.
    torn: u64,
}

impl Lines {
    /// Opens a file; `None` when it is not there. Call it under the lock of the
    /// log where the file may be written to.
    pub(super) fn open(path: &Path) -> Result<Option<Lines>, StoreError> {
        let Some(file) = open_if_exists(path)? else { return Ok(None) };
        let length = file.metadata().map_err(StoreError::io("read", path))?.len();
        let mut lines = Lines { file, path: path.to_owned(), start: 0, end: length, torn: 0 };
        lines.end = match lines.line_ends_back(1)? {
            (0, _) => 0,
            (_, last) => last + 1,
        };
        lines.torn = length - lines.end;
        Ok(Some(lines))
    }

    /// Returns the name of the file.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns how many bytes stood behind the last whole line.
    pub(super) fn torn(&self) -> u64 {
        self.torn
    }

    /// Leaves the last `count` lines and returns how many there are.
    pub(super) fn keep_last(&mut self, count: usize) -> Result<usize, StoreError> {
        // One line end more: that of the line before them.
        let (line_ends, before) = self.line_ends_back(count.saturating_add(1))?;
        if line_ends <= count {
            return Ok(line_ends);
        }
        self.start = before + 1;
        Ok(count)
    }

    /// Looks for line ends from the end back, as many as are asked for, and
    /// returns how many there are and where the first of them stands.
    fn line_ends_back(&self, count: usize) -> Result<(usize, u64), StoreError> {
        let (mut position, mut found, mut block) = (self.end, (0, 0), vec![0; BLOCK]);
        while position > 0 {
            let length = position.min(BLOCK as u64);
            let part = &mut block[..usize::try_from(length).unwrap_or(BLOCK)];
            position -= length;
            self.file.read_exact_at(part, position).map_err(StoreError::io("read", &self.path))?;
            for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                found = (found.0 + 1, position + index as u64);
                if found.0 == count {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Goes through the lines from the first to the last. A line that is too
    /// long is `None`.
    pub(super) fn each<E: From<StoreError>>(mut self, mut each: impl FnMut(Option<&[u8]>) -> Result<(), E>) -> Result<(), E> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| E::from(StoreError::io("read", &path)(error))
        };
        self.file.seek(SeekFrom::Start(self.start)).map_err(failed(&self.path))?;
        let mut reader = BufReader::with_capacity(BLOCK, self.file.take(self.end - self.start));
        let (mut line, mut is_too_long) = (Vec::new(), false);
        loop {
            let block = reader.fill_buf().map_err(failed(&self.path))?;
            if block.is_empty() {
                return Ok(());
            }
            let line_end = block.iter().position(|byte| *byte == b'\n');
            let part = &block[..line_end.unwrap_or(block.len())];
            is_too_long |= line.len() + part.len() > LONGEST_LINE;
            if !is_too_long {
                line.extend_from_slice(part);
            }
            let used = line_end.map_or(block.len(), |end| end + 1);
            reader.consume(used);
            if line_end.is_some() {
                each((!is_too_long).then_some(line.as_slice()))?;
                line.clear();
                line.shrink_to(BLOCK);
                is_too_long = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: Lines) -> Vec<Option<String>> {
        let mut found = Vec::new();
        let done: Result<(), StoreError> = lines.each(|line| {
            found.push(line.map(|line| String::from_utf8_lossy(line).into_owned()));
            Ok(())
        });
        done.unwrap();
        found
    }

    #[test]
    fn lines_are_read_from_both_ends_whatever_their_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(Lines::open(&path).unwrap().is_none());
        let lengths = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 2, LONGEST_LINE, LONGEST_LINE + 1, 5];
        let texts: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
        for torn in ["", "torn"] {
            std::fs::write(&path, texts.join("\n") + "\n" + torn).unwrap();
            let expected: Vec<Option<String>> = texts.iter().map(|text| (text.len() <= LONGEST_LINE).then(|| text.clone())).collect();
            for count in 0..=texts.len() + 2 {
                let mut lines = Lines::open(&path).unwrap().unwrap();
                assert_eq!(lines.torn(), torn.len() as u64);
                let kept = lines.keep_last(count).unwrap();
                assert_eq!(kept, count.min(texts.len()));
                assert!(read(lines) == expected[texts.len() - kept..], "{count}");
            }
        }
        std::fs::write(&path, "no line end").unwrap();
        let lines = Lines::open(&path).unwrap().unwrap();
        assert_eq!((lines.torn(), read(lines)), (11, Vec::new()));
    }
}
