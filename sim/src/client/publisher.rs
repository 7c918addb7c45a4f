//! A producer of one nsqd, and somebody who publishes with it whatever the protocol allows.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use sansq_core::client::{
    DialId, Producer, ProducerActions, ProducerOptions, PublishError, PublishId,
};
use sansq_core::http::call::CallResult;
use sansq_core::machine::MachineActions;
use sansq_core::name::TopicName;
use sansq_core::nsqd::{AdminReply, AdminRequest, Batch};

use super::{Client, Context, Gone, nsqd_address};
use crate::chance::Chance;
use crate::limits::Limits;
use crate::model::{MessageNumber, PublishOutcome};
use crate::net::LinkId;
use crate::swarm::{Options, connection_options};

/// Publishes to one nsqd, with the core's `Producer` and through the nsqd's HTTP API: single
/// messages, batches and delayed ones; in the end one to each topic, or a burst, all of which have
/// to be accepted.
#[derive(Debug)]
pub struct Publisher {
    node: usize,
    options: ProducerOptions,
    machine: Option<Volatile>,
    topics: Vec<TopicName>,
    left: usize,
    /// So many are published at once in the end.
    burst: usize,
    /// What has to be accepted; `None` until it is published.
    last: Option<BTreeSet<MessageNumber>>,
    /// Whether that has to be accepted.
    has_room: bool,
    body_len_max: usize,
    limits: Limits,
    admin_percent: u64,
    every_max: Duration,
    /// The messages of each request that is under way.
    asked: BTreeMap<u64, Vec<MessageNumber>>,
}

/// What dies with the process.
#[derive(Debug)]
struct Volatile {
    producer: Producer,
    actions: ProducerActions,
    link: Option<(LinkId, DialId)>,
    /// The messages of each publish that is under way.
    publishes: BTreeMap<PublishId, Vec<MessageNumber>>,
}

impl Publisher {
    /// One that publishes as many messages to nsqd `node` as `options` say.
    pub fn new(node: usize, topics: Vec<TopicName>, options: &Options) -> Self {
        Self {
            node,
            options: ProducerOptions {
                connection: connection_options(options),
                ..ProducerOptions::default()
            },
            machine: None,
            topics,
            left: options.messages,
            burst: if options.burst { BURST } else { 0 },
            last: None,
            has_room: options.has_room(),
            body_len_max: options.body_len_max,
            limits: options.limits,
            admin_percent: options.admin_percent,
            every_max: options.chaos / (options.messages as u32 + 1),
            asked: BTreeMap::new(),
        }
    }

    /// Publishes a message to each topic, or many at once, all of which have to be accepted.
    fn publish_last(&mut self, context: &mut Context<'_>) {
        let mut topics = self.topics.clone();
        topics.extend((0..self.burst).map(|_| *context.rng.pick(&self.topics)));
        self.last = Some(BTreeSet::new());
        for topic in topics {
            let (number, body) =
                context.publishing(self.node, topic, SMALLEST_BODY_LEN, Duration::ZERO);
            if self.has_room {
                self.last.get_or_insert_default().insert(number);
            }
            self.send(topic, Duration::ZERO, vec![(number, body)], context);
        }
        self.settle(context);
    }

    /// Publishes something.
    fn publish(&mut self, context: &mut Context<'_>) {
        if self.left == 0 || context.is_calm() {
            return;
        }
        let rng = &mut *context.rng;
        let again = rng.within(self.every_max * 2);
        let topic = *rng.pick(&self.topics);
        let count = if rng.percent(20) { rng.between(1, 5) as usize } else { 1 };
        let count = count.min(self.left);
        self.left -= count;
        let delayed = count == 1 && rng.percent(15);
        let delay = if delayed { rng.within(DELAY_MAX) } else { Duration::ZERO };
        // The protocol's unit.
        let delay = Duration::from_millis(delay.as_millis() as u64);
        let len_max = self.body_len_max.max(SMALLEST_BODY_LEN) as u64;
        context.wake(again, PUBLISH);
        let mut messages = Vec::new();
        for _ in 0..count {
            let len = context.rng.between(SMALLEST_BODY_LEN as u64, len_max) as usize;
            messages.push(context.publishing(self.node, topic, len, delay));
        }
        if delay.is_zero() && context.rng.percent(self.admin_percent) {
            self.ask(topic, messages, context);
        } else {
            self.send(topic, delay, messages, context);
            self.settle(context);
        }
    }

