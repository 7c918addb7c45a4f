//! What is worth a line in the log; the `Display` of each is the line (http-and-ops.md section 7).

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::ids::Peer;
use super::lookup_peer::LookupPeerEvent;
use crate::log::{Count, Level};
use crate::name::{ChannelName, TopicName};
use crate::protocol::error::ProtocolError;
use crate::storage::{DiskEvent, Failure, Store};

/// Something that happened in an nsqd.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A client was not authorized, because no auth server gave a valid answer; the text says why.
    AuthFailed(Peer, String),
    /// A channel came into being.
    ChannelCreated(TopicName, ChannelName),
    /// A channel is deleted.
    ChannelDeleted(TopicName, ChannelName),
    /// A client was told that it broke the protocol.
    ClientRefused(Peer, ProtocolError),
    /// A client connected.
    ClientConnected(Peer),
    /// A client's connection was given up, and why.
    ClientFailed(Peer, ClientFailure),
    /// A client's connection ended.
    ClientLeft(Peer),
    /// Something about the queue of a topic or channel on disk.
    Disk(Box<(Store, DiskEvent)>),
    /// A client identified itself with these bytes, of which there are at most
    /// [`SHOWN_LEN_MAX`](crate::log::SHOWN_LEN_MAX) and a word about the rest.
    Identified(Peer, String),
    /// Something about an nsqlookupd.
    Lookup(Box<LookupPeerEvent>),
    /// An nsqlookupd is asked this for the channels of a new topic.
    LookupAsked(String),
    /// Not every nsqlookupd told the channels of this new topic, and why.
    LookupFailed(TopicName, String),
    /// A client said which protocol it speaks.
    Magic(Peer, [u8; 4]),
    /// No nsqlookupd could be asked for the channels of this new topic.
    NobodyAsked(TopicName),
    /// The list of topics and channels can't be written. It is retried; once per change of state.
    MetadataFailed(Failure),
    /// More queues than these had trouble at the end, and are not named: so many lines were left
    /// out.
    QueuesLeftOut(u64),
    /// Nothing more is pushed to statsd.
    StatsdClosed,
    /// A topic came into being.
    TopicCreated(TopicName),
    /// A topic is deleted.
    TopicDeleted(TopicName),
    /// A client's connection gets a layer.
    #[cfg(feature = "upgrade")]
    Upgrading(Peer, crate::upgrade::Layer),
}

/// Why a client's connection was given up without an error frame.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientFailure {
    /// TLS, Snappy or Deflate can't read what it sends.
    #[cfg(feature = "upgrade")]
    Layer(crate::upgrade::UpgradeError),
    /// The line is longer than the limit.
    LineTooLong,
    /// No command came within two heartbeat intervals.
    ReadDeadline,
    /// It took no bytes for a heartbeat interval.
    WriteDeadline,
}

impl fmt::Display for ClientFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "upgrade")]
            Self::Layer(error) => return write!(f, "failed to read command - {error}"),
            Self::LineTooLong => "failed to read command - line too long",
            Self::ReadDeadline => "failed to read command - i/o timeout",
            Self::WriteDeadline => "failed to send - i/o timeout",
        })
    }
}

