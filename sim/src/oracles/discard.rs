//! Topics and channels that are emptied or deleted, and what is not owed to anybody then.

use sansq_core::time::Instant;

use super::{Discard, Oracles};
use crate::model::ChannelKey;

impl Oracles {
    /// What was published before is not owed any more, and nothing of it counts as in flight: when
    /// exactly it went, only the nsqd knows.
    pub(super) fn discarded(&mut self, now: Instant, discard: &Discard) {
        let Discard { node, topic, channel } = *discard;
        if let Some(at) = self.model.discarding.iter().position(|other| other == discard) {
            self.model.discarding.swap_remove(at);
        }
        match channel {
            Some(channel) => {
                self.model.floors.insert(ChannelKey { node, topic, channel }, now);
            }
            None => {
                self.model.topic_floors.insert((node, topic), now);
            }
        }
        for subscriber in self.model.subscribers.values_mut() {
            if discard.is_about(&subscriber.place) {
                subscriber.in_flight.clear();
            }
        }
    }

    /// A channel is gone. The next first channel of its topic gets what came after that.
    pub(super) fn channel_deleted(&mut self, now: Instant, place: &ChannelKey) {
        self.model.channels.remove(place);
        self.model.floors.insert(*place, now);
        let mut others = self.model.channels.keys();
        if !others.any(|other| (other.node, other.topic) == (place.node, place.topic)) {
            self.model.topic_floors.insert((place.node, place.topic), now);
        }
    }

    /// Whether something of this channel may be going just now.
    pub(super) fn is_discarding(&self, place: &ChannelKey) -> bool {
        self.model.discarding.iter().any(|discard| discard.is_about(place))
    }
}

impl Discard {
    fn is_about(&self, place: &ChannelKey) -> bool {
        (self.node, self.topic) == (place.node, place.topic)
            && self.channel.is_none_or(|channel| channel == place.channel)
    }
}
