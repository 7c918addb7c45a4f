//! What a node does once, whichever shard its topics are on: shard 0 has somebody for it.
//!
//! ```text
//!                                      ┌── LookupPeers ──► nsqlookupds
//!   shards ──Announcement──► Registry ─┤
//!                                      └── MetadataFile ──► nsqd.dat
//!   shards ──pages of the statistics──► Statsd ──► statsd
//! ```
//!
//! The clerk has its own deadlines, of which the shard knows the next. What it asks of the driver
//! goes into [`Actions`] at once, what it asks of its shard into [`ClerkSink`].

mod peers;
mod statsd;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::BytesMut;

use self::peers::PeerEntry;
use self::statsd::StatsdEntry;
use super::Shard;
use super::ending::Flush;
use super::timer::Timer;
use crate::arena::{Arena, PeerId};
use crate::deadlines::Deadlines;
use crate::nsqd::actions::Actions;
use crate::nsqd::admin::{AdminError, AdminReply};
use crate::nsqd::config::Config;
use crate::nsqd::event::Event;
use crate::nsqd::ids::{ReplyToken, ShardId};
use crate::nsqd::metadata::{MetadataFile, Written};
use crate::nsqd::registry::{Announcement, Registry};
use crate::nsqd::shard_message::{Collector, Lookupds, ShardMessage};
use crate::nsqd::stats::{Memory, ServerStats, StatsFilter, StatsPage};
use crate::protocol::lookup::Registration;
use crate::rng::Rng;
use crate::storage::{
    Failure, File, Metadata, Op, Owner, Request, RequestId, RequestIds, Store, Success,
};
use crate::time::{Instant, Now};

/// What a node has once: the list of its topics and channels, the file that keeps it, and the
/// connections of those that are told of it.
#[derive(Debug)]
pub(super) struct Clerk {
    shards: u16,
    /// What exists over all shards.
    registry: Registry,
    /// What the metadata file has of that. Without a disk there is none.
    metadata: Option<MetadataFile>,
    /// How many shards have begun to flush, and announce nothing any more.
    shards_flushing: u16,
    peers: Arena<PeerId, PeerEntry>,
    statsd: Option<StatsdEntry>,
    deadlines: Deadlines<Wake>,
    /// The earliest time at which the shard will look at it.
    armed: Option<Instant>,
}

/// What the clerk borrows of its shard, and asks of it.
pub(super) struct ClerkSink<'a> {
    config: &'a Config,
    rng: &'a mut Rng,
    requests: &'a mut RequestIds,
    actions: &'a mut Actions,
    /// Where the nsqlookupds are, each time that it has changed.
    lookupds: Vec<Lookupds>,
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Wake {
    Metadata,
    Peer(PeerId),
    Statsd,
}

impl Clerk {
    /// For a node with `shards` shards, and for a disk if there is one.
    pub(super) fn new(shards: u16, disk: bool) -> Self {
        Self {
            shards,
            registry: Registry::new(),
            metadata: disk.then(MetadataFile::new),
            shards_flushing: 0,
            peers: Arena::new(),
            statsd: None,
            deadlines: Deadlines::new(),
            armed: None,
        }
    }

    /// Takes over what the metadata file lists.
    pub(super) fn load(&mut self, metadata: &Metadata) {
        self.registry = Registry::from_metadata(metadata);
    }

    /// Begins: connects to the nsqlookupds, and writes the metadata file.
    fn start(&mut self, now: Now, out: &mut ClerkSink<'_>) {
        self.add_peers(&out.config.lookupd_tcp_addresses, now, out);
        self.start_statsd(&out.config.statsd, now);
        if let Some(metadata) = &mut self.metadata {
            metadata.refresh();
            self.save(now, out);
        }
    }

    /// Ends what there is with others. The list is written as long as it changes.
    fn stop(&mut self, out: &mut ClerkSink<'_>) {
        self.stop_peers(out);
        self.stop_statsd(out);
    }

    /// Takes note of a change, and lets the nsqlookupds know.
    fn note(&mut self, change: Announcement, now: Now, out: &mut ClerkSink<'_>) {
        let is_new = self.registry.note(change);
        if let Some(metadata) = &mut self.metadata
            && change.is_stored()
            && (is_new || change.is_pause())
        {
            metadata.changed();
        }
        if !is_new {
            return;
        }
        let (topic, channel, exists) = match change {
            Announcement::TopicCreated(topic) => (topic, None, true),
            Announcement::TopicDeleted(topic) => (topic, None, false),
            Announcement::ChannelCreated(topic, channel) => (topic, Some(channel), true),
            Announcement::ChannelDeleted(topic, channel) => (topic, Some(channel), false),
            Announcement::TopicPaused(..) | Announcement::ChannelPaused(..) => return,
        };
        self.tell_peers(Registration { topic, channel }, exists, now, out);
    }

