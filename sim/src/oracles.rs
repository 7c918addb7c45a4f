//! What must hold whatever happens, judged from what is seen at the nsqds' edges.
//!
//! Always:
//! - nothing is delivered that was not published to that topic of that nsqd, nor anything that the
//!   publisher was told is not there, and a message has one id;
//! - a message is in flight to one consumer at a time, and comes again only after REQ and its delay, a
//!   time-out, or the loss of the connection; never after a FIN that was acted on;
//! - attempts rise by one per delivery;
//! - no more is in flight on a connection than its RDY when the last message was sent.
//!
//! In the end, when nothing breaks any more: each accepted message was finished on each channel that it
//! is owed to.
//!
//! An nsqd that stops in good order and starts again counts as one that never stopped, except that delays
//! may change with the wall clock. One that dies may deliver finished messages again, forgets delays and
//! attempts, and may lose what it had in memory only: nothing with `--mem-queue-size=0`, unless the power
//! goes. It may forget a channel that was new; that is owed nothing until it is made again.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::time::Instant;

use crate::model::{
    Channel, Copy, CopyState, MessageNumber, Model, Outcome, Place, Published, RawId, Subscriber,
    body_of, number_of,
};
use crate::net::LinkId;

/// Something that was seen. What happens within one call of a shard is told in this order: commands
/// that were acted on, connections that are leaving, channels that came, deliveries, and who has left.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A publisher begins to publish the next message, see [`Oracles::next_number`].
    Published {
        /// The nsqd.
        node: usize,
        /// The topic.
        topic: TopicName,
        /// The length of the body.
        len: usize,
        /// How long it is to be kept back.
        delay: Duration,
    },
    /// A publisher is told the outcome.
    Completed {
        /// The message.
        message: MessageNumber,
        /// The outcome.
        outcome: Outcome,
    },
    /// A channel came into being.
    ChannelCreated(Place),
    /// An nsqd that starts finds this channel in its list.
    ChannelLoaded(Place),
    /// An nsqd died.
    Died {
        /// The nsqd.
        node: usize,
        /// Whether everything that it accepted was written.
        has_all_on_disk: bool,
        /// Whether the machine died with it.
        loses_power: bool,
    },
    /// An nsqd has stopped in good order.
    Stopped {
        /// The nsqd.
        node: usize,
    },
    /// SUB.
    Subscribed {
        /// The connection.
        link: LinkId,
        /// The channel.
        place: Place,
        /// How long a delivery may stay unanswered.
        msg_timeout: Duration,
    },
    /// RDY.
    Ready {
        /// The connection.
        link: LinkId,
        /// The count.
        count: u32,
    },
    /// FIN.
    Finished {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
    },
    /// REQ.
    Requeued {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
        /// The delay.
        delay: Duration,
    },
    /// TOUCH.
    Touched {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
    },
    /// A connection ends in this call: deliveries to it count, and what was in flight on it may be
    /// delivered again.
    Leaving(LinkId),
    /// A connection has ended, and with it its subscription.
    Left(LinkId),
    /// A message was sent.
    Delivered {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
        /// How often, it says.
        attempts: u16,
        /// The body.
        body: Bytes,
    },
}

/// Something that must not happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// Delivered after a FIN that was acted on.
    AfterFinish(MessageNumber, Box<Place>),
    /// Attempts did not rise by one.
    Attempts {
        /// The message.
        message: MessageNumber,
        /// What it should say.
        expected: u16,
        /// What it says.
        found: u16,
    },
    /// FIN, REQ or TOUCH was acted on although the message was not in flight there.
    NotInFlight(LinkId, String),
    /// Delivered to a connection that is not subscribed.
    NotSubscribed(LinkId),
    /// Delivered although nobody published it, or not to this topic, or not this body.
    NotPublished(String),
    /// More in flight than RDY.
    OverReady {
        /// The connection.
        link: LinkId,
        /// How much is in flight.
        in_flight: usize,
        /// RDY.
        ready: u32,
    },
    /// The publisher was told that it is not there, but it was delivered.
    Refused(MessageNumber),
    /// Accepted, but not finished on a channel that it is owed to.
    Lost(MessageNumber, Box<Place>),
    /// Delivered before its delay was over.
    TooEarly(MessageNumber),
    /// Delivered while it is in flight to somebody.
    TwiceInFlight(MessageNumber, Box<Place>),
    /// One message has two ids, or two messages one.
    Ids(MessageNumber),
    /// Something else; the text says what.
    Other(String),
}

