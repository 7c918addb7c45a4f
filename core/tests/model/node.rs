//! A whole node and its clients, in any order of events: several shards, lanes and moves between them
//! that take their time, and a bookkeeper who knows what each client was promised.
//!
//! Checked on the way: answers come in the order of the commands, with the right words; attempts rise by
//! one per delivery; nothing is delivered that was not published, nor on a channel of another topic.
//!
//! Checked in the end, when everybody's patience is over: no client waits for an answer, no connection is
//! left on a channel that is gone, everything drains, and every message that was acknowledged was
//! finished on each channel that existed when it was published, unless somebody emptied or deleted that.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use sansq_core::arena::ConnId;
use sansq_core::client::frame::{self, Frame};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::config::PENDING_REPLIES_MAX;
use sansq_core::nsqd::{
    Actions, AdminReply, AdminRequest, Batch, ChannelOp, Close, Config, Detached, Peer, ReadState,
    ReplyToken, ServerStats, Shard, ShardId, ShardMessage, StatsFilter, TopicOp,
};
use sansq_core::time::{Instant, Now};
use sansq_core::transmit::Transmit;

/// What happens next. Clients, lanes and the like are named by any number, taken modulo how many there
/// are; times are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Connect {
        shard: usize,
    },
    Pub {
        client: usize,
        topic: usize,
    },
    /// More publishes in one write than may be unanswered.
    Burst {
        client: usize,
        topic: usize,
    },
    Mpub {
        client: usize,
        topic: usize,
        messages: usize,
    },
    Dpub {
        client: usize,
        topic: usize,
        delay: u64,
    },
    Sub {
        client: usize,
        topic: usize,
        channel: usize,
    },
    Rdy {
        client: usize,
        count: usize,
    },
    Fin {
        client: usize,
        message: usize,
    },
    Req {
        client: usize,
        message: usize,
        delay: u64,
    },
    Touch {
        client: usize,
        message: usize,
    },
    Cls {
        client: usize,
    },
    /// The client's socket goes.
    Drop {
        client: usize,
    },
    /// It goes in the middle of a command.
    DropInside {
        client: usize,
        topic: usize,
        bytes: usize,
    },
    /// The client takes what it is sent, or does not for a while.
    Reads {
        client: usize,
        reads: bool,
    },
    /// The socket of a connection that the broker closed is closed at last.
    Closed {
        client: usize,
    },
    Topic {
        shard: usize,
        topic: usize,
        op: TopicOp,
    },
    Channel {
        shard: usize,
        topic: usize,
        channel: usize,
        op: ChannelOp,
    },
    /// HTTP's publish.
    Post {
        shard: usize,
        topic: usize,
    },
    /// A batch from one shard arrives at another.
    Lane {
        lane: usize,
    },
    /// A moving connection arrives.
    Arrive {
        connection: usize,
    },
    Wait {
        millis: u64,
    },
}

const TOPICS: [&str; 4] = ["a", "b", "c", "e#ephemeral"];
const CHANNELS: [&str; 3] = ["x", "y", "z#ephemeral"];
const MSG_TIMEOUT: Duration = Duration::from_secs(3);

/// A topic and a channel, by their numbers.
type Place = (usize, usize);

/// What the bookkeeper knows of a message.
struct Published {
    topic: usize,
    /// Channels that existed, for all that anybody knew, when it was sent.
    owed_to: Vec<Place>,
    acknowledged: bool,
    refused: bool,
    /// Its topic, or one of the channels, was deleted or emptied since it was sent.
    disturbed: bool,
    finished_on: BTreeSet<Place>,
    attempts: BTreeMap<Place, u16>,
}

