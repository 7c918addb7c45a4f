//! The lines of a push, and their packets.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use core::fmt::{Display, Write as _};
use core::mem;

use bytes::Bytes;

use super::PACKET_LEN_MAX;
use crate::name::{ChannelName, TopicName};
use crate::nsqd::config::StatsdOptions;
use crate::nsqd::latency::LatencyStats;
use crate::nsqd::stats::{ChannelStats, Memory, ServerStats, StatsPage, TopicStats};

/// The text of a push.
#[derive(Debug, Default)]
pub(super) struct Text {
    packets: VecDeque<Bytes>,
    /// The packet under way.
    packet: String,
    /// The topic that the last page has in part, without channels: they are in the text already.
    part: ServerStats,
}

impl Text {
    /// Adds a page of the statistics. The pages of a push come in order.
    pub(super) fn add_page(
        &mut self,
        page: ServerStats,
        counters: &mut Counters,
        options: &StatsdOptions,
    ) {
        let mut stats = mem::take(&mut self.part);
        let begun = stats.topics.len();
        stats.append(page);
        let goes_on = stats.next.as_ref().is_some_and(StatsPage::is_within_topic);
        let ended = stats.topics.len().saturating_sub(usize::from(goes_on));
        let mut lines = Lines::new(self, options);
        let is_wanted = |is_ephemeral: bool| !(is_ephemeral && options.exclude_ephemeral);
        for (at, topic) in stats.topics.iter().enumerate() {
            if !is_wanted(topic.name.is_ephemeral()) {
                continue;
            }
            if at >= begun {
                add_topic(&mut lines, topic, counters);
            }
            if at < ended {
                // Of all its channels, so with the last of them.
                add_latency(&mut lines, format_args!("topic.{}", topic.name), &topic.latency);
            }
            for channel in topic.channels.iter().filter(|c| is_wanted(c.name.is_ephemeral())) {
                add_channel(&mut lines, &topic.name, channel, counters);
            }
        }
        if goes_on {
            stats.topics.drain(..ended);
            stats.topics.iter_mut().for_each(|topic| topic.channels.clear());
            self.part = stats;
        }
    }

    /// Adds the process's memory.
    pub(super) fn add_memory(&mut self, memory: Memory, options: &StatsdOptions) {
        let mut lines = Lines::new(self, options);
        for (name, figure) in memory.figures() {
            match name {
                // The one that counts is called otherwise here, and there is nothing that it would
                // count.
                "gc_total_runs" => lines.add("mem.gc_runs", figure, 'c'),
                _ => lines.add(format_args!("mem.{name}"), figure, 'g'),
            }
        }
    }

    /// The packets of all that was added.
    pub(super) fn into_packets(mut self) -> VecDeque<Bytes> {
        self.cut();
        self.packets
    }

    /// Ends a packet.
    fn cut(&mut self) {
        if !self.packet.is_empty() {
            self.packets.push_back(mem::take(&mut self.packet).into());
        }
    }
}

/// What the counters of topics and channels said, for the differences from push to push.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// In the push before; only what is not in this one yet.
    before: BTreeMap<Owner, Counts>,
    now: BTreeMap<Owner, Counts>,
}

/// A topic, or a channel of it.
type Owner = (TopicName, Option<ChannelName>);

/// As many counters as a channel has; a topic has one less.
type Counts = [u64; 3];

impl Counters {
    /// How much each counter grew; less than nothing if its owner was deleted and made again.
    fn differences(&mut self, owner: Owner, counts: Counts) -> [i64; 3] {
        let mut differences = counts;
        let before = self.before.remove(&owner).unwrap_or_default();
        for (count, before) in differences.iter_mut().zip(before) {
            *count = count.wrapping_sub(before);
        }
        self.now.insert(owner, counts);
        differences.map(u64::cast_signed)
    }

    /// All pages were added. Who was not in them is gone.
    pub(super) fn end_push(&mut self) {
        self.before = mem::take(&mut self.now);
    }
}

fn add_topic(lines: &mut Lines<'_>, topic: &TopicStats, counters: &mut Counters) {
    let name = &topic.name;
    let counts = [topic.message_count, topic.message_bytes, 0];
    let [messages, bytes, _] = counters.differences((*name, None), counts);
    lines.add(format_args!("topic.{name}.message_count"), messages, 'c');
    lines.add(format_args!("topic.{name}.message_bytes"), bytes, 'c');
    lines.add(format_args!("topic.{name}.depth"), topic.depth, 'g');
    lines.add(format_args!("topic.{name}.backend_depth"), topic.backend_depth, 'g');
}

fn add_channel(
    lines: &mut Lines<'_>,
    topic: &TopicName,
    channel: &ChannelStats,
    counters: &mut Counters,
) {
    let name = &channel.name;
    let counts = [channel.message_count, channel.requeue_count, channel.timeout_count];
    let owner = (*topic, Some(*name));
    let [messages, requeues, timeouts] = counters.differences(owner, counts);
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

/// Where lines go.
struct Lines<'a> {
    text: &'a mut Text,
    prefix: &'a str,
    /// Bytes of a packet.
    limit: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a mut Text, options: &'a StatsdOptions) -> Self {
        let limit = match options.udp_packet_size {
            0 => LIMIT_DEFAULT,
            size => size.min(PACKET_LEN_MAX),
        };
        Self { text, prefix: &options.prefix, limit }
    }

    fn add(&mut self, name: impl Display, value: impl Display, kind: char) {
        let Self { text, prefix, limit } = self;
        let start = text.packet.len();
        writeln!(text.packet, "{prefix}{name}:{value}|{kind}").expect("a String takes all text");
        if text.packet.len() > *limit && start > 0 {
            let line = text.packet.split_off(start);
            text.cut();
            text.packet = line;
        }
    }
}

/// What the reference's buffer has if it is told a size of 0.
const LIMIT_DEFAULT: usize = 4096;
