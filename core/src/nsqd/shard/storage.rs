//! What is on disk: taken over at the start, followed while running, completed at the end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Shard;
use super::tables::Timer;
use crate::arena::{ChannelId, TopicId};
use crate::nsqd::actions::{Actions, ReplyToken, ShardId, ShardMessage};
use crate::nsqd::admin::AdminReply;
use crate::nsqd::event::Event;
use crate::nsqd::metadata::Written;
use crate::nsqd::registry::Announcement;
use crate::storage::{
    Answer, Done, Failure, FailureKind, File, Metadata, Op, Owner, Request, Store,
};
use crate::time::Now;

impl Shard {
    /// Makes the topics and channels of `metadata` that are at home on this shard. To be called at most
    /// once, right before [`start`](Self::start), on every shard.
    pub fn load(&mut self, metadata: &Metadata, now: Now, out: &mut Actions) {
        // Every shard is told everything, so nobody has to be told what is new.
        self.loading = true;
        for record in &metadata.topics {
            self.note_loaded(Announcement::TopicCreated(record.name));
            self.note_loaded(Announcement::TopicPaused(record.name, record.paused));
            for channel in &record.channels {
                self.note_loaded(Announcement::ChannelCreated(record.name, channel.name));
                let paused = Announcement::ChannelPaused(record.name, channel.name, channel.paused);
                self.note_loaded(paused);
            }
            if record.name.home(self.shards) != self.id.0 {
                continue;
            }
            let topic = self.topic(record.name, now, out);
            self.on_topic(topic, now, out, |topic, _, _, _| topic.set_paused(record.paused));
            for channel in &record.channels {
                let id = self.channel(topic, channel.name, now, out);
                if let Some(id) = id {
                    self.on_channel(id, now, out, |entry, now, out| {
                        entry.set_paused(channel.paused, now, out);
                    });
                }
            }
        }
        self.loading = false;
    }

    fn note_loaded(&mut self, change: Announcement) {
        if self.id.0 == 0 {
            self.registry.note(change);
        }
    }

