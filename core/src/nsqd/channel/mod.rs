//! A channel: messages that wait, consumers that are ready, deliveries that are not answered yet.
//!
//! ```text
//!             put                       deliver
//!   topic ─────────► backlog ─────────────────────────► consumer (RDY)
//!                     ▲  ▲                                 │
//!                     │  └──── deferred ◄── REQ with delay─┤
//!                     └─────── in flight ◄─────────────────┘ FIN: gone
//!                         timeout, REQ 0, consumer gone
//! ```
//!
//! Invariants:
//! - a message is in exactly one of backlog, in flight, deferred;
//! - while a message waits in the backlog, the channel is paused, or no consumer is ready, or the
//!   disk has to be waited for;
//! - a consumer never has more in flight than the RDY it had when the last one was delivered;
//! - a message that came from the disk keeps its record until it is finished, so that it is
//!   delivered again after a crash.
//!
//! Limits: those of the [backlog](super::backlog): `--mem-queue-size` in memory, then the disk, and
//! then the topic is told that there is no room ([`Channel::room`]). In flight are at most as many
//! as the consumers' RDY. What clients defer is bounded by nothing, as in the reference.
//! Source: nsqd-protocol.md sections 10 to 13.

mod deferred;
mod disk;

use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use core::time::Duration;

use self::deferred::Deferred;
use super::backlog::{Backlog, BacklogOutput, Beyond, Run};
use super::in_flight::{InFlight, List, NotInFlight};
use super::latency::{Histogram, Latencies, LatencyTotals};
use super::line::{Line, Nearness, Proximity};
use crate::arena::{Arena, ConnId, ConsumerId, TopicId};
use crate::deadlines::Deadlines;
use crate::message::{ATTEMPTS_MAX, Message, MessageId};
use crate::name::ChannelName;
use crate::rng::Rng;
use crate::storage::Ticket;
use crate::time::{Instant, Now};

/// What a channel asks of its owner. Infallible, and never enters the channel again.
pub trait ChannelOutput: BacklogOutput {
    /// Sends `message` to `conn`. The message is lent: it is kept in flight afterwards. Returns
    /// whether the connection can take another one now; if not, [`Channel::unblock`] says when it
    /// can again.
    fn deliver(&mut self, conn: ConnId, message: &Message) -> bool;
}

/// What a channel has to know of an operator's decisions.
#[derive(Clone, Copy, Debug)]
pub struct ChannelOptions {
    /// Messages in memory.
    pub mem_queue_size: usize,
    /// How far TOUCH can extend a delivery.
    pub max_msg_timeout: Duration,
    /// Connections; 0 for no limit.
    pub max_channel_consumers: usize,
    /// What becomes of messages for which there is no room in memory.
    pub beyond: Beyond,
    /// The time over which latencies are measured; `None` switches that off.
    pub latency_window: Option<Duration>,
}

/// The numbers of a channel that only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ChannelCounters {
    /// Messages received from the topic: those that are here, and not those that the disk may still
    /// refuse.
    pub messages: u64,
    /// Messages handed to consumers, each delivery counted.
    pub deliveries: u64,
    /// Those of them that went to consumers in this nsqd's zone.
    pub zone_deliveries: u64,
    /// Those that went to consumers in this nsqd's region, but not in its zone.
    pub region_deliveries: u64,
    /// REQ commands.
    pub requeues: u64,
    /// Deliveries that were not answered in time.
    pub timeouts: u64,
}

/// The numbers of one consumer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConsumerStats {
    /// RDY.
    pub ready: u32,
    /// Messages delivered and not answered.
    pub in_flight: u32,
    /// Messages delivered.
    pub messages: u64,
    /// FINs acted on.
    pub finishes: u64,
    /// REQs acted on.
    pub requeues: u64,
}

/// The channel has as many consumers as the operator allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooManyConsumers;

/// A channel of a topic.
#[derive(Debug)]
pub struct Channel {
    name: ChannelName,
    topic: TopicId,
    options: ChannelOptions,
    paused: bool,
    /// The broker stops: nothing is delivered any more.
    stopped: bool,
    backlog: Backlog,
    in_flight: InFlight,
    deferred: BinaryHeap<Deferred>,
    deferrals: u64,
    consumers: Arena<ConsumerId, Consumer>,
    /// Who gets the next message. Contains every consumer that can take one, and perhaps some that
    /// no longer can; those are dropped when their turn comes.
    ready: Line,
    /// Consumers with RDY 0.
    idle: usize,
    /// Consumers that can take a message, between two calls.
    able: usize,
    /// Each consumer's earliest in-flight deadline, or an earlier time.
    deadlines: Deadlines<ConsumerId>,
    counters: ChannelCounters,
    /// From the first FIN on, if they are measured.
    latencies: Option<Box<Latencies>>,
    rng: Rng,
}

