//! A shard: the tables of everything that one thread owns, and the routing between them.
//!
//! ```text
//!   driver ──► Shard ──┬─ connections ─┐ commands
//!     ▲                ├─ topics ◄─────┘      upstream: a list, done at the end of the call
//!     │ Actions        ├─ channels ◄── topics
//!     └────────────────┴─ connections ◄── channels       downstream: sinks, at once
//! ```
//!
//! Calls go downstream only (topic → channel → connection), through sinks that borrow the tables
//! below; the borrow checker proves that nothing is entered twice. What flows upstream (a
//! connection to settle) goes to a list that is emptied before the call returns.

mod admin;
mod auth;
mod calls;
mod clerk;
mod client;
mod clients;
mod ending;
mod held;
mod lanes;
mod life;
mod limits;
mod precreate;
mod room;
mod stats;
mod storage;
mod tables;
mod tickets;
mod timer;
mod topics;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::BytesMut;

use self::calls::Calls;
use self::clerk::Clerk;
use self::clients::Clients;
pub use self::ending::FlushFailure;
pub use self::held::Held;
use self::life::Life;
use self::limits::Limits;
use self::precreate::Lookups;
pub use self::precreate::{CHANNELS_ANSWER_LEN_MAX, LOOKUPD_WAIT, OPENING_WAIT};
use self::stats::Collecting;
use self::storage::Disk;
use self::tables::{ChannelEntry, TopicEntry};
use self::timer::Timer;
use super::actions::Actions;
use super::auth::Patterns;
use super::config::{Config, DECODED_LEN_MAX};
use super::connection::{Connection, Detached};
use super::event::Event;
use super::ids::{Peer, ShardId};
use super::shard_message::Collector;
use crate::arena::{Arena, ChannelId, ConnId, TopicId};
use crate::deadlines::Deadlines;
use crate::input::READ_LEN_MAX;
use crate::machine::{Machine, ReadState};
use crate::message::IdGenerator;
use crate::name::TopicName;
use crate::rng::Rng;
use crate::time::{Instant, Now};
use crate::transmit::Transmit;

/// One thread's part of an nsqd.
///
/// One shard alone is a whole nsqd; `shards` of them, each on a thread of its own and joined by
/// lanes, are the fast one. See the [crate's page](crate) for how it is driven.
pub struct Shard {
    // Who it is.
    id: ShardId,
    shards: u16,
    config: Config,
    life: Life,
    rng: Rng,

    // What is at home here, and when that is to be looked at.
    clients: Clients,
    topics: Arena<TopicId, TopicEntry>,
    topic_names: BTreeMap<TopicName, TopicId>,
    channels: Arena<ChannelId, ChannelEntry>,
    deadlines: Deadlines<Timer>,

    // What their messages need.
    ids: IdGenerator,
    disk: Disk,

    // What is asked of others, and known of them.
    calls: Calls,
    /// What the auth servers' patterns are compiled to.
    patterns: Patterns,
    lookups: Lookups,
    limits: Limits,
    collecting: BTreeMap<Collector, Collecting>,

    /// What the node does once. Shard 0 has it.
    clerk: Option<Box<Clerk>>,
}

impl Shard {
    /// The shard `id` of a node with `shards` shards. `seed` decides whatever is left to chance.
    ///
    /// # Panics
    /// If `id` is not below `shards`.
    pub fn new(id: ShardId, shards: u16, config: Config, seed: u64) -> Self {
        assert!(id.0 < shards, "a node's shards are numbered from 0");
        Self {
            id,
            shards,
            life: Life::New,
            rng: Rng::new(seed).fork(u64::from(id.0)),
            clients: Clients::new(&config, shards),
            topics: Arena::new(),
            topic_names: BTreeMap::new(),
            channels: Arena::new(),
            deadlines: Deadlines::new(),
            ids: IdGenerator::new(config.node_id, id.0, shards),
            disk: Disk::default(),
            calls: Calls::default(),
            patterns: Patterns::default(),
            lookups: Lookups::new(&config),
            limits: Limits::new(shards),
            collecting: BTreeMap::new(),
            clerk: (id == ShardId(0)).then(|| Box::new(Clerk::new(shards, config.disk))),
            config,
        }
    }

    /// Begins: shard 0 connects to the nsqlookupds, and writes the list of topics and channels. To
    /// be called once, before anything else but [`load`](Self::load).
    pub fn start(&mut self, now: Now, out: &mut Actions) {
        self.life.start();
        self.tell_topics(out);
        self.start_clerk(now, out);
    }

    /// A client connected.
    pub fn accept(&mut self, peer: Peer, now: Now, out: &mut Actions) -> ConnId {
        out.events.push(Event::ClientConnected(peer));
        let conn = self.clients.insert(Connection::new(peer, &self.config, now));
        if self.life.is_stopping()
            && let Some(connection) = self.clients.conns.get_mut(conn)
        {
            connection.end(now, out);
        }
        self.settle_all(now, out);
        conn
    }

