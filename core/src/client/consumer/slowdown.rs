//! Backoff: how the consumer slows down when its handlers fail (clients.md section 3.5).
//!
//! ```text
//!            failure                wait over                success at level 1
//!   Normal ----------> Waiting -------------------> Testing --------------------> Normal
//!                      RDY 0 ^                      RDY 1 |
//!                            +----------------------------+  any other result; a failure one level
//!                                                            up, a success one down
//! ```
//!
//! The level rises until its wait is the longest: 1, 2, 4 … 64, 120 s with the defaults. (The
//! reference stops one step short of that.) Results during the wait are those of messages that were
//! in flight already, and change nothing.

use core::time::Duration;

use super::options::{BackoffStrategy, ConsumerOptions};
use crate::rng::Rng;
use crate::time::{Instant, Now};

/// What an answer says about the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Signal {
    /// It copes.
    Resume,
    /// It does not.
    Backoff,
    /// It says nothing.
    Continue,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Normal,
    Waiting(Instant),
    Testing,
}

#[derive(Debug)]
pub(super) struct Slowdown {
    strategy: BackoffStrategy,
    multiplier: Duration,
    max: Duration,
    level: u32,
    phase: Phase,
    rng: Rng,
}

impl Slowdown {
    pub(super) const fn new(options: &ConsumerOptions, rng: Rng) -> Self {
        Self {
            strategy: options.backoff_strategy,
            multiplier: options.backoff_multiplier,
            max: options.max_backoff_duration,
            level: 0,
            phase: Phase::Normal,
            rng,
        }
    }

    /// Takes an answer into account. True if RDY counts change with it; that has to go out first.
    pub(super) fn signal(&mut self, signal: Signal, now: Now) -> bool {
        if self.max.is_zero()
            || self.multiplier.is_zero()
            || matches!(self.phase, Phase::Waiting(_))
        {
            return false;
        }
        match signal {
            Signal::Resume if self.level > 0 => {
                self.level -= 1;
                if self.level == 0 {
                    self.phase = Phase::Normal;
                    return true;
                }
            }
            Signal::Backoff if self.level < LEVEL_MAX && self.longest_wait() < self.max => {
                self.level += 1;
            }
            Signal::Resume | Signal::Backoff | Signal::Continue => {}
        }
        if self.level == 0 {
            return false;
        }
        let wait = match self.strategy {
            BackoffStrategy::Exponential => self.longest_wait(),
            BackoffStrategy::FullJitter => {
                let nanos = u64::try_from(self.longest_wait().as_nanos()).unwrap_or(u64::MAX);
                Duration::from_nanos(self.rng.below(nanos))
            }
        };
        self.phase = Phase::Waiting(now.instant + wait);
        true
    }

    /// D(L), at most the maximum.
    fn longest_wait(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.level).unwrap_or(u32::MAX);
        self.multiplier.saturating_mul(factor).min(self.max)
    }

    /// Time has passed. True if the test begins.
    pub(super) fn handle_timeout(&mut self, now: Now) -> bool {
        let over = self.poll_timeout().is_some_and(|until| until <= now.instant);
        if over {
            self.phase = Phase::Testing;
        }
        over
    }

    /// When the wait is over.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        if let Phase::Waiting(until) = self.phase { Some(until) } else { None }
    }

    /// How much of `max_in_flight` may be used as RDY.
    pub(super) fn budget(&self, max_in_flight: u32) -> u32 {
        match self.phase {
            Phase::Normal => max_in_flight,
            Phase::Waiting(_) => 0,
            Phase::Testing => max_in_flight.min(1),
        }
    }

    /// Whether one message decides how it goes on.
    pub(super) fn is_testing(&self) -> bool {
        self.phase == Phase::Testing
    }

    /// How long a test waits for a message in one place, if others may have one: as long as the
    /// wait before it was at most. `None`: there is no test.
    pub(super) fn test_patience(&self) -> Option<Duration> {
        self.is_testing().then(|| self.longest_wait().max(TEST_PATIENCE_LEAST))
    }

    /// 0: not in backoff.
    pub(super) const fn level(&self) -> u32 {
        self.level
    }
}

