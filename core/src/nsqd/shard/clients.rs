//! The connections of a shard's clients, and the room that they share.

use alloc::vec::Vec;

use super::room::Room;
use crate::arena::{Arena, ConnId};
use crate::message::Bodies;
use crate::nsqd::actions::Actions;
use crate::nsqd::config::Config;
use crate::nsqd::connection::{Connection, Reply, Workspace};
use crate::protocol::error::ProtocolError;
use crate::time::Now;

/// The connections of a shard's clients, and the room that they share.
pub(super) struct Clients {
    pub(super) conns: Arena<ConnId, Connection>,
    /// Connections that may have to subscribe, leave their channel or be armed before the call
    /// returns.
    pub(super) unsettled: Vec<ConnId>,
    /// For what clients have unanswered.
    pub(super) room: Room,
    pub(super) bodies: Bodies,
    pub(super) workspace: Workspace,
}

impl Clients {
    /// Those of one of `shards` shards: none yet.
    pub(super) fn new(config: &Config, shards: u16) -> Self {
        Self {
            conns: Arena::new(),
            unsettled: Vec::new(),
            room: Room::new(config, shards),
            bodies: Bodies::default(),
            workspace: Workspace::default(),
        }
    }

    pub(super) fn insert(&mut self, connection: Connection) -> ConnId {
        let conn = self.conns.insert(connection);
        self.room.note_connections(self.conns.len());
        if let Some(connection) = self.conns.get_mut(conn) {
            connection.id = conn;
        }
        self.unsettled.push(conn);
        conn
    }

    /// Takes a connection out, with the room that it has.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Connection> {
        let mut connection = self.conns.remove(conn)?;
        self.room.leave(&mut connection);
        Some(connection)
    }

    /// Tells the client the outcome of its publish of `len` bytes, and takes their room back.
    pub(super) fn published(
        &mut self,
        conn: ConnId,
        slot: u64,
        len: u32,
        result: Result<(), ProtocolError>,
        now: Now,
        out: &mut Actions,
    ) {
        self.room.answered(self.conns.get_mut(conn), len as usize);
        if let Some(connection) = self.conns.get_mut(conn) {
            let reply = result.map_or_else(Reply::Error, |()| Reply::Ok);
            connection.complete(slot, reply, now, out);
            self.unsettled.push(conn);
        }
    }
}
