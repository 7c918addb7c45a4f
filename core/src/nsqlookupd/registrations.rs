//! The registration database: which nsqd has which topics and channels.
//!
//! ```text
//! names:      topic -> id                        topics:    id -> { name, producers: { conn }, channels: channel -> id }
//! tombstones: (topic's id, conn) -> since when   channels:  id -> { name, producers: { conn } }
//!                                                producers: conn -> { info, last update, { (topic's id, channel's id) } }
//! ```
//!
//! Both sides mirror each other, so that a look-up and a disconnect cost what they name and never
//! a scan (nsqlookupd-protocol.md section 12, W10). Names are held once: a thousand nsqds with a thousand
//! topics of five channels are six million registrations, of some 70 bytes each on both sides. Invariants:
//!
//! - `topics[t].producers` has `conn` exactly if `producers[conn]` has `(t, none)`; the same for channels;
//! - a producer of a channel is a producer of its topic;
//! - there is a tombstone only of a producer of the topic;
//! - a topic or channel that is ephemeral and loses its last producer is gone, its channels with it;
//!   one without the suffix stays, as in the reference.
//!
//! The limits on keys and registrations are the caller's (see [`super::Config`]).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::arena::{Arena, ChannelId, ConnId, Key as _, TopicId};
use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::{PeerInfo, Registration};
use crate::time::{Instant, Now};

/// All registrations of one nsqlookupd, in memory only.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    names: BTreeMap<TopicName, TopicId>,
    topics: Arena<TopicId, Topic>,
    channels: Arena<ChannelId, Channel>,
    producers: BTreeMap<ConnId, Producer>,
    tombstones: BTreeMap<(TopicId, ConnId), Tombstone>,
    /// Pairs of a topic or channel and a producer of it.
    pairs: usize,
    sessions: u64,
}

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    id: TopicId,
    name: TopicName,
    pub(super) producers: BTreeSet<ConnId>,
    channels: BTreeMap<ChannelName, ChannelId>,
}

/// One channel.
#[derive(Debug)]
struct Channel {
    name: ChannelName,
    producers: BTreeSet<ConnId>,
}

