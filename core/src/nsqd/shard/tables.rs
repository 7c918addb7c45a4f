//! The tables below a topic, as the sink that topics and channels write to.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Shard;
use super::life::Life;
use super::precreate::Precreate;
use super::room::Room;
use super::tickets::Tickets;
use crate::arena::{Arena, ChannelId, ConnId, ConsumerId, TopicId};
use crate::deadlines::Deadlines;
use crate::message::{Bodies, IdGenerator, Message, RecordId};
use crate::name::{ChannelName, TopicName};
use crate::nsqd::actions::Actions;
use crate::nsqd::admin::{AdminError, AdminReply};
use crate::nsqd::backlog::{BacklogOutput, Beyond, Run};
use crate::nsqd::channel::{Channel, ChannelOptions, ChannelOutput};
use crate::nsqd::connection::{Connection, Reply};
use crate::nsqd::event::Event;
use crate::nsqd::ids::ShardId;
use crate::nsqd::publish::{NotPublished, Origin, PublishKind, TooMany};
use crate::nsqd::registry::Announcement;
use crate::nsqd::shard_message::ShardMessage;
use crate::nsqd::topic::{Topic, TopicOutput, Volume};
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::storage::{
    DiskEvent, DiskOptions, DiskOutput, Durability, Failure, Op, Owner, Request, RequestId,
    RequestIds, Store, Ticket,
};
use crate::time::{Instant, Now};

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    Channel(ChannelId),
    Conn(ConnId),
    Ending,
    Clerk,
    Room,
    Topic(TopicId),
}

/// A topic, its files, and the time at which the shard will look at it.
#[derive(Debug)]
pub(super) struct TopicEntry {
    pub(super) topic: Topic,
    pub(super) store: Store,
    pub(super) armed: Option<Instant>,
    /// While it waits for the channels that it has elsewhere.
    pub(super) precreate: Option<Box<Precreate>>,
}

/// When a topic is next worth a look.
fn due(topic: &Topic, precreate: Option<&Precreate>) -> Option<Instant> {
    precreate.map(Precreate::poll_timeout).into_iter().chain(topic.poll_timeout()).min()
}

/// A channel, its files, and the time at which the shard will look at it.
#[derive(Debug)]
pub(super) struct ChannelEntry {
    pub(super) channel: Channel,
    pub(super) store: Store,
    pub(super) armed: Option<Instant>,
}

/// Everything downstream of the topics.
pub(super) struct Downstream<'a> {
    channels: &'a mut Arena<ChannelId, ChannelEntry>,
    deadlines: &'a mut Deadlines<Timer>,
    world: World<'a>,
}

/// Everything downstream of the channels.
pub(super) struct World<'a> {
    shard: ShardId,
    conns: &'a mut Arena<ConnId, Connection>,
    unsettled: &'a mut Vec<ConnId>,
    room: &'a mut Room,
    tickets: &'a mut Tickets,
    requests: &'a mut RequestIds,
    bodies: &'a mut Bodies,
    life: &'a mut Life,
    now: Now,
    out: &'a mut Actions,
}

/// Borrows the fields of a shard that are downstream of the channels; the others stay free.
macro_rules! world {
    ($shard:expr, $now:expr, $out:expr) => {
        World {
            shard: $shard.id,
            conns: &mut $shard.conns,
            unsettled: &mut $shard.unsettled,
            room: &mut $shard.room,
            tickets: &mut $shard.tickets,
            requests: &mut $shard.requests,
            bodies: &mut $shard.bodies,
            life: &mut $shard.life,
            now: $now,
            out: $out,
        }
    };
}

/// Borrows the fields of a shard that are downstream of the topics; the others stay free.
macro_rules! downstream {
    ($shard:expr, $now:expr, $out:expr) => {
        Downstream {
            channels: &mut $shard.channels,
            deadlines: &mut $shard.deadlines,
            world: world!($shard, $now, $out),
        }
    };
}

/// What a topic writes to.
pub(super) struct TopicSink<'a, 'b> {
    owner: TopicId,
    store: &'b Store,
    downstream: &'b mut Downstream<'a>,
}

/// What a channel writes to.
pub(super) struct ChannelSink<'a, 'b> {
    owner: ChannelId,
    store: &'b Store,
    world: &'b mut World<'a>,
}

impl ChannelOutput for ChannelSink<'_, '_> {
    fn deliver(&mut self, conn: ConnId, message: &Message) -> bool {
        let World { conns, now, out, .. } = self.world;
        let Some(connection) = conns.get_mut(conn) else { return false };
        connection.deliver(message, *now, *out)
    }
}

impl BacklogOutput for ChannelSink<'_, '_> {
    fn hold(&mut self, ticket: Ticket) {
        self.world.tickets.hold(ticket);
    }

