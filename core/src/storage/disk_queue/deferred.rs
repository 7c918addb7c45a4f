//! The side file of deferrals: which records of a closed queue are due when.
//!
//! The reference has no place for a delay, so a message that is deferred at a stop comes at once
//! after the start. This file keeps the time. It names the meta file that it was written for by its
//! text: if the two differ, somebody else had the queue in between, and the file means nothing.
//!
//! ```text
//! sansq-deferred 1
//! 9
//! 0,0
//! 0,319
//! stopped 1795352169000000000 3600000000000
//! 18a45832e7629000 1795352174106671113
//! ```
//!
//! Due times are by the wall clock, which may be set between a stop and the start, or while the
//! process runs. So the file says when it was written, and how long a message could be deferred at
//! that time. At the start a message is due no later than it was at the stop: five seconds before
//! its time it waits for five seconds at most. From then on the monotonic clock counts. In a file
//! without that line a message may wait as long as one that is deferred now.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt::Write;
use core::time::Duration;

use bytes::Bytes;

use crate::message::{MESSAGE_ID_LEN, MessageId};
use crate::time::{Instant, Now, UnixNanos};

const FIRST_LINE: &str = "sansq-deferred 1\n";

const STOPPED: &str = "stopped ";

/// When messages are due, to be asked by their ids.
#[derive(Debug, Default)]
pub(super) struct Dues {
    dues: BTreeMap<MessageId, Instant>,
    /// How many records may be among them, from the first that is popped.
    until: u64,
}

impl Dues {
    /// Reads a side file that goes with the meta file `meta`. Lines that are none are passed over;
    /// all are, if the file is not ours or goes with another meta file. Nothing is due later than
    /// it was when the file was written, nor, if that is not known, after `max_delay`.
    pub(super) fn parse(
        text: &[u8],
        meta: &[u8],
        until: u64,
        max_delay: Duration,
        now: Now,
    ) -> Self {
        let body = text
            .strip_prefix(FIRST_LINE.as_bytes())
            .and_then(|text| text.strip_prefix(meta))
            .unwrap_or_default();
        let mut lines = body.split(|byte| *byte == b'\n');
        let (stopped, max_delay) = match lines.next().and_then(stop_line) {
            Some((stopped, max_delay)) => (Some(stopped), max_delay),
            None => (None, max_delay),
        };
        let instant = |due: UnixNanos| {
            let left = left(due, now.unix).min(max_delay);
            let left = stopped.map_or(left, |stopped| left.min(self::left(due, stopped)));
            now.instant + left
        };
        let dues = body.split(|byte| *byte == b'\n').filter_map(line);
        Self { dues: dues.map(|(id, due)| (id, instant(due))).collect(), until }
    }

    /// When `id` is due, if it was deferred.
    pub(super) fn of(&self, id: MessageId) -> Option<Instant> {
        self.dues.get(&id).copied()
    }

    /// Those that are not due yet.
    pub(super) fn later(&self, now: Instant) -> impl Iterator<Item = (MessageId, Instant)> {
        self.dues.iter().map(|(id, due)| (*id, *due)).filter(move |(_, due)| *due > now)
    }

    /// Whether the record that is popped after so many others cannot be among them any more.
    pub(super) const fn is_over(&self, popped: u64) -> bool {
        popped >= self.until
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dues.is_empty()
    }
}

/// How long after `now` something is due.
fn left(due: UnixNanos, now: UnixNanos) -> Duration {
    Duration::from_nanos(u64::try_from(due.0.saturating_sub(now.0)).unwrap_or(0))
}

/// When the file was written, and for how long a message could be deferred then.
fn stop_line(line: &[u8]) -> Option<(UnixNanos, Duration)> {
    let line = core::str::from_utf8(line.strip_prefix(STOPPED.as_bytes())?).ok()?;
    let (stopped, max_delay) = line.split_once(' ')?;
    let max_delay = Duration::from_nanos(max_delay.parse().ok()?);
    Some((UnixNanos(stopped.parse().ok()?), max_delay))
}

fn line(line: &[u8]) -> Option<(MessageId, UnixNanos)> {
    let (id, due) = line.split_at_checked(MESSAGE_ID_LEN)?;
    let due = core::str::from_utf8(due.strip_prefix(b" ")?).ok()?;
    Some((MessageId::parse(id)?, UnixNanos(due.parse().ok()?)))
}

