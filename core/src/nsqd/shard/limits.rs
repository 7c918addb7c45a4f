//! How many topics and channels there may be.
//!
//! The limit on channels is exact, since a topic and its channels are on one shard. That on topics
//! is of all shards: each tells the others how many it has, at the end of the call that changed it.
//! So it is exact for one client after the other; clients that make topics in the same moment on
//! several shards may exceed it by those of that moment. What was there at the start is kept,
//! whatever the limits are.

use alloc::vec;
use alloc::vec::Vec;

use super::Shard;
use crate::nsqd::actions::Actions;
use crate::nsqd::ids::ShardId;
use crate::nsqd::publish::TooMany;
use crate::nsqd::shard_message::ShardMessage;
use crate::nsqd::stats::Refusals;

/// What a shard knows of the others' topics, and what it refused.
#[derive(Debug)]
pub(super) struct Limits {
    /// Topics of each shard, as it said; its own as it was told to them.
    topics: Vec<u64>,
    pub(super) refusals: Refusals,
}

impl Limits {
    pub(super) fn new(shards: u16) -> Self {
        Self { topics: vec![0; usize::from(shards)], refusals: Refusals::default() }
    }

    /// Another shard has so many topics.
    pub(super) fn note(&mut self, shard: ShardId, topics: u64) {
        if let Some(count) = self.topics.get_mut(usize::from(shard.0)) {
            *count = topics;
        }
    }
}

impl Shard {
    /// Whether one more topic may be made.
    pub(super) fn check_topics(&mut self) -> Result<(), TooMany> {
        let own = usize::from(self.id.0);
        let others = self.limits.topics.iter().enumerate().filter(|(shard, _)| *shard != own);
        let others: u64 = others.map(|(_, topics)| *topics).sum();
        let limit = self.config.max_topics;
        if limit == 0 || self.topics.len() as u64 + others < limit as u64 {
            return Ok(());
        }
        self.limits.refusals.topics += 1;
        Err(TooMany::Topics(limit))
    }

    /// Whether one more channel may be made for a topic that has so many.
    pub(super) const fn check_channels(&mut self, channels: usize) -> Result<(), TooMany> {
        let limit = self.config.max_channels_per_topic;
        if limit == 0 || channels < limit {
            return Ok(());
        }
        self.limits.refusals.channels += 1;
        Err(TooMany::Channels(limit))
    }

    /// Tells the other shards how many topics there are, if that has changed.
    pub(super) fn tell_topics(&mut self, out: &mut Actions) {
        let topics = self.topics.len() as u64;
        let Some(told) = self.limits.topics.get_mut(usize::from(self.id.0)) else { return };
        if core::mem::replace(told, topics) == topics {
            return;
        }
        for shard in (0..self.shards).map(ShardId).filter(|shard| *shard != self.id) {
            out.tell(shard, ShardMessage::Topics { from: self.id, topics });
        }
    }
}