#[derive(Debug)]
struct Consumer {
    conn: ConnId,
    stats: ConsumerStats,
    list: List,
    msg_timeout: Duration,
    sample_rate: u8,
    nearness: Nearness,
    /// The connection is owed so much that it gets no more for now.
    blocked: bool,
    /// Whether it stands in `Channel::ready`.
    queued: bool,
    /// Whether it is one of `Channel::able`.
    is_able: bool,
    /// The earliest time at which it stands in `Channel::deadlines`.
    armed: Option<Instant>,
}

impl Consumer {
    const fn can_take(&self) -> bool {
        !self.blocked && self.list.len() < self.stats.ready
    }

    /// Whether it can take a message, after something happened to it; `able` counts it if so.
    fn note_ability(&mut self, able: &mut usize) -> bool {
        let (was, is) = (self.is_able, self.can_take());
        self.is_able = is;
        *able = *able + usize::from(is) - usize::from(was);
        is
    }
}

impl Channel {
    /// A channel that has what its disk has. `seed` decides which messages a sampling consumer
    /// gets.
    pub fn new(
        name: ChannelName,
        topic: TopicId,
        options: ChannelOptions,
        seed: u64,
        out: &mut impl ChannelOutput,
    ) -> Self {
        Self {
            name,
            topic,
            options,
            paused: false,
            stopped: false,
            backlog: Backlog::new(options.mem_queue_size, options.beyond, out),
            in_flight: InFlight::new(),
            deferred: BinaryHeap::new(),
            deferrals: 0,
            consumers: Arena::new(),
            ready: Line::new(),
            idle: 0,
            able: 0,
            deadlines: Deadlines::new(),
            counters: ChannelCounters {
                messages: 0,
                deliveries: 0,
                zone_deliveries: 0,
                region_deliveries: 0,
                requeues: 0,
                timeouts: 0,
            },
            latencies: None,
            rng: Rng::new(seed),
        }
    }

    /// Its name.
    pub const fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The topic that it belongs to.
    pub const fn topic(&self) -> TopicId {
        self.topic
    }

    /// How many more messages the topic may put before it should wait. An ephemeral channel always
    /// has room: it drops.
    pub fn room(&self) -> usize {
        self.backlog.room()
    }

    /// How many more messages the topic may put that it keeps until they are written or finished.
    pub fn room_for_kept(&self) -> usize {
        self.backlog.room_for_kept()
    }

    /// How many messages the topic may put without any of them going to disk.
    pub fn memory_room(&self) -> usize {
        self.backlog.memory_room()
    }

    /// Takes a message from the topic and delivers it if a consumer is ready. If it has to be
    /// written first, the outcome is told under `ticket`.
    pub fn put(
        &mut self,
        message: Message,
        ticket: Option<Ticket>,
        now: Now,
        out: &mut impl ChannelOutput,
    ) {
        self.enqueue(message, ticket, now, out);
    }

    /// Takes messages from the topic, of which [`memory_room`](Self::memory_room) says that none
    /// has to be written first, and delivers them as far as consumers are ready.
    pub fn put_run(&mut self, run: Run, now: Now, out: &mut impl ChannelOutput) {
        self.counters.messages += run.list.len() as u64;
        self.backlog.put_run(run);
        self.dispatch(now, out);
    }

    /// Takes a message from the topic that is to be kept back until `due`.
    pub fn put_deferred(
        &mut self,
        message: Message,
        due: Instant,
        ticket: Option<Ticket>,
        now: Now,
        out: &mut impl ChannelOutput,
    ) {
        if due <= now.instant {
            self.enqueue(message, ticket, now, out);
        } else if self.backlog.is_disk_first() && self.backlog.takes_due_times() {
            let may_be_refused = self.backlog.put(message, Some(due), ticket, now, out);
            self.counters.messages += u64::from(!may_be_refused);
            self.dispatch(now, out);
        } else {
            self.counters.messages += 1;
            self.defer(message, due);
        }
    }

    /// Adds a consumer with RDY 0.
    ///
    /// # Errors
    /// [`TooManyConsumers`] at `--max-channel-consumers`.
    pub fn subscribe(
        &mut self,
        conn: ConnId,
        msg_timeout: Duration,
        sample_rate: u8,
    ) -> Result<ConsumerId, TooManyConsumers> {
        let max = self.options.max_channel_consumers;
        if max > 0 && self.consumers.len() >= max {
            return Err(TooManyConsumers);
        }
        self.idle += 1;
        Ok(self.consumers.insert(Consumer {
            conn,
            stats: ConsumerStats::default(),
            list: List::default(),
            msg_timeout,
            sample_rate,
            nearness: Nearness::default(),
            blocked: false,
            queued: false,
            is_able: false,
            armed: None,
        }))
    }

