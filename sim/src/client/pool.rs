//! The core's pool of producers, and a program that publishes with it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use sansq_core::client::{PoolOptions, ProducerActions, ProducerPool, PublishId, RetryPolicy};
use sansq_core::http::call::CallResult;
use sansq_core::name::TopicName;

use super::publisher::{
    BURST, DELAY_MAX, LAST_AFTER, SMALLEST_BODY_LEN, check_last, complete, outcome_of,
};
use super::wires::{Wires, flush};
use super::{Client, Context, Gone, lookupd_http_address, nsqd_address};
use crate::chance::Chance;
use crate::model::{MessageNumber, Outcome};
use crate::net::LinkId;

/// What a [`Pool`] does.
#[derive(Clone, Debug)]
pub struct PoolPlan {
    /// The settings of the pool.
    pub options: PoolOptions,
    /// The nsqds that it is given, by number; none: it asks all nsqlookupds.
    pub nsqds: Vec<usize>,
    /// What it publishes to.
    pub topics: Vec<TopicName>,
    /// How many messages it publishes.
    pub messages: usize,
    /// The longest time between two publishes.
    pub every_max: Duration,
    /// The longest body, in bytes.
    pub body_len_max: usize,
    /// Whether it ends with many publishes at once.
    pub burst: bool,
    /// Whether everything that it publishes in the end, when nothing breaks, has to be accepted. With
    /// [`RetryPolicy::Never`] it need not in any case.
    pub is_patient: bool,
}

impl PoolPlan {
    /// A pool with its defaults that finds nsqds through the nsqlookupds and publishes `messages` messages,
    /// one after the other with at most `every_max` between two.
    pub fn new(topics: Vec<TopicName>, messages: usize, every_max: Duration) -> Self {
        let mut options = PoolOptions::default();
        options.lookupd.poll_interval = Duration::from_secs(5);
        options.lookupd.poll_jitter = Duration::from_secs(1);
        let (nsqds, body_len_max) = (Vec::new(), 100);
        let (burst, is_patient) = (false, false);
        Self { options, nsqds, topics, messages, every_max, body_len_max, burst, is_patient }
    }
}

/// Publishes with the core's `ProducerPool`: single messages, batches and delayed ones. The judges know
/// what the pool told it, and that with [`RetryPolicy::Never`] and [`RetryPolicy::NotStored`] nothing may
/// be stored twice.
#[derive(Debug)]
pub struct Pool {
    plan: PoolPlan,
    left: usize,
    machine: Option<Machine>,
    /// What has to be accepted; `None` until it is published.
    last: Option<BTreeSet<MessageNumber>>,
}

/// What dies with the process.
#[derive(Debug)]
struct Machine {
    pool: ProducerPool,
    actions: ProducerActions,
    wires: Wires,
    publishes: BTreeMap<PublishId, Vec<MessageNumber>>,
}

impl Pool {
    /// One that does what `plan` says.
    pub fn new(plan: PoolPlan) -> Self {
        Self { left: plan.messages, plan, machine: None, last: None }
    }

    fn publish(&mut self, context: &mut Context<'_>) {
        if self.left == 0 || context.is_calm() {
            return;
        }
        let rng = &mut *context.rng;
        let again = rng.within(self.plan.every_max);
        let topic = *rng.pick(&self.plan.topics);
        let count = if rng.percent(20) { rng.between(1, 5) as usize } else { 1 };
        let count = count.min(self.left);
        self.left -= count;
        let delayed = count == 1 && rng.percent(15);
        let delay = if delayed { rng.within(DELAY_MAX) } else { Duration::ZERO };
        let delay = Duration::from_millis(delay.as_millis() as u64);
        context.wake(again, PUBLISH);
        self.send(topic, delay, count, context);
        self.settle(context);
    }

    /// Publishes a message to each topic, or many at once.
    fn publish_last(&mut self, context: &mut Context<'_>) {
        let mut topics = self.plan.topics.clone();
        let burst = if self.plan.burst { BURST } else { 0 };
        topics.extend((0..burst).map(|_| *context.rng.pick(&self.plan.topics)));
        self.last = Some(BTreeSet::new());
        for topic in topics {
            self.send(topic, Duration::ZERO, 1, context);
        }
        self.settle(context);
    }

