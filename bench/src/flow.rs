//! What one direction carried, as it is counted.

use hdrhistogram::Histogram;

/// What one direction carried: of one thread while it runs, in the end of all together.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Messages acknowledged or delivered while it was counted.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Nanoseconds from the start of counting to its end; shorter if the work ended earlier.
    pub nanos: u64,
    /// Nanoseconds from when a publish command was due (in the closed loop: sent) to its OK, or to
    /// each delivery. Of commands that were due while it was counted, whenever the answer came.
    pub latency: Histogram<u64>,
    /// All messages, with those of the warm-up and those that came after the end.
    pub total: u64,
    /// Deliveries that were not a message's first.
    pub redelivered: u64,
    /// Nanoseconds of CPU time that this program's threads for this direction took while it was
    /// counted.
    pub cpu: u64,
    /// In the open loop: nanoseconds from when a command was due to when it was handed to the
    /// socket.
    pub lag: Histogram<u64>,
    /// In the open loop: messages that were due and never sent, because the server did not keep up.
    pub unsent: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            messages: 0,
            bytes: 0,
            nanos: 0,
            latency: histogram(),
            total: 0,
            redelivered: 0,
            cpu: 0,
            lag: histogram(),
            unsent: 0,
        }
    }
}

impl Flow {
    /// Messages per second.
    pub fn rate(&self) -> f64 {
        per_second(self.messages, self.nanos)
    }

    /// Megabytes (10^6 bytes) of bodies per second.
    pub fn megabytes(&self) -> f64 {
        per_second(self.bytes, self.nanos) / 1e6
    }

    /// Microseconds of this program's CPU time per message; `None` without messages, or if the
    /// system does not say.
    pub fn cpu_micros(&self) -> Option<f64> {
        (self.messages > 0 && self.cpu > 0).then(|| self.cpu as f64 / 1e3 / self.messages as f64)
    }

    pub(super) fn record(&mut self, nanos: u64, count: u64) {
        if count > 0 {
            self.latency.saturating_record_n(nanos, count);
        }
    }

    pub(super) fn plus(mut self, other: Self) -> Self {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.nanos = self.nanos.max(other.nanos);
        self.latency.add(other.latency).expect(SAME_BOUNDS);
        self.total += other.total;
        self.redelivered += other.redelivered;
        self.cpu += other.cpu;
        self.lag.add(other.lag).expect(SAME_BOUNDS);
        self.unsent += other.unsent;
        self
    }
}

/// The percentiles that are shown, by their names, in nanoseconds; `None` if nothing was measured.
pub(super) fn percentiles(histogram: &Histogram<u64>) -> [(&'static str, Option<u64>); 5] {
    let at = |quantile| (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile));
    let max = (!histogram.is_empty()).then(|| histogram.max());
    [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p99.9", at(0.999)), ("max", max)]
}

fn per_second(count: u64, nanos: u64) -> f64 {
    if nanos == 0 { 0.0 } else { count as f64 * 1e9 / nanos as f64 }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_MIN, LATENCY_MAX, 3)
        .expect("the bounds are constants in order")
}

const SAME_BOUNDS: &str = "all histograms have the same bounds";
/// What is told apart, in nanoseconds: an eighth of a microsecond is less than a system call takes.
const LATENCY_MIN: u64 = 128;
/// Ten minutes; what takes longer counts as that.
const LATENCY_MAX: u64 = 600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_of_threads_add_up() {
        let mut sum =
            Flow { messages: 1, bytes: 10, nanos: 5, total: 2, cpu: 3, ..Flow::default() };
        sum.record(1_000, 98);
        let mut other = Flow { messages: 2, bytes: 20, nanos: 4, unsent: 7, ..Flow::default() };
        other.record(1_000_000, 2);
        other.redelivered = 1;
        let sum = sum.plus(other);
        assert_eq!((sum.messages, sum.bytes, sum.nanos, sum.total), (3, 30, 5, 2));
        assert_eq!((sum.cpu, sum.unsent, sum.redelivered), (3, 7, 1));
        // Percentiles of the whole, not means of percentiles; within a thousandth.
        let shown = percentiles(&sum.latency).map(|(_, nanos)| nanos.unwrap() / 900);
        assert_eq!(shown, [1, 1, 1_111, 1_111, 1_111]);
    }

    #[test]
    fn nothing_measured_is_not_zero() {
        assert!(percentiles(&Flow::default().latency).iter().all(|(_, nanos)| nanos.is_none()));
        assert_eq!((Flow::default().rate(), Flow::default().cpu_micros()), (0.0, None));
        let flow = Flow {
            messages: 500,
            bytes: 3_000_000,
            nanos: 500_000_000,
            cpu: 50_000,
            ..Flow::default()
        };
        assert_eq!((flow.rate(), flow.megabytes(), flow.cpu_micros()), (1_000.0, 6.0, Some(0.1)));
    }

    #[test]
    fn what_takes_longer_than_ten_minutes_is_counted() {
        let mut flow = Flow::default();
        flow.record(u64::MAX, 1);
        let [.., (_, max)] = percentiles(&flow.latency);
        assert!(max >= Some(LATENCY_MAX), "{max:?}");
    }
}