    /// Carries out the commands in `input`, as long as the connection has the layers that it has
    /// now.
    fn take_commands(&mut self, conn: ConnId, input: &mut BytesMut, now: Now, out: &mut Actions) {
        let Some(layers) = self.clients.conns.get(conn).map(Connection::layers) else { return };
        let (mut is_next, conns) = (false, self.clients.conns.len());
        loop {
            self.take_finishes(conn, input, now, out);
            let Some(connection) = self.clients.conns.get_mut(conn) else { return };
            if connection.layers() != layers || !self.clients.room.admits(connection, input, conns)
            {
                return;
            }
            let (config, bodies, before) = (&self.config, &mut self.clients.bodies, input.len());
            let Some(command) = connection.next_command(input, config, bodies, now, out) else {
                return self.clients.room.see_to_body(connection, input.len(), is_next, now);
            };
            if before - input.len() > READ_LEN_MAX {
                // What came behind a large body must not keep its memory alive.
                *input = BytesMut::from(&input[..]);
            }
            is_next = true;
            self.execute(conn, command, now, out);
        }
    }

    /// Carries out the commands of a connection that has layers, step by step, so that well-packed
    /// input is never there as a whole. Returns whether there may be more, which was left for
    /// another call.
    fn take_layered(
        &mut self,
        conn: ConnId,
        wire: &mut BytesMut,
        now: Now,
        out: &mut Actions,
    ) -> bool {
        let mut decoded = 0;
        while let Some(connection) = self.clients.conns.get_mut(conn)
            && let Some(mut plain) = connection.lend_plain(&mut self.clients.workspace)
        {
            let layers = connection.layers();
            loop {
                self.take_commands(conn, &mut plain, now, out);
                let Some(connection) = self.clients.conns.get_mut(conn) else { return false };
                let is_same = connection.layers() == layers;
                let before = plain.len();
                let goes_on = is_same
                    && decoded < DECODED_LEN_MAX
                    && connection.decode(wire, &mut plain, now, out);
                decoded += plain.len() - before;
                if goes_on {
                    continue;
                }
                connection.return_plain(plain, layers, &mut self.clients.workspace);
                if is_same {
                    return decoded >= DECODED_LEN_MAX;
                }
                break;
            }
        }
        false
    }

    /// Takes a connection out that is to move to another shard ([`Actions::rehome`]). Nothing is
    /// owed to it at that moment.
    pub fn detach(&mut self, conn: ConnId) -> Option<Detached> {
        let mut connection = self.clients.remove(conn)?;
        connection.armed = None;
        Some(Detached(Box::new(connection)))
    }

    /// Takes a connection in that came from another shard. [`handle_input`](Machine::handle_input)
    /// with its unread input has to follow, also if there is none.
    pub fn attach(&mut self, detached: Detached, now: Now, out: &mut Actions) -> ConnId {
        let mut connection = *detached.0;
        connection.moving = false;
        let conn = self.clients.insert(connection);
        if self.life.is_stopping()
            && let Some(connection) = self.clients.conns.get_mut(conn)
        {
            connection.end(now, out);
        }
        self.settle_all(now, out);
        conn
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.clients.conns.len()
    }

    /// Brings the connections up to date that this call touched: those that end leave their
    /// channel, those that wait to subscribe do so if they can, all are armed.
    fn settle_all(&mut self, now: Now, out: &mut Actions) {
        loop {
            while let Some(conn) = self.clients.unsettled.pop() {
                self.settle(conn, now, out);
            }
            if !self.start_calls(now, out) {
                break;
            }
        }
        self.clients.grant_room(&mut self.deadlines, now, out);
        self.count_accepted();
        self.forget_moved(now, out);
        self.tell_topics(out);
        self.save_metadata(now, out);
        self.end_flush(out);
    }

    fn settle(&mut self, conn: ConnId, now: Now, out: &mut Actions) {
        self.try_subscribe(conn, now, out);
        let Some(connection) = self.clients.conns.get_mut(conn) else { return };
        let due = connection.poll_timeout();
        self.deadlines.arm_by(due, &mut connection.armed, Timer::Conn(conn));
        if !connection.is_open() {
            self.clients.room.release(connection);
        }
        let creates = connection.creates.take();
        let subscription = if connection.is_open() { None } else { connection.subscription.take() };
        if let Some(topic) = creates {
            self.create_topic(*topic, now, out);
        }
        if let Some((channel, consumer)) = subscription {
            self.unsubscribe(channel, consumer, now, out);
        }
    }
}

impl Machine for Shard {
    type Actions = Actions;

