//! What has to hold in the end.

use core::time::Duration;
use std::collections::BTreeMap;

use sansq_core::nsqd::{ChannelOp, TopicOp};

use super::{Awaited, CHANNELS, ChannelKey, Harness, TOPICS, is_ephemeral, number_of};

impl Harness {
    /// Ends: whatever is under way arrives, pauses end, and fresh consumers take all that is left.
    ///
    /// # Panics
    /// If the node is wrong.
    pub fn end(mut self) {
        for at in 0..self.clients.len() {
            self.node.set_reads(self.clients[at].id, true);
            self.look();
        }
        self.flush();
        // Publishers wait five seconds at most, and nobody was away for as long as a heartbeat.
        self.elapse(Duration::from_secs(6));
        self.flush();
        for (at, client) in self.clients.iter().enumerate() {
            let is_open = |awaited: &&Awaited| !matches!(awaited, Awaited::Perhaps(_));
            let open: Vec<_> = client.awaited.iter().filter(is_open).collect();
            assert!(
                self.node.is_closed(client.id) || open.is_empty(),
                "client {at} waits for ever: {open:?}"
            );
        }
        assert!(self.asked.is_empty(), "an admin request waits for ever");
        self.check_consumers();
        for at in 0..self.clients.len() {
            self.close(at);
        }
        self.flush();
        self.drain();
        self.check_messages();
        let mut shards = self.node.shards().iter();
        assert!(shards.all(|shard| shard.connections() == 0), "connections are left");
    }

    /// A connection is on a channel exactly if its client was told so and neither has ended; and
    /// nothing waits that a consumer could have.
    fn check_consumers(&mut self) {
        let mut expected: BTreeMap<ChannelKey, u64> = BTreeMap::new();
        for client in &self.clients {
            if let Some((place, true)) = client.place
                && !self.node.is_closed(client.id)
            {
                *expected.entry(place).or_default() += 1;
            }
        }
        let mut found: BTreeMap<ChannelKey, u64> = BTreeMap::new();
        let stats = self.stats();
        for topic in &stats.topics {
            for channel in &topic.channels {
                let place = (
                    number_of(&TOPICS, topic.name.as_str()),
                    number_of(&CHANNELS, channel.name.as_str()),
                );
                if channel.client_count > 0 {
                    found.insert(place, channel.client_count);
                }
                // Everybody reads now, so what waits has a reason.
                let clients = channel.clients.iter().flatten();
                let mut can_take = clients.filter(|c| c.in_flight_count < c.ready_count);
                assert!(
                    channel.depth == 0 || channel.paused || can_take.next().is_none(),
                    "messages wait for a consumer that waits for messages"
                );
            }
        }
        assert_eq!(found, expected, "consumers by channel");
    }

    fn drain(&mut self) {
        for topic in 0..TOPICS.len() {
            self.topic_op(0, topic, TopicOp::Unpause);
            for channel in 0..CHANNELS.len() {
                self.channel_op(0, (topic, channel), ChannelOp::Unpause);
            }
        }
        self.flush();
        // A topic that collected and never had a channel gets one.
        let stats = self.stats();
        let mut places = Vec::new();
        for topic in &stats.topics {
            let number = number_of(&TOPICS, topic.name.as_str());
            for channel in &topic.channels {
                places.push((number, number_of(&CHANNELS, channel.name.as_str())));
            }
            if topic.channels.is_empty() {
                places.push((number, 0));
            }
        }
        for place in places {
            let at = self.connect(0);
            self.subscribe(at, place);
            self.send(at, b"RDY 2500\n");
            self.flush();
        }
        for _ in 0..4 {
            for at in 0..self.clients.len() {
                let id = self.clients[at].id;
                while !self.node.is_closed(id) && !self.clients[at].held.is_empty() {
                    self.finish(at, 0);
                    self.flush();
                }
            }
            // Nothing was kept back for longer.
            self.elapse(Duration::from_secs(4));
            self.flush();
        }
        for topic in self.stats().topics {
            assert_eq!(topic.depth, 0, "{} does not drain", topic.name);
            for channel in topic.channels {
                let left = (channel.depth, channel.in_flight_count, channel.deferred_count);
                assert_eq!(left, (0, 0, 0), "{}/{} does not drain", topic.name, channel.name);
            }
        }
        for at in 0..self.clients.len() {
            self.close(at);
        }
        self.flush();
    }

    fn check_messages(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            assert!(
                !message.refused || message.attempts.is_empty(),
                "message {number} was refused and delivered"
            );
            if !message.acknowledged || is_ephemeral(message.topic) {
                continue;
            }
            // Where there is a channel that goes with its consumers, messages go with it.
            let may_be_gone = message.disturbed || self.ephemeral.contains(&message.topic);
            assert!(
                may_be_gone || !message.finished_on.is_empty(),
                "message {number} was acknowledged and never finished"
            );
            for place in &message.owed_to {
                assert!(
                    message.finished_on.contains(place),
                    "message {number} was never finished on {}/{}",
                    TOPICS[place.0],
                    CHANNELS[place.1]
                );
            }
        }
    }
}
