//! The way from bytes that are no record to the next record.
//!
//! Nothing but its size, its time and its id tells a record, so any place may be one. The search
//! takes the first place that has them and whose record ends before the search does:
//!
//! - Bytes that only happen to be there do not pass: sixteen hex digits in a row have a chance of
//!   2^-64. Text does not either, because it is no time before 2080.
//! - Behind something with an id lies its body, which may hold records, copies of data files for
//!   example. There a place counts only if another record follows, or if it ends where the search
//!   does. What is made to look like that up to the end of its body cannot be told from records.
//!
//! Each byte is looked at once, and at most one other place for each place that could be a record;
//! so the time is linear, and the memory that of one chunk.
//!
//! A record itself can be in doubt. If the power goes, what was not synced may have holes, which
//! are zeros; if one of them ends within a size, the size is too small, and everything behind it is
//! in order: a message with a part of its body. Such a record is right behind a hole, and the bytes
//! behind it are the rest of its body: as many as the upper bytes of the size said, a multiple of
//! 256. So a record behind a hole is believed if the next one follows in its place, or the file
//!      ends there, or nothing but zeros are between; or else if what is between can't be such a
//!      rest. That is asked of every record, not only of those that the meta file does not vouch
//!      for: a file whose sync failed has holes as well, and at the next start the meta file
//!      vouches for all of them.

use bytes::Bytes;

use super::record::{self, Damage, HEADER_LEN, SIZE_LEN};

/// What is looked for, and how far that is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Search {
    /// Where the bytes begin that are no record, or the record that is in doubt.
    from: u64,
    damage: Damage,
    /// Up to here there is no record.
    at: u64,
    /// Here a record begins, or the file ends.
    end: u64,
    /// Whether `at` may be in a body.
    is_in_body: bool,
    check: Option<Check>,
    /// Whether only zeros were passed over.
    is_zero: bool,
    /// What was read last to be searched, and where it lies, while another place is looked at.
    chunk: (u64, Bytes),
}

/// A place that counts if a record begins at another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Check {
    place: u64,
    begins: u64,
}

/// What comes of a search.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SearchOutcome {
    /// So many bytes are of no use, and why; then comes a record, or the file ends.
    Gap { len: u64, damage: Damage },
    /// The record that was in doubt is one, of so many bytes.
    Record(usize),
}

impl Search {
    /// Searches behind `from`, where there is no record, up to `end`.
    pub(super) fn new(from: u64, end: u64, damage: Damage, is_in_body: bool) -> Self {
        let (at, chunk) = (from + 1, (0, Bytes::new()));
        Self { from, damage, at, end, is_in_body, check: None, is_zero: true, chunk }
    }

    /// The same, with a place to look at before all others.
    pub(super) fn with_guess(mut self, place: u64) -> Self {
        self.check = Some(Check { place, begins: place });
        self
    }

    /// Searches behind the record at `from`, of `len` bytes, to know whether it is one.
    pub(super) fn behind(from: u64, len: usize, end: u64) -> Self {
        let damage = Damage::Cut((len - SIZE_LEN) as i32);
        Self { at: from + len as u64, ..Self::new(from, end, damage, true) }
    }

    /// What of the file is to be looked at next: where, and how many bytes.
    pub(super) fn wants(&self, file_len: u64, chunk_len: usize) -> (u64, usize) {
        let (at, end, max) = match self.check {
            Some(check) => (check.begins, file_len, HEADER_LEN),
            None => (self.at, self.end, chunk_len),
        };
        (at, usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(max))
    }

    /// Looks at what was read at `offset`, as it [wanted](Self::wants). `None` if it wants more.
    pub(super) fn read(
        &mut self,
        bytes: Bytes,
        offset: u64,
        file_len: u64,
    ) -> Option<SearchOutcome> {
        if self.check.is_none() {
            self.chunk = (offset, bytes);
        } else if let Some(found) = self.look(&bytes, offset, file_len) {
            return Some(found);
        }
        let (offset, bytes) = self.chunk.clone();
        self.look(&bytes, offset, file_len)
    }

