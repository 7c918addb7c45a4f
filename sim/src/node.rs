//! An nsqd: shards, the lanes between them, and the sockets that a runtime would hold.
//!
//! It does what a runtime does, with two differences that only a simulator can afford: what a turn
//! sends is looked at when the turn ends, whether the socket takes it or not; and batches and moving
//! connections take their time between two shards.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use sansq_core::arena::{CallId, ConnId, PeerId};
use sansq_core::client::frame::Frame;
use sansq_core::http::call::{Call, CallResult};
use sansq_core::nsqd::http::Memory;
use sansq_core::nsqd::{
    Actions, AdminReply, AdminRequest, Close, Config, Detached, Event as LogEvent, Peer,
    PeerAction, ReadState, ReplyToken, Shard, ShardId, ShardMessage, StatsdAction,
};
use sansq_core::rng::Rng;
use sansq_core::time::{Instant, Now};
use sansq_core::transmit::Transmit;

use crate::disk::Disk;
use crate::env::Env;
use crate::events::{Alarm, Event, Machine};
use crate::model::Place;
use crate::net::{End, Endpoint, LinkId, Side};
use crate::oracles::{Observation, Violation};
use crate::tap::{Heard, Tap};
use crate::trace::digest;

/// One nsqd.
#[derive(Debug)]
pub(crate) struct Node {
    index: usize,
    config: Config,
    shards: Vec<Seat>,
    /// By sender and receiver.
    lanes: Vec<Lane>,
    sockets: BTreeMap<LinkId, Socket>,
    by_conn: BTreeMap<(usize, ConnId), LinkId>,
    peers: BTreeMap<PeerId, PeerSocket>,
    /// Commands of this turn that may still turn out to have failed.
    pending: Vec<(LinkId, Heard)>,
    /// Clients of which more commands can be given to their shard in this turn.
    unfed: VecDeque<LinkId>,
    pub(crate) replies: Vec<(ReplyToken, AdminReply)>,
    pub(crate) disk: Disk,
    seed: u64,
    life: Life,
    /// HTTP requests, with the shard that asks for each.
    pub(crate) calls: Vec<(usize, CallId, Call)>,
    /// Which shard accepts a connection.
    rng: Rng,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    Up,
    /// It takes nothing new, and waits for its connections to end; then it may be started again.
    Stopping {
        again: bool,
    },
    /// It writes what it has in memory.
    Flushing {
        again: bool,
    },
    Down,
}

#[derive(Debug)]
struct Seat {
    shard: Shard,
    actions: Actions,
    alarm: Alarm,
}

#[derive(Debug, Default)]
struct Lane {
    batches: VecDeque<Vec<ShardMessage>>,
    arrives_at: Instant,
}

/// A client's socket.
#[derive(Debug)]
struct Socket {
    home: Home,
    /// Read, not yet given to the shard.
    backlog: BytesMut,
    /// Given to the shard, and left there.
    input: BytesMut,
    /// Taken from the shard, not yet from the network.
    outbox: BytesMut,
    tap: Tap,
    closing: bool,
    /// Nothing is given to the shard any more.
    stopped: bool,
    ended: bool,
    broken: bool,
}

#[derive(Debug)]
enum Home {
    At(usize, ConnId),
    Moving(Detached),
    /// Between being taken out of one shard and put into the next one.
    Nowhere,
}

/// A connection to an nsqlookupd.
#[derive(Debug)]
struct PeerSocket {
    link: LinkId,
    input: BytesMut,
    outbox: BytesMut,
    connected: bool,
}

impl Node {
    pub(crate) fn new(index: usize, shards: u16, config: Config, seed: u64, env: &mut Env) -> Self {
        let count = usize::from(shards);
        let mut node = Self {
            index,
            shards: Vec::new(),
            lanes: (0..count * count).map(|_| Lane::default()).collect(),
            sockets: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            peers: BTreeMap::new(),
            pending: Vec::new(),
            unfed: VecDeque::new(),
            replies: Vec::new(),
            disk: Disk::new(index, count, Rng::new(seed).fork(u64::MAX - 1)),
            seed,
            life: Life::Down,
            calls: Vec::new(),
            rng: Rng::new(seed).fork(u64::MAX),
            config,
        };
        node.start(shards, env);
        node
    }