    /// Publishes through the nsqd's HTTP API.
    fn ask(
        &mut self,
        topic: TopicName,
        messages: Vec<(MessageNumber, Bytes)>,
        context: &mut Context<'_>,
    ) {
        let (numbers, mut bodies): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        // The HTTP API refuses it before the shard is asked.
        let is_above = |limit: Option<usize>, len| limit.is_some_and(|limit| len > limit);
        let with_breaks = bodies.iter().map(|body| body.len() + 1).sum::<usize>() - 1;
        if bodies.iter().any(|body| is_above(self.limits.max_msg_size, body.len()))
            || bodies.len() > 1 && is_above(self.limits.max_body_size, with_breaks)
        {
            return complete(&numbers, PublishOutcome::Refused, context);
        }
        let batch = match bodies.pop() {
            Some(body) if bodies.is_empty() => Batch::One(body),
            last => {
                bodies.extend(last);
                Batch::Many(bodies.iter().collect())
            }
        };
        let request = AdminRequest::Publish { topic, batch, delay: Duration::ZERO };
        let key = context.ask(self.node, request);
        self.asked.insert(key, numbers);
    }

    /// Publishes through the producer.
    fn send(
        &mut self,
        topic: TopicName,
        delay: Duration,
        messages: Vec<(MessageNumber, Bytes)>,
        context: &mut Context<'_>,
    ) {
        let Some(machine) = &mut self.machine else { return };
        let (numbers, mut bodies): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let (producer, now, out) = (&mut machine.producer, context.now(), &mut machine.actions);
        let result = match bodies.pop() {
            Some(body) if !delay.is_zero() => producer.publish_after(&topic, delay, body, now, out),
            Some(body) if bodies.is_empty() => producer.publish(&topic, body, now, out),
            last => {
                bodies.extend(last);
                producer.publish_many(&topic, &bodies, now, out)
            }
        };
        match result {
            Ok(id) => {
                machine.publishes.insert(id, numbers);
            }
            Err(error) => {
                context.log(format_args!("can't publish: {error}"));
                complete(&numbers, PublishOutcome::Refused, context);
            }
        }
    }

    fn dial_of(&self, link: LinkId) -> Option<DialId> {
        let current = self.machine.as_ref().and_then(|machine| machine.link);
        current.filter(|(at, _)| *at == link).map(|(_, id)| id)
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        while !machine.actions.is_empty() {
            let actions = core::mem::take(&mut machine.actions);
            for event in actions.events {
                context.log(format_args!("{event}"));
            }
            for (id, bytes) in actions.net.farewells {
                if let Some((link, _)) = machine.link.filter(|(_, at)| *at == id) {
                    context.write(link, &bytes);
                }
            }
            for id in actions.net.close {
                if let Some((link, _)) = machine.link.take_if(|(_, at)| *at == id) {
                    context.close(link);
                }
            }
            for dial in actions.net.dial {
                machine.link = Some((context.dial(&dial.address), dial.id));
            }
            if !actions.net.transmit.is_empty() {
                machine.flush(context);
            }
            for (id, result) in actions.completed {
                let outcome = outcome_of(&result);
                match machine.publishes.remove(&id) {
                    Some(messages) => {
                        check_last(self.last.as_ref(), &messages, outcome, context);
                        complete(&messages, outcome, context);
                    }
                    None => context.violate(format!("publish {id} is completed twice")),
                }
            }
        }
        context.arm(machine.producer.poll_timeout());
    }
}

impl Client for Publisher {
    fn started(&mut self, context: &mut Context<'_>) {
        let seed = context.rng.fork(1).next_u64();
        let producer = Producer::new(nsqd_address(self.node), self.options.clone(), seed)
            .expect("the options are in range");
        self.machine = Some(Volatile {
            producer,
            actions: ProducerActions::default(),
            link: None,
            publishes: BTreeMap::new(),
        });
        context.wake(Duration::ZERO, if context.is_calm() { LAST } else { PUBLISH });
    }

    fn connected(&mut self, link: LinkId, context: &mut Context<'_>) {
        if let (Some(id), Some(machine)) = (self.dial_of(link), &mut self.machine) {
            machine.producer.handle_connected(id, context.now(), &mut machine.actions);
            self.settle(context);
        }
    }

    fn input(&mut self, link: LinkId, input: &mut BytesMut, context: &mut Context<'_>) {
        if let (Some(id), Some(machine)) = (self.dial_of(link), &mut self.machine) {
            machine.producer.handle_input(id, input, context.now(), &mut machine.actions);
            self.settle(context);
        }
    }

    fn writable(&mut self, link: LinkId, context: &mut Context<'_>) {
        if let (Some(_), Some(machine)) = (self.dial_of(link), &mut self.machine) {
            machine.flush(context);
            self.settle(context);
        }
    }

