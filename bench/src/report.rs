//! What a run did, as a table and as JSON.

use core::fmt::{self, Write as _};
use core::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::flow::{Flow, percentiles};
use super::{BenchOptions, Mode};

/// The figures of a run; its `Display` is the table.
#[derive(Clone, Debug)]
pub struct Report {
    /// The topics that were used.
    pub topics: Vec<String>,
    /// What is known of the server.
    pub server: Server,
    /// What was published and acknowledged.
    pub published: Flow,
    /// What was delivered.
    pub received: Flow,
    /// In mode `both`, how many deliveries of what was published did not come.
    pub undelivered: u64,
    pub(super) options: BenchOptions,
}

/// What is known of the server.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Its version, as it says in the answer to IDENTIFY; empty if it does not.
    pub version: String,
    /// Its process, if it is known.
    pub pid: Option<u32>,
    /// CPU time that it took while it was counted, exact to 10 ms.
    pub cpu: Option<Duration>,
    /// How long that was measured.
    pub watched: Duration,
    /// Resident memory in bytes at the end of counting.
    pub memory: Option<u64>,
}

/// One figure of a report that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Metric {
    /// What it is, for people.
    pub(super) label: String,
    /// Where it is in the JSON, names with dots in between.
    pub(super) key: String,
    pub(super) value: f64,
}

impl Report {
    pub(super) fn new(
        options: &BenchOptions,
        topics: Vec<String>,
        server: Server,
        (published, received): (Flow, Flow),
        undelivered: u64,
    ) -> Self {
        Self { topics, server, published, received, undelivered, options: options.clone() }
    }

    /// Why the figures are not what was asked for; `None` if they are.
    pub fn shortfall(&self) -> Option<String> {
        if self.undelivered > 0 {
            return Some(format!("{} messages were not delivered", self.undelivered));
        }
        if self.published.unsent > 0 {
            return Some(format!(
                "the server did not keep up with --rate: {} messages were not sent or not answered",
                self.published.unsent
            ));
        }
        let counted = if self.options.mode == Mode::Sub { &self.received } else { &self.published };
        if counted.messages > 0 {
            return None;
        }
        let warm_up = self.options.warm_up();
        Some(match (self.options.mode, counted.total) {
            (Mode::Sub, 0) => format!(
                "there was nothing to consume in {}: publish there first, or use --prefill",
                self.topics.first().map_or("", String::as_str)
            ),
            (_, 0) => "nothing came while it was counted".into(),
            (_, early) => format!(
                "all {early} messages came within the --warm-up of {warm_up:?}, in which nothing is \
                 counted: make that shorter, or have more of them"
            ),
        })
    }

    /// Microseconds of the server's CPU time per message: published, or in mode `sub` delivered.
    pub fn server_cpu_micros(&self) -> Option<f64> {
        let flow = if self.options.mode == Mode::Sub { &self.received } else { &self.published };
        // The counted time may be shorter than the watched one, if the work ran out.
        let cpu = self.server.cpu?.as_secs_f64();
        (flow.messages > 0).then(|| cpu * 1e6 / flow.messages as f64)
    }

    /// The most important figures in one line, with the server's address in front.
    pub fn line(&self) -> String {
        let mut line = self.options.nsqd_tcp_address.clone();
        for (name, flow) in self.flows() {
            let [(_, p50), _, (_, p99), ..] = percentiles(&flow.latency);
            let _ = write!(
                line,
                "  {name} {:.0} msg/s, p50 {} us, p99 {} us",
                flow.rate(),
                shown(p50.map(micros), 0),
                shown(p99.map(micros), 0)
            );
        }
        line
    }

    /// The figures as JSON (docs/BENCH.md); latencies in microseconds, `null` where nothing was
    /// measured.
    pub fn to_json(&self) -> Value {
        let options = &self.options;
        let mut report = json!({
            "nsqd_tcp_address": options.nsqd_tcp_address,
            "nsqd_version": self.server.version,
            "mode": options.mode.name(),
            "topic": self.topics.first(),
            "topics": options.topics,
            "channels": options.channels,
            "connections": options.connections,
            "consumers": options.consumers(),
            "threads": options.threads,
            "size": options.size,
            "batch": options.batch,
            "window": options.window(),
            "rdy": options.rdy,
            "rate": options.rate,
            "client_opt": options.client_opt.iter().map(|opt| without_secret(opt)).collect::<Vec<_>>(),
            "warm_up_seconds": options.warm_up().as_secs_f64(),
            "duration_seconds": options.duration.as_secs_f64(),
            "undelivered": self.undelivered,
            "server": {
                "pid": self.server.pid,
                "cpu_seconds": self.server.cpu.map(|cpu| cpu.as_secs_f64()),
                "cpu_us_per_message": self.server_cpu_micros(),
                "memory_bytes": self.server.memory,
            },
        });
        for (name, flow) in self.flows() {
            report[name] = flow_json(flow);
        }
        if options.rate.is_some() {
            report["publish"]["lag_us"] = latency_json(&self.published.lag);
            report["publish"]["unsent"] = self.published.unsent.into();
        }
        report
    }

