//! The admin API: what is carried out here, what goes to a topic's home, what all shards answer
//! together.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Bound;

use super::Shard;
use super::precreate::Creator;
use crate::arena::{ChannelId, Key, TopicId};
use crate::name::{ChannelName, TopicName};
use crate::nsqd::actions::{
    Actions, Collector, Origin, Publish, ReplyToken, ShardId, ShardMessage,
};
use crate::nsqd::admin::{
    AdminError, AdminReply, AdminRequest, ChannelOp, Info, StatsFilter, StatsPage, TopicOp,
};
use crate::nsqd::channel::{Channel, ConsumerStats};
use crate::nsqd::connection::Connection;
use crate::nsqd::latency::{Histogram, LatencyStats};
use crate::nsqd::registry::Announcement;
use crate::nsqd::stats::{ChannelStats, ClientStats, ServerStats, ShardStats, TopicStats};
use crate::time::Now;
use crate::version::NSQ_VERSION;

/// Statistics, or how the shards are, that are being gathered from all shards.
#[derive(Debug)]
pub(super) struct Collecting {
    missing: u16,
    is_ping: bool,
    stats: ServerStats,
}

impl Shard {
    /// Carries out an admin request. Any shard can be asked; the reply comes in
    /// [`Actions::replies`](Actions) of the same shard, now or later, under `token`.
    pub fn handle_admin(
        &mut self,
        request: AdminRequest,
        token: ReplyToken,
        now: Now,
        out: &mut Actions,
    ) {
        match request {
            AdminRequest::Publish { topic, batch, delay } => {
                let origin = Origin::Admin { shard: self.id, token };
                self.route_publish(Publish { origin, topic, batch, delay }, now, out);
            }
            AdminRequest::Topic(topic, _) | AdminRequest::Channel(topic, _, _)
                if topic.home(self.shards) != self.id.0 =>
            {
                let home = ShardId(topic.home(self.shards));
                out.tell(home, ShardMessage::Admin { from: self.id, token, request });
            }
            AdminRequest::Lookupds(_) if self.id.0 != 0 => {
                out.tell(ShardId(0), ShardMessage::Admin { from: self.id, token, request });
            }
            AdminRequest::Ping => self.collect(None, Collector::Admin(token), now, out),
            AdminRequest::Stats(filter) => {
                self.collect(Some(filter), Collector::Admin(token), now, out);
            }
            AdminRequest::Info
            | AdminRequest::Lookupds(_)
            | AdminRequest::Topic(..)
            | AdminRequest::Channel(..) => {
                let reply = self.carry_out(&request, now, out);
                self.answer_admin(&request, reply, self.id, token, out);
            }
        }
        self.settle_all(now, out);
    }

    /// Carries out a request that concerns this shard alone.
    pub(super) fn carry_out(
        &mut self,
        request: &AdminRequest,
        now: Now,
        out: &mut Actions,
    ) -> AdminReply {
        let result = match request {
            AdminRequest::Topic(topic, op) => self.topic_op(*topic, *op, now, out),
            AdminRequest::Channel(topic, channel, op) => {
                self.channel_op(topic, *channel, *op, now, out)
            }
            AdminRequest::Lookupds(addresses) => self.set_lookupds(addresses, now, out),
            AdminRequest::Info => return AdminReply::Info(Box::new(self.info())),
            AdminRequest::Ping => return AdminReply::Health(self.failure().map_or(Ok(()), Err)),
            AdminRequest::Stats(filter) => {
                return AdminReply::Stats(Box::new(self.stats(filter, now)));
            }
            AdminRequest::Publish { .. } => Err(AdminError::Exiting),
        };
        result.map_or_else(AdminReply::Refused, |()| AdminReply::Done)
    }

    /// Answers a request that was carried out. A pause is answered when it will survive a crash,
    /// and who makes a topic when it has its channels.
    pub(super) fn answer_admin(
        &mut self,
        request: &AdminRequest,
        reply: AdminReply,
        from: ShardId,
        token: ReplyToken,
        out: &mut Actions,
    ) {
        if let AdminRequest::Topic(name, TopicOp::Create) = request
            && let Some(&id) = self.topic_names.get(name)
            && self.keep_creator(id, Creator::Admin(from, token))
        {
            return;
        }
        let is_pause = matches!(
            request,
            AdminRequest::Topic(_, TopicOp::Pause | TopicOp::Unpause)
                | AdminRequest::Channel(_, _, ChannelOp::Pause | ChannelOp::Unpause)
        );
        if !is_pause || reply != AdminReply::Done {
            self.reply_to(from, token, reply, out);
        } else if self.id.0 == 0 {
            self.persist(from, token, out);
        } else {
            out.tell(ShardId(0), ShardMessage::Persist { from, token });
        }
    }

    /// Answers a request that `from` was asked.
    pub(super) fn reply_to(
        &self,
        from: ShardId,
        token: ReplyToken,
        reply: AdminReply,
        out: &mut Actions,
    ) {
        if from == self.id {
            out.replies.push((token, reply));
        } else {
            out.tell(from, ShardMessage::AdminDone { token, reply });
        }
    }