    /// Looks at `bytes`, which lie at `offset` of a file of `file_len` bytes. `None` if more are
    /// wanted.
    pub(super) fn look(
        &mut self,
        bytes: &[u8],
        offset: u64,
        file_len: u64,
    ) -> Option<SearchOutcome> {
        let from = |at: u64| bytes.get(usize::try_from(at.checked_sub(offset)?).ok()?..);
        loop {
            if let Some(Check { place, begins }) = self.check {
                let left = usize::try_from(file_len.saturating_sub(begins)).unwrap_or(usize::MAX);
                let bytes = from(begins)?.get(..left.min(HEADER_LEN))?;
                self.check = None;
                if record::begins(bytes) {
                    return Some(self.found(place));
                }
            }
            let rest = from(self.at).unwrap_or_default();
            let mut candidate = None;
            for bytes in rest.windows(HEADER_LEN) {
                candidate = record::len_of(bytes, self.end.saturating_sub(self.at));
                if candidate.is_some() || self.left() < HEADER_LEN as u64 {
                    break;
                }
                self.pass(bytes.get(..1));
            }
            if let Some(len) = candidate {
                let (place, begins) = (self.at, self.at + len);
                if !self.is_in_body || begins == self.end {
                    return Some(self.found(place));
                }
                self.pass(None);
                self.check = Some(Check { place, begins });
            } else if self.left() < HEADER_LEN as u64 {
                let left = self.left() as usize;
                let rest = if left == 0 { &[] } else { from(self.at)?.get(..left)? };
                self.pass(Some(rest));
                return Some(self.found(self.end));
            } else {
                return None;
            }
        }
    }

    const fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// Passes over bytes; over one that is not zero if none are given.
    fn pass(&mut self, bytes: Option<&[u8]>) {
        self.is_zero &= bytes.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        self.at += bytes.map_or(1, |bytes| bytes.len() as u64);
    }

    /// The next place is `to`.
    fn found(&self, to: u64) -> SearchOutcome {
        let Self { from, damage, is_zero, .. } = *self;
        let len = to - from;
        match damage {
            Damage::Cut(size) if is_zero || to < self.end && !may_be_cut(size, len) => {
                SearchOutcome::Record(size as usize + SIZE_LEN)
            }
            Damage::Cut(_) | Damage::Id | Damage::Short | Damage::Size(_) => {
                SearchOutcome::Gap { len, damage }
            }
        }
    }
}

