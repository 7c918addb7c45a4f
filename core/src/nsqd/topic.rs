//! A topic: gives messages their ids, and a copy of each to every channel.
//!
//! Messages flow while there is a channel and the topic is neither paused nor held; else they collect in
//! the topic's backlog, and the first channel gets them all (nsqd-protocol.md section 11).
//!
//! Limits: the backlog holds `--mem-queue-size` messages. A publish that finds it full waits, in order;
//! when room is made it is accepted, and after [`publish_wait`](super::config::Config::publish_wait) it
//! is refused. A publish is taken whole or not at all, so the backlog may exceed its limit by one batch
//! less one message. An ephemeral topic drops what does not fit and says OK. What waits is bounded by
//! the publishers: each may have [`PENDING_REPLIES_MAX`](super::config::PENDING_REPLIES_MAX) commands
//! unanswered.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::actions::{Batch, Origin, Publish};
use crate::arena::ChannelId;
use crate::message::{IdGenerator, Message};
use crate::name::TopicName;
use crate::time::{Instant, Now};

/// What a topic asks of its owner. Infallible, and never enters the topic again.
pub trait TopicOutput {
    /// How many messages a channel takes before the topic should wait.
    fn room(&self, channel: ChannelId) -> usize;
    /// Gives a channel its copy of a message; if `due` is given, to be kept back until then.
    fn put(&mut self, channel: ChannelId, message: Message, due: Option<Instant>);
    /// Tells a publisher that had to wait what became of its publish.
    fn published(&mut self, origin: Origin, outcome: Result<(), NotPublished>);
}

/// Why a publish was not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotPublished {
    /// The topic is being deleted, or the broker stops.
    Exiting,
    /// Memory was full for as long as a publish may wait.
    Full,
}

impl NotPublished {
    /// The reason in the error's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exiting => "exiting",
            Self::Full => "memory queue is full",
        }
    }
}

/// A topic and its backlog.
#[derive(Debug)]
pub struct Topic {
    name: TopicName,
    paused: bool,
    held: bool,
    limit: usize,
    publish_wait: Duration,
    /// By name.
    channels: Vec<ChannelId>,
    backlog: VecDeque<Queued>,
    waiting: VecDeque<Waiting>,
    message_count: u64,
    message_bytes: u64,
}

#[derive(Debug)]
struct Queued {
    message: Message,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    publish: Publish,
    received: Now,
    until: Instant,
}

impl Topic {
    /// A topic without channels. `mem_queue_size` and `publish_wait` are the options of these names.
    pub fn new(name: TopicName, mem_queue_size: usize, publish_wait: Duration) -> Self {
        Self {
            name,
            paused: false,
            held: false,
            limit: mem_queue_size.max(1),
            publish_wait,
            channels: Vec::new(),
            backlog: VecDeque::new(),
            waiting: VecDeque::new(),
            message_count: 0,
            message_bytes: 0,
        }
    }

    /// Its name.
    pub const fn name(&self) -> &TopicName {
        &self.name
    }

    /// Publishes. The outcome is told through [`TopicOutput::published`], now or later.
    pub fn publish(
        &mut self,
        publish: Publish,
        now: Now,
        ids: &mut IdGenerator,
        out: &mut impl TopicOutput,
    ) {
        if self.has_room() {
            let origin = publish.origin;
            self.accept(publish, now, now, ids, out);
            out.published(origin, Ok(()));
        } else {
            let until = now.instant + self.publish_wait;
            self.waiting.push_back(Waiting { publish, received: now, until });
        }
    }

    /// Moves what collected, as far as there is room; then lets in who waits. To be called whenever a
    /// channel may have got room.
    pub fn pump(&mut self, now: Now, ids: &mut IdGenerator, out: &mut impl TopicOutput) {
        loop {
            self.drain(out);
            if self.waiting.is_empty() || self.backlog.len() >= self.limit {
                return;
            }
            let Some(Waiting { publish, received, .. }) = self.waiting.pop_front() else { return };
            let origin = publish.origin;
            self.accept(publish, received, now, ids, out);
            out.published(origin, Ok(()));
        }
    }

