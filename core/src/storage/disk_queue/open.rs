//! What is made of the files that are found (storage-formats.md sections 5, 7, 8 and 12).
//!
//! A meta file in step with the data files is believed. If the write file is longer, or there are
//! files behind it, a crash came between writing and the meta file: everything is read to its true
//! end, and writing goes on in the next file. If a file is shorter than it should be, or missing,
//! or there is no meta file, or it says what cannot be, then what is there is what counts. Files
//! that are missing are no damage: on a full disk those that are finished go before the meta file
//! says so. Nothing is ever appended to a file that is not exactly as long as its meta file says.

use alloc::vec::Vec;

use super::DiskEvent;
use super::files::{DataFile, DataFiles};
use super::meta::{FILE_NUMBER_MAX, Meta, Position};
use super::record::HEADER_LEN;
use crate::storage::Found;

/// The files of a queue, put in order.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) files: DataFiles,
    /// The first record that is needed.
    pub(super) read: Position,
    /// Where the next record goes.
    pub(super) write: Position,
    /// Records from `read` to `count_from`, if that is given, and to `write` if not.
    pub(super) depth: u64,
    /// From here on records have to be counted.
    pub(super) count_from: Option<Position>,
    /// What the meta file holds, if it is to be believed and as we would write it.
    pub(super) meta: Option<Meta>,
    /// Data files that are read already.
    pub(super) left_over: Vec<u64>,
    /// What there is to say about it.
    pub(super) event: Option<DiskEvent>,
}

impl Layout {
    pub(super) fn new(found: &Found) -> Self {
        let mut files: Vec<(u64, u64)> =
            found.files.iter().copied().filter(|file| file.0 <= FILE_NUMBER_MAX).collect();
        files.sort_unstable();
        files.dedup_by_key(|file| file.0);
        match found.meta.as_deref().map(Meta::parse) {
            Some(Ok(meta)) => {
                let is_canonical = found.meta.as_deref() == Some(meta.to_text().as_bytes());
                Self::by_meta(meta, is_canonical, &files)
            }
            Some(Err(_)) => Self { event: Some(DiskEvent::BadMeta), ..Self::salvage(&files) },
            None => {
                let count = files.len();
                let event = (count > 0).then_some(DiskEvent::NoMeta { files: count });
                Self { event, ..Self::salvage(&files) }
            }
        }
    }

    /// Takes everything for unread.
    fn salvage(files: &[(u64, u64)]) -> Self {
        let read = Position { file: files.first().map_or(0, |file| file.0), offset: 0 };
        let file = files.last().map_or(0, |file| file.0 + 1);
        let files =
            files.iter().map(|(number, len)| DataFile { len: *len, ..DataFile::new(*number) });
        let files = DataFiles(files.collect());
        Self {
            count_from: (!files.0.is_empty()).then_some(read),
            files,
            read,
            write: Position { file, offset: 0 },
            depth: 0,
            meta: None,
            left_over: Vec::new(),
            event: None,
        }
    }

