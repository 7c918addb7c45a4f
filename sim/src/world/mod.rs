//! A cluster and its clients, from the first event to the last.
//!
//! ```text
//!   queue ──event──► actor ──calls──► machine of the core, or client
//!     ▲                │                    │
//!     └── env: network, lanes, alarms ◄── actions ──► judges, trace
//! ```
//!
//! A run has two phases. In the first one clients do their work and whatever the seed, or the user,
//! has chosen breaks. In the second one, the calm, nothing breaks any more: what is published now
//! has to be accepted, and everything that was accepted has to be consumed. Then the nsqds shut
//! down, and every connection has to end.
//!
//! Fault model: see `net` for the network and `disk` for disks. An nsqlookupd
//! may die and come back with nothing; an nsqd may die, with or without its machine, or stop in
//! good order, and comes back with what is on its disk; a client may die and come back with
//! nothing. Any of them may stand still for a while. Wall clocks may step, and differ.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{AdminRequest, Config, ReplyToken, ServerStats};
use sansq_core::rng::Rng;
use sansq_core::time::{Instant, Now};

use crate::chance::stream;
use crate::client::pool::{Pool, PoolPlan};
use crate::client::publisher::Publisher;
use crate::client::raw::Hostile;
use crate::client::subscriber::Subscriber;
use crate::client::worker::{Worker, WorkerPlan};
use crate::client::{Client, Gone, Slot};
use crate::directory::Directory;
use crate::env::Env;
use crate::events::{DeadlineOwner, WorldEvent};
use crate::net::{End, Endpoint, LinkId, Process, Side};
use crate::node::{Node, ShardWork, host_of, lookupd_address};
use crate::oracles::{Discard, Observation, Oracles, Violation};
use crate::swarm::{Fault, Options};
use crate::trace::Trace;

mod calls;
mod ending;
mod faults;

use self::calls::{Asker, Caller, UnderWay};

/// What a run came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcomes {
    /// The hash over everything that happened.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// How many messages somebody tried to publish.
    pub published: usize,
    /// How many deliveries there were.
    pub delivered: usize,
    /// When, in virtual time, it ended.
    pub ended: Instant,
    /// How often what broke.
    pub faults: BTreeMap<Fault, u64>,
    /// The first rule that was broken.
    pub result: Result<(), Violation>,
}

/// A cluster and its clients.
#[derive(Debug)]
pub struct World {
    env: Env,
    options: Options,
    nodes: Vec<Node>,
    directories: Vec<Directory>,
    clients: Vec<Slot>,
    seeds: Rng,
    faults: Rng,
    /// How often what broke.
    counts: BTreeMap<Fault, u64>,
    /// Who stands still, until when.
    paused: BTreeMap<Process, Instant>,
    /// What is cut for a while.
    cuts: BTreeMap<u64, Vec<(Process, Process)>>,
    next_cut: u64,
    /// nsqds that are down for good, unless somebody starts them.
    gone: BTreeSet<usize>,
    /// Who asked which nsqd for what; `None` is the world itself.
    tokens: BTreeMap<ReplyToken, (usize, Option<Asker>)>,
    next_token: u64,
    /// Which of these requests empty or delete what.
    discards: BTreeMap<ReplyToken, Discard>,
    /// HTTP requests under way.
    calls: BTreeMap<u64, UnderWay>,
    next_call: u64,
    /// Requests to nsqds that stand still.
    asks: BTreeMap<u64, (usize, AdminRequest, Option<Asker>)>,
    /// How long they take.
    http: Rng,
    /// The statistics of each nsqd, asked for when everything else is done.
    stats: Vec<Option<ServerStats>>,
    stats_wanted: bool,
    unpaused: bool,
    events: u64,
    /// When the calm phase has to be over.
    calm_until: Instant,
    /// Everything was consumed, the nsqds shut down: until then all connections have to end.
    stopping_until: Option<Instant>,
    done: bool,
}

/// Runs what `options` describe; the trace goes where `trace` says.
pub fn run(options: Options, trace: Trace) -> Outcomes {
    let mut world = World::new(options, trace);
    world.run();
    world.outcomes()
}

