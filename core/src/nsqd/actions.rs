//! What a shard asks of its driver.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use super::admin::AdminReply;
use super::connection::{Close, ConnectionOutput};
use super::event::Event;
use super::ids::{ReplyToken, ShardId};
use super::shard_message::ShardMessage;
use super::statsd::StatsdAction;
use crate::arena::{CallId, ConnId, PeerId};
use crate::http::call::Call;
use crate::machine::MachineActions;
use crate::storage;

/// Everything that one turn asks of the driver, grouped by who acts on it.
///
/// The driver owns it, hands it to every call, carries it out and clears it. Nothing else carries
/// consequences: what is not in here after a call needs nothing done. Carry the groups out in the
/// order of the fields.
#[derive(Debug, Default)]
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
    /// These connections, whose input was left alone
    /// ([`ReadState::Wait`](crate::machine::ReadState::Wait)), go on: call
    /// [`handle_input`](crate::machine::Machine::handle_input) with what is there, then read on.
    pub resume: Vec<ConnId>,
    /// A batch for each shard of the node, by its number, as far as there were any; hand it over
    /// whole and ring once.
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
        let at = usize::from(shard.0);
        if at >= self.lanes.len() {
            self.lanes.resize_with(at + 1, Vec::new);
        }
        self.lanes[at].push(message);
    }
}

impl MachineActions for Actions {
    fn is_empty(&self) -> bool {
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

    fn clear(&mut self) {
        self.events.clear();
        self.transmit.clear();
        self.close.clear();
        self.rehome.clear();
        self.resume.clear();
        self.lanes.iter_mut().for_each(Vec::clear);
        self.peers.clear();
        self.calls.clear();
        self.statsd.clear();
        self.replies.clear();
        self.storage.clear();
    }
}

impl ConnectionOutput for Actions {
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn transmit(&mut self, conn: ConnId) {
        self.transmit.push(conn);
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        self.close.push((conn, how));
    }

    fn resume(&mut self, conn: ConnId) {
        self.resume.push(conn);
    }
}

/// Events and requests that an empty list keeps room for; each takes some 200 bytes.
const KEPT_MAX: usize = 1024;

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
