//! Shard 0's dealings with the nsqlookupds.

use bytes::BytesMut;

use super::Shard;
use crate::arena::PeerId;
use crate::nsqd::actions::{Actions, ShardId, ShardMessage};
use crate::nsqd::registry::Announcement;
use crate::time::Now;

impl Shard {
    pub(super) fn start_peers(&mut self, _now: Now, _out: &mut Actions) {}
    /// x
    pub fn handle_peer_connected(&mut self, _peer: PeerId, _now: Now, _out: &mut Actions) {}
    /// x
    pub fn handle_peer_input(
        &mut self,
        _peer: PeerId,
        _input: &mut BytesMut,
        _now: Now,
        _out: &mut Actions,
    ) {
    }
    /// x
    pub fn handle_peer_closed(
        &mut self,
        _peer: PeerId,
        _reason: &str,
        _now: Now,
        _out: &mut Actions,
    ) {
    }
    pub(super) fn handle_peer_timeout(&mut self, _peer: PeerId, _now: Now, _out: &mut Actions) {}

    /// Lets shard 0 know of a change.
    pub(super) fn announce(&mut self, change: Announcement, _now: Now, out: &mut Actions) {
        if self.id.0 != 0 {
            return out.tell(ShardId(0), ShardMessage::Announce(change));
        }
        if self.registry.note(change) {}
    }
}
