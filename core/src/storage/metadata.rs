//! `nsqd.dat`: which topics and channels there are, and which are paused (storage-formats.md section 3).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use serde_json::Value;
use serde_json::error::Category;

use crate::name::{ChannelName, TopicName};
use crate::protocol::json;
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

/// A metadata file cannot be understood. It has to be left as it is, and nothing may be started in its
/// place: it would be overwritten.
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
    /// ignored, `null` for anything that is empty or false. Of a name that comes twice the channels are
    /// put together, and it is paused if it is once.
    ///
    /// # Errors
    /// [`MetadataError`] if it is not JSON, or has other types.
    pub fn parse(contents: &[u8]) -> Result<ParsedMetadata, MetadataError> {
        let text = json::replace_damage(contents);
        let value: Value = serde_json::from_slice(&text).map_err(|error| {
            MetadataError(match error.classify() {
                Category::Eof => String::from("unexpected end of JSON input"),
                Category::Data | Category::Io | Category::Syntax => error.to_string(),
            })
        })?;
        let mut parsed = ParsedMetadata::default();
        let topics = &mut parsed.metadata.topics;
        for topic in list(member(&value, "topics")?, "topics")? {
            let (name, paused) = named(topic)?;
            let channels = list(member(topic, "channels")?, "channels")?;
            let Ok(name) = TopicName::new(name) else {
                parsed.skipped.push(SkippedName::Topic(name.to_string()));
                continue;
            };
            let mut record = TopicRecord { name, paused, channels: Vec::new() };
            for channel in channels {
                let (name, paused) = named(channel)?;
                match ChannelName::new(name) {
                    Ok(name) => record.channels.push(ChannelRecord { name, paused }),
                    Err(_) => parsed.skipped.push(SkippedName::Channel(name.to_string())),
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

    /// The file's contents as the reference writes them, in the order of the lists. What is ephemeral is
    /// left out, with everything in it.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"topics\":");
        let topics = self.topics.iter().filter(|topic| !topic.name.is_ephemeral());
        push_list(&mut out, topics, |out, topic| {
            push_named(out, &topic.name, topic.paused);
            out.push_str(",\"channels\":");
            let channels = topic.channels.iter().filter(|channel| !channel.name.is_ephemeral());
            push_list(out, channels, |out, channel| push_named(out, &channel.name, channel.paused));
        });
        // Writing to a string does not fail.
        let _ = write!(out, ",\"version\":\"{NSQ_VERSION}\"}}");
        out
    }
}

/// Appends a list of objects; `null` if it is empty, as Go has it.
fn push_list<T>(
    out: &mut String,
    items: impl Iterator<Item = T>,
    mut fill: impl FnMut(&mut String, T),
) {
    let start = out.len();
    for item in items {
        out.push(if out.len() == start { '[' } else { ',' });
        out.push('{');
        fill(out, item);
        out.push('}');
    }
    out.push_str(if out.len() == start { "null" } else { "]" });
}

/// Appends the members that topics and channels have. Nothing in a name needs escaping.
fn push_named(out: &mut String, name: &str, paused: bool) {
    let _ = write!(out, "\"name\":\"{name}\",\"paused\":{paused}");
}

/// A member of an object, if it is there and not `null`; `null` is an object without any.
fn member<'a>(value: &'a Value, key: &str) -> Result<Option<&'a Value>, MetadataError> {
    match value {
        Value::Null => Ok(None),
        Value::Object(members) => Ok(members
            .iter()
            .filter(|(name, value)| name.eq_ignore_ascii_case(key) && !value.is_null())
            .map(|(_, value)| value)
            .next_back()),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(wrong(value, "an object"))
        }
    }
}

fn list<'a>(value: Option<&'a Value>, key: &str) -> Result<&'a [Value], MetadataError> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(value) => Err(wrong(value, key)),
    }
}

fn named(value: &Value) -> Result<(&str, bool), MetadataError> {
    let name = match member(value, "name")? {
        None => "",
        Some(Value::String(name)) => name,
        Some(value) => return Err(wrong(value, "name")),
    };
    let paused = match member(value, "paused")? {
        None => false,
        Some(Value::Bool(paused)) => *paused,
        Some(value) => return Err(wrong(value, "paused")),
    };
    Ok((name, paused))
}

fn wrong(value: &Value, place: &str) -> MetadataError {
    let kind = match value {
        Value::Array(_) => "array",
        Value::Bool(_) => "bool",
        Value::Null => "null",
        Value::Number(_) => "number",
        Value::Object(_) => "object",
        Value::String(_) => "string",
    };
    MetadataError(alloc::format!("json: cannot unmarshal {kind} into {place}"))
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
