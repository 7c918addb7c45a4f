//! The HTTP API as typed requests and replies; [`http`](super::http) maps them to and from HTTP.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Serialize, Serializer};

use super::publish::{Batch, NotPublished, TooMany};
use super::stats::{ServerStats, StatsFilter};
use crate::name::{ChannelName, TopicName};

/// What an administrator or an HTTP publisher asks for (http-and-ops.md section 2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdminRequest {
    /// Whether the broker is well.
    Ping,
    /// Who the broker is.
    Info,
    /// Publish messages; makes the topic.
    Publish {
        /// The topic.
        topic: TopicName,
        /// At least one body.
        batch: Batch,
        /// How long to keep the messages back.
        delay: Duration,
    },
    /// Something about one topic.
    Topic(TopicName, TopicOp),
    /// Something about one channel.
    Channel(TopicName, ChannelName, ChannelOp),
    /// Register with these nsqlookupds, as `host:port`, and no longer with others.
    Lookupds(Vec<String>),
    /// What there is and what it did.
    Stats(StatsFilter),
}

/// What to do with a topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TopicOp {
    /// Make it if there is none.
    Create,
    /// Delete it with its channels and messages.
    Delete,
    /// Drop the messages that are in the topic itself.
    Empty,
    /// Hand no more messages to the channels.
    Pause,
    /// Go on handing messages to the channels.
    Unpause,
}

/// What to do with a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelOp {
    /// Make it if there is none; its topic has to exist.
    Create,
    /// Delete it with its messages; its consumers are disconnected.
    Delete,
    /// Drop all its messages, those in flight and deferred included.
    Empty,
    /// Deliver no more messages.
    Pause,
    /// Go on delivering.
    Unpause,
}

/// The answer to an [`AdminRequest`].
#[derive(Clone, Debug, PartialEq)]
pub enum AdminReply {
    /// Done.
    Done,
    /// The messages are accepted.
    Published,
    /// The broker is well, or what ails it.
    Health(Result<(), String>),
    /// Who the broker is.
    Info(Box<Info>),
    /// What there is and what it did.
    Stats(Box<ServerStats>),
    /// It can't be done.
    Refused(AdminError),
}

/// Why an admin request is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no such channel.
    ChannelNotFound,
    /// The broker stops.
    Exiting,
    /// The messages were not accepted, and why.
    NotPublished(NotPublished),
    /// It would be one topic or channel too many.
    TooMany(TooMany),
    /// There is no such topic.
    TopicNotFound,
}

impl fmt::Display for AdminError {
    /// What the body of the HTTP answer says: a word, and what belongs to it; or what the disk says
    /// in its own words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChannelNotFound => "CHANNEL_NOT_FOUND",
            Self::Exiting | Self::NotPublished(NotPublished::Exiting) => "EXITING",
            Self::NotPublished(NotPublished::Full) => "QUEUE_FULL",
            Self::NotPublished(NotPublished::Disk(text)) => text,
            Self::TooMany(why) | Self::NotPublished(NotPublished::TooMany(why)) => {
                let word = match why {
                    TooMany::Channels(_) => "TOO_MANY_CHANNELS",
                    TooMany::Topics(_) => "TOO_MANY_TOPICS",
                };
                return write!(f, "{word}: {why}");
            }
            Self::TopicNotFound => "TOPIC_NOT_FOUND",
        })
    }
}

impl core::error::Error for AdminError {}

/// Who the broker is (http-and-ops.md section 2.7).
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Info {
    /// NSQ's version.
    pub version: &'static str,
    /// The address told to nsqlookupd.
    pub broadcast_address: String,
    /// The host's name.
    pub hostname: String,
    /// The port really listened on; -1 for a unix socket, 0 if HTTP is off.
    pub http_port: i32,
    /// The port really listened on; -1 for a unix socket.
    pub tcp_port: i32,
    /// Seconds since the Unix epoch.
    pub start_time: i64,
    /// The upper bound of a client's heartbeat interval.
    #[serde(serialize_with = "nanos")]
    pub max_heartbeat_interval: Duration,
    /// The upper bound of a client's output buffer in bytes.
    pub max_output_buffer_size: usize,
    /// The upper bound of a client's output buffer timeout.
    #[serde(serialize_with = "nanos")]
    pub max_output_buffer_timeout: Duration,
    /// The upper bound of a client's deflate level.
    pub max_deflate_level: u8,
    /// The topology zone, empty if unset.
    pub topology_zone: String,
    /// The topology region, empty if unset.
    pub topology_region: String,
}

fn nanos<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(time.as_nanos())
}
