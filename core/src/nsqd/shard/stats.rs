//! The statistics: gathered from all shards, page by page.
//!
//! A page has at most [`PAGE_LEN`] topics, channels and clients of each shard, so that no turn
//! takes long. It may end within a topic, and within a channel's clients.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Bound;

use super::Shard;
use crate::arena::{ChannelId, Key, TopicId};
use crate::name::TopicName;
use crate::nsqd::actions::Actions;
use crate::nsqd::admin::AdminReply;
use crate::nsqd::channel::{Channel, ConsumerStats};
use crate::nsqd::connection::Connection;
use crate::nsqd::ids::ShardId;
use crate::nsqd::latency::{Histogram, LatencyStats};
use crate::nsqd::shard_message::{Collector, ShardMessage};
use crate::nsqd::stats::{
    ChannelStats, ClientStats, Refusals, ServerStats, ShardStats, StatsFilter, StatsPage,
    StatsPlace, TopicStats, Within,
};
use crate::time::Now;

/// Statistics, or how the shards are, that are being gathered from all shards.
#[derive(Debug)]
pub(super) struct Collecting {
    missing: u16,
    is_ping: bool,
    stats: ServerStats,
}

impl Collecting {
    /// Adds a shard's part. Returns whether it was the last.
    fn add(&mut self, part: ServerStats) -> bool {
        self.stats.merge(part);
        self.missing -= 1;
        self.missing == 0
    }

    /// What all shards say together.
    fn into_reply(self) -> AdminReply {
        if self.is_ping {
            return AdminReply::Health(self.stats.failure.map_or(Ok(()), Err));
        }
        AdminReply::Stats(Box::new(self.stats))
    }
}

impl Shard {
    /// Asks every other shard for its part of the statistics, or how it is.
    pub(super) fn collect(
        &mut self,
        filter: Option<StatsFilter>,
        collector: Collector,
        now: Now,
        out: &mut Actions,
    ) {
        let others = (0..self.shards).map(ShardId).filter(|shard| *shard != self.id);
        for shard in others {
            let filter = filter.clone();
            out.tell(shard, ShardMessage::Collect { from: self.id, collector, filter });
        }
        let own = self.part(filter.as_ref(), now);
        let (is_ping, stats) = (filter.is_none(), ServerStats::default());
        let collecting = Collecting { missing: self.shards, is_ping, stats };
        self.collecting.insert(collector, collecting);
        self.collected(collector, own, now, out);
    }

    /// A part of the statistics is in; the last one completes the reply.
    pub(super) fn collected(
        &mut self,
        collector: Collector,
        part: ServerStats,
        now: Now,
        out: &mut Actions,
    ) {
        let collecting = self.collecting.get_mut(&collector);
        if !collecting.is_some_and(|collecting| collecting.add(part)) {
            return;
        }
        let Some(mut collecting) = self.collecting.remove(&collector) else { return };
        collecting.stats.end_page();
        match collector {
            Collector::Admin(token) => out.replies.push((token, collecting.into_reply())),
            Collector::Statsd => self.push_stats(collecting.stats, now, out),
        }
    }

    /// This shard's part of an answer.
    pub(super) fn part(&self, filter: Option<&StatsFilter>, now: Now) -> ServerStats {
        match filter {
            Some(filter) => self.stats(filter, now),
            None => ServerStats { failure: self.failure(), ..ServerStats::default() },
        }
    }

    /// This shard's part of the statistics, as it is just now. Those of the whole broker are asked
    /// for with [`AdminRequest::Stats`](crate::nsqd::AdminRequest::Stats).
    pub fn stats(&self, filter: &StatsFilter, now: Now) -> ServerStats {
        let (mut page, start) = (Page::new(self, filter, now), filter.page.as_ref());
        match start {
            Some(StatsPage::Topics(from)) => {
                page.left = PAGE_LEN;
                page.add_topics(from.as_deref().copied());
                if filter.include_clients {
                    page.stats.next.get_or_insert(StatsPage::Producers(0));
                }
            }
            Some(StatsPage::Producers(from)) => page.add_producers(*from, PRODUCERS_LEN),
            None => {
                page.add_topics(None);
                if filter.include_clients {
                    page.add_producers(0, usize::MAX);
                }
            }
        }
        page.stats
    }
}

/// A page that is being filled, or all of a shard's statistics.
struct Page<'a> {
    shard: &'a Shard,
    filter: &'a StatsFilter,
    now: Now,
    /// How many topics, channels and clients it still has room for.
    left: usize,
    stats: ServerStats,
}

