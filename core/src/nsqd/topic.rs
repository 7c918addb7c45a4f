//! A topic: gives messages their ids, and a copy of each to every channel.
//!
//! Messages flow while there is a channel and the topic is neither paused nor new; else they
//! collect in the topic's backlog, and the first channel gets them all (nsqd-protocol.md section
//! 11).
//!
//! A publish is answered when its messages are in memory, or written where they are not: each holds
//! a ticket, which is complete when the last queue that took one to disk has it there. The topic
//! counts what was answered with OK, and nothing else ([`Topic::count`]).
//!
//! Limits: those of the [backlog](super::backlog). A publish for which there is no room, because
//! there is no disk or it is in trouble or too slow, waits, in order; when room is made it is
//! accepted, and after [`publish_wait`](super::config::Config::publish_wait) it is refused. A
//! publish is taken whole or not at all, so a limit may be exceeded by one batch less one message.
//! An ephemeral topic drops what does not fit and says OK. What waits is bounded by the publishers:
//! each may have [`PENDING_REPLIES_MAX`](super::config::PENDING_REPLIES_MAX) commands unanswered.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::backlog::{Backlog, BacklogOutput, Beyond, Run};
use super::publish::{Batch, NotPublished, Origin, Publish};
use crate::arena::ChannelId;
use crate::message::{IdGenerator, Message, RecordId};
use crate::name::TopicName;
use crate::storage::{Failure, Found, RequestId, Success, Ticket};
use crate::time::{Instant, Now};

/// What a topic asks of its owner. Infallible, and never enters the topic again.
pub trait TopicOutput: BacklogOutput {
    /// How many messages a channel takes before the topic should wait.
    fn room(&self, channel: ChannelId) -> usize;
    /// How many messages a channel takes that stay in the topic until the channel has written or
    /// finished them; never fewer than [`room`](Self::room) says.
    fn room_for_kept(&self, channel: ChannelId) -> usize {
        self.room(channel)
    }
    /// How many messages a channel takes without any of them going to disk.
    fn memory_room(&self, channel: ChannelId) -> usize;
    /// Gives a channel its copy of a message; if `due` is given, to be kept back until then. If it
    /// has to be written first, `ticket` waits for that.
    fn put(
        &mut self,
        channel: ChannelId,
        message: Message,
        due: Option<Instant>,
        ticket: Option<Ticket>,
    );
    /// Gives a channel its copy of messages of which [`memory_room`](Self::memory_room) says that
    /// none of them has to be written first.
    fn put_run(&mut self, channel: ChannelId, mut run: Run) {
        while let Some(message) = run.pop_front(self.bodies()) {
            self.put(channel, message, None, None);
        }
    }
    /// Begins a publish of so much: the ticket of its messages. If it is accepted in the end,
    /// [`Topic::count`] is to be called.
    fn begin(&mut self, origin: Origin, volume: Volume) -> Ticket;
    /// Begins to hand a message on that has a record in this topic: its ticket. When all who took
    /// it have it in memory or written, [`Topic::moved`] is to be called.
    fn begin_move(&mut self, record: RecordId) -> Ticket;
    /// All messages of a ticket are put. Its publisher is told as soon as all are in memory or
    /// written.
    fn end(&mut self, ticket: Ticket);
    /// Tells a publisher that its publish is accepted, and all of it in memory.
    fn accepted(&mut self, origin: Origin);
    /// Tells a publisher that its publish is refused.
    fn refuse(&mut self, origin: Origin, why: NotPublished);
}

/// How much was published.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Volume {
    /// Messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Volume {
    /// That of a publish.
    fn of(batch: &Batch) -> Self {
        let bytes = match batch {
            Batch::One(body) => body.len(),
            Batch::Many(list) => list.body_bytes(),
        };
        Self { messages: batch.len() as u64, bytes: bytes as u64 }
    }
}

