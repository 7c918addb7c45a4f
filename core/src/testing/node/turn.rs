//! What a runtime does: it carries out what the shards ask for.

use core::mem;

use super::{Batch, ClientId, Node};
use crate::arena::ConnId;
use crate::machine::{Machine, MachineActions, ReadState};
use crate::nsqd::http::Memory;
use crate::nsqd::{Actions, Close, StatsdAction};
use crate::transmit::Transmit;

impl Node {
    /// Carries everything out until nothing is left to do but what waits.
    pub(super) fn run(&mut self) {
        loop {
            if let Some(shard) = self.actions.iter().position(|actions| !actions.is_empty()) {
                let actions = mem::take(&mut self.actions[shard]);
                self.act(shard, actions);
            } else if !self.holds.lanes && !self.batches.is_empty() {
                self.pass(0);
            } else if !self.holds.moves && !self.moving.is_empty() {
                self.attach(0);
            } else if let Some(client) = self.closing() {
                self.gone(client);
            } else if !self.holds.disk && !self.requests.is_empty() {
                // One at a time, so that what follows from it is seen before the next.
                self.serve(0);
            } else {
                return;
            }
        }
    }

    /// Carries out what one shard asks for, in the order of the fields.
    fn act(&mut self, shard: usize, actions: Actions) {
        let Actions {
            events,
            transmit,
            close,
            rehome,
            resume,
            lanes,
            peers,
            calls,
            statsd,
            replies,
            storage,
        } = actions;
        self.events.extend(events);
        for conn in transmit {
            if let Some(client) = self.find(shard, conn) {
                let closed = self.links[client.0].closed;
                assert_eq!(closed, None, "something to send behind a close");
                self.write(client);
            }
        }
        for (conn, how) in close {
            if let Some(client) = self.find(shard, conn) {
                // What is owed at this moment is still sent.
                self.write(client);
                let before = self.links[client.0].closed.replace(how);
                assert!(before != Some(Close::Now) && before != Some(how), "closed twice");
                if !self.holds.closes {
                    self.gone(client);
                }
            }
        }
        for (conn, home) in rehome {
            if let Some(client) = self.find(shard, conn) {
                let link = &mut self.links[client.0];
                assert!(link.unsent.is_empty(), "it moves while bytes are unsent");
                let detached = self.shards[shard].detach(conn).expect("it is there until it moves");
                (link.shard, link.conn) = (usize::from(home.0), None);
                self.moving.push_back((client, detached));
                if !self.holds.moves {
                    self.attach(self.moving.len() - 1);
                }
            }
        }
        for conn in resume {
            if let Some(client) = self.find(shard, conn) {
                self.input(client);
            }
        }
        for (to, messages) in lanes.into_iter().enumerate() {
            if !messages.is_empty() {
                self.batches.push_back(Batch { from: shard, to, messages });
                if !self.holds.lanes {
                    self.pass(self.batches.len() - 1);
                }
            }
        }
        self.peers.extend(peers);
        self.calls.extend(calls.into_iter().map(|(id, call)| (shard, id, call)));
        for action in statsd {
            if action == StatsdAction::Measure {
                let out = &mut self.actions[shard];
                self.shards[shard].handle_memory(Memory::default(), self.now, out);
            } else {
                self.statsd.push(action);
            }
        }
        self.replies.extend(replies);
        self.requests.extend(storage.into_iter().map(|request| (shard, request)));
    }

    /// Gives a shard what its client has sent.
    pub(super) fn input(&mut self, client: ClientId) {
        let link = &mut self.links[client.0];
        let Some(conn) = link.conn.filter(|_| link.closed.is_none()) else { return };
        let (before, out) = (link.input.len(), &mut self.actions[link.shard]);
        let state = self.shards[link.shard].handle_input(conn, &mut link.input, self.now, out);
        assert!(link.input.len() <= before, "a shard adds nothing to its input");
        assert_ne!(state, ReadState::More(0), "a driver that reads nothing would wait for ever");
        link.waits = state == ReadState::Wait;
    }

    /// Writes what a client is owed, if it reads, a few slices at a time as a socket does.
    pub(super) fn write(&mut self, client: ClientId) {
        let link = &mut self.links[client.0];
        while link.reads {
            if link.unsent.is_empty()
                && let Some(conn) = link.conn
            {
                self.shards[link.shard].swap_transmit(conn, &mut link.unsent);
            }
            let mut slices = [&[][..]; 8];
            let count = link.unsent.slices(&mut slices);
            let bytes = slices[..count].concat();
            if bytes.is_empty() {
                return;
            }
            link.unsent.advance(bytes.len());
            if let Some(conn) = link.conn {
                let out = &mut self.actions[link.shard];
                self.shards[link.shard].handle_sent(conn, bytes.len(), self.now, out);
            }
            self.received.push((client, bytes));
        }
    }

    /// The socket is gone. A shard that does not have the connection just now hears of it later.
    pub(super) fn gone(&mut self, client: ClientId) {
        let link = &mut self.links[client.0];
        link.is_gone = true;
        if let Some(conn) = link.conn.take() {
            let shard = &mut self.shards[link.shard];
            shard.handle_closed(conn, self.now, &mut self.actions[link.shard]);
            let mut rest = Transmit::new();
            shard.swap_transmit(conn, &mut rest);
            assert!(rest.is_empty(), "something to send to nobody");
        }
    }

    /// Gives a receiver batch number `at`.
    pub(super) fn pass(&mut self, at: usize) {
        if let Some(Batch { to, mut messages, .. }) = self.batches.remove(at) {
            self.shards[to].handle_shard(&mut messages, self.now, &mut self.actions[to]);
            assert!(messages.is_empty(), "a batch is taken whole");
        }
    }

    /// Puts connection number `at` of those under way into its new shard, and tells it what
    /// happened meanwhile.
    pub(super) fn attach(&mut self, at: usize) {
        let Some((client, detached)) = self.moving.remove(at) else { return };
        let link = &mut self.links[client.0];
        let shard = link.shard;
        let conn = self.shards[shard].attach(detached, self.now, &mut self.actions[shard]);
        link.conn = Some(conn);
        let (has_ended, is_gone) = (link.has_ended, link.is_gone);
        self.input(client);
        if has_ended {
            self.shards[shard].handle_eof(conn, self.now, &mut self.actions[shard]);
        }
        if is_gone {
            self.gone(client);
        }
    }

    /// The disk carries out request number `at`.
    pub(super) fn serve(&mut self, at: usize) {
        if let Some((shard, request)) = self.requests.remove(at) {
            let completion = self.files.carry_out(&request);
            self.shards[shard].handle_storage(completion, self.now, &mut self.actions[shard]);
        }
    }

    /// A client whose socket is to be closed now.
    fn closing(&self) -> Option<ClientId> {
        let is_it = |link: &super::Link| link.closed.is_some() && link.conn.is_some();
        let found = self.links.iter().position(is_it);
        found.filter(|_| !self.holds.closes).map(ClientId)
    }

    fn find(&self, shard: usize, conn: ConnId) -> Option<ClientId> {
        let is_it = |link: &super::Link| link.shard == shard && link.conn == Some(conn);
        self.links.iter().position(is_it).map(ClientId)
    }
}
