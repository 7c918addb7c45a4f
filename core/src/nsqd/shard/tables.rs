//! The tables below a topic, as the sink that topics and channels write to.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Shard;
use super::precreate::Precreate;
use crate::arena::{Arena, ChannelId, ConnId, ConsumerId, PeerId, TopicId};
use crate::deadlines::Deadlines;
use crate::message::{IdGenerator, Message};
use crate::name::{ChannelName, TopicName};
use crate::nsqd::actions::{Actions, Origin, PublishKind, ShardId, ShardMessage};
use crate::nsqd::admin::{AdminError, AdminReply};
use crate::nsqd::channel::{Channel, ChannelOptions, ChannelOutput};
use crate::nsqd::connection::{Connection, Reply};
use crate::nsqd::event::Event;
use crate::nsqd::registry::Announcement;
use crate::nsqd::topic::{NotPublished, Topic, TopicOutput};
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::time::{Instant, Now};

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    Channel(ChannelId),
    Conn(ConnId),
    Peer(PeerId),
    Statsd,
    Topic(TopicId),
}

/// A topic, and the time at which the shard will look at it.
#[derive(Debug)]
pub(super) struct TopicEntry {
    pub(super) topic: Topic,
    pub(super) armed: Option<Instant>,
    /// While it waits for the channels that it has elsewhere.
    pub(super) precreate: Option<Box<Precreate>>,
}

impl TopicEntry {
    fn poll_timeout(&self) -> Option<Instant> {
        let precreate = self.precreate.as_ref().map(|precreate| precreate.poll_timeout());
        precreate.into_iter().chain(self.topic.poll_timeout()).min()
    }
}

/// A channel, and the time at which the shard will look at it.
#[derive(Debug)]
pub(super) struct ChannelEntry {
    pub(super) channel: Channel,
    pub(super) armed: Option<Instant>,
}

/// Everything downstream of the topics.
pub(super) struct Downstream<'a> {
    pub(super) shard: ShardId,
    pub(super) channels: &'a mut Arena<ChannelId, ChannelEntry>,
    pub(super) conns: &'a mut Arena<ConnId, Connection>,
    pub(super) deadlines: &'a mut Deadlines<Timer>,
    pub(super) unsettled: &'a mut Vec<ConnId>,
    pub(super) now: Now,
    pub(super) out: &'a mut Actions,
}

/// Everything downstream of the channels.
pub(super) struct Deliveries<'a> {
    conns: &'a mut Arena<ConnId, Connection>,
    now: Now,
    out: &'a mut Actions,
}

impl ChannelOutput for Deliveries<'_> {
    fn deliver(&mut self, conn: ConnId, message: &Message) -> bool {
        let Some(connection) = self.conns.get_mut(conn) else { return false };
        connection.deliver(message, self.now, self.out)
    }
}

impl Downstream<'_> {
    /// Calls a channel and sees to its deadline.
    fn channel<R>(
        &mut self,
        id: ChannelId,
        call: impl FnOnce(&mut Channel, Now, &mut Deliveries<'_>) -> R,
    ) -> Option<R> {
        let entry = self.channels.get_mut(id)?;
        let mut deliveries = Deliveries { conns: self.conns, now: self.now, out: self.out };
        let result = call(&mut entry.channel, self.now, &mut deliveries);
        let due = entry.channel.poll_timeout();
        self.deadlines.arm_by(due, &mut entry.armed, Timer::Channel(id));
        Some(result)
    }
}

impl TopicOutput for Downstream<'_> {
    fn room(&self, channel: ChannelId) -> usize {
        self.channels.get(channel).map_or(usize::MAX, |entry| entry.channel.room())
    }

    fn put(&mut self, channel: ChannelId, message: Message, due: Option<Instant>) {
        self.channel(channel, |channel, now, out| match due {
            Some(due) => channel.put_deferred(message, due, now, out),
            None => channel.put(message, now, out),
        });
    }

    fn published(&mut self, origin: Origin, outcome: Result<(), NotPublished>) {
        match origin {
            Origin::Client { shard, conn, slot, kind } => {
                let result = outcome.map_err(|why| publish_error(kind, why));
                if shard != self.shard {
                    return self.out.tell(shard, ShardMessage::Published { conn, slot, result });
                }
                if let Some(connection) = self.conns.get_mut(conn) {
                    let reply = result.map_or_else(Reply::Error, |()| Reply::Ok);
                    connection.complete(slot, reply, self.now, self.out);
                    self.unsettled.push(conn);
                }
            }
            Origin::Admin { shard, token } => {
                let reply = match outcome {
                    Ok(()) => AdminReply::Published,
                    Err(_) => AdminReply::Refused(AdminError::Exiting),
                };
                if shard == self.shard {
                    self.out.replies.push((token, reply));
                } else {
                    self.out.tell(shard, ShardMessage::AdminDone { token, reply });
                }
            }
        }
    }
}

fn publish_error(kind: PublishKind, why: NotPublished) -> ProtocolError {
    let (code, command) = match kind {
        PublishKind::Pub => (ErrorCode::PubFailed, "PUB"),
        PublishKind::Mpub => (ErrorCode::MpubFailed, "MPUB"),
        PublishKind::Dpub => (ErrorCode::DpubFailed, "DPUB"),
    };
    ProtocolError::new(code, alloc::format!("{command} failed {}", why.as_str()))
}

