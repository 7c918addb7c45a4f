//! When `nsqd.dat` is written (storage-formats.md section 3), on shard 0.
//!
//! ```text
//!   change ──► changed ──due──► writing ──done──► saved        changes meanwhile: changed again
//!                 ▲                │
//!                 └──── failed ◄───┘ retried, later and later
//! ```
//!
//! The file is written whole, so a change costs as much as there are names. Therefore one write is
//! under way at a time, changes gather meanwhile, and after a write the next one waits for a time
//! in proportion to the file's length ([`PAUSE_PER_BYTE`]): writing takes a small share of the
//! shard's time however many names there are, and creating many costs each of them the same. A
//! crash forgets what was created within that time (the reference: within the time that its
//! nsqlookupds take to be told). Somebody who waits for the write, as an HTTP pause does, does not
//! wait for that time.
//!
//! What waits is bounded by the requests that the driver has open.

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::Bytes;

use super::ids::{ReplyToken, ShardId};
use super::registry::Registry;
use crate::storage::{Failure, RequestId, RequestIds};
use crate::time::{Instant, Now};

/// How long the next write waits after one, for each byte of the file: making and copying a byte
/// takes a few nanoseconds, so that this is well under a tenth of the shard's time.
const PAUSE_PER_BYTE: Duration = Duration::from_nanos(100);

/// How long the first retry waits after a failure; each one waits twice as long as the one before.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before a retry.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Keeps count of changes and of what the file has of them.
#[derive(Debug)]
pub(super) struct MetadataFile {
    /// How many changes there were.
    changes: u64,
    /// How many of them the file has.
    saved: u64,
    /// How many there were when the list last became another one than the file has.
    needed: u64,
    writing: Option<Writing>,
    not_before: Instant,
    retry: Duration,
    failure: Option<Failure>,
    ending: Option<Ending>,
    waiting: VecDeque<Waiting>,
    /// The earliest time at which the shard will look at it.
    pub(super) armed: Option<Instant>,
}

/// The write that is under way.
#[derive(Clone, Copy, Debug)]
struct Writing {
    id: RequestId,
    /// How many changes it has.
    change: u64,
    /// Its length in bytes.
    len: usize,
}

/// The broker stops.
#[derive(Clone, Copy, Debug)]
struct Ending {
    /// When a disk that refuses is given up.
    until: Instant,
    /// Whether the file lacks something.
    is_needed: bool,
    is_given_up: bool,
}

/// Somebody whose answer waits until `change` is in the file.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    change: u64,
    shard: ShardId,
    token: ReplyToken,
}

/// What the end of a write means for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Written {
    /// It failed, and the one before had not.
    FailedNow,
    /// Nothing new.
    Same,
}

impl MetadataFile {
    pub(super) const fn new() -> Self {
        Self {
            changes: 0,
            saved: 0,
            needed: 0,
            writing: None,
            not_before: Instant::ZERO,
            retry: RETRY_FIRST,
            failure: None,
            ending: None,
            waiting: VecDeque::new(),
            armed: None,
        }
    }

    /// What the file is to hold is different now.
    pub(super) const fn changed(&mut self) {
        self.changes += 1;
        self.needed = self.changes;
    }

    /// The file is to be written once more, with what it holds: the broker starts.
    pub(super) const fn refresh(&mut self) {
        self.changes += 1;
    }

    /// Keeps an answer back until the file has every change so far, or a write of it failed.
    /// `false` if there is nothing to wait for.
    pub(super) fn wait(&mut self, shard: ShardId, token: ReplyToken) -> bool {
        if self.is_saved() {
            return false;
        }
        self.waiting.push_back(Waiting { change: self.changes, shard, token });
        true
    }