/// How far a topic is with the channels that it has elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Publishes wait, in order, beyond the time that they wait for room.
    Opening,
    /// Publishes are accepted, and their messages collect.
    Collecting,
    /// It has them, or never had to ask.
    Flowing,
}

/// A topic and its backlog.
#[derive(Debug)]
pub struct Topic {
    name: TopicName,
    paused: bool,
    stage: Stage,
    publish_wait: Duration,
    /// By name.
    channels: Vec<ChannelId>,
    backlog: Backlog,
    waiting: VecDeque<Waiting>,
    /// What was answered with OK.
    accepted: Volume,
}

#[derive(Debug)]
struct Waiting {
    publish: Publish,
    received: Now,
    until: Instant,
}

impl Topic {
    /// A topic without channels that has what its disk has. `mem_queue_size` and `publish_wait` are
    /// the options of these names.
    pub fn new(
        name: TopicName,
        mem_queue_size: usize,
        beyond: Beyond,
        publish_wait: Duration,
        out: &mut impl TopicOutput,
    ) -> Self {
        Self {
            name,
            paused: false,
            stage: Stage::Flowing,
            publish_wait,
            channels: Vec::new(),
            backlog: Backlog::new(mem_queue_size, beyond, out),
            waiting: VecDeque::new(),
            accepted: Volume { messages: 0, bytes: 0 },
        }
    }

    /// Its name.
    pub const fn name(&self) -> &TopicName {
        &self.name
    }

    /// Publishes. The publisher is told the outcome, now or later.
    pub fn publish(
        &mut self,
        publish: Publish,
        now: Now,
        ids: &mut IdGenerator,
        out: &mut impl TopicOutput,
    ) {
        if self.waiting.is_empty() && self.has_room(out) {
            self.accept(publish, now, now, ids, out);
        } else {
            let until = now.instant + self.publish_wait;
            self.waiting.push_back(Waiting { publish, received: now, until });
        }
    }

    /// Moves what collected, as far as there is room; then lets in who waits. To be called whenever
    /// a channel may have got room.
    pub fn pump(&mut self, now: Now, ids: &mut IdGenerator, out: &mut impl TopicOutput) {
        loop {
            self.drain(now, out);
            if self.waiting.is_empty() || !self.has_room(out) {
                return;
            }
            let Some(Waiting { publish, received, .. }) = self.waiting.pop_front() else { return };
            self.accept(publish, received, now, ids, out);
        }
    }

    /// A request of its queue on disk was carried out, or failed. The owner pumps afterwards.
    pub fn handle_storage(
        &mut self,
        id: RequestId,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl TopicOutput,
    ) {
        self.backlog.handle(id, result, now, out);
    }

    /// What its disk has, if it was looked at before ([`Beyond::LookedAt`]). The owner pumps
    /// afterwards.
    pub fn handle_found(&mut self, found: &Found, now: Now, out: &mut impl TopicOutput) {
        self.backlog.handle_found(found, now, out);
    }

    /// A message that had this record is where it belongs, in every channel.
    pub fn moved(&mut self, record: RecordId, now: Now, out: &mut impl TopicOutput) {
        self.backlog.finish(Some(record), now, out);
    }

    /// A publish that was begun with a ticket is accepted: it counts. One that is refused never
    /// does, even if some of its messages are somewhere.
    pub const fn count(&mut self, volume: Volume) {
        self.accepted.messages += volume.messages;
        self.accepted.bytes += volume.bytes;
    }

    /// Refuses the publishes that have waited too long, and does what the disk is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl TopicOutput) {
        self.backlog.handle_timeout(now, out);
        while self.stage != Stage::Opening
            && self.waiting.front().is_some_and(|waiting| waiting.until <= now.instant)
            && let Some(waiting) = self.waiting.pop_front()
        {
            let why = match self.backlog.failure() {
                Some(failure) => NotPublished::Disk(failure.in_words()),
                None => NotPublished::Full,
            };
            out.refuse(waiting.publish.origin, why);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.front().filter(|_| self.stage != Stage::Opening);
        let waiting = waiting.map(|waiting| waiting.until);
        [waiting, self.backlog.poll_timeout()].into_iter().flatten().min()
    }