    /// Starts on what is on the disk.
    fn start(&mut self, shards: u16, env: &mut Env) {
        self.seed = Rng::new(self.seed).next_u64();
        let seats = (0..shards).map(|id| Seat {
            shard: Shard::new(ShardId(id), shards, self.config.clone(), self.seed),
            actions: Actions::new(shards),
            alarm: Alarm::default(),
        });
        self.shards = seats.collect();
        self.life = Life::Up;
        let metadata = match self.disk.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                let text = format!("nsqd {} does not start: {error}", self.index);
                return env.judge(Err(Violation::Other(text)));
            }
        };
        for topic in &metadata.topics {
            for channel in &topic.channels {
                let (topic, channel) = (topic.name, channel.name);
                let place = Place { node: self.index, topic, channel };
                env.observe(Observation::ChannelLoaded(place));
            }
        }
        for shard in 0..self.shards.len() {
            self.turn(shard, env, |shard, now, out| {
                shard.load(&metadata, now, out);
                shard.start(now, out);
            });
        }
    }

    /// Starts again, if it is down.
    pub(crate) fn start_again(&mut self, env: &mut Env) {
        if self.life == Life::Down {
            let shards = self.shards.len() as u16;
            self.start(shards, env);
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.life == Life::Down
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life == Life::Up
    }

    /// The process dies; with it, perhaps, the machine.
    pub(crate) fn kill(&mut self, loses_power: bool, env: &mut Env) {
        let has_all_on_disk = self.config.mem_queue_size == 0 && !loses_power;
        self.disk.die(loses_power);
        let links: Vec<_> = self.sockets.keys().copied().collect();
        for link in links {
            env.net.reset(server(link), env.now, &mut env.queue);
        }
        for socket in self.peers.values() {
            env.net.reset(client(socket.link), env.now, &mut env.queue);
        }
        self.sockets.clear();
        self.by_conn.clear();
        self.peers.clear();
        self.pending.clear();
        self.unfed.clear();
        self.replies.clear();
        self.life = Life::Down;
        self.lanes.iter_mut().for_each(|lane| lane.batches.clear());
        env.observe(Observation::Died { node: self.index, has_all_on_disk, loses_power });
    }

    /// The disk is done with something.
    pub(crate) fn disk_done(&mut self, shard: usize, env: &mut Env) {
        let Some(done) = self.disk.carry_out(shard, env) else { return };
        self.turn(shard, env, |shard, now, out| shard.handle_storage(done, now, out));
    }

    /// Goes on with a stop in good order. Returns whether it can be started again.
    pub(crate) fn go_on(&mut self, env: &mut Env) -> bool {
        if let Life::Stopping { again } = self.life
            && self.sockets.is_empty()
            && self.connections() == 0
        {
            self.life = Life::Flushing { again };
            for shard in 0..self.shards.len() {
                self.turn(shard, env, |shard, now, out| shard.flush(now, out));
            }
        }
        let lanes = self.lanes.iter().all(|lane| lane.batches.is_empty());
        if let Life::Flushing { again } = self.life
            && lanes
            && self.disk.is_idle()
            && self.shards.iter().all(|seat| seat.shard.is_flushed())
        {
            self.life = Life::Down;
            env.observe(Observation::Stopped { node: self.index });
            return again;
        }
        false
    }

    /// How many connections its shards have.
    pub(crate) fn connections(&self) -> usize {
        self.shards.iter().map(|seat| seat.shard.connections()).sum()
    }

    pub(crate) fn accept(&mut self, link: LinkId, env: &mut Env) {
        let end = server(link);
        if !self.is_up() {
            return env.net.reset(end, env.now, &mut env.queue);
        }
        let shard = self.rng.below(self.shards.len() as u64) as usize;
        let port = 1024 + (link.0 % 60_000) as u16;
        let peer = Peer::Tcp(([10, 0, 0, 1], port).into());
        // The connection has no name before the call, so its first actions are carried out behind it.
        let seat = &mut self.shards[shard];
        let conn = seat.shard.accept(peer, env.now, &mut seat.actions);
        let socket = Socket {
            home: Home::At(shard, conn),
            backlog: BytesMut::new(),
            input: BytesMut::new(),
            outbox: BytesMut::new(),
            tap: Tap::default(),
            closing: false,
            stopped: false,
            ended: false,
            broken: false,
        };
        self.sockets.insert(link, socket);
        self.by_conn.insert((shard, conn), link);
        env.net.accept(link, env.now, &mut env.queue);
        self.settle(shard, env);
    }

    pub(crate) fn readable(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let read = env.net.read(server(link), &mut socket.backlog, env.now, &mut env.queue);
        if let Home::At(shard, _) = socket.home {
            if read.len > 0 {
                self.input(link, env);
            }
            self.settle(shard, env);
        }
        if read.is_end {
            self.ended(link, env);
        }
    }

    pub(crate) fn writable(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get(&link) else { return };
        if let Home::At(shard, _) = socket.home {
            self.flush(link, env);
            self.settle(shard, env);
        }
    }

    pub(crate) fn reset(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        socket.broken = true;
        if let Home::At(shard, _) = socket.home {
            self.gone(link, env);
            self.settle(shard, env);
        }
    }

    pub(crate) fn lane(&mut self, from: usize, to: usize, env: &mut Env) {
        let Some(mut batch) = self.lanes[from * self.shards.len() + to].batches.pop_front() else {
            return;
        };
        self.turn(to, env, |shard, now, out| shard.handle_shard(&mut batch, now, out));
    }

    /// A connection arrives at the shard of its channel.
    pub(crate) fn moved(&mut self, link: LinkId, to: usize, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let Home::Moving(detached) = core::mem::replace(&mut socket.home, Home::Nowhere) else {
            return;
        };
        let (ended, broken) = (socket.ended, socket.broken);
        let seat = &mut self.shards[to];
        let conn = seat.shard.attach(detached, env.now, &mut seat.actions);
        socket.home = Home::At(to, conn);
        self.by_conn.insert((to, conn), link);
        self.input(link, env);
        self.settle(to, env);
        if broken {
            self.gone(link, env);
            self.settle(to, env);
        } else if ended {
            self.ended(link, env);
        }
    }

    pub(crate) fn deadline(&mut self, shard: usize, env: &mut Env) {
        if self.life != Life::Down && self.shards[shard].alarm.rings(env.now) {
            self.turn(shard, env, |shard, now, out| shard.handle_timeout(now, out));
        }
    }

    /// Asks a shard; the reply comes in `replies`.
    pub(crate) fn admin(&mut self, request: AdminRequest, token: ReplyToken, env: &mut Env) {
        let shard = self.rng.below(self.shards.len() as u64) as usize;
        self.turn(shard, env, |shard, now, out| shard.handle_admin(request, token, now, out));
    }

    /// The outcome of an HTTP request.
    pub(crate) fn called(&mut self, shard: usize, id: CallId, result: CallResult, env: &mut Env) {
        self.turn(shard, env, |shard, now, out| shard.handle_called(id, result, now, out));
    }

    pub(crate) fn shut_down(&mut self, again: bool, env: &mut Env) {
        self.life = Life::Stopping { again };
        for shard in 0..self.shards.len() {
            self.turn(shard, env, |shard, now, out| shard.shut_down(now, out));
        }
    }

    pub(crate) fn peer_connected(&mut self, peer: PeerId, link: LinkId, env: &mut Env) {
        if let Some(socket) = self.peers.get_mut(&peer)
            && socket.link == link
        {
            socket.connected = true;
            self.turn(0, env, |shard, now, out| shard.handle_peer_connected(peer, now, out));
            self.peer_flush(peer, env);
        }
    }

    pub(crate) fn peer_readable(&mut self, peer: PeerId, link: LinkId, env: &mut Env) {
        let Some(socket) = self.peers.get_mut(&peer) else { return };
        if socket.link != link {
            return;
        }
        let read = env.net.read(client(link), &mut socket.input, env.now, &mut env.queue);
        if read.len > 0 {
            let mut input = core::mem::take(&mut socket.input);
            self.turn(0, env, |shard, now, out| {
                shard.handle_peer_input(peer, &mut input, now, out);
            });
            // The peer may have been closed in that turn, and dialled again.
            if let Some(socket) = self.peers.get_mut(&peer)
                && socket.link == link
            {
                socket.input = input;
            }
        }
        if read.is_end {
            self.peer_closed(peer, link, "EOF", env);
        }
    }

    pub(crate) fn peer_writable(&mut self, peer: PeerId, link: LinkId, env: &mut Env) {
        if self.peers.get(&peer).is_some_and(|socket| socket.link == link) {
            self.peer_flush(peer, env);
        }
    }

    /// The dial failed, or the connection is gone.
    pub(crate) fn peer_closed(&mut self, peer: PeerId, link: LinkId, why: &str, env: &mut Env) {
        if self.peers.get(&peer).is_some_and(|socket| socket.link == link) {
            self.peers.remove(&peer);
            env.net.close(client(link), env.now, &mut env.queue);
            self.turn(0, env, |shard, now, out| shard.handle_peer_closed(peer, why, now, out));
        }
    }

    /// Calls a shard and carries out what it asks for.
    fn turn(
        &mut self,
        shard: usize,
        env: &mut Env,
        call: impl FnOnce(&mut Shard, Now, &mut Actions),
    ) {
        let seat = &mut self.shards[shard];
        call(&mut seat.shard, env.now, &mut seat.actions);
        self.settle(shard, env);
    }

    /// Carries out what a shard asks for, until there is nothing more, and arms its timer.
    fn settle(&mut self, shard: usize, env: &mut Env) {
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
            let fresh = Actions::new(self.shards.len() as u16);
            let actions = core::mem::replace(&mut self.shards[shard].actions, fresh);
            self.look(shard, &actions, env);
            self.carry_out(shard, actions, env);
        }
        let (seat, node) = (&mut self.shards[shard], self.index);
        let deadline = seat.shard.poll_timeout();
        seat.alarm.arm(Machine::Shard { node, shard }, deadline, env.now, &mut env.queue);
    }

    /// Takes what the turn sends, and shows the judges what it did, in the order that they expect.
    fn look(&mut self, shard: usize, actions: &Actions, env: &mut Env) {
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
            socket.outbox.extend_from_slice(&bytes);
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
            if let LogEvent::ChannelCreated(topic, channel) = event
                && !env.oracles.knows_channel(self.index, topic, channel)
            {
                let place = Place { node: self.index, topic: *topic, channel: *channel };
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
    fn failed(&mut self, link: LinkId, text: &Bytes, env: &mut Env) -> bool {
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
        // Publishers may be refused for want of memory, and a client whose connection ends in the
        // middle of a command is told so; nothing else befits clients that keep to the protocol.
        let expected = matches!(words[0], "E_PUB_FAILED" | "E_MPUB_FAILED" | "E_DPUB_FAILED")
            || text.contains("failed to read");
        if !expected {
            env.judge(Err(Violation::Other(format!("link {} was refused: {text}", link.0))));
        }
        true
    }

    /// The commands of this turn that were not refused have been acted on.
    fn commit_pending(&mut self, env: &mut Env) {
        for (link, heard) in core::mem::take(&mut self.pending) {
            env.observe(match heard {
                Heard::Finish(id) => Observation::Finished { link, id },
                Heard::Ready(count) => Observation::Ready { link, count },
                Heard::Requeue(id, delay) => Observation::Requeued { link, id, delay },
                Heard::Subscribe(topic, channel) => {
                    let (node, msg_timeout) = (self.index, self.config.msg_timeout);
                    let place = Place { node, topic, channel };
                    Observation::Subscribed { link, place, msg_timeout }
                }
                Heard::Touch(id) => Observation::Touched { link, id },
            });
        }
    }

    fn carry_out(&mut self, shard: usize, actions: Actions, env: &mut Env) {
        for conn in actions.transmit {
            if let Some(link) = self.by_conn.get(&(shard, conn)).copied() {
                self.flush(link, env);
            }
        }
        for (conn, how) in actions.close {
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
        for (conn, home) in actions.rehome {
            self.rehome(shard, conn, usize::from(home.0), env);
        }
        for conn in actions.resume {
            if let Some(link) = self.by_conn.get(&(shard, conn)).copied() {
                self.input(link, env);
            }
        }
        for (to, batch) in actions.lanes.into_iter().enumerate() {
            if batch.is_empty() {
                continue;
            }
            let delay = env.lane_delay();
            let lane = &mut self.lanes[shard * self.shards.len() + to];
            lane.arrives_at = lane.arrives_at.max(env.now.instant + delay);
            lane.batches.push_back(batch);
            let event = Event::Lane { node: self.index, from: shard, to };
            env.queue.push(lane.arrives_at, event);
        }
        for (peer, action) in actions.peers {
            self.peer_action(peer, action, env);
        }
        self.calls.extend(actions.calls.into_iter().map(|(id, call)| (shard, id, call)));
        for action in actions.statsd {
            // Nobody listens here, and there is nothing to measure.
            if action == StatsdAction::Measure {
                let seat = &mut self.shards[shard];
                seat.shard.handle_memory(Memory::default(), env.now, &mut seat.actions);
            }
        }
        for request in actions.storage {
            self.disk.submit(shard, request, env);
        }
        self.replies.extend(actions.replies);
    }

    fn rehome(&mut self, shard: usize, conn: ConnId, to: usize, env: &mut Env) {
        let Some(link) = self.by_conn.remove(&(shard, conn)) else { return };
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        if !socket.outbox.is_empty() {
            let text = format!("link {} moves while bytes are owed to it", link.0);
            env.judge(Err(Violation::Other(text)));
        }
        let Some(detached) = self.shards[shard].shard.detach(conn) else { return };
        socket.home = Home::Moving(detached);
        let at = env.now.instant + env.lane_delay();
        env.queue.push(at, Event::Moved { node: self.index, link, shard: to });
    }

    /// Gives the shard what there is of a client's bytes: of a consumer's one command at a time, so that
    /// the judges know what came before what, of others' all. Its actions are carried out by the caller,
    /// who comes back here for the rest.
    fn input(&mut self, link: LinkId, env: &mut Env) {
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
        let state = seat.shard.handle_input(conn, &mut socket.input, env.now, out);
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

    /// Writes what is owed to a client, and closes the socket if that was all and it is to be closed.
    fn flush(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let Home::At(shard, conn) = socket.home else { return };
        let sent = env.net.write(server(link), &mut socket.outbox, env.now, &mut env.queue);
        let done = socket.closing && socket.outbox.is_empty();
        if sent > 0 {
            let seat = &mut self.shards[shard];
            seat.shard.handle_sent(conn, sent, env.now, &mut seat.actions);
        }
        if done {
            env.net.close(server(link), env.now, &mut env.queue);
            self.gone(link, env);
        }
    }

    /// The client sends nothing more.
    fn ended(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        socket.ended = true;
        if let Home::At(shard, conn) = socket.home {
            env.observe(Observation::Left(link));
            self.turn(shard, env, |shard, now, out| shard.handle_eof(conn, now, out));
        }
    }

    /// The socket is closed; the shard is told. Its actions are carried out by the caller.
    fn gone(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.remove(&link) else { return };
        if let Home::At(shard, conn) = socket.home {
            self.by_conn.remove(&(shard, conn));
            env.observe(Observation::Left(link));
            let seat = &mut self.shards[shard];
            seat.shard.handle_closed(conn, env.now, &mut seat.actions);
        }
    }

    fn peer_action(&mut self, peer: PeerId, action: PeerAction, env: &mut Env) {
        match action {
            PeerAction::Dial(address) => {
                let Some(lookupd) = lookupd_of(&address) else { return };
                let (client, server) =
                    (Endpoint::Peer { node: self.index, peer }, Endpoint::Lookupd(lookupd));
                let link = env.net.dial(client, server, env.now, &mut env.queue);
                let (input, outbox) = (BytesMut::new(), BytesMut::new());
                let socket = PeerSocket { link, input, outbox, connected: false };
                self.peers.insert(peer, socket);
            }
            PeerAction::Send(bytes) => {
                if let Some(socket) = self.peers.get_mut(&peer) {
                    socket.outbox.extend_from_slice(&bytes);
                }
                self.peer_flush(peer, env);
            }
            PeerAction::Close => {
                if let Some(socket) = self.peers.remove(&peer) {
                    env.net.close(client(socket.link), env.now, &mut env.queue);
                }
            }
        }
    }

    fn peer_flush(&mut self, peer: PeerId, env: &mut Env) {
        if let Some(socket) = self.peers.get_mut(&peer)
            && socket.connected
        {
            env.net.write(client(socket.link), &mut socket.outbox, env.now, &mut env.queue);
        }
    }
}

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

/// The address under which nsqlookupds know nsqd `node`.
pub(crate) fn host_of(node: usize) -> String {
    format!("nsqd-{node}")
}

/// Which nsqd has this address.
pub(crate) fn node_of(host: &str) -> Option<usize> {
    host.strip_prefix("nsqd-")?.parse().ok()
}

/// The address of nsqlookupd `lookupd`.
pub(crate) fn lookupd_address(lookupd: usize) -> String {
    format!("lookupd-{lookupd}:4160")
}

pub(crate) fn lookupd_of(address: &str) -> Option<usize> {
    address.strip_prefix("lookupd-")?.split(':').next()?.parse().ok()
}

const fn server(link: LinkId) -> End {
    End { link, side: Side::Server }
}

const fn client(link: LinkId) -> End {
    End { link, side: Side::Client }
}
