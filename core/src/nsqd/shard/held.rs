//! What a shard holds, beside the limits: for drivers that want to know whether these are kept.

use super::Shard;
use crate::nsqd::backlog::Backlog;

/// The most that any one connection, topic or channel of a shard holds of each kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// Unanswered commands of a connection; limit
    /// [`PENDING_REPLIES_MAX`](crate::nsqd::config::PENDING_REPLIES_MAX).
    pub replies: usize,
    /// Bytes of publishes of a connection that are not answered; limit two bodies
    /// ([`Config::body_len_max`](crate::nsqd::Config::body_len_max)).
    pub unanswered_len: usize,
    /// Bytes that all connections have unanswered, bodies that are half there included; limit
    /// [`room_len_max`](Shard::room_len_max).
    pub room_len: usize,
    /// Messages in the memory of a topic or channel that were never delivered; limit
    /// [`mem_queue_size`](crate::nsqd::Config::mem_queue_size), at least 1 without a disk, and one
    /// batch less one message, and those whose delay is over.
    pub fresh: usize,
    /// Due times that are kept for messages on disk; limit
    /// [`DUE_TIMES_MAX`](crate::nsqd::DUE_TIMES_MAX).
    pub due_times: usize,
    /// Messages of a queue that are not written yet; limit
    /// [`PENDING_MAX`](crate::storage::PENDING_MAX) and one batch less one message.
    pub unwritten: usize,
    /// Bytes of such messages; limit [`PENDING_LEN_MAX`](crate::storage::PENDING_LEN_MAX) and one
    /// batch.
    pub unwritten_len: u64,
    /// Bytes that were read ahead of a queue; limit
    /// [`STAGED_LEN_MAX`](crate::storage::STAGED_LEN_MAX), unless it is one record.
    pub read_ahead_len: usize,
    /// HTTP requests of the shard that are under way; limit
    /// [`CALLS_MAX`](crate::nsqd::config::CALLS_MAX).
    pub calls: usize,
    /// Topics; limit [`max_topics`](crate::nsqd::Config::max_topics) over all shards, and those of
    /// the start.
    pub topics: usize,
    /// Channels of a topic; limit
    /// [`max_channels_per_topic`](crate::nsqd::Config::max_channels_per_topic), and those of the
    /// start.
    pub channels: usize,
}

impl Shard {
    /// What it holds just now. Looks at everything that there is, so it is not for every turn.
    pub fn held(&self) -> Held {
        let (calls, room_len) = (self.calls.under_way(), self.clients.room.held());
        let mut held = Held { calls, room_len, topics: self.topics.len(), ..Held::default() };
        for (_, conn) in self.clients.conns.iter() {
            held.replies = held.replies.max(conn.open_replies());
            held.unanswered_len = held.unanswered_len.max(conn.share.unanswered);
        }
        for (_, entry) in self.topics.iter() {
            held.add(entry.topic.backlog());
            held.channels = held.channels.max(entry.topic.channels().len());
        }
        self.channels.iter().for_each(|(_, entry)| held.add(entry.channel.backlog()));
        held
    }

    /// The limit of [`Held::room_len`], in bytes: the shard's room, and the allowance and what is
    /// read at a time of as many connections as there were.
    pub fn room_len_max(&self) -> usize {
        self.clients.room.len_max()
    }
}

impl Held {
    fn add(&mut self, backlog: &Backlog) {
        self.fresh = self.fresh.max(backlog.fresh());
        self.due_times = self.due_times.max(backlog.deferred());
        if let Some(disk) = backlog.disk_held() {
            self.unwritten = self.unwritten.max(disk.unwritten);
            self.unwritten_len = self.unwritten_len.max(disk.unwritten_len);
            self.read_ahead_len = self.read_ahead_len.max(disk.read_ahead_len);
        }
    }
}