    /// Has the metadata file written if it is time.
    fn save(&mut self, now: Now, out: &mut ClerkSink<'_>) {
        let Some(metadata) = &mut self.metadata else { return };
        if let Some((id, contents)) = metadata.begin(&self.registry, out.requests, now) {
            let op = Op::Replace { file: File::Metadata, contents };
            let request = Request { id, owner: Owner::Metadata, store: Store::Metadata, op };
            out.actions.storage.push(request);
        }
        let due = metadata.poll_timeout();
        self.deadlines.arm_by(due, &mut metadata.armed, Wake::Metadata);
    }

    /// Whether the metadata file has every change.
    fn is_saved(&self) -> bool {
        self.metadata.as_ref().is_none_or(MetadataFile::is_saved)
    }

    /// Keeps an answer back until the metadata file has every change so far. `false` if there is
    /// nothing to wait for.
    fn wait(&mut self, from: ShardId, token: ReplyToken) -> bool {
        self.metadata.as_mut().is_some_and(|metadata| metadata.wait(from, token))
    }

    /// The metadata file was written, or was not. Returns whose answers waited for it.
    fn handle_written(
        &mut self,
        id: RequestId,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut ClerkSink<'_>,
    ) -> Vec<(ShardId, ReplyToken)> {
        let mut waiting = Vec::new();
        let Some(metadata) = &mut self.metadata else { return waiting };
        let failure = result.as_ref().err().cloned();
        let written = metadata.handle_written(id, result.map(|_| ()), now, |shard, token| {
            waiting.push((shard, token));
        });
        if let (Written::FailedNow, Some(failure)) = (written, failure) {
            out.actions.events.push(Event::MetadataFailed(failure));
        }
        waiting
    }

    /// Why the metadata file is not as it should be, if so.
    pub(super) fn failure(&self) -> Option<String> {
        let failure = self.metadata.as_ref()?.failure()?;
        Some(format!("failed to persist metadata - {}", failure.in_words()))
    }

    /// A shard flushes, so it announces nothing any more. The file is written for the last time
    /// when that is all of them: until `until`, which is known when shard 0 itself flushes.
    pub(super) fn shard_flushed(&mut self, until: Option<Instant>) {
        self.shards_flushing += 1;
        if self.is_last_save_asked()
            && let Some(metadata) = &mut self.metadata
            && let Some(until) = until
        {
            metadata.hurry(until);
        }
    }

    const fn is_last_save_asked(&self) -> bool {
        self.shards_flushing >= self.shards
    }

    /// Whether the file is written for the last time, or given up.
    pub(super) fn is_flushed(&self) -> bool {
        let is_done = self.metadata.as_ref().is_none_or(MetadataFile::is_done);
        is_done && self.is_last_save_asked()
    }

    /// Waits for the disk no longer, nor for other shards.
    pub(super) fn abandon(&mut self, until: Instant, failure: Failure) {
        self.shards_flushing = self.shards;
        if let Some(metadata) = &mut self.metadata {
            metadata.hurry(until);
            metadata.abandon(failure);
        }
    }

