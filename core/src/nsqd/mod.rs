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
mod in_flight;
mod latency;
mod line;
pub mod lookup_peer;
mod metadata;
mod registry;
mod shard;
mod stats;
mod statsd;
mod topic;

pub use self::actions::{
    Actions, Batch, Close, Collector, Detached, Lookupds, Origin, Peer, PeerAction, Publish,
    PublishKind, ReadState, ReplyToken, ShardId, ShardMessage,
};
pub use self::admin::{
    AdminError, AdminReply, AdminRequest, ChannelOp, Info, StatsFilter, StatsPage, StatsPlace,
    TopicOp,
};
pub use self::backlog::{BacklogOutput, Beyond, DUE_TIMES_MAX, Run};
pub use self::channel::{
    Channel, ChannelCounters, ChannelOptions, ChannelOutput, ConsumerStats, TooManyConsumers,
};
pub use self::config::{AuthMethod, Config, ConfigError, TlsRequired};
pub use self::event::{ClientFailure, Event};
pub use self::in_flight::NotInFlight;
pub use self::latency::{LATENCY_BOUNDS, LatencyStats, LatencyTotals};
pub use self::line::Nearness;
pub use self::lookup_peer::{LookupPeer, LookupPeerEvent, PeerOutput};
pub use self::registry::{Announcement, Registry, TopicEntry};
pub use self::shard::{
    CHANNELS_ANSWER_LEN_MAX, FlushFailure, Held, LOOKUPD_WAIT, OPENING_WAIT, Refusals, Shard,
    TooMany,
};
pub use self::stats::{
    ChannelStats, ClientStats, Parts, ServerStats, ShardStats, TlsInfo, TopicStats,
};
pub use self::statsd::{PACKET_LEN_MAX, StatsdAction, StatsdOptions, statsd_prefix};
pub use self::topic::{NotPublished, Stage, Topic, TopicOutput, Volume};