/// The judges, and what they know.
#[derive(Debug)]
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
        self.model.messages.len()
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn observe(&mut self, now: Instant, observation: Observation) -> Result<(), Violation> {
        match observation {
            Observation::Published { node, topic, len, delay } => {
                let not_before = now + delay;
                self.model.messages.push(Published {
                    node,
                    topic,
                    len: len.max(8),
                    at: now,
                    not_before,
                    outcome: Outcome::Pending,
                    may_be_lost: false,
                    may_repeat: false,
                    id: None,
                });
                Ok(())
            }
            Observation::Completed { message, outcome } => self.completed(message, outcome),
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
                // An ephemeral channel that comes again begins anew; the files of one that was forgotten
                // may be there.
                if let Some(forgotten) = self.model.channels.remove(&place)
                    && forgotten.is_gone
                {
                    channel.copies = forgotten.copies;
                }
                self.model.channels.insert(place, channel);
                Ok(())
            }
            Observation::ChannelLoaded(place) => {
                if let Some(channel) = self.model.channels.get_mut(&place) {
                    channel.is_gone = false;
                }
                Ok(())
            }
            Observation::Died { node, has_all_on_disk, loses_power } => {
                self.restarted(now, node);
                if loses_power {
                    self.model.lost_power.insert(node);
                }
                self.died(now, node, has_all_on_disk);
                Ok(())
            }
            Observation::Stopped { node } => {
                self.restarted(now, node);
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
                    in_flight: BTreeSet::new(),
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
            if message.outcome != Outcome::Accepted || message.may_be_lost {
                continue;
            }
            let number = MessageNumber(at as u32);
            for (place, channel) in self.model.owed_to(message) {
                if !channel.copies.get(&number).is_some_and(|copy| copy.is_done) {
                    return Err(Violation::Lost(number, Box::new(*place)));
                }
            }
        }
        Ok(())
    }

    /// Whether an nsqd counted as many messages of a topic as its publishers were told.
    ///
    /// # Errors
    /// If not.
    pub fn check_count(&self, node: usize, topic: &TopicName, count: u64) -> Result<(), Violation> {
        let (least, most) = self.model.accepted(node, topic);
        if (least..=most).contains(&count) || self.model.restarted.contains(&node) {
            return Ok(());
        }
        let text = format!("nsqd {node} counts {count} messages of {topic}, not {least} to {most}");
        Err(Violation::Other(text))
    }

    /// Whether an nsqd counted as many REQs of a channel as it acted on.
    ///
    /// # Errors
    /// If not.
    pub fn check_requeues(&self, place: &Place, count: u64) -> Result<(), Violation> {
        let expected = self.model.channels.get(place).map_or(0, |channel| channel.requeues);
        if count == expected || self.model.restarted.contains(&place.node) {
            return Ok(());
        }
        Err(Violation::Other(format!("{place:?} counts {count} requeues, not {expected}")))
    }

    /// Whether a channel exists for all that is known.
    pub(crate) fn knows_channel(
        &self,
        node: usize,
        topic: &TopicName,
        channel: &ChannelName,
    ) -> bool {
        let place = Place { node, topic: *topic, channel: *channel };
        let known = self.model.channels.get(&place);
        !channel.is_ephemeral() && known.is_some_and(|channel| !channel.is_gone)
    }

    /// An nsqd is down, and will begin anew with what is on its disk.
    fn restarted(&mut self, now: Instant, node: usize) {
        self.model.restarted.insert(node);
        let subscribers = self.model.subscribers.iter();
        let gone = subscribers.filter(|(_, subscriber)| subscriber.place.node == node);
        let gone: Vec<_> = gone.map(|(link, _)| *link).collect();
        gone.into_iter().for_each(|link| self.left(now, link));
        // Due times are by the wall clock, which may have been set since.
        for message in self.model.messages.iter_mut().filter(|message| message.node == node) {
            message.not_before = message.not_before.min(now);
        }
        let channels = self.model.channels.iter_mut();
        for (_, channel) in channels.filter(|(place, _)| place.node == node) {
            for copy in channel.copies.values_mut() {
                if let CopyState::Waiting(until) = &mut copy.state {
                    *until = now.min(*until);
                }
            }
        }
    }

    /// An nsqd did not stop in good order.
    fn died(&mut self, now: Instant, node: usize, has_all_on_disk: bool) {
        for message in self.model.messages.iter_mut().filter(|message| message.node == node) {
            message.may_be_lost |= !has_all_on_disk;
            message.may_repeat = true;
        }
        let channels = self.model.channels.iter_mut();
        for (_, channel) in channels.filter(|(place, _)| place.node == node) {
            channel.is_gone = true;
            for copy in channel.copies.values_mut() {
                copy.state = CopyState::Waiting(now);
            }
        }
    }

    fn completed(&mut self, number: MessageNumber, outcome: Outcome) -> Result<(), Violation> {
        let Some(message) = self.model.messages.get_mut(number.0 as usize) else {
            return Err(Violation::Other(format!("{number:?} was never published")));
        };
        if message.outcome != Outcome::Pending {
            return Err(Violation::Other(format!("{number:?} has two outcomes")));
        }
        let is_unsure = outcome == Outcome::Refused && !self.is_refusal_final;
        message.outcome = if is_unsure { Outcome::Unknown } else { outcome };
        if message.outcome == Outcome::Refused && message.id.is_some() {
            return Err(Violation::Refused(number));
        }
        Ok(())
    }

    /// FIN or REQ was acted on.
    fn answered(&mut self, link: LinkId, id: RawId, state: CopyState) -> Result<(), Violation> {
        if self.is_damaged(link, id) || self.is_repeated(link, id, state) {
            return Ok(());
        }
        let (number, copy) = self.in_flight(link, id)?;
        copy.state = state;
        copy.is_done |= state == CopyState::Finished;
        if let Some(subscriber) = self.model.subscribers.get_mut(&link) {
            subscriber.in_flight.remove(&number);
        }
        Ok(())
    }

    fn touched(&mut self, now: Instant, link: LinkId, id: RawId) -> Result<(), Violation> {
        let max = self.max_msg_timeout;
        let timeout = self.model.subscribers.get(&link).map(|subscriber| subscriber.msg_timeout);
        if self.is_damaged(link, id) || self.may_repeat(link, id) {
            return Ok(());
        }
        let (_, copy) = self.in_flight(link, id)?;
        if let CopyState::InFlight { delivered, deadline, .. } = &mut copy.state
            && let Some(timeout) = timeout
        {
            *deadline = (now + timeout).min(*delivered + max);
        }
        Ok(())
    }

    /// Whether what was delivered under this name was damaged when the power went.
    fn is_damaged(&self, link: LinkId, id: RawId) -> bool {
        let subscriber = self.model.subscribers.get(&link);
        subscriber.is_some_and(|of| self.model.damaged.contains(&(of.place.node, id)))
    }

    /// Whether it may be in flight several times, so that it is not known which is meant.
    fn may_repeat(&self, link: LinkId, id: RawId) -> bool {
        let Some(subscriber) = self.model.subscribers.get(&link) else { return false };
        let number = self.model.ids.get(&(subscriber.place.node, id));
        let message = number.and_then(|number| self.model.message(*number));
        message.is_some_and(|message| message.may_repeat)
    }

    /// Takes note of the answer to one of several deliveries that can't be told apart.
    fn is_repeated(&mut self, link: LinkId, id: RawId, state: CopyState) -> bool {
        if !self.may_repeat(link, id) {
            return false;
        }
        let Model { subscribers, ids, channels, .. } = &mut self.model;
        if let Some(subscriber) = subscribers.get_mut(&link)
            && let Some(number) = ids.get(&(subscriber.place.node, id))
        {
            subscriber.in_flight.remove(number);
            let channel = channels.get_mut(&subscriber.place);
            if let Some(copy) = channel.and_then(|channel| channel.copies.get_mut(number)) {
                copy.is_done |= state == CopyState::Finished;
                copy.state = state;
            }
        }
        true
    }

    /// The copy of a message that has to be in flight on a connection.
    fn in_flight(
        &mut self,
        link: LinkId,
        id: RawId,
    ) -> Result<(MessageNumber, &mut Copy), Violation> {
        let refused = || Violation::NotInFlight(link, String::from_utf8_lossy(&id).into_owned());
        let subscriber = self.model.subscribers.get(&link).ok_or_else(refused)?;
        let number = *self.model.ids.get(&(subscriber.place.node, id)).ok_or_else(refused)?;
        let channel = self.model.channels.get_mut(&subscriber.place).ok_or_else(refused)?;
        match channel.copies.get_mut(&number) {
            Some(copy) if is_in_flight(copy, link) => Ok((number, copy)),
            _ => Err(refused()),
        }
    }

    fn left(&mut self, now: Instant, link: LinkId) {
        let Some(subscriber) = self.model.subscribers.remove(&link) else { return };
        let Some(channel) = self.model.channels.get_mut(&subscriber.place) else { return };
        for number in subscriber.in_flight {
            if let Some(copy) = channel.copies.get_mut(&number)
                && is_in_flight(copy, link)
            {
                copy.state = CopyState::Waiting(now);
            }
        }
    }

    fn delivered(
        &mut self,
        now: Instant,
        link: LinkId,
        id: RawId,
        attempts: u16,
        body: &[u8],
    ) -> Result<(), Violation> {
        let Some(subscriber) = self.model.subscribers.get(&link) else {
            return Err(Violation::NotSubscribed(link));
        };
        let place = subscriber.place;
        let number = match self.identify(&place, id, body) {
            Err(Violation::NotPublished(_))
                if self.model.lost_power.contains(&place.node) && body.contains(&0) =>
            {
                self.model.damaged.insert((place.node, id));
                return Ok(());
            }
            identified => identified?,
        };
        self.deliveries.push((now, number, attempts));
        let Published { not_before, may_repeat, .. } = self.model.messages[number.0 as usize];
        let Model { channels, subscribers, .. } = &mut self.model;
        let Some(channel) = channels.get_mut(&place) else {
            return Err(Violation::Other(format!("{place:?} delivers and does not exist")));
        };
        let copy = channel.copies.entry(number).or_insert(Copy {
            attempts: 0,
            is_done: false,
            state: CopyState::Waiting(not_before),
        });
        match copy.state {
            CopyState::Finished if may_repeat => {}
            CopyState::Finished => return Err(Violation::AfterFinish(number, Box::new(place))),
            CopyState::InFlight { link, deadline, .. }
                if now < deadline && !is_leaving(subscribers, link) && !may_repeat =>
            {
                return Err(Violation::TwiceInFlight(number, Box::new(place)));
            }
            CopyState::InFlight { link, .. } => {
                if let Some(before) = subscribers.get_mut(&link) {
                    before.in_flight.remove(&number);
                }
            }
            CopyState::Waiting(until) if now < until && !may_repeat => {
                return Err(Violation::TooEarly(number));
            }
            CopyState::Waiting(_) => {}
        }
        let expected = copy.attempts.wrapping_add(1);
        if attempts != expected && !may_repeat {
            return Err(Violation::Attempts { message: number, expected, found: attempts });
        }
        let Some(subscriber) = subscribers.get_mut(&link) else { return Ok(()) };
        let deadline = now + subscriber.msg_timeout;
        *copy = Copy {
            attempts,
            is_done: copy.is_done,
            state: CopyState::InFlight { link, delivered: now, deadline },
        };
        subscriber.in_flight.insert(number);
        let ready =
            if subscriber.ready_at == now { subscriber.ready_in_turn } else { subscriber.ready };
        let counts = |number: &&MessageNumber| {
            let copy = channel.copies.get(*number);
            let state = copy.map(|copy| copy.state);
            matches!(state, Some(CopyState::InFlight { deadline, .. }) if now < deadline)
        };
        let in_flight = subscriber.in_flight.iter().filter(counts).count();
        if in_flight > ready as usize {
            return Err(Violation::OverReady { link, in_flight, ready });
        }
        Ok(())
    }

    /// Which message it is that is delivered under `id`.
    fn identify(
        &mut self,
        place: &Place,
        id: RawId,
        body: &[u8],
    ) -> Result<MessageNumber, Violation> {
        let unknown = || {
            let start = &body[..body.len().min(16)];
            Violation::NotPublished(format!("{place:?}: {:?}", String::from_utf8_lossy(start)))
        };
        let number = number_of(body).ok_or_else(unknown)?;
        let message = self.model.messages.get_mut(number.0 as usize).ok_or_else(unknown)?;
        if (message.node, message.topic) != (place.node, place.topic)
            || body != body_of(number, message.len)
        {
            return Err(unknown());
        }
        if message.outcome == Outcome::Refused {
            return Err(Violation::Refused(number));
        }
        let known = *message.id.get_or_insert(id);
        let other = *self.model.ids.entry((place.node, id)).or_insert(number);
        if known != id || other != number {
            return Err(Violation::Ids(number));
        }
        Ok(number)
    }

    /// What a publisher was told about a message.
    pub fn outcome(&self, number: MessageNumber) -> Option<Outcome> {
        self.model.message(number).map(|message| message.outcome)
    }
}