    fn by_meta(meta: Meta, is_canonical: bool, all: &[(u64, u64)]) -> Self {
        let Meta { depth, read, write } = meta;
        let (left_over, kept) = all.split_at(all.partition_point(|file| file.0 < read.file));
        let files = DataFiles(
            kept.iter()
                .map(|&(number, len)| {
                    let vouched = match number.cmp(&write.file) {
                        core::cmp::Ordering::Less => len,
                        core::cmp::Ordering::Equal => write.offset.min(len),
                        core::cmp::Ordering::Greater => 0,
                    };
                    DataFile { len, vouched, ..DataFile::new(number) }
                })
                .collect(),
        );
        let len_of = |number| files.get(number).map_or(0, |file| file.len);
        let written = len_of(write.file);
        let expected = (write.file - read.file).saturating_add(u64::from(write.offset > 0));
        let there = files.range(read.file, write.file).count() as u64;
        let missing = expected.saturating_sub(there);
        let is_short = |number, offset| files.get(number).is_some_and(|file| file.len < offset);
        let is_shrunk = is_short(write.file, write.offset) || is_short(read.file, read.offset);
        let before: Vec<_> = kept.iter().filter(|file| file.0 < write.file).collect();
        let is_complete = before.len() as u64 == write.file - read.file
            && written >= write.offset
            && (read.file == write.file || read.offset <= len_of(read.file));
        let last = kept.last().map_or(0, |file| file.0).max(write.file);
        let is_in_step = is_complete && written == write.offset && last == write.file;

        // As many records as the bytes can hold, and none only if there are no bytes.
        let bytes = before.iter().fold(write.offset, |sum, file| sum.saturating_add(file.1));
        let bytes = bytes.saturating_sub(read.offset);
        let depth = u64::try_from(depth).ok().filter(|depth| {
            let fits = *depth <= bytes / HEADER_LEN as u64 && (*depth == 0) == (bytes == 0);
            is_complete && fits
        });
        let count_from = match depth {
            Some(_) if is_in_step => None,
            Some(_) => Some(write),
            None if kept.is_empty() => None,
            None => Some(read),
        };
        let event = if is_in_step {
            None
        } else if missing > 0 && !is_shrunk {
            (read != write).then_some(DiskEvent::Missing { files: missing })
        } else if written > write.offset || last > write.file {
            Some(DiskEvent::StaleMeta { file: write.file, offset: write.offset, len: written })
        } else {
            Some(DiskEvent::Shrunk { file: write.file, offset: write.offset, len: written })
        };
        Self {
            files,
            read,
            write: if is_in_step { write } else { Position { file: last + 1, offset: 0 } },
            depth: depth.unwrap_or(0),
            count_from,
            meta: (is_in_step && is_canonical).then_some(meta),
            left_over: left_over.iter().map(|file| file.0).collect(),
            event,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn layout(meta: Option<&'static str>, files: &[(u64, u64)]) -> Layout {
        let meta = meta.map(|text| Bytes::from_static(text.as_bytes()));
        Layout::new(&Found { meta, deferred: None, files: files.to_vec() })
    }

    const fn at(file: u64, offset: u64) -> Position {
        Position { file, offset }
    }

    #[test]
    fn a_meta_file_in_step_is_believed() {
        for (text, files, write, depth) in [
            ("0\n0,0\n0,0\n", &[][..], at(0, 0), 0),
            ("0\n1,0\n1,0\n", &[], at(1, 0), 0),
            ("9\n0,0\n0,319\n", &[(0, 319)], at(0, 319), 9),
            ("0\n0,144\n0,144\n", &[(0, 144)], at(0, 144), 0),
            ("9\n0,41\n2,123\n", &[(0, 123), (1, 123), (2, 123)], at(2, 123), 9),
            ("2\n0,41\n1,0\n", &[(0, 123)], at(1, 0), 2),
            ("2\n0,41\n1,0\n", &[(0, 123), (1, 0)], at(1, 0), 2),
        ] {
            let layout = layout(Some(text), files);
            assert_eq!((layout.write, layout.depth), (write, depth), "{text:?}");
            assert_eq!((layout.count_from, layout.event), (None, None), "{text:?}");
            assert!(layout.meta.is_some());
        }
    }

    #[test]
    fn a_file_that_is_longer_is_read_to_its_end_and_left_alone() {
        let stale = layout(Some("6\n0,0\n0,228\n"), &[(0, 456)]);
        assert_eq!((stale.read, stale.write, stale.depth), (at(0, 0), at(1, 0), 6));
        assert_eq!(stale.count_from, Some(at(0, 228)));
        assert_eq!(stale.event, Some(DiskEvent::StaleMeta { file: 0, offset: 228, len: 456 }));
        // A roll came in between as well.
        let rolled = layout(Some("6\n0,0\n0,228\n"), &[(0, 228), (1, 99)]);
        assert_eq!((rolled.write, rolled.count_from), (at(2, 0), Some(at(0, 228))));
    }

    #[test]
    fn what_is_missing_is_not_counted_on() {
        for (text, files) in [
            ("8\n0,0\n0,352\n", &[(0, 345)][..]),
            ("9\n0,0\n2,123\n", &[(0, 123), (2, 123)]),
            ("9\n0,0\n2,123\n", &[(0, 123), (1, 123)]),
            ("9\n0,200\n2,123\n", &[(0, 123), (1, 123), (2, 123)]),
            ("0\n0,0\n0,228\n", &[(0, 228)]),
            ("-1\n0,0\n0,228\n", &[(0, 228)]),
            ("99\n0,0\n0,228\n", &[(0, 228)]),
        ] {
            let layout = layout(Some(text), files);
            assert_eq!((layout.depth, layout.count_from), (0, Some(layout.read)), "{text:?}");
            let at_end = text.ends_with("228\n");
            assert_eq!(layout.write, if at_end { at(0, 228) } else { at(layout.write.file, 0) });
        }
        let nothing = layout(Some("3\n0,0\n0,99\n"), &[]);
        assert_eq!((nothing.write, nothing.depth, nothing.count_from), (at(1, 0), 0, None));
    }

    #[test]
    fn without_a_meta_file_everything_counts() {
        let fresh = layout(None, &[]);
        assert_eq!((fresh.read, fresh.write, fresh.count_from), (at(0, 0), at(0, 0), None));
        assert_eq!(fresh.event, None);
        for meta in [None, Some(""), Some("3\n4,0\n2,99\n")] {
            let layout = layout(meta, &[(2, 99), (3, 5)]);
            assert_eq!((layout.read, layout.write), (at(2, 0), at(4, 0)));
            assert_eq!(layout.count_from, Some(at(2, 0)));
            assert!(layout.event.is_some());
        }
    }

    #[test]
    fn files_before_the_read_position_are_left_over() {
        let layout = layout(Some("1\n3,0\n3,40\n"), &[(0, 9), (2, 99), (3, 40), (u64::MAX, 1)]);
        assert_eq!(layout.left_over, [0, 2]);
        assert_eq!((layout.write, layout.depth), (at(3, 40), 1));
    }
}