    fn bodies(&mut self) -> &mut Bodies {
        self.world.bodies
    }
}

impl DiskOutput for ChannelSink<'_, '_> {
    fn ask(&mut self, op: Op) -> RequestId {
        self.world.ask(Owner::Channel(self.owner), self.store, op)
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        self.world.release(ticket, result);
    }

    fn event(&mut self, event: DiskEvent) {
        self.world.disk_event(self.store, event);
    }
}

impl TopicOutput for TopicSink<'_, '_> {
    fn room(&self, channel: ChannelId) -> usize {
        let channels = &self.downstream.channels;
        channels.get(channel).map_or(usize::MAX, |entry| entry.channel.room())
    }

    fn room_for_kept(&self, channel: ChannelId) -> usize {
        let channels = &self.downstream.channels;
        channels.get(channel).map_or(usize::MAX, |entry| entry.channel.room_for_kept())
    }

    fn memory_room(&self, channel: ChannelId) -> usize {
        let channels = &self.downstream.channels;
        channels.get(channel).map_or(usize::MAX, |entry| entry.channel.memory_room())
    }

    fn put(
        &mut self,
        channel: ChannelId,
        message: Message,
        due: Option<Instant>,
        ticket: Option<Ticket>,
    ) {
        self.downstream.channel(channel, |channel, now, out| match due {
            Some(due) => channel.put_deferred(message, due, ticket, now, out),
            None => channel.put(message, ticket, now, out),
        });
    }

    fn put_run(&mut self, channel: ChannelId, run: Run) {
        self.downstream.channel(channel, |channel, now, out| channel.put_run(run, now, out));
    }

    fn begin(&mut self, origin: Origin, volume: Volume) -> Ticket {
        self.downstream.world.tickets.begin(origin, self.owner, volume)
    }

    fn begin_move(&mut self, record: RecordId) -> Ticket {
        self.downstream.world.tickets.begin_move(self.owner, record)
    }

    fn end(&mut self, ticket: Ticket) {
        self.downstream.world.release(ticket, Ok(ticket.until));
    }

    fn accepted(&mut self, origin: Origin) {
        self.downstream.world.published(origin, Ok(()));
    }

    fn refuse(&mut self, origin: Origin, why: NotPublished) {
        self.downstream.world.published(origin, Err(why));
    }
}

impl BacklogOutput for TopicSink<'_, '_> {
    fn hold(&mut self, ticket: Ticket) {
        self.downstream.world.tickets.hold(ticket);
    }

    fn bodies(&mut self) -> &mut Bodies {
        self.downstream.world.bodies
    }
}

impl DiskOutput for TopicSink<'_, '_> {
    fn ask(&mut self, op: Op) -> RequestId {
        self.downstream.world.ask(Owner::Topic(self.owner), self.store, op)
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        self.downstream.world.release(ticket, result);
    }

    fn event(&mut self, event: DiskEvent) {
        self.downstream.world.disk_event(self.store, event);
    }
}

impl<'a> Downstream<'a> {
    /// Calls a channel and sees to its deadline.
    pub(super) fn channel<R>(
        &mut self,
        id: ChannelId,
        call: impl FnOnce(&mut Channel, Now, &mut ChannelSink<'a, '_>) -> R,
    ) -> Option<R> {
        let ChannelEntry { channel, store, armed } = self.channels.get_mut(id)?;
        let now = self.world.now;
        let mut sink = ChannelSink { owner: id, store, world: &mut self.world };
        let result = call(channel, now, &mut sink);
        let due = channel.poll_timeout();
        self.deadlines.arm_by(due, armed, Timer::Channel(id));
        Some(result)
    }
}

