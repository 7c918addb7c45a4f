//! What nsqlookupd writes into its log (nsqlookupd-protocol.md section 10.2, http-and-ops.md
//! section 7).

use alloc::string::String;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use crate::duration::go_duration;
use crate::log::{Level, OneLine};
use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::{LookupProtocolError, Registration};

/// Something worth a line in the log; its `Display` is the line's text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LookupdEvent {
    /// A channel was made over HTTP.
    ChannelAdded(TopicName, ChannelName),
    /// A channel was deleted over HTTP.
    ChannelRemoved(TopicName, ChannelName),
    /// A connection was accepted.
    Connected(SocketAddr),
    /// A connection was refused or ended without the peer having done something wrong.
    Dropped(SocketAddr, DropReason),
    /// Registrations of a producer are dropped from now on, so that others have room; said once
    /// until it is told.
    Dropping(SocketAddr),
    /// The peer has ended the connection, or it broke.
    Ended(SocketAddr),
    /// The serving of a connection that had sent its magic is over.
    Exiting(SocketAddr),
    /// An nsqd has told who it is.
    Identified {
        /// The connection's peer.
        remote: SocketAddr,
        /// From IDENTIFY.
        broadcast_address: String,
        /// From IDENTIFY.
        tcp_port: i64,
        /// From IDENTIFY.
        http_port: i64,
        /// From IDENTIFY.
        version: String,
    },
    /// A topic or channel without producers was forgotten, so that others have room.
    Forgotten(Category),
    /// The first four bytes.
    Magic(SocketAddr, [u8; 4]),
    /// An nsqd is alive; the last sign of life was so long ago.
    Pinged(SocketAddr, Duration),
    /// The peer broke the protocol and is told so.
    Refused(SocketAddr, LookupProtocolError),
    /// A producer was added to a key.
    Registered(SocketAddr, Category),
    /// There is no room for a registration; said once of each connection.
    TooMany(SocketAddr, Registration),
    /// Producers of a topic were hidden over HTTP: the topic, and the node as it was given.
    Tombstoned(TopicName, String),
    /// A topic was made over HTTP.
    TopicAdded(TopicName),
    /// A topic was deleted over HTTP.
    TopicRemoved(TopicName),
    /// The UNREGISTER of a topic took its producer off a channel that was still registered.
    UnexpectedUnregister(SocketAddr, Registration),
    /// A producer was taken off a key.
    Unregistered(SocketAddr, Category),
}

/// A key of the registration database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Category {
    /// All nsqds.
    Client,
    /// A topic.
    Topic(TopicName),
    /// A channel.
    Channel(TopicName, ChannelName),
}

/// Why nsqlookupd ended a connection by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// The magic did not come in time.
    MagicTimeout,
    /// nsqlookupd is shutting down.
    ShuttingDown,
    /// There are as many connections as the configuration allows.
    TooManyConnections,
}

impl LookupdEvent {
    /// What kind of line it is, in words: peers can cause as many of each as they like. Whoever
    /// writes the log may leave lines of a kind out, and say how many.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ChannelAdded(..) | Self::TopicAdded(_) => "new topics and channels",
            Self::ChannelRemoved(..) | Self::TopicRemoved(_) => "deleted topics and channels",
            Self::Connected(_) => "new clients",
            Self::Dropped(..) => "dropped clients",
            Self::Dropping(_) => "dropped registrations",
            Self::Ended(_) | Self::Exiting(_) => "clients that left",
            Self::Forgotten(_) => "forgotten topics and channels",
            Self::Identified { .. } => "IDENTIFY",
            Self::Magic(..) => "protocol magic",
            Self::Pinged(..) => "PING",
            Self::Refused(..) => "refused commands",
            Self::Registered(..) => "REGISTER",
            Self::TooMany(..) => "refused registrations",
            Self::Tombstoned(..) => "tombstones",
            Self::UnexpectedUnregister(..) | Self::Unregistered(..) => "UNREGISTER",
        }
    }

    /// How loud the line is.
    pub const fn level(&self) -> Level {
        match self {
            Self::ChannelAdded(..)
            | Self::ChannelRemoved(..)
            | Self::Connected(_)
            | Self::Exiting(_)
            | Self::Forgotten(_)
            | Self::Identified { .. }
            | Self::Magic(..)
            | Self::Pinged(..)
            | Self::Registered(..)
            | Self::Tombstoned(..)
            | Self::TopicAdded(_)
            | Self::TopicRemoved(_)
            | Self::Unregistered(..) => Level::Info,
            Self::Dropped(_, DropReason::ShuttingDown) => Level::Info,
            Self::Dropping(_) | Self::TooMany(..) | Self::UnexpectedUnregister(..) => Level::Warn,
            Self::Dropped(..) | Self::Ended(_) | Self::Refused(..) => Level::Error,
        }
    }
}

