//! The administration: what the HTTP interface offers, typed (nsqlookupd-protocol.md section 9).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Serialize, Serializer};

use super::registrations::{RegisteredProducer, RegisteredTopic, is_same_nsqd, sort};
use super::{Lookupd, LookupdActions, LookupdEvent};
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
            unused_names: self.registrations.unused(),
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
        topic.map(|topic| self.registrations.channel_names(topic).collect()).unwrap_or_default()
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
        sort(&mut producers);
        producers.dedup_by(|(_, later), (_, kept)| is_same_nsqd(later, kept));
        let producers = producers.into_iter().map(|(_, producer)| producer.into()).collect();
        Some(Lookup { channels: self.registrations.channel_names(topic).collect(), producers })
    }

    /// All active nsqds, sorted by broadcast address and TCP port, with their topics: those for
    /// which [`Self::lookup`] would name the nsqd, or would if no tombstone hid it.
    pub fn nodes(&self, now: Now) -> Vec<NodeInfo<'_>> {
        let mut producers: Vec<_> =
            self.registrations.producers().filter(|(_, p)| self.is_active(p, now)).collect();
        sort(&mut producers);
        let sessions = producers.chunk_by(|(_, a), (_, b)| is_same_nsqd(a, b));
        let node = |sessions: &[(ConnId, &'_ RegisteredProducer)]| {
            let mut topics: BTreeMap<TopicName, bool> = BTreeMap::new();
            for (conn, producer) in sessions {
                for topic in self.registrations.topics_of(producer) {
                    // It takes a tombstone for each session to hide the nsqd.
                    let is_hidden = self.is_hidden(topic, *conn, now);
                    let known = topics.entry(*topic.name()).or_insert(is_hidden);
                    *known &= is_hidden;
                }
            }
            topics.into_iter().collect()
        };
        sessions
            .filter_map(|all| Some(NodeInfo { producer: all.first()?.1.into(), topics: node(all) }))
            .collect()
    }

    /// Makes a topic known, for channels that are planned before there is an nsqd with it.
    ///
    /// # Errors
    /// [`Full`] if [`names_max`](super::LookupdConfig::names_max) names have producers.
    pub fn create_topic(&mut self, topic: TopicName, out: &mut LookupdActions) -> Result<(), Full> {
        self.create(&Registration { topic, channel: None }, out)?;
        out.events.push(LookupdEvent::TopicAdded(topic));
        Ok(())
    }

    /// Makes a channel known, and its topic.
    ///
    /// # Errors
    /// [`Full`] if [`names_max`](super::LookupdConfig::names_max) names have producers.
    pub fn create_channel(
        &mut self,
        topic: TopicName,
        channel: ChannelName,
        out: &mut LookupdActions,
    ) -> Result<(), Full> {
        self.create(&Registration { topic, channel: Some(channel) }, out)?;
        out.events.push(LookupdEvent::ChannelAdded(topic, channel));
        out.events.push(LookupdEvent::TopicAdded(topic));
        Ok(())
    }

    /// Forgets a topic, its channels and who had registered them; whether it was known. It comes
    /// back when an nsqd registers it again.
    pub fn delete_topic(&mut self, topic: &TopicName, out: &mut LookupdActions) -> bool {
        let channels = self.channels(topic);
        let was_known = self.registrations.delete_topic(topic);
        if was_known {
            out.events
                .extend(channels.into_iter().map(|c| LookupdEvent::ChannelRemoved(*topic, c)));
            out.events.push(LookupdEvent::TopicRemoved(*topic));
        }
        was_known
    }

    /// Forgets a channel and who had registered it; whether it was known.
    pub fn delete_channel(
        &mut self,
        topic: &TopicName,
        channel: &ChannelName,
        out: &mut LookupdActions,
    ) -> bool {
        let was_known = self.registrations.delete_channel(topic, channel);
        if was_known {
            out.events.push(LookupdEvent::ChannelRemoved(*topic, *channel));
        }
        was_known
    }

    /// Hides the topic's producers whose `broadcast_address:http_port` is `node` from look-ups of
    /// the topic for [`tombstone_lifetime`](super::LookupdConfig::tombstone_lifetime); with
    /// `tcp_port`, only the ones that have it as well. A match is not needed.
    pub fn tombstone(
        &mut self,
        topic: &TopicName,
        node: &str,
        tcp_port: Option<i64>,
        now: Now,
        out: &mut LookupdActions,
    ) {
        out.events.push(LookupdEvent::Tombstoned(*topic, node.into()));
        self.registrations.tombstone(topic, node, tcp_port, now);
    }

    fn is_hidden(&self, topic: &RegisteredTopic, conn: ConnId, now: Now) -> bool {
        let tombstone = self.registrations.tombstone_of(topic, conn);
        tombstone.is_some_and(|t| t.hides(self.config.tombstone_lifetime, now.instant))
    }

    fn is_active(&self, producer: &RegisteredProducer, now: Now) -> bool {
        producer.is_active(self.config.inactive_producer_timeout, now.instant)
    }
}

/// Where a topic is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
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
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NodeInfo<'a> {
    /// The nsqd.
    #[serde(flatten)]
    pub producer: ProducerInfo<'a>,
    /// Its topics, sorted, and whether a tombstone hides it from look-ups of each.
    #[serde(flatten, serialize_with = "two_lists")]
    pub topics: Vec<(TopicName, bool)>,
}

/// What hides topics, and the topics themselves.
fn two_lists<S: Serializer>(
    topics: &[(TopicName, bool)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Lists<'a> {
        tombstones: Vec<bool>,
        topics: Vec<&'a TopicName>,
    }
    let tombstones = topics.iter().map(|(_, is_hidden)| *is_hidden).collect();
    Lists { tombstones, topics: topics.iter().map(|(topic, _)| topic).collect() }
        .serialize(serializer)
}

impl<'a> From<&'a RegisteredProducer> for ProducerInfo<'a> {
    fn from(producer: &'a RegisteredProducer) -> Self {
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
    /// Topics and channels without producers.
    pub unused_names: usize,
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
    /// What was answered with an error that ends the connection.
    pub errors: u64,
    /// REGISTER commands and requests over HTTP for which there was no room.
    pub refused: u64,
    /// Registrations that their producer lost because others wanted the room.
    pub dropped_registrations: u64,
    /// Topics and channels without producers that were forgotten because others wanted the room.
    pub forgotten_names: u64,
    /// `/lookup` over HTTP.
    pub lookups: u64,
    /// Any other request over HTTP.
    pub other_requests: u64,
}

/// There are as many topics and channels with producers as the configuration allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "there are as many topics and channels with producers as the configuration allows",
        )
    }
}

impl core::error::Error for Full {}
