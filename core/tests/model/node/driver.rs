//! What takes its time: lanes, moves, closes and clocks.

use core::time::Duration;

use sansq_core::client::frame;
use sansq_core::testing::Holds;

use super::Harness;

impl Harness {
    pub(super) fn lane(&mut self, batch: usize) {
        if let Some(at) = batch.checked_rem(self.node.batches().len()) {
            self.node.deliver(at);
            self.look();
        }
    }

    pub(super) fn arrive(&mut self, connection: usize) {
        if let Some(at) = connection.checked_rem(self.node.moving()) {
            self.node.arrive(at);
            self.look();
        }
    }

    pub(super) fn elapse(&mut self, duration: Duration) {
        let end = self.node.now.after(duration).instant;
        loop {
            let next = self.node.poll_timeout().filter(|next| *next < end).unwrap_or(end);
            self.node.advance(next.saturating_since(self.node.now.instant));
            self.look();
            if next == end {
                return;
            }
        }
    }

    /// Everything under way arrives.
    pub(super) fn flush(&mut self) {
        self.node.set_holds(Holds::NOTHING);
        self.look();
        self.node.set_holds(Holds::WAYS);
    }

    pub(super) fn send(&mut self, at: usize, bytes: &[u8]) {
        self.node.send(self.clients[at].id, bytes);
        self.look();
    }

    /// The socket is gone.
    pub(super) fn close(&mut self, at: usize) {
        self.node.close(self.clients[at].id);
        self.look();
    }

    /// Clients look at what they were sent, and the bookkeeper at what was read of them.
    pub(super) fn look(&mut self) {
        let mut received = self.node.all_received();
        while !received.is_empty() {
            for (id, bytes) in received {
                let at = self.clients.iter().position(|client| client.id == id);
                let at = at.expect("it is one of ours");
                self.clients[at].received.extend_from_slice(&bytes);
                while let Some(frame) = frame::decode(&mut self.clients[at].received, 1 << 20)
                    .expect("a shard sends frames")
                {
                    self.frame(at, frame);
                }
            }
            received = self.node.all_received();
        }
        let now = self.node.now.instant;
        for client in &mut self.clients {
            if let Some((place, _)) = client.place
                && self.node.unread(client.id) == 0
            {
                // What was in time is done with.
                for (_, number, until) in client.finishing.drain(..) {
                    if until > now {
                        self.messages[number].finished_on.insert(place);
                    }
                }
            }
        }
        while let Some((token, reply)) = self.node.replies.pop_first() {
            self.replied(token, reply);
        }
    }
}