impl fmt::Display for LookupdEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChannelAdded(topic, channel) => {
                write!(f, "DB: adding channel({channel}) in topic({topic})")
            }
            Self::ChannelRemoved(topic, channel) => {
                write!(f, "DB: removing channel({channel}) from topic({topic})")
            }
            Self::Connected(remote) => write!(f, "TCP: new client({remote})"),
            Self::Dropping(remote) => write!(
                f,
                "client({remote}) has the most registrations, and loses some for others: there are too many"
            ),
            Self::Dropped(remote, reason) => write!(f, "client({remote}) - {reason}"),
            Self::Ended(remote) => write!(f, "client({remote}) - EOF"),
            Self::Exiting(remote) => write!(f, "PROTOCOL(V1): [{remote}] exiting ioloop"),
            Self::Forgotten(key) => {
                write!(f, "DB: forgetting {key} - it has no producer, and there are too many")
            }
            Self::Identified { remote, broadcast_address, tcp_port, http_port, version } => {
                write!(
                    f,
                    "CLIENT({remote}): IDENTIFY Address:{} TCP:{tcp_port} HTTP:{http_port} Version:{}",
                    OneLine(broadcast_address),
                    OneLine(version)
                )
            }
            Self::Magic(remote, magic) => {
                write!(f, "CLIENT({remote}): desired protocol magic '{}'", magic.escape_ascii())
            }
            Self::Pinged(remote, age) => {
                write!(f, "CLIENT({remote}): pinged (last ping {})", go_duration(*age))
            }
            Self::Refused(remote, LookupProtocolError::BadMagic(magic)) => {
                write!(f, "client({remote}) bad protocol magic '{}'", magic.escape_ascii())
            }
            Self::Refused(remote, error) => write!(f, "[{remote}] - {error}"),
            Self::Registered(remote, key) => write!(f, "DB: client({remote}) REGISTER {key}"),
            Self::Tombstoned(topic, node) => {
                write!(f, "DB: setting tombstone for producer@{} of topic({topic})", OneLine(node))
            }
            Self::TooMany(remote, what) => write!(
                f,
                "client({remote}) REGISTER {what} refused - too many registrations \
                 (of this client, this is said once)"
            ),
            Self::TopicAdded(topic) => write!(f, "DB: adding topic({topic})"),
            Self::TopicRemoved(topic) => write!(f, "DB: removing topic({topic})"),
            Self::UnexpectedUnregister(remote, Registration { topic, channel }) => {
                let channel = channel.as_deref().unwrap_or_default();
                write!(
                    f,
                    "client({remote}) unexpected UNREGISTER category:channel key:{topic} subkey:{channel}"
                )
            }
            Self::Unregistered(remote, key) => write!(f, "DB: client({remote}) UNREGISTER {key}"),
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("category:client key: subkey:"),
            Self::Topic(topic) => write!(f, "category:topic key:{topic} subkey:"),
            Self::Channel(topic, channel) => {
                write!(f, "category:channel key:{topic} subkey:{channel}")
            }
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MagicTimeout => "no protocol magic in time",
            Self::ShuttingDown => "shutting down",
            Self::TooManyConnections => "too many connections",
        })
    }
}
