//! What a shard asks of its driver, and what shards say to each other.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use super::admin::{AdminReply, AdminRequest};
use super::connection::Connection;
use super::event::Event;
use super::registry::Announcement;
use super::stats::ServerStats;
use super::statsd::StatsdAction;
use crate::arena::{CallId, ConnId, PeerId};
use crate::http::call::Call;
use crate::list::MessageList;
use crate::name::TopicName;
use crate::protocol::error::ProtocolError;
use crate::storage;

/// A shard of a node, counted from 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShardId(pub u16);

/// Everything that one turn asks of the driver, grouped by who acts on it.
///
/// The driver owns it, hands it to every call, carries it out and clears it. Nothing else carries
/// consequences: what is not in here after a call needs nothing done. Carry the groups out in the
/// order of the fields.
#[derive(Debug)]
pub struct Actions {
    /// For the log.
    pub events: Vec<Event>,
    /// These connections went from nothing to something to send: swap their bytes out and write
    /// them.
    pub transmit: Vec<ConnId>,
    /// These connections end.
    pub close: Vec<(ConnId, Close)>,
    /// These connections belong to another shard from now on: [`detach`](super::Shard::detach) them
    /// and hand socket, connection and unread input over to be [`attach`](super::Shard::attach)ed
    /// there.
    pub rehome: Vec<(ConnId, ShardId)>,
    /// These connections, whose input was left alone ([`ReadState::Wait`]), go on: call
    /// [`handle_input`](super::Shard::handle_input) with what is there, then read on.
    pub resume: Vec<ConnId>,
    /// One batch for each shard of the node, by its number; hand it over whole and ring once.
    pub lanes: Vec<Vec<ShardMessage>>,
    /// What to do with the connections to the nsqlookupds.
    pub peers: Vec<(PeerId, PeerAction)>,
    /// HTTP requests to carry out. Exactly one outcome of each goes to
    /// [`handle_called`](super::Shard::handle_called).
    pub calls: Vec<(CallId, Call)>,
    /// Statistics on their way to statsd, in order.
    pub statsd: Vec<StatsdAction>,
    /// Answers to [`handle_admin`](super::Shard::handle_admin).
    pub replies: Vec<(ReplyToken, AdminReply)>,
    /// What is to be done on the disk; hand the outcome of each to
    /// [`handle_storage`](super::Shard::handle_storage).
    pub storage: Vec<storage::Request>,
}

impl Actions {
    /// Empty actions for a shard of a node with `shards` shards.
    pub fn new(shards: u16) -> Self {
        Self {
            events: Vec::new(),
            transmit: Vec::new(),
            close: Vec::new(),
            rehome: Vec::new(),
            resume: Vec::new(),
            lanes: (0..shards).map(|_| Vec::new()).collect(),
            peers: Vec::new(),
            calls: Vec::new(),
            statsd: Vec::new(),
            replies: Vec::new(),
            storage: Vec::new(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.transmit.is_empty()
            && self.close.is_empty()
            && self.rehome.is_empty()
            && self.resume.is_empty()
            && self.lanes.iter().all(Vec::is_empty)
            && self.peers.is_empty()
            && self.calls.is_empty()
            && self.statsd.is_empty()
            && self.replies.is_empty()
            && self.storage.is_empty()
    }

    /// Gives the memory of an extraordinary turn back, such as a start with 10,000 topics. To be
    /// called when the events and what is to be done on the disk are carried out, or before they
    /// arise.
    pub fn trim(&mut self) {
        if self.events.is_empty() && self.events.capacity() > KEPT_MAX {
            self.events = Vec::new();
        }
        if self.storage.is_empty() && self.storage.capacity() > KEPT_MAX {
            self.storage = Vec::new();
        }
    }

    /// Appends to the batch for `shard`.
    pub(super) fn tell(&mut self, shard: ShardId, message: ShardMessage) {
        self.lanes[usize::from(shard.0)].push(message);
    }
}

/// Events and requests that an empty list keeps room for; each takes some 200 bytes.
const KEPT_MAX: usize = 1024;

/// How a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Close {
    /// Write what is owed, shut the sending side down, read and drop for a moment what the peer
    /// still sends (so that no reset overtakes an error frame, nsqd-protocol.md W20), close the
    /// socket and call [`handle_closed`](super::Shard::handle_closed).
    AfterSending,
    /// Close the socket now and call [`handle_closed`](super::Shard::handle_closed).
    Now,
}

/// What a driver does with a connection's input after a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum ReadState {
    /// Read more; the command under way is expected to take so many bytes more than there are. Make
    /// room for them, but call again with whatever comes: it may be complete before.
    More(usize),
    /// Read nothing until [`Actions::resume`] or [`Actions::rehome`] names the connection.
    Wait,
    /// Read nothing any more: the connection ends.
    Stop,
}

/// What the driver does with a connection to an nsqlookupd.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerAction {
    /// Connect to `host:port`, within a second, and report the outcome.
    Dial(Box<str>),
    /// Write these bytes.
    Send(Bytes),
    /// Close the connection; nothing needs to be reported.
    Close,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Peer {
    /// A TCP socket's remote address.
    Tcp(SocketAddr),
    /// A unix socket, which has no address.
    Unix,
}

impl fmt::Display for Peer {
    /// `ip:port`, or `@` for a unix socket (nsqd-protocol.md section 2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("@"),
        }
    }
}

/// Names an admin request; the driver's own number, handed back with the reply.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplyToken(pub u64);

/// For whom a shard gathers statistics.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Collector {
    /// Whoever made this admin request.
    Admin(ReplyToken),
    /// statsd.
    Statsd,
}

/// A connection on its way to another shard.
#[derive(Debug)]
pub struct Detached(pub(super) Box<Connection>);

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
        filter: Option<super::admin::StatsFilter>,
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