/// An answer that a client waits for.
#[derive(Debug)]
enum Awaited {
    /// To a publish of these messages: `OK`, or the failure of this command.
    Publish(Vec<usize>, &'static str),
    /// To SUB.
    Subscribe(Place),
    CloseWait,
    /// Perhaps this error.
    Perhaps(String),
}

struct Client {
    home: Option<(usize, ConnId)>,
    input: BytesMut,
    received: BytesMut,
    waits: bool,
    reads: bool,
    /// The broker closes it.
    closing: bool,
    /// The client is gone.
    gone: bool,
    /// What SUB was sent for, and whether it was answered.
    place: Option<(Place, bool)>,
    closes: bool,
    /// And was told `CLOSE_WAIT`.
    closed: bool,
    awaited: VecDeque<Awaited>,
    /// What it holds, by id: the message's number, and until when it is its own.
    held: Vec<(String, usize, Instant)>,
    /// FINs that the broker has not read yet.
    finishing: Vec<(String, usize, Instant)>,
}

/// What an admin request was about.
enum Asked {
    Create(Place),
    Destroyed,
    Publish(usize),
    Other,
}

/// The node, its clients, and the bookkeeper.
pub struct World {
    /// Whether all clients read what they are sent at once. If not, bodies are large, and deliveries
    /// are seen later than they happen, in any order.
    all_read: bool,
    now: Now,
    shards: Vec<Shard>,
    actions: Vec<Actions>,
    /// By sender and receiver; between two shards the order is kept.
    lanes: BTreeMap<(usize, usize), VecDeque<Vec<ShardMessage>>>,
    moving: Vec<(usize, Detached, usize)>,
    clients: Vec<Client>,
    messages: Vec<Published>,
    /// Channels that somebody was told exist.
    channels: BTreeSet<Place>,
    /// Topics that have, or had, an ephemeral channel.
    ephemeral: BTreeSet<usize>,
    /// How often something was deleted or emptied.
    destructions: u64,
    /// Admin requests that are not answered, and how many destructions there had been; `None` if one
    /// was under way.
    asked: BTreeMap<u64, (Asked, Option<u64>)>,
    tokens: u64,
    stats: Option<ServerStats>,
}

impl World {
    pub fn new(shards: u16, max_channel_consumers: usize, all_read: bool) -> Self {
        let config =
            Config { max_channel_consumers, msg_timeout: MSG_TIMEOUT, ..Config::default() };
        let mut world = Self {
            all_read,
            now: Now::from_millis(1_789_000_000_000),
            shards: (0..shards)
                .map(|id| Shard::new(ShardId(id), shards, config.clone(), 7))
                .collect(),
            actions: (0..shards).map(|_| Actions::new(shards)).collect(),
            lanes: BTreeMap::new(),
            moving: Vec::new(),
            clients: Vec::new(),
            messages: Vec::new(),
            channels: BTreeSet::new(),
            ephemeral: BTreeSet::new(),
            destructions: 0,
            asked: BTreeMap::new(),
            tokens: 0,
            stats: None,
        };
        for shard in 0..usize::from(shards) {
            world.shards[shard].start(world.now, &mut world.actions[shard]);
        }
        world.run();
        world
    }

