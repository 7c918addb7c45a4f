//! Whether an nsqd counts what is there.
//!
//! What it counts just now is compared with the least and the most that it can be for all that was
//! seen.
//! - What is told to a publisher happened before; what is under way to or from an nsqd may have.
//! - A delivery whose time is up, or whose connection is ending, may have been taken back or not.
//! - What was emptied or deleted counts for nothing from below; while that is under way nothing is
//!   judged.
//! - Counters begin at 0 with each process.
//! - One that died may have messages twice, those that were finished among them, and may have
//!   forgotten delays and channels: it is judged from below only, and not by what it may have lost.
//! - One that has just started does not know yet what is on its disk: `is_settled` says whether it
//!   does.

use core::time::Duration;

use sansq_core::nsqd::{ChannelStats, TopicStats};
use sansq_core::time::Instant;

use super::{Oracles, Violation};
use crate::model::{Channel, ChannelKey, CopyState, MessageNumber, PublishOutcome, Published};

impl Oracles {
    /// Compares what an nsqd counts of a topic and its lasting channels with what is known.
    ///
    /// # Errors
    /// If it can't be.
    pub(crate) fn check_counts(&self, look: Look, topic: &TopicStats) -> Result<(), Violation> {
        let node = look.node;
        self.check_count(node, topic)?;
        for channel in topic.channels.iter().filter(|channel| !channel.name.is_ephemeral()) {
            let place = ChannelKey { node, topic: topic.name, channel: channel.name };
            let known = self.model.channels.get(&place);
            let Some(known) = known.filter(|known| !known.is_gone && !self.is_discarding(&place))
            else {
                continue;
            };
            let judge = Judge { oracles: self, look, place, known };
            judge.in_flight(channel)?;
            judge.deferred(channel)?;
            judge.held(channel, topic.depth)?;
            judge.received(channel, topic.depth)?;
            if channel.requeue_count != known.requeues {
                return Err(judge.wrong("requeue_count", channel.requeue_count, known.requeues));
            }
        }
        Ok(())
    }

    /// Whether an nsqd counted as many messages of a topic as its publishers were told since it
    /// began.
    fn check_count(&self, node: usize, topic: &TopicStats) -> Result<(), Violation> {
        let model = &self.model;
        let name = topic.name;
        let begun_at = model.stopped_at.get(&node).copied();
        let floor = begun_at.max(model.topic_floors.get(&(node, name)).copied());
        let here = |message: &&Published| {
            message.is_on(node) && message.origin.is_none() && message.topic == name
        };
        let is_accepted = |message: &&Published| {
            message.outcome == PublishOutcome::Accepted && Some(message.at) > floor
        };
        let may_count = |message: &&Published| {
            !message.is_refused && message.completed_at.is_none_or(|at| Some(at) >= begun_at)
        };
        let messages = || model.messages.iter().filter(here);
        let least = messages().filter(is_accepted).count() as u64;
        let arrivals = model.arrivals.get(&(node, name)).copied().unwrap_or_default();
        let most = messages().filter(may_count).count() as u64 + arrivals.since_start;
        let count = topic.message_count;
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let text = format!("nsqd {node} counts {count} messages of {name}, not {least} to {most}");
        Err(Violation::Counts(text))
    }
}

/// When and in which state an nsqd is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) node: usize,
    pub(crate) now: Instant,
    /// It knows what is on its disk.
    pub(crate) is_settled: bool,
    /// What is due is not done.
    pub(crate) stands_still: bool,
}

/// A channel that is looked at.
struct Judge<'a> {
    oracles: &'a Oracles,
    look: Look,
    place: ChannelKey,
    known: &'a Channel,
}

