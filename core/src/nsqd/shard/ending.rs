//! The end: what is only in memory is written to the disk, for as long as that makes sense.
//!
//! - A queue whose disk *refuses* and that has something to lose tries for [`CLOSE_PATIENCE`] and
//!   once more; one that has nothing to lose is done at the first refusal.
//! - A disk that does not *answer* at all is waited for as long, and [`LAST_CHANCE`] more in case
//!   that it was this process that stood still.
//!
//! So a stop ends whatever the disk does. What is lost then is told by queue, for the first
//! [`LINES_MAX`], and in all.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::Shard;
use super::timer::Timer;
use crate::arena::{ChannelId, TopicId};
use crate::log::Count;
use crate::nsqd::actions::Actions;
use crate::nsqd::event::Event;
use crate::nsqd::ids::ShardId;
use crate::nsqd::shard_message::ShardMessage;
use crate::storage::{CLOSE_PATIENCE, DiskEvent, Failure, FailureKind, Owner};
use crate::time::{Instant, Now};

/// What a shard could not write at its end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlushFailure {
    /// Messages that are lost.
    pub messages: u64,
    /// Queues that they were in.
    pub queues: u64,
    /// The list of topics and channels is not as it was: what was made, deleted or paused last is
    /// forgotten.
    pub lost_list: bool,
    /// The disk did not answer.
    pub hangs: bool,
}

impl fmt::Display for FlushFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hangs { "the disk does not answer" } else { "the disk refuses" })?;
        match self {
            Self { messages: 0, lost_list: false, .. } => {
                f.write_str(": nothing is lost, but messages may come again")
            }
            Self { messages: 0, .. } => f.write_str(": changes of topics and channels are lost"),
            Self { messages, queues, lost_list, .. } => {
                let (messages, queues) = (Count(*messages, "message"), Count(*queues, "queue"));
                write!(f, ": lost {messages} of {queues}")?;
                f.write_str(if *lost_list { ", and changes of topics and channels" } else { "" })
            }
        }
    }
}

/// How the writing goes, from [`Shard::flush`] on.
#[derive(Debug)]
pub(super) struct Flush {
    /// When a disk that refuses is given up.
    until: Instant,
    /// When somebody answered last.
    last_answer: Instant,
    is_last_chance: bool,
    /// The earliest time at which the shard will look at it.
    armed: Option<Instant>,
    /// Queues that are not finished.
    unfinished: BTreeSet<Owner>,
    /// How many of them are channels, by topic.
    channels: BTreeMap<TopicId, u32>,
    failure: FlushFailure,
    /// Lines about queues in the log, and those that were left out.
    lines: u64,
    left_out: u64,
}

/// What is done about a disk that is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Patience {
    /// It has until then.
    Until(Instant),
    /// It does not answer.
    IsOver,
}

impl Flush {
    pub(super) fn new(now: Now) -> Self {
        Self {
            until: now.instant + CLOSE_PATIENCE,
            last_answer: now.instant,
            is_last_chance: false,
            armed: None,
            unfinished: BTreeSet::new(),
            channels: BTreeMap::new(),
            failure: FlushFailure::default(),
            lines: 0,
            left_out: 0,
        }
    }

    /// When a disk that refuses is given up.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// The disk answers.
    pub(super) const fn note_answer(&mut self, now: Now) {
        self.last_answer = now.instant;
        self.is_last_chance = false;
    }

    /// Something happened to a queue. Returns whether the log is told.
    pub(super) fn tells(&mut self, event: &DiskEvent) -> bool {
        if let DiskEvent::NotWritten { records, .. } = event {
            self.failure.queues += 1;
            self.failure.messages += *records as u64;
        }
        let is_told = self.lines < LINES_MAX;
        self.lines += u64::from(is_told);
        self.left_out += u64::from(!is_told);
        is_told
    }

    /// A channel has begun.
    fn begin_channel(&mut self, topic: TopicId, channel: ChannelId) {
        if self.unfinished.insert(Owner::Channel(channel)) {
            *self.channels.entry(topic).or_default() += 1;
        }
    }

    /// A channel is finished, or gone. Returns whether it was waited for.
    pub(super) fn end_channel(&mut self, topic: TopicId, channel: ChannelId) -> bool {
        let was_awaited = self.unfinished.remove(&Owner::Channel(channel));
        if was_awaited && let Some(channels) = self.channels.get_mut(&topic) {
            *channels -= 1;
        }
        was_awaited
    }

    /// A topic has begun, or would if its channels were finished. Returns whether they are.
    fn begin_topic(&mut self, topic: TopicId) -> bool {
        self.unfinished.insert(Owner::Topic(topic));
        self.channels.get(&topic).is_none_or(|channels| *channels == 0)
    }

    /// A topic is finished, or gone.
    pub(super) fn end_topic(&mut self, topic: TopicId) {
        self.unfinished.remove(&Owner::Topic(topic));
    }

    /// Looks whether the disk answers.
    fn check(&mut self, now: Now) -> Patience {
        let patience_ends = self.last_answer + CLOSE_PATIENCE;
        if now.instant < patience_ends {
            return Patience::Until(patience_ends);
        }
        if core::mem::replace(&mut self.is_last_chance, true) {
            Patience::IsOver
        } else {
            Patience::Until(now.instant + LAST_CHANCE)
        }
    }
}