/// The side file for a queue whose meta file holds `meta`, at a time when messages could be
/// deferred for `max_delay`.
pub(super) fn to_text(
    deferred: &[(MessageId, UnixNanos)],
    meta: &str,
    stopped: UnixNanos,
    max_delay: Duration,
) -> Bytes {
    const LINE_LEN: usize = MESSAGE_ID_LEN + 1 + 19 + 1;
    let lines_len = (deferred.len() + 2) * LINE_LEN;
    let mut text = String::with_capacity(FIRST_LINE.len() + meta.len() + lines_len);
    text.push_str(FIRST_LINE);
    text.push_str(meta);
    // Writing to a string does not fail.
    let max_delay = u64::try_from(max_delay.as_nanos()).unwrap_or(u64::MAX);
    let _ = writeln!(text, "{STOPPED}{stopped} {max_delay}");
    for (id, due) in deferred {
        let _ = writeln!(text, "{id} {due}");
    }
    Bytes::from(text)
}

/// When something that is due at `due` is due by the wall clock.
pub(super) fn unix(due: Instant, now: Now) -> UnixNanos {
    let left = i64::try_from(due.saturating_since(now.instant).as_nanos()).unwrap_or(i64::MAX);
    UnixNanos(now.unix.0.saturating_add(left))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Ten seconds after the origin, with a wall clock that is so many seconds ahead of 1000.
    fn now(ahead: i64) -> Now {
        Now { instant: Instant::from_millis(10_000), unix: unix_secs(1000 + ahead) }
    }

    fn unix_secs(secs: i64) -> UnixNanos {
        UnixNanos(secs * 1_000_000_000)
    }

    fn left(dues: &Dues, id: u64) -> Option<u64> {
        let due = dues.of(MessageId(id))?;
        Some(due.saturating_since(now(0).instant).as_secs())
    }

    #[test]
    fn it_goes_with_one_meta_file() {
        let meta = "2\n0,0\n0,70\n";
        let deferred = [(MessageId(7), unix_secs(1015)), (MessageId(3), UnixNanos(-5))];
        let text = to_text(&deferred, meta, unix_secs(1000), HOUR);
        let expected = b"sansq-deferred 1\n2\n0,0\n0,70\nstopped 1000000000000 3600000000000\n\
            0000000000000007 1015000000000\n0000000000000003 -5\n";
        assert_eq!(&text[..], expected);
        let dues = Dues::parse(&text, meta.as_bytes(), 2, HOUR, now(5));
        assert_eq!([7, 3, 4].map(|id| left(&dues, id)), [Some(10), Some(0), None]);
        let later: Vec<_> = dues.later(now(0).instant).map(|(id, _)| id).collect();
        assert_eq!(later, [MessageId(7)]);
        assert!(Dues::parse(&text, b"3\n0,0\n0,105\n", 2, HOUR, now(0)).is_empty());
        assert!(Dues::parse(b"", meta.as_bytes(), 2, HOUR, now(0)).is_empty());
    }

    #[test]
    fn nothing_is_due_later_than_it_was_at_the_stop() {
        let deferred = [(MessageId(1), unix_secs(1005)), (MessageId(2), UnixNanos(i64::MAX))];
        let text = to_text(&deferred, "M\n", unix_secs(1000), HOUR);
        let small = Duration::from_secs(1);
        for (ahead, expected) in [
            (0, [5, 3600]),
            (3, [2, 3600]),
            (9, [0, 3600]),
            (-7200, [5, 3600]),
            (i64::MIN / 1_000_000_000, [5, 3600]),
        ] {
            // Whatever is allowed now: it was allowed then.
            for max_delay in [small, HOUR] {
                let ahead = Now {
                    unix: UnixNanos(
                        unix_secs(1000).0.saturating_add(ahead.saturating_mul(1_000_000_000)),
                    ),
                    ..now(0)
                };
                let dues = Dues::parse(&text, b"M\n", 2, max_delay, ahead);
                assert_eq!([1, 2].map(|id| left(&dues, id)), expected.map(Some));
            }
        }
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let text = b"sansq-deferred 1\nM\n\n0000000000000007\n000000000000000g 1\n\
            0000000000000001  1\n0000000000000002 9\xff\n0000000000000005 1012000000000\n00";
        let dues = Dues::parse(text, b"M\n", 1, HOUR, now(0));
        assert_eq!((dues.dues.len(), left(&dues, 5)), (1, Some(12)));
        // A file of before that line, or one with a broken one.
        for line in ["", "stopped\n", "stopped 1\n", "stopped x 1\n", "stopped 1 -1\n"] {
            let text =
                alloc::format!("sansq-deferred 1\nM\n{line}0000000000000005 9000000000000\n");
            let dues = Dues::parse(text.as_bytes(), b"M\n", 1, HOUR, now(0));
            assert_eq!(left(&dues, 5), Some(3600), "{line}");
        }
    }
}
