//! Shard 0's list of every topic and channel: what nsqlookupds are told and the metadata file holds.

use alloc::collections::BTreeMap;

use crate::name::{ChannelName, TopicName};
use crate::storage::{ChannelRecord, Metadata, TopicRecord};

/// A change that shard 0 has to know of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Announcement {
    /// A topic came into being.
    TopicCreated(TopicName),
    /// A topic was deleted, with all its channels.
    TopicDeleted(TopicName),
    /// A topic was paused (`true`) or goes on.
    TopicPaused(TopicName, bool),
    /// A channel came into being.
    ChannelCreated(TopicName, ChannelName),
    /// A channel was deleted.
    ChannelDeleted(TopicName, ChannelName),
    /// A channel was paused (`true`) or goes on.
    ChannelPaused(TopicName, ChannelName, bool),
}

impl Announcement {
    /// Whether it concerns the metadata file, which ephemeral names are not in.
    pub fn is_stored(&self) -> bool {
        match self {
            Self::TopicCreated(topic) | Self::TopicDeleted(topic) | Self::TopicPaused(topic, _) => {
                !topic.is_ephemeral()
            }
            Self::ChannelCreated(topic, channel)
            | Self::ChannelDeleted(topic, channel)
            | Self::ChannelPaused(topic, channel, _) => {
                !topic.is_ephemeral() && !channel.is_ephemeral()
            }
        }
    }

    /// Whether something is paused or goes on.
    pub const fn is_pause(&self) -> bool {
        matches!(self, Self::TopicPaused(..) | Self::ChannelPaused(..))
    }
}

/// The names of everything that exists in an nsqd, over all shards, and whether it is paused.
///
/// A topic's shard announces each change in the order in which it happened; so what the registry says
/// about one topic was true at some moment, and is true again once the lane has been emptied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Registry {
    topics: BTreeMap<TopicName, TopicEntry>,
}

/// What the registry knows of a topic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TopicEntry {
    /// Whether it is paused.
    pub paused: bool,
    /// Its channels, and whether they are paused.
    pub channels: BTreeMap<ChannelName, bool>,
}

impl Registry {
    /// An empty registry.
    pub const fn new() -> Self {
        Self { topics: BTreeMap::new() }
    }

    /// Takes note of a change. Returns whether the names changed, and so the nsqlookupds must know.
    pub fn note(&mut self, change: Announcement) -> bool {
        match change {
            Announcement::TopicCreated(topic) => {
                let known = self.topics.contains_key(&topic);
                self.topics.entry(topic).or_default();
                !known
            }
            Announcement::TopicDeleted(topic) => self.topics.remove(&topic).is_some(),
            Announcement::TopicPaused(topic, paused) => {
                if let Some(entry) = self.topics.get_mut(&topic) {
                    entry.paused = paused;
                }
                false
            }
            Announcement::ChannelCreated(topic, channel) => {
                let channels = &mut self.topics.entry(topic).or_default().channels;
                let known = channels.contains_key(&channel);
                channels.entry(channel).or_default();
                !known
            }
            Announcement::ChannelDeleted(topic, channel) => self
                .topics
                .get_mut(&topic)
                .is_some_and(|entry| entry.channels.remove(&channel).is_some()),
            Announcement::ChannelPaused(topic, channel, paused) => {
                let entry = self.topics.get_mut(&topic);
                if let Some(flag) = entry.and_then(|entry| entry.channels.get_mut(&channel)) {
                    *flag = paused;
                }
                false
            }
        }
    }

    /// What the metadata file is to hold: all but ephemeral names.
    pub fn to_metadata(&self) -> Metadata {
        let lasting = self.topics.iter().filter(|(name, _)| !name.is_ephemeral());
        let topics = lasting.map(|(name, entry)| {
            let lasting = entry.channels.iter().filter(|(name, _)| !name.is_ephemeral());
            let channel = |(name, paused): (&ChannelName, &bool)| ChannelRecord {
                name: *name,
                paused: *paused,
            };
            let channels = lasting.map(channel).collect();
            TopicRecord { name: *name, paused: entry.paused, channels }
        });
        Metadata { topics: topics.collect() }
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = (&TopicName, &TopicEntry)> {
        self.topics.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_it_is_told() {
        let (t, c) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        let mut registry = Registry::new();
        assert!(registry.note(Announcement::TopicCreated(t)));
        assert!(!registry.note(Announcement::TopicCreated(t)));
        assert!(registry.note(Announcement::ChannelCreated(t, c)));
        assert!(!registry.note(Announcement::ChannelPaused(t, c, true)));
        assert!(!registry.note(Announcement::TopicPaused(t, true)));
        let (_, entry) = registry.topics().next().unwrap();
        assert!(entry.paused && entry.channels[&c]);
        assert!(registry.note(Announcement::ChannelDeleted(t, c)));
        assert!(registry.note(Announcement::TopicDeleted(t)));
        assert!(!registry.note(Announcement::TopicDeleted(t)));
        assert_eq!(registry, Registry::new());
    }
}