impl Judge<'_> {
    fn in_flight(&self, stats: &ChannelStats) -> Result<(), Violation> {
        let model = &self.oracles.model;
        // Its time is not up, and its connection is not ending.
        let is_sure = |(number, state): &(MessageNumber, CopyState)| match state {
            CopyState::InFlight { link, deadline, .. } => {
                let subscriber = model.subscribers.get(link);
                let stays = subscriber.is_some_and(|subscriber| !subscriber.is_leaving);
                stays && self.look.now + LAG < *deadline && self.is_there(*number)
            }
            CopyState::Finished | CopyState::Waiting(_) => false,
        };
        let least = self.states().filter(is_sure).count();
        let perhaps = self.states().filter(|(_, of)| matches!(of, CopyState::InFlight { .. }));
        self.between("in_flight_count", stats.in_flight_count, least, perhaps.count())
    }

    fn deferred(&self, stats: &ChannelStats) -> Result<(), Violation> {
        let Look { now, stands_still, .. } = self.look;
        // Over a restart due times are kept by the wall clock, which may have been set.
        let begun_at = self.begun_at();
        let may_wait =
            |until: Instant| stands_still || now < until + LAG || Some(until) <= begun_at;
        let is_perhaps = |(_, state): &(MessageNumber, CopyState)| matches!(state, CopyState::Waiting(until) if may_wait(*until));
        // What was requeued stays in memory, so that it is known for what it is.
        let is_sure = |(number, state): &(MessageNumber, CopyState)| {
            matches!(state, CopyState::Waiting(until) if now + LAG < *until)
                && self.is_there(*number)
        };
        let least = self.states().filter(is_sure).count();
        let published = self.messages().filter(|(number, message)| {
            let is_delivered = self.known.copies.contains_key(number);
            !is_delivered && message.is_deferred
        });
        let most = self.states().filter(is_perhaps).count() + published.count();
        let most = most + self.arrivals() as usize;
        self.between("deferred_count", stats.deferred_count, least, most)
    }

    /// What was accepted and is owed is somewhere until it is finished.
    fn held(&self, stats: &ChannelStats, held_by_topic: u64) -> Result<(), Violation> {
        let copy = |number: &MessageNumber| self.known.copies.get(number);
        // One that was finished may come again after a death, or not.
        let is_owed = |(number, _): &(MessageNumber, &Published)| {
            copy(number).is_none_or(|copy| !copy.is_done)
        };
        let may_be_left = |(number, _): &(MessageNumber, &Published)| {
            copy(number).is_none_or(|copy| copy.state != CopyState::Finished)
        };
        let least = if self.look.is_settled { self.owed().filter(is_owed).count() } else { 0 };
        let most = self.messages().filter(may_be_left).count() + self.arrivals() as usize;
        let held = stats.depth + stats.in_flight_count + stats.deferred_count;
        let least = least.saturating_sub(held_by_topic as usize);
        self.between("depth, in_flight_count and deferred_count together", held, least, most)
    }

    fn received(&self, stats: &ChannelStats, held_by_topic: u64) -> Result<(), Violation> {
        let begun_at = self.begun_at();
        let fresh = self.owed().filter(|(_, message)| Some(message.at) > begun_at);
        let least = fresh.count().saturating_sub(held_by_topic as usize);
        let most = self.messages().count() + self.arrivals() as usize;
        self.between("message_count", stats.message_count, least, most)
    }

    /// When the process before this one ended.
    fn begun_at(&self) -> Option<Instant> {
        self.oracles.model.stopped_at.get(&self.place.node).copied()
    }

    /// What is known of the messages that were delivered.
    fn states(&self) -> impl Iterator<Item = (MessageNumber, CopyState)> {
        self.known.copies.iter().map(|(number, copy)| (*number, copy.state))
    }

    /// The messages of the topic that may be there; of those that may be on several nsqds none.
    fn messages(&self) -> impl Iterator<Item = (MessageNumber, &Published)> {
        let messages = self.oracles.model.messages.iter().enumerate();
        messages.map(|(at, message)| (MessageNumber(at as u32), message)).filter(|(_, message)| {
            message.is_on(self.place.node)
                && message.topic == self.place.topic
                && message.origin.is_none()
                && message.outcome != PublishOutcome::Refused
        })
    }

    /// Those of them that the channel has or gets for sure, unless they are finished.
    fn owed(&self) -> impl Iterator<Item = (MessageNumber, &Published)> {
        self.messages().filter(|(number, message)| {
            let is_owed = self.known.is_first || self.known.created_at < message.at;
            message.outcome == PublishOutcome::Accepted
                && !message.may_be_lost
                && is_owed
                && self.is_there(*number)
        })
    }

    /// Whether a message was not emptied or deleted, for all that is known.
    fn is_there(&self, number: MessageNumber) -> bool {
        let model = &self.oracles.model;
        let topic_floor = model.topic_floors.get(&(self.place.node, self.place.topic));
        let floor = model.floors.get(&self.place).max(topic_floor);
        model.message(number).is_some_and(|message| Some(&message.at) > floor)
    }

    /// How many messages came whose publishers may have tried several nsqds.
    fn arrivals(&self) -> u64 {
        let model = &self.oracles.model;
        let arrivals = model.arrivals.get(&(self.place.node, self.place.topic));
        arrivals.copied().unwrap_or_default().total
    }

    fn between(&self, what: &str, count: u64, least: usize, most: usize) -> Result<(), Violation> {
        let may_repeat = self.oracles.model.died_at.contains_key(&self.place.node);
        let (least, most) = (least as u64, if may_repeat { WRAPPED } else { most as u64 });
        if (least..=most).contains(&count) {
            return Ok(());
        }
        Err(self.wrong(what, count, format_args!("{least} to {most}")))
    }

    fn wrong(&self, what: &str, count: u64, expected: impl core::fmt::Display) -> Violation {
        Violation::Counts(format!("{} counts {count} as {what}, not {expected}", self.place))
    }
}

/// A count that fell below 0 is far above this.
const WRAPPED: u64 = 1 << 32;

/// Timers ring a little late.
const LAG: Duration = Duration::from_millis(1);
