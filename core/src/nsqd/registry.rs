//! Shard 0's list of every topic and channel: what nsqlookupds are told and the metadata file
//! holds.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::name::{ChannelName, TopicName};
use crate::storage::{Metadata, MetadataText};

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
/// A topic's shard announces each change in the order in which it happened; so what the registry
/// says about one topic was true at some moment, and is true again once the lane has been emptied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Registry {
    topics: BTreeMap<TopicName, TopicEntry>,
}

/// What the registry knows of a topic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TopicEntry {
    /// Whether it is paused.
    pub paused: bool,
    /// Its channels by name, and whether they are paused. Most topics have few, and a tree's node
    /// has room for eleven.
    pub channels: Vec<(ChannelName, bool)>,
}

impl TopicEntry {
    fn find(&self, channel: &ChannelName) -> Option<usize> {
        self.channels.binary_search_by_key(channel, |(name, _)| *name).ok()
    }
}

impl Registry {
    /// An empty registry.
    pub const fn new() -> Self {
        Self { topics: BTreeMap::new() }
    }

    /// What a metadata file lists.
    pub(super) fn from_metadata(metadata: &Metadata) -> Self {
        let topics = metadata.topics.iter().map(|record| {
            let channels = record.channels.iter().map(|channel| (channel.name, channel.paused));
            (record.name, TopicEntry { paused: record.paused, channels: channels.collect() })
        });
        Self { topics: topics.collect() }
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
                match channels.binary_search_by_key(&channel, |(name, _)| *name) {
                    Ok(_) => false,
                    Err(at) => {
                        if channels.is_empty() {
                            // Most topics have one, and its place is not small.
                            channels.reserve_exact(1);
                        }
                        channels.insert(at, (channel, false));
                        true
                    }
                }
            }
            Announcement::ChannelDeleted(topic, channel) => self
                .topics
                .get_mut(&topic)
                .and_then(|entry| Some(entry.channels.remove(entry.find(&channel)?)))
                .is_some(),
            Announcement::ChannelPaused(topic, channel, paused) => {
                if let Some(entry) = self.topics.get_mut(&topic)
                    && let Some(at) = entry.find(&channel)
                {
                    entry.channels[at].1 = paused;
                }
                false
            }
        }
    }

    /// What the metadata file is to hold: all but ephemeral names.
    pub fn to_json(&self) -> String {
        let mut out = MetadataText::new();
        for (name, entry) in &self.topics {
            let channels = entry.channels.iter().map(|(name, paused)| (name, *paused));
            out.push(name, entry.paused, channels);
        }
        out.end()
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = (&TopicName, &TopicEntry)> {
        self.topics.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn announcement() -> impl Strategy<Value = Announcement> {
        let topic = || prop::sample::select(alloc::vec!["t", "u", "v#ephemeral"]);
        let topic = move || topic().prop_map(|name| TopicName::new(name).unwrap());
        let channel = || prop::sample::select(alloc::vec!["c", "d", "e#ephemeral"]);
        let channel = move || channel().prop_map(|name| ChannelName::new(name).unwrap());
        let both = move || (topic(), channel());
        prop_oneof![
            3 => topic().prop_map(Announcement::TopicCreated),
            1 => topic().prop_map(Announcement::TopicDeleted),
            2 => (topic(), any::<bool>()).prop_map(|(t, is)| Announcement::TopicPaused(t, is)),
            4 => both().prop_map(|(t, c)| Announcement::ChannelCreated(t, c)),
            2 => both().prop_map(|(t, c)| Announcement::ChannelDeleted(t, c)),
            2 => (both(), any::<bool>())
                .prop_map(|((t, c), is)| Announcement::ChannelPaused(t, c, is)),
        ]
    }

    type Names = BTreeSet<(TopicName, Option<ChannelName>)>;

    proptest! {
        /// Beside flat sets of what exists and of what is paused: the names, whether they changed,
        /// and the file, which changes only if the change says so and is read as what was written.
        #[test]
        fn it_is_two_flat_sets(changes in prop::collection::vec(announcement(), 0..60)) {
            let mut registry = Registry::new();
            let (mut names, mut paused) = (Names::new(), Names::new());
            for change in changes {
                let (names_before, file_before) = (names.clone(), registry.to_json());
                let mut is_new_topic = false;
                match change {
                    Announcement::TopicCreated(t) => {
                        names.insert((t, None));
                    }
                    Announcement::TopicDeleted(t) => {
                        names.retain(|(t2, _)| *t2 != t);
                        paused.retain(|(t2, _)| *t2 != t);
                    }
                    Announcement::ChannelCreated(t, c) => {
                        is_new_topic = names.insert((t, None));
                        names.insert((t, Some(c)));
                    }
                    Announcement::ChannelDeleted(t, c) => {
                        names.remove(&(t, Some(c)));
                        paused.remove(&(t, Some(c)));
                    }
                    Announcement::TopicPaused(t, true) if names.contains(&(t, None)) => {
                        paused.insert((t, None));
                    }
                    Announcement::ChannelPaused(t, c, true) if names.contains(&(t, Some(c))) => {
                        paused.insert((t, Some(c)));
                    }
                    Announcement::TopicPaused(t, _) => {
                        paused.remove(&(t, None));
                    }
                    Announcement::ChannelPaused(t, c, _) => {
                        paused.remove(&(t, Some(c)));
                    }
                }
                prop_assert_eq!(registry.note(change), names != names_before);
                let mut shown = Vec::new();
                for (t, entry) in registry.topics() {
                    shown.push(((*t, None), entry.paused));
                    shown.extend(entry.channels.iter().map(|(c, is)| ((*t, Some(*c)), *is)));
                }
                let expected: Vec<_> = names.iter().map(|name| (*name, paused.contains(name))).collect();
                prop_assert_eq!(&shown, &expected);
                let file = registry.to_json();
                // A topic is announced before its channels.
                prop_assert!(change.is_stored() || is_new_topic || file == file_before);
                let read = Metadata::parse(file.as_bytes()).unwrap();
                prop_assert!(read.skipped.is_empty() && read.metadata.to_json() == file);
                let mut stored = Vec::new();
                for topic in &read.metadata.topics {
                    stored.push(((topic.name, None), topic.paused));
                    let channels = topic.channels.iter();
                    stored.extend(channels.map(|c| ((topic.name, Some(c.name)), c.paused)));
                }
                let is_lasting = |(t, c): &(TopicName, Option<ChannelName>)| {
                    !t.is_ephemeral() && c.is_none_or(|c| !c.is_ephemeral())
                };
                let lasting: Vec<_> =
                    expected.into_iter().filter(|(name, _)| is_lasting(name)).collect();
                prop_assert_eq!(stored, lasting);
            }
        }
    }

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
        assert!(entry.paused && entry.channels == [(c, true)]);
        assert!(registry.note(Announcement::ChannelDeleted(t, c)));
        assert!(registry.note(Announcement::TopicDeleted(t)));
        assert!(!registry.note(Announcement::TopicDeleted(t)));
        assert_eq!(registry, Registry::new());
    }
}
