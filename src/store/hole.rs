//! Bytes that a file got and that did not reach the disk before the power
//! failed: they are zeroes, up to the end of a sector or of the file.
//!
//! The length of a file may be durable before what was appended, and a later
//! sector before an earlier one. No line of b24's has a zero byte, so zeroes
//! show what was lost. Whatever stands behind them was not synchronised either,
//! or they would not be there: it may be cut off like the rest of a torn line.

/// The smallest piece of a disk that is written as a whole.
const SECTOR: u64 = 512;

/// Returns where the first hole in a part of a file begins, which stands at
/// `offset` in it. A single byte that was changed to zero is none: a hole
/// begins with a line or a sector, and ends with a sector or the part.
#[must_use]
pub fn first(bytes: &[u8], offset: u64) -> Option<usize> {
    let is_sector = |at: usize| (offset + at as u64).is_multiple_of(SECTOR);
    let mut from = 0;
    while let Some(begin) = bytes[from..].iter().position(|byte| *byte == 0).map(|at| from + at) {
        let end = bytes[begin..].iter().position(|byte| *byte != 0).map_or(bytes.len(), |length| begin + length);
        let begins = begin == 0 || bytes[begin - 1] == b'\n' || is_sector(begin);
        // A run that ends within a sector may have swallowed whole ones before.
        if begins && (end == bytes.len() || is_sector(end)) {
            return Some(begin);
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_begins_with_a_line_or_a_sector_and_ends_with_one() {
        let line = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
        let zeroes = |length: usize| vec![0; length];
        let cases: &[(Vec<u8>, Option<usize>)] = &[
            (line(700), None),
            ([line(100), zeroes(412), line(50)].concat(), Some(100)),
            ([line(100), zeroes(40)].concat(), Some(100)),
            ([line(100), zeroes(40), line(40)].concat(), None),
            ([vec![b'x'; 512], zeroes(512), line(9)].concat(), Some(512)),
            ([vec![b'x'; 500], zeroes(1), line(40)].concat(), None),
            ([vec![b'x'; 500], zeroes(1), vec![b'x'; 11], zeroes(512), line(9)].concat(), Some(512)),
        ];
        for (bytes, hole) in cases {
            assert_eq!(first(bytes, 0), *hole);
        }
        assert_eq!(first(&[zeroes(12), line(9)].concat(), 500), Some(0));
        assert_eq!(first(&[zeroes(12), line(9)].concat(), 0), None);
    }
}
