//! The driver: sockets, lanes, moves and clocks.

use core::time::Duration;
use std::collections::VecDeque;

use sansq_core::arena::ConnId;
use sansq_core::client::frame;
use sansq_core::nsqd::{Actions, Close, ReadState, Shard};
use sansq_core::transmit::Transmit;

use super::{Client, World};

impl World {
    pub(super) fn lane(&mut self, lane: usize) {
        let full: Vec<_> = self
            .lanes
            .iter()
            .filter(|(_, batches)| !batches.is_empty())
            .map(|(key, _)| *key)
            .collect();
        let Some(number) = lane.checked_rem(full.len()) else { return };
        let (from, to) = full[number];
        let batch = self.lanes.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        if let Some(mut batch) = batch {
            self.shards[to].handle_shard(&mut batch, self.now, &mut self.actions[to]);
        }
    }

    pub(super) fn arrive(&mut self, connection: usize) {
        let Some(number) = connection.checked_rem(self.moving.len()) else { return };
        let (at, detached, to) = self.moving.remove(number);
        let conn = self.shards[to].attach(detached, self.now, &mut self.actions[to]);
        self.clients[at].home = Some((to, conn));
        self.input(at);
        self.run();
        if self.clients[at].gone {
            self.close(at);
        }
    }

    pub(super) fn elapse(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let next = self.shards.iter().filter_map(Shard::poll_timeout).min();
            let next = next.filter(|next| *next < end.instant).unwrap_or(end.instant);
            self.now = self.now.after(next.saturating_since(self.now.instant));
            for shard in 0..self.shards.len() {
                self.shards[shard].handle_timeout(self.now, &mut self.actions[shard]);
            }
            self.run();
            if next == end.instant {
                return;
            }
        }
    }

    /// Everything under way arrives.
    pub(super) fn flush(&mut self) {
        self.run();
        while !self.moving.is_empty() || self.lanes.values().any(|batches| !batches.is_empty()) {
            self.arrive(0);
            self.run();
            self.lane(0);
            self.run();
        }
        let closing = |client: &Client| client.closing && !client.gone;
        for at in 0..self.clients.len() {
            if closing(&self.clients[at]) {
                self.close(at);
            }
        }
        self.run();
        if !self.moving.is_empty() || self.lanes.values().any(|batches| !batches.is_empty()) {
            self.flush();
        }
    }

    pub(super) fn send(&mut self, at: usize, bytes: &[u8]) {
        self.clients[at].input.extend_from_slice(bytes);
        if !self.clients[at].waits {
            self.input(at);
        }
        self.run();
    }

    pub(super) fn input(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some((shard, conn)) = client.home else { return };
        if client.closing || client.gone {
            return;
        }
        let out = &mut self.actions[shard];
        let state = self.shards[shard].handle_input(conn, &mut client.input, self.now, out);
        client.waits = state == ReadState::Wait;
        if let Some((place, _)) = client.place
            && client.input.is_empty()
        {
            // What was in time is done with.
            for (_, number, until) in client.finishing.drain(..) {
                if until > self.now.instant {
                    self.messages[number].finished_on.insert(place);
                }
            }
        }
    }

    /// The socket is gone.
    pub(super) fn close(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.gone = true;
        if let Some((shard, conn)) = client.home.take() {
            self.shards[shard].handle_closed(conn, self.now, &mut self.actions[shard]);
        }
        self.run();
    }

    /// Carries out everything but what takes its time.
    pub(super) fn run(&mut self) {
        while let Some(shard) = self.actions.iter().position(|actions| !actions.is_empty()) {
            let fresh = Actions::new(self.shards.len() as u16);
            let actions = core::mem::replace(&mut self.actions[shard], fresh);
            for conn in actions.transmit {
                if let Some(at) = self.client_of(shard, conn) {
                    self.write(at);
                }
            }
            for (conn, how) in actions.close {
                if let Some(at) = self.client_of(shard, conn) {
                    self.write(at);
                    let before = core::mem::replace(&mut self.clients[at].closing, true);
                    assert!(!before || how == Close::Now, "closed twice");
                    if before {
                        self.close(at);
                    }
                }
            }
            for (conn, home) in actions.rehome {
                if let Some(at) = self.client_of(shard, conn) {
                    let detached = self.shards[shard].detach(conn).expect("it is there");
                    self.clients[at].home = None;
                    self.moving.push((at, detached, usize::from(home.0)));
                }
            }
            for conn in actions.resume {
                if let Some(at) = self.client_of(shard, conn) {
                    self.input(at);
                }
            }
            for (to, batch) in actions.lanes.into_iter().enumerate() {
                if !batch.is_empty() {
                    self.lanes.entry((shard, to)).or_default().push_back(batch);
                }
            }
            for (token, reply) in actions.replies {
                self.replied(token.0, reply);
            }
        }
    }

    pub(super) fn write(&mut self, at: usize) {
        let mut unsent = Transmit::new();
        loop {
            let client = &mut self.clients[at];
            let Some((shard, conn)) = client.home.filter(|_| client.reads) else { return };
            if unsent.is_empty() {
                self.shards[shard].swap_transmit(conn, &mut unsent);
            }
            let mut slices = [&[][..]; 8];
            let count = unsent.slices(&mut slices);
            let bytes = slices[..count].concat();
            if bytes.is_empty() {
                return;
            }
            unsent.advance(bytes.len());
            client.received.extend_from_slice(&bytes);
            let out = &mut self.actions[shard];
            self.shards[shard].handle_sent(conn, bytes.len(), self.now, out);
            loop {
                let received = &mut self.clients[at].received;
                match frame::decode(received, 1 << 20).expect("a shard sends frames") {
                    Some(frame) => self.frame(at, frame),
                    None => break,
                }
            }
        }
    }

    fn client_of(&self, shard: usize, conn: ConnId) -> Option<usize> {
        self.clients.iter().position(|client| client.home == Some((shard, conn)))
    }
}
