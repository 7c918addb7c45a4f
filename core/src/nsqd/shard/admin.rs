//! The admin API: what is carried out here, what goes to a topic's home, what all shards answer
//! together.

use alloc::boxed::Box;

use super::Shard;
use super::precreate::Creator;
use crate::arena::TopicId;
use crate::name::{ChannelName, TopicName};
use crate::nsqd::actions::Actions;
use crate::nsqd::admin::{AdminError, AdminReply, AdminRequest, ChannelOp, Info, TopicOp};
use crate::nsqd::ids::{ReplyToken, ShardId};
use crate::nsqd::publish::{Origin, Publish};
use crate::nsqd::registry::Announcement;
use crate::nsqd::shard_message::{Collector, ShardMessage};
use crate::time::Now;
use crate::version::NSQ_VERSION;

impl Shard {
    /// Carries out an admin request. Any shard can be asked; the reply comes in
    /// [`Actions::replies`](Actions) of the same shard, now or later, under `token`.
    pub fn handle_admin(
        &mut self,
        request: AdminRequest,
        token: ReplyToken,
        now: Now,
        out: &mut Actions,
    ) {
        match request {
            AdminRequest::Publish { topic, batch, delay } => {
                let origin = Origin::Admin { shard: self.id, token };
                self.route_publish(Publish { origin, topic, batch, delay }, now, out);
            }
            AdminRequest::Topic(topic, _) | AdminRequest::Channel(topic, _, _)
                if topic.home(self.shards) != self.id.0 =>
            {
                let home = ShardId(topic.home(self.shards));
                out.tell(home, ShardMessage::Admin { from: self.id, token, request });
            }
            AdminRequest::Lookupds(_) if self.clerk.is_none() => {
                out.tell(ShardId(0), ShardMessage::Admin { from: self.id, token, request });
            }
            AdminRequest::Ping => self.collect(None, Collector::Admin(token), now, out),
            AdminRequest::Stats(filter) => {
                self.collect(Some(filter), Collector::Admin(token), now, out);
            }
            AdminRequest::Info
            | AdminRequest::Lookupds(_)
            | AdminRequest::Topic(..)
            | AdminRequest::Channel(..) => {
                let reply = self.carry_out(&request, now, out);
                self.answer_admin(&request, reply, self.id, token, out);
            }
        }
        self.settle_all(now, out);
    }

    /// Carries out a request that concerns this shard alone.
    pub(super) fn carry_out(
        &mut self,
        request: &AdminRequest,
        now: Now,
        out: &mut Actions,
    ) -> AdminReply {
        let result = match request {
            AdminRequest::Topic(topic, op) => self.topic_op(*topic, *op, now, out),
            AdminRequest::Channel(topic, channel, op) => {
                self.channel_op(topic, *channel, *op, now, out)
            }
            AdminRequest::Lookupds(addresses) => self.set_lookupds(addresses, now, out),
            AdminRequest::Info => return AdminReply::Info(Box::new(self.info())),
            AdminRequest::Ping => return AdminReply::Health(self.failure().map_or(Ok(()), Err)),
            AdminRequest::Stats(filter) => {
                return AdminReply::Stats(Box::new(self.stats(filter, now)));
            }
            AdminRequest::Publish { .. } => Err(AdminError::Exiting),
        };
        result.map_or_else(AdminReply::Refused, |()| AdminReply::Done)
    }

    /// Answers a request that was carried out. A pause is answered when it will survive a crash,
    /// and who makes a topic when it has its channels.
    pub(super) fn answer_admin(
        &mut self,
        request: &AdminRequest,
        reply: AdminReply,
        from: ShardId,
        token: ReplyToken,
        out: &mut Actions,
    ) {
        if let AdminRequest::Topic(name, TopicOp::Create) = request
            && let Some(&id) = self.topic_names.get(name)
            && self.keep_creator(id, Creator::Admin(from, token))
        {
            return;
        }
        let is_pause = matches!(
            request,
            AdminRequest::Topic(_, TopicOp::Pause | TopicOp::Unpause)
                | AdminRequest::Channel(_, _, ChannelOp::Pause | ChannelOp::Unpause)
        );
        if !is_pause || reply != AdminReply::Done {
            self.reply_to(from, token, reply, out);
        } else {
            self.persist(from, token, out);
        }
    }

    /// Answers a request that `from` was asked.
    pub(super) fn reply_to(
        &self,
        from: ShardId,
        token: ReplyToken,
        reply: AdminReply,
        out: &mut Actions,
    ) {
        if from == self.id {
            out.replies.push((token, reply));
        } else {
            out.tell(from, ShardMessage::AdminDone { token, reply });
        }
    }

    fn topic_op(
        &mut self,
        name: TopicName,
        op: TopicOp,
        now: Now,
        out: &mut Actions,
    ) -> Result<(), AdminError> {
        if op == TopicOp::Create {
            return self.topic(name, now, out).map(|_| ()).map_err(AdminError::TooMany);
        }
        let id = self.find_topic(&name)?;
        match op {
            TopicOp::Create => {}
            TopicOp::Delete => self.delete_topic(id, now, out),
            TopicOp::Empty => {
                self.on_topic(id, now, out, |topic, ids, now, out| {
                    topic.empty(now, out);
                    topic.pump(now, ids, out);
                });
            }
            TopicOp::Pause | TopicOp::Unpause => {
                let paused = op == TopicOp::Pause;
                self.on_topic(id, now, out, |topic, ids, now, out| {
                    topic.set_paused(paused);
                    topic.pump(now, ids, out);
                });
                self.announce(Announcement::TopicPaused(name, paused), now, out);
            }
        }
        Ok(())
    }

    fn channel_op(
        &mut self,
        topic: &TopicName,
        name: ChannelName,
        op: ChannelOp,
        now: Now,
        out: &mut Actions,
    ) -> Result<(), AdminError> {
        let topic_id = self.find_topic(topic)?;
        if op == ChannelOp::Create {
            let made = self.channel(topic_id, name, now, out);
            return made.map(|_| ()).map_err(AdminError::TooMany);
        }
        let found = self.find_channel(topic_id, &name);
        let id = found.map_err(|_| AdminError::ChannelNotFound)?;
        match op {
            ChannelOp::Create => {}
            ChannelOp::Delete => self.delete_channel(id, now, out),
            ChannelOp::Empty => {
                self.on_channel(id, now, out, |channel, now, out| channel.empty(now, out));
            }
            ChannelOp::Pause | ChannelOp::Unpause => {
                let paused = op == ChannelOp::Pause;
                self.on_channel(id, now, out, |channel, now, out| {
                    channel.set_paused(paused, now, out);
                });
                self.announce(Announcement::ChannelPaused(*topic, name, paused), now, out);
            }
        }
        Ok(())
    }

    fn find_topic(&self, name: &TopicName) -> Result<TopicId, AdminError> {
        self.topic_names.get(name).copied().ok_or(AdminError::TopicNotFound)
    }

    fn info(&self) -> Info {
        let config = &self.config;
        Info {
            version: NSQ_VERSION,
            broadcast_address: config.broadcast_address.clone(),
            hostname: config.hostname.clone(),
            http_port: config.http_port,
            tcp_port: config.tcp_port,
            start_time: config.start_time,
            max_heartbeat_interval: config.max_heartbeat_interval,
            max_output_buffer_size: config.max_output_buffer_size,
            max_output_buffer_timeout: config.max_output_buffer_timeout,
            max_deflate_level: config.max_deflate_level,
            topology_zone: config.topology_zone.clone(),
            topology_region: config.topology_region.clone(),
        }
    }
}
