//! A cluster and its clients, from the first event to the last.
//!
//! ```text
//!   queue ──event──► actor ──calls──► machine of the core
//!     ▲                │                    │
//!     └── env: network, lanes, alarms ◄── actions ──► judges, trace
//! ```
//!
//! A run has two phases. In the first one messages are published and whatever the seed has drawn breaks.
//! In the second one nothing breaks any more: what is published now has to be accepted, and everything
//! that was accepted has to be consumed. Then the nsqds shut down, and every connection has to end.
//!
//! Fault model: see `net` for the network and `disk` for disks. An nsqlookupd
//! may die and come back with nothing; an nsqd may die, with or without its machine, or stop in good order,
//! and comes back with what is on its disk. The wall clock may step.

use core::time::Duration;
use std::collections::BTreeMap;

use sansq_core::arena::CallId;
use sansq_core::http::call::{Call, CallFailure};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    AdminReply, AdminRequest, Batch, ChannelOp, ChannelStats, Config, ReplyToken, ServerStats,
    StatsFilter, TopicOp,
};
use sansq_core::rng::Rng;
use sansq_core::time::Instant;

use crate::chance::{Chance, stream};
use crate::clients::{AdminPublish, Consumer, Publisher, complete};
use crate::directory::Directory;
use crate::disk::DOWN_MAX as NODE_DOWN_MAX;
use crate::env::Env;
use crate::events::{Event, Machine};
use crate::model::{MessageNumber, Outcome, Place};
use crate::net::{End, Endpoint, LinkId, Side};
use crate::node::{Node, host_of, lookupd_address, lookupd_of};
use crate::oracles::{Oracles, Violation};
use crate::swarm::{Fault, Options};
use crate::trace::Trace;

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
    publishers: Vec<Publisher>,
    consumers: Vec<Consumer>,
    faults: Rng,
    lookups: Rng,
    /// Which messages an admin request publishes, and on which nsqd.
    tokens: BTreeMap<ReplyToken, (usize, Vec<MessageNumber>)>,
    next_token: u64,
    /// HTTP requests under way.
    calls: BTreeMap<u64, UnderWay>,
    next_call: u64,
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

/// An HTTP request of an nsqd's shard; `None` if it takes too long.
#[derive(Debug)]
struct UnderWay {
    node: usize,
    shard: usize,
    id: CallId,
    call: Option<Call>,
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
    /// If `options` ask for a cluster without nsqds, nsqlookupds or topics.
    pub fn new(options: Options, trace: Trace) -> Self {
        assert!(options.nodes > 0 && options.lookupds > 0 && options.topics > 0, "nothing to run");
        let rng = Rng::new(options.seed);
        let mut seeds = rng.fork(stream::MACHINES);
        let base = config(&options);
        let mut env = Env::new(&options, base.max_msg_timeout, trace);
        let node = |index: usize| {
            let config = Config {
                node_id: index as u16,
                broadcast_address: host_of(index),
                hostname: host_of(index),
                ..base.clone()
            };
            Node::new(index, options.shards, config, seeds.next_u64(), &mut env)
        };
        let nodes: Vec<_> = (0..options.nodes).map(node).collect();
        let topics: Vec<_> = (0..options.topics).map(topic).collect();
        let publisher =
            |index| Publisher::new(index, index % options.nodes, topics.clone(), &options);
        let publishers: Vec<_> = (0..options.producers).map(publisher).collect();
        let mut subscriptions = Vec::new();
        for topic in &topics {
            for channel in (0..options.channels).map(channel) {
                subscriptions.extend((0..options.consumers).map(|_| (*topic, channel)));
            }
        }
        if options.ephemeral {
            subscriptions.push((topics[0], ephemeral()));
        }
        let consumer = |(index, (topic, channel))| Consumer::new(index, topic, channel, &options);
        let consumers: Vec<_> = subscriptions.into_iter().enumerate().map(consumer).collect();
        for index in 0..publishers.len() {
            env.queue.push(Instant::ZERO, Event::Publish(index));
        }
        for index in 0..consumers.len() {
            env.queue.push(Instant::ZERO, Event::Lookup(index));
        }
        if !options.faults.kinds.is_empty() {
            env.queue.push(Instant::ZERO, Event::Fault);
        }
        env.queue.push(Instant::ZERO + options.chaos, Event::Calm);
        Self {
            directories: (0..options.lookupds).map(Directory::new).collect(),
            stats: (0..options.nodes).map(|_| None).collect(),
            stats_wanted: false,
            unpaused: false,
            calm_until: Instant::ZERO + options.chaos + CALM_MAX,
            env,
            nodes,
            publishers,
            consumers,
            faults: rng.fork(stream::FAULTS),
            lookups: rng.fork(stream::LOOKUPS),
            tokens: BTreeMap::new(),
            next_token: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            http: rng.fork(stream::HTTP),
            events: 0,
            stopping_until: None,
            done: false,
            options,
        }
    }