    /// Says how near a consumer is. To be called before its first RDY.
    pub fn set_nearness(&mut self, consumer: ConsumerId, nearness: Nearness) {
        if let Some(entry) = self.consumers.get_mut(consumer) {
            entry.nearness = nearness;
        }
    }

    /// RDY: the consumer takes up to `count` unanswered messages.
    pub fn ready(
        &mut self,
        consumer: ConsumerId,
        count: u32,
        now: Now,
        out: &mut impl ChannelOutput,
    ) {
        if let Some(entry) = self.consumers.get_mut(consumer) {
            self.idle -= usize::from(entry.stats.ready == 0);
            self.idle += usize::from(count == 0);
            entry.stats.ready = count;
            self.queue_if_ready(consumer);
            self.dispatch(now, out);
        }
    }

    /// FIN: the message is done with.
    ///
    /// # Errors
    /// [`NotInFlight`] if it is not in flight to this consumer.
    pub fn finish(
        &mut self,
        consumer: ConsumerId,
        id: MessageId,
        now: Now,
        out: &mut impl ChannelOutput,
    ) -> Result<(), NotInFlight> {
        self.drop_finished(consumer, id, now, out)?;
        self.go_on(consumer, now, out);
        Ok(())
    }

    /// FINs, up to the first of a message that is not in flight to this consumer. Returns how many
    /// were acted on.
    pub fn finish_all(
        &mut self,
        consumer: ConsumerId,
        ids: impl Iterator<Item = MessageId>,
        now: Now,
        out: &mut impl ChannelOutput,
    ) -> usize {
        let finished = ids.map_while(|id| self.drop_finished(consumer, id, now, out).ok()).count();
        if finished > 0 {
            self.go_on(consumer, now, out);
        }
        finished
    }

    fn drop_finished(
        &mut self,
        consumer: ConsumerId,
        id: MessageId,
        now: Now,
        out: &mut impl ChannelOutput,
    ) -> Result<(), NotInFlight> {
        let entry = self.consumers.get_mut(consumer).ok_or(NotInFlight::Unknown)?;
        let message = self.in_flight.remove(&mut entry.list, consumer, id)?;
        entry.stats.finishes += 1;
        self.backlog.finish(message.record, now, out);
        if let Some(window) = self.options.latency_window {
            let latencies =
                self.latencies.get_or_insert_with(|| Box::new(Latencies::new(window, now)));
            latencies.note(message.timestamp, now);
        }
        Ok(())
    }

    /// The consumer can perhaps take more now.
    fn go_on(&mut self, consumer: ConsumerId, now: Now, out: &mut impl ChannelOutput) {
        self.queue_if_ready(consumer);
        self.dispatch(now, out);
    }

    /// REQ: the message is to be delivered again, after `delay`.
    ///
    /// # Errors
    /// [`NotInFlight`] if it is not in flight to this consumer.
    pub fn requeue(
        &mut self,
        consumer: ConsumerId,
        id: MessageId,
        delay: Duration,
        now: Now,
        out: &mut impl ChannelOutput,
    ) -> Result<(), NotInFlight> {
        let entry = self.consumers.get_mut(consumer).ok_or(NotInFlight::Unknown)?;
        let message = self.in_flight.remove(&mut entry.list, consumer, id)?;
        entry.stats.requeues += 1;
        self.counters.requeues += 1;
        self.queue_if_ready(consumer);
        if delay.is_zero() {
            self.backlog.put_back(message);
        } else {
            self.defer(message, now.instant + delay);
        }
        self.dispatch(now, out);
        Ok(())
    }

    /// TOUCH: the consumer has `timeout` from now, within `--max-msg-timeout` of the delivery.
    ///
    /// # Errors
    /// [`NotInFlight`] if it is not in flight to this consumer.
    pub fn touch(
        &mut self,
        consumer: ConsumerId,
        id: MessageId,
        timeout: Duration,
        now: Now,
    ) -> Result<(), NotInFlight> {
        let max = self.options.max_msg_timeout;
        let entry = self.consumers.get_mut(consumer).ok_or(NotInFlight::Unknown)?;
        self.in_flight.touch(&mut entry.list, consumer, id, now.instant, timeout, max)?;
        self.arm(consumer);
        Ok(())
    }

