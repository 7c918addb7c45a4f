//! The registration database: which nsqd has which topics and channels.
//!
//! ```text
//! names:         topic -> id                      topics:    id -> { name, producers: { conn } }
//! channel_names: (topic's id, channel) -> id      channels:  id -> { name, producers: { conn } }
//! tombstones:    (topic's id, conn) -> since when producers: conn -> { info, last update, { (topic's id, channel's id) } }
//! unused:        when -> (topic's id, channel's id), by_size: { (number of registrations, conn) }
//! ```
//!
//! Both sides mirror each other, so that a look-up and a disconnect cost what they name and never
//! a scan (nsqlookupd-protocol.md section 12, W10). Names are held once: a thousand nsqds with a
//! thousand topics of five channels are six million registrations, of some 60 bytes each on both
//! sides. A topic or channel with one producer costs some 430 bytes, however long its name is.
//! Invariants:
//!
//! - `topics[t].producers` has `conn` exactly if `producers[conn]` has `(t, none)`; the same for
//!   channels;
//! - a producer of a channel is a producer of its topic;
//! - there is a tombstone only of a producer of the topic;
//! - `unused` has the topics and channels without producers, those first that are so for longest;
//! - a topic or channel that is ephemeral and loses its last producer is gone, its channels with
//!   it; one without the suffix stays, as in the reference.
//!
//! A producer that goes with many registrations is gone from `producers` at once, so that nobody is
//! shown it, and its registrations go in slices ([`room`]).
//!
//! The limits on keys and registrations are the caller's (see [`super::LookupdConfig`]).

mod room;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::arena::{Arena, ChannelId, ConnId, Key as _, TopicId};
use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::{PeerInfo, Registration};
use crate::time::{Instant, Now};

pub(super) use room::SLICE;

/// All registrations of one nsqlookupd, in memory only.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    names: BTreeMap<TopicName, TopicId>,
    topics: Arena<TopicId, RegisteredTopic>,
    /// Of each topic `None` would be the first.
    channel_names: BTreeMap<(TopicId, Option<ChannelName>), ChannelId>,
    channels: Arena<ChannelId, RegisteredChannel>,
    producers: BTreeMap<ConnId, RegisteredProducer>,
    tombstones: BTreeMap<(TopicId, ConnId), Tombstone>,
    /// Topics and channels without producers, in the order in which they came to be so.
    unused: BTreeMap<u64, (TopicId, Option<ChannelId>)>,
    /// Counts what is put into `unused`.
    moments: u64,
    /// The producers, by how many registrations they have.
    by_size: BTreeSet<(usize, ConnId)>,
    /// Producers that are gone, with what they had registered.
    leaving: VecDeque<Leaving>,
    /// Pairs of a topic or channel and a producer of it.
    pairs: usize,
    sessions: u64,
}

/// A producer that is gone, and what of its registrations is still there.
#[derive(Debug)]
struct Leaving {
    conn: ConnId,
    remote: SocketAddr,
    registered: BTreeSet<(TopicId, Option<ChannelId>)>,
}

/// One topic.
#[derive(Debug)]
pub(super) struct RegisteredTopic {
    id: TopicId,
    name: TopicName,
    pub(super) producers: BTreeSet<ConnId>,
    /// Its place among those that are unused; 0 if it is used.
    unused: u64,
}

/// One channel.
#[derive(Debug)]
struct RegisteredChannel {
    name: ChannelName,
    producers: BTreeSet<ConnId>,
    /// Its place among those that are unused; 0 if it is used.
    unused: u64,
}

/// Hides one producer of one topic from look-ups for a while. It is not cleared, it just gets old;
/// it goes with the registration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tombstone {
    pub(super) at: Now,
}

