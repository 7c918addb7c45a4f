//! The connections to the nsqlookupds, and what the shards are told of them.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::{Clerk, ClerkSink, Wake};
use crate::arena::{Arena, PeerId};
use crate::nsqd::actions::{Actions, PeerAction};
use crate::nsqd::event::Event;
use crate::nsqd::ids::ShardId;
use crate::nsqd::lookup_peer::{LookupPeer, LookupPeerEvent, PeerOutput};
use crate::nsqd::registry::Registry;
use crate::nsqd::shard_message::{Lookupds, ShardMessage};
use crate::protocol::lookup::{LookupdInfo, PeerInfo, Registration};
use crate::time::{Instant, Now};
use crate::version::NSQ_VERSION;

/// A connection to an nsqlookupd, and the earliest time at which the clerk will look at it.
#[derive(Debug)]
pub(super) struct PeerEntry {
    peer: LookupPeer,
    armed: Option<Instant>,
    /// What the shards were told of it: whether it is undecided, and its answer to IDENTIFY.
    told: Option<(bool, Option<LookupdInfo>)>,
}

/// Where a peer's wishes go.
struct Wishes<'a> {
    id: PeerId,
    address: Box<str>,
    registry: &'a Registry,
    out: &'a mut Actions,
}

impl PeerOutput for Wishes<'_> {
    fn dial(&mut self) {
        self.out.peers.push((self.id, PeerAction::Dial(self.address.clone())));
    }

    fn send(&mut self, bytes: &[u8]) {
        self.out.peers.push((self.id, PeerAction::Send(Bytes::copy_from_slice(bytes))));
    }

    fn close(&mut self) {
        self.out.peers.push((self.id, PeerAction::Close));
    }

    fn registrations(&mut self, all: &mut Vec<Registration>) {
        for (topic, entry) in self.registry.topics() {
            if entry.channels.is_empty() {
                all.push(Registration { topic: *topic, channel: None });
            }
            let channel = |channel| Registration { topic: *topic, channel: Some(channel) };
            all.extend(entry.channels.iter().map(|(name, _)| channel(*name)));
        }
    }

    fn event(&mut self, event: LookupPeerEvent) {
        self.out.events.push(Event::Lookup(Box::new(event)));
    }
}

impl Clerk {
    pub(super) fn handle_peer_connected(&mut self, id: PeerId, now: Now, out: &mut ClerkSink<'_>) {
        self.on_peer(id, now, out, |peer, now, out| peer.handle_connected(now, out));
    }

    pub(super) fn handle_peer_input(
        &mut self,
        id: PeerId,
        input: &mut BytesMut,
        now: Now,
        out: &mut ClerkSink<'_>,
    ) {
        self.on_peer(id, now, out, |peer, now, out| peer.handle_input(input, now, out));
    }

    pub(super) fn handle_peer_closed(
        &mut self,
        id: PeerId,
        reason: &str,
        now: Now,
        out: &mut ClerkSink<'_>,
    ) {
        self.on_peer(id, now, out, |peer, now, out| peer.handle_closed(reason, now, out));
    }

