//! What must hold whatever happens, judged from what is seen at the nsqds' edges.
//!
//! Always:
//! - nothing is delivered that was not published to that topic of that nsqd, nor anything that the
//!   publisher was told is not there, and a message has one id;
//! - a message is in flight to one consumer at a time, and comes again only after REQ and its
//!   delay, a time-out, or the loss of the connection; never after a FIN that was acted on;
//! - attempts rise by one per delivery;
//! - no more is in flight on a connection than its RDY when the last message was sent.
//!
//! In the end, when nothing breaks any more: each accepted message was finished on each channel
//! that it is owed to.
//!
//! An nsqd that stops in good order and starts again counts as one that never stopped, except that
//! delays may change with the wall clock. One that dies may deliver finished messages again,
//! forgets delays and attempts, and may lose what it had in memory only: nothing with
//! `--mem-queue-size=0`, unless the power goes. It may forget a channel that was new; that is owed
//! nothing until it is made again.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use sansq_core::name::{ChannelName, TopicName};
use sansq_core::time::Instant;

use crate::model::{
    Channel, ChannelKey, CopyState, InFlight, MessageNumber, Model, PublishOutcome, Published,
    Subscriber,
};

pub(crate) mod counts;
mod delivery;
mod discard;
pub(crate) mod durability;
mod observation;

pub use observation::{Discard, Observation, Target, Violation};

/// The judges, and what they know.
#[derive(Clone, Debug)]
pub struct Oracles {
    model: Model,
    max_msg_timeout: Duration,
    deliveries: Vec<(Instant, MessageNumber, u16)>,
    /// Whether a message that is refused is not there. A disk that fails may have written a part.
    is_refusal_final: bool,
}

impl Oracles {
    /// Knows nothing yet. `max_msg_timeout` is the nsqds' option of that name.
    pub fn new(max_msg_timeout: Duration, has_disks: bool) -> Self {
        let (model, deliveries) = (Model::default(), Vec::new());
        Self { model, max_msg_timeout, deliveries, is_refusal_final: !has_disks }
    }

    /// The number of the message that the next [`Observation::Published`] is about.
    pub fn next_number(&self) -> MessageNumber {
        MessageNumber(self.model.messages.len() as u32)
    }

    /// All deliveries so far: when, what, and the attempts that it carried.
    pub fn deliveries(&self) -> &[(Instant, MessageNumber, u16)] {
        &self.deliveries
    }

    /// How many messages were published, or tried to be.
    pub fn published(&self) -> usize {
        self.model.messages.iter().filter(|message| message.origin.is_none()).count()
    }

    /// How many messages nsqds were to keep back. One that a pool publishes again counts again:
    /// each copy comes to its channel late.
    pub(crate) const fn delayed(&self) -> usize {
        self.model.delayed
    }

    /// From now on whatever is finished on this channel has to be [`Observation::Handled`] before.
    pub fn expect_handling(&mut self, topic: TopicName, channel: ChannelName) {
        self.model.handling.insert((topic, channel));
    }

