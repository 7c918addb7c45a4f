//! What does not work, and when it is tried again.

use alloc::boxed::Box;
use core::time::Duration;

use crate::storage::Failure;
use crate::time::Instant;

/// How long after the first failure something is tried again; doubled after each further one.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest time between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What can fail, each on its own: a full disk can still be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Work {
    Open,
    Append,
    Read,
    Sync,
    Meta,
}

const WORKS: usize = 5;

#[derive(Clone, Copy, Debug)]
struct Retry {
    /// `None` as soon as it is tried again.
    at: Option<Instant>,
    delay: Duration,
}

#[derive(Debug)]
struct Trouble {
    /// The latest.
    failure: Failure,
    retries: [Option<Retry>; WORKS],
}

/// All trouble of a queue; takes no memory as long as there is none.
#[derive(Debug, Default)]
pub(super) struct Troubles(Option<Box<Trouble>>);

impl Troubles {
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.0.as_ref().map(|trouble| &trouble.failure)
    }

    /// Whether it failed and has not worked since.
    pub(super) fn has(&self, work: Work) -> bool {
        self.retry(work).is_some()
    }

    /// Whether it failed and is not to be tried yet.
    pub(super) fn waits(&self, work: Work) -> bool {
        self.retry(work).is_some_and(|retry| retry.at.is_some())
    }

    /// Whether it is for want of room that the disk does not take what is written: then the queue's
    /// own files are what can make room.
    pub(super) fn wants_room(&self) -> bool {
        [Work::Append, Work::Sync, Work::Meta].into_iter().any(|work| self.has(work))
            && self.failure().is_some_and(|failure| failure.kind.is_want_of_room())
    }

    /// Whether nothing new should come in: not while anything waits, nor before appends and meta
    /// files have worked again. A failed sync holds nothing up for longer than it waits, because
    /// only data that is written later can prove that the disk syncs again.
    pub(super) fn holds(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|trouble| trouble.retries.iter().flatten().any(|retry| retry.at.is_some()))
            || [Work::Open, Work::Append, Work::Meta].into_iter().any(|work| self.has(work))
    }

    fn retry(&self, work: Work) -> Option<Retry> {
        self.0.as_ref().and_then(|trouble| trouble.retries[work as usize])
    }

    /// Notes a failure. `true` if all was well before.
    pub(super) fn fail(&mut self, work: Work, failure: Failure, now: Instant) -> bool {
        let is_first = self.0.is_none();
        let trouble = self.0.get_or_insert_with(|| {
            Box::new(Trouble { failure: failure.clone(), retries: [None; WORKS] })
        });
        trouble.failure = failure;
        let delay = match trouble.retries[work as usize] {
            Some(retry) => (retry.delay * 2).min(RETRY_MAX),
            None => RETRY_MIN,
        };
        trouble.retries[work as usize] = Some(Retry { at: Some(now + delay), delay });
        is_first
    }

    /// Notes that it works. `true` if all is well now and was not before.
    pub(super) fn clear(&mut self, work: Work) -> bool {
        let Some(trouble) = &mut self.0 else { return false };
        trouble.retries[work as usize] = None;
        let is_over = trouble.retries.iter().all(Option::is_none);
        if is_over {
            self.0 = None;
        }
        is_over
    }

    /// When the next thing is to be tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.as_ref()?.retries.iter().flatten().filter_map(|retry| retry.at).min()
    }

    /// Lets everything be tried again now.
    pub(super) fn try_now(&mut self) {
        let retries = self.0.iter_mut().flat_map(|trouble| trouble.retries.iter_mut().flatten());
        retries.for_each(|retry| retry.at = None);
    }

    /// Lets this be tried again now, if it failed.
    pub(super) fn try_one_now(&mut self, work: Work) {
        if let Some(trouble) = &mut self.0
            && let Some(retry) = &mut trouble.retries[work as usize]
        {
            retry.at = None;
        }
    }

    /// Lets what is due be tried again.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(trouble) = &mut self.0 else { return };
        for retry in trouble.retries.iter_mut().flatten() {
            retry.at = retry.at.filter(|at| *at > now);
        }
    }
}
