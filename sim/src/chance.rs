//! Draws that the simulation makes of a stream of random numbers.

use core::time::Duration;

use sansq_core::rng::Rng;

/// What each concern's stream is called, so that a draw for one never shifts another's.
pub(crate) mod stream {
    pub(crate) const SWARM: u64 = 1;
    pub(crate) const TIES: u64 = 2;
    pub(crate) const NET: u64 = 3;
    pub(crate) const LANES: u64 = 4;
    pub(crate) const FAULTS: u64 = 5;
    pub(crate) const MACHINES: u64 = 7;
    pub(crate) const HTTP: u64 = 8;
    pub(crate) const DISKS: u64 = 9;
    pub(crate) const CLIENTS_DRAWN: u64 = 10;
    pub(crate) const LIMITS: u64 = 11;
    /// Each client has a stream of its own, from here on.
    pub(crate) const CLIENTS: u64 = 1_000;
}

/// Draws.
pub(crate) trait Chance {
    /// Happens so many times in a hundred.
    fn percent(&mut self, percent: u64) -> bool;
    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64;
    /// A time from zero to `max`, in whole microseconds.
    fn within(&mut self, max: Duration) -> Duration;
    /// One of `choices`, which are not empty.
    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T;
}

impl Chance for Rng {
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    fn within(&mut self, max: Duration) -> Duration {
        Duration::from_micros(self.below(max.as_micros() as u64 + 1))
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}
