//! The tables below a topic, as the sink that topics and channels write to.

use alloc::boxed::Box;

use super::Shard;
use super::clients::Clients;
use super::life::Life;
use super::precreate::Precreate;
use super::storage::Disk;
use super::timer::Timer;
use crate::arena::{Arena, ChannelId, ConnId, TopicId};
use crate::deadlines::Deadlines;
use crate::message::{Bodies, IdGenerator, Message, RecordId};
use crate::nsqd::actions::Actions;
use crate::nsqd::admin::{AdminError, AdminReply};
use crate::nsqd::backlog::{BacklogOutput, Run};
use crate::nsqd::channel::{Channel, ChannelOutput};
use crate::nsqd::event::Event;
use crate::nsqd::ids::ShardId;
use crate::nsqd::publish::{NotPublished, Origin, PublishKind};
use crate::nsqd::shard_message::ShardMessage;
use crate::nsqd::topic::{Topic, TopicOutput, Volume};
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::storage::{
    DiskEvent, DiskOutput, Durability, Failure, Op, Owner, Request, RequestId, Store, Ticket,
};
use crate::time::{Instant, Now};

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
    surroundings: Surroundings<'a>,
}

/// Everything downstream of the channels.
pub(super) struct Surroundings<'a> {
    shard: ShardId,
    clients: &'a mut Clients,
    disk: &'a mut Disk,
    life: &'a mut Life,
    now: Now,
    out: &'a mut Actions,
}

/// Borrows the fields of a shard that are downstream of the channels; the others stay free.
macro_rules! surroundings {
    ($shard:expr, $now:expr, $out:expr) => {
        Surroundings {
            shard: $shard.id,
            clients: &mut $shard.clients,
            disk: &mut $shard.disk,
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
            surroundings: surroundings!($shard, $now, $out),
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
    surroundings: &'b mut Surroundings<'a>,
}

impl ChannelOutput for ChannelSink<'_, '_> {
    fn deliver(&mut self, conn: ConnId, message: &Message) -> bool {
        let Surroundings { clients, now, out, .. } = self.surroundings;
        let Some(connection) = clients.conns.get_mut(conn) else { return false };
        connection.deliver(message, *now, *out)
    }
}

impl BacklogOutput for ChannelSink<'_, '_> {
    fn hold(&mut self, ticket: Ticket) {
        self.surroundings.disk.tickets.hold(ticket);
    }

    fn bodies(&mut self) -> &mut Bodies {
        &mut self.surroundings.clients.bodies
    }
}

impl DiskOutput for ChannelSink<'_, '_> {
    fn ask(&mut self, op: Op) -> RequestId {
        self.surroundings.ask(Owner::Channel(self.owner), self.store, op)
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        self.surroundings.release(ticket, result);
    }

    fn event(&mut self, event: DiskEvent) {
        self.surroundings.disk_event(self.store, event);
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
        self.downstream.surroundings.disk.tickets.begin(origin, self.owner, volume)
    }

    fn begin_move(&mut self, record: RecordId) -> Ticket {
        self.downstream.surroundings.disk.tickets.begin_move(self.owner, record)
    }

    fn end(&mut self, ticket: Ticket) {
        self.downstream.surroundings.release(ticket, Ok(ticket.until));
    }

    fn accepted(&mut self, origin: Origin) {
        self.downstream.surroundings.published(origin, Ok(()));
    }

    fn refuse(&mut self, origin: Origin, why: NotPublished) {
        self.downstream.surroundings.published(origin, Err(why));
    }
}

impl BacklogOutput for TopicSink<'_, '_> {
    fn hold(&mut self, ticket: Ticket) {
        self.downstream.surroundings.disk.tickets.hold(ticket);
    }

    fn bodies(&mut self) -> &mut Bodies {
        &mut self.downstream.surroundings.clients.bodies
    }
}

impl DiskOutput for TopicSink<'_, '_> {
    fn ask(&mut self, op: Op) -> RequestId {
        self.downstream.surroundings.ask(Owner::Topic(self.owner), self.store, op)
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        self.downstream.surroundings.release(ticket, result);
    }

    fn event(&mut self, event: DiskEvent) {
        self.downstream.surroundings.disk_event(self.store, event);
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
        let now = self.surroundings.now;
        let mut sink = ChannelSink { owner: id, store, surroundings: &mut self.surroundings };
        let result = call(channel, now, &mut sink);
        let due = channel.poll_timeout();
        self.deadlines.arm_by(due, armed, Timer::Channel(id));
        Some(result)
    }
}

impl Surroundings<'_> {
    fn ask(&mut self, owner: Owner, store: &Store, op: Op) -> RequestId {
        let id = self.disk.requests.next_id();
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
        if let Some((origin, outcome)) = self.disk.tickets.release(ticket, result) {
            self.published(origin, outcome);
        }
    }

    /// Tells a publisher the outcome.
    fn published(&mut self, origin: Origin, outcome: Result<(), NotPublished>) {
        if let Err(NotPublished::Full | NotPublished::Disk(_)) = outcome {
            self.disk.refused += 1;
        }
        match origin {
            Origin::Client { shard, conn, slot, kind, len } => {
                let result = outcome.map_err(|why| publish_error(kind, &why));
                if shard != self.shard {
                    return self
                        .out
                        .tell(shard, ShardMessage::Published { conn, slot, len, result });
                }
                self.clients.published(conn, slot, len, result, self.now, self.out);
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
        let result = self.on_channel_only(id, now, out, call)?;
        let topic = self.channels.get(id)?.channel.topic();
        if self.topics.get(topic).is_some_and(|entry| entry.topic.is_stalled())
            && !self.life.is_flushing()
        {
            self.pump(topic, now, out);
        }
        Some(result)
    }

    /// Calls a channel, and lets its topic wait.
    pub(super) fn on_channel_only<R>(
        &mut self,
        id: ChannelId,
        now: Now,
        out: &mut Actions,
        call: impl FnOnce(&mut Channel, Now, &mut ChannelSink<'_, '_>) -> R,
    ) -> Option<R> {
        downstream!(self, now, out).channel(id, call)
    }

    /// Puts a channel into the table that `make` makes.
    pub(super) fn insert_channel(
        &mut self,
        store: Store,
        now: Now,
        out: &mut Actions,
        make: impl FnOnce(&mut ChannelSink<'_, '_>) -> Channel,
    ) -> ChannelId {
        let mut surroundings = surroundings!(self, now, out);
        self.channels.insert_with(|owner| {
            let channel =
                make(&mut ChannelSink { owner, store: &store, surroundings: &mut surroundings });
            ChannelEntry { channel, store, armed: None }
        })
    }

    /// Puts a topic into the table that `make` makes.
    pub(super) fn insert_topic(
        &mut self,
        store: Store,
        now: Now,
        out: &mut Actions,
        make: impl FnOnce(&mut TopicSink<'_, '_>) -> Topic,
    ) -> TopicId {
        let mut downstream = downstream!(self, now, out);
        self.topics.insert_with(|owner| {
            let mut sink = TopicSink { owner, store: &store, downstream: &mut downstream };
            let topic = make(&mut sink);
            TopicEntry { topic, store, armed: None, precreate: None }
        })
    }

    /// Tells a publisher that its publish is refused.
    pub(super) fn refuse(
        &mut self,
        origin: Origin,
        why: NotPublished,
        now: Now,
        out: &mut Actions,
    ) {
        surroundings!(self, now, out).published(origin, Err(why));
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
}
