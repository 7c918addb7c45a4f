//! The queue of what is going to happen.

use core::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use sansq_core::rng::Rng;
use sansq_core::time::{Instant, Now};

use crate::net::{End, LinkId};

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WorldEvent {
    /// A server's listener has a new connection.
    Accepted(LinkId),
    /// A client's dial succeeded.
    Connected(LinkId),
    /// A client's dial failed.
    DialFailed(LinkId),
    /// Bytes, or the end of them, reached this end.
    Arrived(End, usize),
    /// This end gets round to reading.
    Readable(End),
    /// This end may write again.
    Writable(End),
    /// The connection broke, and this end notices.
    Reset(End),
    /// A batch between two shards arrives.
    Lane {
        /// The nsqd.
        node: usize,
        /// The shard that sent it.
        from: usize,
        /// The shard that gets it.
        to: usize,
    },
    /// A connection arrives at the shard it moves to.
    Moved {
        /// The nsqd.
        node: usize,
        /// The connection.
        link: LinkId,
        /// Where it moves to.
        shard: usize,
    },
    /// The disk is done with the request of a shard that came first.
    Disk {
        /// The nsqd.
        node: usize,
        /// The shard.
        shard: usize,
    },
    /// An nsqd is started again.
    NodeUp(usize),
    /// An HTTP request reaches an nsqlookupd, by number.
    Call(u64),
    /// A request reaches an nsqd that stood still, by number.
    Ask(u64),
    /// A machine's deadline.
    Deadline(DeadlineOwner),
    /// A client's process starts.
    Started(usize),
    /// A client has itself woken.
    Wake {
        /// The client.
        client: usize,
        /// Which of its processes wanted it; one that has died is not woken.
        life: u32,
        /// What the client calls it.
        token: u64,
    },
    /// Something breaks.
    Fault,
    /// What was cut off for a while is joined again, by number.
    Heal(u64),
    /// An nsqlookupd is started again.
    LookupdUp(usize),
    /// From now on nothing breaks.
    Calm,
    /// Do the nsqds count right?
    Audit,
    /// Is everything done?
    Check,
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeadlineOwner {
    /// A shard of an nsqd.
    Shard {
        /// The nsqd.
        node: usize,
        /// The shard.
        shard: usize,
    },
    /// An nsqlookupd.
    Lookupd(usize),
    /// A client.
    Client(usize),
}

/// Events by time. What happens at the same time happens in an order that the seed decides.
#[derive(Debug)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    ties: Rng,
    pushed: u64,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    tie: u64,
    /// Makes the order total even if two draws are equal.
    number: u64,
    event: WorldEvent,
}

impl Queue {
    /// An empty queue.
    pub const fn new(ties: Rng) -> Self {
        Self { heap: BinaryHeap::new(), ties, pushed: 0 }
    }

    /// Lets `event` happen at `at`.
    pub fn push(&mut self, at: Instant, event: WorldEvent) {
        self.pushed += 1;
        let tie = self.ties.next_u64();
        self.heap.push(Reverse(Entry { at, tie, number: self.pushed, event }));
    }

    /// The time of the next event.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next event and its time.
    pub fn pop(&mut self) -> Option<(Instant, WorldEvent)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl Entry {
    const fn key(&self) -> (Instant, u64, u64) {
        (self.at, self.tie, self.number)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// The one timer that a driver arms for its machine. A deadline that moved to later rings early,
/// which machines have to bear.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Instant>);

impl Alarm {
    /// Sees to it that `machine` is called at `deadline`.
    pub(crate) fn arm(
        &mut self,
        machine: DeadlineOwner,
        deadline: Option<Instant>,
        now: Now,
        queue: &mut Queue,
    ) {
        if let Some(at) = deadline
            && self.0.is_none_or(|armed| at < armed)
        {
            self.0 = Some(at);
            queue.push(at.max(now.instant), WorldEvent::Deadline(machine));
        }
    }

    /// Whether this is the deadline that counts, and not one that was replaced by an earlier one.
    pub(crate) fn rings(&mut self, now: Now) -> bool {
        self.0.take_if(|at| *at <= now.instant).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> Vec<WorldEvent> {
        let mut queue = Queue::new(Rng::new(seed));
        for n in 0..8 {
            queue.push(Instant::from_millis(5), WorldEvent::Started(n));
        }
        queue.push(Instant::from_millis(4), WorldEvent::Calm);
        core::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect()
    }

    #[test]
    fn time_decides_and_then_the_seed() {
        assert_eq!(order(1)[0], WorldEvent::Calm);
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
