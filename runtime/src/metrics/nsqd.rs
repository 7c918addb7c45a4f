//! nsqd's metrics.

use core::fmt;
use core::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use sansq_core::nsqd::http::Memory;
use sansq_core::nsqd::{ChannelStats, LATENCY_BOUNDS, LatencyTotals, ServerStats, TopicStats};
use sansq_core::version::{NSQ_VERSION, SANSQ_VERSION};

use super::{
    Figure, counter, gauge, show_answers, show_counter, show_family, show_gauge, show_info,
    show_turns, show_unwritten, show_visitors,
};
use crate::meter::Turns;

/// What the page shows.
#[derive(Debug)]
pub(crate) struct NsqdPage {
    pub(crate) stats: ServerStats,
    /// Sums over all topics instead of figures for each.
    pub(crate) aggregate: bool,
    /// When the broker started, in seconds since the Unix epoch.
    pub(crate) start_time: i64,
    /// The process's memory, if the platform tells.
    pub(crate) memory: Option<Memory>,
    /// Per shard: messages of other shards that it has not taken in yet.
    pub(crate) lanes: Vec<u64>,
    /// Per shard: requests to its storage thread, and those that are not done.
    pub(crate) requests: Vec<(u64, u64)>,
    /// Per shard.
    pub(crate) turns: Vec<Turns>,
    /// Clients that were refused because of the limit on connections.
    pub(crate) refused_connections: u64,
    /// Connections to the HTTP API, and those that had to go for others.
    pub(crate) visitors: (u64, u64),
    /// Lines of the log that were lost, and those that were left out.
    pub(crate) unwritten: (u64, u64),
    /// Bytes that HTTP clients have unanswered, and how often one of them had to wait for room.
    pub(crate) http_unanswered: (u64, u64),
    /// Bytes of answers that HTTP clients have not taken, and how often one had to wait for room.
    pub(crate) http_answers: (u64, u64),
}

const TOPIC: [Figure<TopicStats>; 5] = [
    gauge("nsqd_topic_depth", "Messages in the topic itself", |topic| topic.depth),
    gauge("nsqd_topic_backend_depth", "Messages in the topic that are on disk", |topic| {
        topic.backend_depth
    }),
    counter("nsqd_topic_messages", "Messages accepted", |topic| topic.message_count),
    counter("nsqd_topic_message_bytes", "Bytes of bodies accepted", |topic| topic.message_bytes),
    gauge("nsqd_topic_paused", "1 if the topic is paused", |topic| topic.paused.into()),
];

const CHANNEL: [Figure<ChannelStats>; 15] = [
    gauge("nsqd_channel_depth", "Messages that wait for a consumer", |channel| channel.depth),
    gauge("nsqd_channel_backend_depth", "Messages that wait for a consumer on disk", |channel| {
        channel.backend_depth
    }),
    gauge("nsqd_channel_in_flight", "Messages delivered and not yet answered", |channel| {
        channel.in_flight_count
    }),
    gauge("nsqd_channel_deferred", "Messages kept back for a delay", |channel| {
        channel.deferred_count
    }),
    counter("nsqd_channel_messages", "Messages received from the topic", |channel| {
        channel.message_count
    }),
    counter(
        "nsqd_channel_deliveries",
        "Messages handed to consumers, each delivery counted",
        |channel| {
            channel.zone_local_msg_count + channel.region_local_msg_count + channel.global_msg_count
        },
    ),
    counter(
        "nsqd_channel_zone_local_deliveries",
        "Messages handed to consumers of this zone",
        |channel| channel.zone_local_msg_count,
    ),
    counter(
        "nsqd_channel_region_local_deliveries",
        "Messages handed to consumers of another zone of this region",
        |channel| channel.region_local_msg_count,
    ),
    counter("nsqd_channel_requeues", "REQ commands", |channel| channel.requeue_count),
    counter("nsqd_channel_timeouts", "Deliveries that were not answered in time", |channel| {
        channel.timeout_count
    }),
    gauge("nsqd_channel_consumers", "Subscribed connections", |channel| channel.client_count),
    gauge("nsqd_channel_idle_consumers", "Consumers with RDY 0", |channel| {
        channel.idle_client_count
    }),
    gauge("nsqd_channel_ready_consumers", "Consumers that would take a message now", |channel| {
        channel.ready_client_count
    }),
    gauge("nsqd_channel_starved", "1 if messages wait and no consumer would take one", |channel| {
        channel.is_starved().into()
    }),
    gauge("nsqd_channel_paused", "1 if the channel is paused", |channel| channel.paused.into()),
];