impl Shard {
    /// Calls a channel; if that may have made room that its topic waits for, the topic goes on.
    pub(super) fn on_channel<R>(
        &mut self,
        id: ChannelId,
        now: Now,
        out: &mut Actions,
        call: impl FnOnce(&mut Channel, Now, &mut Deliveries<'_>) -> R,
    ) -> Option<R> {
        let result = self.downstream(now, out).channel(id, call)?;
        let topic = self.channels.get(id)?.channel.topic();
        if self.topics.get(topic).is_some_and(|entry| entry.topic.is_stalled()) {
            self.pump(topic, now, out);
        }
        Some(result)
    }

    /// Calls a topic and sees to its deadline.
    pub(super) fn on_topic<R>(
        &mut self,
        id: TopicId,
        now: Now,
        out: &mut Actions,
        call: impl FnOnce(&mut Topic, &mut IdGenerator, Now, &mut Downstream<'_>) -> R,
    ) -> Option<R> {
        let entry = self.topics.get_mut(id)?;
        let mut downstream = Downstream {
            shard: self.id,
            channels: &mut self.channels,
            conns: &mut self.conns,
            deadlines: &mut self.deadlines,
            unsettled: &mut self.unsettled,
            now,
            out,
        };
        let result = call(&mut entry.topic, &mut self.ids, now, &mut downstream);
        let due = entry.poll_timeout();
        self.deadlines.arm_by(due, &mut entry.armed, Timer::Topic(id));
        Some(result)
    }

    /// Sees to a topic's deadline.
    pub(super) fn arm_topic(&mut self, id: TopicId) {
        let Some(entry) = self.topics.get_mut(id) else { return };
        let due = entry.poll_timeout();
        self.deadlines.arm_by(due, &mut entry.armed, Timer::Topic(id));
    }

    /// Lets a topic hand on what it can.
    pub(super) fn pump(&mut self, topic: TopicId, now: Now, out: &mut Actions) {
        self.on_topic(topic, now, out, |topic, ids, now, out| topic.pump(now, ids, out));
    }

    /// The topic of this name, made if there is none. Only its home may ask.
    pub(super) fn topic(&mut self, name: TopicName, now: Now, out: &mut Actions) -> TopicId {
        if let Some(id) = self.topic_names.get(&name) {
            return *id;
        }
        let topic = Topic::new(name, self.config.mem_queue_size, self.config.publish_wait);
        let id = self.topics.insert(TopicEntry { topic, armed: None, precreate: None });
        self.topic_names.insert(name, id);
        out.events.push(Event::TopicCreated(name));
        self.announce(Announcement::TopicCreated(name), now, out);
        self.begin_precreate(id, now, out);
        id
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

    /// The channel of this name, made if there is none. A first channel gets what collected.
    pub(super) fn channel(
        &mut self,
        topic: TopicId,
        name: ChannelName,
        now: Now,
        out: &mut Actions,
    ) -> Option<ChannelId> {
        let at = match self.find_channel(topic, &name) {
            Ok(id) => return Some(id),
            Err(at) => at,
        };
        let entry = self.topics.get_mut(topic)?;
        let options = ChannelOptions {
            mem_queue_size: self.config.mem_queue_size,
            max_msg_timeout: self.config.max_msg_timeout,
            max_channel_consumers: self.config.max_channel_consumers,
            latency_window: (!self.config.e2e_processing_latency_percentiles.is_empty())
                .then_some(self.config.e2e_processing_latency_window_time),
        };
        let channel = Channel::new(name, topic, options, self.rng.next_u64());
        let id = self.channels.insert(ChannelEntry { channel, armed: None });
        entry.topic.insert_channel(at, id);
        let topic_name = *entry.topic.name();
        out.events.push(Event::ChannelCreated(topic_name, name));
        self.announce(Announcement::ChannelCreated(topic_name, name), now, out);
        self.pump(topic, now, out);
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

    /// Deletes a channel with its messages. Its consumers' connections end without a word; an ephemeral
    /// topic goes with its last channel.
    pub(super) fn delete_channel(&mut self, id: ChannelId, now: Now, out: &mut Actions) {
        let Some(ChannelEntry { channel, .. }) = self.channels.remove(id) else { return };
        let topic = channel.topic();
        for (_, conn) in channel.consumers() {
            if let Some(connection) = self.conns.get_mut(conn) {
                connection.subscription = None;
                connection.end(now, out);
                self.unsettled.push(conn);
            }
        }
        let Some(entry) = self.topics.get_mut(topic) else { return };
        entry.topic.remove_channel(id);
        let (name, last) = (*entry.topic.name(), entry.topic.channels().is_empty());
        out.events.push(Event::ChannelDeleted(name, *channel.name()));
        self.announce(Announcement::ChannelDeleted(name, *channel.name()), now, out);
        if last && name.is_ephemeral() {
            self.delete_topic(topic, now, out);
        } else {
            self.pump(topic, now, out);
        }
    }

    /// Deletes a topic with its channels and messages. Publishers that wait are refused.
    pub(super) fn delete_topic(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        self.on_topic(id, now, out, |topic, _, _, out| topic.exit(out));
        // The topic is gone before its channels are, so that the last of them does not delete it again.
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
