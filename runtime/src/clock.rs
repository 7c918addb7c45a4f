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

    /// Whether it is so much later than `due` that this process was paused, or this thread had too
    /// much to do. Then what has arrived meanwhile is to be read before a deadline is judged that
    /// waits for it: see [`CATCH_UP`].
    pub(crate) fn is_late(self, due: time::Instant) -> bool {
        self.instant().saturating_since(due) > LATE
    }

    /// When `instant` is, for the runtime's timers.
    pub fn at(self, instant: time::Instant) -> Instant {
        self.origin + Duration::from_nanos(instant.as_nanos())
    }
}

/// How late timers may ring, and deadlines be judged all the same.
const LATE: Duration = Duration::from_millis(20);

/// How long a server that is late reads before it judges deadlines. A read of each connection shows
/// who is there; it need not be all that they have sent.
pub(crate) const CATCH_UP: Duration = Duration::from_millis(10);

/// How often in a row, since a server that is late all the time has to judge some time.
pub(crate) const CATCH_UPS_MAX: u32 = 100;