    /// A request in [`Actions::storage`](Actions) was carried out, or failed. Requests of one owner are
    /// to be reported in the order in which they were made.
    pub fn handle_storage(&mut self, done: Done, now: Now, out: &mut Actions) {
        let Done { owner, result } = done;
        match owner {
            Owner::Channel(id) => {
                self.on_channel(id, now, out, |channel, now, out| {
                    channel.handle_storage(result, now, out);
                });
                self.note_health(owner);
                self.channel_flushed(id, now, out);
            }
            Owner::Metadata => self.metadata_written(result, now, out),
            Owner::Topic(id) => {
                let flushing = self.flushing;
                self.on_topic(id, now, out, |topic, ids, now, out| {
                    topic.handle_storage(result, now, out);
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

    /// Lets topics forget what they handed on.
    pub(super) fn forget_moved(&mut self, now: Now, out: &mut Actions) {
        if self.tickets.moved.is_empty() {
            return;
        }
        let mut moved = core::mem::take(&mut self.tickets.moved);
        for (topic, record) in moved.drain(..) {
            self.on_topic(topic, now, out, |topic, _, now, out| topic.moved(record, now, out));
        }
        self.tickets.moved = moved;
    }

    /// Writes what is only in memory to the disk. To be called once after
    /// [`shut_down`](Self::shut_down), when no shard of the node has connections any more; it is done
    /// when [`is_flushed`](Self::is_flushed).
    pub fn flush(&mut self, now: Now, out: &mut Actions) {
        if !self.config.disk || self.flushing {
            return;
        }
        self.flushing = true;
        let topics: Vec<_> = self.topics.iter().map(|(id, _)| id).collect();
        for topic in topics {
            let Some(entry) = self.topics.get(topic) else { continue };
            let is_ephemeral = entry.topic.name().is_ephemeral();
            for channel in entry.topic.channels().to_vec() {
                let flushed = self.on_channel(channel, now, out, |channel, now, out| {
                    // Nothing lists it, so what has no messages would lie there for good (W18).
                    if is_ephemeral && channel.is_empty() {
                        channel.delete(out);
                    } else {
                        channel.flush(now, out);
                    }
                    channel.is_flushed()
                });
                if flushed == Some(false) {
                    self.unflushed.insert(Owner::Channel(channel));
                }
            }
            self.flush_topic(topic, now, out);
        }
        if self.id.0 == 0 {
            self.shard_flushed();
        } else {
            // In order behind every change that this shard announced.
            out.tell(ShardId(0), ShardMessage::Flushing);
        }
        self.settle_all(now, out);
    }

    /// Whether everything that [`flush`](Self::flush) asked for is answered. On shard 0 the list of
    /// topics and channels is among it, which waits until every shard was told to flush.
    pub fn is_flushed(&self) -> bool {
        !self.config.disk
            || self.flushing
                && self.unflushed.is_empty()
                && (self.id.0 != 0 || self.is_last_metadata_asked() && self.metadata.is_saved())
    }

    /// What [`flush`](Self::flush) has not finished: for the log of a driver that does not wait longer.
    pub fn unflushed(&self) -> Vec<Store> {
        let queue = |owner: &Owner| match owner {
            Owner::Channel(id) => Some(self.channels.get(*id)?.store),
            Owner::Metadata => Some(Store::Metadata),
            Owner::Topic(id) => Some(self.topics.get(*id)?.store),
        };
        let queues = self.unflushed.iter().filter_map(queue);
        let metadata = self.id.0 == 0 && !self.metadata.is_saved();
        queues.chain(metadata.then_some(Store::Metadata)).collect()
    }

    /// A shard was told to flush: what it announced before is known.
    pub(super) fn shard_flushed(&mut self) {
        self.shards_flushing += 1;
        if self.is_last_metadata_asked() {
            self.metadata.hurry();
        }
    }

    const fn is_last_metadata_asked(&self) -> bool {
        self.shards_flushing >= self.shards
    }

    /// Goes on with flushing if this channel is done, or has given up.
    pub(super) fn channel_flushed(&mut self, id: ChannelId, now: Now, out: &mut Actions) {
        let Some(entry) = self.channels.get(id) else { return };
        if self.flushing && entry.channel.is_flushed() {
            let topic = entry.channel.topic();
            if self.unflushed.remove(&Owner::Channel(id)) {
                self.flush_topic(topic, now, out);
            }
        }
    }

    /// Takes note if this topic is flushed, or has given up.
    pub(super) fn topic_flushed(&mut self, id: TopicId) {
        if self.topics.get(id).is_none_or(|entry| entry.topic.is_flushed()) {
            self.unflushed.remove(&Owner::Topic(id));
        }
    }

    /// Flushes a topic whose channels are flushed: until then its own disk has what theirs may not.
    pub(super) fn flush_topic(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        let Some(entry) = self.topics.get(id) else { return };
        let waits = |id: &ChannelId| self.unflushed.contains(&Owner::Channel(*id));
        let waits = entry.topic.channels().iter().any(waits);
        self.unflushed.insert(Owner::Topic(id));
        if waits {
            return;
        }
        let flushed = self.on_topic(id, now, out, |topic, _, now, out| {
            topic.flush(now, out);
            topic.is_flushed()
        });
        if flushed != Some(false) {
            self.unflushed.remove(&Owner::Topic(id));
        }
    }

    /// Keeps the answer to an admin request back until the list of topics and channels is written.
    pub(super) fn persist(&mut self, from: ShardId, token: ReplyToken, out: &mut Actions) {
        if !self.config.disk || !self.metadata.wait(from, token) {
            self.reply_to(from, token, AdminReply::Done, out);
        }
    }

    /// Has the list of topics and channels written if it is time.
    pub(super) fn save_metadata(&mut self, now: Now, out: &mut Actions) {
        if self.metadata.is_saved() {
            return;
        }
        if let Some(contents) = self.metadata.begin(&self.registry, now) {
            let op = Op::Replace { file: File::Metadata, contents };
            out.storage.push(Request { owner: Owner::Metadata, store: Store::Metadata, op });
        }
        let due = self.metadata.poll_timeout();
        self.deadlines.arm_by(due, &mut self.metadata.armed, Timer::Metadata);
    }

    fn metadata_written(&mut self, result: Result<Answer, Failure>, now: Now, out: &mut Actions) {
        let mut waiting = Vec::new();
        let failure = result.as_ref().err().cloned();
        let written = self.metadata.handle_written(result.map(|_| ()), now, |shard, token| {
            waiting.push((shard, token));
        });
        if let (Written::FailedNow, Some(failure)) = (written, failure) {
            out.events.push(Event::MetadataFailed(failure));
        }
        for (shard, token) in waiting {
            self.reply_to(shard, token, AdminReply::Done, out);
        }
    }

    /// Takes note of whether a queue's disk is in trouble.
    fn note_health(&mut self, owner: Owner) {
        let failure = match owner {
            Owner::Channel(id) => self.channels.get(id).and_then(|entry| entry.channel.failure()),
            Owner::Topic(id) => self.topics.get(id).and_then(|entry| entry.topic.failure()),
            Owner::Metadata => None,
        };
        match failure {
            Some(failure) if !self.ailing.contains_key(&owner) => {
                self.ailing.insert(owner, in_words(failure));
            }
            None if !self.ailing.is_empty() => {
                self.ailing.remove(&owner);
            }
            Some(_) | None => {}
        }
    }

    /// What ails this shard; `None` if it is well.
    pub(super) fn failure(&self) -> Option<String> {
        if let Some(first) = self.ailing.values().next() {
            return Some(first.clone());
        }
        let failure = self.metadata.failure()?;
        Some(format!("failed to persist metadata - {}", in_words(failure)))
    }
}

/// A failure as an operator should read it.
fn in_words(failure: &Failure) -> String {
    match failure.kind {
        FailureKind::Full => format!("disk full - {failure}"),
        FailureKind::ReadOnly => format!("disk read-only - {failure}"),
        FailureKind::Missing | FailureKind::Other => failure.to_string(),
    }
}