    /// Of input that is packed no more is unpacked in one call than [`DECODED_LEN_MAX`]: the
    /// connection has to wait then and is to be resumed at once.
    fn handle_input(
        &mut self,
        conn: ConnId,
        input: &mut BytesMut,
        now: Now,
        out: &mut Actions,
    ) -> ReadState {
        if self.clients.conns.get(conn).is_some_and(|conn| conn.layers() == 0) {
            self.take_commands(conn, input, now, out);
        }
        let pauses = self.take_layered(conn, input, now, out);
        if let Some(connection) = self.clients.conns.get_mut(conn) {
            connection.mind_rest(input, now);
        }
        self.clients.unsettled.push(conn);
        self.settle_all(now, out);
        let Some(connection) = self.clients.conns.get_mut(conn) else { return ReadState::Stop };
        let state = connection.read_state(input);
        if pauses && matches!(state, ReadState::More(_)) {
            out.resume.push(conn);
            return ReadState::Wait;
        }
        state
    }

    fn handle_eof(&mut self, conn: ConnId, now: Now, out: &mut Actions) {
        if let Some(connection) = self.clients.conns.get_mut(conn) {
            connection.handle_eof(now, out);
            self.clients.unsettled.push(conn);
            self.settle_all(now, out);
        }
    }

    fn handle_sent(&mut self, conn: ConnId, bytes: usize, now: Now, out: &mut Actions) {
        let Some(connection) = self.clients.conns.get_mut(conn) else { return };
        let unblocked = connection.handle_sent(bytes, now);
        connection.resume(out);
        let subscribing = connection.subscribing.is_some();
        if unblocked && let Some((channel, consumer)) = connection.subscription {
            self.on_channel(channel, now, out, |channel, now, out| {
                channel.unblock(consumer, now, out);
            });
        }
        if subscribing {
            self.clients.unsettled.push(conn);
        }
        self.settle_all(now, out);
    }

    fn handle_closed(&mut self, conn: ConnId, now: Now, out: &mut Actions) {
        let Some(mut connection) = self.clients.remove(conn) else { return };
        out.events.push(Event::ClientLeft(connection.peer));
        self.leave(&mut connection, now, out);
        self.settle_all(now, out);
    }

    fn swap_transmit(&mut self, conn: ConnId, spare: &mut Transmit) {
        assert!(spare.is_empty(), "bytes left over from another swap");
        if let Some(connection) = self.clients.conns.get_mut(conn) {
            connection.swap_transmit(spare, &mut self.clients.workspace);
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Actions) {
        while let Some((at, timer)) = self.deadlines.pop_due(now.instant) {
            match timer {
                Timer::Conn(conn) => {
                    let Some(connection) = self.clients.conns.get_mut(conn) else { continue };
                    if connection.armed == Some(at) {
                        connection.armed = None;
                        connection.handle_timeout(now, out);
                        self.clients.unsettled.push(conn);
                    }
                }
                Timer::Channel(channel) => {
                    let Some(entry) = self.channels.get_mut(channel) else { continue };
                    if entry.armed == Some(at) {
                        entry.armed = None;
                        self.on_channel(channel, now, out, |channel, now, out| {
                            channel.handle_timeout(now, out);
                        });
                        self.channel_flushed(channel, now, out);
                    }
                }
                Timer::Topic(topic) => {
                    let Some(entry) = self.topics.get_mut(topic) else { continue };
                    if entry.armed == Some(at) {
                        entry.armed = None;
                        self.handle_precreate_timeout(topic, now, out);
                        let flushing = self.life.is_flushing();
                        self.on_topic(topic, now, out, |topic, ids, now, out| {
                            topic.handle_timeout(now, out);
                            // Its disk may be tried again.
                            if !flushing {
                                topic.pump(now, ids, out);
                            }
                        });
                        self.topic_flushed(topic);
                    }
                }
                Timer::Clerk => self.handle_clerk_timeout(at, now, out),
                Timer::Ending => self.handle_ending_timeout(at, now, out),
                Timer::Room => {
                    self.clients.handle_room_timeout(at, &mut self.deadlines, now, out);
                }
            }
            self.settle_all(now, out);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Stops: waiting publishers are refused, every connection is closed once what is owed is sent,
    /// and nothing new is taken.
    fn shut_down(&mut self, now: Now, out: &mut Actions) {
        self.life.stop();
        // What new topics hold back stays where it is; nobody is asked for their channels any more.
        let topics: Vec<_> = self.topics.iter().map(|(id, _)| id).collect();
        for topic in topics {
            self.forget_precreate(topic, out);
            self.on_topic(topic, now, out, |topic, _, _, out| topic.exit(out));
        }
        for (_, entry) in self.channels.iter_mut() {
            entry.channel.stop();
        }
        for (conn, connection) in self.clients.conns.iter_mut() {
            connection.end(now, out);
            self.clients.unsettled.push(conn);
        }
        self.calls.forget();
        self.stop_clerk(now, out);
        self.settle_all(now, out);
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("id", &self.id)
            .field("topics", &self.topics.len())
            .field("channels", &self.channels.len())
            .field("connections", &self.clients.conns.len())
            .finish_non_exhaustive()
    }
}
