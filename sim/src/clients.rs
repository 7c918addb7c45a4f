//! Producers and consumers: the core's client machines, and the people who use them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use sansq_core::client::connection::Identity;
use sansq_core::client::{
    Connection, ConnectionOptions, ConnectionOutput, DialId, Negotiated, Producer, ProducerActions,
    ProducerOptions, PublishError, PublishId, Received,
};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::protocol::frame::CLOSE_WAIT;
use sansq_core::rng::Rng;

use crate::chance::{Chance, stream};
use crate::env::Env;
use crate::events::{Alarm, Event, Machine};
use crate::model::{MessageNumber, Outcome, body_of};
use crate::net::{End, Endpoint, LinkId, Side};
use crate::oracles::{Observation, Violation};
use crate::swarm::{Habit, Habits, Options};

/// A producer of one nsqd, and somebody who publishes with it.
#[derive(Debug)]
pub(crate) struct Publisher {
    index: usize,
    /// The nsqd that it publishes to.
    pub(crate) node: usize,
    producer: Producer,
    actions: ProducerActions,
    link: Option<(LinkId, DialId)>,
    input: BytesMut,
    outbox: BytesMut,
    alarm: Alarm,
    topics: Vec<TopicName>,
    left: usize,
    /// So many are published at once in the end.
    burst: usize,
    /// What has to be accepted; `None` until it is published.
    last: Option<BTreeSet<MessageNumber>>,
    body_len_max: usize,
    admin_percent: u64,
    every_max: Duration,
    /// The messages of each publish that is under way.
    publishes: BTreeMap<PublishId, Vec<MessageNumber>>,
    rng: Rng,
}

/// A message that is to be published in another way than through the producer.
#[derive(Debug)]
pub(crate) struct AdminPublish {
    pub(crate) topic: TopicName,
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) messages: Vec<MessageNumber>,
}

impl Publisher {
    pub(crate) fn new(
        index: usize,
        node: usize,
        topics: Vec<TopicName>,
        options: &Options,
    ) -> Self {
        let rng = Rng::new(options.seed).fork(stream::PRODUCERS + index as u64);
        let producer_options = ProducerOptions {
            connection: connection_options(options),
            ..ProducerOptions::default()
        };
        let address = format!("{}:4150", crate::node::host_of(node));
        let producer = Producer::new(address, producer_options, rng.fork(1).next_u64())
            .expect("the options are in range");
        Self {
            index,
            node,
            producer,
            actions: ProducerActions::default(),
            link: None,
            input: BytesMut::new(),
            outbox: BytesMut::new(),
            alarm: Alarm::default(),
            topics,
            left: options.messages,
            burst: if options.burst { BURST } else { 0 },
            last: None,
            body_len_max: options.body_len_max,
            admin_percent: options.admin_percent,
            every_max: options.chaos / (options.messages as u32 + 1),
            publishes: BTreeMap::new(),
            rng,
        }
    }

