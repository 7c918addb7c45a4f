//! The core's pool of producers, and a program that publishes with it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use sansq_core::client::{PoolOptions, ProducerPool, PublishId, RetryPolicy};
use sansq_core::http::call::CallResult;
use sansq_core::name::TopicName;

use super::publisher::{
    BURST, DELAY_MAX, LAST_AFTER, SMALLEST_BODY_LEN, check_last, complete, outcome_of,
};
use super::wires::Wired;
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
    /// The longest of what it publishes in the end, in bytes.
    pub last_body_len_max: usize,
    /// Whether it ends with many publishes at once.
    pub burst: bool,
    /// Whether everything that it publishes in the end, when nothing breaks, has to be accepted.
    /// With [`RetryPolicy::Never`] it need not in any case.
    pub is_patient: bool,
}

impl PoolPlan {
    /// A pool with its defaults that finds nsqds through the nsqlookupds and publishes `messages`
    /// messages, one after the other with at most `every_max` between two.
    pub fn new(topics: Vec<TopicName>, messages: usize, every_max: Duration) -> Self {
        let mut options = PoolOptions::default();
        options.lookupd.poll_interval = Duration::from_secs(5);
        options.lookupd.poll_jitter = Duration::from_secs(1);
        Self {
            options,
            nsqds: Vec::new(),
            topics,
            messages,
            every_max,
            body_len_max: 100,
            last_body_len_max: 100,
            burst: false,
            is_patient: false,
        }
    }
}

/// Publishes with the core's `ProducerPool`: single messages, batches and delayed ones. The judges
/// know what the pool told it, and that with [`RetryPolicy::Never`] and [`RetryPolicy::NotStored`]
/// nothing may be stored twice.
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
    wired: Wired<ProducerPool>,
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
            let len = if self.last.is_some() { len.min(self.plan.last_body_len_max) } else { len };
            let (number, body) = context.publishing_anywhere(topic, len, delay, once);
            numbers.push(number);
            bodies.push(body);
        }
        // A topic that is new to an nsqd without a disk has no room until a consumer comes.
        let has_to = self.plan.is_patient && self.plan.options.retry != RetryPolicy::Never;
        if let Some(last) = self.last.as_mut().filter(|_| has_to) {
            last.extend(numbers.iter().copied());
        }
        let (wired, now) = (&mut machine.wired, context.now());
        let (pool, out) = (&mut wired.machine, &mut wired.actions);
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

    /// Tells the machine something, and sees to what comes of it if that concerns it.
    fn drive(
        &mut self,
        context: &mut Context<'_>,
        tell: impl FnOnce(&mut Wired<ProducerPool>, &mut Context<'_>) -> bool,
    ) {
        if let Some(machine) = &mut self.machine
            && tell(&mut machine.wired, context)
        {
            self.settle(context);
        }
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        while !machine.wired.actions.is_empty() {
            let actions = core::mem::take(&mut machine.wired.actions);
            for event in actions.events {
                context.log(format_args!("{event}"));
            }
            machine.wired.carry_out(actions.net, context);
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
        context.arm(machine.wired.machine.poll_timeout());
    }
}

impl Client for Pool {
    fn started(&mut self, context: &mut Context<'_>) {
        let seed = context.rng.next_u64();
        let pool =
            ProducerPool::new(self.plan.options.clone(), seed).expect("the options are in range");
        let (mut wired, now) = (Wired::new(pool), context.now());
        let Wired { machine: pool, actions, .. } = &mut wired;
        for node in &self.plan.nsqds {
            pool.add_nsqd(&nsqd_address(*node), now, actions);
        }
        if self.plan.nsqds.is_empty() {
            for lookupd in 0..context.lookupds() {
                let address = lookupd_http_address(lookupd);
                pool.add_nsqlookupd(&address, now, actions).expect("this is an address");
            }
        }
        self.machine = Some(Machine { wired, publishes: BTreeMap::new() });
        self.settle(context);
        if !context.is_calm() {
            context.wake(Duration::ZERO, PUBLISH);
        }
    }

    fn connected(&mut self, link: LinkId, context: &mut Context<'_>) {
        self.drive(context, |wired, context| wired.connected(link, context));
    }

    fn input(&mut self, link: LinkId, input: &mut BytesMut, context: &mut Context<'_>) {
        self.drive(context, |wired, context| wired.input(link, input, context));
    }

    fn writable(&mut self, link: LinkId, context: &mut Context<'_>) {
        self.drive(context, |wired, context| wired.writable(link, context));
    }

    fn closed(&mut self, link: LinkId, why: Gone, context: &mut Context<'_>) {
        self.drive(context, |wired, context| wired.closed(link, why, context));
    }

    fn called(&mut self, key: u64, result: CallResult, context: &mut Context<'_>) {
        self.drive(context, |wired, context| wired.called(key, result, context));
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        self.drive(context, |wired, context| wired.timeout(context));
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
        let Some(machine) = &self.machine else { return Ok(()) };
        let pool = &machine.wired.machine;
        let limits = &self.plan.options.producer;
        let (publishes, bytes) = (pool.outstanding(), pool.outstanding_bytes());
        if publishes <= limits.max_outstanding && bytes <= limits.max_outstanding_bytes {
            return Ok(());
        }
        Err(format!("has {publishes} publishes of {bytes} bytes without outcome"))
    }

    fn check_done(&self) -> Result<(), String> {
        let outstanding =
            self.machine.as_ref().map_or(0, |machine| machine.wired.machine.outstanding());
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
