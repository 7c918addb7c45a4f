//! How many connections a server has at most.

#[cfg(all(test, sansq_loom))]
mod interleavings;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use sansq_core::log::Count;
use sansq_core::time::Instant;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// The limit on a server's connections, which its threads share.
#[derive(Debug)]
pub struct ConnectionLimit {
    taken: AtomicUsize,
    max: usize,
}

/// Lets one connection be. It goes where the connection goes, and another may have it when this is
/// dropped.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ConnectionLimit>);

impl ConnectionLimit {
    /// At most so many connections.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    /// One more connection, unless there are so many already.
    pub fn take(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let more = |taken: usize| taken.checked_add(1).filter(|taken| *taken <= self.max);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(ConnectionPermit(Arc::clone(self)))
    }

    /// How many there may be.
    pub const fn max(&self) -> usize {
        self.max
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Connections that were refused because of the limit, for the log: one line in
/// [`REFUSALS_PERIOD`], however many come.
#[derive(Debug, Default)]
pub struct RefusedConnections {
    count: u64,
    said: Option<Instant>,
}

/// Refused connections since the last line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// How many connections there may be.
    pub max: usize,
}

impl RefusedConnections {
    /// Counts one more, of a server with at most `max` connections. Returns what is
    /// to be said about it, if it is time for that.
    pub fn note(&mut self, now: Instant, max: usize) -> Option<Refused> {
        self.count += 1;
        let is_soon = |said: Instant| now.saturating_since(said) < REFUSALS_PERIOD;
        if self.said.is_some_and(is_soon) {
            return None;
        }
        self.said = Some(now);
        Some(Refused { count: core::mem::take(&mut self.count), max })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (refused, max) = (Count(self.count, "connection"), self.max);
        write!(f, "TCP: refused {refused}, all of --max-connections={max} are open")
    }
}

/// The time between two lines about refused connections.
pub const REFUSALS_PERIOD: Duration = Duration::from_secs(10);

/// Refused connections that may take a moment to read why. More are closed at once.
pub const REFUSING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_come_back() {
        let limit = ConnectionLimit::new(2);
        let (first, second) = (limit.take().unwrap(), limit.take().unwrap());
        assert!(limit.take().is_none());
        drop(first);
        let third = limit.take().unwrap();
        assert!(limit.take().is_none());
        drop((second, third));
        assert!(limit.take().is_some());
        assert!(ConnectionLimit::new(0).take().is_none());
    }

    #[test]
    fn refusals_are_one_line_now_and_then() {
        let mut refusals = RefusedConnections::default();
        let at = Instant::from_millis;
        let line = refusals.note(at(1), 7).unwrap().to_string();
        assert_eq!(line, "TCP: refused 1 connection, all of --max-connections=7 are open");
        assert!((2..10_001).all(|millis| refusals.note(at(millis), 7).is_none()));
        assert_eq!(refusals.note(at(10_001), 7), Some(Refused { count: 10_000, max: 7 }));
        assert_eq!(refusals.note(at(10_002), 7), None);
    }
}