/// Hides one producer of one topic from look-ups for a while. It is not cleared, it just gets old; it goes
/// with the registration.
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
    /// Topics, and their channels behind each.
    registered: BTreeSet<(TopicId, Option<ChannelId>)>,
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
        let (session, registered) = (self.sessions, BTreeSet::new());
        self.producers
            .insert(conn, Producer { info, remote, last_update: now, session, registered });
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
        let topic = self.topic(&registration.topic);
        let channel = |name| self.channels.get(*topic?.channels.get(&name)?);
        let keys = usize::from(topic.is_none())
            + usize::from(registration.channel.is_some_and(|name| channel(name).is_none()));
        let pairs = usize::from(topic.is_none_or(|topic| !topic.producers.contains(&conn)))
            + usize::from(registration.channel.is_some_and(|name| {
                channel(name).is_none_or(|channel| !channel.producers.contains(&conn))
            }));
        (keys, pairs)
    }

    /// Topics and channels.
    pub(super) fn keys(&self) -> usize {
        self.topics.len() + self.channels.len()
    }

    pub(super) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Adds the producer to the topic, and to the channel if one is named. An entry that is there
    /// stays as it is, with its tombstone.
    pub(super) fn register(&mut self, conn: ConnId, registration: &Registration) -> Added {
        if !self.producers.contains_key(&conn) {
            return Added::default();
        }
        let (id, channel) = self.create(registration);
        let mut added = Added::default();
        if let Some(topic) = self.topics.get_mut(id) {
            added.topic = topic.producers.insert(conn);
        }
        if let Some(channel) = channel.and_then(|channel| self.channels.get_mut(channel)) {
            added.channel = channel.producers.insert(conn);
        }
        if let Some(producer) = self.producers.get_mut(&conn) {
            producer.registered.insert((id, None));
            if channel.is_some() {
                producer.registered.insert((id, channel));
            }
        }
        self.pairs += usize::from(added.topic) + usize::from(added.channel);
        added
    }

    /// Takes the producer off a channel; whether it was there.
    pub(super) fn unregister_channel(
        &mut self,
        conn: ConnId,
        topic: TopicName,
        channel: ChannelName,
    ) -> bool {
        let Some(topic) = self.topic(&topic) else { return false };
        let (id, channel) = (topic.id, topic.channels.get(&channel).copied());
        let Some(producer) = self.producers.get_mut(&conn) else { return false };
        let Some(channel) = channel.filter(|c| producer.registered.remove(&(id, Some(*c)))) else {
            return false;
        };
        self.leave_channel(conn, id, channel);
        true
    }

    /// Takes the producer off a topic and all its channels: the channels that it was in, sorted, `None`
    /// if it was not in the topic either.
    pub(super) fn unregister_topic(
        &mut self,
        conn: ConnId,
        topic: TopicName,
    ) -> Option<Vec<ChannelName>> {
        let id = *self.names.get(&topic)?;
        let producer = self.producers.get_mut(&conn)?;
        let channels: Vec<_> = producer.registered.range(of_topic(id)).copied().collect();
        // The first is the topic itself.
        let (_, channels) = channels.split_first()?;
        producer.registered.remove(&(id, None));
        for channel in channels {
            producer.registered.remove(channel);
        }
        let channels: Vec<_> = channels.iter().filter_map(|(_, channel)| *channel).collect();
        Some(self.leave_topic(conn, id, &channels))
    }

    /// Forgets the producer: what it had registered, by topic, or `None` if it is not known.
    pub(super) fn remove_producer(
        &mut self,
        conn: ConnId,
    ) -> Option<Vec<(TopicName, Vec<ChannelName>)>> {
        let registered: Vec<_> = self.producers.remove(&conn)?.registered.into_iter().collect();
        let by_topic = registered.chunk_by(|(a, _), (b, _)| a == b).filter_map(|topic| {
            let (id, _) = *topic.first()?;
            let name = self.topics.get(id)?.name;
            let channels: Vec<_> = topic.iter().filter_map(|(_, channel)| *channel).collect();
            Some((name, self.leave_topic(conn, id, &channels)))
        });
        let mut by_topic: Vec<_> = by_topic.collect();
        by_topic.sort_unstable_by_key(|(name, _)| *name);
        Some(by_topic)
    }

    /// Takes the producer off the topic and these channels of it, whose names are sorted then.
    fn leave_topic(
        &mut self,
        conn: ConnId,
        id: TopicId,
        channels: &[ChannelId],
    ) -> Vec<ChannelName> {
        let names = channels.iter().filter_map(|channel| self.leave_channel(conn, id, *channel));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        self.tombstones.remove(&(id, conn));
        if let Some(topic) = self.topics.get_mut(id) {
            self.pairs -= usize::from(topic.producers.remove(&conn));
            if topic.producers.is_empty() && topic.name.is_ephemeral() {
                let name = topic.name;
                self.delete_topic(&name);
            }
        }
        names
    }

    fn leave_channel(
        &mut self,
        conn: ConnId,
        topic: TopicId,
        id: ChannelId,
    ) -> Option<ChannelName> {
        let channel = self.channels.get_mut(id)?;
        let name = channel.name;
        self.pairs -= usize::from(channel.producers.remove(&conn));
        if channel.producers.is_empty() && name.is_ephemeral() {
            self.channels.remove(id);
            if let Some(topic) = self.topics.get_mut(topic) {
                topic.channels.remove(&name);
            }
        }
        Some(name)
    }

    /// Makes the topic, and the channel if one is named, without a producer; what is there stays.
    pub(super) fn create(&mut self, registration: &Registration) -> (TopicId, Option<ChannelId>) {
        let Registration { topic: name, channel } = *registration;
        let Self { names, topics, channels, .. } = self;
        let id = *names.entry(name).or_insert_with(|| {
            let (producers, channels) = (BTreeSet::new(), BTreeMap::new());
            topics.insert_with(|id| Topic { id, name, producers, channels })
        });
        let Some(topic) = topics.get_mut(id) else { return (id, None) };
        let channel = channel.map(|name| {
            *topic
                .channels
                .entry(name)
                .or_insert_with(|| channels.insert(Channel { name, producers: BTreeSet::new() }))
        });
        (id, channel)
    }

    /// Drops a topic with its channels; its producers lose them until they register again. Whether
    /// there was one.
    pub(super) fn delete_topic(&mut self, name: &TopicName) -> bool {
        let Some(id) = self.names.remove(name) else { return false };
        let Some(topic) = self.topics.remove(id) else { return false };
        for channel in topic.channels.values() {
            self.forget_channel(id, *channel);
        }
        for conn in &topic.producers {
            if let Some(producer) = self.producers.get_mut(conn) {
                producer.registered.remove(&(id, None));
            }
            self.tombstones.remove(&(id, *conn));
        }
        self.pairs -= topic.producers.len();
        true
    }

    /// Drops a channel; whether there was one.
    pub(super) fn delete_channel(&mut self, topic: &TopicName, name: &ChannelName) -> bool {
        let Some(id) = self.names.get(topic) else { return false };
        let Some(topic) = self.topics.get_mut(*id) else { return false };
        let (id, Some(channel)) = (topic.id, topic.channels.remove(name)) else { return false };
        self.forget_channel(id, channel);
        true
    }

    /// Drops a channel that its topic does not know any more.
    fn forget_channel(&mut self, topic: TopicId, id: ChannelId) {
        let Some(channel) = self.channels.remove(id) else { return };
        self.pairs -= channel.producers.len();
        for conn in &channel.producers {
            if let Some(producer) = self.producers.get_mut(conn) {
                producer.registered.remove(&(topic, Some(id)));
            }
        }
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
        let Some(topic) = self.names.get(topic).and_then(|id| self.topics.get(*id)) else { return };
        let Some((address, port)) = node.rsplit_once(':') else { return };
        for conn in &topic.producers {
            let Some(Producer { info, .. }) = self.producers.get(conn) else { continue };
            // The port is compared as text: `node` has to be exactly what was put together.
            if info.broadcast_address == address
                && alloc::format!("{}", info.http_port) == port
                && tcp_port.is_none_or(|port| port == info.tcp_port)
            {
                self.tombstones.insert((topic.id, *conn), Tombstone { at: now });
            }
        }
    }

    /// All topics, sorted.
    pub(super) fn topics(&self) -> impl Iterator<Item = (&TopicName, &Topic)> {
        self.names.iter().filter_map(|(name, id)| Some((name, self.topics.get(*id)?)))
    }

    pub(super) fn topic(&self, name: &TopicName) -> Option<&Topic> {
        self.topics.get(*self.names.get(name)?)
    }

    /// A topic's channels with their producers, sorted.
    pub(super) fn channels(
        &self,
        topic: &Topic,
    ) -> impl Iterator<Item = (ChannelName, &BTreeSet<ConnId>)> {
        let channels = topic.channels.values().filter_map(|id| self.channels.get(*id));
        channels.map(|channel| (channel.name, &channel.producers))
    }

    /// What hides a producer of a topic, or did.
    pub(super) fn tombstone_of(&self, topic: &Topic, conn: ConnId) -> Option<Tombstone> {
        self.tombstones.get(&(topic.id, conn)).copied()
    }

    /// Every tombstone, also those that are old.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.values()
    }

    pub(super) fn producer(&self, conn: ConnId) -> Option<&Producer> {
        self.producers.get(&conn)
    }

    pub(super) fn producers(&self) -> impl Iterator<Item = (ConnId, &Producer)> {
        self.producers.iter().map(|(conn, producer)| (*conn, producer))
    }

    /// The topics of a producer, sorted.
    pub(super) fn topics_of(&self, producer: &Producer) -> Vec<&Topic> {
        let topics = producer.registered.iter().filter(|(_, channel)| channel.is_none());
        let mut topics: Vec<_> = topics.filter_map(|(id, _)| self.topics.get(*id)).collect();
        topics.sort_unstable_by_key(|topic| topic.name);
        topics
    }
}

