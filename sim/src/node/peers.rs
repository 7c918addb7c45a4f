//! An nsqd's connections to nsqlookupds.

use bytes::BytesMut;
use sansq_core::arena::PeerId;
use sansq_core::nsqd::PeerAction;

use super::{Node, PeerSocket, client, lookupd_of};
use crate::env::Env;
use crate::net::{Endpoint, LinkId};

impl Node {
    pub(crate) fn peer_connected(&mut self, peer: PeerId, link: LinkId, env: &mut Env) {
        if let Some(socket) = self.peers.get_mut(&peer)
            && socket.link == link
        {
            socket.connected = true;
            self.turn(0, env, |shard, now, out| shard.handle_peer_connected(peer, now, out));
            self.peer_flush(peer, env);
        }
    }

    pub(crate) fn peer_readable(&mut self, peer: PeerId, link: LinkId, env: &mut Env) {
        let Some(socket) = self.peers.get_mut(&peer) else { return };
        if socket.link != link {
            return;
        }
        let read = env.net.read(client(link), &mut socket.input, env.now, &mut env.queue);
        if read.len > 0 {
            let mut input = core::mem::take(&mut socket.input);
            self.turn(0, env, |shard, now, out| {
                shard.handle_peer_input(peer, &mut input, now, out);
            });
            // The peer may have been closed in that turn, and dialled again.
            if let Some(socket) = self.peers.get_mut(&peer)
                && socket.link == link
            {
                socket.input = input;
            }
        }
        if read.is_end {
            self.peer_closed(peer, link, "EOF", env);
        }
    }

    pub(crate) fn peer_writable(&mut self, peer: PeerId, link: LinkId, env: &mut Env) {
        if self.peers.get(&peer).is_some_and(|socket| socket.link == link) {
            self.peer_flush(peer, env);
        }
    }

    /// The dial failed, or the connection is gone.
    pub(crate) fn peer_closed(&mut self, peer: PeerId, link: LinkId, why: &str, env: &mut Env) {
        if self.peers.get(&peer).is_some_and(|socket| socket.link == link) {
            self.peers.remove(&peer);
            env.net.close(client(link), env.now, &mut env.queue);
            self.turn(0, env, |shard, now, out| shard.handle_peer_closed(peer, why, now, out));
        }
    }

    pub(super) fn peer_action(&mut self, peer: PeerId, action: PeerAction, env: &mut Env) {
        match action {
            PeerAction::Dial(address) => {
                let Some(lookupd) = lookupd_of(&address) else { return };
                let (client, server) =
                    (Endpoint::Peer { node: self.index, peer }, Endpoint::Lookupd(lookupd));
                let link = env.net.dial(client, server, env.now, &mut env.queue);
                let (input, outbox) = (BytesMut::new(), BytesMut::new());
                let socket = PeerSocket { link, input, outbox, connected: false };
                self.peers.insert(peer, socket);
            }
            PeerAction::Send(bytes) => {
                if let Some(socket) = self.peers.get_mut(&peer) {
                    socket.outbox.extend_from_slice(&bytes);
                }
                self.peer_flush(peer, env);
            }
            PeerAction::Close => {
                if let Some(socket) = self.peers.remove(&peer) {
                    env.net.close(client(socket.link), env.now, &mut env.queue);
                }
            }
        }
    }

    pub(super) fn peer_flush(&mut self, peer: PeerId, env: &mut Env) {
        if let Some(socket) = self.peers.get_mut(&peer)
            && socket.connected
        {
            env.net.write(client(socket.link), &mut socket.outbox, env.now, &mut env.queue);
        }
    }
}