    /// Whether everything that it was given has an outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.last.is_some() && self.producer.outstanding() == 0
    }

    /// Publishes a message to each topic, or many at once, all of which have to be accepted.
    pub(crate) fn publish_last(&mut self, env: &mut Env) {
        let mut last = BTreeSet::new();
        for topic in self.topics.clone() {
            last.insert(self.publish_one(topic, env));
        }
        for _ in 0..self.burst {
            let topic = *self.rng.pick(&self.topics);
            last.insert(self.publish_one(topic, env));
        }
        self.last = Some(last);
        self.settle(env);
    }

    fn publish_one(&mut self, topic: TopicName, env: &mut Env) -> MessageNumber {
        let (number, len) = (env.oracles.next_number(), SMALLEST_BODY_LEN);
        let delay = Duration::ZERO;
        env.observe(Observation::Published { node: self.node, topic, len, delay });
        let body = Bytes::from(body_of(number, len));
        let result = self.producer.publish(&topic, body, env.now, &mut self.actions);
        self.taken(result, vec![number], env);
        number
    }

    /// The producer took a publish, or did not.
    fn taken(
        &mut self,
        result: Result<PublishId, PublishError>,
        messages: Vec<MessageNumber>,
        env: &mut Env,
    ) {
        match result {
            Ok(id) => {
                self.publishes.insert(id, messages);
            }
            Err(error) => {
                env.line(format_args!("  producer {} can't publish: {error}", self.index));
                complete(&messages, Outcome::Refused, env);
            }
        }
    }

    /// Publishes something. What is to go through the nsqd's admin interface is handed back.
    pub(crate) fn publish(&mut self, env: &mut Env) -> Option<AdminPublish> {
        if self.left == 0 || env.calm {
            return None;
        }
        let at = env.now.instant + self.rng.within(self.every_max * 2);
        env.queue.push(at, Event::Publish(self.index));
        let topic = *self.rng.pick(&self.topics);
        let count = if self.rng.percent(20) { self.rng.between(1, 5) as usize } else { 1 };
        let count = count.min(self.left);
        self.left -= count;
        let delayed = count == 1 && self.rng.percent(15);
        let delay = if delayed { self.rng.within(DELAY_MAX) } else { Duration::ZERO };
        // The protocol's unit.
        let delay = Duration::from_millis(delay.as_millis() as u64);
        let mut messages = Vec::new();
        let mut bodies = Vec::new();
        for _ in 0..count {
            let len_max = self.body_len_max.max(SMALLEST_BODY_LEN);
            let len = self.rng.between(SMALLEST_BODY_LEN as u64, len_max as u64) as usize;
            let number = env.oracles.next_number();
            env.observe(Observation::Published { node: self.node, topic, len, delay });
            bodies.push(Bytes::from(body_of(number, len)));
            messages.push(number);
        }
        if delay.is_zero() && self.rng.percent(self.admin_percent) {
            return Some(AdminPublish { topic, bodies, messages });
        }
        let (now, out) = (env.now, &mut self.actions);
        let result = match bodies.pop() {
            Some(body) if delayed => self.producer.publish_after(&topic, delay, body, now, out),
            Some(body) if bodies.is_empty() => self.producer.publish(&topic, body, now, out),
            last => {
                bodies.extend(last);
                self.producer.publish_many(&topic, &bodies, now, out)
            }
        };
        self.taken(result, messages, env);
        self.settle(env);
        None
    }

    pub(crate) fn connected(&mut self, link: LinkId, env: &mut Env) {
        if let Some(id) = self.dial_of(link) {
            self.producer.handle_connected(id, env.now, &mut self.actions);
            self.settle(env);
        }
    }

    pub(crate) fn dial_failed(&mut self, link: LinkId, env: &mut Env) {
        if let Some(id) = self.dial_of(link) {
            self.link = None;
            let why = "connection refused";
            self.producer.handle_connect_failed(id, why, env.now, &mut self.actions);
            self.settle(env);
        }
    }

    pub(crate) fn readable(&mut self, link: LinkId, env: &mut Env) {
        let Some(id) = self.dial_of(link) else { return };
        let read = env.net.read(client(link), &mut self.input, env.now, &mut env.queue);
        self.producer.handle_input(id, &mut self.input, env.now, &mut self.actions);
        self.settle(env);
        if read.is_end {
            self.closed(link, None, env);
        }
    }

    pub(crate) fn writable(&mut self, link: LinkId, env: &mut Env) {
        if self.dial_of(link).is_some() {
            self.flush(env);
            self.settle(env);
        }
    }

    /// The connection is gone; `why` if it broke.
    pub(crate) fn closed(&mut self, link: LinkId, why: Option<&str>, env: &mut Env) {
        if let Some(id) = self.dial_of(link) {
            env.net.close(client(link), env.now, &mut env.queue);
            self.link = None;
            self.producer.handle_closed(id, why, env.now, &mut self.actions);
            self.settle(env);
        }
    }

    pub(crate) fn deadline(&mut self, env: &mut Env) {
        if self.alarm.rings(env.now) {
            self.producer.handle_timeout(env.now, &mut self.actions);
            self.settle(env);
        }
    }

    fn dial_of(&self, link: LinkId) -> Option<DialId> {
        self.link.filter(|(at, _)| *at == link).map(|(_, id)| id)
    }

    fn settle(&mut self, env: &mut Env) {
        while !self.actions.is_empty() {
            let actions = core::mem::take(&mut self.actions);
            for event in actions.events {
                env.line(format_args!("  producer {}: {event}", self.index));
            }
            for id in actions.net.close {
                if let Some((link, _)) = self.link.take_if(|(_, at)| *at == id) {
                    env.net.close(client(link), env.now, &mut env.queue);
                }
            }
            for dial in actions.net.dial {
                let (client, server) = (Endpoint::Producer(self.index), Endpoint::Nsqd(self.node));
                let link = env.net.dial(client, server, env.now, &mut env.queue);
                self.link = Some((link, dial.id));
                self.input.clear();
                self.outbox.clear();
            }
            if !actions.net.transmit.is_empty() {
                self.flush(env);
            }
            for (id, result) in actions.completed {
                let outcome = match &result {
                    Ok(()) => Outcome::Accepted,
                    Err(PublishError::Unknown(_)) => Outcome::Unknown,
                    Err(_) => Outcome::Refused,
                };
                match self.publishes.remove(&id) {
                    Some(messages) => {
                        self.check_last(&messages, outcome, env);
                        complete(&messages, outcome, env);
                    }
                    None => {
                        let text = format!("producer {} completes {id} twice", self.index);
                        env.judge(Err(Violation::Other(text)));
                    }
                }
            }
        }
        let deadline = self.producer.poll_timeout();
        self.alarm.arm(Machine::Producer(self.index), deadline, env.now, &mut env.queue);
    }

    fn check_last(&self, messages: &[MessageNumber], outcome: Outcome, env: &mut Env) {
        let is_last = |message| self.last.iter().any(|last| last.contains(message));
        if outcome != Outcome::Accepted && messages.iter().any(is_last) {
            let text = format!("nothing breaks, and {messages:?} is {outcome:?}");
            env.judge(Err(Violation::Other(text)));
        }
    }

    /// Writes while the socket takes it; what it does not take stays here and not in the producer.
    fn flush(&mut self, env: &mut Env) {
        let Some((link, _)) = self.link else { return };
        let mut spare = Vec::new();
        loop {
            env.net.write(client(link), &mut self.outbox, env.now, &mut env.queue);
            if !self.outbox.is_empty() {
                return;
            }
            self.producer.swap_transmit(env.now, &mut spare);
            if spare.is_empty() {
                return;
            }
            self.outbox.extend_from_slice(&spare);
        }
    }
}