    /// Makes the file's contents if it is time to write them, and the id of the request.
    pub(super) fn begin(
        &mut self,
        registry: &Registry,
        requests: &mut RequestIds,
        now: Now,
    ) -> Option<(RequestId, Bytes)> {
        if self.is_done() || self.writing.is_some() {
            return None;
        }
        if now.instant < self.not_before && self.waiting.is_empty() {
            return None;
        }
        let contents = Bytes::from(registry.to_json());
        let id = requests.next_id();
        self.writing = Some(Writing { id, change: self.changes, len: contents.len() });
        Some((id, contents))
    }

    /// The write came to its end. Whose answers waited for it is told to `answer`.
    pub(super) fn handle_written(
        &mut self,
        id: RequestId,
        result: Result<(), Failure>,
        now: Now,
        mut answer: impl FnMut(ShardId, ReplyToken),
    ) -> Written {
        let Some(Writing { change, len, .. }) = self.writing.take_if(|writing| writing.id == id)
        else {
            return Written::Same;
        };
        while let Some(waiting) = self.waiting.front()
            && waiting.change <= change
        {
            answer(waiting.shard, waiting.token);
            self.waiting.pop_front();
        }
        match result {
            Ok(()) => {
                (self.saved, self.failure, self.retry) = (change, None, RETRY_FIRST);
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                self.not_before = now.instant + PAUSE_PER_BYTE.saturating_mul(len);
                Written::Same
            }
            Err(failure) => {
                self.not_before = now.instant + self.retry;
                if let Some(ending) = &mut self.ending {
                    // One more try when time is up; none if the file is as it should be.
                    ending.is_given_up |= !ending.is_needed || ending.until <= now.instant;
                    self.not_before = self.not_before.min(ending.until);
                }
                self.retry = (self.retry * 2).min(RETRY_MAX);
                let is_new = self.failure.replace(failure).is_none();
                if is_new { Written::FailedNow } else { Written::Same }
            }
        }
    }