/// One nsqd that has identified itself.
#[derive(Debug)]
pub(super) struct RegisteredProducer {
    pub(super) info: PeerInfo,
    pub(super) remote: SocketAddr,
    /// The IDENTIFY or the last PING.
    pub(super) last_update: Now,
    /// Counts IDENTIFYs: of two sessions of one nsqd the higher number is the newer one.
    session: u64,
    /// Topics, and their channels behind each.
    registered: BTreeSet<(TopicId, Option<ChannelId>)>,
    /// With how many registrations it stands in `by_size`; with none it does not.
    size: usize,
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
        let producer =
            RegisteredProducer { info, remote, last_update: now, session, registered, size: 0 };
        self.producers.insert(conn, producer);
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
        let channel = |name| self.channels.get(self.channel_id(topic?, name)?);
        let pairs = usize::from(topic.is_none_or(|topic| !topic.producers.contains(&conn)))
            + usize::from(registration.channel.is_some_and(|name| {
                channel(name).is_none_or(|channel| !channel.producers.contains(&conn))
            }));
        (self.new_names(registration), pairs)
    }

    /// How many keys `create` would add.
    pub(super) fn new_names(&self, registration: &Registration) -> usize {
        let topic = self.topic(&registration.topic);
        let has_channel = |name| topic.is_some_and(|topic| self.has_channel(topic, name));
        usize::from(topic.is_none())
            + usize::from(registration.channel.is_some_and(|name| !has_channel(name)))
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
        let (id, channel) = self.find_or_make(registration);
        let mut added = Added::default();
        if let Some(topic) = self.topics.get_mut(id) {
            added.topic = topic.producers.insert(conn);
            self.unused.remove(&core::mem::take(&mut topic.unused));
        }
        if let Some(channel) = channel.and_then(|channel| self.channels.get_mut(channel)) {
            added.channel = channel.producers.insert(conn);
            self.unused.remove(&core::mem::take(&mut channel.unused));
        }
        if let Some(producer) = self.producers.get_mut(&conn) {
            producer.registered.insert((id, None));
            if channel.is_some() {
                producer.registered.insert((id, channel));
            }
        }
        self.pairs += usize::from(added.topic) + usize::from(added.channel);
        self.resize(conn);
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
        let (id, channel) = (topic.id, self.channel_id(topic, channel));
        let Some(producer) = self.producers.get_mut(&conn) else { return false };
        let Some(channel) = channel.filter(|c| producer.registered.remove(&(id, Some(*c)))) else {
            return false;
        };
        self.leave_channel(conn, id, channel);
        self.resize(conn);
        true
    }

    /// Takes the producer off a topic and all its channels: the channels that it was in, sorted,
    /// `None` if it was not in the topic either.
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
        let names = self.leave_topic(conn, id, &channels);
        self.resize(conn);
        Some(names)
    }

    /// Forgets the producer: what it had registered, by topic, or `None` if it is not known. If
    /// that is more than [`SLICE`], nothing of it is gone yet: [`Self::remove_slice`].
    pub(super) fn remove_producer(
        &mut self,
        conn: ConnId,
    ) -> Option<Vec<(TopicName, Vec<ChannelName>)>> {
        let RegisteredProducer { registered, remote, size, .. } = self.producers.remove(&conn)?;
        self.by_size.remove(&(size, conn));
        if registered.len() > SLICE {
            self.leaving.push_back(Leaving { conn, remote, registered });
            return Some(Vec::new());
        }
        let registered: Vec<_> = registered.into_iter().collect();
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
            } else {
                self.note_unused(id, None);
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
            self.channel_names.remove(&(topic, Some(name)));
        } else {
            self.note_unused(topic, Some(id));
        }
        Some(name)
    }

    /// Makes the topic, and the channel if one is named, without a producer; what is there stays.
    pub(super) fn create(&mut self, registration: &Registration) {
        let (topic, channel) = self.find_or_make(registration);
        self.note_unused(topic, None);
        if channel.is_some() {
            self.note_unused(topic, channel);
        }
    }

    /// Whoever calls this adds a producer, or notes that there is none.
    fn find_or_make(&mut self, registration: &Registration) -> (TopicId, Option<ChannelId>) {
        let Registration { topic: name, channel } = *registration;
        let Self { names, topics, channel_names, channels, .. } = self;
        let id = *names.entry(name).or_insert_with(|| {
            topics.insert_with(|id| RegisteredTopic {
                id,
                name,
                producers: BTreeSet::new(),
                unused: 0,
            })
        });
        let channel = channel.map(|name| {
            let make = || {
                channels.insert(RegisteredChannel { name, producers: BTreeSet::new(), unused: 0 })
            };
            *channel_names.entry((id, Some(name))).or_insert_with(make)
        });
        (id, channel)
    }

    /// Drops a topic with its channels; its producers lose them until they register again. Whether
    /// there was one.
    pub(super) fn delete_topic(&mut self, name: &TopicName) -> bool {
        let Some(id) = self.names.remove(name) else { return false };
        let Some(topic) = self.topics.remove(id) else { return false };
        loop {
            let first = self.channel_entries(id).next();
            let Some((key, channel)) = first else { break };
            self.channel_names.remove(&key);
            self.forget_channel(id, channel);
        }
        for conn in &topic.producers {
            if let Some(producer) = self.producers.get_mut(conn) {
                producer.registered.remove(&(id, None));
            }
            self.tombstones.remove(&(id, *conn));
            self.resize(*conn);
        }
        self.pairs -= topic.producers.len();
        self.unused.remove(&topic.unused);
        true
    }

    /// Drops a channel; whether there was one.
    pub(super) fn delete_channel(&mut self, topic: &TopicName, name: &ChannelName) -> bool {
        let Some(id) = self.names.get(topic).copied() else { return false };
        let Some(channel) = self.channel_names.remove(&(id, Some(*name))) else { return false };
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
            self.resize(*conn);
        }
        self.unused.remove(&channel.unused);
    }

    /// Hides producers of the topic whose `broadcast_address:http_port` is `node`, and whose TCP
    /// port is `tcp_port` if one is given.
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
            let Some(RegisteredProducer { info, .. }) = self.producers.get(conn) else { continue };
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
    pub(super) fn topics(&self) -> impl Iterator<Item = (&TopicName, &RegisteredTopic)> {
        self.names.iter().filter_map(|(name, id)| Some((name, self.topics.get(*id)?)))
    }

    pub(super) fn topic(&self, name: &TopicName) -> Option<&RegisteredTopic> {
        self.topics.get(*self.names.get(name)?)
    }

    /// A topic's channels with their producers, sorted.
    pub(super) fn channels(
        &self,
        topic: &RegisteredTopic,
    ) -> impl Iterator<Item = (ChannelName, &BTreeSet<ConnId>)> {
        let ids = self.channel_entries(topic.id).map(|(_, id)| id);
        let channels = ids.filter_map(|id| self.channels.get(id));
        channels.map(|channel| (channel.name, &channel.producers))
    }

    /// The names of a topic's channels, sorted.
    pub(super) fn channel_names(
        &self,
        topic: &RegisteredTopic,
    ) -> impl Iterator<Item = ChannelName> {
        self.channel_entries(topic.id).filter_map(|((_, name), _)| name)
    }

    pub(super) fn has_channel(&self, topic: &RegisteredTopic, name: ChannelName) -> bool {
        self.channel_id(topic, name).is_some()
    }

    fn channel_id(&self, topic: &RegisteredTopic, name: ChannelName) -> Option<ChannelId> {
        self.channel_names.get(&(topic.id, Some(name))).copied()
    }

    fn channel_entries(
        &self,
        topic: TopicId,
    ) -> impl Iterator<Item = ((TopicId, Option<ChannelName>), ChannelId)> {
        let behind = self.channel_names.range((topic, None)..);
        behind.map(|(key, id)| (*key, *id)).take_while(move |((of, _), _)| *of == topic)
    }

    /// What hides a producer of a topic, or did.
    pub(super) fn tombstone_of(&self, topic: &RegisteredTopic, conn: ConnId) -> Option<Tombstone> {
        self.tombstones.get(&(topic.id, conn)).copied()
    }

    /// Every tombstone, also those that are old.
    pub(super) fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.values()
    }

    pub(super) fn producer(&self, conn: ConnId) -> Option<&RegisteredProducer> {
        self.producers.get(&conn)
    }

    pub(super) fn producers(&self) -> impl Iterator<Item = (ConnId, &RegisteredProducer)> {
        self.producers.iter().map(|(conn, producer)| (*conn, producer))
    }

    /// The topics of a producer, sorted.
    pub(super) fn topics_of(&self, producer: &RegisteredProducer) -> Vec<&RegisteredTopic> {
        let topics = producer.registered.iter().filter(|(_, channel)| channel.is_none());
        let mut topics: Vec<_> = topics.filter_map(|(id, _)| self.topics.get(*id)).collect();
        topics.sort_unstable_by_key(|topic| topic.name);
        topics
    }
}