impl Topic {
    pub(super) const fn name(&self) -> &TopicName {
        &self.name
    }

    /// The names of its channels, sorted.
    pub(super) fn channel_names(&self) -> impl Iterator<Item = &ChannelName> {
        self.channels.keys()
    }

    pub(super) fn has_channel(&self, name: &ChannelName) -> bool {
        self.channels.contains_key(name)
    }
}

impl Producer {
    /// Whether it has shown life within `timeout`.
    pub(super) fn is_active(&self, timeout: Duration, now: Instant) -> bool {
        now.saturating_since(self.last_update.instant) <= timeout
    }
}

impl Tombstone {
    /// Whether it still hides.
    pub(super) fn hides(&self, lifetime: Duration, now: Instant) -> bool {
        now.saturating_since(self.at.instant) < lifetime
    }
}

/// What a producer can have registered of a topic.
fn of_topic(id: TopicId) -> RangeInclusive<(TopicId, Option<ChannelId>)> {
    (id, None)..=(id, Some(ChannelId::new(u32::MAX, u32::MAX)))
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
        let (mut channels, mut pairs) = (0, 0);
        assert_eq!(self.names.len(), self.topics.len());
        for (name, topic) in self.topics() {
            assert_eq!((name, self.names[name]), (&topic.name, topic.id));
            pairs += topic.producers.len();
            for conn in &topic.producers {
                assert!(self.producers[conn].registered.contains(&(topic.id, None)));
            }
            for (channel, id) in &topic.channels {
                let entry = self.channels.get(*id).unwrap();
                assert_eq!(entry.name, *channel);
                channels += 1;
                pairs += entry.producers.len();
                for conn in &entry.producers {
                    assert!(topic.producers.contains(conn));
                    assert!(self.producers[conn].registered.contains(&(topic.id, Some(*id))));
                }
            }
        }
        let mirrored: usize = self.producers.values().map(|p| p.registered.len()).sum();
        assert_eq!((self.channels.len(), self.pairs, mirrored), (channels, pairs, pairs));
        for (topic, conn) in self.tombstones.keys() {
            assert!(self.topics.get(*topic).unwrap().producers.contains(conn));
        }
    }

    /// `topic` and `topic/channel` of everything that is known.
    pub(super) fn names(&self) -> Vec<alloc::string::String> {
        let mut names = Vec::new();
        for (name, topic) in self.topics() {
            names.push(name.as_str().into());
            names.extend(topic.channel_names().map(|channel| alloc::format!("{name}/{channel}")));
        }
        names
    }
}