    /// When [`begin`](Self::begin) is worth a call, if not yet.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_done() && self.writing.is_none()).then_some(self.not_before)
    }

    /// Whether the file has every change.
    pub(super) const fn is_saved(&self) -> bool {
        self.saved == self.changes
    }

    /// Why the last write failed, if it did.
    pub(super) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The file is to be written whatever it holds, and at once: the broker stops. A disk that
    /// refuses is given up at `until`, or at once if the file lacks nothing.
    pub(super) fn hurry(&mut self, until: Instant) {
        let is_needed = self.saved < self.needed;
        self.ending.get_or_insert(Ending { until, is_needed, is_given_up: false });
        self.changes += 1;
        self.not_before = Instant::ZERO;
    }

    /// Waits for the disk no longer.
    pub(super) fn abandon(&mut self, failure: Failure) {
        if let Some(ending) = self.ending.as_mut().filter(|_| self.saved != self.changes) {
            ending.is_given_up = true;
            self.failure.get_or_insert(failure);
        }
    }

    /// Whether the file has every change, or was given up.
    pub(super) fn is_done(&self) -> bool {
        self.is_saved() || self.ending.is_some_and(|ending| ending.is_given_up)
    }

    /// Whether it was given up without changes that it should have.
    pub(super) fn is_lost(&self) -> bool {
        self.ending.is_some_and(|ending| ending.is_given_up && ending.is_needed)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::name::TopicName;
    use crate::nsqd::registry::Announcement;
    use crate::storage::{FailureKind, Metadata};
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Change,
        Wait,
        Begin,
        End(bool),
        Pass(u16),
        Hurry,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Change),
            2 => Just(Step::Wait),
            4 => Just(Step::Begin),
            4 => any::<bool>().prop_map(Step::End),
            2 => (0..6000_u16).prop_map(Step::Pass),
            1 => Just(Step::Hurry),
        ]
    }

    proptest! {
        /// One write at a time, of what there is; who waits is told once, in order, when a write
        /// ended that had all that was changed before they came; and whatever failed, a disk that
        /// works again gets everything.
        #[test]
        fn the_file_follows_and_who_waits_is_told(steps in prop::collection::vec(step(), 0..80)) {
            let mut bench = Bench::new();
            let mut now = 0;
            // What the write under way has, and whether that is everything; what the file has; who
            // waits, and whether a write has what they wait for.
            let (mut writing, mut on_disk) = (None, Bytes::from(Metadata::default().to_json()));
            let mut is_all = false;
            let mut waiting: VecDeque<(u64, bool)> = VecDeque::new();
            let (mut expected, mut was_failing) = (Vec::new(), false);
            let end = vec![Step::End(true), Step::Pass(5000), Step::Begin, Step::End(true)];
            let end = [end.clone(), end].concat();
            for (n, step) in (0..).zip(steps.into_iter().chain(end)) {
                match step {
                    Step::Change => {
                        let topic = TopicName::new(alloc::format!("t{n}")).unwrap();
                        bench.registry.note(Announcement::TopicCreated(topic));
                        bench.file.changed();
                        is_all = false;
                    }
                    Step::Wait => {
                        let is_saved = bench.file.is_saved();
                        prop_assert_eq!(bench.wait(n), !is_saved);
                        if !is_saved {
                            waiting.push_back((n, writing.is_some() && is_all));
                        }
                    }
                    Step::Begin => {
                        let due = bench.file.poll_timeout();
                        let is_due = due.is_some_and(|at| at <= Instant::from_millis(now));
                        let contents = bench.contents(now);
                        let is_awaited = due.is_some() && !waiting.is_empty();
                        prop_assert_eq!(contents.is_some(), is_due || is_awaited);
                        if let Some(contents) = contents {
                            prop_assert!(writing.replace(contents).is_none(), "two at a time");
                            waiting.iter_mut().for_each(|(_, is_in)| *is_in = true);
                            is_all = true;
                        }
                    }
                    Step::End(is_ok) => {
                        let written = bench.end(if is_ok { Ok(()) } else { Err(failure()) }, now);
                        let was_writing = writing.take();
                        let is_new = was_writing.is_some() && !is_ok && !was_failing;
                        prop_assert_eq!(written == Written::FailedNow, is_new);
                        if let Some(contents) = was_writing {
                            was_failing = !is_ok;
                            if is_ok {
                                on_disk = contents;
                            }
                            while let Some((token, true)) = waiting.front() {
                                expected.push(*token);
                                waiting.pop_front();
                            }
                        }
                        prop_assert_eq!(&bench.answered, &expected);
                        prop_assert_eq!(bench.file.failure().is_some(), was_failing);
                    }
                    Step::Pass(millis) => now += u64::from(millis),
                    // A file that lacks nothing would be given up.
                    Step::Hurry if bench.file.is_saved() => {}
                    Step::Hurry => {
                        bench.file.hurry(Instant::from_millis(u64::MAX / 2_000_000));
                        is_all = false;
                        let due = bench.file.poll_timeout();
                        prop_assert!(writing.is_some() || due == Some(Instant::ZERO));
                    }
                }
                let there = bench.registry.to_json();
                prop_assert!(!bench.file.is_saved() || on_disk == there, "{there} is not there");
            }
            prop_assert!(bench.file.is_saved() && waiting.is_empty());
        }
    }

    fn failure() -> Failure {
        Failure { kind: FailureKind::Full, text: "no space left on device".into() }
    }

    struct Bench {
        file: MetadataFile,
        registry: Registry,
        requests: RequestIds,
        /// The last request, whose completion is that of the write.
        request: RequestId,
        answered: Vec<u64>,
    }

    impl Bench {
        fn new() -> Self {
            let (file, registry) = (MetadataFile::new(), Registry::new());
            let (requests, request) = (RequestIds::default(), RequestId(0));
            Self { file, registry, requests, request, answered: Vec::new() }
        }

        fn contents(&mut self, millis: u64) -> Option<Bytes> {
            let now = Now::from_millis(millis);
            let (id, contents) = self.file.begin(&self.registry, &mut self.requests, now)?;
            self.request = id;
            Some(contents)
        }

        fn begin(&mut self, millis: u64) -> bool {
            self.contents(millis).is_some()
        }

        fn end(&mut self, result: Result<(), Failure>, millis: u64) -> Written {
            let answered = &mut self.answered;
            let now = Now::from_millis(millis);
            self.file.handle_written(self.request, result, now, |_, token| answered.push(token.0))
        }

        fn wait(&mut self, token: u64) -> bool {
            self.file.wait(ShardId(0), ReplyToken(token))
        }
    }

    #[test]
    fn the_end_gives_up_when_time_is_up_or_nothing_is_lost() {
        let until = Instant::from_millis(10_000);
        for is_needed in [false, true] {
            let mut bench = Bench::new();
            // What the start wrote failed as well.
            bench.file.refresh();
            assert!(bench.begin(0));
            bench.end(Err(failure()), 0);
            if is_needed {
                bench.file.changed();
            }
            bench.file.hurry(until);
            assert!(bench.begin(0));
            bench.end(Err(failure()), 1);
            assert_eq!((bench.file.is_done(), bench.file.is_lost()), (!is_needed, false));
            if !is_needed {
                continue;
            }
            let mut last = 1;
            while let Some(next) = bench.file.poll_timeout() {
                last = next.saturating_since(Instant::ZERO).as_millis() as u64;
                assert!(bench.begin(last));
                bench.end(Err(failure()), last);
            }
            assert_eq!((last, bench.file.is_done(), bench.file.is_lost()), (10_000, true, true));
            assert!(!bench.begin(20_000));
        }
    }

    #[test]
    fn changes_gather_while_one_write_is_under_way() {
        let mut bench = Bench::new();
        assert!(!bench.begin(0));
        assert!(!bench.wait(1));
        bench.file.changed();
        assert!(bench.begin(0));
        bench.file.changed();
        bench.file.changed();
        assert!(!bench.begin(1));
        assert_eq!(bench.file.poll_timeout(), None);
        bench.end(Ok(()), 2);
        assert!(!bench.file.is_saved());
        assert!(bench.begin(100) && !bench.begin(100));
        bench.end(Ok(()), 101);
        assert!(bench.file.is_saved() && bench.file.poll_timeout().is_none());
    }

    #[test]
    fn a_long_file_is_not_written_all_the_time_unless_somebody_waits() {
        let mut bench = Bench::new();
        for n in 0..1000 {
            let topic = TopicName::new(alloc::format!("{n:060}")).unwrap();
            bench.registry.note(Announcement::TopicCreated(topic));
        }
        bench.file.changed();
        assert!(bench.begin(0));
        bench.file.changed();
        bench.end(Ok(()), 5);
        // 100,000 bytes: ten milliseconds.
        assert!(!bench.begin(14));
        assert!(bench.file.poll_timeout().is_some_and(|at| at > Instant::from_millis(14)));
        assert!(bench.wait(7));
        assert!(bench.begin(14));
        assert!(bench.answered.is_empty());
        bench.end(Ok(()), 20);
        assert_eq!(bench.answered, [7]);
    }

    #[test]
    fn a_failure_is_told_once_and_retried_later_and_later() {
        let mut bench = Bench::new();
        bench.file.changed();
        assert!(bench.wait(1) && bench.begin(0));
        bench.file.changed();
        assert!(bench.wait(2));
        assert_eq!(bench.end(Err(failure()), 0), Written::FailedNow);
        // The one that came later has not been tried.
        assert_eq!((bench.answered.clone(), bench.file.failure()), (vec![1], Some(&failure())));
        assert!(bench.begin(1));
        assert_eq!(bench.end(Err(failure()), 1), Written::Same);
        assert!(!bench.begin(200) && bench.begin(201));
        bench.end(Err(failure()), 201);
        assert!(!bench.begin(600) && bench.begin(601));
        assert_eq!(bench.end(Ok(()), 601), Written::Same);
        assert!(bench.file.is_saved() && bench.file.failure().is_none());
    }
}
