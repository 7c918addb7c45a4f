//! What the threads of a shard count besides their machine: the length of turns, what its disk is
//! asked to do, who is connected to the HTTP API, and who was refused.

use core::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts the turns of one thread by their length, and its requests to its storage thread. Any
/// thread may read; a reader may see a turn in the sum that is not yet in its bucket.
#[derive(Debug, Default)]
pub struct Meter {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    requested: AtomicU64,
    completed: AtomicU64,
    visitors: AtomicU64,
    evictions: AtomicU64,
    refused: AtomicU64,
}

/// What a [`Meter`] has counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    /// How many turns were at most so long, and longer than the bound before; the last is for any
    /// length.
    pub(crate) buckets: [(Option<Duration>, u64); BUCKETS],
    /// The length of all turns.
    pub(crate) sum: Duration,
}

impl Meter {
    /// A turn took so long. To be called by one thread only.
    pub fn note(&self, turn: Duration) {
        let nanos = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket(nanos)) {
            add(bucket, 1);
        }
        add(&self.nanos, nanos);
    }

    /// So many requests went to the storage thread. To be called by the shard's thread only.
    pub(crate) fn note_requested(&self, count: usize) {
        add(&self.requested, count as u64);
    }

    /// So many of them are completed. To be called by the storage thread only.
    pub(crate) fn note_completed(&self, count: usize) {
        add(&self.completed, count as u64);
    }

    /// Requests that the storage thread has got, and those of them that are not completed.
    pub(crate) fn requests(&self) -> (u64, u64) {
        // In this order, so that none is completed before it was asked for.
        let completed = self.completed.load(Ordering::Acquire);
        let requested = self.requested.load(Ordering::Acquire);
        (requested, requested.saturating_sub(completed))
    }

    /// So many connections to the HTTP API are open. To be called by their thread only.
    pub(crate) fn note_visitors(&self, count: usize) {
        self.visitors.store(count as u64, Ordering::Release);
    }

    /// A connection to the HTTP API has to go, for a new one or for its answers' room. To be called
    /// by their thread only.
    pub(crate) fn note_eviction(&self) {
        add(&self.evictions, 1);
    }

    /// Connections to the HTTP API that are open, and those that had to go: for new ones, or for
    /// the room that their answers took.
    pub(crate) fn visitors(&self) -> (u64, u64) {
        (self.visitors.load(Ordering::Acquire), self.evictions.load(Ordering::Acquire))
    }

    /// A client was refused because of the limit on connections. To be called by the thread that
    /// accepts only.
    pub(crate) fn note_refused(&self) {
        add(&self.refused, 1);
    }

    /// Clients that were refused because of the limit on connections.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Acquire)
    }

    pub(crate) fn turns(&self) -> Turns {
        let mut buckets = [(None, 0); BUCKETS];
        for (index, (bucket, count)) in buckets.iter_mut().zip(&self.buckets).enumerate() {
            *bucket = (bound(index), count.load(Ordering::Relaxed));
        }
        Turns { buckets, sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)) }
    }
}

impl Turns {
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// Each counter has one thread that writes, so that it needs no read and write in one.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Release);
}

/// The bucket of a turn of so many nanoseconds: the first whose bound is not below.
const fn bucket(nanos: u64) -> usize {
    let bits = u64::BITS - nanos.saturating_sub(1).leading_zeros();
    let above = bits.saturating_sub(FIRST_BITS).div_ceil(STEP_BITS) as usize;
    if above < BUCKETS { above } else { BUCKETS - 1 }
}

/// The longest turn of a bucket; none for the last one.
const fn bound(bucket: usize) -> Option<Duration> {
    if bucket + 1 < BUCKETS {
        Some(Duration::from_nanos(1 << (FIRST_BITS + STEP_BITS * bucket as u32)))
    } else {
        None
    }
}

/// The first bucket has turns of up to 2^12 ns, 4 us.
const FIRST_BITS: u32 = 12;
/// Each bucket reaches four times as far as the one before.
const STEP_BITS: u32 = 2;
/// The last but one reaches to 2^30 ns, a second.
const BUCKETS: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_in_the_bucket_that_reaches_just_as_far() {
        for nanos in [0, 1, 4_095, 4_096, 4_097, 16_384, 16_385, 1 << 30, (1 << 30) + 1, u64::MAX] {
            let index = bucket(nanos);
            let turn = Duration::from_nanos(nanos);
            assert!(bound(index).is_none_or(|bound| turn <= bound), "{nanos}");
            let before = index.checked_sub(1).and_then(bound);
            assert!(before.is_none_or(|before| turn > before), "{nanos}");
        }
        assert_eq!(
            (bound(0), bound(9)),
            (Some(Duration::from_nanos(4_096)), Some(Duration::from_nanos(1 << 30)))
        );
        assert_eq!(bound(10), None);
    }

    #[test]
    fn turns_are_counted_once() {
        let meter = Meter::default();
        for nanos in [1, 4_096, 5_000, 2_000_000_000] {
            meter.note(Duration::from_nanos(nanos));
        }
        let turns = meter.turns();
        let counts = turns.buckets.map(|(_, count)| count);
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        meter.note_requested(3);
        meter.note_completed(2);
        assert_eq!(meter.requests(), (3, 1));
        assert_eq!((turns.count(), turns.sum), (4, Duration::from_nanos(2_000_009_097)));
    }
}