    fn topic_op(
        &mut self,
        name: TopicName,
        op: TopicOp,
        now: Now,
        out: &mut Actions,
    ) -> Result<(), AdminError> {
        if op == TopicOp::Create {
            return self.topic(name, now, out).map(|_| ()).map_err(AdminError::TooMany);
        }
        let id = self.find_topic(&name)?;
        match op {
            TopicOp::Create => {}
            TopicOp::Delete => self.delete_topic(id, now, out),
            TopicOp::Empty => {
                self.on_topic(id, now, out, |topic, ids, now, out| {
                    topic.empty(now, out);
                    topic.pump(now, ids, out);
                });
            }
            TopicOp::Pause | TopicOp::Unpause => {
                let paused = op == TopicOp::Pause;
                self.on_topic(id, now, out, |topic, ids, now, out| {
                    topic.set_paused(paused);
                    topic.pump(now, ids, out);
                });
                self.announce(Announcement::TopicPaused(name, paused), now, out);
            }
        }
        Ok(())
    }

    fn channel_op(
        &mut self,
        topic: &TopicName,
        name: ChannelName,
        op: ChannelOp,
        now: Now,
        out: &mut Actions,
    ) -> Result<(), AdminError> {
        let topic_id = self.find_topic(topic)?;
        if op == ChannelOp::Create {
            let made = self.channel(topic_id, name, now, out);
            return made.map(|_| ()).map_err(AdminError::TooMany);
        }
        let found = self.find_channel(topic_id, &name);
        let id = found.map_err(|_| AdminError::ChannelNotFound)?;
        match op {
            ChannelOp::Create => {}
            ChannelOp::Delete => self.delete_channel(id, now, out),
            ChannelOp::Empty => {
                self.on_channel(id, now, out, |channel, now, out| channel.empty(now, out));
            }
            ChannelOp::Pause | ChannelOp::Unpause => {
                let paused = op == ChannelOp::Pause;
                self.on_channel(id, now, out, |channel, now, out| {
                    channel.set_paused(paused, now, out);
                });
                self.announce(Announcement::ChannelPaused(*topic, name, paused), now, out);
            }
        }
        Ok(())
    }

    fn find_topic(&self, name: &TopicName) -> Result<TopicId, AdminError> {
        self.topic_names.get(name).copied().ok_or(AdminError::TopicNotFound)
    }