    /// What two servers can be compared by; what was not measured is left out.
    pub(super) fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        let mut add = |label, key, value: Option<f64>| {
            metrics.extend(value.map(|value| Metric { label, key, value }));
        };
        for (name, flow) in self.flows() {
            let what = if name == "publish" { "published" } else { "delivered" };
            let rate = (flow.messages > 0).then(|| flow.rate());
            add(format!("{what}, msg/s"), format!("{name}.messages_per_second"), rate);
            for (percentile, nanos) in percentiles(&flow.latency) {
                let key = format!("{name}.latency_us.{percentile}");
                add(format!("{} {percentile}, us", latency_of(name)), key, nanos.map(micros));
            }
        }
        let cpu = self.server_cpu_micros();
        add("server CPU, us/message".into(), "server.cpu_us_per_message".into(), cpu);
        let memory = self.server.memory.map(|bytes| bytes as f64);
        add("server memory, bytes".into(), "server.memory_bytes".into(), memory);
        metrics
    }

    fn flows(&self) -> impl Iterator<Item = (&'static str, &Flow)> {
        let published = (self.options.mode != Mode::Sub).then_some(("publish", &self.published));
        let received = (self.options.mode != Mode::Pub).then_some(("deliver", &self.received));
        published.into_iter().chain(received)
    }
}

/// What was put on the server, in one line.
pub(super) fn headline(options: &BenchOptions) -> String {
    let BenchOptions { size, batch, topics, channels, connections, rdy, .. } = *options;
    let mut line = format!("{}, {size} bytes", options.mode.name());
    let mut add = |part: fmt::Arguments<'_>| line.write_fmt(part).unwrap_or_default();
    if options.mode != Mode::Sub {
        add(format_args!(", {connections} publishing"));
        add(format_args!(", batch {batch}, window {}", options.window()));
    }
    if options.mode != Mode::Pub {
        add(format_args!(", {} consuming, RDY {rdy}", options.consumers()));
    }
    if topics > 1 || channels > 1 {
        add(format_args!(", {topics} topics, {channels} channels each"));
    }
    match options.rate {
        Some(rate) => add(format_args!(", {rate} msg/s")),
        None => add(format_args!(", closed loop")),
    }
    for option in &options.client_opt {
        add(format_args!(", {}", without_secret(option)));
    }
    line
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server;
        write!(f, "{}", self.options.nsqd_tcp_address)?;
        if !server.version.is_empty() {
            write!(f, " (nsqd {})", server.version)?;
        }
        let topic = self.topics.first().map_or("", String::as_str);
        writeln!(f, ", topic {topic}\n{}\n", headline(&self.options))?;
        let head = ["", "messages", "seconds", "msg/s", "MB/s", "client us/msg"];
        let [name, messages, seconds, rate, megabytes, cpu] = head;
        writeln!(f, "{name:8} {messages:>12} {seconds:>9} {rate:>12} {megabytes:>9} {cpu:>14}")?;
        for (name, flow) in self.flows() {
            let seconds = flow.nanos as f64 / 1e9;
            let (rate, megabytes) = (flow.rate(), flow.megabytes());
            let messages = flow.messages;
            let cpu = shown(flow.cpu_micros(), 3);
            writeln!(
                f,
                "{name:8} {messages:>12} {seconds:>9.2} {rate:>12.0} {megabytes:>9.1} {cpu:>14}"
            )?;
        }
        write!(f, "\n{:16}", "latency in us")?;
        for (name, _) in percentiles(&Flow::default().latency) {
            write!(f, " {name:>9}")?;
        }
        for (name, flow) in self.flows() {
            write_latency(f, latency_of(name), &flow.latency)?;
        }
        if self.options.rate.is_some() {
            write_latency(f, "due to sent", &self.published.lag)?;
        }
        if let (Some(pid), Some(cpu)) = (server.pid, server.cpu) {
            let percent = 100.0 * cpu.as_secs_f64() / server.watched.as_secs_f64().max(1e-9);
            let per_message = shown(self.server_cpu_micros(), 3);
            let memory = shown(server.memory.map(|bytes| bytes as f64 / 1e6), 1);
            write!(
                f,
                "\n\nserver, pid {pid}: CPU {per_message} us/msg, {percent:.0} % of a core; memory {memory} MB"
            )?;
        }
        if self.received.redelivered > 0 {
            write!(f, "\nredelivered: {}", self.received.redelivered)?;
        }
        Ok(())
    }
}

/// What the latency of a flow is measured between.
fn latency_of(flow: &str) -> &'static str {
    if flow == "publish" { "PUB to OK" } else { "PUB to delivery" }
}

fn write_latency(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    histogram: &Histogram<u64>,
) -> fmt::Result {
    write!(f, "\n{label:16}")?;
    percentiles(histogram)
        .into_iter()
        .try_for_each(|(_, nanos)| write!(f, " {:>9}", shown(nanos.map(micros), 0)))
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn flow_json(flow: &Flow) -> Value {
    json!({
        "messages": flow.messages,
        "seconds": flow.nanos as f64 / 1e9,
        "messages_per_second": flow.rate(),
        "megabytes_per_second": flow.megabytes(),
        "client_cpu_us_per_message": flow.cpu_micros(),
        "latency_us": latency_json(&flow.latency),
        "total_messages": flow.total,
        "redelivered": flow.redelivered,
    })
}

fn latency_json(histogram: &Histogram<u64>) -> Value {
    let mut fields: Map<_, _> = percentiles(histogram)
        .into_iter()
        .map(|(name, nanos)| (name.to_owned(), nanos.map(micros).into()))
        .collect();
    fields.insert("samples".into(), histogram.len().into());
    let mean = (!histogram.is_empty()).then(|| histogram.mean() / 1e3);
    fields.insert("mean".into(), mean.into());
    Value::Object(fields)
}

/// A secret is not printed.
fn without_secret(option: &str) -> &str {
    if option.replace('-', "_").starts_with("auth_secret") { "auth_secret,..." } else { option }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
