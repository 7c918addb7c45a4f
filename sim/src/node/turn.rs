//! A shard's turn: what it is given, what the judges see of it, and what it asks for.

use bytes::Bytes;
use sansq_core::arena::ConnId;
use sansq_core::client::frame::Frame;
use sansq_core::machine::{Machine, MachineActions, ReadState};
use sansq_core::nsqd::config::{OWED_LEN_MAX, REPLIES_OWED_MAX};
use sansq_core::nsqd::http::Memory;
use sansq_core::nsqd::{Actions, Close, Event, Shard, StatsdAction};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

use super::{Home, Node, server};
use crate::env::Env;
use crate::events::{DeadlineOwner, WorldEvent};
use crate::limits;
use crate::model::ChannelKey;
use crate::net::LinkId;
use crate::oracles::{Observation, Violation};
use crate::tap::Heard;
use crate::trace::digest;

impl Node {
    /// Calls a shard and carries out what it asks for.
    pub(super) fn turn(
        &mut self,
        shard: usize,
        env: &mut Env,
        call: impl FnOnce(&mut Shard, Now, &mut Actions),
    ) {
        let seat = &mut self.shards[shard];
        call(&mut seat.shard, env.now_ahead(self.clock_ahead), &mut seat.actions);
        self.settle(shard, env);
    }

    /// Carries out what a shard asks for, until there is nothing more, and arms its timer.
    pub(super) fn settle(&mut self, shard: usize, env: &mut Env) {
        self.work[shard].turns += 1;
        loop {
            let seat = &mut self.shards[shard];
            if seat.actions.is_empty() {
                // Commands without any consequence to carry out have not failed.
                self.commit_pending(env);
                match self.unfed.pop_front() {
                    Some(link) => self.input(link, env),
                    None => break,
                }
                continue;
            }
            let actions = core::mem::take(&mut self.shards[shard].actions);
            self.look(shard, &actions, env);
            self.carry_out(shard, actions, env);
        }
        let (seat, node) = (&mut self.shards[shard], self.index);
        let deadline = seat.shard.poll_timeout();
        seat.alarm.arm(DeadlineOwner::Shard { node, shard }, deadline, env.now, &mut env.queue);
    }

    /// Takes what the turn sends, and shows the judges what it did, in the order that they expect.
    pub(super) fn look(&mut self, shard: usize, actions: &Actions, env: &mut Env) {
        for event in &actions.events {
            env.line(format_args!("  nsqd {}.{shard}: {event}", self.index));
        }
        let mut sent = Vec::new();
        for conn in &actions.transmit {
            let Some(link) = self.by_conn.get(&(shard, *conn)).copied() else { continue };
            let Some(socket) = self.sockets.get_mut(&link) else { continue };
            let bytes = swap_out(&mut self.shards[shard].shard, *conn);
            env.line(format_args!(
                "  link {} is sent {} bytes {:x}",
                link.0,
                bytes.len(),
                digest(&bytes)
            ));
            if socket.closing && !bytes.is_empty() {
                let text = format!("link {} is sent something after its close", link.0);
                env.judge(Err(Violation::Other(text)));
            }
            socket.outbox.extend_from_slice(&bytes);
            if socket.outbox.len() > OWED_MAX {
                let text = format!("link {} is owed {} bytes", link.0, socket.outbox.len());
                env.judge(Err(Violation::Other(text)));
            }
            match socket.tap.sent(&bytes) {
                Ok(frames) => sent.extend(frames.into_iter().map(|frame| (link, frame))),
                Err(error) => {
                    let text = format!("link {} is sent no frames: {error}", link.0);
                    env.judge(Err(Violation::Other(text)));
                }
            }
        }
        let mut left = Vec::new();
        for (link, frame) in &sent {
            if let Frame::Error(text) = frame
                && self.failed(*link, text, env)
            {
                left.push(*link);
            }
        }
        self.commit_pending(env);
        let closed = actions.close.iter().map(|(conn, _)| (shard, *conn));
        left.extend(closed.filter_map(|key| self.by_conn.get(&key).copied()));
        for link in &left {
            env.observe(Observation::Leaving(*link));
        }
        for event in &actions.events {
            if let Event::TopicDeleted(topic) = event {
                env.observe(Observation::TopicDeleted { node: self.index, topic: *topic });
            }
            if let Event::ChannelDeleted(topic, channel) = event
                && !channel.is_ephemeral()
            {
                let place = ChannelKey { node: self.index, topic: *topic, channel: *channel };
                env.observe(Observation::ChannelDeleted(place));
            }
            if let Event::ChannelCreated(topic, channel) = event
                && !env.oracles.knows_channel(self.index, topic, channel)
            {
                let place = ChannelKey { node: self.index, topic: *topic, channel: *channel };
                env.observe(Observation::ChannelCreated(place));
            }
        }
        let message = |(link, frame)| match frame {
            Frame::Message(message) => Some((link, message)),
            Frame::Response(_) | Frame::Error(_) => None,
        };
        let mut messages: Vec<_> = sent.into_iter().filter_map(message).collect();
        // Of one message that is sent twice in a turn, the first delivery comes first.
        messages.sort_by_key(|(_, message)| message.attempts);
        for (link, message) in messages {
            let (id, attempts, body) = (message.id, message.attempts, message.body);
            env.observe(Observation::Delivered { link, id, attempts, body });
        }
        for link in left {
            env.observe(Observation::Left(link));
        }
    }