    fn send(&mut self, topic: TopicName, delay: Duration, count: usize, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        let once = self.plan.options.retry != RetryPolicy::Always;
        let (mut numbers, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let len_max = self.plan.body_len_max.max(SMALLEST_BODY_LEN) as u64;
            let len = context.rng.between(SMALLEST_BODY_LEN as u64, len_max) as usize;
            let (number, body) = context.publishing_anywhere(topic, len, delay, once);
            numbers.push(number);
            bodies.push(body);
        }
        // A topic that is new to an nsqd without a disk has no room until a consumer comes.
        let has_to = self.plan.is_patient && self.plan.options.retry != RetryPolicy::Never;
        if let Some(last) = self.last.as_mut().filter(|_| has_to) {
            last.extend(numbers.iter().copied());
        }
        let (pool, now, out) = (&mut machine.pool, context.now(), &mut machine.actions);
        let result = match bodies.pop() {
            Some(body) if !delay.is_zero() => pool.publish_after(&topic, delay, body, now, out),
            Some(body) if bodies.is_empty() => pool.publish(&topic, body, now, out),
            last => {
                bodies.extend(last);
                pool.publish_many(&topic, &bodies, now, out)
            }
        };
        match result {
            Ok(id) => {
                machine.publishes.insert(id, numbers);
            }
            Err(error) => {
                context.log(format_args!("can't publish: {error}"));
                complete(&numbers, Outcome::Refused, context);
            }
        }
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        while !machine.actions.is_empty() {
            let actions = core::mem::take(&mut machine.actions);
            for event in actions.events {
                context.log(format_args!("{event}"));
            }
            let pool = &mut machine.pool;
            machine.wires.carry_out(actions.net, context, |id, now, spare| {
                pool.swap_transmit(id, now, spare);
            });
            for (id, result) in actions.completed {
                let outcome = outcome_of(&result);
                match machine.publishes.remove(&id) {
                    Some(messages) => {
                        if let Err(error) = &result {
                            context.log(format_args!("publish {id}: {error}"));
                        }
                        check_last(self.last.as_ref(), &messages, outcome, context);
                        complete(&messages, outcome, context);
                    }
                    None => context.violate(format!("publish {id} is completed twice")),
                }
            }
        }
        context.arm(machine.pool.poll_timeout());
    }
}

impl Client for Pool {
    fn started(&mut self, context: &mut Context<'_>) {
        let seed = context.rng.next_u64();
        let mut pool =
            ProducerPool::new(self.plan.options.clone(), seed).expect("the options are in range");
        let (now, mut actions) = (context.now(), ProducerActions::default());
        for node in &self.plan.nsqds {
            pool.add_nsqd(&nsqd_address(*node), now, &mut actions);
        }
        if self.plan.nsqds.is_empty() {
            for lookupd in 0..context.lookupds() {
                let address = lookupd_http_address(lookupd);
                pool.add_nsqlookupd(&address, now, &mut actions).expect("this is an address");
            }
        }
        let (wires, publishes) = (Wires::default(), BTreeMap::new());
        self.machine = Some(Machine { pool, actions, wires, publishes });
        self.settle(context);
        if !context.is_calm() {
            context.wake(Duration::ZERO, PUBLISH);
        }
    }

    fn connected(&mut self, link: LinkId, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        if let Some(id) = machine.wires.dial_of(link) {
            machine.pool.handle_connected(id, context.now(), &mut machine.actions);
            self.settle(context);
        }
    }

    fn input(&mut self, link: LinkId, input: &mut BytesMut, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        if let Some(id) = machine.wires.dial_of(link) {
            machine.pool.handle_input(id, input, context.now(), &mut machine.actions);
            self.settle(context);
        }
    }

    fn writable(&mut self, link: LinkId, context: &mut Context<'_>) {
        let Some(Machine { pool, wires, .. }) = &mut self.machine else { return };
        if let Some(id) = wires.dial_of(link) {
            flush(link, id, context, |id, now, spare| pool.swap_transmit(id, now, spare));
            self.settle(context);
        }
    }

    fn closed(&mut self, link: LinkId, why: Gone, context: &mut Context<'_>) {
        let Some(Machine { pool, actions, wires, .. }) = &mut self.machine else { return };
        let Some(id) = wires.remove(link) else { return };
        match (why, why.text()) {
            (Gone::Refused, Some(text)) => {
                pool.handle_connect_failed(id, text, context.now(), actions);
            }
            (_, text) => pool.handle_closed(id, text, context.now(), actions),
        }
        self.settle(context);
    }

    fn called(&mut self, key: u64, result: CallResult, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        if let Some(id) = machine.wires.take_call(key) {
            machine.pool.handle_called(id, result, context.now(), &mut machine.actions);
            self.settle(context);
        }
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        if let Some(machine) = &mut self.machine {
            machine.pool.handle_timeout(context.now(), &mut machine.actions);
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
        for messages in publishes.into_values() {
            complete(&messages, Outcome::Unknown, context);
        }
        self.started(context);
    }

    fn check_held(&self) -> Result<(), String> {
        let Some(Machine { pool, .. }) = &self.machine else { return Ok(()) };
        let limits = &self.plan.options.producer;
        let (publishes, bytes) = (pool.outstanding(), pool.outstanding_bytes());
        if publishes <= limits.max_outstanding && bytes <= limits.max_outstanding_bytes {
            return Ok(());
        }
        Err(format!("has {publishes} publishes of {bytes} bytes without outcome"))
    }

    fn check_done(&self) -> Result<(), String> {
        let outstanding = self.machine.as_ref().map_or(0, |machine| machine.pool.outstanding());
        let is_known = self.machine.as_ref().is_none_or(|machine| machine.publishes.is_empty());
        if self.last.is_some() && outstanding == 0 && is_known {
            return Ok(());
        }
        Err("has publishes without outcome".into())
    }
}

/// Wakes.
const PUBLISH: u64 = 0;
const LAST: u64 = 1;
