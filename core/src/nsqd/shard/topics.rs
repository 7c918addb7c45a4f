//! How topics and channels come and go.

use super::Shard;
use super::tables::{ChannelEntry, TopicEntry};
use crate::arena::{ChannelId, ConsumerId, TopicId};
use crate::name::{ChannelName, TopicName};
use crate::nsqd::actions::Actions;
use crate::nsqd::backlog::Beyond;
use crate::nsqd::channel::{Channel, ChannelOptions};
use crate::nsqd::event::Event;
use crate::nsqd::publish::TooMany;
use crate::nsqd::registry::Announcement;
use crate::nsqd::topic::Topic;
use crate::storage::{DiskOptions, Owner, Store};
use crate::time::Now;

impl Shard {
    /// The topic of this name, made if there is none. Only its home may ask.
    ///
    /// # Errors
    /// [`TooMany`] at `--max-topics`.
    pub(super) fn topic(
        &mut self,
        name: TopicName,
        now: Now,
        out: &mut Actions,
    ) -> Result<TopicId, TooMany> {
        if let Some(id) = self.topic_names.get(&name) {
            return Ok(*id);
        }
        self.check_topics()?;
        let id = self.make_topic(name, self.beyond(name.is_ephemeral()), now, out);
        self.announce(Announcement::TopicCreated(name), now, out);
        self.topic_names.insert(name, id);
        self.begin_precreate(id, now, out);
        Ok(id)
    }

    /// Makes a topic; the caller sees to its name, and announces it.
    pub(super) fn make_topic(
        &mut self,
        name: TopicName,
        beyond: Beyond,
        now: Now,
        out: &mut Actions,
    ) -> TopicId {
        let (limit, wait) = (self.config.mem_queue_size, self.config.publish_wait);
        let id = self.insert_topic(Store::Queue(name, None), now, out, |out| {
            Topic::new(name, limit, beyond, wait, out)
        });
        out.events.push(Event::TopicCreated(name));
        id
    }

    /// What becomes of a queue's messages for which there is no room in memory.
    pub(super) fn beyond(&self, is_ephemeral: bool) -> Beyond {
        let config = &self.config;
        match (is_ephemeral, config.disk) {
            (true, _) => Beyond::Dropped,
            (false, false) => Beyond::Nowhere,
            (false, true) => Beyond::Disk(DiskOptions {
                max_bytes_per_file: config.max_bytes_per_file,
                sync_every: config.sync_every,
                sync_timeout: config.sync_timeout,
                max_msg_size: config.max_msg_size,
                max_delay: config.max_req_timeout,
            }),
        }
    }

    /// The channel of this name, if there is one.
    pub(super) fn find_channel(
        &self,
        topic: TopicId,
        name: &ChannelName,
    ) -> Result<ChannelId, usize> {
        let Some(entry) = self.topics.get(topic) else { return Err(0) };
        let channels = entry.topic.channels();
        let by_name = |id: &ChannelId| {
            self.channels.get(*id).map(|entry| entry.channel.name()).cmp(&Some(name))
        };
        channels.binary_search_by(by_name).map(|at| channels[at])
    }

    /// The channel of this name, made if there is none. A first channel gets what collected. `None`
    /// if the topic is gone.
    ///
    /// # Errors
    /// [`TooMany`] at `--max-channels-per-topic`.
    pub(super) fn channel(
        &mut self,
        topic: TopicId,
        name: ChannelName,
        now: Now,
        out: &mut Actions,
    ) -> Result<Option<ChannelId>, TooMany> {
        let at = match self.find_channel(topic, &name) {
            Ok(id) => return Ok(Some(id)),
            Err(at) => at,
        };
        let Some(entry) = self.topics.get(topic) else { return Ok(None) };
        let (topic_name, channels) = (*entry.topic.name(), entry.topic.channels().len());
        self.check_channels(channels)?;
        let made = self.make_channel(topic, at, name, self.beyond(name.is_ephemeral()), now, out);
        self.announce(Announcement::ChannelCreated(topic_name, name), now, out);
        self.pump(topic, now, out);
        Ok(made)
    }

