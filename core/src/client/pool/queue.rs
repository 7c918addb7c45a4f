//! The publishes that wait for an nsqd.

use alloc::collections::VecDeque;

use super::super::actions::PublishId;
use super::super::transactions::Publish;

/// In order. What is over keeps its place until it is at the front, or until half of the queue is
/// over.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<(PublishId, Publish)>,
    /// How many of them are over.
    dead: usize,
}

impl Queue {
    pub(super) fn push_back(&mut self, id: PublishId, publish: Publish) {
        self.entries.push_back((id, publish));
    }

    pub(super) fn push_front(&mut self, id: PublishId, publish: Publish) {
        self.entries.push_front((id, publish));
    }

    /// The next, which may be over.
    pub(super) fn front(&self) -> Option<PublishId> {
        self.entries.front().map(|(id, _)| *id)
    }

    pub(super) fn pop_front(&mut self) -> Option<(PublishId, Publish)> {
        self.entries.pop_front()
    }

    /// Drops the next, which is over.
    pub(super) fn pop_dead(&mut self) {
        self.entries.pop_front();
        self.dead = self.dead.saturating_sub(1);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.dead = 0;
    }

    /// One of the entries is over. `is_alive` says which are not.
    pub(super) fn note_dead(&mut self, is_alive: impl Fn(PublishId) -> bool) {
        self.dead += 1;
        // Each clearing pays for itself with the deaths before it.
        if self.dead * 2 > self.entries.len() {
            self.entries.retain(|(id, _)| is_alive(*id));
            self.dead = 0;
        }
    }
}
