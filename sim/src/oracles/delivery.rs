//! Judging deliveries and answers, message by message.

use std::collections::BTreeMap;

use sansq_core::message::ATTEMPTS_MAX;
use sansq_core::time::Instant;

use super::{Oracles, Target, Violation};
use crate::model::{
    ChannelKey, Copy, CopyState, MessageNumber, Model, PublishOutcome, Published, RawId,
    Subscriber, body_of, number_of,
};
use crate::net::LinkId;

impl Oracles {
    /// FIN or REQ was acted on.
    pub(super) fn answered(
        &mut self,
        link: LinkId,
        id: RawId,
        state: CopyState,
    ) -> Result<(), Violation> {
        if self.is_repeated(link, id, state) || self.is_damaged(link, id) {
            return Ok(());
        }
        let (number, copy) = self.in_flight(link, id)?;
        copy.state = state;
        copy.is_done |= state == CopyState::Finished;
        if state == CopyState::Finished {
            self.done(link, number)?;
        }
        if let Some(subscriber) = self.model.subscribers.get_mut(&link) {
            subscriber.in_flight.remove(number);
        }
        Ok(())
    }

    pub(super) fn touched(
        &mut self,
        now: Instant,
        link: LinkId,
        id: RawId,
    ) -> Result<(), Violation> {
        let max = self.max_msg_timeout;
        let timeout = self.model.subscribers.get(&link).map(|subscriber| subscriber.msg_timeout);
        if self.is_damaged(link, id) || self.may_repeat(link, id) {
            return Ok(());
        }
        let (number, copy) = self.in_flight(link, id)?;
        if let CopyState::InFlight { delivered, deadline, .. } = &mut copy.state
            && let Some(timeout) = timeout
        {
            *deadline = (now + timeout).min(*delivered + max);
            let deadline = *deadline;
            if let Some(subscriber) = self.model.subscribers.get_mut(&link) {
                subscriber.in_flight.extend(number, deadline);
            }
        }
        Ok(())
    }

    /// A message was finished: somebody has handled it.
    fn done(&mut self, link: LinkId, number: MessageNumber) -> Result<(), Violation> {
        let Some(subscriber) = self.model.subscribers.get(&link) else { return Ok(()) };
        let place = subscriber.place;
        let number = self.model.origin(number);
        let key = (place.topic, place.channel, number);
        self.model.done.insert(key);
        let is_expected = self.model.handling.contains(&(place.topic, place.channel));
        if is_expected && !self.model.handled.contains(&key) {
            return Err(Violation::NotHandled(number, Box::new(place)));
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
        let place = self.model.subscribers.get(&link).map(|subscriber| subscriber.place);
        let number = place.and_then(|place| self.model.ids.get(&(place.node, id)));
        if let (Some(place), Some(number)) = (place, number)
            && state == CopyState::Finished
        {
            let number = self.model.origin(*number);
            self.model.done.insert((place.topic, place.channel, number));
        }
        let Model { subscribers, ids, channels, .. } = &mut self.model;
        if let Some(subscriber) = subscribers.get_mut(&link)
            && let Some(number) = ids.get(&(subscriber.place.node, id))
        {
            subscriber.in_flight.remove(*number);
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

    pub(super) fn left(&mut self, now: Instant, link: LinkId) {
        let Some(subscriber) = self.model.subscribers.remove(&link) else { return };
        let Some(channel) = self.model.channels.get_mut(&subscriber.place) else { return };
        for number in subscriber.in_flight.numbers() {
            if let Some(copy) = channel.copies.get_mut(&number)
                && is_in_flight(copy, link)
            {
                copy.state = CopyState::Waiting(now);
            }
        }
    }

    pub(super) fn delivered(
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
                if self.model.holes.contains(&(place.node, id, body.to_vec())) =>
            {
                self.model.damaged.insert((place.node, id));
                return Ok(());
            }
            identified => identified?,
        };
        self.deliveries.push((now, self.model.origin(number), attempts));
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
                // If there may be two, that one may be in flight as before.
                if let Some(before) = subscribers.get_mut(&link).filter(|_| !may_repeat) {
                    before.in_flight.remove(number);
                }
            }
            CopyState::Waiting(until) if now < until && !may_repeat => {
                return Err(Violation::TooEarly(number));
            }
            CopyState::Waiting(_) => {}
        }
        let expected = copy.attempts.saturating_add(1).min(ATTEMPTS_MAX);
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
        subscriber.in_flight.sent(number, deadline);
        let ready =
            if subscriber.ready_at == now { subscriber.ready_in_turn } else { subscriber.ready };
        let in_flight = subscriber.in_flight.count(now);
        if in_flight > ready as usize && !self.is_discarding(&place) {
            return Err(Violation::OverReady { link, in_flight, ready });
        }
        Ok(())
    }

