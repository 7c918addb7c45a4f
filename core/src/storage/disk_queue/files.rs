//! The data files that are still needed, and what is at a place in them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::cmp::Ordering;

use super::meta::Position;
use super::record::{self, Damage, Step};
use super::search::{Search, SearchOutcome};

/// A data file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DataFile {
    pub(super) number: u64,
    /// How long it is, as far as it is to be read.
    pub(super) len: u64,
    /// Up to here the meta file that was found vouched for it. A record ends here, or the file.
    pub(super) vouched: u64,
    /// Whether something was found in it that is no record: then it is set aside and not removed.
    pub(super) is_damaged: bool,
}

/// What comes next in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// A record of so many bytes.
    Record(usize),
    /// So many bytes are needed to say.
    More(usize),
    /// The search has to go on, from this place on.
    Search(Box<Search>),
    /// Nothing more.
    End,
    /// So many bytes are of no use, and why. `is_torn` means that they are the start of a record
    /// whose writing was never reported as done.
    Gap { len: u64, damage: Damage, is_torn: bool },
}

impl DataFile {
    pub(super) const fn new(number: u64) -> Self {
        Self { number, len: 0, vouched: 0, is_damaged: false }
    }

    /// Looks at `bytes`, which lie at `offset`, with a hole right before them or not.
    ///
    /// Behind something that is no record it goes on at the next place where one begins: where its
    /// size leads, if only its id is wrong; else where the [search](super::search) ends, at the
    /// latest where the meta file said that writing had ended, or where the file ends now, which is
    /// where this process writes on.
    pub(super) fn next(
        &self,
        bytes: &[u8],
        offset: u64,
        is_behind_hole: bool,
        max_msg_size: usize,
    ) -> Next {
        let left = self.len.saturating_sub(offset);
        if left == 0 {
            return Next::End;
        }
        let is_vouched_for = offset < self.vouched;
        let end = if is_vouched_for { self.vouched.min(self.len) } else { self.len };
        let search = match record::step(bytes, left) {
            Step::More(len) => return Next::More(len),
            Step::Record(len) if is_behind_hole => match self.is_followed(bytes, offset, len) {
                Some(true) => return Next::Record(len),
                Some(false) => Search::behind(offset, len, end),
                None => return Next::More(len + record::HEADER_LEN),
            },
            Step::Record(len) => return Next::Record(len),
            Step::BadId(len) => {
                let (damage, behind) = (Damage::Id, offset + len as u64);
                match behind.cmp(&end) {
                    Ordering::Less => Search::new(offset, end, damage, false).with_guess(behind),
                    Ordering::Equal => {
                        return Next::Gap { len: len as u64, damage, is_torn: false };
                    }
                    Ordering::Greater => Search::new(offset, end, damage, false),
                }
            }
            Step::Bad(damage) => {
                let is_start = record::begins(bytes) && record::fits(bytes, max_msg_size);
                if damage == Damage::Short && is_start && !is_vouched_for {
                    return Next::Gap { len: left, damage, is_torn: true };
                }
                Search::new(offset, end, damage, record::has_id(bytes))
            }
        };
        self.search(search, bytes, offset)
    }

    /// Whether another record follows on the one of `len` bytes at `offset`, or the file ends
    /// there. `None` if `bytes` do not tell.
    fn is_followed(&self, bytes: &[u8], offset: u64, len: usize) -> Option<bool> {
        let end = offset + len as u64;
        let left = usize::try_from(self.len.saturating_sub(end)).unwrap_or(usize::MAX);
        if left == 0 || end == self.vouched {
            return Some(true);
        }
        let behind = bytes.get(len..)?.get(..left.min(record::HEADER_LEN))?;
        Some(record::begins(behind))
    }

    fn search(&self, mut search: Search, bytes: &[u8], offset: u64) -> Next {
        match search.look(bytes, offset, self.len) {
            Some(SearchOutcome::Gap { len, damage }) => Next::Gap { len, damage, is_torn: false },
            Some(SearchOutcome::Record(len)) => Next::Record(len),
            None => Next::Search(Box::new(search)),
        }
    }
}

