//! The commands of a client (nsqd-protocol.md section 7).

use alloc::boxed::Box;
use core::time::Duration;

use bytes::{Buf, BytesMut};

use super::Shard;
use super::precreate::Creator;
use crate::arena::ConnId;
use crate::message::MessageId;
use crate::name::TopicName;
use crate::nsqd::actions::Actions;
use crate::nsqd::channel::TooManyConsumers;
use crate::nsqd::connection::{Connection, Reply};
use crate::nsqd::ids::ShardId;
use crate::nsqd::in_flight::NotInFlight;
use crate::nsqd::publish::{Batch, NotPublished, Origin, Publish, PublishKind, TooMany};
use crate::nsqd::shard_message::ShardMessage;
use crate::protocol::command::{ClientState, Command, FIN_LEN, RawId, finishes};
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::time::Now;

impl Shard {
    pub(super) fn execute(&mut self, conn: ConnId, command: Command, now: Now, out: &mut Actions) {
        let Some(command) = self.authorize(conn, command, now, out) else { return };
        match command {
            Command::Fin(id) => {
                let result = self.answer(conn, id, now, out, MessageAnswer::Finish);
                self.tell_failure(conn, "FIN", ErrorCode::FinFailed, id, result, now, out);
            }
            Command::Pub { topic, body } => {
                let (batch, kind) = (Batch::One(body), PublishKind::Pub);
                self.publish(conn, topic, batch, Duration::ZERO, kind, now, out);
            }
            Command::Mpub { topic, bodies } => {
                let (batch, kind) = (Batch::Many(bodies), PublishKind::Mpub);
                self.publish(conn, topic, batch, Duration::ZERO, kind, now, out);
            }
            Command::Dpub { topic, delay, body } => {
                let (batch, kind) = (Batch::One(body), PublishKind::Dpub);
                self.publish(conn, topic, batch, delay, kind, now, out);
            }
            Command::Rdy(count) => self.ready(conn, count, now, out),
            Command::Req { id, delay } => {
                let result = self.answer(conn, id, now, out, MessageAnswer::Requeue(delay));
                self.tell_failure(conn, "REQ", ErrorCode::ReqFailed, id, result, now, out);
            }
            Command::Touch(id) => {
                let result = self.answer(conn, id, now, out, MessageAnswer::Touch);
                self.tell_failure(conn, "TOUCH", ErrorCode::TouchFailed, id, result, now, out);
            }
            Command::MpubLine(_) | Command::Nop => {}
            Command::Cls => {
                self.ready(conn, 0, now, out);
                if let Some(connection) = self.clients.conns.get_mut(conn) {
                    connection.state = ClientState::Closing;
                    connection.respond(Reply::CloseWait, now, out);
                }
            }
            Command::Sub { topic, channel } => {
                if let Some(connection) = self.clients.conns.get_mut(conn) {
                    connection.subscribing = Some(Box::new((topic, channel)));
                }
                self.try_subscribe(conn, now, out);
            }
            Command::Identify(body) => {
                if let Some(connection) = self.clients.conns.get_mut(conn)
                    && let Err(error) = connection.identify(&body, &self.config, now, out)
                {
                    connection.refuse(error, now, out);
                }
            }
            Command::Auth(secret) => self.authenticate(conn, secret, now, out),
        }
    }

    /// Carries out the FINs that `input` begins with, all at once, and takes them out. Those that
    /// are to be refused are left for [`execute`](Self::execute).
    pub(super) fn take_finishes(
        &mut self,
        conn: ConnId,
        input: &mut BytesMut,
        now: Now,
        out: &mut Actions,
    ) {
        let subscription = self.clients.conns.get(conn).and_then(Connection::finishes_on);
        let Some((channel, consumer)) = subscription else { return };
        let mut ids = finishes(input).peekable();
        if ids.peek().is_none() {
            return;
        }
        let finished = self.on_channel(channel, now, out, |channel, now, out| {
            channel.finish_all(consumer, ids, now, out)
        });
        input.advance(finished.unwrap_or(0) * FIN_LEN);
        if let Some(connection) = self.clients.conns.get_mut(conn) {
            connection.restart_read_deadline(now);
        }
    }