fn is_leaving(subscribers: &BTreeMap<LinkId, Subscriber>, link: LinkId) -> bool {
    subscribers.get(&link).is_none_or(|subscriber| subscriber.is_leaving)
}

fn is_in_flight(copy: &Copy, on: LinkId) -> bool {
    matches!(copy.state, CopyState::InFlight { link, .. } if link == on)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfterFinish(message, place) => {
                write!(f, "message {} came again after FIN at {place}", message.0)
            }
            Self::Attempts { message, expected, found } => {
                write!(f, "message {} says attempt {found}, not {expected}", message.0)
            }
            Self::NotInFlight(link, id) => {
                write!(f, "an answer to {id} counted, which is not in flight on link {}", link.0)
            }
            Self::NotSubscribed(link) => {
                write!(f, "a delivery on link {}, which is not subscribed", link.0)
            }
            Self::NotPublished(text) => write!(f, "delivered and never published: {text}"),
            Self::OverReady { link, in_flight, ready } => {
                write!(f, "{in_flight} in flight on link {} with RDY {ready}", link.0)
            }
            Self::Refused(message) => {
                write!(f, "message {} was refused and is delivered", message.0)
            }
            Self::Lost(message, place) => {
                write!(f, "message {} was accepted and not finished at {place}", message.0)
            }
            Self::TooEarly(message) => write!(f, "message {} came before its time", message.0),
            Self::TwiceInFlight(message, place) => {
                write!(f, "message {} is in flight twice at {place}", message.0)
            }
            Self::Ids(message) => write!(f, "message {} shares or changes its id", message.0),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Violation {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nsqd {} {}/{}", self.node, self.topic, self.channel)
    }
}

#[cfg(test)]
mod tests;