    /// Makes a channel at the place `at` of its topic. The caller announces it and pumps
    /// afterwards.
    pub(super) fn make_channel(
        &mut self,
        topic: TopicId,
        at: usize,
        name: ChannelName,
        beyond: Beyond,
        now: Now,
        out: &mut Actions,
    ) -> Option<ChannelId> {
        let options = ChannelOptions {
            mem_queue_size: self.config.mem_queue_size,
            max_msg_timeout: self.config.max_msg_timeout,
            max_channel_consumers: self.config.max_channel_consumers,
            beyond,
            latency_window: (!self.config.e2e_processing_latency_percentiles.is_empty())
                .then_some(self.config.e2e_processing_latency_window_time),
        };
        let topic_name = *self.topics.get(topic)?.topic.name();
        let seed = self.rng.next_u64();
        let store = Store::Queue(topic_name, Some(name));
        let id = self
            .insert_channel(store, now, out, |out| Channel::new(name, topic, options, seed, out));
        self.topics.get_mut(topic)?.topic.insert_channel(at, id);
        out.events.push(Event::ChannelCreated(topic_name, name));
        Some(id)
    }

    /// Takes a consumer off its channel; an ephemeral channel goes with its last one.
    pub(super) fn unsubscribe(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        now: Now,
        out: &mut Actions,
    ) {
        let abandoned = self.on_channel(channel, now, out, |channel, now, out| {
            channel.unsubscribe(consumer, now, out) && channel.name().is_ephemeral()
        });
        if abandoned == Some(true) {
            self.delete_channel(channel, now, out);
        }
    }

    /// Deletes a channel with its messages. Its consumers' connections end without a word; an
    /// ephemeral topic goes with its last channel.
    pub(super) fn delete_channel(&mut self, id: ChannelId, now: Now, out: &mut Actions) {
        self.on_channel_only(id, now, out, |channel, _, out| channel.delete(out));
        let Some(ChannelEntry { channel, .. }) = self.channels.remove(id) else { return };
        self.disk.forget(Owner::Channel(id));
        let topic = channel.topic();
        for (_, conn) in channel.consumers() {
            if let Some(connection) = self.clients.conns.get_mut(conn) {
                connection.subscription = None;
                connection.end(now, out);
                self.clients.unsettled.push(conn);
            }
        }
        let flush = self.life.flushing_mut();
        let was_awaited = flush.is_some_and(|flush| flush.end_channel(topic, id));
        let Some(entry) = self.topics.get_mut(topic) else { return };
        entry.topic.remove_channel(id);
        let (name, last) = (*entry.topic.name(), entry.topic.channels().is_empty());
        out.events.push(Event::ChannelDeleted(name, *channel.name()));
        self.announce(Announcement::ChannelDeleted(name, *channel.name()), now, out);
        if last && name.is_ephemeral() {
            self.delete_topic(topic, now, out);
        } else if was_awaited {
            self.flush_topic(topic, now, out);
        } else {
            self.pump(topic, now, out);
        }
    }

    /// Deletes a topic with its channels and messages. Publishers that wait are refused.
    pub(super) fn delete_topic(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        self.forget_precreate(id, out);
        self.on_topic(id, now, out, |topic, _, _, out| {
            topic.exit(out);
            topic.delete(out);
        });
        self.disk.forget(Owner::Topic(id));
        // A shard that stops does not wait for what is gone.
        if let Some(flush) = self.life.flushing_mut() {
            flush.end_topic(id);
        }
        // The topic is gone before its channels are, so that the last of them does not delete it
        // again.
        let Some(TopicEntry { topic, .. }) = self.topics.remove(id) else { return };
        self.topic_names.remove(topic.name());
        out.events.push(Event::TopicDeleted(*topic.name()));
        let name = *topic.name();
        for id in topic.channels() {
            // An nsqlookupd collects an ephemeral channel only when it is named.
            if let Some(entry) = self.channels.get(*id) {
                let channel = *entry.channel.name();
                self.announce(Announcement::ChannelDeleted(name, channel), now, out);
            }
            self.delete_channel(*id, now, out);
        }
        self.announce(Announcement::TopicDeleted(name), now, out);
    }
}