    fn closed(&mut self, link: LinkId, why: Gone, context: &mut Context<'_>) {
        let Some(id) = self.dial_of(link) else { return };
        let Some(Volatile { producer, actions, link, .. }) = &mut self.machine else { return };
        *link = None;
        match why {
            Gone::Refused => {
                let text = why.text().unwrap_or_default();
                producer.handle_connect_failed(id, text, context.now(), actions);
            }
            Gone::Ended | Gone::Broken => {
                producer.handle_closed(id, why.text(), context.now(), actions);
            }
        }
        self.settle(context);
    }

    fn called(&mut self, _: u64, _: CallResult, _: &mut Context<'_>) {}

    fn replied(&mut self, key: u64, reply: Result<AdminReply, Gone>, context: &mut Context<'_>) {
        let Some(messages) = self.asked.remove(&key) else { return };
        let outcome = match reply {
            Ok(AdminReply::Published) => PublishOutcome::Accepted,
            Ok(AdminReply::Refused(_)) | Err(Gone::Refused) => PublishOutcome::Refused,
            Err(_) => PublishOutcome::Unknown,
            Ok(other) => return context.violate(format!("{other:?} is no reply to a publish")),
        };
        complete(&messages, outcome, context);
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        if let Some(machine) = &mut self.machine {
            machine.producer.handle_timeout(context.now(), &mut machine.actions);
            self.settle(context);
        }
    }

    fn woken(&mut self, token: u64, context: &mut Context<'_>) {
        if token == PUBLISH { self.publish(context) } else { self.publish_last(context) }
    }

    fn calm(&mut self, context: &mut Context<'_>) {
        context.wake(LAST_AFTER, LAST);
    }

    fn crashed(&mut self, context: &mut Context<'_>) {
        let publishes = self.machine.take().map(|machine| machine.publishes).unwrap_or_default();
        let asked = core::mem::take(&mut self.asked);
        for messages in publishes.into_values().chain(asked.into_values()) {
            complete(&messages, PublishOutcome::Unknown, context);
        }
        self.started(context);
    }

    fn check_done(&self) -> Result<(), String> {
        let outstanding = self.machine.as_ref().map_or(0, |machine| machine.producer.outstanding());
        if self.last.is_some() && outstanding == 0 && self.asked.is_empty() {
            return Ok(());
        }
        Err("has publishes without outcome".into())
    }
}

impl Volatile {
    /// Writes while the socket takes it; what it does not take yet stays in the producer.
    fn flush(&mut self, context: &mut Context<'_>) {
        let Some((link, _)) = self.link else { return };
        let mut spare = Vec::new();
        while context.is_writable(link) {
            self.producer.swap_transmit(context.now(), &mut spare);
            if spare.is_empty() {
                return;
            }
            context.write(link, &spare);
        }
    }
}

/// What a publisher knows from what it was told.
pub(crate) const fn outcome_of(result: &Result<(), PublishError>) -> PublishOutcome {
    match result {
        Ok(()) => PublishOutcome::Accepted,
        Err(PublishError::Unknown(_)) => PublishOutcome::Unknown,
        Err(_) => PublishOutcome::Refused,
    }
}

/// Tells the judges what became of some messages.
pub(crate) fn complete(
    messages: &[MessageNumber],
    outcome: PublishOutcome,
    context: &mut Context<'_>,
) {
    for message in messages {
        context.completed(*message, outcome);
    }
}

/// What is published last has to be accepted.
pub(crate) fn check_last(
    last: Option<&BTreeSet<MessageNumber>>,
    messages: &[MessageNumber],
    outcome: PublishOutcome,
    context: &mut Context<'_>,
) {
    let is_last = |message| last.is_some_and(|last| last.contains(message));
    if outcome != PublishOutcome::Accepted && messages.iter().any(is_last) {
        context.violate(format!("nothing breaks, and {messages:?} is {outcome:?}"));
    }
}

/// Wakes.
const PUBLISH: u64 = 0;
const LAST: u64 = 1;

/// When, after things have stopped breaking, everything has to work again: connections that broke
/// are noticed and made anew, nsqlookupds know everything, and what waited for room is through. A
/// client notices after a minute that its server is silent.
pub(crate) const LAST_AFTER: Duration = Duration::from_secs(75);

/// Bodies begin with the number of the message.
pub(crate) const SMALLEST_BODY_LEN: usize = 8;

/// More publishes than nsqd leaves unanswered on one connection (256).
pub(crate) const BURST: usize = 300;

/// The longest delay of a DPUB.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(4);