    /// # Panics
    /// If the node is wrong.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Connect { shard } => {
                self.connect(shard);
            }
            Step::Pub { client, topic } => self.publish(client, topic, 1, None, "PUB"),
            Step::Burst { client, topic } => self.burst(client, topic),
            Step::Mpub { client, topic, messages } => {
                self.publish(client, topic, messages, None, "MPUB");
            }
            Step::Dpub { client, topic, delay } => {
                self.publish(client, topic, 1, Some(delay), "DPUB");
            }
            Step::Sub { client, topic, channel } => {
                if let Some(at) = self.living(client)
                    && self.clients[at].place.is_none()
                {
                    let place = (topic % TOPICS.len(), channel % CHANNELS.len());
                    self.subscribe(at, place);
                }
            }
            Step::Rdy { client, count } => {
                if let Some(at) = self.consumer(client) {
                    self.send(at, format!("RDY {count}\n").as_bytes());
                }
            }
            Step::Fin { client, message } => {
                if let Some((at, held)) = self.held(client, message) {
                    self.finish(at, held);
                }
            }
            Step::Req { client, message, delay } => {
                if let Some((at, held)) = self.held(client, message) {
                    let (id, ..) = self.clients[at].held.swap_remove(held);
                    self.answer(at, "REQ", &id, &format!(" {delay}"));
                }
            }
            Step::Touch { client, message } => {
                if let Some((at, held)) = self.held(client, message) {
                    let (id, _, until) = &mut self.clients[at].held[held];
                    let id = id.clone();
                    if *until > self.now.instant {
                        *until = self.now.instant + MSG_TIMEOUT;
                    }
                    self.answer(at, "TOUCH", &id, "");
                }
            }
            Step::Cls { client } => {
                if let Some(at) = self.consumer(client) {
                    self.clients[at].closes = true;
                    self.clients[at].awaited.push_back(Awaited::CloseWait);
                    self.send(at, b"CLS\n");
                }
            }
            Step::Drop { client } => {
                if let Some(at) = self.living(client) {
                    self.close(at);
                }
            }
            Step::Reads { client, reads } => {
                if let Some(at) = self.living(client).filter(|_| !self.all_read) {
                    self.clients[at].reads = reads;
                    self.write(at);
                }
            }
            Step::DropInside { client, topic, bytes } => {
                if let Some(at) = self.living(client) {
                    let command = pub_command(TOPICS[topic % TOPICS.len()], "never published");
                    let bytes = bytes % command.len();
                    self.send(at, &command[..bytes]);
                    self.close(at);
                }
            }
            Step::Closed { client } => {
                let closing = |client: &Client| client.closing && !client.gone;
                let closing: Vec<_> =
                    (0..self.clients.len()).filter(|at| closing(&self.clients[*at])).collect();
                if let Some(number) = client.checked_rem(closing.len()) {
                    self.close(closing[number]);
                }
            }
            Step::Topic { shard, topic, op } => self.topic_op(shard, topic % TOPICS.len(), op),
            Step::Channel { shard, topic, channel, op } => {
                let place = (topic % TOPICS.len(), channel % CHANNELS.len());
                self.channel_op(shard, place, op);
            }
            Step::Post { shard, topic } => self.post(shard, topic % TOPICS.len()),
            Step::Lane { lane } => self.lane(lane),
            Step::Arrive { connection } => self.arrive(connection),
            Step::Wait { millis } => self.elapse(Duration::from_millis(millis)),
        }
        self.run();
    }

    /// Ends: whatever is under way arrives, pauses end, and fresh consumers take all that is left.
    ///
    /// # Panics
    /// If the node is wrong.
    pub fn end(mut self) {
        for at in 0..self.clients.len() {
            self.clients[at].reads = true;
            self.write(at);
        }
        self.flush();
        // Publishers wait five seconds at most, and nobody was away for as long as a heartbeat.
        self.elapse(Duration::from_secs(6));
        self.flush();
        for (at, client) in self.clients.iter().enumerate() {
            let is_open = |awaited: &&Awaited| !matches!(awaited, Awaited::Perhaps(_));
            let open: Vec<_> = client.awaited.iter().filter(is_open).collect();
            assert!(
                client.gone || client.closing || open.is_empty(),
                "client {at} waits for ever: {open:?}"
            );
        }
        assert!(self.asked.is_empty(), "an admin request waits for ever");
        self.check_consumers();
        for at in 0..self.clients.len() {
            if !self.clients[at].gone {
                self.close(at);
            }
        }
        self.flush();
        self.drain();
        self.check_messages();
        assert!(self.shards.iter().all(|shard| shard.connections() == 0), "connections are left");
    }

    /// A connection is on a channel exactly if its client was told so and neither has ended; and nothing
    /// waits that a consumer could have.
    fn check_consumers(&mut self) {
        let mut expected: BTreeMap<Place, u64> = BTreeMap::new();
        for client in &self.clients {
            if let Some((place, true)) = client.place
                && !client.gone
                && !client.closing
            {
                *expected.entry(place).or_default() += 1;
            }
        }
        let mut found: BTreeMap<Place, u64> = BTreeMap::new();
        let stats = self.stats();
        for topic in &stats.topics {
            for channel in &topic.channels {
                let place = (
                    number_of(&TOPICS, topic.name.as_str()),
                    number_of(&CHANNELS, channel.name.as_str()),
                );
                if channel.client_count > 0 {
                    found.insert(place, channel.client_count);
                }
                // Everybody reads now, so what waits has a reason.
                let clients = channel.clients.iter().flatten();
                let mut can_take = clients.filter(|c| c.in_flight_count < c.ready_count);
                assert!(
                    channel.depth == 0 || channel.paused || can_take.next().is_none(),
                    "messages wait for a consumer that waits for messages"
                );
            }
        }
        assert_eq!(found, expected, "consumers by channel");
    }

    fn drain(&mut self) {
        for topic in 0..TOPICS.len() {
            self.topic_op(0, topic, TopicOp::Unpause);
            for channel in 0..CHANNELS.len() {
                self.channel_op(0, (topic, channel), ChannelOp::Unpause);
            }
        }
        self.flush();
        // A topic that collected and never had a channel gets one.
        let stats = self.stats();
        let mut places = Vec::new();
        for topic in &stats.topics {
            let number = number_of(&TOPICS, topic.name.as_str());
            for channel in &topic.channels {
                places.push((number, number_of(&CHANNELS, channel.name.as_str())));
            }
            if topic.channels.is_empty() {
                places.push((number, 0));
            }
        }
        for place in places {
            let at = self.connect(0);
            self.subscribe(at, place);
            self.send(at, b"RDY 2500\n");
            self.flush();
        }
        for _ in 0..4 {
            for at in 0..self.clients.len() {
                while !self.clients[at].gone && !self.clients[at].held.is_empty() {
                    self.finish(at, 0);
                    self.flush();
                }
            }
            // Nothing was kept back for longer.
            self.elapse(Duration::from_secs(4));
            self.flush();
        }
        for topic in self.stats().topics {
            assert_eq!(topic.depth, 0, "{} does not drain", topic.name);
            for channel in topic.channels {
                let left = (channel.depth, channel.in_flight_count, channel.deferred_count);
                assert_eq!(left, (0, 0, 0), "{}/{} does not drain", topic.name, channel.name);
            }
        }
        for at in 0..self.clients.len() {
            if !self.clients[at].gone {
                self.close(at);
            }
        }
        self.flush();
    }

    fn check_messages(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            assert!(
                !message.refused || message.attempts.is_empty(),
                "message {number} was refused and delivered"
            );
            if !message.acknowledged || is_ephemeral(message.topic) {
                continue;
            }
            // Where there is a channel that goes with its consumers, messages go with it.
            let may_be_gone = message.disturbed || self.ephemeral.contains(&message.topic);
            assert!(
                may_be_gone || !message.finished_on.is_empty(),
                "message {number} was acknowledged and never finished"
            );
            for place in &message.owed_to {
                assert!(
                    message.finished_on.contains(place),
                    "message {number} was never finished on {}/{}",
                    TOPICS[place.0],
                    CHANNELS[place.1]
                );
            }
        }
    }

    fn connect(&mut self, shard: usize) -> usize {
        let shard = shard % self.shards.len();
        let conn = self.shards[shard].accept(Peer::Unix, self.now, &mut self.actions[shard]);
        self.clients.push(Client {
            home: Some((shard, conn)),
            input: BytesMut::new(),
            received: BytesMut::new(),
            waits: false,
            reads: true,
            closing: false,
            gone: false,
            place: None,
            closes: false,
            closed: false,
            awaited: VecDeque::new(),
            held: Vec::new(),
            finishing: Vec::new(),
        });
        let at = self.clients.len() - 1;
        self.send(at, b"  V2");
        at
    }

    fn publish(
        &mut self,
        client: usize,
        topic: usize,
        messages: usize,
        delay: Option<u64>,
        command: &'static str,
    ) {
        let Some(at) = self.living(client) else { return };
        let topic = topic % TOPICS.len();
        let numbers: Vec<_> = (0..messages.max(1)).map(|_| self.message(topic)).collect();
        let name = TOPICS[topic];
        let sized = |body: &str| [&(body.len() as u32).to_be_bytes(), body.as_bytes()].concat();
        let bodies: Vec<u8> =
            numbers.iter().flat_map(|number| sized(&self.body(*number))).collect();
        let bytes = match (command, delay) {
            ("MPUB", _) => {
                let head = format!("MPUB {name}\n");
                let len = (bodies.len() as u32 + 4).to_be_bytes();
                let count = (numbers.len() as u32).to_be_bytes();
                [head.as_bytes(), &len, &count, &bodies].concat()
            }
            (_, Some(delay)) => [format!("DPUB {name} {delay}\n").as_bytes(), &bodies].concat(),
            (_, None) => [format!("PUB {name}\n").as_bytes(), &bodies].concat(),
        };
        self.clients[at].awaited.push_back(Awaited::Publish(numbers, command));
        self.send(at, &bytes);
    }

    /// The body of a message is its number; if there are slow readers, every third is so large that
    /// three of them are more than a connection may be owed.
    fn body(&self, number: usize) -> String {
        let blanks = if !self.all_read && number.is_multiple_of(3) { 100_000 } else { 0 };
        number.to_string() + &" ".repeat(blanks)
    }

    fn burst(&mut self, client: usize, topic: usize) {
        let Some(at) = self.living(client) else { return };
        let topic = topic % TOPICS.len();
        let mut bytes = Vec::new();
        for _ in 0..PENDING_REPLIES_MAX + 5 {
            let number = self.message(topic);
            self.clients[at].awaited.push_back(Awaited::Publish(vec![number], "PUB"));
            bytes.extend(pub_command(TOPICS[topic], &self.body(number)));
        }
        self.send(at, &bytes);
    }

    /// A new message for a topic, and to whom it is owed.
    fn message(&mut self, topic: usize) -> usize {
        let disturbed = self.is_destroying();
        let known = self.channels.iter().copied().filter(|_| !disturbed);
        let owed_to = known.filter(|(t, c)| *t == topic && *c != EPHEMERAL_CHANNEL).collect();
        self.messages.push(Published {
            topic,
            owed_to,
            acknowledged: false,
            refused: false,
            disturbed,
            finished_on: BTreeSet::new(),
            attempts: BTreeMap::new(),
        });
        self.messages.len() - 1
    }

    fn subscribe(&mut self, at: usize, place: Place) {
        self.clients[at].place = Some((place, false));
        self.note_ephemeral(place);
        self.clients[at].awaited.push_back(Awaited::Subscribe(place));
        let (topic, channel) = place;
        self.send(at, format!("SUB {} {}\n", TOPICS[topic], CHANNELS[channel]).as_bytes());
    }

    fn note_ephemeral(&mut self, (topic, channel): Place) {
        if channel == EPHEMERAL_CHANNEL {
            self.ephemeral.insert(topic);
        }
    }

    fn finish(&mut self, at: usize, held: usize) {
        let held = self.clients[at].held.swap_remove(held);
        let id = held.0.clone();
        self.clients[at].finishing.push(held);
        self.answer(at, "FIN", &id, "");
    }

    fn answer(&mut self, at: usize, command: &str, id: &str, rest: &str) {
        let text = format!("E_{command}_FAILED {command} {id} failed ");
        self.clients[at].awaited.push_back(Awaited::Perhaps(text));
        self.send(at, format!("{command} {id}{rest}\n").as_bytes());
    }

    fn topic_op(&mut self, shard: usize, topic: usize, op: TopicOp) {
        let name = TopicName::new(TOPICS[topic]).expect("it is valid");
        let asked = match op {
            TopicOp::Delete | TopicOp::Empty => {
                self.disturb(|(t, _)| t == topic, topic, op == TopicOp::Delete);
                Asked::Destroyed
            }
            TopicOp::Create | TopicOp::Pause | TopicOp::Unpause => Asked::Other,
        };
        self.ask(shard, AdminRequest::Topic(name, op), asked);
    }

    fn channel_op(&mut self, shard: usize, place: Place, op: ChannelOp) {
        let topic = TopicName::new(TOPICS[place.0]).expect("it is valid");
        let name = ChannelName::new(CHANNELS[place.1]).expect("it is valid");
        let asked = match op {
            ChannelOp::Delete | ChannelOp::Empty => {
                self.disturb(|other| other == place, place.0, op == ChannelOp::Delete);
                Asked::Destroyed
            }
            ChannelOp::Create => {
                self.note_ephemeral(place);
                Asked::Create(place)
            }
            ChannelOp::Pause | ChannelOp::Unpause => Asked::Other,
        };
        self.ask(shard, AdminRequest::Channel(topic, name, op), asked);
    }

    /// Something is deleted or emptied: nothing that was published before is owed there any more, and
    /// nobody knows whether those channels exist if it is a deletion.
    fn disturb(&mut self, is_meant: impl Fn(Place) -> bool, topic: usize, deletes: bool) {
        self.destructions += 1;
        for message in self.messages.iter_mut().filter(|message| message.topic == topic) {
            message.disturbed = true;
            message.owed_to.retain(|place| !is_meant(*place));
        }
        if deletes {
            self.channels.retain(|place| !is_meant(*place));
        }
    }

    fn post(&mut self, shard: usize, topic: usize) {
        let number = self.message(topic);
        let batch = Batch::One(self.body(number).into());
        let topic = TopicName::new(TOPICS[topic]).expect("it is valid");
        let request = AdminRequest::Publish { topic, batch, delay: Duration::ZERO };
        self.ask(shard, request, Asked::Publish(number));
    }

    fn ask(&mut self, shard: usize, request: AdminRequest, asked: Asked) {
        self.tokens += 1;
        let destructions = (!self.is_destroying()).then_some(self.destructions);
        self.asked.insert(self.tokens, (asked, destructions));
        let (shard, token) = (shard % self.shards.len(), ReplyToken(self.tokens));
        self.shards[shard].handle_admin(request, token, self.now, &mut self.actions[shard]);
        self.run();
    }

    fn stats(&mut self) -> ServerStats {
        let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
        self.ask(0, AdminRequest::Stats(filter), Asked::Other);
        self.flush();
        self.stats.take().expect("all shards were asked")
    }

    fn replied(&mut self, token: u64, reply: AdminReply) {
        let (asked, destructions) = self.asked.remove(&token).expect("nobody asked, or twice");
        // If something is being deleted at the same time, nobody knows what comes last.
        let undisturbed = destructions == Some(self.destructions);
        match (asked, reply) {
            (Asked::Create(place), AdminReply::Done) if undisturbed => {
                self.channels.insert(place);
            }
            (Asked::Publish(number), AdminReply::Published) => {
                self.messages[number].acknowledged = true;
            }
            (Asked::Publish(number), _) => self.messages[number].refused = true,
            (_, AdminReply::Stats(stats)) => self.stats = Some(*stats),
            _ => {}
        }
    }

    fn is_destroying(&self) -> bool {
        self.asked.values().any(|(asked, _)| matches!(asked, Asked::Destroyed))
    }

    fn lane(&mut self, lane: usize) {
        let full: Vec<_> = self
            .lanes
            .iter()
            .filter(|(_, batches)| !batches.is_empty())
            .map(|(key, _)| *key)
            .collect();
        let Some(number) = lane.checked_rem(full.len()) else { return };
        let (from, to) = full[number];
        let batch = self.lanes.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        if let Some(mut batch) = batch {
            self.shards[to].handle_shard(&mut batch, self.now, &mut self.actions[to]);
        }
    }

    fn arrive(&mut self, connection: usize) {
        let Some(number) = connection.checked_rem(self.moving.len()) else { return };
        let (at, detached, to) = self.moving.remove(number);
        let conn = self.shards[to].attach(detached, self.now, &mut self.actions[to]);
        self.clients[at].home = Some((to, conn));
        self.input(at);
        self.run();
        if self.clients[at].gone {
            self.close(at);
        }
    }

    fn elapse(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let next = self.shards.iter().filter_map(Shard::poll_timeout).min();
            let next = next.filter(|next| *next < end.instant).unwrap_or(end.instant);
            self.now = self.now.after(next.saturating_since(self.now.instant));
            for shard in 0..self.shards.len() {
                self.shards[shard].handle_timeout(self.now, &mut self.actions[shard]);
            }
            self.run();
            if next == end.instant {
                return;
            }
        }
    }

    /// Everything under way arrives.
    fn flush(&mut self) {
        self.run();
        while !self.moving.is_empty() || self.lanes.values().any(|batches| !batches.is_empty()) {
            self.arrive(0);
            self.run();
            self.lane(0);
            self.run();
        }
        let closing = |client: &Client| client.closing && !client.gone;
        for at in 0..self.clients.len() {
            if closing(&self.clients[at]) {
                self.close(at);
            }
        }
        self.run();
        if !self.moving.is_empty() || self.lanes.values().any(|batches| !batches.is_empty()) {
            self.flush();
        }
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        self.clients[at].input.extend_from_slice(bytes);
        if !self.clients[at].waits {
            self.input(at);
        }
        self.run();
    }

    fn input(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some((shard, conn)) = client.home else { return };
        if client.closing || client.gone {
            return;
        }
        let out = &mut self.actions[shard];
        let state = self.shards[shard].handle_input(conn, &mut client.input, self.now, out);
        client.waits = state == ReadState::Wait;
        if let Some((place, _)) = client.place
            && client.input.is_empty()
        {
            // What was in time is done with.
            for (_, number, until) in client.finishing.drain(..) {
                if until > self.now.instant {
                    self.messages[number].finished_on.insert(place);
                }
            }
        }
    }

    /// The socket is gone.
    fn close(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.gone = true;
        if let Some((shard, conn)) = client.home.take() {
            self.shards[shard].handle_closed(conn, self.now, &mut self.actions[shard]);
        }
        self.run();
    }

    /// Carries out everything but what takes its time.
    fn run(&mut self) {
        while let Some(shard) = self.actions.iter().position(|actions| !actions.is_empty()) {
            let fresh = Actions::new(self.shards.len() as u16);
            let actions = core::mem::replace(&mut self.actions[shard], fresh);
            for conn in actions.transmit {
                if let Some(at) = self.client_of(shard, conn) {
                    self.write(at);
                }
            }
            for (conn, how) in actions.close {
                if let Some(at) = self.client_of(shard, conn) {
                    self.write(at);
                    let before = core::mem::replace(&mut self.clients[at].closing, true);
                    assert!(!before || how == Close::Now, "closed twice");
                    if before {
                        self.close(at);
                    }
                }
            }
            for (conn, home) in actions.rehome {
                if let Some(at) = self.client_of(shard, conn) {
                    let detached = self.shards[shard].detach(conn).expect("it is there");
                    self.clients[at].home = None;
                    self.moving.push((at, detached, usize::from(home.0)));
                }
            }
            for conn in actions.resume {
                if let Some(at) = self.client_of(shard, conn) {
                    self.input(at);
                }
            }
            for (to, batch) in actions.lanes.into_iter().enumerate() {
                if !batch.is_empty() {
                    self.lanes.entry((shard, to)).or_default().push_back(batch);
                }
            }
            for (token, reply) in actions.replies {
                self.replied(token.0, reply);
            }
        }
    }

    fn write(&mut self, at: usize) {
        let mut unsent = Transmit::new();
        loop {
            let client = &mut self.clients[at];
            let Some((shard, conn)) = client.home.filter(|_| client.reads) else { return };
            if unsent.is_empty() {
                self.shards[shard].swap_transmit(conn, &mut unsent);
            }
            let mut slices = [&[][..]; 8];
            let count = unsent.slices(&mut slices);
            let bytes = slices[..count].concat();
            if bytes.is_empty() {
                return;
            }
            unsent.advance(bytes.len());
            client.received.extend_from_slice(&bytes);
            let out = &mut self.actions[shard];
            self.shards[shard].handle_sent(conn, bytes.len(), self.now, out);
            loop {
                let received = &mut self.clients[at].received;
                match frame::decode(received, 1 << 20).expect("a shard sends frames") {
                    Some(frame) => self.frame(at, frame),
                    None => break,
                }
            }
        }
    }

    /// A client looks at what it was sent.
    fn frame(&mut self, at: usize, frame: Frame) {
        match frame {
            Frame::Response(payload) if &payload[..] == b"_heartbeat_" => {
                self.clients[at].input.extend_from_slice(b"NOP\n");
                if !self.clients[at].waits {
                    self.input(at);
                }
            }
            Frame::Response(payload) => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                self.response(at, &text);
            }
            Frame::Error(payload) => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                self.error(at, &text);
            }
            Frame::Message(message) => {
                let (place, acknowledged) = self.clients[at].place.expect("it subscribed");
                assert!(acknowledged, "a message before the answer to SUB");
                assert!(!self.clients[at].closed, "a message behind CLOSE_WAIT");
                let body = String::from_utf8_lossy(&message.body).into_owned();
                let number = body.trim_end().parse().expect("a body that was published");
                assert_eq!(body, self.body(number), "all of it");
                let published = &mut self.messages[number];
                assert_eq!(published.topic, place.0, "a message of another topic");
                let attempts = published.attempts.entry(place).or_default();
                *attempts += 1;
                let is_next = *attempts == message.attempts || !self.all_read;
                assert!(is_next, "attempts rise by one");
                if !self.all_read {
                    // Nobody can say any more whether a FIN comes in time.
                    published.finished_on.insert(place);
                }
                let id = String::from_utf8_lossy(&message.id).into_owned();
                let client = &mut self.clients[at];
                client.held.retain(|(held, ..)| *held != id);
                client.held.push((id, number, self.now.instant + MSG_TIMEOUT));
            }
        }
    }

    fn response(&mut self, at: usize, text: &str) {
        match self.next_awaited(at) {
            Some(Awaited::Publish(numbers, _)) => {
                assert_eq!(text, "OK");
                for number in numbers {
                    self.messages[number].acknowledged = true;
                }
            }
            Some(Awaited::Subscribe(place)) => {
                assert_eq!(text, "OK");
                self.clients[at].place = Some((place, true));
                if !self.is_destroying() {
                    self.channels.insert(place);
                }
            }
            Some(Awaited::CloseWait) => {
                assert_eq!(text, "CLOSE_WAIT");
                self.clients[at].closed = true;
            }
            other => panic!("{text} answers {other:?}"),
        }
    }

    fn error(&mut self, at: usize, text: &str) {
        while let Some(Awaited::Perhaps(start)) = self.clients[at].awaited.front() {
            let is_it = text.starts_with(start.as_str());
            self.clients[at].awaited.pop_front();
            if is_it {
                return;
            }
        }
        match self.clients[at].awaited.pop_front() {
            Some(Awaited::Publish(numbers, command)) => {
                assert_eq!(text, format!("E_{command}_FAILED {command} failed exiting"));
                for number in numbers {
                    self.messages[number].refused = true;
                }
            }
            Some(Awaited::Subscribe(_)) => {
                assert!(text.starts_with("E_SUB_FAILED SUB failed consumers for "), "{text}")
            }
            other => panic!("{text} answers {other:?}"),
        }
    }

    /// What the next answer that has to come is about.
    fn next_awaited(&mut self, at: usize) -> Option<Awaited> {
        let awaited = &mut self.clients[at].awaited;
        while matches!(awaited.front(), Some(Awaited::Perhaps(_))) {
            awaited.pop_front();
        }
        awaited.pop_front()
    }

    /// A client that sends, by number.
    fn living(&self, number: usize) -> Option<usize> {
        let lives = |client: &Client| !client.gone && !client.closing;
        let living: Vec<_> =
            (0..self.clients.len()).filter(|at| lives(&self.clients[*at])).collect();
        living.get(number.checked_rem(living.len())?).copied()
    }

    /// A client that is subscribed, did not say CLS, and is listened to: so it is known when what it says
    /// takes effect.
    fn consumer(&self, number: usize) -> Option<usize> {
        let at = self.living(number)?;
        let client = &self.clients[at];
        let is_heard = client.input.is_empty() && !client.closes;
        (is_heard && matches!(client.place, Some((_, true)))).then_some(at)
    }

    /// A message that a client holds.
    fn held(&self, client: usize, message: usize) -> Option<(usize, usize)> {
        let at = self.living(client).filter(|at| self.clients[*at].input.is_empty())?;
        Some((at, message.checked_rem(self.clients[at].held.len())?))
    }

    fn client_of(&self, shard: usize, conn: ConnId) -> Option<usize> {
        self.clients.iter().position(|client| client.home == Some((shard, conn)))
    }
}

const EPHEMERAL_CHANNEL: usize = 2;

fn is_ephemeral(topic: usize) -> bool {
    TOPICS[topic].ends_with("#ephemeral")
}

fn number_of(names: &[&str], name: &str) -> usize {
    names.iter().position(|other| *other == name).expect("it is one of ours")
}

fn pub_command(topic: &str, body: &str) -> Vec<u8> {
    let head = format!("PUB {topic}\n");
    [head.as_bytes(), &(body.len() as u32).to_be_bytes(), body.as_bytes()].concat()
}
