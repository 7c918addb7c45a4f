//! The one heap of deadlines that an owner keeps for all its machines.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::time::Instant;

/// A lazy heap: entries are never taken out early. A machine whose deadline moved to later is woken
/// at the old one, does nothing and is armed again; a machine that is gone is skipped. So every
/// machine keeps at most one useful entry here, and cancelling costs nothing.
#[derive(Clone, Debug)]
pub struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Deadlines<K> {
    /// An empty heap; allocates nothing.
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Wakes `key` at `at`.
    pub fn arm(&mut self, at: Instant, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// The earliest entry's time, in O(1).
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out the earliest entry that is due at `now`, with the time it was armed for. An owner that
    /// remembers what it armed last tells left-overs apart by that time.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        let Reverse((at, key)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some((at, key))
    }

    /// How many entries there are, useful ones and left-overs.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self::new()
    }
}
