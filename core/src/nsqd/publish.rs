//! A publish on its way to its topic, and why it may not get there.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use super::ids::{ReplyToken, ShardId};
use crate::arena::ConnId;
use crate::list::MessageList;
use crate::name::TopicName;

/// A publish on its way to its topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publish {
    /// Who waits for the outcome.
    pub origin: Origin,
    /// The topic, made if there is none.
    pub topic: TopicName,
    /// The bodies.
    pub batch: Batch,
    /// How long to keep the messages back; zero for at once.
    pub delay: Duration,
}

/// Who is to be told the outcome of a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A client's command: the reply slot `slot` of a connection of `shard`.
    Client {
        /// The connection's shard.
        shard: ShardId,
        /// The connection.
        conn: ConnId,
        /// The number of its command.
        slot: u64,
        /// The command.
        kind: PublishKind,
        /// The bytes that it has taken of the room of that shard.
        len: u32,
    },
    /// An admin request that `shard` has in hand.
    Admin {
        /// The shard that was asked.
        shard: ShardId,
        /// The request.
        token: ReplyToken,
    },
}

/// Which command published, for the code of its failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishKind {
    /// PUB
    Pub,
    /// MPUB
    Mpub,
    /// DPUB
    Dpub,
}

/// The bodies of one publish.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Batch {
    /// Of PUB and DPUB.
    One(Bytes),
    /// Of MPUB; at least one.
    Many(MessageList),
}

impl Batch {
    /// How many messages it makes.
    pub const fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(bodies) => bodies.len(),
        }
    }

    /// How many bytes its bodies take.
    pub const fn byte_len(&self) -> usize {
        match self {
            Self::One(body) => body.len(),
            Self::Many(bodies) => bodies.byte_len(),
        }
    }

    /// Whether it makes none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a publish was not accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotPublished {
    /// The disk failed, in the operating system's words.
    Disk(Box<str>),
    /// The topic is being deleted, or the broker stops.
    Exiting,
    /// There was no room for as long as a publish may wait.
    Full,
    /// The topic would be one too many.
    TooMany(TooMany),
}

impl fmt::Display for NotPublished {
    /// The reason as an error frame has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk(text) => text,
            Self::Exiting => "exiting",
            Self::Full => "queue full",
            Self::TooMany(why) => return why.fmt(f),
        })
    }
}

/// There are as many topics or channels as the operator allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TooMany {
    /// Channels of the topic: `--max-channels-per-topic`.
    Channels(usize),
    /// Topics: `--max-topics`.
    Topics(usize),
}

impl fmt::Display for TooMany {
    /// The reason as an error frame has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channels(limit) => {
                write!(f, "too many channels - the limit is --max-channels-per-topic={limit}")
            }
            Self::Topics(limit) => {
                write!(f, "too many topics - the limit is --max-topics={limit}")
            }
        }
    }
}
