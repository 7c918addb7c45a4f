//! nsqd: the broker, as shards that are driven.

mod actions;
mod admin;
pub mod auth;
mod backlog;
mod channel;
pub mod config;
mod connection;
mod event;
pub mod http;
mod ids;
mod in_flight;
mod latency;
mod line;
pub mod lookup_peer;
mod metadata;
mod publish;
mod registry;
mod shard;
mod shard_message;
mod stats;
mod statsd;
mod topic;

pub use self::actions::{Actions, PeerAction};
pub use self::admin::{AdminError, AdminReply, AdminRequest, ChannelOp, Info, TopicOp};
pub use self::backlog::{BacklogOutput, Beyond, DUE_TIMES_MAX, Run};
pub use self::channel::{
    Channel, ChannelCounters, ChannelOptions, ChannelOutput, ConsumerStats, TooManyConsumers,
};
pub use self::config::{AuthMethod, Config, ConfigError, StatsdOptions, TlsRequired};
pub use self::connection::{Close, Detached};
pub use self::event::{ClientFailure, Event};
pub use self::ids::{Peer, ReplyToken, ShardId};
pub use self::in_flight::NotInFlight;
pub use self::latency::{LATENCY_BOUNDS, LatencyStats, LatencyTotals};
pub use self::line::Nearness;
pub use self::lookup_peer::{LookupPeer, LookupPeerEvent, PeerOutput};
pub use self::publish::{Batch, NotPublished, Origin, Publish, PublishKind, TooMany};
pub use self::registry::{Announcement, Registry, TopicEntry};
pub use self::shard::{
    CHANNELS_ANSWER_LEN_MAX, FlushFailure, Held, LOOKUPD_WAIT, OPENING_WAIT, Shard,
};
pub use self::shard_message::{Collector, Lookupds, ShardMessage};
pub use self::stats::{
    ChannelStats, ClientStats, Parts, Refusals, ServerStats, ShardStats, StatsFilter, StatsPage,
    StatsPlace, TlsInfo, TopicStats,
};
pub use self::statsd::{PACKET_LEN_MAX, StatsdAction, statsd_prefix};
pub use self::topic::{Stage, Topic, TopicOutput, Volume};
