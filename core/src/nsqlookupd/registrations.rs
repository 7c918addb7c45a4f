//! The registration database: which nsqd has which topics and channels.
//!
//! ```text
//! topics:    topic -> { producers: conn -> tombstone, channels: channel -> { conn } }
//! producers: conn  -> { info, last update, topics: topic -> { channel } }
//! ```
//!
//! The two sides mirror each other, so that a look-up and a disconnect cost what they name and never
//! a scan (nsqlookupd-protocol.md section 12, W10). Invariants:
//!
//! - `topics[t].producers` has `conn` exactly if `producers[conn].topics` has `t`; the same for channels;
//! - a producer of a channel is a producer of its topic;
//! - a topic or channel that is ephemeral and loses its last producer is gone, its channels with it;
//!   one without the suffix stays, as in the reference.
//!
//! The limits on keys and registrations are the caller's (see [`super::Config`]).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::arena::ConnId;
use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::{PeerInfo, Registration};
use crate::time::{Instant, Now};

/// All registrations of one nsqlookupd, in memory only.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    topics: BTreeMap<TopicName, Topic>,
    producers: BTreeMap<ConnId, Producer>,
    /// Topics and channels.
    keys: usize,
    /// Pairs of a topic or channel and a producer of it.
    pairs: usize,
    sessions: u64,
}

/// One topic.
#[derive(Debug, Default)]
pub(super) struct Topic {
    pub(super) producers: BTreeMap<ConnId, Option<Tombstone>>,
    pub(super) channels: BTreeMap<ChannelName, BTreeSet<ConnId>>,
}

/// Hides one producer of one topic from look-ups for a while. It is never cleared, it just gets old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tombstone {
    pub(super) at: Now,
}

/// One nsqd that has identified itself.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) info: PeerInfo,
    pub(super) remote: SocketAddr,
    /// The IDENTIFY or the last PING.
    pub(super) last_update: Now,
    /// Counts IDENTIFYs: of two sessions of one nsqd the higher number is the newer one.
    session: u64,
    topics: BTreeMap<TopicName, BTreeSet<ChannelName>>,
}

/// What a REGISTER has changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Added {
    pub(super) channel: bool,
    pub(super) topic: bool,
}

impl Registrations {
    pub(super) fn add_producer(
        &mut self,
        conn: ConnId,
        remote: SocketAddr,
        info: PeerInfo,
        now: Now,
    ) {
        self.sessions += 1;
        let topics = BTreeMap::new();
        let session = self.sessions;
        self.producers.insert(conn, Producer { info, remote, last_update: now, session, topics });
    }

    /// Notes that the producer lives; the time since the last sign of life, `None` for a stranger.
    pub(super) fn refresh(&mut self, conn: ConnId, now: Now) -> Option<Duration> {
        let producer = self.producers.get_mut(&conn)?;
        let age = now.instant.saturating_since(producer.last_update.instant);
        producer.last_update = now;
        Some(age)
    }

    /// How many keys and pairs `register` would add.
    pub(super) fn growth(&self, conn: ConnId, registration: &Registration) -> (usize, usize) {
        let topic = self.topics.get(&registration.topic);
        let channel = |name| topic.and_then(|topic| topic.channels.get(&name));
        let keys = usize::from(topic.is_none())
            + usize::from(registration.channel.is_some_and(|name| channel(name).is_none()));
        let pairs = usize::from(topic.is_none_or(|topic| !topic.producers.contains_key(&conn)))
            + usize::from(registration.channel.is_some_and(|name| {
                channel(name).is_none_or(|producers| !producers.contains(&conn))
            }));
        (keys, pairs)
    }

    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    pub(super) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Adds the producer to the topic, and to the channel if one is named. An entry that is there
    /// stays as it is, with its tombstone.
    pub(super) fn register(&mut self, conn: ConnId, registration: &Registration) -> Added {
        let Some(producer) = self.producers.get_mut(&conn) else { return Added::default() };
        let Registration { topic: name, channel } = *registration;
        let mut added = Added::default();
        let topic = self.topics.entry(name).or_insert_with(|| {
            self.keys += 1;
            Topic::default()
        });
        let mirror = producer.topics.entry(name).or_insert_with(|| {
            added.topic = true;
            self.pairs += 1;
            BTreeSet::new()
        });
        topic.producers.entry(conn).or_insert(None);
        if let Some(channel) = channel {
            let producers = topic.channels.entry(channel).or_insert_with(|| {
                self.keys += 1;
                BTreeSet::new()
            });
            added.channel = producers.insert(conn);
            self.pairs += usize::from(added.channel);
            mirror.insert(channel);
        }
        added
    }