    pub(super) fn handle_peer_timeout(
        &mut self,
        id: PeerId,
        at: Instant,
        now: Now,
        out: &mut ClerkSink<'_>,
    ) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        if entry.armed.take_if(|armed| *armed == at).is_some() {
            self.on_peer(id, now, out, |peer, now, out| peer.handle_timeout(now, out));
        }
    }

    /// Ends the connections to nsqlookupds that `addresses` does not name and begins those that are
    /// new; the others notice nothing.
    pub(super) fn set_peers(&mut self, addresses: &[String], now: Now, out: &mut ClerkSink<'_>) {
        let wanted: BTreeSet<_> = addresses.iter().map(String::as_str).collect();
        let left = |(id, entry): (PeerId, &PeerEntry)| {
            (!wanted.contains(entry.peer.address())).then_some(id)
        };
        let left: Vec<_> = self.peers.iter().filter_map(left).collect();
        for id in left {
            self.on_peer(id, now, out, |peer, _, out| peer.stop(out));
            self.peers.remove(id);
        }
        self.add_peers(addresses, now, out);
        self.tell_lookupds(out);
    }

    /// Begins the connections to those nsqlookupds that there is none to yet. One that is named
    /// twice is one; otherwise it would know two nsqds.
    pub(super) fn add_peers(&mut self, addresses: &[String], now: Now, out: &mut ClerkSink<'_>) {
        let mut known: BTreeSet<String> =
            self.peers.iter().map(|(_, entry)| entry.peer.address().into()).collect();
        let config = out.config;
        let info = PeerInfo {
            broadcast_address: config.broadcast_address.clone(),
            hostname: config.hostname.clone(),
            http_port: i64::from(config.broadcast_http_port),
            tcp_port: i64::from(config.broadcast_tcp_port),
            topology_region: config.topology_region.clone(),
            topology_zone: config.topology_zone.clone(),
            version: NSQ_VERSION.into(),
        };
        for address in addresses {
            if !known.insert(address.clone()) {
                continue;
            }
            let seed = out.rng.next_u64();
            let peer = LookupPeer::new(address.clone(), &info, config.max_body_size, seed);
            let id = self.peers.insert(PeerEntry { peer, armed: None, told: None });
            self.on_peer(id, now, out, |peer, now, out| peer.start(now, out));
        }
    }

    /// Tells the nsqlookupds of a topic or channel that is new, or gone.
    pub(super) fn tell_peers(
        &mut self,
        what: Registration,
        exists: bool,
        now: Now,
        out: &mut ClerkSink<'_>,
    ) {
        let peers: Vec<_> = self.peers.iter().map(|(id, _)| id).collect();
        for id in peers {
            self.on_peer(id, now, out, |peer, now, out| {
                if exists { peer.register(what, now, out) } else { peer.unregister(what, now, out) }
            });
        }
    }

    /// How many REGISTER commands the nsqlookupds in use had no room for.
    pub(in crate::nsqd::shard) fn refused_registrations(&self) -> u64 {
        self.peers.iter().map(|(_, entry)| entry.peer.refused()).sum()
    }

    pub(super) fn stop_peers(&mut self, out: &mut ClerkSink<'_>) {
        for (id, entry) in self.peers.iter_mut() {
            let address = entry.peer.address().into();
            let (registry, out) = (&self.registry, &mut *out.actions);
            entry.peer.stop(&mut Wishes { id, address, registry, out });
        }
        self.peers = Arena::new();
    }

    /// Calls a peer and sees to its deadline.
    fn on_peer(
        &mut self,
        id: PeerId,
        now: Now,
        out: &mut ClerkSink<'_>,
        call: impl FnOnce(&mut LookupPeer, Now, &mut Wishes<'_>),
    ) {
        let Some(entry) = self.peers.get_mut(id) else { return };
        let address = entry.peer.address().into();
        let (registry, actions) = (&self.registry, &mut *out.actions);
        call(&mut entry.peer, now, &mut Wishes { id, address, registry, out: actions });
        let due = entry.peer.poll_timeout();
        self.deadlines.arm_by(due, &mut entry.armed, Wake::Peer(id));
        let known = entry.told.as_ref().is_some_and(|(undecided, info)| {
            *undecided == entry.peer.is_undecided() && info.as_ref() == entry.peer.info()
        });
        if !known {
            entry.told = Some((entry.peer.is_undecided(), entry.peer.info().cloned()));
            self.tell_lookupds(out);
        }
    }

    /// Lets every shard know where the nsqlookupds are.
    fn tell_lookupds(&self, out: &mut ClerkSink<'_>) {
        let mut lookupds = Lookupds::default();
        for (_, PeerEntry { peer, .. }) in self.peers.iter() {
            match peer.info().and_then(LookupdInfo::http_address) {
                // Of two names of one nsqlookupd one is asked.
                Some(address) if lookupds.known.contains(&address) => {}
                Some(address) => lookupds.known.push(address),
                None if peer.is_undecided() => lookupds.undecided += 1,
                None => lookupds.unreached += 1,
            }
        }
        for shard in (1..self.shards).map(ShardId) {
            out.actions.tell(shard, ShardMessage::Lookupds(lookupds.clone()));
        }
        out.lookupds.push(lookupds);
    }
}
