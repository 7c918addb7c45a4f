//! `nsqd.dat`: which topics and channels there are, and which are paused (storage-formats.md section 3).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::name::{ChannelName, TopicName};
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

impl Metadata {
    /// The file's contents, as the reference writes them: one line without a line break; what is empty
    /// is `null`.
    pub fn to_json(&self) -> String {
        let mut json = String::from("{\"topics\":");
        push_list(&mut json, &self.topics, |json, topic| {
            let _ = write!(json, "{{\"name\":\"{}\",\"paused\":{}", topic.name, topic.paused);
            json.push_str(",\"channels\":");
            push_list(json, &topic.channels, |json, channel| {
                let ChannelRecord { name, paused } = channel;
                let _ = write!(json, "{{\"name\":\"{name}\",\"paused\":{paused}}}");
            });
            json.push('}');
        });
        let _ = write!(json, ",\"version\":\"{NSQ_VERSION}\"}}");
        json
    }
}

fn push_list<T>(json: &mut String, items: &[T], push: impl Fn(&mut String, &T)) {
    if items.is_empty() {
        return json.push_str("null");
    }
    for (at, item) in items.iter().enumerate() {
        json.push(if at == 0 { '[' } else { ',' });
        push(json, item);
    }
    json.push(']');
}
