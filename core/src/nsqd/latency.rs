//! End-to-end processing latency: how long messages take from publishing to FIN, as percentiles
//! over a window of time (http-and-ops.md section 8, "End-to-end latency").
//!
//! As in the reference, samples go to one of two halves, each for half a window; then the older
//! half is cleared and takes over. What is shown covers both, and so between half a window and a
//! whole one.
//!
//! The reference keeps a summary that is off by up to one percent in *rank*. Here values are
//! counted in buckets that are less than 1.6 percent wide, and the highest one is kept as it is:
//! what is shown is off by less than one percent in *value*, does not depend on the order of
//! samples, and adds up exactly over channels. Limits: 3,072 buckets of 8 bytes in each half, of
//! which only those exist that a sample fell into; values above [`VALUE_MAX`] count as that.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Serialize, Serializer};

use crate::protocol::json;
use crate::time::{Instant, Now, UnixNanos};

/// The samples of one channel.
#[derive(Debug)]
pub(super) struct Latencies {
    /// The one in use, and the older one.
    halves: [Histogram; 2],
    half: Duration,
    /// When the one in use was begun.
    since: Instant,
    totals: LatencyTotals,
}

/// Samples by their size.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Histogram {
    /// Bucket and count, by bucket.
    buckets: Vec<(u16, u32)>,
    count: u64,
    max: u64,
}

/// What is shown of a channel or topic. Without samples the values are 0; without percentiles asked
/// for, and for a topic without channels, there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatencyStats {
    /// How many samples there are.
    pub count: u64,
    /// Percentiles, each in (0, 1] and in the operator's order, and their values in nanoseconds.
    #[serde(serialize_with = "list")]
    pub percentiles: Vec<(f64, u64)>,
    /// All samples since the channel was made, of whatever window; `None` for a topic, and where
    /// nothing is measured.
    #[serde(skip)]
    pub totals: Option<LatencyTotals>,
}

/// The percentiles as the statistics list them; `null` if none were asked for.
fn list<S: Serializer>(percentiles: &[(f64, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Percentile {
        #[serde(serialize_with = "json::number")]
        quantile: f64,
        value: u64,
    }
    if percentiles.is_empty() {
        return serializer.serialize_none();
    }
    serializer
        .collect_seq(percentiles.iter().map(|&(quantile, value)| Percentile { quantile, value }))
}

/// All samples since the channel was made, by their size. These only grow, and so can be added up
/// and subtracted, which percentiles can't.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LatencyTotals {
    /// How many are at most as long as the bound of this place in [`LATENCY_BOUNDS`], and longer
    /// than the one before; the last is for those that are longer than all.
    pub counts: [u64; LATENCY_BOUNDS.len() + 1],
    /// All samples together.
    pub sum: Duration,
}

/// The bounds of [`LatencyTotals`]: a millisecond to an hour.
pub const LATENCY_BOUNDS: [Duration; 13] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
];

impl LatencyTotals {
    fn note(&mut self, latency: Duration) {
        self.counts[LATENCY_BOUNDS.partition_point(|bound| *bound < latency)] += 1;
        self.sum = self.sum.saturating_add(latency);
    }

    /// Adds another channel's.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

impl Latencies {
    /// No samples yet.
    pub(super) fn new(window: Duration, now: Now) -> Self {
        Self {
            halves: <[Histogram; 2]>::default(),
            half: (window / 2).max(HALF_MIN),
            since: now.instant,
            totals: LatencyTotals::default(),
        }
    }

    /// A message that was published at `published` is done with.
    pub(super) fn note(&mut self, published: UnixNanos, now: Now) {
        match self.halves_over(now.instant) {
            0 => {}
            1 => {
                self.halves.swap(0, 1);
                self.halves[0] = Histogram::default();
                self.since = self.since + self.half;
            }
            _ => (self.halves, self.since) = (<[Histogram; 2]>::default(), now.instant),
        }
        // Less than nothing if the wall clock was set back.
        let latency = u64::try_from(now.unix.0.saturating_sub(published.0)).unwrap_or(0);
        self.halves[0].add(latency, 1);
        self.totals.note(Duration::from_nanos(latency));
    }

    /// All samples, of whatever window.
    pub(super) const fn totals(&self) -> LatencyTotals {
        self.totals
    }

    /// Adds the samples that count now.
    pub(super) fn add_to(&self, all: &mut Histogram, now: Now) {
        match self.halves_over(now.instant) {
            0 => self.halves.iter().for_each(|half| all.merge(half)),
            1 => all.merge(&self.halves[0]),
            _ => {}
        }
    }

    /// For how many halves of the window the one in use has been there; more than 2 count as 2.
    fn halves_over(&self, now: Instant) -> u32 {
        let age = now.saturating_since(self.since);
        if age <= self.half {
            0
        } else if age <= self.half * 2 {
            1
        } else {
            2
        }
    }
}

impl Histogram {
    fn add(&mut self, value: u64, count: u32) {
        self.max = self.max.max(value);
        self.count += u64::from(count);
        let bucket = bucket(value);
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }

    /// Adds another one's samples.
    pub(super) fn merge(&mut self, other: &Self) {
        self.max = self.max.max(other.max);
        self.count += other.count;
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let mut theirs = other.buckets.iter().peekable();
        for (bucket, count) in &self.buckets {
            while let Some(before) = theirs.next_if(|(other, _)| other < bucket) {
                merged.push(*before);
            }
            let more = theirs.next_if(|(other, _)| other == bucket).map_or(0, |(_, count)| *count);
            merged.push((*bucket, count.saturating_add(more)));
        }
        merged.extend(theirs);
        self.buckets = merged;
    }

    /// How many buckets there are: what it costs to look at it.
    pub(super) const fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Shows these percentiles.
    pub(super) fn stats(&self, percentiles: &[f64]) -> LatencyStats {
        let value = |percentile: &f64| (*percentile, self.value(*percentile));
        let percentiles = percentiles.iter().map(value).collect();
        LatencyStats { count: self.count, percentiles, totals: None }
    }

    /// The value that this share of the samples does not exceed.
    fn value(&self, share: f64) -> u64 {
        let exact = share * self.count as f64;
        // Rounded up, but not for what is only the product's error: 0.28 of 50 is a bit more than
        // 14, since no double is 0.28.
        let whole = exact as u64;
        let rest = exact - whole as f64;
        let rank = if rest > exact * (4.0 * f64::EPSILON) { whole + 1 } else { whole };
        if rank >= self.count {
            return self.max;
        }
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += u64::from(*count);
            if seen >= rank {
                return middle(*bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Values up to 63 have a bucket each; from there on every power of two is divided into 64.
const fn bucket(value: u64) -> u16 {
    let value = if value > VALUE_MAX { VALUE_MAX } else { value };
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(DIGITS);
    // The leading one of what is left is the bit that the next power's number is added to.
    ((shift as u64) * (1 << (DIGITS - 1)) + (value >> shift)) as u16
}

/// The middle of a bucket.
const fn middle(bucket: u16) -> u64 {
    let per_power = 1 << (DIGITS - 1);
    let bucket = bucket as u64;
    if bucket < 2 * per_power {
        return bucket;
    }
    let shift = bucket / per_power - 1;
    ((bucket - shift * per_power) << shift) + (1 << (shift - 1))
}

/// Binary digits of a value that count.
const DIGITS: u32 = 7;

/// A hundred days in nanoseconds, nearly.
const VALUE_MAX: u64 = (1 << 53) - 1;

/// Half of the shortest window; a shorter one says nothing, and one of 0 makes the reference hang.
const HALF_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(600);

    fn shown(latencies: &Latencies, now: Now, percentiles: &[f64]) -> LatencyStats {
        let mut all = Histogram::default();
        latencies.add_to(&mut all, now);
        all.stats(percentiles)
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let now = Now::from_millis(1_789_000_000_000);
        let mut latencies = Latencies::new(WINDOW, now);
        // Backwards, to show that order does not matter.
        for millis in (1..=1000).rev() {
            latencies.note(now.unix, now.after(Duration::from_millis(millis)));
        }
        let percentiles = [1.0, 0.99, 0.5, 0.001];
        let stats = shown(&latencies, now, &percentiles);
        assert_eq!(stats.count, 1000);
        assert_eq!(stats.percentiles[0], (1.0, 1_000_000_000));
        for ((share, value), exact) in stats.percentiles.iter().zip([1000.0, 990.0, 500.0, 1.0]) {
            let off = (*value as f64 / 1e6 / exact - 1.0).abs();
            assert!(off < 0.01, "{share}: {value}");
        }
        assert_eq!(shown(&Latencies::new(WINDOW, now), now, &[0.5]).percentiles, [(0.5, 0)]);
    }

    #[test]
    fn totals_only_grow() {
        let now = Now::from_millis(1_789_000_000_000);
        let mut latencies = Latencies::new(WINDOW, now);
        let lengths = [0, 1, 2, 3, 500, 501, 3_600_000, 3_600_001];
        for millis in lengths {
            latencies.note(now.unix, now.after(Duration::from_millis(millis)));
        }
        let mut totals = latencies.totals();
        assert_eq!(totals.counts, [2, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(totals.sum, Duration::from_millis(lengths.iter().sum()));
        totals.merge(&latencies.totals());
        assert_eq!(totals.counts.iter().sum::<u64>(), 16);
    }

    #[test]
    fn samples_count_for_half_a_window_to_a_whole_one() {
        let start = Now::from_millis(1_789_000_000_000);
        let minute = |n: u64| start.after(Duration::from_secs(60 * n));
        let mut latencies = Latencies::new(WINDOW, start);
        let count = |latencies: &Latencies, n| shown(latencies, minute(n), &[]).count;
        latencies.note(start.unix, minute(4));
        assert_eq!((count(&latencies, 5), count(&latencies, 9), count(&latencies, 11)), (1, 1, 0));
        latencies.note(start.unix, minute(6));
        assert_eq!(
            (count(&latencies, 10), count(&latencies, 11), count(&latencies, 16)),
            (2, 1, 0)
        );
        latencies.note(start.unix, minute(100));
        assert_eq!((count(&latencies, 105), count(&latencies, 111)), (1, 0));
    }

    #[test]
    fn a_clock_that_steps_back_and_a_window_of_nothing_do_no_harm() {
        let now = Now::from_millis(1000);
        let mut latencies = Latencies::new(Duration::ZERO, now);
        latencies.note(UnixNanos(i64::MAX), now);
        latencies.note(UnixNanos(i64::MIN), now);
        let stats = shown(&latencies, now, &[1.0, 0.5]);
        assert_eq!((stats.count, stats.percentiles[1]), (2, (0.5, 0)));
        assert!(stats.percentiles[0].1 > VALUE_MAX);
    }

    /// 0.28 times 50 is 14.000000000000002 in doubles.
    #[test]
    fn the_rank_is_not_that_of_a_rounding_error() {
        // Values that have a bucket each, so that the value shows the rank.
        for count in 1..=63_u64 {
            let mut histogram = Histogram::default();
            (1..=count).for_each(|value| histogram.add(value, 1));
            for share in 1..=1000_u32 {
                let rank = (count * u64::from(share)).div_ceil(1000);
                let shown = histogram.value(f64::from(share) / 1000.0);
                assert_eq!(shown, rank, "{share} of {count}");
            }
        }
    }

    proptest! {
        /// Beside a sorted list: percentiles are off by less than a percent, the highest not at
        /// all, and it does not matter over how many channels the samples are spread.
        #[test]
        fn percentiles_are_those_of_a_list(
            values in prop::collection::vec((0..=VALUE_MAX, 0_u32..50), 1..150),
            channels in 1_usize..4,
            share in 1_u32..=1000,
        ) {
            let mut values: Vec<u64> = values.iter().map(|(value, shift)| value >> shift).collect();
            let mut whole = Histogram::default();
            let mut parts = alloc::vec![Histogram::default(); channels];
            for (at, value) in values.iter().enumerate() {
                whole.add(*value, 1);
                parts[at % channels].add(*value, 1);
            }
            let mut merged = Histogram::default();
            parts.iter().for_each(|part| merged.merge(part));
            prop_assert_eq!(&merged, &whole);
            values.sort_unstable();
            // In whole numbers, so that nothing is rounded here.
            let rank = (values.len() * share as usize).div_ceil(1000);
            let exact = values[rank - 1];
            let stats = whole.stats(&[f64::from(share) / 1000.0]);
            prop_assert_eq!(stats.count, values.len() as u64);
            let shown = stats.percentiles[0].1;
            let off = shown.abs_diff(exact) as f64;
            prop_assert!(off <= exact as f64 * 0.01, "{shown} and not {exact}");
            prop_assert!(rank < values.len() || shown == exact);
        }

        /// A sample counts for half a window at least, and for a whole one at most.
        #[test]
        fn samples_count_as_long_as_they_should(
            pauses in prop::collection::vec(0_u64..400, 1..30),
        ) {
            let mut now = Now::from_millis(1_789_000_000_000);
            let (mut latencies, mut noted) = (Latencies::new(WINDOW, now), Vec::new());
            for secs in pauses {
                now = now.after(Duration::from_secs(secs));
                let younger = |age: Duration| {
                    let is_younger = |at: &&Instant| now.instant.saturating_since(**at) <= age;
                    noted.iter().filter(is_younger).count() as u64
                };
                let (least, most) = (younger(WINDOW / 2), younger(WINDOW));
                let count = shown(&latencies, now, &[]).count;
                prop_assert!((least..=most).contains(&count), "{count} is not {least} to {most}");
                latencies.note(now.unix, now);
                noted.push(now.instant);
            }
            prop_assert_eq!(latencies.totals().counts.iter().sum::<u64>(), noted.len() as u64);
        }

        #[test]
        fn buckets_are_narrow_and_in_order(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            prop_assert!(bucket(value) < 3072);
            prop_assert!(bucket(value) <= bucket(value.saturating_add(1)));
            let off = middle(bucket(value)).abs_diff(value.min(VALUE_MAX));
            prop_assert!(off as f64 <= value as f64 * 0.008, "{value} is off by {off}");
        }

        #[test]
        fn a_share_is_never_above_the_highest_and_grows(
            values in prop::collection::vec(0_u64..1 << 40, 1..200),
        ) {
            let mut all = Histogram::default();
            values.iter().for_each(|value| all.add(*value, 1));
            let shares = [0.01, 0.25, 0.5, 0.99, 1.0];
            let stats = all.stats(&shares);
            prop_assert!(stats.percentiles.is_sorted_by(|a, b| a.1 <= b.1));
            prop_assert_eq!(stats.percentiles[4].1, *values.iter().max().unwrap());
        }
    }
}