    /// Refuses every publish that waits: the topic ends.
    pub fn exit(&mut self, out: &mut impl TopicOutput) {
        for waiting in self.waiting.drain(..) {
            out.refuse(waiting.publish.origin, NotPublished::Exiting);
        }
    }

    /// Adds a channel at `at`, its place by name. The owner pumps afterwards.
    pub fn insert_channel(&mut self, at: usize, channel: ChannelId) {
        self.channels.insert(at.min(self.channels.len()), channel);
    }

    /// Takes a channel off.
    pub fn remove_channel(&mut self, channel: ChannelId) {
        self.channels.retain(|other| *other != channel);
    }

    /// Its channels, by name.
    pub fn channels(&self) -> &[ChannelId] {
        &self.channels
    }

    /// Keeps messages back from the channels, or goes on. The owner pumps afterwards.
    pub const fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Keeps publishes or messages back while a new topic gets its channels, or goes on. Not shown
    /// as a pause. The owner pumps afterwards.
    pub const fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Drops what is in the topic itself. The owner pumps afterwards.
    pub fn empty(&mut self, now: Now, out: &mut impl TopicOutput) {
        self.backlog.empty(now, out);
    }

    /// Removes what is on disk. The topic is gone then, and takes nothing any more.
    pub fn delete(&mut self, out: &mut impl TopicOutput) {
        self.backlog.delete(out);
    }

    /// Has everything that is in memory written to disk. Nothing is taken or handed on any more; it
    /// is done when [`is_flushed`](Self::is_flushed). A disk that refuses is given up at `until`.
    pub fn flush(&mut self, until: Instant, now: Now, out: &mut impl TopicOutput) {
        self.backlog.flush(core::iter::empty(), until, now, out);
    }

    /// Waits for the disk no longer: what it has not written is lost.
    pub fn abandon(&mut self, failure: Failure, out: &mut impl TopicOutput) {
        self.backlog.abandon(failure, out);
    }

    /// Whether everything that [`flush`](Self::flush) asked for is done.
    pub fn is_flushed(&self) -> bool {
        self.backlog.is_flushed()
    }

    /// The trouble that its disk is in, if it is.
    pub fn failure(&self) -> Option<&Failure> {
        self.backlog.failure()
    }

    /// Whether something waits for a channel's room.
    pub fn is_stalled(&self) -> bool {
        !self.backlog.is_empty() || !self.waiting.is_empty()
    }

    /// Whether it keeps messages back.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Messages in the topic itself.
    pub fn depth(&self) -> u64 {
        self.backlog.len()
    }

    /// How many of them are on disk.
    pub fn backend_depth(&self) -> u64 {
        self.backlog.on_disk()
    }

    /// Messages accepted so far.
    pub const fn message_count(&self) -> u64 {
        self.accepted.messages
    }

    /// Bytes of bodies accepted so far.
    pub const fn message_bytes(&self) -> u64 {
        self.accepted.bytes
    }

    /// Whether a publish can be taken: by the backlog, or past it by the channels.
    fn has_room(&self, out: &impl TopicOutput) -> bool {
        self.stage != Stage::Opening
            && (self.backlog.room() > 0 || self.backlog.is_empty() && self.flow(out) > 0)
    }