/// Tells the judges what became of some messages.
pub(crate) fn complete(messages: &[MessageNumber], outcome: Outcome, env: &mut Env) {
    for message in messages {
        env.observe(Observation::Completed { message: *message, outcome });
    }
}

/// A consumer of one channel: it finds the nsqds with its topic and has one connection to each.
#[derive(Debug)]
pub(crate) struct Consumer {
    index: usize,
    pub(crate) topic: TopicName,
    channel: ChannelName,
    options: ConnectionOptions,
    conns: BTreeMap<LinkId, Conn>,
    /// Answers of nsqlookupds that are under way, oldest first.
    answers: VecDeque<Vec<usize>>,
    plans: BTreeMap<u64, Plan>,
    planned: u64,
    script: VecDeque<Habit>,
    habits: Habits,
    ready_max: u32,
    alarm: Alarm,
    rng: Rng,
}

#[derive(Debug)]
struct Conn {
    node: usize,
    connection: Connection,
    input: BytesMut,
    outbox: BytesMut,
    subscribed: bool,
    ready: u32,
}

/// What a consumer will do with a message when it has worked on it.
#[derive(Debug)]
struct Plan {
    link: LinkId,
    id: [u8; 16],
    habit: Habit,
}

impl Consumer {
    pub(crate) fn new(
        index: usize,
        topic: TopicName,
        channel: ChannelName,
        options: &Options,
    ) -> Self {
        let script = if index == 0 { options.script.clone() } else { Vec::new() };
        Self {
            index,
            topic,
            channel,
            options: connection_options(options),
            conns: BTreeMap::new(),
            answers: VecDeque::new(),
            plans: BTreeMap::new(),
            planned: 0,
            script: script.into(),
            habits: options.habits.clone(),
            ready_max: options.ready_max,
            alarm: Alarm::default(),
            rng: Rng::new(options.seed).fork(stream::CONSUMERS + index as u64),
        }
    }