impl<'a> Page<'a> {
    /// What is on every page, and room for everything.
    fn new(shard: &'a Shard, filter: &'a StatsFilter, now: Now) -> Self {
        let is_known = |name| shard.topic_names.contains_key(name);
        let refused = shard.clerk.as_ref().map(|clerk| clerk.refused_registrations());
        let stats = ServerStats {
            topic_known: filter.topic.as_ref().is_none_or(is_known),
            failure: shard.failure(),
            refusals: Refusals { publishes: shard.disk.refused, ..shard.limits.refusals },
            shards: vec![ShardStats {
                id: shard.id,
                connections: shard.clients.conns.len() as u64,
                unanswered_bytes: shard.clients.room.held() as u64,
                unanswered_waits: shard.clients.room.waits(),
            }],
            refused_registrations: refused.unwrap_or(0),
            ..ServerStats::default()
        };
        Self { shard, filter, now, left: usize::MAX, stats }
    }

    /// Adds topics in the order of their names, as far as there is room.
    fn add_topics(&mut self, from: Option<StatsPlace>) {
        let filter = self.filter;
        let begin = match (from, filter.topic) {
            (Some(StatsPlace { topic, within: Within::End }), _) => Bound::Excluded(topic),
            (Some(StatsPlace { topic, .. }), _) | (None, Some(topic)) => Bound::Included(topic),
            (None, None) => Bound::Unbounded,
        };
        let is_wanted = |name: &TopicName| filter.topic.is_none_or(|wanted| *name == wanted);
        let topics = self.shard.topic_names.range((begin, Bound::Unbounded));
        let mut topics = topics.take_while(|(name, _)| is_wanted(name)).peekable();
        while let Some((&topic, &id)) = topics.next() {
            let from = from.filter(|place| place.topic == topic).map(|place| place.within);
            let end = self.add_topic(id, from);
            let is_full = self.left == 0 && topics.peek().is_some();
            if let Some(within) = end.or_else(|| is_full.then_some(Within::End)) {
                let place = Box::new(StatsPlace { topic, within });
                self.stats.next = Some(StatsPage::Topics(Some(place)));
                return;
            }
        }
    }

    /// Adds a topic, or what of it is behind `from`. Returns where it ends if there is no room for
    /// all of the topic.
    fn add_topic(&mut self, id: TopicId, from: Option<Within>) -> Option<Within> {
        self.left = self.left.saturating_sub(1);
        let Self { shard, filter, now, .. } = *self;
        let topic = &shard.topics.get(id)?.topic;
        if filter.channel.is_some_and(|name| shard.find_channel(id, &name).is_err()) {
            return None;
        }
        let ids = topic.channels();
        let (first, mut slot) = self.resume(ids, from);
        let (mut channels, mut latencies, mut end) = (Vec::new(), Histogram::default(), None);
        for (at, id) in ids.iter().enumerate().skip(first) {
            let Some(channel) = shard.channels.get(*id).map(|entry| &entry.channel) else {
                continue;
            };
            let name = *channel.name();
            let mut own = Histogram::default();
            channel.add_latencies(&mut own, now);
            self.left = self.left.saturating_sub(1 + own.len() / BUCKETS_LEN);
            let slot = slot.take();
            if slot.is_none() {
                latencies.merge(&own);
            }
            if filter.channel.is_none_or(|wanted| wanted == name) {
                let mut shown = channel_stats(channel, &own, self.percentiles());
                if filter.include_clients {
                    let (clients, rest) = self.clients(channel, slot.unwrap_or(0));
                    shown.clients = Some(clients);
                    end = rest.map(|slot| Within::Consumers(name, slot));
                }
                channels.push(shown);
            }
            if end.is_none() && self.left == 0 && at + 1 < ids.len() {
                end = Some(Within::Channel(name));
            }
            if end.is_some() {
                break;
            }
        }
        let latency = match ids {
            [] => LatencyStats::default(),
            _ => latencies.stats(self.percentiles()),
        };
        self.stats.topics.push(TopicStats {
            name: *topic.name(),
            channels,
            depth: topic.depth(),
            backend_depth: topic.backend_depth(),
            message_count: topic.message_count(),
            message_bytes: topic.message_bytes(),
            paused: topic.is_paused(),
            latency,
        });
        if from.is_some() || end.is_some() {
            self.stats.parts.add(*topic.name(), latencies);
        }
        end
    }

    /// Which of a topic's channels comes next, and from which slot on its clients, if it is only
    /// them that are missing.
    fn resume(&self, channels: &[ChannelId], from: Option<Within>) -> (usize, Option<u32>) {
        let (name, slot) = match from {
            None => return (0, None),
            Some(Within::End) => return (channels.len(), None),
            Some(Within::Channel(name)) => (name, None),
            Some(Within::Consumers(name, slot)) => (name, Some(slot)),
        };
        let table = &self.shard.channels;
        let name_of = |id: &ChannelId| table.get(*id).map(|entry| *entry.channel.name());
        let at = channels.partition_point(|id| name_of(id) < Some(name));
        // It may have been deleted since.
        let is_there = channels.get(at).is_some_and(|id| name_of(id) == Some(name));
        match slot {
            Some(slot) => (at, is_there.then_some(slot)),
            None => (at + usize::from(is_there), None),
        }
    }