impl Collector for NsqdPage {
    fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
        self.show_server(&mut page)?;
        for figure in &TOPIC {
            self.show_topics(&mut page, figure)?;
        }
        for figure in &CHANNEL {
            self.show_channels(&mut page, figure)?;
        }
        if !self.aggregate {
            self.show_latencies(&mut page)?;
        }
        self.show_latency_totals(&mut page)
    }
}

impl NsqdPage {
    fn show_server(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        show_info(page, "nsqd", [("version", NSQ_VERSION), ("sansq_version", SANSQ_VERSION)])?;
        show_gauge(
            page,
            "process_start_time_seconds",
            "When it started, in seconds since the Unix epoch",
            self.start_time,
        )?;
        if let Some(memory) = self.memory {
            let help = "Memory in use";
            show_gauge(page, "process_resident_memory_bytes", help, memory.heap_in_use_bytes)?;
        }
        let is_healthy = u64::from(self.stats.failure.is_none());
        show_gauge(page, "nsqd_healthy", "1 if /ping says OK", is_healthy)?;
        let topics = &self.stats.topics;
        let channels: usize = topics.iter().map(|topic| topic.channels.len()).sum();
        show_gauge(page, "nsqd_topics", "Topics", topics.len() as u64)?;
        show_gauge(page, "nsqd_channels", "Channels of all topics", channels as u64)?;
        let refusals = self.stats.refusals;
        let help = "Topics that were not made because there were --max-topics";
        show_counter(page, "nsqd_refused_topics", help, refusals.topics)?;
        let help = "Channels that were not made because there were --max-channels-per-topic";
        show_counter(page, "nsqd_refused_channels", help, refusals.channels)?;
        let help = "Publishes that were refused because a disk did not take them in time";
        show_counter(page, "nsqd_refused_publishes", help, refusals.publishes)?;
        let connections =
            self.stats.shards.iter().map(|shard| ([("shard", shard.id.0)], shard.connections));
        show_family(page, "nsqd_connections", "Clients' connections", false, connections)?;
        let help = "Clients that were refused because there were --max-connections";
        show_counter(page, "nsqd_refused_connections", help, self.refused_connections)?;
        let unanswered =
            self.stats.shards.iter().map(|shard| ([("shard", shard.id.0)], shard.unanswered_bytes));
        let help = "Bytes that clients have sent and have no answer to yet";
        show_family(page, "nsqd_unanswered_bytes", help, false, unanswered)?;
        let waits =
            self.stats.shards.iter().map(|shard| ([("shard", shard.id.0)], shard.unanswered_waits));
        let help = "How often a client was not read from because of --max-unanswered-bytes";
        show_family(page, "nsqd_unanswered_waits", help, true, waits)?;
        let (bytes, waits) = self.http_unanswered;
        let help = "Bytes that HTTP clients have sent and have no answer to yet";
        show_gauge(page, "nsqd_http_unanswered_bytes", help, bytes)?;
        let help = "How often an HTTP client was not read from because of --max-unanswered-bytes";
        show_counter(page, "nsqd_http_unanswered_waits", help, waits)?;
        let refused = self.stats.refused_registrations;
        let help = "REGISTER commands that nsqlookupds had no room for";
        let none: [(&str, &str); 0] = [];
        show_family(
            page,
            "nsqd_refused_registrations",
            help,
            true,
            core::iter::once((none, refused)),
        )?;
        let lanes = self.lanes.iter().enumerate();
        let lanes = lanes.map(|(shard, length)| ([("shard", shard)], *length));
        let help = "Messages of other shards that the shard has not taken in yet";
        show_family(page, "nsqd_lane_length", help, false, lanes)?;
        let requests = || self.requests.iter().enumerate();
        let all = requests().map(|(shard, (all, _))| ([("shard", shard)], *all));
        let help = "Requests to the shard's storage thread";
        show_family(page, "nsqd_storage_requests", help, true, all)?;
        let open = requests().map(|(shard, (_, open))| ([("shard", shard)], *open));
        let help = "Requests to the shard's storage thread that are not done";
        show_family(page, "nsqd_storage_length", help, false, open)?;
        show_visitors(page, "nsqd", self.visitors)?;
        show_answers(page, "nsqd", self.http_answers)?;
        show_unwritten(page, "nsqd", self.unwritten)?;
        show_turns(page, "nsqd_turn_seconds", self.turns.iter().copied())
    }

