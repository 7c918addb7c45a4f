//! What other shards say.

use alloc::vec::Vec;

use super::Shard;
use crate::nsqd::actions::Actions;
use crate::nsqd::shard_message::ShardMessage;
use crate::time::Now;

impl Shard {
    /// Takes a batch from another shard, and leaves it empty.
    pub fn handle_shard(&mut self, batch: &mut Vec<ShardMessage>, now: Now, out: &mut Actions) {
        for message in batch.drain(..) {
            self.handle_message(message, now, out);
            self.settle_all(now, out);
        }
    }

    fn handle_message(&mut self, message: ShardMessage, now: Now, out: &mut Actions) {
        match message {
            ShardMessage::Publish(publish) => self.route_publish(publish, now, out),
            ShardMessage::Published { conn, slot, len, result } => {
                self.clients.published(conn, slot, len, result, now, out);
            }
            ShardMessage::CreateTopic(topic) => self.create_topic(topic, now, out),
            ShardMessage::Admin { from, token, request } => {
                let reply = self.carry_out(&request, now, out);
                self.answer_admin(&request, reply, from, token, out);
            }
            ShardMessage::AdminDone { token, reply } => out.replies.push((token, reply)),
            ShardMessage::Collect { from, collector, filter } => {
                let part = alloc::boxed::Box::new(self.part(filter.as_ref(), now));
                out.tell(from, ShardMessage::Collected { collector, part });
            }
            ShardMessage::Collected { collector, part } => {
                self.collected(collector, *part, now, out);
            }
            ShardMessage::Lookupds(lookupds) => self.set_known_lookupds(lookupds, now, out),
            ShardMessage::Topics { from, topics } => self.limits.note(from, topics),
            ShardMessage::Persist { from, token } => self.persist(from, token, out),
            ShardMessage::Flushing => self.shard_flushed(now),
            ShardMessage::Announce(announcement) => self.announce(announcement, now, out),
        }
    }
}