impl World {
    /// A cluster whose first events are in the queue.
    ///
    /// # Panics
    /// If `options` ask for clients without nsqds, nsqlookupds or topics.
    pub fn new(options: Options, trace: Trace) -> Self {
        let has_clients = options.producers + options.consumers > 0;
        let can_serve = options.nodes > 0 && options.lookupds > 0 && options.topics > 0;
        assert!(can_serve || !has_clients, "nobody to serve the clients");
        let rng = Rng::new(options.seed);
        let max_msg_timeout = Config::default().max_msg_timeout;
        let mut env = Env::new(&options, max_msg_timeout, trace);
        if !options.faults.kinds.is_empty() {
            env.queue.push(Instant::ZERO, WorldEvent::Fault);
        }
        env.queue.push(Instant::ZERO + options.chaos, WorldEvent::Calm);
        env.queue.push(Instant::ZERO, WorldEvent::Audit);
        let mut world = Self {
            nodes: Vec::new(),
            directories: (0..options.lookupds).map(Directory::new).collect(),
            clients: Vec::new(),
            stats: Vec::new(),
            stats_wanted: false,
            unpaused: false,
            calm_until: Instant::ZERO + options.chaos + ending::CALM_MAX,
            env,
            seeds: rng.fork(stream::MACHINES),
            faults: rng.fork(stream::FAULTS),
            counts: BTreeMap::new(),
            paused: BTreeMap::new(),
            cuts: BTreeMap::new(),
            next_cut: 0,
            gone: BTreeSet::new(),
            tokens: BTreeMap::new(),
            next_token: 0,
            discards: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            asks: BTreeMap::new(),
            http: rng.fork(stream::HTTP),
            events: 0,
            stopping_until: None,
            done: false,
            options,
        };
        for _ in 0..world.options.nodes {
            world.add_nsqd(world.options.shards, |_| {});
        }
        world.add_swarm();
        world
    }

    /// The clients that the options ask for.
    fn add_swarm(&mut self) {
        let options = self.options.clone();
        let topics: Vec<_> = (0..options.topics).map(topic).collect();
        for index in 0..options.producers {
            let publisher = Publisher::new(index % options.nodes, topics.clone(), &options);
            self.add_client(publisher);
        }
        let mut subscriptions = Vec::new();
        for topic in &topics {
            for channel in (0..options.channels).map(channel) {
                subscriptions.extend((0..options.consumers).map(|_| (*topic, channel)));
            }
        }
        if options.ephemeral && options.consumers > 0 {
            subscriptions.push((topics[0], ephemeral()));
        }
        for (index, (topic, channel)) in subscriptions.into_iter().enumerate() {
            let script = if index == 0 { options.script.clone() } else { Vec::new() };
            self.add_client(Subscriber::new(topic, channel, script, &options));
        }
        for draw in &options.pools {
            let nodes = if draw.finds { Vec::new() } else { (0..options.nodes).collect() };
            self.add_client(Pool::new(PoolPlan {
                options: draw.options.clone(),
                nsqds: nodes,
                topics: topics.clone(),
                messages: options.messages,
                every_max: options.chaos * 2 / (options.messages as u32 + 1),
                body_len_max: options.body_len_max,
                last_body_len_max: options.limits.max_msg_size.unwrap_or(options.body_len_max),
                burst: options.burst,
                is_patient: draw.is_patient && options.has_room(),
            }));
        }
        for topic in &topics {
            for channel in (0..options.channels).map(channel) {
                for _ in 0..options.workers.0 {
                    self.add_client(Worker::new(WorkerPlan {
                        options: options.workers.1.clone(),
                        nsqds: Vec::new(),
                        topic: *topic,
                        channel,
                        habits: options.habits.clone(),
                        pool: None,
                    }));
                }
            }
        }
        if options.hostile && options.topics > 0 && options.channels > 0 {
            self.add_client(Hostile::new(topic(0), channel(0)));
        }
    }

    /// Starts an nsqd with `shards` shards, configured as the options say and then as `change`
    /// does, and returns its number.
    pub fn add_nsqd(&mut self, shards: u16, change: impl FnOnce(&mut Config)) -> usize {
        let index = self.nodes.len();
        let mut config = Config {
            node_id: index as u16,
            broadcast_address: host_of(index),
            hostname: host_of(index),
            ..config(&self.options, self.directories.len())
        };
        change(&mut config);
        self.env.nodes = index + 1;
        self.stats.push(None);
        let seed = self.seeds.next_u64();
        self.nodes.push(Node::new(index, shards, config, seed, &mut self.env));
        index
    }