    /// Asks an nsqlookupd, whose answer is `nodes`, and looks after its connections.
    pub(crate) fn look_up(&mut self, nodes: Option<Vec<usize>>, env: &mut Env) {
        let again = env.now.instant + LOOKUP_EVERY_MIN + self.rng.within(LOOKUP_EVERY_MIN);
        env.queue.push(again, Event::Lookup(self.index));
        if let Some(nodes) = nodes {
            self.answers.push_back(nodes);
            let at = env.now.instant + self.rng.within(LOOKUP_TIME_MAX);
            env.queue.push(at, Event::Answer(self.index));
        }
        let links: Vec<_> = self.conns.keys().copied().collect();
        for link in links {
            self.look_after(link, env);
        }
    }

    /// Connects to the nsqds that an nsqlookupd named.
    pub(crate) fn answer(&mut self, env: &mut Env) {
        for node in self.answers.pop_front().unwrap_or_default() {
            if self.conns.values().any(|conn| conn.node == node) {
                continue;
            }
            let (client, server) = (Endpoint::Consumer(self.index), Endpoint::Nsqd(node));
            let link = env.net.dial(client, server, env.now, &mut env.queue);
            let conn = Conn {
                node,
                connection: Connection::dial(&self.options, "nsqd", env.now),
                input: BytesMut::new(),
                outbox: BytesMut::new(),
                subscribed: false,
                ready: 0,
            };
            self.conns.insert(link, conn);
        }
        self.arm(env);
    }

    pub(crate) fn connected(&mut self, link: LinkId, env: &mut Env) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.connection.handle_connected(env.now);
            self.flush(link, env);
        }
    }

    pub(crate) fn readable(&mut self, link: LinkId, env: &mut Env) {
        let Some(conn) = self.conns.get_mut(&link) else { return };
        let read = env.net.read(client(link), &mut conn.input, env.now, &mut env.queue);
        let mut got = Vec::new();
        if let Err(error) =
            conn.connection.handle_input(&mut conn.input, env.now, &mut Sink(&mut got))
        {
            env.line(format_args!("  consumer {} drops link {}: {error}", self.index, link.0));
            return self.drop_link(link, env);
        }
        for got in got {
            self.take(link, got, env);
        }
        self.flush(link, env);
        if read.is_end {
            self.drop_link(link, env);
        }
    }

    pub(crate) fn writable(&mut self, link: LinkId, env: &mut Env) {
        self.flush(link, env);
    }

    /// Gives a connection up.
    pub(crate) fn drop_link(&mut self, link: LinkId, env: &mut Env) {
        if self.conns.remove(&link).is_some() {
            env.net.close(client(link), env.now, &mut env.queue);
            self.plans.retain(|_, plan| plan.link != link);
        }
    }

    pub(crate) fn deadline(&mut self, env: &mut Env) {
        if !self.alarm.rings(env.now) {
            return;
        }
        let mut late = Vec::new();
        for (link, conn) in &mut self.conns {
            if let Err(error) = conn.connection.handle_timeout(env.now) {
                env.line(format_args!("  consumer {} drops link {}: {error}", self.index, link.0));
                late.push(*link);
            }
        }
        for link in late {
            self.drop_link(link, env);
        }
        self.arm(env);
    }

    /// The work on a message is done.
    pub(crate) fn decide(&mut self, plan: u64, env: &mut Env) {
        let Some(Plan { link, id, habit }) = self.plans.remove(&plan) else { return };
        let Some(conn) = self.conns.get_mut(&link) else { return };
        match habit {
            Habit::Finish => conn.connection.finish(&id),
            Habit::FinishTwice => {
                conn.connection.finish(&id);
                conn.connection.finish(&id);
            }
            Habit::Requeue => {
                let delay = self.rng.within(self.habits.requeue_delay_max);
                conn.connection.requeue(&id, delay);
            }
            Habit::Touch => {
                conn.connection.touch(&id);
                self.plan(link, id, Habit::Finish, env);
            }
            Habit::Ignore => {}
        }
        self.flush(link, env);
    }

    fn take(&mut self, link: LinkId, got: Got, env: &mut Env) {
        let Some(conn) = self.conns.get_mut(&link) else { return };
        match got {
            Got::Opened => conn.connection.subscribe(&self.topic, &self.channel),
            Got::Response(text) if text == CLOSE_WAIT => self.drop_link(link, env),
            Got::Response(_) => {
                conn.subscribed = true;
                conn.ready = self.ready_max;
                conn.connection.ready(conn.ready);
            }
            // A FIN, REQ or TOUCH that came too late; anything else is followed by the end.
            Got::Error(text) => {
                let text = String::from_utf8_lossy(&text);
                env.line(format_args!("  consumer {} is told {text}", self.index));
            }
            Got::Message(message) => {
                let habit = match self.script.pop_front() {
                    Some(habit) => habit,
                    None if env.calm => Habit::Finish,
                    None => self.habits.draw(&mut self.rng),
                };
                self.plan(link, message.id, habit, env);
            }
        }
    }

    fn plan(&mut self, link: LinkId, id: [u8; 16], habit: Habit, env: &mut Env) {
        self.planned += 1;
        self.plans.insert(self.planned, Plan { link, id, habit });
        let work_max = if env.calm { Duration::ZERO } else { self.habits.work_max };
        let at = env.now.instant + self.rng.within(work_max);
        env.queue.push(at, Event::Decide { consumer: self.index, plan: self.planned });
    }

    /// Changes RDY or leaves an nsqd, as the habits are.
    fn look_after(&mut self, link: LinkId, env: &mut Env) {
        let Some(conn) = self.conns.get_mut(&link) else { return };
        if !conn.subscribed || !conn.connection.is_open() {
            return;
        }
        let changes = self.rng.percent(self.habits.ready_percent);
        let leaves = self.rng.percent(self.habits.close_percent);
        let drawn = self.rng.below(u64::from(self.ready_max) + 1) as u32;
        let ready = match (env.calm, changes) {
            (true, _) => self.ready_max,
            (false, true) => drawn,
            (false, false) => conn.ready,
        };
        if ready != conn.ready {
            conn.ready = ready;
            conn.connection.ready(ready);
        }
        if leaves && !env.calm {
            conn.connection.start_close();
        }
        self.flush(link, env);
    }

    fn flush(&mut self, link: LinkId, env: &mut Env) {
        if let Some(conn) = self.conns.get_mut(&link) {
            let mut spare = Vec::new();
            if conn.connection.wants_transmit() {
                conn.connection.swap_transmit(&mut spare);
                conn.outbox.extend_from_slice(&spare);
            }
            env.net.write(client(link), &mut conn.outbox, env.now, &mut env.queue);
        }
        self.arm(env);
    }

    fn arm(&mut self, env: &mut Env) {
        let deadlines = self.conns.values().filter_map(|conn| conn.connection.poll_timeout());
        let deadline = deadlines.min();
        self.alarm.arm(Machine::Consumer(self.index), deadline, env.now, &mut env.queue);
    }
}