/// Beyond this a tiny multiplier would take longer to recover from than its waits are worth.
const LEVEL_MAX: u32 = 31;

/// A test stays at least this long in one place, so that a short wait makes no storm of RDYs among
/// idle nsqds, and a message has time to get here.
const TEST_PATIENCE_LEAST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn slowdown(options: ConsumerOptions) -> Slowdown {
        Slowdown::new(&options, Rng::new(1))
    }

    /// The waits after these signals, each given in the test that follows the one before.
    fn waits(slowdown: &mut Slowdown, signals: &[Signal]) -> Vec<Option<u64>> {
        let now = Now::from_millis(0);
        let wait = |signal: &Signal| {
            slowdown.signal(*signal, now);
            let until = slowdown.poll_timeout()?;
            assert!(slowdown.handle_timeout(Now { instant: until, ..now }));
            Some(until.as_nanos() / 1_000_000)
        };
        signals.iter().map(wait).collect()
    }

    #[test]
    fn the_level_rises_to_the_longest_wait_and_falls_step_by_step() {
        let mut machine = slowdown(ConsumerOptions::default());
        let seconds = |all: Vec<Option<u64>>| -> Vec<u64> {
            all.into_iter().map(|wait| wait.map_or(0, |wait| wait / 1000)).collect()
        };
        let up = waits(&mut machine, &[Signal::Backoff; 9]);
        assert_eq!(seconds(up), [2, 4, 8, 16, 32, 64, 120, 120, 120]);
        let down = waits(&mut machine, &[Signal::Resume; 8]);
        assert_eq!(seconds(down), [64, 32, 16, 8, 4, 2, 0, 0]);
        assert_eq!((machine.level(), machine.budget(7)), (0, 7));
    }

    /// K5: the wait of a level is the multiplier times 2 to the level.
    #[test]
    fn the_waits_of_the_reference() {
        for (level, seconds) in [(0, 1), (1, 2), (3, 8), (5, 32)] {
            let mut machine = slowdown(ConsumerOptions::default());
            machine.level = level;
            assert_eq!(machine.longest_wait(), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn results_during_the_wait_and_switched_off_change_nothing() {
        let now = Now::from_millis(0);
        let mut machine = slowdown(ConsumerOptions::default());
        assert!(!machine.signal(Signal::Resume, now) && !machine.signal(Signal::Continue, now));
        assert!(machine.signal(Signal::Backoff, now));
        for signal in [Signal::Resume, Signal::Backoff, Signal::Continue] {
            assert!(!machine.signal(signal, now));
        }
        assert_eq!((machine.level(), machine.budget(7)), (1, 0));
        assert!(machine.handle_timeout(Now::from_millis(2000)));
        assert_eq!((machine.is_testing(), machine.budget(7), machine.budget(0)), (true, 1, 0));
        // The same again, one level up or not.
        assert!(machine.signal(Signal::Continue, now));
        assert_eq!(machine.level(), 1);
        let off = Duration::ZERO;
        for options in [
            ConsumerOptions { max_backoff_duration: off, ..ConsumerOptions::default() },
            ConsumerOptions { backoff_multiplier: off, ..ConsumerOptions::default() },
        ] {
            assert!(!slowdown(options).signal(Signal::Backoff, now));
        }
    }

    #[test]
    fn full_jitter_draws_below_the_wait_and_levels_stay_bounded() {
        let options = ConsumerOptions {
            backoff_strategy: BackoffStrategy::FullJitter,
            backoff_multiplier: Duration::from_nanos(1),
            ..ConsumerOptions::default()
        };
        let mut machine = slowdown(options);
        let drawn = waits(&mut machine, &[Signal::Backoff; 100]);
        assert!(drawn.iter().all(|wait| wait.is_some_and(|wait| wait < 120_000)));
        assert!(drawn.iter().collect::<alloc::collections::BTreeSet<_>>().len() > 20);
        assert_eq!(machine.level(), LEVEL_MAX);
    }
}