impl Event {
    /// What kind of line it is, in words, if peers can cause as many of them as they like. Whoever
    /// writes the log may leave lines of a kind out, and say how many.
    pub const fn kind(&self) -> Option<&'static str> {
        Some(match self {
            Self::AuthFailed(..) => "failed AUTH",
            Self::ChannelCreated(..) => "new channels",
            Self::ChannelDeleted(..) => "deleted channels",
            Self::ClientRefused(_, error) => error.code().as_str(),
            Self::ClientConnected(_) => "new clients",
            Self::ClientFailed(..) => "failing clients",
            Self::ClientLeft(_) => "clients that left",
            Self::Identified(..) => "IDENTIFY",
            Self::Lookup(_) => "nsqlookupds",
            Self::LookupAsked(_) | Self::LookupFailed(..) | Self::NobodyAsked(_) => {
                "channels of new topics"
            }
            Self::Magic(..) => "protocol magic",
            Self::TopicCreated(_) => "new topics",
            Self::TopicDeleted(_) => "deleted topics",
            #[cfg(feature = "upgrade")]
            Self::Upgrading(..) => "upgrades",
            Self::Disk(_)
            | Self::MetadataFailed(_)
            | Self::QueuesLeftOut(_)
            | Self::StatsdClosed => return None,
        })
    }

    /// How loud the line is.
    pub fn level(&self) -> Level {
        match self {
            Self::ClientRefused(..)
            | Self::ClientFailed(..)
            | Self::MetadataFailed(_)
            | Self::NobodyAsked(_) => Level::Error,
            Self::Disk(event) => event.1.level(),
            Self::AuthFailed(..) | Self::LookupFailed(..) | Self::QueuesLeftOut(_) => Level::Warn,
            Self::Lookup(event) => event.level(),
            #[cfg(feature = "upgrade")]
            Self::Upgrading(..) => Level::Info,
            Self::ChannelCreated(..)
            | Self::ChannelDeleted(..)
            | Self::ClientConnected(..)
            | Self::ClientLeft(..)
            | Self::Identified(..)
            | Self::LookupAsked(..)
            | Self::Magic(..)
            | Self::StatsdClosed
            | Self::TopicCreated(..)
            | Self::TopicDeleted(..) => Level::Info,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthFailed(peer, why) => {
                write!(f, "PROTOCOL(V2): [{peer}] AUTH failed {why}")
            }
            Self::ChannelCreated(topic, channel) => {
                write!(f, "TOPIC({topic}): new channel({channel})")
            }
            Self::ChannelDeleted(topic, channel) => {
                write!(f, "TOPIC({topic}): deleting channel {channel}")
            }
            Self::ClientRefused(peer, error) => write!(f, "[{peer}] - {error}"),
            Self::ClientConnected(peer) => write!(f, "TCP: new client({peer})"),
            Self::ClientFailed(peer, failure) => write!(f, "client({peer}) - {failure}"),
            Self::ClientLeft(peer) => write!(f, "PROTOCOL(V2): [{peer}] exiting ioloop"),
            Self::Disk(event) => write!(f, "DISKQUEUE({}) {}", event.0, event.1),
            Self::Identified(peer, body) => write!(f, "[{peer}] IDENTIFY: {body}"),
            Self::Lookup(event) => event.fmt(f),
            Self::LookupAsked(url) => write!(f, "CI: querying nsqlookupd {url}"),
            Self::LookupFailed(topic, why) => write!(
                f,
                "failed to query nsqlookupd for channels to pre-create for topic {topic} - {why}"
            ),
            Self::NobodyAsked(topic) => write!(
                f,
                "no available nsqlookupd to query for channels to pre-create for topic {topic}"
            ),
            Self::Magic(peer, [b' ', b' ', b'V', b'2']) => {
                write!(f, "CLIENT({peer}): desired protocol magic '  V2'")
            }
            Self::Magic(peer, magic) => {
                write!(f, "client({peer}) bad protocol magic '{}'", magic.escape_ascii())
            }
            Self::MetadataFailed(failure) => write!(f, "failed to persist metadata - {failure}"),
            Self::QueuesLeftOut(lines) => {
                let lines = Count(*lines, "more line");
                write!(f, "DISKQUEUE: left out {lines} about queues that end")
            }
            Self::StatsdClosed => f.write_str("STATSD: closing"),
            Self::TopicCreated(topic) => write!(f, "TOPIC({topic}): created"),
            Self::TopicDeleted(topic) => write!(f, "TOPIC({topic}): deleting"),
            #[cfg(feature = "upgrade")]
            Self::Upgrading(peer, layer) => {
                write!(f, "PROTOCOL(V2): [{peer}] upgrading connection to {layer}")
            }
        }
    }
}