    /// Takes the producer off a channel; whether it was there.
    pub(super) fn unregister_channel(
        &mut self,
        conn: ConnId,
        topic: TopicName,
        channel: ChannelName,
    ) -> bool {
        let Some(producer) = self.producers.get_mut(&conn) else { return false };
        let Some(mirror) = producer.topics.get_mut(&topic) else { return false };
        if !mirror.remove(&channel) {
            return false;
        }
        self.leave_channel(conn, topic, channel);
        true
    }

    /// Takes the producer off a topic and all its channels: the channels that it was in, `None` if
    /// it was not in the topic either.
    pub(super) fn unregister_topic(
        &mut self,
        conn: ConnId,
        topic: TopicName,
    ) -> Option<BTreeSet<ChannelName>> {
        let channels = self.producers.get_mut(&conn)?.topics.remove(&topic)?;
        self.leave_topic(conn, topic, &channels);
        Some(channels)
    }

    /// Forgets the producer: what it had registered, or `None` if it is not known.
    pub(super) fn remove_producer(
        &mut self,
        conn: ConnId,
    ) -> Option<BTreeMap<TopicName, BTreeSet<ChannelName>>> {
        let producer = self.producers.remove(&conn)?;
        for (topic, channels) in &producer.topics {
            self.leave_topic(conn, *topic, channels);
        }
        Some(producer.topics)
    }

    fn leave_topic(&mut self, conn: ConnId, name: TopicName, channels: &BTreeSet<ChannelName>) {
        for channel in channels {
            self.leave_channel(conn, name, *channel);
        }
        let Some(topic) = self.topics.get_mut(&name) else { return };
        if topic.producers.remove(&conn).is_some() {
            self.pairs -= 1;
        }
        if topic.producers.is_empty() && name.is_ephemeral() {
            self.keys -= 1 + topic.channels.len();
            self.topics.remove(&name);
        }
    }

    fn leave_channel(&mut self, conn: ConnId, topic: TopicName, name: ChannelName) {
        let Some(topic) = self.topics.get_mut(&topic) else { return };
        let Some(producers) = topic.channels.get_mut(&name) else { return };
        if producers.remove(&conn) {
            self.pairs -= 1;
        }
        if producers.is_empty() && name.is_ephemeral() {
            topic.channels.remove(&name);
            self.keys -= 1;
        }
    }

    /// Makes the topic, and the channel if one is named, without a producer.
    pub(super) fn create(&mut self, registration: &Registration) {
        let topic = self.topics.entry(registration.topic).or_insert_with(|| {
            self.keys += 1;
            Topic::default()
        });
        if let Some(channel) = registration.channel {
            topic.channels.entry(channel).or_insert_with(|| {
                self.keys += 1;
                BTreeSet::new()
            });
        }
    }

    /// Drops a topic with its channels; its producers lose them until they register again. Whether
    /// there was one.
    pub(super) fn delete_topic(&mut self, name: &TopicName) -> bool {
        let Some(topic) = self.topics.remove(name) else { return false };
        self.keys -= 1 + topic.channels.len();
        for conn in topic.producers.keys() {
            if let Some(producer) = self.producers.get_mut(conn)
                && let Some(channels) = producer.topics.remove(name)
            {
                self.pairs -= 1 + channels.len();
            }
        }
        true
    }

    /// Drops a channel; whether there was one.
    pub(super) fn delete_channel(&mut self, topic: &TopicName, name: &ChannelName) -> bool {
        let Some(entry) = self.topics.get_mut(topic) else { return false };
        let Some(producers) = entry.channels.remove(name) else { return false };
        self.keys -= 1;
        self.pairs -= producers.len();
        for conn in &producers {
            let producer = self.producers.get_mut(conn);
            if let Some(mirror) = producer.and_then(|producer| producer.topics.get_mut(topic)) {
                mirror.remove(name);
            }
        }
        true
    }