impl RegisteredTopic {
    pub(super) const fn name(&self) -> &TopicName {
        &self.name
    }
}

impl RegisteredProducer {
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

/// Sorts producers by address. Of several sessions of one nsqd, which are those with the same
/// broadcast address and TCP port, the first is the one that goes for it: one that has registered
/// something, of these the one that showed life last, of these the newest. So a connection that
/// broke without a word gives way to the one that is there instead, and one that only says the same
/// address as another does not hide it.
pub(super) fn sort(producers: &mut [(ConnId, &RegisteredProducer)]) {
    producers.sort_by(|(_, a), (_, b)| {
        let rank = |it: &RegisteredProducer| {
            (!it.registered.is_empty(), it.last_update.instant, it.session)
        };
        a.info
            .broadcast_address
            .cmp(&b.info.broadcast_address)
            .then(a.info.tcp_port.cmp(&b.info.tcp_port))
            .then(rank(b).cmp(&rank(a)))
    });
}

/// Whether both are sessions of one nsqd.
pub(super) fn is_same_nsqd(a: &RegisteredProducer, b: &RegisteredProducer) -> bool {
    a.info.broadcast_address == b.info.broadcast_address && a.info.tcp_port == b.info.tcp_port
}

#[cfg(test)]
impl Registrations {
    /// Checks the module's invariants and the counts.
    pub(super) fn check(&self) {
        let (mut channels, mut pairs, mut unused) = (0, 0, 0);
        assert_eq!(self.names.len(), self.topics.len());
        for (name, topic) in self.topics() {
            assert_eq!((name, self.names[name]), (&topic.name, topic.id));
            pairs += topic.producers.len();
            for conn in &topic.producers {
                assert!(self.has_registered(*conn, (topic.id, None)));
            }
            assert_eq!(topic.unused > 0, topic.producers.is_empty());
            for ((_, channel), id) in self.channel_entries(topic.id) {
                let entry = self.channels.get(id).unwrap();
                assert_eq!(Some(entry.name), channel);
                assert_eq!(entry.unused > 0, entry.producers.is_empty());
                channels += 1;
                pairs += entry.producers.len();
                unused += usize::from(entry.producers.is_empty());
                for conn in &entry.producers {
                    assert!(topic.producers.contains(conn));
                    assert!(self.has_registered(*conn, (topic.id, Some(id))));
                }
            }
            unused += usize::from(topic.producers.is_empty());
        }
        let sizes = self.producers.values().map(|p| p.registered.len());
        let mirrored = sizes.clone().sum::<usize>()
            + self.leaving.iter().map(|it| it.registered.len()).sum::<usize>();
        assert_eq!((self.channels.len(), self.pairs, mirrored), (channels, pairs, pairs));
        assert_eq!(self.channel_names.len(), channels);
        assert_eq!(
            (self.unused.len(), self.by_size.len()),
            (unused, sizes.filter(|n| *n > 0).count())
        );
        for (size, conn) in &self.by_size {
            let producer = &self.producers[conn];
            assert_eq!((producer.registered.len(), producer.size), (*size, *size));
        }
        for (topic, conn) in self.tombstones.keys() {
            assert!(self.topics.get(*topic).unwrap().producers.contains(conn));
        }
    }

    fn has_registered(&self, conn: ConnId, key: (TopicId, Option<ChannelId>)) -> bool {
        let leaving = self.leaving.iter().find(|it| it.conn == conn).map(|it| &it.registered);
        let of = leaving.unwrap_or_else(|| &self.producers[&conn].registered);
        of.contains(&key)
    }

    /// `topic` and `topic/channel` of everything that is known.
    pub(super) fn names(&self) -> Vec<alloc::string::String> {
        let mut names = Vec::new();
        for (name, topic) in self.topics() {
            names.push(name.as_str().into());
            names.extend(
                self.channel_names(topic).map(|channel| alloc::format!("{name}/{channel}")),
            );
        }
        names
    }
}