    /// Carries out a SUB once the answers before it are out: here if this is the topic's home, else
    /// the connection moves there first.
    pub(super) fn try_subscribe(&mut self, conn: ConnId, now: Now, out: &mut Actions) {
        let Some(connection) = self.clients.conns.get_mut(conn) else { return };
        let Some((topic, channel)) = connection.subscribing.as_deref().copied() else { return };
        if !connection.is_open() || connection.has_open_replies() || connection.moving {
            return;
        }
        let home = ShardId(topic.home(self.shards));
        if home != self.id {
            if !connection.owes() {
                connection.moving = true;
                out.rehome.push((conn, home));
            }
            return;
        }
        let creator = Creator::Client(conn);
        if connection.subscription.is_some() {
            // It has joined, and waits for the answer.
            if self.topic_names.get(&topic).is_some_and(|id| self.is_kept(*id, creator)) {
                return;
            }
            return self.end_subscribe(conn, Ok(()), now, out);
        }
        let (settings, nearness) = (connection.delivery_settings(), connection.nearness);
        let is_new = !self.topic_names.contains_key(&topic);
        let topic_id = match self.topic(topic, now, out) {
            Ok(id) => id,
            Err(why) => return self.end_subscribe(conn, Err(sub_failed(why)), now, out),
        };
        let channel_id = match self.channel(topic_id, channel, now, out) {
            Ok(Some(id)) => id,
            Ok(None) => return,
            Err(why) => return self.end_subscribe(conn, Err(sub_failed(why)), now, out),
        };
        let joined = self.on_channel(channel_id, now, out, |channel, _, _| {
            let consumer = channel.subscribe(conn, settings.msg_timeout, settings.sample_rate)?;
            channel.set_nearness(consumer, nearness);
            Ok(consumer)
        });
        let result = match joined {
            Some(Ok(consumer)) => {
                if let Some(connection) = self.clients.conns.get_mut(conn) {
                    connection.subscribed(channel_id, consumer);
                }
                if is_new && self.keep_creator(topic_id, creator) {
                    return;
                }
                Ok(())
            }
            Some(Err(TooManyConsumers)) => {
                let limit = self.config.max_channel_consumers;
                let text = alloc::format!(
                    "SUB failed consumers for {topic}:{channel} exceeds limit of {limit}"
                );
                Err(ProtocolError::new(ErrorCode::SubFailed, text))
            }
            None => Err(ProtocolError::new(ErrorCode::SubFailed, *b"SUB failed exiting")),
        };
        self.end_subscribe(conn, result, now, out);
    }

    /// Answers a SUB, and goes on with the commands behind it.
    fn end_subscribe(
        &mut self,
        conn: ConnId,
        result: Result<(), ProtocolError>,
        now: Now,
        out: &mut Actions,
    ) {
        let Some(connection) = self.clients.conns.get_mut(conn) else { return };
        connection.subscribing = None;
        match result {
            Ok(()) => connection.respond(Reply::Ok, now, out),
            Err(error) => connection.refuse(error, now, out),
        }
        connection.resume(out);
    }

    /// A connection that is no longer in the table leaves its channel.
    pub(super) fn leave(&mut self, connection: &mut Connection, now: Now, out: &mut Actions) {
        if let Some((channel, consumer)) = connection.subscription.take() {
            self.unsubscribe(channel, consumer, now, out);
        }
    }