    /// Lets everything happen, until all is done or a rule is broken.
    pub fn run(&mut self) {
        while !self.done && self.env.violation.is_none() {
            if !self.step() {
                break;
            }
        }
    }

    /// What it came to.
    pub fn outcomes(&self) -> Outcomes {
        Outcomes {
            hash: self.env.trace.hash(),
            events: self.events,
            published: self.env.oracles.published(),
            delivered: self.env.oracles.deliveries().len(),
            ended: self.env.now.instant,
            result: self.env.violation.clone().map_or(Ok(()), Err),
        }
    }

    /// The judges, with what they saw.
    pub const fn oracles(&self) -> &Oracles {
        &self.env.oracles
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

    fn dispatch(&mut self, event: Event) {
        let env = &mut self.env;
        match event {
            Event::Accepted(link) => self.accepted(link),
            Event::Connected(link) => self.connected(link),
            Event::DialFailed(link) => self.dial_failed(link),
            Event::Arrived(end, len) => env.net.arrived(end, len, env.now, &mut env.queue),
            Event::Readable(end) => self.readable(end),
            Event::Writable(end) => self.writable(end),
            Event::Reset(end) => {
                if env.net.notice_reset(end) {
                    self.reset(end);
                }
            }
            Event::Lane { node, from, to } => self.nodes[node].lane(from, to, env),
            Event::Moved { node, link, shard } => self.nodes[node].moved(link, shard, env),
            Event::Disk { node, shard } => self.nodes[node].disk_done(shard, env),
            Event::NodeUp(node) => self.nodes[node].start_again(env),
            Event::Call(number) => self.call(number),
            Event::Deadline(Machine::Shard { node, shard }) => {
                self.nodes[node].deadline(shard, env);
            }
            Event::Deadline(Machine::Lookupd(index)) => self.directories[index].deadline(env),
            Event::Deadline(Machine::Producer(index)) => self.publishers[index].deadline(env),
            Event::Deadline(Machine::Consumer(index)) => self.consumers[index].deadline(env),
            Event::Publish(index) => {
                let node = self.publishers[index].node;
                if let Some(publish) = self.publishers[index].publish(env) {
                    self.admin_publish(node, publish);
                }
            }
            Event::PublishLast(index) => self.publishers[index].publish_last(env),
            Event::Lookup(index) => self.look_up(index),
            Event::Answer(index) => self.consumers[index].answer(env),
            Event::Decide { consumer, plan } => self.consumers[consumer].decide(plan, env),
            Event::Fault => self.fault(),
            Event::LookupdUp(index) => self.directories[index].start(),
            Event::Calm => self.calm_down(),
            Event::Check => self.check(),
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
            Endpoint::Peer { .. } | Endpoint::Producer(_) | Endpoint::Consumer(_) => {}
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
            Endpoint::Producer(index) => self.publishers[index].connected(link, env),
            Endpoint::Consumer(index) => self.consumers[index].connected(link, env),
            Endpoint::Nsqd(_) | Endpoint::Lookupd(_) => {}
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
            Endpoint::Producer(index) => self.publishers[index].dial_failed(link, env),
            Endpoint::Consumer(index) => self.consumers[index].drop_link(link, env),
            Endpoint::Nsqd(_) | Endpoint::Lookupd(_) => {}
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
            Endpoint::Producer(index) => self.publishers[index].readable(link, env),
            Endpoint::Consumer(index) => self.consumers[index].readable(link, env),
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
            Endpoint::Producer(index) => self.publishers[index].writable(link, env),
            Endpoint::Consumer(index) => self.consumers[index].writable(link, env),
        }
    }

    fn reset(&mut self, end: End) {
        let (env, link, why) = (&mut self.env, end.link, "connection reset by peer");
        match env.net.who(end) {
            Endpoint::Nsqd(node) => self.nodes[node].reset(link, env),
            Endpoint::Peer { node, peer } => self.nodes[node].peer_closed(peer, link, why, env),
            Endpoint::Lookupd(index) => self.directories[index].reset(link, env),
            Endpoint::Producer(index) => self.publishers[index].closed(link, Some(why), env),
            Endpoint::Consumer(index) => self.consumers[index].drop_link(link, env),
        }
    }

    /// A consumer asks one of the nsqlookupds.
    fn look_up(&mut self, index: usize) {
        let directory = self.lookups.pick(&self.directories);
        let nodes = directory.lookup(&self.consumers[index].topic, &self.env);
        self.consumers[index].look_up(nodes, &mut self.env);
    }

    fn admin_publish(&mut self, node: usize, publish: AdminPublish) {
        let AdminPublish { topic, mut bodies, messages } = publish;
        if !self.nodes[node].is_up() {
            return complete(&messages, Outcome::Refused, &mut self.env);
        }
        let batch = match bodies.pop() {
            Some(body) if bodies.is_empty() => Batch::One(body),
            last => {
                bodies.extend(last);
                Batch::Many(bodies)
            }
        };
        let token = self.token();
        self.tokens.insert(token, (node, messages));
        let request = AdminRequest::Publish { topic, batch, delay: Duration::ZERO };
        self.nodes[node].admin(request, token, &mut self.env);
    }

    fn token(&mut self) -> ReplyToken {
        self.next_token += 1;
        ReplyToken(self.next_token)
    }

    /// Takes the HTTP requests of the nsqds. Most take milliseconds, some too long.
    fn take_calls(&mut self) {
        for node in 0..self.nodes.len() {
            for (shard, id, call) in core::mem::take(&mut self.nodes[node].calls) {
                let slow = !self.env.calm && self.http.percent(10);
                let delay = self.http.within(if slow { 2 * call.timeout } else { HTTP_DELAY_MAX });
                let at = self.env.now.instant + delay.min(call.timeout);
                self.env.queue.push(at, Event::Call(self.next_call));
                let call = (delay < call.timeout).then_some(call);
                self.calls.insert(self.next_call, UnderWay { node, shard, id, call });
                self.next_call += 1;
            }
        }
    }

    /// Whoever asked is gone.
    fn drop_calls(&mut self, node: usize) {
        self.calls.retain(|_, call| call.node != node);
        self.nodes[node].calls.clear();
    }

    /// An nsqlookupd answers an HTTP request. The way back takes no time.
    fn call(&mut self, number: u64) {
        let Some(UnderWay { node, shard, id, call }) = self.calls.remove(&number) else { return };
        let result = match call {
            None => Err(CallFailure::TimedOut),
            Some(call) => match lookupd_of(call.url.host()) {
                Some(index) => self.directories[index].answer(&call, &mut self.env),
                None => Err(CallFailure::Failed("no such host".into())),
            },
        };
        self.nodes[node].called(shard, id, result, &mut self.env);
    }

    /// Takes the replies of the admin interfaces.
    fn take_replies(&mut self) {
        for node in 0..self.nodes.len() {
            for (token, reply) in core::mem::take(&mut self.nodes[node].replies) {
                self.env.line(format_args!("  nsqd {node} replies to {token:?}"));
                let messages = self.tokens.remove(&token).map(|(_, messages)| messages);
                match (reply, messages) {
                    (AdminReply::Published, Some(messages)) => {
                        complete(&messages, Outcome::Accepted, &mut self.env);
                    }
                    (AdminReply::Refused(_), Some(messages)) => {
                        complete(&messages, Outcome::Refused, &mut self.env);
                    }
                    (AdminReply::Stats(stats), None) => self.stats[node] = Some(*stats),
                    // A pause of something that does not exist.
                    (AdminReply::Done | AdminReply::Refused(_), None) => {}
                    (other, messages) => {
                        self.violate(format!("{other:?} is no reply to {messages:?}"));
                    }
                }
            }
        }
    }

    fn fault(&mut self) {
        if self.env.calm {
            return;
        }
        let next = self.env.now.instant + self.faults.within(self.options.faults.every_max);
        self.env.queue.push(next, Event::Fault);
        let rng = &mut self.faults;
        let env = &mut self.env;
        match *rng.pick(&self.options.faults.kinds) {
            Fault::LoseLink => {
                if let Some(link) = env.net.any_live(rng) {
                    env.line(format_args!("  link {} breaks", link.0));
                    env.net.break_link(link, env.now, &mut env.queue);
                }
            }
            Fault::StallLink => {
                if let Some(link) = env.net.any_live(rng) {
                    let until = env.now.instant + rng.within(STALL_MAX);
                    env.line(format_args!("  link {} stalls until {until:?}", link.0));
                    env.net.stall(link, until);
                }
            }
            Fault::RestartLookupd => {
                let index = rng.below(self.directories.len() as u64) as usize;
                if self.directories[index].is_up() {
                    self.directories[index].stop(env);
                    let at = env.now.instant + rng.within(DOWN_MAX);
                    env.queue.push(at, Event::LookupdUp(index));
                }
            }
            Fault::StepClock => {
                let nanos = rng.within(CLOCK_STEP_MAX).as_nanos() as i64;
                env.step_clock(if rng.percent(50) { nanos } else { -nanos });
            }
            Fault::BreakDisk => {
                let node = rng.below(self.nodes.len() as u64) as usize;
                let disk = &mut self.nodes[node].disk;
                if rng.percent(50) { disk.break_somehow() } else { disk.mend() }
            }
            Fault::KillNode => {
                let node = rng.below(self.nodes.len() as u64) as usize;
                self.kill(node, false);
            }
            Fault::LosePower => {
                let node = rng.below(self.nodes.len() as u64) as usize;
                self.kill(node, true);
            }
            Fault::RestartNode => {
                let node = rng.below(self.nodes.len() as u64) as usize;
                if self.nodes[node].is_up() && self.options.disks.is_some() {
                    self.nodes[node].disk.mend();
                    self.nodes[node].shut_down(true, env);
                }
            }
            Fault::Pause => {
                let node = rng.below(self.nodes.len() as u64) as usize;
                let topic = topic(rng.below(self.options.topics as u64) as usize);
                let channel = channel(rng.below(self.options.channels as u64) as usize);
                let request = match rng.below(4) {
                    0 => AdminRequest::Topic(topic, TopicOp::Pause),
                    1 => AdminRequest::Topic(topic, TopicOp::Unpause),
                    2 => AdminRequest::Channel(topic, channel, ChannelOp::Pause),
                    _ => AdminRequest::Channel(topic, channel, ChannelOp::Unpause),
                };
                self.ask(node, request);
            }
        }
    }

    /// An nsqd that is down is started again after a while.
    fn start_later(&mut self, node: usize) {
        let at = self.env.now.instant + self.faults.within(NODE_DOWN_MAX);
        self.env.queue.push(at, Event::NodeUp(node));
    }

    fn kill(&mut self, node: usize, loses_power: bool) {
        if !self.nodes[node].is_up() || self.options.disks.is_none() {
            return;
        }
        self.nodes[node].kill(loses_power, &mut self.env);
        self.drop_calls(node);
        // Whoever waited for an answer gets none.
        let waiting = self.tokens.iter().filter(|(_, (of, _))| *of == node);
        let waiting: Vec<_> = waiting.map(|(token, _)| *token).collect();
        for token in waiting {
            if let Some((_, messages)) = self.tokens.remove(&token) {
                complete(&messages, Outcome::Unknown, &mut self.env);
            }
        }
        self.start_later(node);
    }

    fn ask(&mut self, node: usize, request: AdminRequest) {
        if !self.nodes[node].is_up() {
            return;
        }
        let token = self.token();
        self.nodes[node].admin(request, token, &mut self.env);
    }

    /// From now on everything has to work.
    fn calm_down(&mut self) {
        self.env.calm = true;
        self.env.net.calm_down();
        self.nodes.iter_mut().for_each(|node| node.disk.mend());
        let now = self.env.now.instant;
        for index in 0..self.publishers.len() {
            self.env.queue.push(now + LAST_AFTER, Event::PublishLast(index));
        }
        self.env.queue.push(now + CHECK_EVERY, Event::Check);
    }

    /// Unpauses everything that a fault may have paused.
    fn unpause(&mut self) {
        for node in 0..self.nodes.len() {
            for at in 0..self.options.topics {
                self.ask(node, AdminRequest::Topic(topic(at), TopicOp::Unpause));
                for channel in (0..self.options.channels).map(channel) {
                    let request = AdminRequest::Channel(topic(at), channel, ChannelOp::Unpause);
                    self.ask(node, request);
                }
            }
        }
    }

    /// Whether everything is consumed, and then whether everything is closed.
    fn check(&mut self) {
        let now = self.env.now.instant;
        self.env.queue.push(now + CHECK_EVERY, Event::Check);
        if self.stopping_until.is_none() && !self.nodes.iter().all(Node::is_up) {
            if now >= self.calm_until {
                self.violate("an nsqd does not come back".into());
            }
            return;
        }
        // Not earlier: it must not overtake a request to pause that goes another way.
        if !core::mem::replace(&mut self.unpaused, true) {
            self.unpause();
        }
        if let Some(until) = self.stopping_until {
            let open: usize = self.nodes.iter().map(Node::connections).sum();
            self.done = self.nodes.iter().all(Node::is_down);
            if !self.done && now >= until {
                self.violate(format!("an nsqd has not ended, {open} connections are open"));
            }
            return;
        }
        let undone = match self.find_undone() {
            None if self.stats_wanted => self.find_left(),
            undone => undone,
        };
        match undone {
            None if self.stats_wanted => {
                self.check_stats();
                self.stopping_until = Some(now + STOP_MAX);
                for node in &mut self.nodes {
                    node.shut_down(false, &mut self.env);
                }
            }
            Some(undone) if now >= self.calm_until => self.env.judge(Err(undone)),
            // What the nsqds say counts if it is asked for after the last message.
            still => {
                self.stats_wanted = still.is_none();
                for node in 0..self.nodes.len() {
                    self.stats[node] = None;
                    self.ask(node, AdminRequest::Stats(StatsFilter::default()));
                }
            }
        }
    }

    /// Something that clients still have to do.
    fn find_undone(&self) -> Option<Violation> {
        if let Err(violation) = self.env.oracles.check_drained() {
            return Some(violation);
        }
        if let Some(at) = self.publishers.iter().position(|publisher| !publisher.is_idle()) {
            return Some(Violation::Other(format!("producer {at} has publishes without outcome")));
        }
        let unanswered = !self.tokens.is_empty();
        unanswered.then(|| Violation::Other("an admin publish was never answered".into()))
    }

    /// Messages that nsqds still have.
    fn find_left(&self) -> Option<Violation> {
        for (node, stats) in self.stats.iter().enumerate() {
            let Some(stats) = stats else {
                return Some(Violation::Other(format!("nsqd {node} gives no statistics")));
            };
            for topic in &stats.topics {
                // Without a channel messages collect, as they should.
                let depth = if topic.channels.is_empty() { 0 } else { topic.depth };
                let left = |channel: &ChannelStats| {
                    channel.depth + channel.in_flight_count + channel.deferred_count
                };
                let left = depth + topic.channels.iter().map(left).sum::<u64>();
                if left > 0 {
                    let text = format!("nsqd {node} has messages left: {topic:?}");
                    return Some(Violation::Other(text));
                }
            }
        }
        None
    }

    /// Compares what the nsqds counted with what was seen.
    fn check_stats(&mut self) {
        for (node, stats) in self.stats.iter().enumerate() {
            for topic in stats.iter().flat_map(|stats| &stats.topics) {
                let counted = self.env.oracles.check_count(node, &topic.name, topic.message_count);
                let mut results = vec![counted];
                // An ephemeral channel may have begun anew.
                let lasting = topic.channels.iter().filter(|channel| !channel.name.is_ephemeral());
                results.extend(lasting.map(|channel| {
                    let place = Place { node, topic: topic.name, channel: channel.name };
                    self.env.oracles.check_requeues(&place, channel.requeue_count)
                }));
                for result in results {
                    self.env.judge(result);
                }
            }
        }
    }

    fn violate(&mut self, text: String) {
        self.env.judge(Err(Violation::Other(text)));
    }
}

fn config(options: &Options) -> Config {
    Config {
        lookupd_tcp_addresses: (0..options.lookupds).map(lookupd_address).collect(),
        mem_queue_size: options.mem_queue_size,
        disk: options.disks.is_some(),
        max_bytes_per_file: options.disks.map_or(0, |disks| disks.max_bytes_per_file),
        sync_every: options.disks.map_or(0, |disks| disks.sync_every),
        msg_timeout: options.msg_timeout,
        ..Config::default()
    }
}

fn topic(at: usize) -> TopicName {
    TopicName::new(format!("t{at}")).expect("letters and digits make a name")
}

fn channel(at: usize) -> ChannelName {
    ChannelName::new(format!("c{at}")).expect("letters and digits make a name")
}

fn ephemeral() -> ChannelName {
    ChannelName::new("tail#ephemeral").expect("this is a name")
}

/// Far more events than any run has.
const EVENTS_MAX: u64 = 2_000_000;

/// How long an HTTP request to an nsqlookupd takes, most often.
const HTTP_DELAY_MAX: Duration = Duration::from_millis(20);

/// How long, once nothing breaks any more, consuming everything may take: the longest time-outs and
/// back-offs, one behind the other.
const CALM_MAX: Duration = Duration::from_secs(300);

/// When, after things have stopped breaking, everything has to work again: connections that broke are
/// noticed and made anew, nsqlookupds know everything, and what waited for room is through.
const LAST_AFTER: Duration = Duration::from_secs(60);

/// How long connections may take to close; nsqds linger for five seconds.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Between two looks at whether all is done.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The longest that a connection stands still: beyond the shorter heartbeats.
const STALL_MAX: Duration = Duration::from_secs(12);

/// The longest that an nsqlookupd is down.
const DOWN_MAX: Duration = Duration::from_secs(5);

/// The longest step of the wall clock.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(6 * 3600);