    /// The consumer's connection can take messages again.
    pub fn unblock(&mut self, consumer: ConsumerId, now: Now, out: &mut impl ChannelOutput) {
        if let Some(entry) = self.consumers.get_mut(consumer) {
            entry.blocked = false;
            self.queue_if_ready(consumer);
            self.dispatch(now, out);
        }
    }

    /// Takes a consumer off. What was in flight to it is delivered to others at once, attempts kept
    /// (weakness W3). Returns whether nobody is left.
    pub fn unsubscribe(
        &mut self,
        consumer: ConsumerId,
        now: Now,
        out: &mut impl ChannelOutput,
    ) -> bool {
        let Some(mut entry) = self.consumers.remove(consumer) else { return false };
        self.idle -= usize::from(entry.stats.ready == 0);
        self.able -= usize::from(entry.is_able);
        // On a channel without messages nobody's turn comes, and those who left would never be
        // dropped.
        if self.ready.len() > 2 * self.consumers.len() + READY_KEPT {
            let consumers = &self.consumers;
            self.ready.retain(|id| consumers.get(*id).is_some());
        }
        while let Some(message) = self.in_flight.pop_first(&mut entry.list) {
            self.backlog.put_back(message);
            self.dispatch(now, out);
        }
        self.consumers.is_empty()
    }

    /// Delivers nothing from now on, or goes on.
    pub fn set_paused(&mut self, paused: bool, now: Now, out: &mut impl ChannelOutput) {
        self.paused = paused;
        self.dispatch(now, out);
    }

    /// Delivers nothing from now on, for good: the broker stops, and what comes back from consumers
    /// that leave must not go to others that leave next.
    pub const fn stop(&mut self) {
        self.stopped = true;
    }

    /// Drops every message: waiting, in flight and deferred.
    pub fn empty(&mut self, now: Now, out: &mut impl ChannelOutput) {
        self.counters.messages += self.backlog.empty(now, out);
        self.deferred = BinaryHeap::new();
        self.in_flight.clear();
        for (id, consumer) in self.consumers.iter_mut() {
            consumer.list = List::default();
            if consumer.note_ability(&mut self.able) && !consumer.queued {
                consumer.queued = true;
                self.ready.push_back(id, consumer.nearness.rank);
            }
        }
    }

