//! How long to wait between two tries: exponential, with jitter from a seed (clients.md B12).

use core::time::Duration;

use crate::rng::Rng;

/// The waits after failures in a row. The n-th is a random time between the shortest wait and
/// 2^n times it, never above the longest: many clients that lost the same server come back spread
/// out, and none comes back sooner than the shortest wait.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    rng: Rng,
}

impl Backoff {
    /// Waits between `min` and `max`; a `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration, rng: Rng) -> Self {
        Self { min, max: max.max(min), failures: 0, rng }
    }

    /// Counts a failure and draws the wait until the next try.
    pub fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let longest = self.min.saturating_mul(factor).min(self.max);
        let spread = u64::try_from((longest - self.min).as_nanos()).unwrap_or(u64::MAX);
        // The bound itself is among the values, so that `min == max` needs no case of its own.
        self.min + Duration::from_nanos(self.rng.below(spread.saturating_add(1)))
    }

    /// Forgets the failures: something worked.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn waits(seed: u64) -> Vec<Duration> {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(30));
        let mut backoff = Backoff::new(min, max, Rng::new(seed));
        (0..40).map(|_| backoff.next_wait()).collect()
    }

    #[test]
    fn each_wait_lies_between_its_bounds() {
        for seed in 0..200 {
            for (n, wait) in waits(seed).into_iter().enumerate() {
                let longest = (100_u128 << (n + 1)).min(30_000);
                assert!((100..=longest).contains(&wait.as_millis()), "{wait:?} after {n}");
            }
        }
    }

    #[test]
    fn one_seed_one_sequence_and_seeds_differ() {
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }

    #[test]
    fn a_reset_starts_over_and_equal_bounds_leave_no_choice() {
        let wait = Duration::from_secs(1);
        let mut backoff = Backoff::new(wait, Duration::ZERO, Rng::new(0));
        assert_eq!((backoff.next_wait(), backoff.next_wait()), (wait, wait));
        let mut backoff = Backoff::new(wait, Duration::from_secs(1000), Rng::new(0));
        for _ in 0..20 {
            backoff.next_wait();
        }
        backoff.reset();
        assert!(backoff.next_wait() <= wait * 2);
    }
}
