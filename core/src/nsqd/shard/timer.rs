//! What a shard's deadlines are about.

use crate::arena::{ChannelId, ConnId, TopicId};

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    Channel(ChannelId),
    Conn(ConnId),
    Ending,
    Clerk,
    Room,
    Topic(TopicId),
}
