//! `/metrics` of both servers, in the text form of OpenMetrics, which Prometheus and its kin read.
//!
//! Nothing is counted for it but the length of turns: a page is made from what the machines say
//! when they are asked, and costs what it shows.

mod nsqd;
mod nsqlookupd;

use core::fmt;
use core::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use sansq_core::http::HttpReply;

pub(crate) use nsqd::NsqdPage;
pub(crate) use nsqlookupd::LookupdPage;

use crate::meter::Turns;

/// The page of what `page` collects.
pub(crate) fn reply(page: impl Collector) -> HttpReply {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    // A String takes all text.
    match encode(&mut text, &registry) {
        Ok(()) => HttpReply::metrics(text),
        Err(fmt::Error) => HttpReply::message(500, "INTERNAL_ERROR"),
    }
}

/// A figure of each `T`: its name, what it says, and how it is read.
struct Figure<T> {
    name: &'static str,
    help: &'static str,
    /// Whether it only grows; its name then gets `_total` at its end.
    is_counter: bool,
    value: fn(&T) -> u64,
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Figure<T> {
    Figure { name, help, is_counter: false, value }
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Figure<T> {
    Figure { name, help, is_counter: true, value }
}

impl<T> Figure<T> {
    /// Shows it for each of `rows`.
    fn show<'t, L: EncodeLabelSet>(
        &self,
        page: &mut DescriptorEncoder<'_>,
        rows: impl Iterator<Item = (L, &'t T)>,
    ) -> fmt::Result
    where
        T: 't,
    {
        let values = rows.map(|(labels, row)| (labels, (self.value)(row)));
        show_family(page, self.name, self.help, self.is_counter, values)
    }

    /// Shows the sum of all `rows`.
    fn show_sum<'t>(
        &self,
        page: &mut DescriptorEncoder<'_>,
        rows: impl Iterator<Item = &'t T>,
    ) -> fmt::Result
    where
        T: 't,
    {
        let sum: u64 = rows.map(self.value).sum();
        if self.is_counter {
            show_counter(page, self.name, self.help, sum)
        } else {
            show_gauge(page, self.name, self.help, sum)
        }
    }
}

fn show_gauge(
    page: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    page.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn show_counter(
    page: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeCounterValue,
) -> fmt::Result {
    page.encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn show_family<L: EncodeLabelSet>(
    page: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    is_counter: bool,
    values: impl Iterator<Item = (L, u64)>,
) -> fmt::Result {
    let kind = if is_counter { MetricType::Counter } else { MetricType::Gauge };
    let mut family = page.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        let mut metric = family.encode_family(&labels)?;
        if is_counter {
            metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        } else {
            metric.encode_gauge(&value)?;
        }
    }
    Ok(())
}

/// Which program this is.
fn show_info(
    page: &mut DescriptorEncoder<'_>,
    name: &str,
    labels: [(&str, &str); 2],
) -> fmt::Result {
    page.encode_descriptor(
        name,
        "The version of NSQ that it behaves as, and its own",
        None,
        MetricType::Info,
    )?
    .encode_info(&labels)
}

/// Who is connected to the HTTP API of `program`: those who are, and those who had to go for
/// others.
fn show_visitors(
    page: &mut DescriptorEncoder<'_>,
    program: &str,
    (open, gone): (u64, u64),
) -> fmt::Result {
    let help = "Connections to the HTTP API";
    show_gauge(page, &format!("{program}_http_connections"), help, open)?;
    let help = "Connections to the HTTP API that were closed because others wanted their room";
    show_counter(page, &format!("{program}_http_evictions"), help, gone)
}

/// The answers of the HTTP API of `program`: bytes that are not taken, and how often one waited.
fn show_answers(
    page: &mut DescriptorEncoder<'_>,
    program: &str,
    (bytes, waits): (u64, u64),
) -> fmt::Result {
    let help = "Bytes of answers over HTTP, each longer than 64 KiB, that are not taken yet";
    show_gauge(page, &format!("{program}_http_answer_bytes"), help, bytes)?;
    let help = "How often an answer over HTTP waited, because others had not taken theirs";
    show_counter(page, &format!("{program}_http_answer_waits"), help, waits)
}

/// Lines of the log of `program` that were not written: those that were lost, and those left out.
fn show_unwritten(
    page: &mut DescriptorEncoder<'_>,
    program: &str,
    (lost, left_out): (u64, u64),
) -> fmt::Result {
    let help = "Lines of the log that were lost because nobody took them in time";
    show_counter(page, &format!("{program}_log_lines_lost"), help, lost)?;
    let help = "Lines of the log that were left out because there were too many of their kind";
    show_counter(page, &format!("{program}_log_lines_left_out"), help, left_out)
}

/// How long the turns of each thread took.
fn show_turns(
    page: &mut DescriptorEncoder<'_>,
    name: &str,
    turns: impl Iterator<Item = Turns>,
) -> fmt::Result {
    let help = "How long the turns of a thread take: the time in which it can do nothing else";
    let mut family = page.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (shard, turns) in turns.enumerate() {
        let seconds = |bound: Duration| bound.as_secs_f64();
        let buckets = turns.buckets.map(|(bound, count)| (bound.map_or(f64::MAX, seconds), count));
        family.encode_family(&[("shard", shard)])?.encode_histogram::<NoLabelSet>(
            turns.sum.as_secs_f64(),
            turns.count(),
            &buckets,
            None,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
