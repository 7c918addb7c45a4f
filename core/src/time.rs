//! Time as an argument: the core never reads a clock.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// Monotonic time in nanoseconds since an origin that the driver chooses.
///
/// Only differences mean anything. All timers of the core run on it, so that a step of the wall
/// clock neither fires nor delays them (nsqd-protocol.md, weakness W13).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates: 584 years after the origin time stands still.
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// Wall-clock time in nanoseconds since the Unix epoch, as message timestamps carry it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }
}

impl fmt::Display for UnixNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One reading of both clocks, taken once per turn by whoever drives a machine.
///
/// `instant` never goes backwards between two calls into the same machine; `unix` may.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// For every timer.
    pub instant: Instant,
    /// For message timestamps, message ids and what people read.
    pub unix: UnixNanos,
}

impl Now {
    /// A reading for tests: `millis` milliseconds after the origin on both clocks.
    pub const fn from_millis(millis: u64) -> Self {
        Self {
            instant: Instant::from_millis(millis),
            unix: UnixNanos((millis as i64).saturating_mul(1_000_000)),
        }
    }

    /// The same reading, `duration` later on both clocks.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self {
            instant: self.instant + duration,
            unix: UnixNanos(self.unix.0.saturating_add(nanos)),
        }
    }
}
