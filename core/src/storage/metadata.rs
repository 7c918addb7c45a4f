//! `nsqd.dat`: which topics and channels there are, and which are paused (storage-formats.md
//! section 3).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::MapAccess;
use serde_json::error::Category;

use crate::name::{ChannelName, TopicName};
use crate::protocol::json::{self, Members, Object};
use crate::version::NSQ_VERSION;

/// The topics and channels of an nsqd, as its metadata file has them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Metadata {
    /// By name, each once.
    pub topics: Vec<TopicRecord>,
}

/// A topic in the metadata.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicRecord {
    /// Its name.
    pub name: TopicName,
    /// Whether it is paused.
    pub paused: bool,
    /// Its channels, by name, each once.
    pub channels: Vec<ChannelRecord>,
}

/// A channel in the metadata.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelRecord {
    /// Its name.
    pub name: ChannelName,
    /// Whether it is paused.
    pub paused: bool,
}

/// What is in a metadata file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ParsedMetadata {
    /// What can be made.
    pub metadata: Metadata,
    /// What can't, because of its name; each is worth a warning.
    pub skipped: Vec<SkippedName>,
}

/// A name in a metadata file that is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SkippedName {
    /// Of a channel.
    Channel(String),
    /// Of a topic; its channels go with it.
    Topic(String),
}

impl fmt::Display for SkippedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(name) => write!(f, "skipping creation of invalid channel {name}"),
            Self::Topic(name) => write!(f, "skipping creation of invalid topic {name}"),
        }
    }
}

/// A metadata file cannot be understood. It has to be left as it is, and nothing may be started in
/// its place: it would be overwritten.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MetadataError(String);

impl fmt::Display for MetadataError {
    /// What follows `failed to parse metadata in FILE - ` in the reference's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for MetadataError {}

impl Metadata {
    /// Reads a metadata file as leniently as the reference: keys in any letter case, unknown ones
    /// ignored, `null` for anything that is empty or false. Of a name that comes twice the channels
    /// are put together, and it is paused if it is once.
    ///
    /// # Errors
    /// [`MetadataError`] if it is not JSON, or has other types.
    pub fn parse(contents: &[u8]) -> Result<ParsedMetadata, MetadataError> {
        let root: Root = json::decode(contents).map_err(|error| {
            MetadataError(match error.classify() {
                Category::Eof => String::from("unexpected end of JSON input"),
                Category::Data | Category::Io | Category::Syntax => error.to_string(),
            })
        })?;
        let mut parsed = ParsedMetadata::default();
        let topics = &mut parsed.metadata.topics;
        topics.reserve_exact(root.topics.len());
        for Object(Entry { name, paused, channels }) in
            root.topics.into_iter().map(Option::unwrap_or_default)
        {
            let Ok(topic) = TopicName::new(&name) else {
                parsed.skipped.push(SkippedName::Topic(name));
                continue;
            };
            let mut record = TopicRecord { name: topic, paused, channels: Vec::new() };
            record.channels.reserve_exact(channels.len());
            let channels = channels.into_iter().map(Option::unwrap_or_default);
            for Object(Entry { name, paused, .. }) in channels {
                match ChannelName::new(&name) {
                    Ok(name) => record.channels.push(ChannelRecord { name, paused }),
                    Err(_) => parsed.skipped.push(SkippedName::Channel(name)),
                }
            }
            topics.push(record);
        }
        topics.sort_by_key(|topic| topic.name);
        topics.dedup_by(|again, first| {
            let is_same = again.name == first.name;
            if is_same {
                first.paused |= again.paused;
                first.channels.append(&mut again.channels);
            }
            is_same
        });
        for topic in topics {
            topic.channels.sort_by_key(|channel| channel.name);
            topic.channels.dedup_by(|again, first| {
                let is_same = again.name == first.name;
                first.paused |= is_same && again.paused;
                is_same
            });
        }
        Ok(parsed)
    }

    /// The file's contents as the reference writes them, in the order of the lists. What is
    /// ephemeral is left out, with everything in it.
    pub fn to_json(&self) -> String {
        let mut out = MetadataText::new();
        for topic in &self.topics {
            let channels = topic.channels.iter().map(|channel| (&channel.name, channel.paused));
            out.push(&topic.name, topic.paused, channels);
        }
        out.end()
    }
}

/// Writes a metadata file, topic by topic. Nothing in a name needs escaping.
#[derive(Debug)]
pub struct MetadataText(String);

impl MetadataText {
    /// The beginning of the file.
    pub fn new() -> Self {
        Self(String::from(TOPICS))
    }

    /// Appends a topic, unless it is ephemeral, and those of its channels that are not.
    pub fn push<'a>(
        &mut self,
        topic: &TopicName,
        paused: bool,
        channels: impl Iterator<Item = (&'a ChannelName, bool)>,
    ) {
        if topic.is_ephemeral() {
            return;
        }
        let out = &mut self.0;
        out.push(if out.len() == TOPICS.len() { '[' } else { ',' });
        push_named(out, topic, paused);
        out.push_str(",\"channels\":");
        let start = out.len();
        for (name, paused) in channels.filter(|(name, _)| !name.is_ephemeral()) {
            out.push(if out.len() == start { '[' } else { ',' });
            push_named(out, name, paused);
            out.push('}');
        }
        push_end(out, start);
        out.push('}');
    }