    /// Which message it is that is delivered under `id`.
    fn identify(
        &mut self,
        place: &ChannelKey,
        id: RawId,
        body: &[u8],
    ) -> Result<MessageNumber, Violation> {
        let unknown = || {
            let start = &body[..body.len().min(16)];
            Violation::NotPublished(format!("{place:?}: {:?}", String::from_utf8_lossy(start)))
        };
        let number = number_of(body).ok_or_else(unknown)?;
        let message = self.model.messages.get_mut(number.0 as usize).ok_or_else(unknown)?;
        let is_here = match message.target {
            Target::Nsqd(node) => node == place.node,
            Target::Anywhere { .. } => message.reached.contains_key(&place.node),
        };
        if !is_here || message.topic != place.topic || body != body_of(number, message.len) {
            return Err(unknown());
        }
        if message.outcome == PublishOutcome::Refused {
            return Err(Violation::Refused(number));
        }
        let number = match message.target {
            Target::Nsqd(_) => number,
            Target::Anywhere { once } => self.stored(place, id, number, once)?,
        };
        let message = self.model.messages.get_mut(number.0 as usize).ok_or_else(unknown)?;
        let known = *message.id.get_or_insert(id);
        let other = *self.model.ids.entry((place.node, id)).or_insert(number);
        if known != id || other != number {
            return Err(Violation::Ids(number));
        }
        Ok(number)
    }

    /// What an nsqd has of a message that may be on several; it is known from its first delivery
    /// on.
    fn stored(
        &mut self,
        place: &ChannelKey,
        id: RawId,
        number: MessageNumber,
        once: bool,
    ) -> Result<MessageNumber, Violation> {
        if let Some(known) = self.model.ids.get(&(place.node, id)) {
            let is_same = self.model.origin(*known) == number;
            return if is_same { Ok(*known) } else { Err(Violation::Ids(number)) };
        }
        let next = self.next_number();
        let Some(message) = self.model.messages.get_mut(number.0 as usize) else { return Ok(next) };
        let was_there = core::mem::replace(&mut message.is_there, true);
        if once && was_there && self.is_refusal_final {
            return Err(Violation::StoredTwice(number));
        }
        let died_at = self.model.died_at.get(&place.node);
        let stopped_at = self.model.stopped_at.get(&place.node);
        let part = Published {
            target: Target::Nsqd(place.node),
            outcome: PublishOutcome::Unknown,
            may_repeat: died_at.is_some_and(|died_at| *died_at >= message.at),
            // Due times are by the wall clock, which may have been set since.
            not_before: stopped_at
                .map_or(message.not_before, |stopped_at| message.not_before.min(*stopped_at)),
            origin: Some(number),
            reached: BTreeMap::new(),
            ..message.clone()
        };
        self.model.messages.push(part);
        Ok(next)
    }
}

fn is_leaving(subscribers: &BTreeMap<LinkId, Subscriber>, link: LinkId) -> bool {
    subscribers.get(&link).is_none_or(|subscriber| subscriber.is_leaving)
}

fn is_in_flight(copy: &Copy, on: LinkId) -> bool {
    matches!(copy.state, CopyState::InFlight { link, .. } if link == on)
}