/// Whether `size` can be what is left of the size of a record of `len` bytes whose first bytes are
/// zero.
fn may_be_cut(size: i32, len: u64) -> bool {
    let size = u64::try_from(size).unwrap_or(0);
    let kept = [1 << 8, 1 << 16, 1 << 24].into_iter().find(|upper| size < *upper);
    kept.is_some_and(|upper| len.saturating_sub(SIZE_LEN as u64 + size).is_multiple_of(upper))
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// A record of `len` bytes.
    fn record(len: usize) -> Vec<u8> {
        let mut record = ((len - SIZE_LEN) as u32).to_be_bytes().to_vec();
        record.extend([7; 10]);
        record.extend(b"0123456789abcdef");
        record.resize(len, b'x');
        record
    }

    /// What a search finds that is shown as much of a file as it wants.
    fn run(mut search: Search, file: &[u8], chunk_len: usize) -> SearchOutcome {
        let mut shown = 0;
        loop {
            let (at, len) = search.wants(file.len() as u64, chunk_len);
            shown += len;
            let again = 3 + 2 * chunk_len / (chunk_len.max(HEADER_LEN) - HEADER_LEN + 1);
            assert!(shown <= again * file.len() + 200, "it takes its time");
            let chunk = Bytes::copy_from_slice(&file[at as usize..][..len]);
            if let Some(found) = search.read(chunk, at, file.len() as u64) {
                return found;
            }
        }
    }

    fn gap(search: &Search, file: &[u8]) -> u64 {
        let found = run(search.clone(), file, 1 << 17);
        assert_eq!(found, run(search.clone(), file, 31));
        let SearchOutcome::Gap { len, .. } = found else { panic!("{found:?}") };
        len
    }

    fn search(file: &[u8], is_in_body: bool) -> Search {
        Search::new(0, file.len() as u64, Damage::Size(0), is_in_body)
    }

    #[test]
    fn the_next_record_is_found_whatever_is_before_it() {
        let garbage: [&[u8]; 6] = [
            &[0, 0, 0, 1, b'x'],
            &[0],
            &[0; 4096],
            &[0xFF; 300],
            b"0123456789abcdef",
            &[0, 0, 0, 40],
        ];
        for garbage in garbage {
            for len in [30, 31, 500, 5000] {
                for is_in_body in [false, true] {
                    let file = [garbage, &record(len)].concat();
                    assert_eq!(gap(&search(&file, is_in_body), &file), garbage.len() as u64);
                }
                // One record between two such places.
                let file = [garbage, &record(len), garbage, &record(30)].concat();
                assert_eq!(gap(&search(&file, false), &file), garbage.len() as u64);
            }
            assert_eq!(gap(&search(garbage, false), garbage), garbage.len() as u64);
        }
    }

    #[test]
    fn a_body_that_holds_a_record_holds_none() {
        let body = [&record(40)[..], b"and more", &record(30)].concat();
        let file = [&b"head"[..], &body, b"end", &record(35)].concat();
        let to = file.len() as u64 - 35;
        assert_eq!(gap(&search(&file, true), &file), to);
        // Unless it holds nothing else up to its end.
        let file = [&b"head"[..], &record(40), &record(35)].concat();
        assert_eq!(gap(&search(&file, true), &file), 4);
    }

    #[test]
    fn a_guess_comes_first_if_a_record_is_there() {
        let file = [vec![b'x'; 5], record(40), vec![b'y'; 5], record(35)].concat();
        assert_eq!(gap(&search(&file, false), &file), 5);
        assert_eq!(gap(&search(&file, false).with_guess(50), &file), 50);
        assert_eq!(gap(&search(&file, false).with_guess(49), &file), 5);
    }

    #[test]
    fn a_record_with_the_rest_of_its_body_behind_it_is_none() {
        for (rest, is_cut) in [(0, false), (5, false), (255, false), (256, true), (768, true)] {
            let file = [record(40), vec![b'y'; rest], record(30)].concat();
            let search = Search::behind(0, 40, file.len() as u64);
            let len = 40 + rest as u64;
            let gap = SearchOutcome::Gap { len, damage: Damage::Cut(36) };
            let expected = if is_cut { gap } else { SearchOutcome::Record(40) };
            assert_eq!(run(search.clone(), &file, 31), expected, "{rest}");
            assert_eq!(run(search, &file, 1 << 17), expected, "{rest}");
            // Of a larger record another byte of the size would be there.
            let file = [record(340), vec![b'y'; rest], record(30)].concat();
            let search = Search::behind(0, 340, file.len() as u64);
            assert_eq!(run(search, &file, 1 << 17), SearchOutcome::Record(340));
        }
        // The rest may be cut as well; zeros are no rest of anything.
        for (behind, is_record) in [(vec![b'y'; 9], false), (vec![0; 4096], true), (vec![], true)] {
            let file = [record(40), behind].concat();
            let found = run(Search::behind(0, 40, file.len() as u64), &file, 64);
            assert_eq!(found == SearchOutcome::Record(40), is_record);
        }
    }

    /// Made so that every place has to be looked into.
    #[test]
    fn the_time_is_linear() {
        let start = [&40_000_u32.to_be_bytes()[..], &[7; 10], b"0123456789abcdef"].concat();
        let file = [start.repeat(3000), vec![0; 100]].concat();
        let search = Search::new(0, file.len() as u64, Damage::Id, true);
        assert!(matches!(run(search, &file, 1 << 10), SearchOutcome::Gap { len: 90_100, .. }));
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            pieces in prop::collection::vec(
                prop_oneof![
                    (30_usize..90).prop_map(record),
                    prop::collection::vec(any::<u8>(), 0..50),
                    (0_usize..300).prop_map(|len| vec![0; len]),
                    (30_usize..90).prop_map(|len| record(len)[..len / 2].to_vec()),
                ],
                1..9,
            ),
            (is_in_body, chunk_len) in (any::<bool>(), 30_usize..200),
        ) {
            let file = pieces.concat();
            if !file.is_empty() {
                let whole = run(search(&file, is_in_body), &file, file.len());
                prop_assert_eq!(whole, run(search(&file, is_in_body), &file, chunk_len));
            }
        }
    }
}