    /// Whether a message may be on several nsqds.
    pub(crate) fn is_anywhere(&self, number: MessageNumber) -> bool {
        let message = self.model.message(number);
        message.is_some_and(|message| matches!(message.target, Target::Anywhere { .. }))
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn observe(&mut self, now: Instant, observation: Observation) -> Result<(), Violation> {
        match observation {
            Observation::Published { target, topic, len, delay } => {
                let not_before = now + delay;
                let is_anywhere = matches!(target, Target::Anywhere { .. });
                self.model.delayed += usize::from(!delay.is_zero() && !is_anywhere);
                self.model.messages.push(Published {
                    target,
                    topic,
                    len: len.max(8),
                    at: now,
                    is_deferred: !delay.is_zero(),
                    not_before,
                    outcome: PublishOutcome::Pending,
                    is_refused: false,
                    completed_at: None,
                    may_be_lost: false,
                    may_repeat: false,
                    id: None,
                    origin: None,
                    reached: BTreeMap::new(),
                    is_there: false,
                });
                Ok(())
            }
            Observation::Reached { node, topic, messages } => {
                let arrivals = self.model.arrivals.entry((node, topic)).or_default();
                arrivals.total += messages.len() as u64;
                arrivals.since_start += messages.len() as u64;
                for number in messages {
                    if let Some(message) = self.model.messages.get_mut(number.0 as usize) {
                        // It was lost perhaps, but it comes again.
                        message.reached.insert(node, false);
                        self.model.delayed += usize::from(message.is_deferred);
                    }
                }
                Ok(())
            }
            Observation::Handled { topic, channel, message } => {
                self.model.handled.insert((topic, channel, message));
                Ok(())
            }
            Observation::Completed { message, outcome } => self.completed(now, message, outcome),
            Observation::ChannelCreated(place) => {
                let is_first = !self
                    .model
                    .channels
                    .keys()
                    .any(|other| other.node == place.node && other.topic == place.topic);
                let mut channel = Channel {
                    created_at: now,
                    is_first,
                    copies: BTreeMap::new(),
                    requeues: 0,
                    is_gone: false,
                };
                // An ephemeral channel that comes again begins anew; the files of one that was
                // forgotten may be there.
                if let Some(forgotten) = self.model.channels.remove(&place)
                    && forgotten.is_gone
                {
                    channel.copies = forgotten.copies;
                }
                self.model.channels.insert(place, channel);
                Ok(())
            }
            Observation::ChannelDeleted(place) => {
                self.channel_deleted(now, &place);
                Ok(())
            }
            Observation::TopicDeleted { node, topic } => {
                let is_of = |place: &ChannelKey| (place.node, place.topic) == (node, topic);
                self.model.channels.retain(|place, _| !is_of(place));
                self.model.topic_floors.insert((node, topic), now);
                Ok(())
            }
            Observation::Discarding(discard) => {
                self.model.discarding.push(discard);
                Ok(())
            }
            Observation::Discarded(discard) => {
                self.discarded(now, &discard);
                Ok(())
            }
            Observation::ChannelLoaded(place) => {
                // One that was deleted may be there again after a crash.
                let channel = self.model.channels.entry(place).or_insert_with(|| Channel {
                    created_at: now,
                    is_first: false,
                    copies: BTreeMap::new(),
                    requeues: 0,
                    is_gone: false,
                });
                channel.is_gone = false;
                Ok(())
            }
            Observation::Died { node, has_all_on_disk, damaged, kept } => {
                self.restarted(now, node);
                let holes = damaged.into_iter().map(|(id, body)| (node, id, body));
                self.model.holes.extend(holes);
                self.died(now, node, has_all_on_disk);
                self.kept(node, kept);
                Ok(())
            }
            Observation::Gone { node } => {
                self.died(now, node, false);
                Ok(())
            }
            Observation::Stopped { node, has_failed } => {
                self.restarted(now, node);
                if has_failed {
                    self.died(now, node, false);
                }
                Ok(())
            }
            Observation::Subscribed { link, place, msg_timeout } => {
                let subscriber = Subscriber {
                    place,
                    msg_timeout,
                    ready: 0,
                    ready_in_turn: 0,
                    ready_at: now,
                    is_leaving: false,
                    in_flight: InFlight::default(),
                };
                self.model.subscribers.insert(link, subscriber);
                Ok(())
            }
            Observation::Ready { link, count } => {
                if let Some(subscriber) = self.model.subscribers.get_mut(&link) {
                    let before = if subscriber.ready_at == now {
                        subscriber.ready_in_turn
                    } else {
                        subscriber.ready
                    };
                    subscriber.ready_in_turn = before.max(count);
                    subscriber.ready_at = now;
                    subscriber.ready = count;
                }
                Ok(())
            }
            Observation::Finished { link, id } => self.answered(link, id, CopyState::Finished),
            Observation::Requeued { link, id, delay } => {
                if let Some(subscriber) = self.model.subscribers.get(&link)
                    && let Some(channel) = self.model.channels.get_mut(&subscriber.place)
                {
                    channel.requeues += 1;
                }
                self.answered(link, id, CopyState::Waiting(now + delay))
            }
            Observation::Touched { link, id } => self.touched(now, link, id),
            Observation::Leaving(link) => {
                if let Some(subscriber) = self.model.subscribers.get_mut(&link) {
                    subscriber.is_leaving = true;
                }
                Ok(())
            }
            Observation::Left(link) => {
                self.left(now, link);
                Ok(())
            }
            Observation::Delivered { link, id, attempts, body } => {
                self.delivered(now, link, id, attempts, &body)
            }
        }
    }

    /// Whether everything that was accepted was finished on every channel that it is owed to.
    ///
    /// # Errors
    /// The first message that was not.
    pub fn check_drained(&self) -> Result<(), Violation> {
        for (at, message) in self.model.messages.iter().enumerate() {
            if message.outcome != PublishOutcome::Accepted {
                continue;
            }
            let number = MessageNumber(at as u32);
            match message.target {
                Target::Nsqd(node) if message.may_be_lost => {
                    if let Some(place) = self.find_kept(number, message, node) {
                        return Err(Violation::Lost(number, Box::new(place)));
                    }
                }
                Target::Nsqd(node) => {
                    for (place, channel) in self.model.owed_to(message, node) {
                        if !channel.copies.get(&number).is_some_and(|copy| copy.is_done) {
                            return Err(Violation::Lost(number, Box::new(*place)));
                        }
                    }
                }
                Target::Anywhere { .. } => self.check_drained_anywhere(number, message)?,
            }
        }
        Ok(())
    }

    /// One of the nsqds that it reached has it; which one, only its publisher knows. So it is owed
    /// to the channels that exist on all of them.
    fn check_drained_anywhere(
        &self,
        number: MessageNumber,
        message: &Published,
    ) -> Result<(), Violation> {
        if message.reached.values().any(|may_be_lost| *may_be_lost) {
            let mut nodes = message.reached.keys();
            if let Some(place) = nodes.find_map(|node| self.find_kept(number, message, *node)) {
                return Err(Violation::Lost(number, Box::new(place)));
            }
            return Ok(());
        }
        let Some(first) = message.reached.keys().next() else {
            let text = format!("message {} was accepted and reached no nsqd", number.0);
            return Err(Violation::Other(text));
        };
        for (place, _) in self.model.owed_to(message, *first) {
            let is_owed = |node: &usize| {
                self.model.owed_to(message, *node).any(|(other, _)| other.channel == place.channel)
            };
            let done = &self.model.done;
            if message.reached.keys().all(is_owed)
                && !done.contains(&(place.topic, place.channel, number))
            {
                return Err(Violation::Lost(number, Box::new(*place)));
            }
        }
        Ok(())
    }

    /// What was accepted and not finished on a channel that its topic has on some nsqd, whatever
    /// the reason. That is stricter than [`check_drained`](Self::check_drained), which knows what
    /// an nsqd that dies may lose, and that a channel gets no messages from before it was there.
    pub fn unfinished(&self) -> Vec<(MessageNumber, TopicName, ChannelName)> {
        let places = self.model.channels.keys().filter(|place| !place.channel.is_ephemeral());
        let channels: BTreeSet<_> = places.map(|place| (place.topic, place.channel)).collect();
        let mut unfinished = Vec::new();
        for (at, message) in self.model.messages.iter().enumerate() {
            let number = MessageNumber(at as u32);
            for (topic, channel) in &channels {
                let key = (*topic, *channel, number);
                if message.outcome == PublishOutcome::Accepted
                    && message.topic == *topic
                    && !self.model.done.contains(&key)
                {
                    unfinished.push((number, *topic, *channel));
                }
            }
        }
        unfinished
    }

    /// Whether a channel exists for all that is known.
    pub(crate) fn knows_channel(
        &self,
        node: usize,
        topic: &TopicName,
        channel: &ChannelName,
    ) -> bool {
        let place = ChannelKey { node, topic: *topic, channel: *channel };
        let known = self.model.channels.get(&place);
        !channel.is_ephemeral() && known.is_some_and(|channel| !channel.is_gone)
    }

    /// An nsqd is down, and will begin anew with what is on its disk.
    fn restarted(&mut self, now: Instant, node: usize) {
        for ((of, _), arrivals) in &mut self.model.arrivals {
            if *of == node {
                arrivals.since_start = 0;
            }
        }
        let subscribers = self.model.subscribers.iter();
        let gone = subscribers.filter(|(_, subscriber)| subscriber.place.node == node);
        let gone: Vec<_> = gone.map(|(link, _)| *link).collect();
        gone.into_iter().for_each(|link| self.left(now, link));
        // Due times are by the wall clock, which may have been set since.
        self.model.stopped_at.insert(node, now);
        for message in self.model.messages.iter_mut().filter(|message| message.is_on(node)) {
            message.not_before = message.not_before.min(now);
        }
        let channels = self.model.channels.iter_mut();
        for (_, channel) in channels.filter(|(place, _)| place.node == node) {
            channel.requeues = 0;
            for copy in channel.copies.values_mut() {
                if let CopyState::Waiting(until) = &mut copy.state {
                    *until = now.min(*until);
                }
            }
        }
    }

    /// An nsqd did not stop in good order.
    fn died(&mut self, now: Instant, node: usize, has_all_on_disk: bool) {
        self.model.died_at.insert(node, now);
        self.model.kept.remove(&node);
        for message in &mut self.model.messages {
            if message.is_on(node) {
                message.may_be_lost |= !has_all_on_disk;
                message.may_repeat = true;
            }
            if let Some(may_be_lost) = message.reached.get_mut(&node) {
                *may_be_lost |= !has_all_on_disk;
            }
        }
        let channels = self.model.channels.iter_mut();
        for (_, channel) in channels.filter(|(place, _)| place.node == node) {
            channel.is_gone = true;
            for copy in channel.copies.values_mut() {
                copy.state = CopyState::Waiting(now);
            }
        }
    }

    fn completed(
        &mut self,
        now: Instant,
        number: MessageNumber,
        outcome: PublishOutcome,
    ) -> Result<(), Violation> {
        let Some(message) = self.model.messages.get_mut(number.0 as usize) else {
            return Err(Violation::Other(format!("{number:?} was never published")));
        };
        if message.outcome != PublishOutcome::Pending {
            return Err(Violation::Other(format!("{number:?} has two outcomes")));
        }
        message.completed_at = Some(now);
        message.is_refused = outcome == PublishOutcome::Refused;
        let is_unsure = outcome == PublishOutcome::Refused && !self.is_refusal_final;
        message.outcome = if is_unsure { PublishOutcome::Unknown } else { outcome };
        if message.outcome == PublishOutcome::Refused && (message.id.is_some() || message.is_there)
        {
            return Err(Violation::Refused(number));
        }
        Ok(())
    }

    /// What a publisher was told about a message.
    pub fn outcome(&self, number: MessageNumber) -> Option<PublishOutcome> {
        self.model.message(number).map(|message| message.outcome)
    }
}

#[cfg(test)]
mod tests;