    /// Publishes to a topic of this shard, or sends it to the topic's home.
    pub(super) fn route_publish(&mut self, publish: Publish, now: Now, out: &mut Actions) {
        let home = ShardId(publish.topic.home(self.shards));
        if home != self.id {
            return out.tell(home, ShardMessage::Publish(publish));
        }
        if self.life.is_stopping() {
            let origin = publish.origin;
            return self.refuse(origin, NotPublished::Exiting, now, out);
        }
        let topic = match self.topic(publish.topic, now, out) {
            Ok(topic) => topic,
            Err(why) => {
                return self.refuse(publish.origin, NotPublished::TooMany(why), now, out);
            }
        };
        self.on_topic(topic, now, out, |topic, ids, now, out| {
            topic.publish(publish, now, ids, out)
        });
    }

    /// Makes a topic that a refused command creates.
    pub(super) fn create_topic(&mut self, topic: TopicName, now: Now, out: &mut Actions) {
        let home = ShardId(topic.home(self.shards));
        if home == self.id {
            // The command is refused in any case.
            let _ = self.topic(topic, now, out);
        } else {
            out.tell(home, ShardMessage::CreateTopic(topic));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one publish, spelt out at its three callers")]
    fn publish(
        &mut self,
        conn: ConnId,
        topic: TopicName,
        batch: Batch,
        delay: Duration,
        kind: PublishKind,
        now: Now,
        out: &mut Actions,
    ) {
        let Some(connection) = self.clients.conns.get_mut(conn) else { return };
        let slot = connection.begin_publish(&topic, batch.len());
        // The limits of commands have 31 bits.
        let len = u32::try_from(batch.byte_len()).unwrap_or(u32::MAX);
        self.clients.room.take(connection, len as usize);
        let origin = Origin::Client { shard: self.id, conn, slot, kind, len };
        self.route_publish(Publish { origin, topic, batch, delay }, now, out);
    }

    fn ready(&mut self, conn: ConnId, count: u32, now: Now, out: &mut Actions) {
        if let Some((channel, consumer)) =
            self.clients.conns.get(conn).and_then(|conn| conn.subscription)
        {
            self.on_channel(channel, now, out, |channel, now, out| {
                channel.ready(consumer, count, now, out);
            });
        }
    }

    /// FIN, REQ or TOUCH.
    fn answer(
        &mut self,
        conn: ConnId,
        id: RawId,
        now: Now,
        out: &mut Actions,
        answer: MessageAnswer,
    ) -> Result<(), NotInFlight> {
        let connection = self.clients.conns.get(conn).ok_or(NotInFlight::Unknown)?;
        let (channel, consumer) = connection.subscription.ok_or(NotInFlight::Unknown)?;
        let id = MessageId::parse(&id).ok_or(NotInFlight::Unknown)?;
        let timeout = connection.settings.msg_timeout;
        self.on_channel(channel, now, out, |channel, now, out| match answer {
            MessageAnswer::Finish => channel.finish(consumer, id, now, out),
            MessageAnswer::Requeue(delay) => channel.requeue(consumer, id, delay, now, out),
            MessageAnswer::Touch => channel.touch(consumer, id, timeout, now),
        })
        .unwrap_or(Err(NotInFlight::Unknown))
    }

    #[expect(clippy::too_many_arguments, reason = "one refusal, spelt out at its three callers")]
    fn tell_failure(
        &mut self,
        conn: ConnId,
        command: &str,
        code: ErrorCode,
        id: RawId,
        result: Result<(), NotInFlight>,
        now: Now,
        out: &mut Actions,
    ) {
        if let Err(why) = result
            && let Some(connection) = self.clients.conns.get_mut(conn)
        {
            let parts = [command.as_bytes(), b" ", &id, b" failed ", why.as_str().as_bytes()];
            connection.refuse(ProtocolError::quote(code, &parts), now, out);
        }
    }
}

fn sub_failed(why: TooMany) -> ProtocolError {
    ProtocolError::new(ErrorCode::SubFailed, alloc::format!("SUB failed {why}"))
}

/// What a consumer says about a message.
#[derive(Clone, Copy, Debug)]
enum MessageAnswer {
    Finish,
    Requeue(Duration),
    Touch,
}
