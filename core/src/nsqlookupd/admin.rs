//! The administration: what the HTTP interface offers, typed (nsqlookupd-protocol.md section 9).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::registrations::{Producer, sort_and_dedup};
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

    /// The channels of a topic, sorted; none if the topic is unknown.
    pub fn channels(&self, topic: &TopicName) -> Vec<ChannelName> {
        let topic = self.registrations.topic(topic);
        topic.map(|topic| topic.channels.keys().copied().collect()).unwrap_or_default()
    }

    /// Where a topic is: its channels, and its producers that are active and not hidden by a
    /// tombstone, sorted by broadcast address and TCP port. `None` if the topic is unknown.
    pub fn lookup(&self, topic: &TopicName, now: Now) -> Option<Lookup<'_>> {
        let topic = self.registrations.topic(topic)?;
        let mut producers = Vec::new();
        for (conn, tombstone) in &topic.producers {
            let hidden =
                tombstone.is_some_and(|t| t.hides(self.config.tombstone_lifetime, now.instant));
            if let Some(producer) = self.registrations.producer(*conn)
                && self.is_active(producer, now)
                && !hidden
            {
                producers.push((*conn, producer));
            }
        }
        sort_and_dedup(&mut producers);
        let producers = producers.into_iter().map(|(_, producer)| producer.into()).collect();
        Some(Lookup { channels: topic.channels.keys().copied().collect(), producers })
    }

    /// All active nsqds, sorted by broadcast address and TCP port, with their topics.
    pub fn nodes(&self, now: Now) -> Vec<Node<'_>> {
        let mut producers: Vec<_> =
            self.registrations.producers().filter(|(_, p)| self.is_active(p, now)).collect();
        sort_and_dedup(&mut producers);
        let lifetime = self.config.tombstone_lifetime;
        let is_hidden = |conn: ConnId, topic: &TopicName| {
            let topic = self.registrations.topic(topic);
            let tombstone = topic.and_then(|topic| *topic.producers.get(&conn)?);
            tombstone.is_some_and(|tombstone| tombstone.hides(lifetime, now.instant))
        };
        let topics = |conn, producer: &Producer| {
            producer.topics().map(|topic| (*topic, is_hidden(conn, topic))).collect()
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
        let has_channel =
            |channel| topic.is_some_and(|topic| topic.channels.contains_key(&channel));
        let keys = usize::from(topic.is_none())
            + usize::from(registration.channel.is_some_and(|channel| !has_channel(channel)));
        if self.registrations.keys().saturating_add(keys) > self.config.keys_max {
            return Err(Full);
        }
        self.registrations.create(registration);
        Ok(())
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

/// There are as many topics and channels as the configuration allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as many topics and channels as the configuration allows")
    }
}

impl core::error::Error for Full {}
