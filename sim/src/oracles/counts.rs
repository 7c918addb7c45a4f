//! Whether an nsqd counts what is there.

use core::time::Duration;

use sansq_core::time::Instant;

use super::{Oracles, Violation};
use crate::model::{CopyState, MessageNumber, Outcome, Place};

/// What an nsqd says about a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) in_flight: u64,
    /// Waiting, in flight and deferred together.
    pub(crate) held: u64,
    /// What waits in the topic, which its channels do not have yet.
    pub(crate) held_by_topic: u64,
}

impl Oracles {
    /// Compares the figures of a channel with what is known. Of nsqds that were down, or that emptied or
    /// deleted something, not enough is known.
    ///
    /// # Errors
    /// If they can't be.
    pub(crate) fn check_counts(
        &self,
        now: Instant,
        place: &Place,
        counts: Counts,
    ) -> Result<(), Violation> {
        let model = &self.model;
        let is_unknown = model.restarted.contains(&place.node)
            || model.floors.contains_key(place)
            || model.topic_floors.contains_key(&(place.node, place.topic))
            || self.is_discarding(place);
        let Some(channel) = model.channels.get(place).filter(|_| !is_unknown) else {
            return Ok(());
        };
        // Whatever is in flight for sure: its time is not up, and its connection is not ending.
        let is_sure = |state: &CopyState| match state {
            CopyState::InFlight { link, deadline, .. } => {
                let subscriber = model.subscribers.get(link);
                let stays = subscriber.is_some_and(|subscriber| !subscriber.is_leaving);
                stays && now + CLOCK_LAG < *deadline
            }
            CopyState::Finished | CopyState::Waiting(_) => false,
        };
        let states = || channel.copies.values().map(|copy| &copy.state);
        let sure = states().filter(|state| is_sure(state)).count() as u64;
        let perhaps = states().filter(|state| matches!(state, CopyState::InFlight { .. })).count();
        if !(sure..=perhaps as u64).contains(&counts.in_flight) {
            let text = format!("{place} counts {counts:?}, and {sure} to {perhaps} are in flight");
            return Err(Violation::Other(text));
        }
        // What was accepted and is owed is somewhere until it is finished.
        let is_finished = |number: usize| {
            let copy = channel.copies.get(&MessageNumber(number as u32));
            copy.is_some_and(|copy| copy.state == CopyState::Finished)
        };
        let mut least = 0;
        let mut most = 0;
        for (number, message) in model.messages.iter().enumerate() {
            let is_here = message.is_on(place.node) && message.topic == place.topic;
            if !is_here || is_finished(number) || message.outcome == Outcome::Refused {
                continue;
            }
            // Those that may be on several nsqds are counted where they arrive.
            most += u64::from(message.origin.is_none());
            let is_owed = channel.is_first || channel.created_at < message.at;
            least += u64::from(message.outcome == Outcome::Accepted && is_owed);
        }
        let arrivals = model.arrivals.get(&(place.node, place.topic)).copied().unwrap_or_default();
        if counts.held + counts.held_by_topic < least || counts.held > most + arrivals {
            let most = most + arrivals;
            let text = format!("{place} counts {counts:?}, and it has {least} to {most}");
            return Err(Violation::Other(text));
        }
        Ok(())
    }
}

/// Timers ring a little late.
const CLOCK_LAG: Duration = Duration::from_millis(1);
