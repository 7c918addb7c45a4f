//! Snapshots of what there is and what it did (http-and-ops.md section 2.8).

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::ops::Not;

use serde::{Serialize, Serializer};

use super::ids::{Peer, ShardId};
use super::latency::{Histogram, LatencyStats};
use crate::name::{ChannelName, TopicName};

/// The broker, or one shard's part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerStats {
    /// The topics that match, by name.
    pub topics: Vec<TopicStats>,
    /// Whether a topic of the filter's name exists, or the filter names none.
    pub topic_known: bool,
    /// Every connection that has published, if clients are wanted.
    pub producers: Vec<ClientStats>,
    /// What ails the broker; `None` if it is well.
    pub failure: Option<String>,
    /// Topics and channels that were not made because there were too many.
    pub refusals: Refusals,
    /// The shards, by number.
    pub shards: Vec<ShardStats>,
    /// Where to go on, if this is a page and not the last one. A page may end within a topic, and
    /// within a channel's clients; the next one then begins with that topic, and that channel.
    pub next: Option<StatsPage>,
    /// What [`append`](Self::append) needs to know of topics that are on several pages.
    pub parts: Parts,
    /// REGISTER commands that nsqlookupds had no room for, of those that are in use.
    pub refused_registrations: u64,
}

/// A shard as such.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShardStats {
    /// Its number.
    pub id: ShardId,
    /// Its clients' connections.
    pub connections: u64,
    /// Bytes that they have sent and have no answer to yet: publishes, and bodies that are half
    /// there.
    pub unanswered_bytes: u64,
    /// How often one of them was not read from for want of room for such bytes.
    pub unanswered_waits: u64,
}

impl ServerStats {
    /// Adds another shard's part. Of several failures the first is kept.
    pub fn merge(&mut self, part: Self) {
        self.topics.extend(part.topics);
        self.topics.sort_by_key(|topic| topic.name);
        self.parts.0.extend(part.parts.0);
        self.topic_known |= part.topic_known;
        self.producers.extend(part.producers);
        self.refusals.topics += part.refusals.topics;
        self.refusals.channels += part.refusals.channels;
        self.refusals.publishes += part.refusals.publishes;
        self.shards.extend(part.shards);
        self.shards.sort_by_key(|shard| shard.id);
        self.refused_registrations += part.refused_registrations;
        if self.failure.is_none() {
            self.failure = part.failure;
        }
        self.next = self.next.take().into_iter().chain(part.next).min();
    }

    /// All shards' parts of a page are merged: drops the topics behind the first one at which a
    /// shard broke off, for the next page has them in order.
    pub(super) fn end_page(&mut self) {
        if let Some(StatsPage::Topics(Some(last))) = &self.next {
            self.topics.retain(|topic| topic.name <= last.topic);
            self.parts.0.retain(|(name, _)| *name <= last.topic);
        }
    }

    /// Adds the next page behind this one.
    pub fn append(&mut self, mut page: Self) {
        let mut topics = page.topics.into_iter().peekable();
        if let Some(last) = self.topics.last_mut()
            && let Some(rest) = topics.next_if(|topic| topic.name == last.name)
        {
            let mut samples = self.parts.take(&last.name);
            samples.merge(&page.parts.take(&last.name));
            last.append(rest, &samples);
            page.parts.add(last.name, samples);
        }
        self.topics.extend(topics);
        self.parts = match &page.next {
            Some(next) if next.is_within_topic() => page.parts,
            _ => Parts::default(),
        };
        self.topic_known |= page.topic_known;
        self.producers.extend(page.producers);
        (self.shards, self.failure, self.next) = (page.shards, page.failure, page.next);
        self.refusals = page.refusals;
        self.refused_registrations = page.refused_registrations;
    }
}

/// Of topics that are on a page in part: the latencies that this part has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parts(Vec<(TopicName, Histogram)>);

impl Parts {
    pub(super) fn add(&mut self, topic: TopicName, samples: Histogram) {
        self.0.push((topic, samples));
    }

