//! The administration: what the HTTP interface offers, typed (nsqlookupd-protocol.md section 9).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::registrations::{Producer, Topic, sort_and_dedup};
use super::{Actions, Event, Lookupd};
use crate::arena::ConnId;
use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::{PeerInfo, Registration};
use crate::time::Now;

impl Lookupd {
    /// All topics that are known, sorted, with producers or without.
    pub fn topics(&self) -> Vec<TopicName> {
        self.registrations.topics().map(|(name, _)| *name).collect()
    }

    /// What there is and what was asked of it.
    pub fn stats(&self, now: Now) -> LookupdStats {
        let producers = self.registrations.producers();
        let active = producers.filter(|(_, producer)| self.is_active(producer, now)).count();
        let lifetime = self.config.tombstone_lifetime;
        let tombstones = self.registrations.tombstones();
        LookupdStats {
            topics: self.registrations.keys() - self.registrations.channel_count(),
            channels: self.registrations.channel_count(),
            registrations: self.registrations.pairs(),
            producers: active,
            inactive_producers: self.registrations.producers().count() - active,
            tombstones: tombstones
                .filter(|tombstone| tombstone.hides(lifetime, now.instant))
                .count(),
            connections: self.connections.len(),
            counters: self.counters,
        }
    }

    /// The channels of a topic, sorted; none if the topic is unknown.
    pub fn channels(&self, topic: &TopicName) -> Vec<ChannelName> {
        let topic = self.registrations.topic(topic);
        topic.map(|topic| topic.channel_names().copied().collect()).unwrap_or_default()
    }

    /// Where a topic is: its channels, and its producers that are active and not hidden by a
    /// tombstone, sorted by broadcast address and TCP port. `None` if the topic is unknown.
    pub fn lookup(&self, topic: &TopicName, now: Now) -> Option<Lookup<'_>> {
        let topic = self.registrations.topic(topic)?;
        let mut producers = Vec::new();
        for conn in &topic.producers {
            if let Some(producer) = self.registrations.producer(*conn)
                && self.is_active(producer, now)
                && !self.is_hidden(topic, *conn, now)
            {
                producers.push((*conn, producer));
            }
        }
        sort_and_dedup(&mut producers);
        let producers = producers.into_iter().map(|(_, producer)| producer.into()).collect();
        Some(Lookup { channels: topic.channel_names().copied().collect(), producers })
    }

    /// All active nsqds, sorted by broadcast address and TCP port, with their topics.
    pub fn nodes(&self, now: Now) -> Vec<Node<'_>> {
        let mut producers: Vec<_> =
            self.registrations.producers().filter(|(_, p)| self.is_active(p, now)).collect();
        sort_and_dedup(&mut producers);
        let topics = |conn, producer: &Producer| {
            let topics = self.registrations.topics_of(producer).into_iter();
            topics.map(|topic| (*topic.name(), self.is_hidden(topic, conn, now))).collect()
        };
        producers
            .into_iter()
            .map(|(conn, p)| Node { producer: p.into(), topics: topics(conn, p) })
            .collect()
    }

    /// Makes a topic known, for channels that are planned before there is an nsqd with it.
    ///
    /// # Errors
    /// [`Full`] at [`Config::keys_max`](super::Config::keys_max).
    pub fn create_topic(&mut self, topic: TopicName, out: &mut Actions) -> Result<(), Full> {
        self.create(&Registration { topic, channel: None })?;
        out.events.push(Event::TopicAdded(topic));
        Ok(())
    }

    /// Makes a channel known, and its topic.
    ///
    /// # Errors
    /// [`Full`] at [`Config::keys_max`](super::Config::keys_max).
    pub fn create_channel(
        &mut self,
        topic: TopicName,
        channel: ChannelName,
        out: &mut Actions,
    ) -> Result<(), Full> {
        self.create(&Registration { topic, channel: Some(channel) })?;
        out.events.push(Event::ChannelAdded(topic, channel));
        out.events.push(Event::TopicAdded(topic));
        Ok(())
    }

    /// Forgets a topic, its channels and who had registered them; whether it was known. It comes back
    /// when an nsqd registers it again.
    pub fn delete_topic(&mut self, topic: &TopicName, out: &mut Actions) -> bool {
        let channels = self.channels(topic);
        let was_known = self.registrations.delete_topic(topic);
        if was_known {
            out.events.extend(channels.into_iter().map(|c| Event::ChannelRemoved(*topic, c)));
            out.events.push(Event::TopicRemoved(*topic));
        }
        was_known
    }

    /// Forgets a channel and who had registered it; whether it was known.
    pub fn delete_channel(
        &mut self,
        topic: &TopicName,
        channel: &ChannelName,
        out: &mut Actions,
    ) -> bool {
        let was_known = self.registrations.delete_channel(topic, channel);
        if was_known {
            out.events.push(Event::ChannelRemoved(*topic, *channel));
        }
        was_known
    }

    /// Hides the topic's producers whose `broadcast_address:http_port` is `node` from look-ups of
    /// the topic for [`Config::tombstone_lifetime`](super::Config::tombstone_lifetime); with `tcp_port`, only the ones that have it as
    /// well. A match is not needed.
    pub fn tombstone(
        &mut self,
        topic: &TopicName,
        node: &str,
        tcp_port: Option<i64>,
        now: Now,
        out: &mut Actions,
    ) {
        out.events.push(Event::Tombstoned(*topic, node.into()));
        self.registrations.tombstone(topic, node, tcp_port, now);
    }

    fn create(&mut self, registration: &Registration) -> Result<(), Full> {
        let topic = self.registrations.topic(&registration.topic);
        let has_channel = |channel| topic.is_some_and(|topic| topic.has_channel(&channel));
        let keys = usize::from(topic.is_none())
            + usize::from(registration.channel.is_some_and(|channel| !has_channel(channel)));
        if self.registrations.keys().saturating_add(keys) > self.config.keys_max {
            return Err(Full);
        }
        self.registrations.create(registration);
        Ok(())
    }

    fn is_hidden(&self, topic: &Topic, conn: ConnId, now: Now) -> bool {
        let tombstone = self.registrations.tombstone_of(topic, conn);
        tombstone.is_some_and(|t| t.hides(self.config.tombstone_lifetime, now.instant))
    }

    fn is_active(&self, producer: &Producer, now: Now) -> bool {
        producer.is_active(self.config.inactive_producer_timeout, now.instant)
    }
}

