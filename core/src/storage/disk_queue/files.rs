//! The data files that are still needed, and what is at a place in them.

use alloc::collections::VecDeque;

use super::meta::Position;
use super::record::{self, Damage, Step};

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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// A record of so many bytes.
    Record(usize),
    /// So many bytes are needed to say.
    More(usize),
    /// Nothing more.
    End,
    /// So many bytes are of no use, and why. `is_torn` means that they are the start of a record whose
    /// writing was never reported as done.
    Gap { len: u64, damage: Damage, is_torn: bool },
}

impl DataFile {
    pub(super) const fn new(number: u64) -> Self {
        Self { number, len: 0, vouched: 0, is_damaged: false }
    }

    /// Looks at `bytes`, which lie at `offset`.
    ///
    /// Behind something that is no record it goes on at the next place where one is known to begin:
    /// right behind it if only its id is wrong, or where the meta file said that writing had ended, or
    /// where the file ends now, which is where this process writes on.
    pub(super) fn next(&self, bytes: &[u8], offset: u64, max_msg_size: usize) -> Next {
        let left = self.len.saturating_sub(offset);
        if left == 0 {
            return Next::End;
        }
        let damage = match record::step(bytes, left) {
            Step::Record(len) => return Next::Record(len),
            Step::More(len) => return Next::More(len),
            Step::Skip(len) => {
                return Next::Gap { len: len as u64, damage: Damage::Id, is_torn: false };
            }
            Step::Bad(damage) => damage,
        };
        let is_vouched_for = offset < self.vouched;
        let to = if is_vouched_for { self.vouched.min(self.len) } else { self.len };
        let fits_a_record = left <= (record::HEADER_LEN + max_msg_size) as u64;
        let is_torn = !is_vouched_for && damage == Damage::Short && fits_a_record;
        Next::Gap { len: to - offset, damage, is_torn }
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

    /// The same place, if it is the end of a file that is followed by another: the start of that one.
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
        let next = |offset| file.next(&[0, 0, 0, 0], offset, 100);
        let damage = Damage::Size(0);
        assert_eq!(next(20), Next::Gap { len: 280, damage, is_torn: false });
        assert_eq!(next(300), Next::Gap { len: 200, damage, is_torn: false });
        assert_eq!(next(500), Next::End);
        // The start of a record, and something that only looks like one.
        let start = [0, 0, 0, 90];
        let damage = Damage::Short;
        assert_eq!(file.next(&start, 440, 100), Next::Gap { len: 60, damage, is_torn: true });
        assert_eq!(file.next(&start, 410, 50), Next::Gap { len: 90, damage, is_torn: false });
        let file = DataFile { vouched: 500, ..file };
        assert_eq!(file.next(&start, 440, 100), Next::Gap { len: 60, damage, is_torn: false });
    }
}