    /// A client is refused: the command did not count. Returns whether the connection ends.
    pub(super) fn failed(&mut self, link: LinkId, text: &Bytes, env: &mut Env) -> bool {
        let text = String::from_utf8_lossy(text);
        let words: Vec<_> = text.split(' ').collect();
        let id = words.get(2).and_then(|id| <[u8; 16]>::try_from(id.as_bytes()).ok());
        let is_it = |(at, heard): &(LinkId, Heard)| {
            *at == link
                && match (words[0], heard) {
                    ("E_FIN_FAILED", Heard::Finish(other))
                    | ("E_REQ_FAILED", Heard::Requeue(other, _))
                    | ("E_TOUCH_FAILED", Heard::Touch(other)) => Some(*other) == id,
                    _ => false,
                }
        };
        if let Some(at) = self.pending.iter().rposition(is_it) {
            self.pending.remove(at);
            return false;
        }
        // Publishers may be refused for want of memory, everybody at a limit, and a client whose
        // connection ends in the middle of a command is told so; nothing else befits clients that
        // keep to the protocol.
        let is_publish = matches!(words[0], "E_PUB_FAILED" | "E_MPUB_FAILED" | "E_DPUB_FAILED");
        let expected = is_publish && !text.contains("limit is")
            || limits::explains(&self.config, &text)
            || text.contains("failed to read")
            || !self.sockets.get(&link).is_none_or(|socket| socket.is_polite);
        if !expected {
            env.judge(Err(Violation::Other(format!("link {} was refused: {text}", link.0))));
        }
        true
    }

    /// The commands of this turn that were not refused have been acted on.
    pub(super) fn commit_pending(&mut self, env: &mut Env) {
        for (link, heard) in core::mem::take(&mut self.pending) {
            env.observe(match heard {
                Heard::Publish(topic, mut messages) => {
                    messages.retain(|message| env.oracles.is_anywhere(*message));
                    if messages.is_empty() {
                        continue;
                    }
                    Observation::Reached { node: self.index, topic, messages }
                }
                Heard::Finish(id) => Observation::Finished { link, id },
                Heard::Ready(count) => Observation::Ready { link, count },
                Heard::Requeue(id, delay) => {
                    let delay = delay.min(self.config.max_req_timeout);
                    Observation::Requeued { link, id, delay }
                }
                Heard::Subscribe(topic, channel) => {
                    let (node, msg_timeout) = (self.index, self.config.msg_timeout);
                    let place = ChannelKey { node, topic, channel };
                    Observation::Subscribed { link, place, msg_timeout }
                }
                Heard::Touch(id) => Observation::Touched { link, id },
            });
        }
    }

    pub(super) fn carry_out(&mut self, shard: usize, actions: Actions, env: &mut Env) {
        // Events are in the trace already.
        let Actions {
            events: _,
            transmit,
            close,
            rehome,
            resume,
            lanes,
            peers,
            calls,
            statsd,
            replies,
            storage,
        } = actions;
        for conn in transmit {
            if let Some(link) = self.by_conn.get(&(shard, conn)).copied() {
                self.flush(link, env);
            }
        }
        for (conn, how) in close {
            let Some(link) = self.by_conn.get(&(shard, conn)).copied() else { continue };
            match how {
                Close::AfterSending => {
                    if let Some(socket) = self.sockets.get_mut(&link) {
                        (socket.closing, socket.stopped) = (true, true);
                        env.net.set_wanted(server(link), true, env.now, &mut env.queue);
                    }
                    self.flush(link, env);
                }
                Close::Now => {
                    env.net.reset(server(link), env.now, &mut env.queue);
                    self.gone(link, env);
                }
            }
        }
        for (conn, home) in rehome {
            self.rehome(shard, conn, usize::from(home.0), env);
        }
        for conn in resume {
            if let Some(link) = self.by_conn.get(&(shard, conn)).copied() {
                self.input(link, env);
            }
        }
        for (to, batch) in lanes.into_iter().enumerate() {
            if batch.is_empty() {
                continue;
            }
            let delay = env.lane_delay();
            self.work[shard].hand_overs += batch.len() as u64;
            self.work[shard].batches += 1;
            let lane = &mut self.lanes[shard * self.shards.len() + to];
            lane.arrives_at = lane.arrives_at.max(env.now.instant + delay);
            lane.batches.push_back(batch);
            let event = WorldEvent::Lane { node: self.index, from: shard, to };
            env.queue.push(lane.arrives_at, event);
        }
        for (peer, action) in peers {
            self.peer_action(peer, action, env);
        }
        self.calls.extend(calls.into_iter().map(|(id, call)| (shard, id, call)));
        for action in statsd {
            // Nobody listens here, and there is nothing to measure.
            if action == StatsdAction::Measure {
                let seat = &mut self.shards[shard];
                seat.shard.handle_memory(
                    Memory::default(),
                    env.now_ahead(self.clock_ahead),
                    &mut seat.actions,
                );
            }
        }
        for request in storage {
            self.disk.submit(shard, request, env);
        }
        self.replies.extend(replies);
    }