    fn info(&self) -> Info {
        let config = &self.config;
        Info {
            version: NSQ_VERSION,
            broadcast_address: config.broadcast_address.clone(),
            hostname: config.hostname.clone(),
            http_port: config.http_port,
            tcp_port: config.tcp_port,
            start_time: config.start_time,
            max_heartbeat_interval: config.max_heartbeat_interval,
            max_output_buffer_size: config.max_output_buffer_size,
            max_output_buffer_timeout: config.max_output_buffer_timeout,
            max_deflate_level: config.max_deflate_level,
            topology_zone: config.topology_zone.clone(),
            topology_region: config.topology_region.clone(),
        }
    }

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
        let Some(collecting) = self.collecting.get_mut(&collector) else { return };
        collecting.stats.merge(part);
        collecting.missing -= 1;
        if collecting.missing == 0
            && let Some(collecting) = self.collecting.remove(&collector)
        {
            let Collecting { is_ping, mut stats, .. } = collecting;
            stats.end_page();
            match collector {
                Collector::Admin(token) if is_ping => {
                    let health = stats.failure.map_or(Ok(()), Err);
                    out.replies.push((token, AdminReply::Health(health)));
                }
                Collector::Admin(token) => {
                    out.replies.push((token, AdminReply::Stats(Box::new(stats))));
                }
                Collector::Statsd => self.push_stats(stats, now, out),
            }
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
    /// for with [`AdminRequest::Stats`].
    pub fn stats(&self, filter: &StatsFilter, now: Now) -> ServerStats {
        let mut stats = ServerStats {
            topic_known: filter.topic.is_none(),
            failure: self.failure(),
            refusals: self.limits.refusals,
            shards: vec![self.shard_stats()],
            refused_registrations: self.refused_registrations(),
            ..ServerStats::default()
        };
        let named = filter.topic.map(|name| self.topic_names.get_key_value(&name));
        stats.topic_known |= named.flatten().is_some();
        match (filter.page, named) {
            (Some(StatsPage::Producers(_)), _) => {}
            (_, Some(one)) => {
                let one = one.and_then(|(name, id)| self.topic_stats(*name, *id, filter, now));
                stats.topics.extend(one);
            }
            (page, None) => self.add_topics(&mut stats, page, filter, now),
        }
        if filter.include_clients {
            match filter.page {
                Some(StatsPage::Topics(_)) => {
                    stats.next.get_or_insert(StatsPage::Producers(0));
                }
                Some(StatsPage::Producers(from)) => self.add_producers(&mut stats, from, PAGE_LEN),
                None => self.add_producers(&mut stats, 0, usize::MAX),
            }
        }
        stats
    }

    /// Adds topics in the order of their names; of a page, as many as a turn has time for.
    fn add_topics(
        &self,
        stats: &mut ServerStats,
        page: Option<StatsPage>,
        filter: &StatsFilter,
        now: Now,
    ) {
        let after = match page {
            Some(StatsPage::Topics(Some(after))) => Bound::Excluded(after),
            _ => Bound::Unbounded,
        };
        let mut topics = self.topic_names.range((after, Bound::Unbounded)).peekable();
        let mut len = 0;
        while let Some((name, id)) = topics.next() {
            stats.topics.extend(self.topic_stats(*name, *id, filter, now));
            len += self.stats_len(*id, filter);
            if page.is_some() && len >= PAGE_LEN && topics.peek().is_some() {
                stats.next = Some(StatsPage::Topics(Some(*name)));
                return;
            }
        }
    }

    /// How many objects are looked at for a topic's statistics.
    fn stats_len(&self, id: TopicId, filter: &StatsFilter) -> usize {
        let Some(entry) = self.topics.get(id) else { return 1 };
        let channels = entry.topic.channels();
        if !filter.include_clients {
            return 1 + channels.len();
        }
        let consumers = |id: &ChannelId| {
            self.channels.get(*id).map_or(0, |entry| entry.channel.consumer_count())
        };
        1 + channels.iter().map(|id| 1 + consumers(id)).sum::<usize>()
    }

    /// Adds the connections that have published, of so many slots.
    fn add_producers(&self, stats: &mut ServerStats, from: u32, slots: usize) {
        let mut conns = self.conns.iter_from(from).peekable();
        let end = usize::try_from(from).unwrap_or(usize::MAX).saturating_add(slots);
        while let Some((_, conn)) = conns.next_if(|(id, _)| (id.index() as usize) < end) {
            if conn.pub_counts().next().is_some() {
                stats.producers.push(client_stats(conn, self.consumer(conn)));
            }
        }
        if conns.peek().is_some() {
            stats.next = u32::try_from(end).ok().map(StatsPage::Producers);
        }
    }

    fn shard_stats(&self) -> ShardStats {
        ShardStats {
            id: self.id,
            connections: self.conns.len() as u64,
            unanswered_bytes: self.room.held() as u64,
            unanswered_waits: self.room.waits(),
        }
    }

    fn topic_stats(
        &self,
        name: TopicName,
        id: TopicId,
        filter: &StatsFilter,
        now: Now,
    ) -> Option<TopicStats> {
        let topic = &self.topics.get(id)?.topic;
        let wanted = |channel: &&Channel| filter.channel.is_none_or(|name| name == *channel.name());
        let channels = topic.channels().iter();
        let channels = channels.filter_map(|id: &ChannelId| Some(&self.channels.get(*id)?.channel));
        let mut latencies = Histogram::default();
        channels.clone().for_each(|channel| channel.add_latencies(&mut latencies, now));
        let show = |channel| self.channel_stats(channel, filter, now);
        let channels: Vec<_> = channels.filter(wanted).map(show).collect();
        if filter.channel.is_some() && channels.is_empty() {
            return None;
        }
        Some(TopicStats {
            name,
            channels,
            depth: topic.depth(),
            backend_depth: topic.backend_depth(),
            message_count: topic.message_count(),
            message_bytes: topic.message_bytes(),
            paused: topic.is_paused(),
            latency: match topic.channels() {
                [] => LatencyStats::default(),
                _ => latencies.stats(&self.config.e2e_processing_latency_percentiles),
            },
        })
    }

    fn channel_stats(&self, channel: &Channel, filter: &StatsFilter, now: Now) -> ChannelStats {
        let mut latencies = Histogram::default();
        channel.add_latencies(&mut latencies, now);
        let counters = channel.counters();
        let (idle, ready) = channel.idle_and_ready();
        let clients = filter.include_clients.then(|| {
            let consumers = channel.consumers();
            let clients = consumers.filter_map(|(consumer, conn)| {
                Some(client_stats(self.conns.get(conn)?, channel.consumer_stats(consumer)))
            });
            clients.collect()
        });
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
            clients,
            paused: channel.is_paused(),
            latency: LatencyStats {
                totals: channel.latency_totals(),
                ..latencies.stats(&self.config.e2e_processing_latency_percentiles)
            },
        }
    }

    fn consumer(&self, conn: &Connection) -> Option<ConsumerStats> {
        let (channel, consumer) = conn.subscription?;
        self.channels.get(channel)?.channel.consumer_stats(consumer)
    }
}

/// Topics, channels and clients of one page of the statistics, of each shard: a fraction of a
/// millisecond. The last topic of a page is in it with all that it has.
const PAGE_LEN: usize = 256;

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