    fn show_topics(
        &self,
        page: &mut DescriptorEncoder<'_>,
        figure: &Figure<TopicStats>,
    ) -> fmt::Result {
        let topics = self.stats.topics.iter();
        if self.aggregate {
            return figure.show_sum(page, topics);
        }
        figure.show(page, topics.map(|topic| ([("topic", topic.name.as_str())], topic)))
    }

    fn show_channels(
        &self,
        page: &mut DescriptorEncoder<'_>,
        figure: &Figure<ChannelStats>,
    ) -> fmt::Result {
        if self.aggregate {
            return figure
                .show_sum(page, self.stats.topics.iter().flat_map(|topic| &topic.channels));
        }
        figure.show(page, self.channels())
    }

    /// Every channel with its labels.
    fn channels(&self) -> impl Iterator<Item = ([(&str, &str); 2], &ChannelStats)> {
        self.stats.topics.iter().flat_map(|topic| {
            topic.channels.iter().map(|channel| {
                ([("topic", topic.name.as_str()), ("channel", channel.name.as_str())], channel)
            })
        })
    }

    /// Histograms can, and those of several nsqds as well.
    fn show_latency_totals(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let measured =
            || self.channels().filter_map(|(labels, stats)| Some((labels, stats.latency.totals?)));
        if measured().next().is_none() {
            return Ok(());
        }
        let name = "nsqd_channel_e2e_latency_seconds";
        let help = "Time from publishing to FIN, of all messages since the channel was made";
        let mut family = page.encode_descriptor(name, help, None, MetricType::Histogram)?;
        if self.aggregate {
            let mut sum = LatencyTotals::default();
            measured().for_each(|(_, totals)| sum.merge(&totals));
            return show_latency_histogram(&mut family, &sum);
        }
        for (labels, totals) in measured() {
            show_latency_histogram(&mut family.encode_family(&labels)?, &totals)?;
        }
        Ok(())
    }

    /// Percentiles can't be added up, so there are none of all channels together.
    fn show_latencies(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if self.channels().all(|(_, channel)| channel.latency.percentiles.is_empty()) {
            return Ok(());
        }
        let name = "nsqd_channel_e2e_processing_latency_seconds";
        let help = "Time from publishing to FIN, as percentiles over a window";
        let mut family = page.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for ([topic, channel], stats) in self.channels() {
            for (percentile, nanos) in &stats.latency.percentiles {
                let quantile = percentile.to_string();
                let labels = [topic, channel, ("quantile", quantile.as_str())];
                family.encode_family(&labels)?.encode_gauge(&(*nanos as f64 / 1e9))?;
            }
        }
        Ok(())
    }
}

fn show_latency_histogram(metric: &mut MetricEncoder<'_>, totals: &LatencyTotals) -> fmt::Result {
    let bounds = LATENCY_BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::MAX]);
    let buckets: Vec<_> = bounds.zip(totals.counts).collect();
    let count = totals.counts.iter().sum();
    metric.encode_histogram::<NoLabelSet>(totals.sum.as_secs_f64(), count, &buckets, None)
}