    /// Whether the file was given up without changes that it should have.
    pub(super) fn is_list_lost(&self) -> bool {
        self.metadata.as_ref().is_some_and(MetadataFile::is_lost)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Looks at the earliest deadline, if it is due. Returns the page of the statistics that statsd
    /// is to get now.
    fn handle_timeout(&mut self, now: Now, out: &mut ClerkSink<'_>) -> Option<StatsPage> {
        let (at, wake) = self.deadlines.pop_due(now.instant)?;
        match wake {
            Wake::Metadata => {
                // The shard has it saved at the end of the call.
                if let Some(metadata) = &mut self.metadata {
                    metadata.armed.take_if(|armed| *armed == at);
                }
                None
            }
            Wake::Peer(id) => {
                self.handle_peer_timeout(id, at, now, out);
                None
            }
            Wake::Statsd => self.handle_statsd_timeout(at, now, out),
        }
    }
}

impl Shard {
    /// Calls the clerk, if it is here, and sees to its deadline and to what it asks of the shard.
    fn on_clerk<R>(
        &mut self,
        now: Now,
        out: &mut Actions,
        call: impl FnOnce(&mut Clerk, Now, &mut ClerkSink<'_>) -> R,
    ) -> Option<R> {
        let clerk = self.clerk.as_deref_mut()?;
        let mut sink = ClerkSink {
            config: &self.config,
            rng: &mut self.rng,
            requests: &mut self.disk.requests,
            actions: out,
            lookupds: Vec::new(),
        };
        let result = call(clerk, now, &mut sink);
        let lookupds = sink.lookupds;
        self.deadlines.arm_by(clerk.poll_timeout(), &mut clerk.armed, Timer::Clerk);
        for lookupds in lookupds {
            self.set_known_lookupds(lookupds, now, out);
        }
        Some(result)
    }

    /// The connection to an nsqlookupd that was asked for is made.
    pub fn handle_peer_connected(&mut self, peer: PeerId, now: Now, out: &mut Actions) {
        self.on_clerk(now, out, |clerk, now, out| clerk.handle_peer_connected(peer, now, out));
        self.settle_all(now, out);
    }

    /// An nsqlookupd sent something. What is left in `input` waits there for more.
    pub fn handle_peer_input(
        &mut self,
        peer: PeerId,
        input: &mut BytesMut,
        now: Now,
        out: &mut Actions,
    ) {
        self.on_clerk(now, out, |clerk, now, out| clerk.handle_peer_input(peer, input, now, out));
        self.settle_all(now, out);
    }

    /// The connection to an nsqlookupd could not be made, or has ended; `reason` says why, for the
    /// log. Not to be called for one that was closed by
    /// [`PeerAction::Close`](crate::nsqd::PeerAction::Close).
    pub fn handle_peer_closed(&mut self, peer: PeerId, reason: &str, now: Now, out: &mut Actions) {
        self.on_clerk(now, out, |clerk, now, out| clerk.handle_peer_closed(peer, reason, now, out));
        self.settle_all(now, out);
    }

    /// The process's memory, which [`StatsdAction::Measure`](crate::nsqd::StatsdAction::Measure)
    /// asked for.
    pub fn handle_memory(&mut self, memory: Memory, now: Now, out: &mut Actions) {
        self.on_clerk(now, out, |clerk, now, out| clerk.handle_memory(memory, now, out));
    }

    /// The clerk begins.
    pub(super) fn start_clerk(&mut self, now: Now, out: &mut Actions) {
        self.on_clerk(now, out, Clerk::start);
    }

    /// The clerk ends.
    pub(super) fn stop_clerk(&mut self, now: Now, out: &mut Actions) {
        self.on_clerk(now, out, |clerk, _, out| clerk.stop(out));
    }

    pub(super) fn handle_clerk_timeout(&mut self, at: Instant, now: Now, out: &mut Actions) {
        let Some(clerk) = self.clerk.as_mut().filter(|clerk| clerk.armed == Some(at)) else {
            return;
        };
        clerk.armed = None;
        if let Some(page) = self.on_clerk(now, out, Clerk::handle_timeout).flatten() {
            let filter = StatsFilter { page: Some(page), ..StatsFilter::default() };
            self.collect(Some(filter), Collector::Statsd, now, out);
        }
    }

    /// Lets the clerk know of a change.
    pub(super) fn announce(&mut self, change: Announcement, now: Now, out: &mut Actions) {
        if self.clerk.is_none() {
            return out.tell(ShardId(0), ShardMessage::Announce(change));
        }
        self.on_clerk(now, out, |clerk, now, out| clerk.note(change, now, out));
    }

    /// Ends the connections to nsqlookupds that `addresses` does not name and begins those that are
    /// new; the others notice nothing.
    pub(super) fn set_lookupds(
        &mut self,
        addresses: &[String],
        now: Now,
        out: &mut Actions,
    ) -> Result<(), AdminError> {
        if self.life.is_stopping() {
            return Err(AdminError::Exiting);
        }
        self.on_clerk(now, out, |clerk, now, out| clerk.set_peers(addresses, now, out));
        Ok(())
    }

    /// A page that statsd asked for is gathered.
    pub(super) fn push_stats(&mut self, stats: ServerStats, now: Now, out: &mut Actions) {
        self.on_clerk(now, out, |clerk, now, out| clerk.handle_stats(stats, now, out));
    }

    /// Answers an admin request when the list of topics and channels is written as it is now.
    pub(super) fn persist(&mut self, from: ShardId, token: ReplyToken, out: &mut Actions) {
        let Some(clerk) = &mut self.clerk else {
            return out.tell(ShardId(0), ShardMessage::Persist { from, token });
        };
        if !clerk.wait(from, token) {
            self.reply_to(from, token, AdminReply::Done, out);
        }
    }

    /// Has the list of topics and channels written if it is time.
    pub(super) fn save_metadata(&mut self, now: Now, out: &mut Actions) {
        if self.clerk.as_ref().is_some_and(|clerk| !clerk.is_saved()) {
            self.on_clerk(now, out, Clerk::save);
        }
    }

    pub(super) fn metadata_written(
        &mut self,
        id: RequestId,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut Actions,
    ) {
        let written =
            self.on_clerk(now, out, |clerk, now, out| clerk.handle_written(id, result, now, out));
        for (shard, token) in written.into_iter().flatten() {
            self.reply_to(shard, token, AdminReply::Done, out);
        }
    }

    /// A shard was told to flush: what it announced before is known.
    pub(super) fn shard_flushed(&mut self, now: Now) {
        self.life.note_answer(now);
        let until = self.life.flushing().map(Flush::until);
        if let Some(clerk) = &mut self.clerk {
            clerk.shard_flushed(until);
        }
    }
}

#[cfg(test)]
mod tests;
