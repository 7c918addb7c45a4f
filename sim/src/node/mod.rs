//! An nsqd: shards, the lanes between them, and the sockets that a runtime would hold.
//!
//! It does what a runtime does, with two differences that only a simulator can afford: what a turn
//! sends is looked at when the turn ends, whether the socket takes it or not; and batches and
//! moving connections take their time between two shards.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use sansq_core::arena::{CallId, ConnId, PeerId};
use sansq_core::http::call::{Call, CallResult};
use sansq_core::machine::Machine;
use sansq_core::nsqd::config::{CALLS_MAX, PENDING_REPLIES_MAX};
use sansq_core::nsqd::{
    Actions, AdminReply, AdminRequest, Config, DUE_TIMES_MAX, Detached, Peer, ReplyToken,
    ServerStats, Shard, ShardId, ShardMessage, StatsFilter,
};
use sansq_core::rng::Rng;
use sansq_core::storage::{PENDING_LEN_MAX, PENDING_MAX, STAGED_LEN_MAX, Store};
use sansq_core::time::{Instant, Now};

mod peers;
mod turn;

use crate::disk::Disk;
use crate::env::Env;
use crate::events::Alarm;
use crate::model::ChannelKey;
use crate::net::{End, LinkId, Side};
use crate::oracles::durability::Syncs;
use crate::oracles::{Observation, Violation};
use crate::tap::{Heard, Tap};

/// One nsqd.
#[derive(Debug)]
pub(crate) struct Node {
    index: usize,
    config: Config,
    shards: Vec<Seat>,
    /// What each shard did, restarts and all.
    work: Vec<ShardWork>,
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
    /// The wall clock is ahead of the others' by so many nanoseconds.
    pub(crate) clock_ahead: i64,
}

