//! The lines of a push, and their packets.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::{Display, Write as _};
use core::mem;

use bytes::Bytes;

use super::{PACKET_LEN_MAX, StatsdOptions};
use crate::nsqd::http::Memory;
use crate::nsqd::latency::LatencyStats;
use crate::nsqd::stats::{ChannelStats, ServerStats, TopicStats};

/// What is pushed of `stats`, whose counters are shown as their difference to `last`.
pub(super) fn packets(
    options: &StatsdOptions,
    stats: &ServerStats,
    last: &ServerStats,
    memory: Option<Memory>,
) -> VecDeque<Bytes> {
    let limit = match options.udp_packet_size {
        0 => LIMIT_DEFAULT,
        size => size.min(PACKET_LEN_MAX),
    };
    let mut lines = Lines { prefix: &options.prefix, limit, ..Lines::default() };
    let is_wanted = |is_ephemeral: bool| !(is_ephemeral && options.exclude_ephemeral);
    for topic in stats.topics.iter().filter(|topic| is_wanted(topic.name.is_ephemeral())) {
        let before = last.topics.binary_search_by_key(&topic.name, |topic| topic.name);
        let before = before.ok().and_then(|at| last.topics.get(at));
        add_topic(&mut lines, topic, before);
        for channel in topic.channels.iter().filter(|c| is_wanted(c.name.is_ephemeral())) {
            let channels = before.map_or(&[][..], |topic| &topic.channels);
            let before = channels.binary_search_by_key(&channel.name, |channel| channel.name);
            add_channel(&mut lines, topic, channel, before.ok().and_then(|at| channels.get(at)));
        }
    }
    for (name, figure) in memory.into_iter().flat_map(Memory::figures) {
        match name {
            // The one that counts is called otherwise here, and there is nothing that it would
            // count.
            "gc_total_runs" => lines.add("mem.gc_runs", figure, 'c'),
            _ => lines.add(format_args!("mem.{name}"), figure, 'g'),
        }
    }
    lines.cut();
    lines.packets
}

fn add_topic(lines: &mut Lines<'_>, topic: &TopicStats, before: Option<&TopicStats>) {
    let name = &topic.name;
    let count = difference(topic, before, |topic| topic.message_count);
    lines.add(format_args!("topic.{name}.message_count"), count, 'c');
    let bytes = difference(topic, before, |topic| topic.message_bytes);
    lines.add(format_args!("topic.{name}.message_bytes"), bytes, 'c');
    lines.add(format_args!("topic.{name}.depth"), topic.depth, 'g');
    lines.add(format_args!("topic.{name}.backend_depth"), topic.backend_depth, 'g');
    add_latency(lines, format_args!("topic.{name}"), &topic.latency);
}

fn add_channel(
    lines: &mut Lines<'_>,
    topic: &TopicStats,
    channel: &ChannelStats,
    before: Option<&ChannelStats>,
) {
    let (topic, name) = (&topic.name, &channel.name);
    let messages = difference(channel, before, |channel| channel.message_count);
    let requeues = difference(channel, before, |channel| channel.requeue_count);
    let timeouts = difference(channel, before, |channel| channel.timeout_count);
    for (what, value, kind) in [
        ("message_count", messages, 'c'),
        ("depth", channel.depth.cast_signed(), 'g'),
        ("backend_depth", channel.backend_depth.cast_signed(), 'g'),
        ("in_flight_count", channel.in_flight_count.cast_signed(), 'g'),
        ("deferred_count", channel.deferred_count.cast_signed(), 'g'),
        ("requeue_count", requeues, 'c'),
        ("timeout_count", timeouts, 'c'),
        ("clients", channel.client_count.cast_signed(), 'g'),
    ] {
        lines.add(format_args!("topic.{topic}.channel.{name}.{what}"), value, kind);
    }
    add_latency(lines, format_args!("topic.{topic}.channel.{name}"), &channel.latency);
}

fn add_latency(lines: &mut Lines<'_>, of: impl Display, latency: &LatencyStats) {
    for (percentile, value) in &latency.percentiles {
        let percent = percentile * 100.0;
        lines.add(format_args!("{of}.e2e_processing_latency_{percent:.0}"), value, 'g');
    }
}

/// How much a counter grew; less than nothing if its owner was deleted and made again.
fn difference<T>(now: &T, before: Option<&T>, counter: impl Fn(&T) -> u64) -> i64 {
    counter(now).wrapping_sub(before.map_or(0, counter)).cast_signed()
}

#[derive(Default)]
struct Lines<'a> {
    prefix: &'a str,
    /// Bytes of a packet.
    limit: usize,
    packets: VecDeque<Bytes>,
    /// The packet under way.
    packet: String,
}

impl Lines<'_> {
    fn add(&mut self, name: impl Display, value: impl Display, kind: char) {
        let start = self.packet.len();
        let prefix = self.prefix;
        writeln!(self.packet, "{prefix}{name}:{value}|{kind}").expect("a String takes all text");
        if self.packet.len() > self.limit && start > 0 {
            let line = self.packet.split_off(start);
            self.cut();
            self.packet = line;
        }
    }

    /// Ends a packet.
    fn cut(&mut self) {
        if !self.packet.is_empty() {
            self.packets.push_back(mem::take(&mut self.packet).into());
        }
    }
}

/// What the reference's buffer has if it is told a size of 0.
const LIMIT_DEFAULT: usize = 4096;
