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

    /// Wakes `key` at `due`, unless it is to be woken at that time or before anyway: `armed` is the
    /// earliest entry that the key's owner knows of, and is kept up here. The owner clears it when
    /// [`pop_due`](Self::pop_due) gives out that very entry.
    pub fn arm_by(&mut self, due: Option<Instant>, armed: &mut Option<Instant>, key: K) {
        if let Some(at) = due
            && armed.is_none_or(|armed| at < armed)
        {
            *armed = Some(at);
            self.arm(at, key);
        }
    }

    /// The earliest entry's time, in O(1).
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out the earliest entry that is due at `now`, with the time it was armed for. An owner
    /// that remembers what it armed last tells left-overs apart by that time.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_deadline_needs_another_entry() {
        let at = |millis| Some(Instant::from_millis(millis));
        let (mut deadlines, mut armed) = (Deadlines::new(), None);
        for due in [None, at(50), at(50), at(70), at(20)] {
            deadlines.arm_by(due, &mut armed, 'x');
        }
        assert_eq!((deadlines.len(), deadlines.next(), armed), (2, at(20), at(20)));
        let now = Instant::from_millis(50);
        assert_eq!(deadlines.pop_due(now), Some((Instant::from_millis(20), 'x')));
        assert_eq!(deadlines.pop_due(now), Some((now, 'x')));
        assert_eq!(deadlines.pop_due(now), None);
    }

    proptest::proptest! {
        /// An owner is woken at its deadline whenever that moved, at most once for each entry, and
        /// in the order of time.
        #[test]
        fn nobody_is_forgotten(moves in proptest::collection::vec((0..4_usize, 0..50_u64), 0..60)) {
            let mut deadlines = Deadlines::new();
            let (mut due, mut armed) = ([None; 4], [None; 4]);
            for (key, millis) in moves {
                due[key] = Some(Instant::from_millis(millis));
                deadlines.arm_by(due[key], &mut armed[key], key);
                let earliest = due.iter().flatten().min().copied();
                proptest::prop_assert!(deadlines.next() <= earliest, "somebody would be late");
            }
            let mut last = Instant::ZERO;
            while let Some((at, key)) = deadlines.pop_due(Instant::from_millis(50)) {
                proptest::prop_assert!(at >= last);
                last = at;
                if armed[key] == Some(at) {
                    armed[key] = None;
                    if due[key].is_some_and(|due| due <= at) {
                        due[key] = None;
                    }
                    deadlines.arm_by(due[key], &mut armed[key], key);
                }
            }
            proptest::prop_assert_eq!(due, [None; 4]);
        }
    }
}