    /// Makes messages of a publish and hands them on, or to the backlog. `received` is when the
    /// publish arrived: it dates the messages and starts the delay.
    fn accept(
        &mut self,
        publish: Publish,
        received: Now,
        now: Now,
        ids: &mut IdGenerator,
        out: &mut impl TopicOutput,
    ) {
        let due = (!publish.delay.is_zero()).then(|| received.instant + publish.delay);
        let flows = self.backlog.is_empty() && self.flow(out) > 0;
        let memory_room = if flows { self.memory_room(out) } else { self.backlog.memory_room() };
        let fits = publish.batch.len() <= memory_room;
        let volume = Volume::of(&publish.batch);
        let ticket = if fits {
            // A client that consumes what it publishes reads the answer before the message.
            out.accepted(publish.origin);
            self.count(volume);
            None
        } else {
            Some(out.begin(publish.origin, volume))
        };
        let mut take = |topic: &mut Self, body: Bytes, out: &mut _| {
            let (id, timestamp) = (ids.next_id(now.unix), received.unix);
            let message = Message { id, timestamp, attempts: 0, record: None, body };
            if flows {
                topic.fan_out(message, due, ticket, out);
            } else {
                topic.backlog.put(message, due, ticket, now, out);
            }
        };
        match publish.batch {
            Batch::One(body) => take(self, body, out),
            Batch::Many(mut list) if fits && due.is_none() => {
                while !list.is_empty() {
                    let (first, count) = ids.next_ids(now.unix, list.len() as u32);
                    let list = list.split_front(count);
                    let run = Run { first, timestamp: received.unix, list };
                    if flows {
                        self.fan_out_run(run, out);
                    } else {
                        self.backlog.put_run(run);
                    }
                }
            }
            Batch::Many(mut list) => {
                while let Some(body) = list.pop_front(out.bodies()) {
                    take(self, body, out);
                }
            }
        }
        self.backlog.drop_excess();
        if let Some(ticket) = ticket {
            out.end(ticket);
        }
    }

    /// Moves the backlog to the channels, as far as there is room and it is read.
    fn drain(&mut self, now: Now, out: &mut impl TopicOutput) {
        while !self.backlog.is_empty() {
            let room = self.flow_of_kept(out);
            if room == 0 {
                return;
            }
            let mut left = room;
            while left > 0 {
                let memory_room = self.memory_room(out).min(left);
                if let Some(run) = self.backlog.pop_run(memory_room) {
                    left -= run.list.len();
                    self.fan_out_run(run, out);
                    continue;
                }
                left -= 1;
                let Some((mut message, due)) = self.backlog.pop(now, out) else { return };
                let ticket = message.record.take().map(|record| out.begin_move(record));
                self.fan_out(message, due, ticket, out);
                if let Some(ticket) = ticket {
                    out.end(ticket);
                }
            }
        }
    }

    /// How many messages every channel has room for; 0 if messages do not flow.
    fn flow(&self, out: &impl TopicOutput) -> usize {
        if self.paused || self.stage != Stage::Flowing {
            return 0;
        }
        self.channels.iter().map(|channel| out.room(*channel)).min().unwrap_or(0)
    }

    /// How many messages every channel has room for that the topic has already. A disk that refuses
    /// what publishers bring does not keep these from the consumers.
    fn flow_of_kept(&self, out: &impl TopicOutput) -> usize {
        if self.paused || self.stage != Stage::Flowing {
            return 0;
        }
        self.channels.iter().map(|channel| out.room_for_kept(*channel)).min().unwrap_or(0)
    }

    /// How many messages every channel takes without any of them going to disk.
    fn memory_room(&self, out: &impl TopicOutput) -> usize {
        self.channels.iter().map(|channel| out.memory_room(*channel)).min().unwrap_or(0)
    }

    fn fan_out_run(&self, run: Run, out: &mut impl TopicOutput) {
        self.to_each_channel(run, |channel, run| out.put_run(channel, run));
    }

    fn fan_out(
        &self,
        message: Message,
        due: Option<Instant>,
        ticket: Option<Ticket>,
        out: &mut impl TopicOutput,
    ) {
        self.to_each_channel(message, |channel, message| out.put(channel, message, due, ticket));
    }

    /// Gives each channel a copy of `what`, the last one the original.
    fn to_each_channel<T: Clone>(&self, what: T, mut put: impl FnMut(ChannelId, T)) {
        let Some((last, others)) = self.channels.split_last() else { return };
        for channel in others {
            put(*channel, what.clone());
        }
        put(*last, what);
    }
}

#[cfg(test)]
mod tests;