/// What a connection said in one call.
enum Got {
    Opened,
    Response(Bytes),
    Error(Bytes),
    Message(Received),
}

struct Sink<'a>(&'a mut Vec<Got>);

impl ConnectionOutput for Sink<'_> {
    // No secret is ever asked for.
    fn authenticated(&mut self, _: Identity) {}

    fn opened(&mut self, _: &Negotiated) {
        self.0.push(Got::Opened);
    }

    fn response(&mut self, text: Bytes) {
        self.0.push(Got::Response(text));
    }

    fn error(&mut self, text: Bytes) {
        self.0.push(Got::Error(text));
    }

    fn message(&mut self, message: Received) {
        self.0.push(Got::Message(message));
    }
}

fn connection_options(options: &Options) -> ConnectionOptions {
    ConnectionOptions {
        hostname: "client".into(),
        heartbeat_interval: Some(options.heartbeat_interval),
        ..ConnectionOptions::default()
    }
}

const fn client(link: LinkId) -> End {
    End { link, side: Side::Client }
}

/// Bodies begin with the number of the message.
const SMALLEST_BODY_LEN: usize = 8;

/// More publishes than nsqd leaves unanswered on one connection (256).
const BURST: usize = 300;

/// The longest delay of a DPUB.
const DELAY_MAX: Duration = Duration::from_secs(4);

/// A consumer asks again after this long, or up to twice as long.
const LOOKUP_EVERY_MIN: Duration = Duration::from_millis(1500);

/// The longest that an answer to a look-up is under way.
const LOOKUP_TIME_MAX: Duration = Duration::from_millis(100);
