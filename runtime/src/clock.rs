//! The only place that reads clocks.

use core::time::Duration;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sansq_core::time::{self, Now, UnixNanos};

/// Both clocks; copies agree with each other, so all shards of a node share one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Reads both clocks.
    pub fn now(self) -> Now {
        // A wall clock before 1970 is set wrong; timestamps are then 0 until somebody sets it.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: self.instant(),
            unix: UnixNanos(i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX)),
        }
    }

    /// Reads the monotonic clock alone.
    pub fn instant(self) -> time::Instant {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        time::Instant::from_nanos(nanos)
    }

    /// When `instant` is, for the runtime's timers.
    pub fn at(self, instant: time::Instant) -> Instant {
        self.origin + Duration::from_nanos(instant.as_nanos())
    }
}
