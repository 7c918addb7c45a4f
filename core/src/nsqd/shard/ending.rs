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
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::Shard;
use super::tables::Timer;
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

/// How the end goes.
#[derive(Debug)]
pub(super) struct Ending {
    /// When a disk that refuses is given up.
    until: Instant,
    /// When somebody answered last.
    last_answer: Instant,
    is_last_chance: bool,
    is_begun: bool,
    /// The earliest time at which the shard will look at it.
    pub(super) armed: Option<Instant>,
    failure: FlushFailure,
    /// Lines about queues in the log, and those that were left out.
    lines: u64,
    left_out: u64,
}

impl Ending {
    pub(super) const fn new() -> Self {
        Self {
            until: Instant::ZERO,
            last_answer: Instant::ZERO,
            is_last_chance: false,
            is_begun: false,
            armed: None,
            failure: FlushFailure { messages: 0, queues: 0, lost_list: false, hangs: false },
            lines: 0,
            left_out: 0,
        }
    }

    /// The disk answers.
    pub(super) const fn note_answer(&mut self, now: Now) {
        self.last_answer = now.instant;
        self.is_last_chance = false;
    }

    /// Something happened to a queue. Returns whether the log is told.
    pub(super) fn tells(&mut self, event: &DiskEvent) -> bool {
        if !self.is_begun {
            return true;
        }
        if let DiskEvent::NotWritten { records, .. } = event {
            self.failure.queues += 1;
            self.failure.messages += *records as u64;
        }
        let is_told = self.lines < LINES_MAX;
        self.lines += u64::from(is_told);
        self.left_out += u64::from(!is_told);
        is_told
    }
}

impl Shard {
    /// Writes what is only in memory to the disk. To be called once after
    /// [`shut_down`](Self::shut_down), when no shard of the node has connections any more; it is
    /// done when [`is_flushed`](Self::is_flushed).
    pub fn flush(&mut self, now: Now, out: &mut Actions) {
        if !self.config.disk || self.flushing {
            return;
        }
        self.flushing = true;
        self.begin_flush(now);
        let until = self.ending.until;
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
                if flushed == Some(false) {
                    self.unflushed.insert(Owner::Channel(channel));
                    if let Some(entry) = self.topics.get_mut(topic) {
                        entry.unflushed += 1;
                    }
                }
            }
            self.flush_topic(topic, now, out);
        }
        if self.id.0 == 0 {
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
            || self.flushing
                && self.unflushed.is_empty()
                && (self.id.0 != 0 || self.is_last_metadata_asked() && self.metadata.is_done())
    }

    /// What is lost, or may be, because the disk did not take it in time; `None` if nothing is. To
    /// be asked when [`is_flushed`](Self::is_flushed).
    pub fn flush_failure(&self) -> Option<FlushFailure> {
        Some(self.ending.failure).filter(|failure| *failure != FlushFailure::default())
    }

    /// A shard was told to flush: what it announced before is known.
    pub(super) fn shard_flushed(&mut self, now: Now) {
        self.ending.note_answer(now);
        self.shards_flushing += 1;
        if self.is_last_metadata_asked() {
            self.metadata.hurry(self.ending.until);
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
                if let Some(entry) = self.topics.get_mut(topic) {
                    entry.unflushed -= 1;
                }
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
        let waits = entry.unflushed > 0;
        self.unflushed.insert(Owner::Topic(id));
        if waits {
            return;
        }
        let until = self.ending.until;
        let flushed = self.on_topic(id, now, out, |topic, _, now, out| {
            topic.flush(until, now, out);
            topic.is_flushed()
        });
        if flushed != Some(false) {
            self.unflushed.remove(&Owner::Topic(id));
        }
    }

    fn begin_flush(&mut self, now: Now) {
        self.ending.is_begun = true;
        self.ending.note_answer(now);
        self.ending.until = now.instant + CLOSE_PATIENCE;
        self.arm_ending(self.ending.until);
    }

    fn arm_ending(&mut self, at: Instant) {
        self.deadlines.arm_by(Some(at), &mut self.ending.armed, Timer::Ending);
    }

    /// Looks whether the disk answers.
    pub(super) fn handle_ending_timeout(&mut self, at: Instant, now: Now, out: &mut Actions) {
        if self.ending.armed != Some(at) {
            return;
        }
        self.ending.armed = None;
        if self.is_flushed() {
            return;
        }
        let patience_ends = self.ending.last_answer + CLOSE_PATIENCE;
        if now.instant < patience_ends {
            self.arm_ending(patience_ends);
        } else if !self.ending.is_last_chance {
            self.ending.is_last_chance = true;
            self.arm_ending(now.instant + LAST_CHANCE);
        } else {
            self.abandon(now, out);
        }
    }

    /// Waits for the disk no longer.
    fn abandon(&mut self, now: Now, out: &mut Actions) {
        self.ending.failure.hangs = true;
        let text = "the disk does not answer";
        let failure = Failure { kind: FailureKind::Other, text: Box::from(text) };
        // What a channel gives up its topic may have, so topics come last.
        let owners = core::mem::take(&mut self.unflushed);
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
        if self.id.0 == 0 {
            self.shards_flushing = self.shards;
            self.metadata.hurry(self.ending.until);
            self.metadata.abandon(failure);
        }
    }

    /// Says once what the log was not told.
    pub(super) fn end_flush(&mut self, out: &mut Actions) {
        if !self.flushing || !self.is_flushed() {
            return;
        }
        self.ending.failure.lost_list |= self.metadata.is_lost();
        let left_out = core::mem::take(&mut self.ending.left_out);
        if left_out > 0 {
            out.events.push(Event::QueuesLeftOut(left_out));
        }
    }
}

/// How long a disk that did not answer gets beyond [`CLOSE_PATIENCE`].
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// Lines of the log about queues while a shard ends. A disk that refuses refuses them all.
const LINES_MAX: u64 = 100;