/// What a shard did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ShardWork {
    /// How often it was called.
    pub turns: u64,
    /// What it handed to other shards: publishes, their answers, and the like.
    pub hand_overs: u64,
    /// In how many batches, each of which wakes a shard that sleeps.
    pub batches: u64,
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
    /// Whether the client keeps to the protocol.
    is_polite: bool,
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
        let syncs = Syncs::new(config.sync_every, config.sync_timeout);
        let mut node = Self {
            index,
            shards: Vec::new(),
            work: vec![ShardWork::default(); count],
            lanes: (0..count * count).map(|_| Lane::default()).collect(),
            sockets: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            peers: BTreeMap::new(),
            pending: Vec::new(),
            unfed: VecDeque::new(),
            replies: Vec::new(),
            disk: Disk::new(index, count, syncs, Rng::new(seed).fork(u64::MAX - 1)),
            seed,
            life: Life::Down,
            calls: Vec::new(),
            rng: Rng::new(seed).fork(u64::MAX),
            clock_ahead: 0,
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
            actions: Actions::default(),
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
                let place = ChannelKey { node: self.index, topic, channel };
                env.observe(Observation::ChannelLoaded(place));
            }
        }
        for shard in 0..self.shards.len() {
            let mut known = self.disk.look(&metadata);
            let mut taken = Vec::new();
            self.turn(shard, env, |shard, now, out| {
                let look = |store: &Store| known.remove(store).inspect(|_| taken.push(*store));
                shard.load(&metadata, look, now, out);
                shard.start(now, out);
            });
            taken.into_iter().for_each(|store| self.disk.opened(store, env.now.instant));
        }
    }

    /// Starts again, if it is down.
    pub(crate) fn start_again(&mut self, env: &mut Env) {
        if self.life == Life::Down {
            let shards = self.shards.len() as u16;
            self.start(shards, env);
        }
    }

    /// If it is stopping, it starts again when it has.
    pub(crate) fn come_back(&mut self) {
        if let Life::Stopping { again } | Life::Flushing { again } = &mut self.life {
            *again = true;
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
        let damaged = self.disk.die(loses_power);
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
        let (node, kept) = (self.index, self.disk.kept());
        env.observe(Observation::Died { node, has_all_on_disk, damaged, kept });
    }

    /// The disk is done with something.
    pub(crate) fn disk_done(&mut self, shard: usize, env: &mut Env) {
        let Some(completion) = self.disk.carry_out(shard, env) else { return };
        self.turn(shard, env, |shard, now, out| shard.handle_storage(completion, now, out));
    }

    /// Goes on with a stop in good order. Returns whether it can be started again.
    pub(crate) fn go_on(&mut self, env: &mut Env) -> bool {
        if let Life::Stopping { again } = self.life
            && self.sockets.is_empty()
            && self.connections() == 0
        {
            self.life = Life::Flushing { again };
            self.disk.has_failed = false;
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
            let has_failed = self.disk.has_failed;
            if !has_failed {
                env.judge(self.disk.syncs.check_stopped());
            }
            self.disk.syncs.died(false);
            env.observe(Observation::Stopped { node: self.index, has_failed });
            return again;
        }
        false
    }

    /// What its shards count just now, together.
    pub(crate) fn stats(&self, now: Now) -> ServerStats {
        let mut stats = ServerStats::default();
        for seat in &self.shards {
            stats.merge(seat.shard.stats(&StatsFilter::default(), now));
        }
        stats
    }

    /// Whether it keeps within its limits. `delayed`: how many messages may have come to a channel
    /// late.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn check_held(&self, delayed: usize) -> Result<(), Violation> {
        for seat in &self.shards {
            let held = seat.shard.held();
            let fresh_max = self.config.mem_queue_size.max(1) + BATCH_MAX + delayed;
            let unwritten_max = PENDING_LEN_MAX + (BATCH_MAX * RECORD_LEN_MAX) as u64;
            for (what, count, max) in [
                ("unanswered commands", held.replies, PENDING_REPLIES_MAX),
                ("messages in memory", held.fresh, fresh_max),
                ("due times", held.due_times, DUE_TIMES_MAX),
                ("unwritten messages", held.unwritten, PENDING_MAX + BATCH_MAX),
                ("unwritten bytes", held.unwritten_len as usize, unwritten_max as usize),
                ("bytes read ahead", held.read_ahead_len, STAGED_LEN_MAX + RECORD_LEN_MAX),
                ("HTTP requests", held.calls, CALLS_MAX),
                ("unanswered bytes", held.unanswered_len, 2 * self.config.body_len_max()),
                ("bytes of room", held.room_len, seat.shard.room_len_max()),
                ("topics", held.topics, self.config.max_topics),
                ("channels of a topic", held.channels, self.config.max_channels_per_topic),
            ] {
                if count > max {
                    let text = format!("nsqd {} holds {count} {what}, more than {max}", self.index);
                    return Err(Violation::Memory(text));
                }
            }
        }
        Ok(())
    }

    /// What each shard did.
    pub(crate) fn work(&self) -> &[ShardWork] {
        &self.work
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
        // The connection has no name before the call, so its first actions are carried out behind
        // it.
        let seat = &mut self.shards[shard];
        let conn = seat.shard.accept(peer, env.now_ahead(self.clock_ahead), &mut seat.actions);
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
            is_polite: env.net.is_polite(link),
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
        let conn = seat.shard.attach(detached, env.now_ahead(self.clock_ahead), &mut seat.actions);
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
}

/// More messages than any client publishes at once.
const BATCH_MAX: usize = 8;

/// More bytes than any message has on disk, or in memory when it was read.
const RECORD_LEN_MAX: usize = 16 * 1024;

/// The address under which nsqlookupds know nsqd `node`.
pub(crate) fn host_of(node: usize) -> String {
    format!("nsqd-{node}")
}

/// Which nsqd has this address, with or without a port.
pub(crate) fn node_of(address: &str) -> Option<usize> {
    address.strip_prefix("nsqd-")?.split(':').next()?.parse().ok()
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
