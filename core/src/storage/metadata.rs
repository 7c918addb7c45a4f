//! `nsqd.dat`: which topics and channels there are, and which are paused (storage-formats.md section 3).

use alloc::vec::Vec;

use crate::name::{ChannelName, TopicName};

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
