//! nsqd: topics, channels, and the connections around them.

pub mod lookup_peer;