/// Data files by number.
#[derive(Debug, Default)]
pub(super) struct DataFiles(pub(super) VecDeque<DataFile>);

impl DataFiles {
    /// The first file with this number or a higher one.
    fn at(&self, number: u64) -> usize {
        self.0.partition_point(|file| file.number < number)
    }

    pub(super) fn get(&self, number: u64) -> Option<&DataFile> {
        self.0.get(self.at(number)).filter(|file| file.number == number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut DataFile> {
        let at = self.at(number);
        self.0.get_mut(at).filter(|file| file.number == number)
    }

    /// The files from `first` to `last`.
    pub(super) fn range(&self, first: u64, last: u64) -> impl Iterator<Item = &DataFile> {
        self.0.range(self.at(first)..).take_while(move |file| file.number <= last)
    }

    /// Notes that `len` bytes were appended to a file, which is the last one or a new last one.
    pub(super) fn grow(&mut self, number: u64, len: u64) {
        match self.get_mut(number) {
            Some(file) => file.len += len,
            None => self.0.push_back(DataFile { len, ..DataFile::new(number) }),
        }
    }

    /// The same place, if it is the end of a file that is followed by another: the start of that
    /// one.
    pub(super) fn normalize(&self, mut position: Position, write: Position) -> Position {
        while position.file < write.file {
            let mut files = self.0.range(self.at(position.file)..);
            let mut next = files.next();
            if let Some(file) = next
                && file.number == position.file
            {
                if position.offset < file.len {
                    break;
                }
                next = files.next();
            }
            let file = next.map_or(write.file, |file| file.number.min(write.file));
            position = Position { file, offset: 0 };
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn the_end_of_a_file_is_the_start_of_the_next() {
        let mut files = DataFiles::default();
        let at = |file, offset| Position { file, offset };
        let write = at(9, 0);
        assert_eq!(files.normalize(at(2, 5), write), write);
        files.grow(3, 10);
        files.grow(4, 0);
        files.grow(6, 7);
        for (from, to) in [
            (at(2, 5), at(3, 0)),
            (at(3, 9), at(3, 9)),
            (at(3, 10), at(6, 0)),
            (at(5, 1), at(6, 0)),
            (at(6, 7), write),
        ] {
            assert_eq!(files.normalize(from, write), to);
        }
        assert_eq!(files.normalize(at(6, 7), at(6, 7)), at(6, 7));
        assert_eq!(files.normalize(at(3, 10), at(5, 0)), at(5, 0));
    }

    #[test]
    fn behind_damage_it_goes_on_where_a_record_begins() {
        let file = DataFile { len: 500, vouched: 300, ..DataFile::new(0) };
        let next = |offset: u64| file.next(&[0; 500][offset as usize..], offset, false, 100);
        let damage = Damage::Size(0);
        assert_eq!(next(20), Next::Gap { len: 280, damage, is_torn: false });
        assert_eq!(next(300), Next::Gap { len: 200, damage, is_torn: false });
        assert_eq!(next(490), Next::Gap { len: 10, damage, is_torn: false });
        assert_eq!(next(500), Next::End);
        // The start of a record, and something that only looks like one.
        let mut start = [vec![0, 0, 0, 90], vec![0; 10], b"0123456789abcdef".to_vec()].concat();
        start.resize(90, b'x');
        let next = |file: &DataFile, bytes: &[u8], max| {
            file.next(bytes, 500 - bytes.len() as u64, false, max)
        };
        let torn = |len| Next::Gap { len, damage: Damage::Short, is_torn: true };
        let gap = |len| Next::Gap { len, damage: Damage::Short, is_torn: false };
        assert_eq!(next(&file, &start[..60], 100), torn(60));
        assert_eq!(next(&file, &start[..20], 100), torn(20));
        assert_eq!(next(&file, &start[..3], 100), torn(3));
        assert_eq!(next(&file, &start, 50), gap(90));
        let vouched = DataFile { vouched: 500, ..file };
        assert_eq!(next(&vouched, &start[..60], 100), gap(60));
        start[20] = b'G';
        assert_eq!(next(&file, &start[..60], 100), gap(60));
    }
}