    /// A channel's clients from this slot of its table on, and where those begin for which there is
    /// no room.
    fn clients(&mut self, channel: &Channel, from: u32) -> (Vec<ClientStats>, Option<u32>) {
        let mut clients = Vec::new();
        for (consumer, conn) in channel.consumers_from(from) {
            if self.left == 0 {
                return (clients, Some(consumer.index()));
            }
            self.left -= 1;
            let conn = self.shard.clients.conns.get(conn);
            clients.extend(conn.map(|conn| client_stats(conn, channel.consumer_stats(consumer))));
        }
        (clients, None)
    }

    /// Adds the connections that have published, of so many slots.
    fn add_producers(&mut self, from: u32, slots: usize) {
        let mut conns = self.shard.clients.conns.iter_from(from).peekable();
        let end = usize::try_from(from).unwrap_or(usize::MAX).saturating_add(slots);
        while let Some((_, conn)) = conns.next_if(|(id, _)| (id.index() as usize) < end) {
            if conn.pub_counts().next().is_some() {
                let stats = client_stats(conn, self.consumer(conn));
                self.stats.producers.push(stats);
            }
        }
        if conns.peek().is_some() {
            self.stats.next = u32::try_from(end).ok().map(StatsPage::Producers);
        }
    }

    fn consumer(&self, conn: &Connection) -> Option<ConsumerStats> {
        let (channel, consumer) = conn.subscription?;
        self.shard.channels.get(channel)?.channel.consumer_stats(consumer)
    }

    fn percentiles(&self) -> &'a [f64] {
        &self.shard.config.e2e_processing_latency_percentiles
    }
}

/// A channel without its clients.
fn channel_stats(channel: &Channel, latencies: &Histogram, percentiles: &[f64]) -> ChannelStats {
    let counters = channel.counters();
    let (idle, ready) = channel.idle_and_ready();
    ChannelStats {
        name: *channel.name(),
        depth: channel.depth(),
        backend_depth: channel.backend_depth(),
        in_flight_count: channel.in_flight_count() as u64,
        deferred_count: channel.deferred_count() as u64,
        message_count: counters.messages,
        zone_local_msg_count: counters.zone_deliveries,
        region_local_msg_count: counters.region_deliveries,
        global_msg_count: counters.deliveries
            - counters.zone_deliveries
            - counters.region_deliveries,
        requeue_count: counters.requeues,
        timeout_count: counters.timeouts,
        client_count: channel.consumer_count() as u64,
        idle_client_count: idle,
        ready_client_count: ready,
        clients: None,
        paused: channel.is_paused(),
        latency: LatencyStats { totals: channel.latency_totals(), ..latencies.stats(percentiles) },
    }
}

fn client_stats(conn: &Connection, consumer: Option<ConsumerStats>) -> ClientStats {
    let consumer = consumer.unwrap_or_default();
    let identity = &conn.identity;
    let auth = conn.auth.as_ref();
    let grant = auth.and_then(|auth| auth.grant.as_ref());
    ClientStats {
        client_id: identity.client_id.clone(),
        hostname: identity.hostname.clone(),
        user_agent: identity.user_agent.clone(),
        peer: conn.peer,
        state: conn.state as u8,
        ready_count: u64::from(consumer.ready),
        in_flight_count: u64::from(consumer.in_flight),
        message_count: consumer.messages,
        finish_count: consumer.finishes,
        requeue_count: consumer.requeues,
        connect_ts: identity.connect_ts,
        sample_rate: conn.settings.sample_rate,
        topology_zone: identity.topology_zone.clone(),
        topology_region: identity.topology_region.clone(),
        authed: auth.is_some_and(|auth| auth.is_authorized()),
        auth_identity: grant.map_or_else(String::new, |grant| grant.identity.clone()),
        auth_identity_url: grant.map_or_else(String::new, |grant| grant.identity_url.clone()),
        pub_counts: conn.pub_counts().collect(),
        deflate: conn.is_deflated(),
        snappy: conn.is_snappy(),
        tls: conn.tls_info(),
    }
}

/// Topics, channels and clients of one page of the statistics, of each shard: a fraction of a
/// millisecond.
const PAGE_LEN: usize = 256;

/// Connections among which a page looks for producers. Each may have published to many topics.
const PRODUCERS_LEN: usize = 64;

/// So many buckets of a channel's latencies cost as much as one channel more.
const BUCKETS_LEN: usize = 64;
