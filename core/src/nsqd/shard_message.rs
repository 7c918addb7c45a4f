//! What shards of one node say to each other.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::admin::{AdminReply, AdminRequest};
use super::ids::{ReplyToken, ShardId};
use super::publish::Publish;
use super::registry::Announcement;
use super::stats::{ServerStats, StatsFilter};
use crate::arena::ConnId;
use crate::name::TopicName;
use crate::protocol::error::ProtocolError;

/// What shards of one node say to each other. Batches between two shards keep their order.
#[derive(Debug)]
pub enum ShardMessage {
    /// To the topic's home: publish this.
    Publish(Publish),
    /// To the connection's shard: the outcome of a publish.
    Published {
        /// The connection.
        conn: ConnId,
        /// The number of its command.
        slot: u64,
        /// The bytes that it had taken of the room of the shard.
        len: u32,
        /// What the client is told.
        result: Result<(), ProtocolError>,
    },
    /// To the topic's home: make it if there is none.
    CreateTopic(TopicName),
    /// To the shard that carries it out: an admin request.
    Admin {
        /// The shard that was asked.
        from: ShardId,
        /// The request, as that shard knows it.
        token: ReplyToken,
        /// What to do.
        request: AdminRequest,
    },
    /// To the shard that was asked: the answer.
    AdminDone {
        /// The request.
        token: ReplyToken,
        /// The answer.
        reply: AdminReply,
    },
    /// To every shard: report your part of the statistics.
    Collect {
        /// The shard that gathers them.
        from: ShardId,
        /// For whom.
        collector: Collector,
        /// What is wanted; without it only how the shard is.
        filter: Option<StatsFilter>,
    },
    /// To the shard that gathers them: a part of the statistics.
    Collected {
        /// For whom.
        collector: Collector,
        /// The part.
        part: Box<ServerStats>,
    },
    /// To every shard: where the nsqlookupds are.
    Lookupds(Lookupds),
    /// To shard 0: a topic or channel came, went, or was paused.
    Announce(Announcement),
    /// To shard 0: answer this admin request once what was announced before is in the metadata
    /// file.
    Persist {
        /// The shard that was asked.
        from: ShardId,
        /// The request.
        token: ReplyToken,
    },
    /// To every other shard: how many topics the sender has.
    Topics {
        /// The sender.
        from: ShardId,
        /// How many.
        topics: u64,
    },
    /// To shard 0: the sender writes what it has to the disk, and announces nothing any more.
    Flushing,
}

/// For whom a shard gathers statistics.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Collector {
    /// Whoever made this admin request.
    Admin(ReplyToken),
    /// statsd.
    Statsd,
}

/// What is known of the nsqlookupds, for new topics that ask them for their channels.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lookupds {
    /// Where they answer HTTP, as `host:port`, as they said when they were last reached.
    pub(super) known: Vec<String>,
    /// How many are being reached for the first time.
    pub(super) undecided: usize,
    /// How many could not be reached, or did not say where.
    pub(super) unreached: usize,
}