    /// Refuses the publishes that have waited too long.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl TopicOutput) {
        while self.waiting.front().is_some_and(|waiting| waiting.until <= now.instant)
            && let Some(waiting) = self.waiting.pop_front()
        {
            out.published(waiting.publish.origin, Err(NotPublished::Full));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.until)
    }

    /// Refuses every publish that waits: the topic ends.
    pub fn exit(&mut self, out: &mut impl TopicOutput) {
        for waiting in self.waiting.drain(..) {
            out.published(waiting.publish.origin, Err(NotPublished::Exiting));
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

    /// Keeps messages back until the topic has all its channels, or goes on. Not shown as a pause. The
    /// owner pumps afterwards.
    pub const fn set_held(&mut self, held: bool) {
        self.held = held;
    }

    /// Drops what is in the topic itself. The owner pumps afterwards.
    pub fn empty(&mut self) {
        self.backlog = VecDeque::new();
    }

    /// Whether something waits for a channel's room.
    pub fn is_stalled(&self) -> bool {
        !self.backlog.is_empty() || !self.waiting.is_empty()
    }

    /// Whether it keeps messages back.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Messages in the topic itself.
    pub fn depth(&self) -> usize {
        self.backlog.len()
    }

    /// Messages accepted so far.
    pub const fn message_count(&self) -> u64 {
        self.message_count
    }

    /// Bytes of bodies accepted so far.
    pub const fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    fn has_room(&self) -> bool {
        self.name.is_ephemeral() || (self.waiting.is_empty() && self.backlog.len() < self.limit)
    }

    /// Makes messages of a publish and hands them on, or to the backlog. `received` is when the publish
    /// arrived: it dates the messages and starts the delay.
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
        let mut take = |topic: &mut Self, body: Bytes| {
            topic.message_count += 1;
            topic.message_bytes += body.len() as u64;
            let id = ids.next_id(now.unix);
            let message = Message { id, timestamp: received.unix, attempts: 0, body };
            if flows {
                topic.fan_out(message, due, out);
            } else if !topic.name.is_ephemeral() || topic.backlog.len() < topic.limit {
                topic.backlog.push_back(Queued { message, due });
            }
        };
        match publish.batch {
            Batch::One(body) => take(self, body),
            Batch::Many(bodies) => bodies.into_iter().for_each(|body| take(self, body)),
        }
    }

    /// Moves the backlog to the channels, as far as there is room.
    fn drain(&mut self, out: &mut impl TopicOutput) {
        while !self.backlog.is_empty() {
            let room = self.flow(out).min(self.backlog.len());
            if room == 0 {
                return;
            }
            for _ in 0..room {
                if let Some(Queued { message, due }) = self.backlog.pop_front() {
                    self.fan_out(message, due, out);
                }
            }
        }
        if self.backlog.capacity() > KEPT_BACKLOG_MAX {
            self.backlog = VecDeque::new();
        }
    }

    /// How many messages every channel has room for; 0 if messages do not flow.
    fn flow(&self, out: &impl TopicOutput) -> usize {
        if self.paused || self.held {
            return 0;
        }
        self.channels.iter().map(|channel| out.room(*channel)).min().unwrap_or(0)
    }

    fn fan_out(&self, message: Message, due: Option<Instant>, out: &mut impl TopicOutput) {
        let Some((last, others)) = self.channels.split_last() else { return };
        for channel in others {
            out.put(*channel, message.clone(), due);
        }
        out.put(*last, message, due);
    }
}

/// An empty backlog keeps room for this many messages; the memory of more is given back.
const KEPT_BACKLOG_MAX: usize = 1024;

#[cfg(test)]
mod tests;
