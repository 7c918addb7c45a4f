//! Reading `nsqd.dat` as Go would: keys in any letter case, `null` as absent, unknown keys ignored
//! (storage-formats.md section 3).

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::metadata::{ChannelRecord, Metadata, TopicRecord};
use crate::name::{ChannelName, TopicName};

/// A name in the metadata that no topic or channel can have; its `Display` is the line for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Skipped {
    /// A channel.
    Channel(String),
    /// A topic, with its channels.
    Topic(String),
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(name) => write!(f, "skipping creation of invalid channel {name}"),
            Self::Topic(name) => write!(f, "skipping creation of invalid topic {name}"),
        }
    }
}

/// The text is no list of topics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MetadataParseError(String);

impl fmt::Display for MetadataParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for MetadataParseError {}

impl Metadata {
    /// Reads the contents of a metadata file, and says what was left out.
    ///
    /// A topic or channel that is there twice is one; it is paused if one of them is.
    ///
    /// # Errors
    /// [`MetadataParseError`] if it is not JSON, or has a value of the wrong type.
    pub fn parse(text: &[u8]) -> Result<(Self, Vec<Skipped>), MetadataParseError> {
        let text = String::from_utf8_lossy(text);
        let document: Option<Document> =
            serde_json::from_str(&text).map_err(|error| MetadataParseError(error.to_string()))?;
        let mut topics = BTreeMap::new();
        let mut skipped = Vec::new();
        for topic in document.unwrap_or_default().topics {
            let Ok(name) = TopicName::new(&topic.name) else {
                skipped.push(Skipped::Topic(topic.name));
                continue;
            };
            let (paused, channels) = topics.entry(name).or_insert((false, BTreeMap::new()));
            *paused |= topic.paused;
            for channel in topic.channels {
                match ChannelName::new(&channel.name) {
                    Ok(name) => *channels.entry(name).or_insert(false) |= channel.paused,
                    Err(_) => skipped.push(Skipped::Channel(channel.name)),
                }
            }
        }
        let topics = topics.into_iter().map(|(name, (paused, channels))| {
            let channels = channels.into_iter();
            let channels = channels.map(|(name, paused)| ChannelRecord { name, paused }).collect();
            TopicRecord { name, paused, channels }
        });
        Ok((Self { topics: topics.collect() }, skipped))
    }
}

/// The whole file.
#[derive(Default)]
struct Document {
    topics: Vec<Entry>,
}

/// A topic or a channel; a channel has no channels.
#[derive(Default)]
struct Entry {
    name: String,
    paused: bool,
    channels: Vec<Self>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Document, M::Error> {
        let mut document = Document::default();
        while let Some(key) = members.next_key::<String>()? {
            if key.eq_ignore_ascii_case("topics") {
                document.topics = entries(&mut members)?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(document)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Entry, M::Error> {
        let mut entry = Entry::default();
        while let Some(key) = members.next_key::<String>()? {
            if key.eq_ignore_ascii_case("name") {
                entry.name = members.next_value::<Option<_>>()?.unwrap_or_default();
            } else if key.eq_ignore_ascii_case("paused") {
                entry.paused = members.next_value::<Option<_>>()?.unwrap_or_default();
            } else if key.eq_ignore_ascii_case("channels") {
                entry.channels = entries(&mut members)?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(entry)
    }
}

/// A list of objects; `null` is an empty one, and in it an object without members.
fn entries<'de, M: MapAccess<'de>>(members: &mut M) -> Result<Vec<Entry>, M::Error> {
    let list: Option<Vec<Option<Entry>>> = members.next_value()?;
    Ok(list.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect())
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn parse(text: &str) -> (Metadata, Vec<String>) {
        let (metadata, skipped) = Metadata::parse(text.as_bytes()).unwrap();
        (metadata, skipped.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_the_reference_wrote_is_read_and_written_alike() {
        for text in [
            r#"{"topics":null,"version":"1.3.0"}"#,
            r#"{"topics":[{"name":"pt","paused":true,"channels":[{"name":"pc","paused":true},{"name":"uc","paused":false}]}],"version":"1.3.0"}"#,
            r#"{"topics":[{"name":".","paused":false,"channels":null},{"name":"a","paused":false,"channels":null}],"version":"1.3.0"}"#,
        ] {
            let (metadata, skipped) = parse(text);
            assert_eq!(metadata.to_json(), text);
            assert!(skipped.is_empty());
        }
    }

    #[test]
    fn what_the_reference_reads_is_read() {
        for text in ["null", "{}", "{\"topics\":[]}\n", " {\"Topics\":null,\"x\":[{\"y\":1}]}"] {
            assert_eq!(parse(text), (Metadata::default(), vec![]), "{text}");
        }
        let (metadata, skipped) = parse(
            r##"{"TOPICS":[
                {"Name":"t","channels":[{"name":"c","paused":null},{"name":"c","paused":true}]},
                {"name":"t","paused":true,"channels":[{"name":"b","x":0},{"name":"a b"},null]},
                {"name":"t","paused":false},
                {"name":"!","channels":[{"name":"c"}]},
                {"name":"e#ephemeral"}
            ],"version":7}"##,
        );
        let json = r##"{"topics":[{"name":"e#ephemeral","paused":false,"channels":null},{"name":"t","paused":true,"channels":[{"name":"b","paused":false},{"name":"c","paused":true}]}],"version":"1.3.0"}"##;
        assert_eq!(metadata.to_json(), json);
        assert_eq!(
            skipped,
            [
                "skipping creation of invalid channel a b",
                "skipping creation of invalid channel ",
                "skipping creation of invalid topic !",
            ]
        );
        let damaged = b"{\"topics\":[{\"name\":\"\xFF\"}]}";
        let (metadata, skipped) = Metadata::parse(damaged).unwrap();
        assert_eq!((metadata.topics.len(), skipped.len()), (0, 1));
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        for text in [
            "",
            " ",
            "[]",
            "7",
            r#"{"topics":[{"name":"t""#,
            r#"{"topics":{}}"#,
            r#"{"topics":["t"]}"#,
            r#"{"topics":[{"name":7}]}"#,
            r#"{"topics":[{"name":"t","paused":"true"}]}"#,
            r#"{"topics":[{"name":"t","channels":[["c"]]}]}"#,
            "{}{}",
            "\u{FEFF}{}",
        ] {
            assert!(Metadata::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