    /// Hides producers of the topic whose `broadcast_address:http_port` is `node`, and whose TCP port
    /// is `tcp_port` if one is given.
    pub(super) fn tombstone(
        &mut self,
        topic: &TopicName,
        node: &str,
        tcp_port: Option<i64>,
        now: Now,
    ) {
        let Some(topic) = self.topics.get_mut(topic) else { return };
        let Some((address, port)) = node.rsplit_once(':') else { return };
        for (conn, tombstone) in &mut topic.producers {
            let Some(Producer { info, .. }) = self.producers.get(conn) else { continue };
            // The port is compared as text: `node` has to be exactly what was put together.
            if info.broadcast_address == address
                && alloc::format!("{}", info.http_port) == port
                && tcp_port.is_none_or(|port| port == info.tcp_port)
            {
                *tombstone = Some(Tombstone { at: now });
            }
        }
    }

    /// All topics, sorted.
    pub(super) fn topics(&self) -> impl Iterator<Item = (&TopicName, &Topic)> {
        self.topics.iter()
    }

    pub(super) fn topic(&self, name: &TopicName) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(super) fn producer(&self, conn: ConnId) -> Option<&Producer> {
        self.producers.get(&conn)
    }

    pub(super) fn producers(&self) -> impl Iterator<Item = (ConnId, &Producer)> {
        self.producers.iter().map(|(conn, producer)| (*conn, producer))
    }
}

impl Producer {
    /// Whether it has shown life within `timeout`.
    pub(super) fn is_active(&self, timeout: Duration, now: Instant) -> bool {
        now.saturating_since(self.last_update.instant) <= timeout
    }

    /// Its topics, sorted.
    pub(super) fn topics(&self) -> impl Iterator<Item = &TopicName> {
        self.topics.keys()
    }
}

impl Tombstone {
    /// Whether it still hides.
    pub(super) fn hides(&self, lifetime: Duration, now: Instant) -> bool {
        now.saturating_since(self.at.instant) < lifetime
    }
}

/// Sorts producers by address, and of several sessions of one nsqd (the same broadcast address and TCP
/// port) keeps the newest: an old one is a connection that broke without a word.
pub(super) fn sort_and_dedup(producers: &mut Vec<(ConnId, &Producer)>) {
    producers.sort_by(|(_, a), (_, b)| {
        let key = |producer: &Producer| (producer.info.tcp_port, u64::MAX - producer.session);
        a.info.broadcast_address.cmp(&b.info.broadcast_address).then(key(a).cmp(&key(b)))
    });
    producers.dedup_by(|(_, later), (_, kept)| {
        later.info.broadcast_address == kept.info.broadcast_address
            && later.info.tcp_port == kept.info.tcp_port
    });
}

#[cfg(test)]
impl Registrations {
    /// Checks the module's invariants and the counts.
    pub(super) fn check(&self) {
        let (mut keys, mut pairs) = (0, 0);
        for (name, topic) in &self.topics {
            keys += 1 + topic.channels.len();
            pairs += topic.producers.len();
            for conn in topic.producers.keys() {
                assert!(self.producers[conn].topics.contains_key(name));
            }
            for (channel, producers) in &topic.channels {
                pairs += producers.len();
                for conn in producers {
                    assert!(topic.producers.contains_key(conn));
                    assert!(self.producers[conn].topics[name].contains(channel));
                }
            }
        }
        let mirrored: usize = self
            .producers
            .values()
            .flat_map(|producer| producer.topics.values())
            .map(|channels| 1 + channels.len())
            .sum();
        assert_eq!((self.keys, self.pairs, mirrored), (keys, pairs, pairs));
    }

    /// `topic` and `topic/channel` of everything that is known.
    pub(super) fn names(&self) -> Vec<alloc::string::String> {
        let mut names = Vec::new();
        for (name, topic) in &self.topics {
            names.push(name.as_str().into());
            names.extend(topic.channels.keys().map(|channel| alloc::format!("{name}/{channel}")));
        }
        names
    }
}