    /// Hands out what is due: deferred messages, and deliveries that were not answered in time.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl ChannelOutput) {
        self.backlog.handle_timeout(now, out);
        while let Some((at, consumer)) = self.deadlines.pop_due(now.instant) {
            let Some(entry) = self.consumers.get_mut(consumer) else { continue };
            if entry.armed != Some(at) {
                continue;
            }
            entry.armed = None;
            while self.in_flight.next_deadline(&entry.list).is_some_and(|at| at <= now.instant)
                && let Some(message) = self.in_flight.pop_first(&mut entry.list)
            {
                self.counters.timeouts += 1;
                self.backlog.put_back(message);
            }
            self.arm(consumer);
            self.queue_if_ready(consumer);
        }
        while self.deferred.peek().is_some_and(|deferred| deferred.due <= now.instant)
            && let Some(deferred) = self.deferred.pop()
        {
            self.backlog.put_back(deferred.message);
        }
        self.dispatch(now, out);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deferred = self.deferred.peek().map(|deferred| deferred.due);
        let own = [self.deadlines.next(), deferred, self.backlog.poll_timeout()];
        own.into_iter().flatten().min()
    }

    /// Whether it delivers nothing.
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Messages that wait for a consumer.
    pub fn depth(&self) -> u64 {
        self.backlog.len().saturating_sub(self.backlog.deferred() as u64)
    }

    /// How many of them are on disk.
    pub fn backend_depth(&self) -> u64 {
        self.backlog.on_disk().min(self.depth())
    }

    /// Messages delivered and not answered.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// Messages kept back for a delay.
    pub fn deferred_count(&self) -> usize {
        self.deferred.len() + self.backlog.deferred()
    }

    /// What it did so far.
    pub const fn counters(&self) -> ChannelCounters {
        self.counters
    }

    /// How long all messages took since the channel was made, if that is measured.
    pub(super) fn latency_totals(&self) -> Option<LatencyTotals> {
        self.latencies.as_ref().map(|latencies| latencies.totals())
    }

    /// Adds what is known of how long messages took.
    pub(super) fn add_latencies(&self, all: &mut Histogram, now: Now) {
        if let Some(latencies) = &self.latencies {
            latencies.add_to(all, now);
        }
    }

    /// Its consumers' connections.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerId, ConnId)> {
        self.consumers.iter().map(|(id, consumer)| (id, consumer.conn))
    }

    /// Those from this slot of its table on.
    pub(super) fn consumers_from(&self, slot: u32) -> impl Iterator<Item = (ConsumerId, ConnId)> {
        self.consumers.iter_from(slot).map(|(id, consumer)| (id, consumer.conn))
    }

    /// How many consumers it has.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// How many consumers have RDY 0, and how many would take a message now.
    pub const fn idle_and_ready(&self) -> (u64, u64) {
        (self.idle as u64, self.able as u64)
    }

    /// The numbers of one consumer.
    pub fn consumer_stats(&self, consumer: ConsumerId) -> Option<ConsumerStats> {
        let entry = self.consumers.get(consumer)?;
        Some(ConsumerStats { in_flight: entry.list.len(), ..entry.stats })
    }

    /// Delivers a fresh message, or puts it at the end of the backlog.
    fn enqueue(
        &mut self,
        message: Message,
        ticket: Option<Ticket>,
        now: Now,
        out: &mut impl ChannelOutput,
    ) {
        let direct = self.flows() && self.backlog.is_empty() && !self.backlog.is_disk_first();
        let left = if direct { self.deliver(message, now, out) } else { Some(message) };
        let Some(message) = left else {
            self.counters.messages += 1;
            return;
        };
        let may_be_refused = self.backlog.put(message, None, ticket, now, out);
        self.counters.messages += u64::from(!may_be_refused);
        self.dispatch(now, out);
    }

    /// Delivers what waits to who is ready. An ephemeral channel then drops what came last and does
    /// not fit: what somebody can have now needs no room.
    fn dispatch(&mut self, now: Now, out: &mut impl ChannelOutput) {
        while self.flows()
            && !self.ready.is_empty()
            && let Some((message, due)) = self.backlog.pop(now, out)
        {
            if let Some(due) = due
                && due > now.instant
            {
                self.defer(message, due);
            } else if let Some(message) = self.deliver(message, now, out) {
                self.backlog.undo_pop(message);
                break;
            }
        }
        self.backlog.drop_excess();
    }

    const fn flows(&self) -> bool {
        !self.paused && !self.stopped
    }

    /// Gives a message to the next ready consumer; hands it back if there is none.
    fn deliver(
        &mut self,
        mut message: Message,
        now: Now,
        out: &mut impl ChannelOutput,
    ) -> Option<Message> {
        loop {
            let Some(id) = self.ready.pop_front() else { return Some(message) };
            let Some(consumer) = self.consumers.get_mut(id) else { continue };
            consumer.queued = false;
            if !consumer.can_take() {
                continue;
            }
            // A rate of r lets r percent through; the reference's r + 1 is a slip (section 23).
            if consumer.sample_rate == 0 || self.rng.below(100) < u64::from(consumer.sample_rate) {
                message.attempts = message.attempts.saturating_add(1).min(ATTEMPTS_MAX);
                consumer.stats.messages += 1;
                self.counters.deliveries += 1;
                match consumer.nearness.place {
                    Proximity::Elsewhere => {}
                    Proximity::Region => self.counters.region_deliveries += 1,
                    Proximity::Zone => self.counters.zone_deliveries += 1,
                }
                consumer.blocked = !out.deliver(consumer.conn, &message);
                let timeout = consumer.msg_timeout;
                let list = &mut consumer.list;
                let first = self.in_flight.insert(list, id, message, now.instant, timeout);
                self.deadlines.arm_by(first, &mut consumer.armed, id);
            } else {
                self.backlog.finish(message.record, now, out);
            }
            if consumer.note_ability(&mut self.able) {
                consumer.queued = true;
                self.ready.push_back(id, consumer.nearness.rank);
            }
            return None;
        }
    }

    fn defer(&mut self, message: Message, due: Instant) {
        self.deferrals += 1;
        self.deferred.push(Deferred { due, order: self.deferrals, message });
    }

    fn queue_if_ready(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(id)
            && consumer.note_ability(&mut self.able)
            && !consumer.queued
        {
            consumer.queued = true;
            self.ready.push_back(id, consumer.nearness.rank);
        }
    }

    /// Sees to it that the consumer's earliest deadline is in the heap.
    fn arm(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(id) {
            let due = self.in_flight.next_deadline(&consumer.list);
            self.deadlines.arm_by(due, &mut consumer.armed, id);
        }
    }
}

/// How many consumers that have left may stand in line for messages, besides as many as there are.
const READY_KEPT: usize = 16;

#[cfg(test)]
mod tests;
