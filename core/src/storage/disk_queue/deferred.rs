//! The side file of deferrals: which records of a closed queue are due when.
//!
//! The reference has no place for a delay, so a message that is deferred at a stop comes at once after
//! the start. This file keeps the time. It names the meta file that it was written for by its text: if
//! the two differ, somebody else had the queue in between, and the file means nothing.
//!
//! ```text
//! sansq-deferred 1
//! 9
//! 0,0
//! 0,319
//! 18a45832e7629000 1795352174106671113
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;

use crate::message::{MESSAGE_ID_LEN, MessageId};
use crate::time::UnixNanos;

const FIRST_LINE: &str = "sansq-deferred 1\n";

/// When messages are due, to be asked by their ids.
#[derive(Debug, Default)]
pub(super) struct Dues {
    /// By id.
    dues: Vec<(MessageId, UnixNanos)>,
    /// How many records may be among them, from the first that is popped.
    until: u64,
}

impl Dues {
    /// Reads a side file that goes with the meta file `meta`. Lines that are none are passed over; all
    /// are, if the file is not ours or goes with another meta file.
    pub(super) fn parse(text: &[u8], meta: &[u8], until: u64) -> Self {
        let body = text
            .strip_prefix(FIRST_LINE.as_bytes())
            .and_then(|text| text.strip_prefix(meta))
            .unwrap_or_default();
        let mut dues: Vec<_> = body.split(|byte| *byte == b'\n').filter_map(line).collect();
        dues.sort_unstable();
        Self { dues, until }
    }

    /// When `id` is due, if it was deferred.
    pub(super) fn of(&self, id: MessageId) -> Option<UnixNanos> {
        let at = self.dues.partition_point(|due| due.0 < id);
        self.dues.get(at).filter(|due| due.0 == id).map(|due| due.1)
    }

    /// Whether the record that is popped after so many others cannot be among them any more.
    pub(super) const fn is_over(&self, popped: u64) -> bool {
        popped >= self.until
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.dues.is_empty()
    }
}

fn line(line: &[u8]) -> Option<(MessageId, UnixNanos)> {
    let (id, due) = line.split_at_checked(MESSAGE_ID_LEN)?;
    let due = core::str::from_utf8(due.strip_prefix(b" ")?).ok()?;
    Some((MessageId::parse(id)?, UnixNanos(due.parse().ok()?)))
}

/// The side file for a queue whose meta file holds `meta`.
pub(super) fn to_text(deferred: &[(MessageId, UnixNanos)], meta: &str) -> Bytes {
    const LINE_LEN: usize = MESSAGE_ID_LEN + 1 + 19 + 1;
    let mut text = String::with_capacity(FIRST_LINE.len() + meta.len() + deferred.len() * LINE_LEN);
    text.push_str(FIRST_LINE);
    text.push_str(meta);
    for (id, due) in deferred {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{id} {due}");
    }
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_one_meta_file() {
        let meta = "2\n0,0\n0,70\n";
        let text = to_text(
            &[(MessageId(7), UnixNanos(1_795_352_174_106_671_113)), (MessageId(3), UnixNanos(-5))],
            meta,
        );
        let expected = b"sansq-deferred 1\n2\n0,0\n0,70\n\
            0000000000000007 1795352174106671113\n0000000000000003 -5\n";
        assert_eq!(&text[..], expected);
        let dues = Dues::parse(&text, meta.as_bytes(), 2);
        assert_eq!(dues.of(MessageId(7)), Some(UnixNanos(1_795_352_174_106_671_113)));
        assert_eq!(dues.of(MessageId(3)), Some(UnixNanos(-5)));
        assert_eq!(dues.of(MessageId(4)), None);
        assert!(Dues::parse(&text, b"3\n0,0\n0,105\n", 2).is_empty());
        assert!(Dues::parse(b"", meta.as_bytes(), 2).is_empty());
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let text = b"sansq-deferred 1\nM\n\n0000000000000007\n000000000000000g 1\n\
            0000000000000001  1\n0000000000000002 9\xff\n0000000000000005 12\n00";
        let dues = Dues::parse(text, b"M\n", 1);
        assert_eq!(dues.dues, [(MessageId(5), UnixNanos(12))]);
    }
}