impl World<'_> {
    fn ask(&mut self, owner: Owner, store: &Store, op: Op) -> RequestId {
        let id = self.requests.next_id();
        self.out.storage.push(Request { id, owner, store: *store, op });
        id
    }

    fn disk_event(&mut self, store: &Store, event: DiskEvent) {
        if !self.life.tells(&event) {
            return;
        }
        self.out.events.push(Event::Disk(Box::new((*store, event))));
    }

    /// A record of a publish is safer than before, or all of it is put.
    fn release(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        if let Some((origin, outcome)) = self.tickets.release(ticket, result) {
            self.published(origin, outcome);
        }
    }

    /// Tells a publisher the outcome.
    fn published(&mut self, origin: Origin, outcome: Result<(), NotPublished>) {
        match origin {
            Origin::Client { shard, conn, slot, kind, len } => {
                let result = outcome.map_err(|why| publish_error(kind, &why));
                if shard != self.shard {
                    return self
                        .out
                        .tell(shard, ShardMessage::Published { conn, slot, len, result });
                }
                self.room.answered(self.conns.get_mut(conn), len as usize);
                if let Some(connection) = self.conns.get_mut(conn) {
                    let reply = result.map_or_else(Reply::Error, |()| Reply::Ok);
                    connection.complete(slot, reply, self.now, self.out);
                    self.unsettled.push(conn);
                }
            }
            Origin::Admin { shard, token } => {
                let reply = match outcome {
                    Ok(()) => AdminReply::Published,
                    Err(why) => AdminReply::Refused(AdminError::NotPublished(why)),
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

fn publish_error(kind: PublishKind, why: &NotPublished) -> ProtocolError {
    let (code, command) = match kind {
        PublishKind::Pub => (ErrorCode::PubFailed, "PUB"),
        PublishKind::Mpub => (ErrorCode::MpubFailed, "MPUB"),
        PublishKind::Dpub => (ErrorCode::DpubFailed, "DPUB"),
    };
    ProtocolError::new(code, alloc::format!("{command} failed {why}"))
}

impl Shard {
    /// Calls a channel; if that may have made room that its topic waits for, the topic goes on.
    pub(super) fn on_channel<R>(
        &mut self,
        id: ChannelId,
        now: Now,
        out: &mut Actions,
        call: impl FnOnce(&mut Channel, Now, &mut ChannelSink<'_, '_>) -> R,
    ) -> Option<R> {
        let result = downstream!(self, now, out).channel(id, call)?;
        let topic = self.channels.get(id)?.channel.topic();
        if self.topics.get(topic).is_some_and(|entry| entry.topic.is_stalled())
            && !self.life.is_flushing()
        {
            self.pump(topic, now, out);
        }
        Some(result)
    }

    /// Tells a publisher that its publish is refused.
    pub(super) fn refuse(
        &mut self,
        origin: Origin,
        why: NotPublished,
        now: Now,
        out: &mut Actions,
    ) {
        world!(self, now, out).published(origin, Err(why));
    }

    /// Calls a topic and sees to its deadline.
    pub(super) fn on_topic<R>(
        &mut self,
        id: TopicId,
        now: Now,
        out: &mut Actions,
        call: impl FnOnce(&mut Topic, &mut IdGenerator, Now, &mut TopicSink<'_, '_>) -> R,
    ) -> Option<R> {
        let TopicEntry { topic, store, armed, precreate, .. } = self.topics.get_mut(id)?;
        let mut downstream = downstream!(self, now, out);
        let mut sink = TopicSink { owner: id, store, downstream: &mut downstream };
        let result = call(topic, &mut self.ids, now, &mut sink);
        let due = due(topic, precreate.as_deref());
        self.deadlines.arm_by(due, armed, Timer::Topic(id));
        Some(result)
    }

    /// Sees to a topic's deadline.
    pub(super) fn arm_topic(&mut self, id: TopicId) {
        let Some(entry) = self.topics.get_mut(id) else { return };
        let due = due(&entry.topic, entry.precreate.as_deref());
        self.deadlines.arm_by(due, &mut entry.armed, Timer::Topic(id));
    }

    /// Lets a topic hand on what it can.
    pub(super) fn pump(&mut self, topic: TopicId, now: Now, out: &mut Actions) {
        self.on_topic(topic, now, out, |topic, ids, now, out| topic.pump(now, ids, out));
    }

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
        let store = Store::Queue(name, None);
        let mut downstream = downstream!(self, now, out);
        let id = self.topics.insert_with(|owner| {
            let mut sink = TopicSink { owner, store: &store, downstream: &mut downstream };
            let topic = Topic::new(name, limit, beyond, wait, &mut sink);
            TopicEntry { topic, store, armed: None, precreate: None }
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

    /// Makes a channel at the place `at` of its topic. The caller announces it and pumps afterwards.
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
        let entry = self.topics.get_mut(topic)?;
        let topic_name = *entry.topic.name();
        let store = Store::Queue(topic_name, Some(name));
        let seed = self.rng.next_u64();
        let mut world = world!(self, now, out);
        let id = self.channels.insert_with(|owner| {
            let mut sink = ChannelSink { owner, store: &store, world: &mut world };
            let channel = Channel::new(name, topic, options, seed, &mut sink);
            ChannelEntry { channel, store, armed: None }
        });
        entry.topic.insert_channel(at, id);
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
        downstream!(self, now, out).channel(id, |channel, _, out| channel.delete(out));
        let Some(ChannelEntry { channel, .. }) = self.channels.remove(id) else { return };
        self.ailing.remove(&Owner::Channel(id));
        let topic = channel.topic();
        for (_, conn) in channel.consumers() {
            if let Some(connection) = self.conns.get_mut(conn) {
                connection.subscription = None;
                connection.end(now, out);
                self.unsettled.push(conn);
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
        self.ailing.remove(&Owner::Topic(id));
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
