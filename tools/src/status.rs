//! The line that says how many messages went on, and how long that took (http-and-ops.md section
//! 10.4).

use core::fmt;
use core::time::Duration;

use hdrhistogram::Histogram;

/// Counts for one line after every so many messages.
#[derive(Clone, Debug)]
pub(super) struct Status {
    /// What the line begins with.
    name: String,
    /// Messages per line; 0: no lines.
    every: u64,
    /// Microseconds.
    latency: Histogram<u64>,
}

impl Status {
    /// For the address, or all of them, of this name.
    ///
    /// # Panics
    /// Never: the histogram's bounds are constants.
    pub(super) fn new(name: &str, every: u64) -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, 3);
        Self { name: name.to_owned(), every, latency: latency.expect("the bounds are valid") }
    }

    /// Takes one more. Returns the line, if there are enough for one.
    pub(super) fn record(&mut self, latency: Duration) -> Option<String> {
        if self.every == 0 {
            return None;
        }
        self.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        let count = self.latency.len();
        if count < self.every {
            return None;
        }
        let at = |quantile| Millis(self.latency.value_at_quantile(quantile) as f64);
        let mean = Millis(self.latency.mean());
        let line = format!(
            "[{}]: finished {count} - 99th: {} - 95th: {} - avg: {mean}",
            self.name,
            at(0.99),
            at(0.95)
        );
        self.latency.reset();
        Some(line)
    }
}

struct Millis(f64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}ms", self.0 / 1000.0)
    }
}

/// An hour; what is above counts as this.
const LATENCY_MAX_MICROS: u64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_after_so_many() {
        let mut status = Status::new("aggregate", 3);
        for _ in 0..2 {
            assert_eq!(status.record(Duration::from_micros(500)), None);
            assert_eq!(status.record(Duration::from_micros(500)), None);
            assert_eq!(
                status.record(Duration::from_millis(2)).unwrap(),
                "[aggregate]: finished 3 - 99th: 2.00ms - 95th: 2.00ms - avg: 1.00ms"
            );
        }
        let mut off = Status::new("aggregate", 0);
        assert_eq!((0..100).find_map(|_| off.record(Duration::MAX)), None);
    }
}