    pub(super) fn rehome(&mut self, shard: usize, conn: ConnId, to: usize, env: &mut Env) {
        let Some(link) = self.by_conn.remove(&(shard, conn)) else { return };
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        if !socket.outbox.is_empty() {
            let text = format!("link {} moves while bytes are owed to it", link.0);
            env.judge(Err(Violation::Other(text)));
        }
        let Some(detached) = self.shards[shard].shard.detach(conn) else { return };
        socket.home = Home::Moving(detached);
        let at = env.now.instant + env.lane_delay();
        env.queue.push(at, WorldEvent::Moved { node: self.index, link, shard: to });
    }

    /// Gives the shard what there is of a client's bytes: of a consumer's one command at a time, so
    /// that the judges know what came before what, of others' all. Its actions are carried out by
    /// the caller, who comes back here for the rest.
    pub(super) fn input(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let Home::At(shard, conn) = socket.home else { return };
        if socket.stopped {
            return socket.backlog.clear();
        }
        let piece = socket.backlog.split_to(socket.tap.piece_len(&socket.backlog));
        socket.tap.give(&piece);
        socket.input.extend_from_slice(&piece);
        let seat = &mut self.shards[shard];
        let out = &mut seat.actions;
        let state =
            seat.shard.handle_input(conn, &mut socket.input, env.now_ahead(self.clock_ahead), out);
        let heard = socket.tap.take(socket.input.len());
        self.pending.extend(heard.into_iter().map(|heard| (link, heard)));
        let wanted = match state {
            ReadState::More(least) => {
                if least == 0 {
                    let text = format!("link {} should read nothing and go on", link.0);
                    env.judge(Err(Violation::Other(text)));
                }
                true
            }
            ReadState::Wait => false,
            ReadState::Stop => {
                socket.stopped = true;
                socket.input.clear();
                socket.backlog.clear();
                true
            }
        };
        if wanted && !socket.backlog.is_empty() {
            self.unfed.push_back(link);
        }
        env.net.set_wanted(server(link), wanted, env.now, &mut env.queue);
    }

    /// Writes what is owed to a client, and closes the socket if that was all and it is to be
    /// closed.
    pub(super) fn flush(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let Home::At(shard, conn) = socket.home else { return };
        let sent = env.net.write(server(link), &mut socket.outbox, env.now, &mut env.queue);
        let done = socket.closing && socket.outbox.is_empty();
        if sent > 0 {
            let seat = &mut self.shards[shard];
            seat.shard.handle_sent(conn, sent, env.now_ahead(self.clock_ahead), &mut seat.actions);
        }
        if done {
            env.net.close(server(link), env.now, &mut env.queue);
            self.gone(link, env);
        }
    }

    /// The client sends nothing more.
    pub(super) fn ended(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        socket.ended = true;
        if let Home::At(shard, conn) = socket.home {
            env.observe(Observation::Left(link));
            self.turn(shard, env, |shard, now, out| shard.handle_eof(conn, now, out));
        }
    }

    /// The socket is closed; the shard is told. Its actions are carried out by the caller.
    pub(super) fn gone(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.remove(&link) else { return };
        if let Home::At(shard, conn) = socket.home {
            self.by_conn.remove(&(shard, conn));
            env.observe(Observation::Left(link));
            let seat = &mut self.shards[shard];
            seat.shard.handle_closed(conn, env.now_ahead(self.clock_ahead), &mut seat.actions);
        }
    }
}

/// More bytes than an nsqd may owe to one connection: messages and answers up to their limits, and
/// what came last on top of each; bodies are small here.
const OWED_MAX: usize = OWED_LEN_MAX + REPLIES_OWED_MAX + 64 * 1024;

/// Everything that a shard owes to a connection.
fn swap_out(shard: &mut Shard, conn: ConnId) -> Vec<u8> {
    let mut transmit = Transmit::new();
    shard.swap_transmit(conn, &mut transmit);
    let mut bytes = Vec::with_capacity(transmit.len());
    while !transmit.is_empty() {
        let mut slices = [&[][..]; 8];
        let count = transmit.slices(&mut slices);
        let part = slices[..count].concat();
        transmit.advance(part.len());
        bytes.extend_from_slice(&part);
    }
    bytes
}
