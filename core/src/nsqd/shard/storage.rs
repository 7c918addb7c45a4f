//! What is on disk: taken over at the start, followed while running, completed at the end.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::Shard;
use super::tickets::Tickets;
use crate::nsqd::actions::Actions;
use crate::nsqd::backlog::Beyond;
use crate::storage::{Completion, Failure, Found, Metadata, Owner, RequestIds, Store};
use crate::time::Now;

/// What a shard's queues have in common on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Publishes whose messages are not all where they belong.
    pub(super) tickets: Tickets,
    pub(super) requests: RequestIds,
    /// Queues whose disk is in trouble, and which.
    ailing: BTreeMap<Owner, String>,
    /// Publishes that it did not take in time.
    pub(super) refused: u64,
}

impl Disk {
    /// Takes note of whether a queue's disk is in trouble.
    fn note_health(&mut self, owner: Owner, failure: Option<&Failure>) {
        match failure {
            Some(failure) => {
                self.ailing.insert(owner, String::from(failure.in_words()));
            }
            None if !self.ailing.is_empty() => {
                self.ailing.remove(&owner);
            }
            None => {}
        }
    }

    /// A queue is gone, and so is its trouble.
    pub(super) fn forget(&mut self, owner: Owner) {
        self.ailing.remove(&owner);
    }
}

impl Shard {
    /// Makes the topics and channels of `metadata` that are at home on this shard. To be called at
    /// most once, right before [`start`](Self::start), on every shard.
    ///
    /// `look` says what a queue has on disk, if that is known: then the queue has it when this
    /// returns. One of which it says `None` asks ([`Op::Open`](crate::storage::Op::Open)), and is
    /// taken for empty until the answer is in.
    pub fn load(
        &mut self,
        metadata: &Metadata,
        mut look: impl FnMut(&Store) -> Option<Found>,
        now: Now,
        out: &mut Actions,
    ) {
        // Every shard is told everything, so nothing of it is announced.
        if let Some(clerk) = &mut self.clerk {
            clerk.load(metadata);
        }
        let shards = self.shards;
        let own = metadata.topics.iter().filter(|record| record.name.home(shards) == self.id.0);
        let own: Vec<_> = own.collect();
        self.topics.reserve(own.len());
        self.channels.reserve(own.iter().map(|record| record.channels.len()).sum());
        let mut names = Vec::with_capacity(own.len());
        for record in own {
            let (beyond, topic_found) =
                self.beyond_known(Store::Queue(record.name, None), &mut look);
            let topic = self.make_topic(record.name, beyond, now, out);
            names.push((record.name, topic));
            if record.paused {
                self.on_topic(topic, now, out, |topic, _, _, _| topic.set_paused(true));
            }
            for (at, channel) in record.channels.iter().enumerate() {
                let store = Store::Queue(record.name, Some(channel.name));
                let (beyond, found) = self.beyond_known(store, &mut look);
                let made = self.make_channel(topic, at, channel.name, beyond, now, out);
                let Some(id) = made else { continue };
                if channel.paused {
                    self.on_channel(id, now, out, |entry, now, out| {
                        entry.set_paused(true, now, out);
                    });
                }
                if let Some(found) = found {
                    self.on_channel(id, now, out, |channel, now, out| {
                        channel.handle_found(&found, now, out);
                    });
                }
            }
            // Last: what it has goes to all its channels.
            if let Some(found) = topic_found {
                self.on_topic(topic, now, out, |topic, ids, now, out| {
                    topic.handle_found(&found, now, out);
                    topic.pump(now, ids, out);
                });
                self.forget_all_moved(now, out);
            }
        }
        self.topic_names = names.into_iter().collect();
    }

    /// Where the messages of a queue go, and what it has there, if somebody has looked and there is
    /// something.
    fn beyond_known(
        &self,
        store: Store,
        look: &mut impl FnMut(&Store) -> Option<Found>,
    ) -> (Beyond, Option<Found>) {
        let is_ephemeral = match &store {
            Store::Queue(_, Some(channel)) => channel.is_ephemeral(),
            Store::Queue(topic, None) => topic.is_ephemeral(),
            Store::Metadata => false,
        };
        match self.beyond(is_ephemeral) {
            Beyond::Disk(options) => match look(&store) {
                Some(found) if found.is_empty() => (Beyond::Unused(options), None),
                Some(found) => (Beyond::LookedAt(options), Some(found)),
                None => (Beyond::Disk(options), None),
            },
            beyond @ (Beyond::Dropped
            | Beyond::LookedAt(_)
            | Beyond::Nowhere
            | Beyond::Unused(_)) => (beyond, None),
        }
    }

    /// A request in [`Actions::storage`](Actions) was carried out, or failed. In which order is
    /// said in [`storage`](crate::storage).
    pub fn handle_storage(&mut self, completion: Completion, now: Now, out: &mut Actions) {
        let Completion { id: request, owner, result } = completion;
        self.life.note_answer(now);
        match owner {
            Owner::Channel(id) => {
                self.on_channel(id, now, out, |channel, now, out| {
                    channel.handle_storage(request, result, now, out);
                });
                self.note_health(owner);
                self.channel_flushed(id, now, out);
            }
            Owner::Metadata => self.metadata_written(request, result, now, out),
            Owner::Topic(id) => {
                let flushing = self.life.is_flushing();
                self.on_topic(id, now, out, |topic, ids, now, out| {
                    topic.handle_storage(request, result, now, out);
                    if !flushing {
                        topic.pump(now, ids, out);
                    }
                });
                self.note_health(owner);
                self.topic_flushed(id);
            }
        }
        self.settle_all(now, out);
    }

    /// Lets topics count the publishes that were accepted when the disk had them.
    pub(super) fn count_accepted(&mut self) {
        for (topic, volume) in self.disk.tickets.accepted.drain(..) {
            if let Some(entry) = self.topics.get_mut(topic) {
                entry.topic.count(volume);
            }
        }
    }

    /// Lets topics forget what they handed on, if anything.
    pub(super) fn forget_moved(&mut self, now: Now, out: &mut Actions) {
        if !self.disk.tickets.moved.is_empty() {
            self.forget_all_moved(now, out);
        }
    }

    /// Apart from the question, which is asked for each command.
    fn forget_all_moved(&mut self, now: Now, out: &mut Actions) {
        let mut moved = core::mem::take(&mut self.disk.tickets.moved);
        for (topic, record) in moved.drain(..) {
            self.on_topic(topic, now, out, |topic, _, now, out| topic.moved(record, now, out));
        }
        self.disk.tickets.moved = moved;
    }

    /// Takes note of whether a queue's disk is in trouble.
    fn note_health(&mut self, owner: Owner) {
        let failure = match owner {
            Owner::Channel(id) => self.channels.get(id).and_then(|entry| entry.channel.failure()),
            Owner::Topic(id) => self.topics.get(id).and_then(|entry| entry.topic.failure()),
            Owner::Metadata => None,
        };
        self.disk.note_health(owner, failure);
    }

    /// What ails this shard; `None` if it is well.
    pub(super) fn failure(&self) -> Option<String> {
        let ailing = self.disk.ailing.values().next().cloned();
        ailing.or_else(|| self.clerk.as_ref()?.failure())
    }
}