    /// The whole file.
    pub fn end(self) -> String {
        let mut out = self.0;
        push_end(&mut out, TOPICS.len());
        out.push_str(",\"version\":\"");
        out.push_str(NSQ_VERSION);
        out.push_str("\"}");
        out
    }
}

impl Default for MetadataText {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends the list that began at `start`; it is `null` if it is empty, as Go has it.
fn push_end(out: &mut String, start: usize) {
    out.push_str(if out.len() == start { "null" } else { "]" });
}

/// Appends the members that topics and channels have.
fn push_named(out: &mut String, name: &str, paused: bool) {
    out.push_str("{\"name\":\"");
    out.push_str(name);
    out.push_str(if paused { "\",\"paused\":true" } else { "\",\"paused\":false" });
}

const TOPICS: &str = "{\"topics\":";

/// The whole file.
#[derive(Default)]
struct Root {
    topics: Vec<Option<Object<Entry<true>>>>,
}

/// A topic, or a channel, which has no channels of its own.
#[derive(Default)]
struct Entry<const TOPIC: bool> {
    name: String,
    paused: bool,
    channels: Vec<Option<Object<Entry<false>>>>,
}

impl Members for Root {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "topics" => json::set(&mut self.topics, map),
            _ => json::skip(map),
        }
    }
}

impl<const TOPIC: bool> Members for Entry<TOPIC> {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => json::set(&mut self.name, map),
            "paused" => json::set(&mut self.paused, map),
            "channels" if TOPIC => json::set(&mut self.channels, map),
            _ => json::skip(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ParsedMetadata {
        Metadata::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn it_is_written_as_the_reference_writes_it() {
        let text = "{\"topics\":[{\"name\":\"pt\",\"paused\":true,\"channels\":[{\"name\":\"pc\",\
            \"paused\":true},{\"name\":\"uc\",\"paused\":false}]}],\"version\":\"1.3.0\"}";
        let parsed = parse(text);
        assert_eq!((parsed.metadata.to_json().as_str(), parsed.skipped.len()), (text, 0));
        let none = Metadata::default().to_json();
        assert_eq!(none, "{\"topics\":null,\"version\":\"1.3.0\"}");
        assert_eq!(none.len(), 33);
        let empty = "{\"topics\":[{\"name\":\"t\",\"paused\":false,\"channels\":null}],\
            \"version\":\"1.3.0\"}";
        assert_eq!(parse(empty).metadata.to_json(), empty);
    }

    #[test]
    fn nothing_ephemeral_is_written() {
        let parsed = parse(
            "{\"topics\":[{\"name\":\"e#ephemeral\",\"channels\":[{\"name\":\"c\"}]},\
             {\"name\":\"t\",\"channels\":[{\"name\":\"c#ephemeral\"}]}]}",
        );
        assert_eq!((parsed.metadata.topics.len(), parsed.skipped.len()), (2, 0));
        let written = "{\"topics\":[{\"name\":\"t\",\"paused\":false,\"channels\":null}],\
            \"version\":\"1.3.0\"}";
        assert_eq!(parsed.metadata.to_json(), written);
    }

    #[test]
    fn it_is_read_as_leniently_as_the_reference_reads_it() {
        for text in ["null", "{}", "{\"topics\":[]}", "{\"topics\":null}\n", " {\"x\":[{}]} "] {
            assert_eq!(parse(text), ParsedMetadata::default(), "{text}");
        }
        let parsed = parse(
            "{\"Topics\":[{\"NAME\":\"b\",\"Paused\":true,\"channels\":[{\"name\":\"d\"},null]},\
             {\"name\":\"a b\",\"channels\":[{\"name\":\"x\"}]},{\"name\":\"a\",\"new\":1},\
             {\"name\":\"b\",\"channels\":[{\"name\":\"c\",\"paused\":true},{\"name\":\"d\",\
             \"paused\":true},{\"name\":\"\\ud800\"}]}],\"VERSION\":7}",
        );
        let channel = |name| ChannelRecord { name: ChannelName::new(name).unwrap(), paused: true };
        let topic = |name| TopicName::new(name).unwrap();
        let topics = [
            TopicRecord { name: topic("a"), paused: false, channels: Vec::new() },
            TopicRecord {
                name: topic("b"),
                paused: true,
                channels: [channel("c"), channel("d")].into(),
            },
        ];
        assert_eq!(parsed.metadata.topics, topics);
        let skipped: Vec<_> = parsed.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(
            skipped,
            [
                "skipping creation of invalid channel ",
                "skipping creation of invalid topic a b",
                "skipping creation of invalid channel \u{fffd}",
            ]
        );
    }

    #[test]
    fn what_is_not_metadata_is_refused() {
        for text in [
            "[]",
            "7",
            "\u{feff}{}",
            "{} {}",
            "{\"topics\":{}}",
            "{\"topics\":[7]}",
            "{\"topics\":[{\"name\":7}]}",
            "{\"topics\":[{\"name\":\"t\",\"paused\":\"true\"}]}",
            "{\"topics\":[{\"name\":\"a b\",\"channels\":\"c\"}]}",
            "{\"topics\":[{\"name\":\"t\",\"channels\":[{\"name\":[]}]}]}",
        ] {
            assert!(Metadata::parse(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["", "{\"topics\":[{\"na"] {
            let error = Metadata::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), "unexpected end of JSON input");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            topics in prop::collection::btree_map(
                "[a-zA-Z0-9._-]{1,9}",
                (any::<bool>(), prop::collection::btree_map("[a-z._-]{1,9}", any::<bool>(), 0..4)),
                0..5,
            ),
        ) {
            let topics = topics.into_iter().map(|(name, (paused, channels))| TopicRecord {
                name: TopicName::new(name).unwrap(),
                paused,
                channels: channels
                    .into_iter()
                    .map(|(name, paused)| ChannelRecord { name: ChannelName::new(name).unwrap(), paused })
                    .collect(),
            });
            let metadata = Metadata { topics: topics.collect() };
            let parsed = Metadata::parse(metadata.to_json().as_bytes());
            prop_assert_eq!(parsed, Ok(ParsedMetadata { metadata, skipped: Vec::new() }));
        }
    }
}