    fn take(&mut self, topic: &TopicName) -> Histogram {
        let at = self.0.iter().position(|(name, _)| name == topic);
        at.map(|at| self.0.swap_remove(at).1).unwrap_or_default()
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopicStats {
    /// Its name.
    #[serde(rename = "topic_name")]
    pub name: TopicName,
    /// Its channels that match, by name.
    pub channels: Vec<ChannelStats>,
    /// Messages in the topic itself.
    pub depth: u64,
    /// How many of them are on disk.
    pub backend_depth: u64,
    /// Messages accepted since the topic was made.
    pub message_count: u64,
    /// Bytes of bodies accepted since the topic was made.
    pub message_bytes: u64,
    /// Whether it hands nothing to its channels.
    pub paused: bool,
    /// The latencies of all its channels, also of those that do not match.
    #[serde(rename = "e2e_processing_latency")]
    pub latency: LatencyStats,
}

impl TopicStats {
    /// Adds what another page has of the topic, of which there are these latencies on both.
    fn append(&mut self, rest: Self, samples: &Histogram) {
        let mut channels = rest.channels.into_iter().peekable();
        if let Some(last) = self.channels.last_mut()
            && let Some(same) = channels.next_if(|channel| channel.name == last.name)
            && let (Some(clients), Some(more)) = (&mut last.clients, same.clients)
        {
            clients.extend(more);
        }
        self.channels.extend(channels);
        let shares = rest.latency.percentiles.iter().map(|(share, _)| *share);
        self.latency = samples.stats(&shares.collect::<Vec<_>>());
    }
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChannelStats {
    /// Its name.
    #[serde(rename = "channel_name")]
    pub name: ChannelName,
    /// Messages that wait for a consumer; neither those in flight nor deferred ones.
    pub depth: u64,
    /// How many of them are on disk.
    pub backend_depth: u64,
    /// Messages delivered and not yet answered.
    pub in_flight_count: u64,
    /// Messages kept back for a delay.
    pub deferred_count: u64,
    /// Messages received from the topic since the channel was made.
    pub message_count: u64,
    /// Messages handed to consumers of this nsqd's zone, each delivery counted.
    #[serde(skip_serializing_if = "is_zero")]
    pub zone_local_msg_count: u64,
    /// Messages handed to consumers of its region that are not of its zone.
    #[serde(skip_serializing_if = "is_zero")]
    pub region_local_msg_count: u64,
    /// Messages handed to other consumers; to all of them, unless consumption is topology-aware.
    #[serde(skip_serializing_if = "is_zero")]
    pub global_msg_count: u64,
    /// REQ commands.
    pub requeue_count: u64,
    /// Deliveries that were not answered in time.
    pub timeout_count: u64,
    /// Subscribed connections.
    pub client_count: u64,
    /// Those of them with RDY 0.
    #[serde(skip)]
    pub idle_client_count: u64,
    /// Those of them that would take a message now: less in flight than RDY, and not behind with
    /// reading.
    #[serde(skip)]
    pub ready_client_count: u64,
    /// The subscribed connections, if wanted.
    pub clients: Option<Vec<ClientStats>>,
    /// Whether it delivers nothing.
    pub paused: bool,
    /// How long messages take from publishing to FIN.
    #[serde(rename = "e2e_processing_latency")]
    pub latency: LatencyStats,
}

impl ChannelStats {
    /// Whether messages wait and nobody would take one.
    pub const fn is_starved(&self) -> bool {
        self.depth > 0 && self.ready_client_count == 0 && !self.paused
    }
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientStats {
    /// From IDENTIFY, else the peer's IP.
    pub client_id: String,
    /// From IDENTIFY, else the peer's IP.
    pub hostname: String,
    /// Where it comes from.
    #[serde(flatten, serialize_with = "with_version")]
    pub peer: Peer,
    /// 0 init, 3 subscribed, 4 closing.
    pub state: u8,
    /// RDY.
    pub ready_count: u64,
    /// Messages delivered and not yet answered.
    pub in_flight_count: u64,
    /// Messages delivered.
    pub message_count: u64,
    /// FINs acted on.
    pub finish_count: u64,
    /// REQs acted on.
    pub requeue_count: u64,
    /// Seconds since the Unix epoch.
    pub connect_ts: i64,
    /// Percent; 0 for all messages.
    pub sample_rate: u8,
    /// Whether it has negotiated Deflate.
    pub deflate: bool,
    /// Whether it has negotiated Snappy.
    pub snappy: bool,
    /// From IDENTIFY.
    pub user_agent: String,
    // The reference leaves these three out if they are false or empty.
    /// Whether it has authorized.
    #[serde(skip_serializing_if = "Not::not")]
    pub authed: bool,
    /// What the auth server calls it; empty if it does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_identity: String,
    /// Where the auth server has more about it; empty if it does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_identity_url: String,
    /// From IDENTIFY.
    pub topology_zone: String,
    /// From IDENTIFY.
    pub topology_region: String,
    /// What it published, by topic.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "by_topic")]
    pub pub_counts: Vec<(TopicName, u64)>,
    /// What TLS agreed on, if it has TLS.
    #[serde(flatten, serialize_with = "tls")]
    pub tls: Option<TlsInfo>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where a connection comes from, behind the version of its protocol.
fn with_version<S: Serializer>(peer: &Peer, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map([("version", "V2"), ("remote_address", &peer.to_string())])
}

fn by_topic<S: Serializer>(counts: &[(TopicName, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct PubCount {
        topic: TopicName,
        count: u64,
    }
    serializer.collect_seq(counts.iter().map(|&(topic, count)| PubCount { topic, count }))
}

fn tls<S: Serializer>(tls: &Option<TlsInfo>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        tls: bool,
        tls_cipher_suite: String,
        tls_version: &'static str,
        tls_negotiated_protocol: &'a str,
        tls_negotiated_protocol_is_mutual: bool,
    }
    let info = tls.as_ref();
    let shown = Shown {
        tls: tls.is_some(),
        tls_cipher_suite: info.map(TlsInfo::cipher_suite_name).unwrap_or_default(),
        tls_version: info.map_or("", |info| info.version),
        tls_negotiated_protocol: info.map_or("", |info| &info.protocol),
        tls_negotiated_protocol_is_mutual: tls.is_some(),
    };
    shown.serialize(serializer)
}

/// What the two ends of a TLS connection agreed on, and who the peer is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsInfo {
    /// The version as the statistics show it: `TLS1.2` or `TLS1.3`.
    pub version: &'static str,
    /// The number of the cipher suite.
    pub cipher_suite: u16,
    /// The protocol of ALPN; empty, since NSQ has none.
    pub protocol: String,
    /// The common name in the peer's certificate; empty without one.
    pub common_name: String,
}

impl TlsInfo {
    /// The name of the cipher suite as the reference's statistics show it, which knows few of them.
    pub fn cipher_suite_name(&self) -> String {
        match self.cipher_suite {
            0xc02f => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into(),
            0xc02b => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".into(),
            number => alloc::format!("Unknown {number}"),
        }
    }
}

/// Which part of the statistics is wanted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StatsFilter {
    /// This topic only. A text that is no valid name matches nothing, which the HTTP mapping sees
    /// to.
    pub topic: Option<TopicName>,
    /// Only channels of this name, and topics that have one.
    pub channel: Option<ChannelName>,
    /// With every channel's clients and all producers.
    pub include_clients: bool,
    /// Only so much as a turn has time for, beginning here; `None` for everything at once.
    /// [`ServerStats::next`] of the answer says where to go on.
    pub page: Option<StatsPage>,
}

/// Where a page of the statistics begins: topics come by name, then producers.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum StatsPage {
    /// Behind this place, or at the first topic.
    Topics(Option<Box<StatsPlace>>),
    /// At this slot of each shard's table of producers, without topics.
    Producers(u32),
}

impl StatsPage {
    /// Whether a part of a topic is still to come.
    pub(super) fn is_within_topic(&self) -> bool {
        match self {
            Self::Topics(Some(place)) => !matches!(place.within, Within::End),
            Self::Topics(None) | Self::Producers(_) => false,
        }
    }
}

/// The place at which a page of the statistics ends. Places on different shards are in the order of
/// their topics.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct StatsPlace {
    pub(super) topic: TopicName,
    pub(super) within: Within,
}

/// A place in the statistics of a topic.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Within {
    /// Behind this channel.
    Channel(ChannelName),
    /// At the consumers of this channel, from this slot of its table on.
    Consumers(ChannelName, u32),
    /// Behind the topic.
    End,
}

/// How often something was refused because of a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Refusals {
    /// Topics that were not made.
    pub topics: u64,
    /// Channels that were not made.
    pub channels: u64,
    /// Publishes that the disk did not take in time.
    pub publishes: u64,
}