impl Shard {
    /// Writes what is only in memory to the disk. To be called once after
    /// [`shut_down`](crate::machine::Machine::shut_down), when no shard of the node has connections
    /// any more; it is done when [`is_flushed`](Self::is_flushed).
    pub fn flush(&mut self, now: Now, out: &mut Actions) {
        if !self.config.disk || self.life.is_flushing() {
            return;
        }
        self.life.flush(now);
        let Some(until) = self.life.flushing().map(Flush::until) else { return };
        self.arm_ending(until);
        let topics: Vec<_> = self.topics.iter().map(|(id, _)| id).collect();
        for topic in topics {
            let Some(entry) = self.topics.get(topic) else { continue };
            let is_ephemeral = entry.topic.name().is_ephemeral();
            for channel in entry.topic.channels().to_vec() {
                let flushed = self.on_channel(channel, now, out, |channel, now, out| {
                    // Nothing lists it, so what has no messages would lie there for good
                    // (nsqd-protocol.md W18).
                    if is_ephemeral && channel.is_empty() {
                        channel.delete(out);
                    } else {
                        channel.flush(until, now, out);
                    }
                    channel.is_flushed()
                });
                if flushed == Some(false)
                    && let Some(flush) = self.life.flushing_mut()
                {
                    flush.begin_channel(topic, channel);
                }
            }
            self.flush_topic(topic, now, out);
        }
        if self.clerk.is_some() {
            self.shard_flushed(now);
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
            || self.life.flushing().is_some_and(|flush| flush.unfinished.is_empty())
                && self.clerk.as_ref().is_none_or(|clerk| clerk.is_flushed())
    }

    /// What is lost, or may be, because the disk did not take it in time; `None` if nothing is. To
    /// be asked when [`is_flushed`](Self::is_flushed).
    pub fn flush_failure(&self) -> Option<FlushFailure> {
        let failure = self.life.flushing()?.failure;
        (failure != FlushFailure::default()).then_some(failure)
    }

    /// Goes on with flushing if this channel is done, or has given up.
    pub(super) fn channel_flushed(&mut self, id: ChannelId, now: Now, out: &mut Actions) {
        let Some(flush) = self.life.flushing_mut() else { return };
        let Some(entry) = self.channels.get(id) else { return };
        let topic = entry.channel.topic();
        if entry.channel.is_flushed() && flush.end_channel(topic, id) {
            self.flush_topic(topic, now, out);
        }
    }

    /// Takes note if this topic is flushed, or has given up.
    pub(super) fn topic_flushed(&mut self, id: TopicId) {
        let Some(flush) = self.life.flushing_mut() else { return };
        if self.topics.get(id).is_none_or(|entry| entry.topic.is_flushed()) {
            flush.end_topic(id);
        }
    }

    /// Flushes a topic whose channels are flushed: until then its own disk has what theirs may not.
    pub(super) fn flush_topic(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        if !self.topics.contains(id) {
            return;
        }
        let Some(flush) = self.life.flushing_mut() else { return };
        if !flush.begin_topic(id) {
            return;
        }
        let until = flush.until;
        self.on_topic(id, now, out, |topic, _, now, out| topic.flush(until, now, out));
        self.topic_flushed(id);
    }

    fn arm_ending(&mut self, at: Instant) {
        let Some(flush) = self.life.flushing_mut() else { return };
        self.deadlines.arm_by(Some(at), &mut flush.armed, Timer::Ending);
    }

    /// Looks whether the disk answers.
    pub(super) fn handle_ending_timeout(&mut self, at: Instant, now: Now, out: &mut Actions) {
        let is_flushed = self.is_flushed();
        let Some(flush) = self.life.flushing_mut().filter(|flush| flush.armed == Some(at)) else {
            return;
        };
        flush.armed = None;
        if is_flushed {
            return;
        }
        match flush.check(now) {
            Patience::Until(at) => self.arm_ending(at),
            Patience::IsOver => self.abandon(now, out),
        }
    }

    /// Waits for the disk no longer.
    fn abandon(&mut self, now: Now, out: &mut Actions) {
        let Some(flush) = self.life.flushing_mut() else { return };
        let until = flush.until;
        flush.failure.hangs = true;
        let text = "the disk does not answer";
        let failure = Failure { kind: FailureKind::Other, text: Box::from(text) };
        // What a channel gives up its topic may have, so topics come last.
        let owners = core::mem::take(&mut flush.unfinished);
        for owner in &owners {
            if let Owner::Channel(id) = *owner {
                let why = failure.clone();
                self.on_channel(id, now, out, |channel, _, out| channel.abandon(why, out));
            }
        }
        for owner in &owners {
            if let Owner::Topic(id) = *owner {
                let why = failure.clone();
                self.on_topic(id, now, out, |topic, _, _, out| topic.abandon(why, out));
            }
        }
        if let Some(clerk) = &mut self.clerk {
            clerk.abandon(until, failure);
        }
    }

    /// Says once what the log was not told.
    pub(super) fn end_flush(&mut self, out: &mut Actions) {
        if !self.life.is_flushing() || !self.is_flushed() {
            return;
        }
        let is_list_lost = self.clerk.as_ref().is_some_and(|clerk| clerk.is_list_lost());
        let Some(flush) = self.life.flushing_mut() else { return };
        flush.failure.lost_list |= is_list_lost;
        let left_out = core::mem::take(&mut flush.left_out);
        if left_out > 0 {
            out.events.push(Event::QueuesLeftOut(left_out));
        }
    }
}

/// How long a disk that did not answer gets beyond [`CLOSE_PATIENCE`].
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Lines of the log about queues while a shard ends. A disk that refuses refuses them all.
const LINES_MAX: u64 = 100;
