//! What a run did, as a table and as JSON.

use core::fmt::{self, Write as _};

use hdrhistogram::Histogram;
use sansq_core::name::TopicName;
use serde_json::{Value, json};

use super::{BenchOptions, Mode};

/// What one direction carried.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Messages acknowledged or delivered.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Nanoseconds from the start of the run to the last of them.
    pub nanos: u64,
    /// Nanoseconds from sending a publish command to its OK, or to each delivery.
    pub latency: Histogram<u64>,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            messages: 0,
            bytes: 0,
            nanos: 0,
            latency: Histogram::new_with_bounds(1_000, LATENCY_MAX, 3)
                .expect("the bounds are constants in order"),
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

    pub(super) fn add(&mut self, messages: u64, bytes: u64, now: u64) {
        if messages > 0 {
            self.messages += messages;
            self.bytes += bytes;
            self.nanos = now;
        }
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
        self.latency.add(other.latency).expect("all histograms have the same bounds");
        self
    }

    fn percentiles(&self) -> [(&'static str, u64); 5] {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        [
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p99.9", at(0.999)),
            ("max", self.latency.max()),
        ]
    }
}

/// The figures of a run; its `Display` is the table.
#[derive(Clone, Debug)]
pub struct Report {
    /// The topic that was used.
    pub topic: TopicName,
    /// What was published and acknowledged.
    pub published: Flow,
    /// What was delivered.
    pub received: Flow,
    options: BenchOptions,
}

impl Report {
    pub(super) fn new(
        options: &BenchOptions,
        topic: TopicName,
        published: Flow,
        received: Flow,
    ) -> Self {
        Self { topic, published, received, options: options.clone() }
    }

    /// The figures as JSON; latencies in microseconds, `null` where nothing was measured.
    pub fn to_json(&self) -> Value {
        let flow = |flow: &Flow| {
            let percentiles = flow.percentiles().map(|(name, nanos)| {
                let value =
                    if flow.latency.is_empty() { Value::Null } else { micros(nanos).into() };
                (name.to_owned(), value)
            });
            json!({
                "messages": flow.messages,
                "seconds": flow.nanos as f64 / 1e9,
                "messages_per_second": flow.rate(),
                "megabytes_per_second": flow.megabytes(),
                "latency_us": Value::Object(percentiles.into_iter().collect()),
            })
        };
        let mut report = json!({
            "nsqd_tcp_address": self.options.nsqd_tcp_address,
            "topic": self.topic.as_str(),
            "size": self.options.size,
            "batch": self.options.batch,
            "window": self.options.window,
            "rdy": self.options.rdy,
            "connections": self.options.connections,
            "consumers": self.options.consumers,
        });
        for (name, shown) in self.flows() {
            report[name] = flow(shown);
        }
        report
    }

    fn flows(&self) -> impl Iterator<Item = (&'static str, &Flow)> {
        let published = (self.options.mode != Mode::Sub).then_some(("publish", &self.published));
        let received = (self.options.mode != Mode::Pub).then_some(("deliver", &self.received));
        published.into_iter().chain(received)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchOptions { size, batch, window, .. } = self.options;
        writeln!(f, "{}: {size} bytes, batch {batch}, window {window}\n", self.topic)?;
        writeln!(f, "{:8} {:>12} {:>9} {:>12} {:>9}", "", "messages", "seconds", "msg/s", "MB/s")?;
        for (name, flow) in self.flows() {
            let seconds = flow.nanos as f64 / 1e9;
            let (rate, megabytes) = (flow.rate(), flow.megabytes());
            let messages = flow.messages;
            writeln!(f, "{name:8} {messages:>12} {seconds:>9.2} {rate:>12.0} {megabytes:>9.1}")?;
        }
        write!(f, "\n{:16}", "latency in us")?;
        for (name, _) in Flow::default().percentiles() {
            write!(f, " {name:>9}")?;
        }
        for (name, flow) in self.flows() {
            let label = if name == "publish" { "PUB to OK" } else { "PUB to delivery" };
            write!(f, "\n{label:16}")?;
            for (_, nanos) in flow.percentiles() {
                let mut cell = String::new();
                if flow.latency.is_empty() {
                    cell.push('-');
                } else {
                    write!(cell, "{:.0}", micros(nanos))?;
                }
                write!(f, " {cell:>9}")?;
            }
        }
        Ok(())
    }
}

fn per_second(count: u64, nanos: u64) -> f64 {
    if nanos == 0 { 0.0 } else { count as f64 * 1e9 / nanos as f64 }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Ten minutes; what takes longer counts as that.
const LATENCY_MAX: u64 = 600_000_000_000;