/// The process's memory.
///
/// The reference's five figures of its garbage collector (`gc_pause_usec_100`, `gc_pause_usec_99`,
/// `gc_pause_usec_95`, `next_gc_bytes`, `gc_total_runs`) have no meaning here and are shown as 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// Allocations that live, 0 if unknown.
    pub heap_objects: u64,
    /// Bytes that the allocator keeps and nobody uses, 0 if unknown.
    pub heap_idle_bytes: u64,
    /// Bytes in use; the resident set is a fair approximation.
    pub heap_in_use_bytes: u64,
    /// Bytes given back to the system, 0 if unknown.
    pub heap_released_bytes: u64,
}

impl Memory {
    /// The members in the order of both forms.
    pub(in crate::nsqd) const fn figures(self) -> [(&'static str, u64); 9] {
        [
            ("heap_objects", self.heap_objects),
            ("heap_idle_bytes", self.heap_idle_bytes),
            ("heap_in_use_bytes", self.heap_in_use_bytes),
            ("heap_released_bytes", self.heap_released_bytes),
            ("gc_pause_usec_100", 0),
            ("gc_pause_usec_99", 0),
            ("gc_pause_usec_95", 0),
            ("next_gc_bytes", 0),
            ("gc_total_runs", 0),
        ]
    }
}

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.figures())
    }
}