    /// Starts a client, and returns its number.
    pub fn add_client(&mut self, client: impl Client + 'static) -> usize {
        let index = self.clients.len();
        self.env.net.set_polite(index, client.is_polite());
        let rng = Rng::new(self.options.seed).fork(stream::CLIENTS + index as u64);
        self.clients.push(Slot::new(index, Box::new(client), rng));
        self.env.queue.push(self.env.now.instant, WorldEvent::Started(index));
        index
    }

    /// From now on shows `check` everything that the judges see; what it says is wrong ends the
    /// run.
    pub fn add_check(
        &mut self,
        check: impl FnMut(Now, &Observation) -> Result<(), String> + 'static,
    ) {
        self.env.checks.push(check);
    }

    /// Lets everything happen, until all is done or a rule is broken.
    pub fn run(&mut self) {
        while !self.done && self.env.violation.is_none() {
            if !self.step() {
                break;
            }
        }
    }

    /// Lets everything happen that happens in this time, or until a rule is broken.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.env.now.instant + time;
        while !self.done
            && self.env.violation.is_none()
            && self.env.queue.next_at().is_some_and(|at| at <= end)
        {
            self.step();
        }
        self.env.set_instant(end);
    }

    /// Lets everything happen until the judges see what `is_it` looks for, for at most this time,
    /// or until a rule is broken. Returns whether it was seen: then the event in which it was seen
    /// has happened, and nothing behind it, so that what is broken now is broken at that moment.
    pub fn run_until(
        &mut self,
        time: Duration,
        mut is_it: impl FnMut(&Observation) -> bool,
    ) -> bool {
        let end = self.env.now.instant + time;
        let mut was_seen = false;
        while !was_seen
            && !self.done
            && self.env.violation.is_none()
            && self.env.queue.next_at().is_some_and(|at| at <= end)
        {
            self.env.seen = Some(Vec::new());
            self.step();
            was_seen = self.env.seen.take().is_some_and(|seen| seen.iter().any(&mut is_it));
        }
        if !was_seen {
            self.env.set_instant(end);
        }
        was_seen
    }

    /// Lets nothing break any more, everything be consumed and everything stop, and says what it
    /// all came to.
    pub fn finish(&mut self) -> Outcomes {
        if !self.env.calm {
            self.calm_down();
        }
        self.run();
        self.outcomes()
    }

    /// What it came to.
    pub fn outcomes(&self) -> Outcomes {
        Outcomes {
            hash: self.env.trace.hash(),
            events: self.events,
            published: self.env.oracles.published(),
            delivered: self.env.oracles.deliveries().len(),
            ended: self.env.now.instant,
            faults: self.counts.clone(),
            result: self.env.violation.clone().map_or(Ok(()), Err),
        }
    }

    /// The judges, with what they saw.
    pub const fn oracles(&self) -> &Oracles {
        &self.env.oracles
    }

    /// What each shard of an nsqd did so far.
    pub fn work(&self, node: usize) -> &[ShardWork] {
        self.nodes[node].work()
    }

    /// The names of the files on an nsqd's disk, in order.
    pub fn files(&self, node: usize) -> impl Iterator<Item = &str> {
        self.nodes[node].disk.names()
    }

    /// The time since the beginning.
    pub const fn now(&self) -> Instant {
        self.env.now.instant
    }

    /// Lets the next event happen; false if there is none.
    fn step(&mut self) -> bool {
        let Some((at, event)) = self.env.queue.pop() else { return false };
        self.env.set_instant(at);
        self.events += 1;
        if self.events > EVENTS_MAX {
            self.violate(format!("no end after {EVENTS_MAX} events"));
            return false;
        }
        if self.waits(event) {
            return true;
        }
        self.env.line(format_args!("{event:?}"));
        self.dispatch(event);
        self.take_replies();
        for node in 0..self.nodes.len() {
            if self.nodes[node].go_on(&mut self.env) {
                self.drop_calls(node);
                self.start_later(node);
            }
        }
        self.take_calls();
        true
    }

    /// Whether an event has to wait, because whom it is for stands still or is cut off.
    fn waits(&mut self, event: WorldEvent) -> bool {
        if self.env.net.holds(event) {
            return true;
        }
        if self.paused.is_empty() {
            return false;
        }
        let process = self.process_of(event);
        let until = process.and_then(|process| self.paused.get(&process).copied());
        match until {
            Some(until) if until > self.env.now.instant => {
                self.env.queue.push(until, event);
                true
            }
            _ => false,
        }
    }

    /// Who has to do something for this event.
    fn process_of(&self, event: WorldEvent) -> Option<Process> {
        let at = |link, side| self.env.net.who(End { link, side }).process();
        match event {
            WorldEvent::Accepted(link) => at(link, Side::Server),
            WorldEvent::Connected(link) | WorldEvent::DialFailed(link) => at(link, Side::Client),
            WorldEvent::Readable(end) | WorldEvent::Writable(end) | WorldEvent::Reset(end) => {
                at(end.link, end.side)
            }
            WorldEvent::Lane { node, .. }
            | WorldEvent::Moved { node, .. }
            | WorldEvent::Disk { node, .. } => Some(Process::Nsqd(node)),
            WorldEvent::Call(number) => match self.calls.get(&number)?.caller {
                Caller::Shard { node, .. } => Some(Process::Nsqd(node)),
                Caller::Client(asker) => Some(Process::Client(asker.client)),
            },
            WorldEvent::Deadline(DeadlineOwner::Shard { node, .. }) => Some(Process::Nsqd(node)),
            WorldEvent::Deadline(DeadlineOwner::Lookupd(index)) => Some(Process::Lookupd(index)),
            WorldEvent::Deadline(DeadlineOwner::Client(client))
            | WorldEvent::Wake { client, .. } => Some(Process::Client(client)),
            WorldEvent::Arrived(..)
            | WorldEvent::Ask(_)
            | WorldEvent::Audit
            | WorldEvent::Calm
            | WorldEvent::Check
            | WorldEvent::Fault
            | WorldEvent::Heal(_)
            | WorldEvent::LookupdUp(_)
            | WorldEvent::NodeUp(_)
            | WorldEvent::Started(_) => None,
        }
    }

    fn dispatch(&mut self, event: WorldEvent) {
        let env = &mut self.env;
        match event {
            WorldEvent::Accepted(link) => self.accepted(link),
            WorldEvent::Connected(link) => self.connected(link),
            WorldEvent::DialFailed(link) => self.dial_failed(link),
            WorldEvent::Arrived(end, len) => env.net.arrived(end, len, env.now, &mut env.queue),
            WorldEvent::Readable(end) => self.readable(end),
            WorldEvent::Writable(end) => self.writable(end),
            WorldEvent::Reset(end) => {
                if env.net.notice_reset(end) {
                    self.reset(end);
                }
            }
            WorldEvent::Lane { node, from, to } => self.nodes[node].lane(from, to, env),
            WorldEvent::Moved { node, link, shard } => self.nodes[node].moved(link, shard, env),
            WorldEvent::Disk { node, shard } => self.nodes[node].disk_done(shard, env),
            WorldEvent::NodeUp(node) => self.nodes[node].start_again(env),
            WorldEvent::Call(number) => self.call(number),
            WorldEvent::Ask(number) => {
                if let Some((node, request, asker)) = self.asks.remove(&number) {
                    self.ask(node, request, asker);
                }
            }
            WorldEvent::Deadline(DeadlineOwner::Shard { node, shard }) => {
                self.nodes[node].deadline(shard, env);
            }
            WorldEvent::Deadline(DeadlineOwner::Lookupd(index)) => {
                self.directories[index].deadline(env)
            }
            WorldEvent::Deadline(DeadlineOwner::Client(index)) => self.clients[index].deadline(env),
            WorldEvent::Started(index) => {
                self.clients[index].with(env, |client, context| client.started(context));
            }
            WorldEvent::Wake { client, life, token } => {
                if self.clients[client].life == life {
                    self.clients[client].with(env, |client, context| client.woken(token, context));
                }
            }
            WorldEvent::Fault => self.fault(),
            WorldEvent::Heal(number) => self.heal_cut(number),
            WorldEvent::LookupdUp(index) => self.directories[index].start(),
            WorldEvent::Calm => self.calm_down(),
            WorldEvent::Check => self.check(),
            WorldEvent::Audit => self.audit(),
        }
    }

    fn accepted(&mut self, link: LinkId) {
        let end = End { link, side: Side::Server };
        let env = &mut self.env;
        if !env.net.is_open(end) {
            return;
        }
        match env.net.who(end) {
            Endpoint::Nsqd(node) => self.nodes[node].accept(link, env),
            Endpoint::Lookupd(index) => self.directories[index].accept(link, env),
            Endpoint::Peer { .. } | Endpoint::Client(_) | Endpoint::Nobody => {}
        }
    }

    fn connected(&mut self, link: LinkId) {
        let end = End { link, side: Side::Client };
        let env = &mut self.env;
        if !env.net.is_open(end) {
            return;
        }
        match env.net.who(end) {
            Endpoint::Peer { node, peer } => self.nodes[node].peer_connected(peer, link, env),
            Endpoint::Client(index) => self.clients[index].connected(link, env),
            Endpoint::Nsqd(_) | Endpoint::Lookupd(_) | Endpoint::Nobody => {}
        }
    }

    fn dial_failed(&mut self, link: LinkId) {
        let end = End { link, side: Side::Client };
        let env = &mut self.env;
        if !env.net.is_open(end) {
            return;
        }
        match env.net.who(end) {
            Endpoint::Peer { node, peer } => {
                self.nodes[node].peer_closed(peer, link, "connection refused", env);
            }
            Endpoint::Client(index) => self.clients[index].gone(link, Gone::Refused, env),
            Endpoint::Nsqd(_) | Endpoint::Lookupd(_) | Endpoint::Nobody => {}
        }
    }

    fn readable(&mut self, end: End) {
        let env = &mut self.env;
        if !env.net.is_open(end) {
            return;
        }
        let link = end.link;
        match env.net.who(end) {
            Endpoint::Nsqd(node) => self.nodes[node].readable(link, env),
            Endpoint::Peer { node, peer } => self.nodes[node].peer_readable(peer, link, env),
            Endpoint::Lookupd(index) => self.directories[index].readable(link, env),
            Endpoint::Client(index) => self.clients[index].readable(link, env),
            Endpoint::Nobody => {}
        }
    }

    fn writable(&mut self, end: End) {
        let env = &mut self.env;
        if !env.net.is_open(end) {
            return;
        }
        let link = end.link;
        match env.net.who(end) {
            Endpoint::Nsqd(node) => self.nodes[node].writable(link, env),
            Endpoint::Peer { node, peer } => self.nodes[node].peer_writable(peer, link, env),
            Endpoint::Lookupd(index) => self.directories[index].writable(link, env),
            Endpoint::Client(index) => self.clients[index].writable(link, env),
            Endpoint::Nobody => {}
        }
    }

    fn reset(&mut self, end: End) {
        let (env, link, why) = (&mut self.env, end.link, "connection reset by peer");
        match env.net.who(end) {
            Endpoint::Nsqd(node) => self.nodes[node].reset(link, env),
            Endpoint::Peer { node, peer } => self.nodes[node].peer_closed(peer, link, why, env),
            Endpoint::Lookupd(index) => self.directories[index].reset(link, env),
            Endpoint::Client(index) => self.clients[index].gone(link, Gone::Broken, env),
            Endpoint::Nobody => {}
        }
    }

    fn violate(&mut self, text: String) {
        self.env.judge(Err(Violation::Other(text)));
    }
}

fn config(options: &Options, lookupds: usize) -> Config {
    options.limits.apply(Config {
        lookupd_tcp_addresses: (0..lookupds).map(lookupd_address).collect(),
        mem_queue_size: options.mem_queue_size,
        disk: options.disks.is_some(),
        max_bytes_per_file: options.disks.map_or(0, |disks| disks.max_bytes_per_file),
        sync_every: options.disks.map_or(0, |disks| disks.sync_every),
        msg_timeout: options.msg_timeout,
        ..Config::default()
    })
}

/// The name of the swarm's topic number `at`: `t0`, `t1` and so on.
pub fn topic(at: usize) -> TopicName {
    TopicName::new(format!("t{at}")).expect("letters and digits make a name")
}

/// The name of the swarm's channel number `at`: `c0`, `c1` and so on.
pub fn channel(at: usize) -> ChannelName {
    ChannelName::new(format!("c{at}")).expect("letters and digits make a name")
}

fn ephemeral() -> ChannelName {
    ChannelName::new("tail#ephemeral").expect("this is a name")
}

/// Far more events than any run has.
const EVENTS_MAX: u64 = 4_000_000;
