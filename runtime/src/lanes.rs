//! What arrives at a shard from other threads, and how a node of several threads ends.

#[cfg(all(test, sansq_loom))]
mod interleavings;

use core::mem;
use std::sync::{Arc, PoisonError};

use bytes::BytesMut;
use sansq_core::nsqd::{Detached, Peer, ShardId, ShardMessage};
use sansq_core::storage::Completion;

use crate::bell::Bell;
use crate::connection_limit::ConnectionPermit;
use crate::meter::{Meter, Turns};
use crate::socket::Stream;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The shards of one node, as they see each other.
#[derive(Debug)]
pub struct Lanes {
    inboxes: Box<[Inbox]>,
    meters: Box<[Arc<Meter>]>,
    stopping: AtomicBool,
    /// Shards that still have connections.
    busy: AtomicUsize,
    /// A shard ended badly, so that no other needs to wait for it.
    failed: AtomicBool,
}

/// One shard's letterbox.
#[derive(Debug, Default)]
struct Inbox {
    mail: Mutex<Mail>,
    bell: Bell,
}

/// What arrived. It has no limit of its own: batches are bounded by what connections may have
/// outstanding, sockets by the process's descriptors, completions by what was asked for.
#[derive(Debug, Default)]
pub struct Mail {
    /// From other shards, in the order of each; before `arrivals`, since a connection's new home
    /// has to know all that its old one had said before.
    pub batch: Vec<ShardMessage>,
    /// Sockets.
    pub arrivals: Vec<Arrival>,
    /// From the shard's storage thread.
    pub completions: Vec<Completion>,
}

/// A socket on its way to a shard.
#[derive(Debug)]
pub enum Arrival {
    /// Just accepted.
    Accepted(Stream, Peer, ConnectionPermit),
    /// From another shard, with its unread input.
    Rehomed(Stream, ConnectionPermit, Detached, BytesMut),
}

impl Lanes {
    /// The letterboxes of a node with `shards` shards.
    pub fn new(shards: u16) -> Self {
        Self {
            inboxes: (0..shards).map(|_| Inbox::default()).collect(),
            meters: (0..shards).map(|_| Arc::default()).collect(),
            stopping: AtomicBool::new(false),
            busy: AtomicUsize::new(usize::from(shards)),
            failed: AtomicBool::new(false),
        }
    }

    /// How many shards there are.
    pub const fn shards(&self) -> u16 {
        self.inboxes.len() as u16
    }

    /// What a shard measures its turns with.
    pub fn meter(&self, shard: ShardId) -> Arc<Meter> {
        self.meters.get(usize::from(shard.0)).map(Arc::clone).unwrap_or_default()
    }

    /// The turns of each shard.
    pub(crate) fn turns(&self) -> impl Iterator<Item = Turns> {
        self.meters.iter().map(|meter| meter.turns())
    }

    /// Of each shard: requests that its storage thread has got, and those that are not completed.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (u64, u64)> {
        self.meters.iter().map(|meter| meter.requests())
    }

    /// Connections to the HTTP API that are open, and those that had to go for others.
    pub(crate) fn visitors(&self) -> (u64, u64) {
        let sum = |(open, gone), (more, more_gone)| (open + more, gone + more_gone);
        self.meters.iter().map(|meter| meter.visitors()).fold((0, 0), sum)
    }

    /// Clients that were refused because of the limit on connections.
    pub(crate) fn refused(&self) -> u64 {
        self.meters.iter().map(|meter| meter.refused()).sum()
    }

    /// How many messages of others each shard has not taken in yet.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = u64> {
        (0..self.shards()).map(|shard| {
            let mut length = 0;
            self.with_mail(ShardId(shard), |mail| length = mail.batch.len() as u64);
            length
        })
    }

    /// Hands a batch over whole and leaves it empty. [`ring`](Self::ring) afterwards.
    pub fn post(&self, target: ShardId, batch: &mut Vec<ShardMessage>) {
        self.with_mail(target, |mail| mail.batch.append(batch));
    }

    /// Hands completions of storage requests over, and leaves none. [`ring`](Self::ring)
    /// afterwards.
    pub fn post_completions(&self, target: ShardId, completions: &mut Vec<Completion>) {
        self.with_mail(target, |mail| mail.completions.append(completions));
    }

    /// Hands a socket over.
    pub fn send(&self, target: ShardId, arrival: Arrival) {
        self.with_mail(target, |mail| mail.arrivals.push(arrival));
        self.ring(target);
    }

    /// Rings a shard's doorbell.
    pub fn ring(&self, target: ShardId) {
        if let Some(inbox) = self.inboxes.get(usize::from(target.0)) {
            inbox.bell.ring();
        }
    }

    /// Waits for the doorbell. To be called by one task of the shard only.
    pub async fn wait(&self, shard: ShardId) {
        if let Some(inbox) = self.inboxes.get(usize::from(shard.0)) {
            inbox.bell.wait().await;
        }
    }

    /// Swaps what has arrived with `mail`, which is empty.
    pub fn collect(&self, shard: ShardId, mail: &mut Mail) {
        self.with_mail(shard, |arrived| mem::swap(arrived, mail));
    }

    /// Asks all shards to end.
    pub fn shut_down(&self) {
        self.stopping.store(true, Ordering::Release);
        self.ring_all();
    }

    /// Whether the server is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A shard has no connections any more, and will get none.
    pub fn note_empty(&self) {
        if self.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ring_all();
        }
    }

    /// A shard ended badly: the others end at once.
    pub fn give_up(&self) {
        self.failed.store(true, Ordering::Release);
        self.shut_down();
    }

    /// Whether no shard has connections, and so none needs the others' answers.
    pub fn is_empty(&self) -> bool {
        self.busy.load(Ordering::Acquire) == 0 || self.failed.load(Ordering::Acquire)
    }

    fn ring_all(&self) {
        for inbox in &self.inboxes {
            inbox.bell.ring();
        }
    }

    fn with_mail(&self, shard: ShardId, act: impl FnOnce(&mut Mail)) {
        if let Some(inbox) = self.inboxes.get(usize::from(shard.0)) {
            // Nothing panics while it holds the lock but an allocation that fails.
            act(&mut inbox.mail.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}