/// Where a topic is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lookup<'a> {
    /// Its channels, sorted.
    pub channels: BTreeSet<ChannelName>,
    /// The nsqds that have it.
    pub producers: Vec<ProducerInfo<'a>>,
}

/// An nsqd as look-ups show it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProducerInfo<'a> {
    /// Its side of the connection to nsqlookupd.
    pub remote: SocketAddr,
    /// What it told about itself.
    pub info: &'a PeerInfo,
}

/// An nsqd with its topics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node<'a> {
    /// The nsqd.
    pub producer: ProducerInfo<'a>,
    /// Its topics, sorted, and whether a tombstone hides it from look-ups of each.
    pub topics: Vec<(TopicName, bool)>,
}

impl<'a> From<&'a Producer> for ProducerInfo<'a> {
    fn from(producer: &'a Producer) -> Self {
        Self { remote: producer.remote, info: &producer.info }
    }
}

/// What an nsqlookupd has and did. To gather it costs the number of producers and of tombstones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LookupdStats {
    /// Topics, with producers or without.
    pub topics: usize,
    /// Channels of all topics.
    pub channels: usize,
    /// Pairs of a topic or channel and a producer of it.
    pub registrations: usize,
    /// nsqds that have shown life in time.
    pub producers: usize,
    /// nsqds that are connected and have not.
    pub inactive_producers: usize,
    /// Pairs of a topic and a producer of it that a tombstone hides from look-ups.
    pub tombstones: usize,
    /// Connections, identified or not.
    pub connections: usize,
    /// What was asked of it.
    pub counters: Counters,
}

/// What was asked of an nsqlookupd since its start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// IDENTIFY commands.
    pub identifies: u64,
    /// PING commands.
    pub pings: u64,
    /// REGISTER commands, refused ones included.
    pub registers: u64,
    /// UNREGISTER commands.
    pub unregisters: u64,
    /// What was answered with an error, which ends the connection.
    pub errors: u64,
    /// `/lookup` over HTTP.
    pub lookups: u64,
    /// Any other request over HTTP.
    pub other_requests: u64,
}

/// There are as many topics and channels as the configuration allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as many topics and channels as the configuration allows")
    }
}

impl core::error::Error for Full {}
