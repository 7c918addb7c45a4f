//! What an nsqlookupd had no room for, and when it is tried again.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::name::TopicName;
use crate::protocol::lookup::Registration;
use crate::rng::Rng;
use crate::time::{Instant, Now};

/// The topics of which something was refused. Topics and not registrations, because what of them
/// exists when it is time may be something else.
#[derive(Debug, Default)]
pub(super) struct Retry {
    topics: BTreeSet<TopicName>,
    /// More was refused than there is room for in `topics`, or it is not known what: everything is
    /// registered again.
    is_all: bool,
    due: Option<Instant>,
    /// Rounds in a row in which something was refused.
    rounds: u32,
}

impl Retry {
    /// When it is time, if anything was refused.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Something of `topic` was refused; whether that is the first since the last round.
    pub(super) fn note(&mut self, topic: TopicName, now: Now, rng: &mut Rng) -> bool {
        if self.topics.len() < REFUSED_MAX {
            self.topics.insert(topic);
        } else if !self.topics.contains(&topic) {
            self.is_all = true;
        }
        self.arm(now, rng)
    }

    /// Something was refused, and it is not known what; whether that is the first since the last
    /// round.
    pub(super) fn note_all(&mut self, now: Now, rng: &mut Rng) -> bool {
        self.is_all = true;
        self.arm(now, rng)
    }

    /// Begins the next round: what of `all` is to be registered is left in it.
    pub(super) fn begin(&mut self, all: &mut Vec<Registration>) {
        let topics = core::mem::take(&mut self.topics);
        if !core::mem::take(&mut self.is_all) {
            all.retain(|registration| topics.contains(&registration.topic));
        }
        self.due = None;
    }

    /// The nsqlookupd is well, and everything has been sent: if nothing of it was refused, the
    /// waits begin anew.
    pub(super) const fn calm(&mut self) {
        if self.due.is_none() {
            self.rounds = 0;
        }
    }

    /// The wait is twice as long in each round, and differs from nsqd to nsqd by up to a half.
    fn arm(&mut self, now: Now, rng: &mut Rng) -> bool {
        if self.due.is_some() {
            return false;
        }
        let span = WAIT_MIN.saturating_mul(1 << self.rounds.min(16)).min(WAIT_MAX);
        let extra = rng.below(span.as_nanos() as u64 / 2 + 1);
        self.due = Some(now.instant + span / 2 + Duration::from_nanos(extra));
        self.rounds = self.rounds.saturating_add(1);
        true
    }
}

/// How many topics are remembered of which something was refused; beyond it everything is
/// registered again. They are some 1.3 MB.
pub const REFUSED_MAX: usize = 10_000;

/// The longest wait before the first round.
const WAIT_MIN: Duration = Duration::from_secs(2);

/// The longest wait of all.
const WAIT_MAX: Duration = Duration::from_secs(120);
