//! The core's pool of producers, and a program that publishes with it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use sansq_core::client::{
    ClientMachine, PoolOptions, ProducerActions, ProducerPool, PublishError, PublishId, RetryPolicy,
};
use sansq_core::http::call::CallResult;
use sansq_core::machine::MachineActions;
use sansq_core::name::TopicName;

use super::publisher::{
    BURST, DELAY_MAX, LAST_AFTER, SMALLEST_BODY_LEN, check_last, complete, outcome_of,
};
use super::wires::Wired;
use super::{Client, Context, Gone, lookupd_http_address, nsqd_address};
use crate::chance::Chance;
use crate::model::{MessageNumber, PublishOutcome};
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
    publishing: Option<Publishing>,
    /// What has to be accepted; `None` until it is published.
    last: Option<BTreeSet<MessageNumber>>,
}

/// A pool and what it was given to publish; it dies with the process.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) wired: Wired<ProducerPool>,
    once: bool,
    publishes: BTreeMap<PublishId, Vec<MessageNumber>>,
}

/// A publish, its messages, and what became of them.
type Completed = (PublishId, Vec<MessageNumber>, Result<(), PublishError>);

impl Publishing {
    /// Begins with these nsqds, or asks all nsqlookupds if there are none.
    pub(super) fn begin(options: &PoolOptions, nsqds: &[usize], context: &mut Context<'_>) -> Self {
        let seed = context.rng.next_u64();
        let pool = ProducerPool::new(options.clone(), seed).expect("the options are in range");
        let (mut wired, now) = (Wired::new(pool), context.now());
        let Wired { machine: pool, actions, .. } = &mut wired;
        for node in nsqds {
            pool.add_nsqd(&nsqd_address(*node), now, actions);
        }
        if nsqds.is_empty() {
            for lookupd in 0..context.lookupds() {
                let address = lookupd_http_address(lookupd);
                pool.add_nsqlookupd(&address, now, actions).expect("this is an address");
            }
        }
        let once = options.retry != RetryPolicy::Always;
        Self { wired, once, publishes: BTreeMap::new() }
    }

    /// Whether nothing may be stored twice.
    pub(super) const fn is_once(&self) -> bool {
        self.once
    }

    /// Publishes one message, or several at once, which are never delayed.
    pub(super) fn publish(
        &mut self,
        topic: TopicName,
        delay: Duration,
        numbers: Vec<MessageNumber>,
        mut bodies: Vec<Bytes>,
        context: &mut Context<'_>,
    ) -> Result<(), PublishError> {
        let (pool, out, now) = (&mut self.wired.machine, &mut self.wired.actions, context.now());
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
                self.publishes.insert(id, numbers);
                Ok(())
            }
            Err(error) => {
                context.log(format_args!("can't publish: {error}"));
                Err(error)
            }
        }
    }

    /// Carries out what the pool asks for; what it has completed is the caller's. `None`: there is
    /// nothing left to do.
    pub(super) fn step(&mut self, context: &mut Context<'_>) -> Option<Vec<Completed>> {
        let actions = core::mem::take(&mut self.wired.actions);
        if actions.is_empty() {
            return None;
        }
        let ProducerActions { net, completed, room: _, events } = actions;
        for event in events {
            context.log(format_args!("{event}"));
        }
        self.wired.carry_out(net, context);
        let mut all = Vec::new();
        for (id, result) in completed {
            match self.publishes.remove(&id) {
                Some(numbers) => all.push((id, numbers, result)),
                None => context.violate(format!("publish {id} is completed twice")),
            }
        }
        Some(all)
    }

    /// The process dies: nobody hears any more what became of what is under way.
    pub(super) fn die(self, context: &mut Context<'_>) {
        for messages in self.publishes.into_values() {
            complete(&messages, PublishOutcome::Unknown, context);
        }
    }

    /// Whether everything that was published has its outcome.
    pub(super) fn check_done(&self) -> Result<(), String> {
        if self.wired.machine.outstanding() == 0 && self.publishes.is_empty() {
            return Ok(());
        }
        Err("has publishes without outcome".into())
    }
}

impl Pool {
    /// One that does what `plan` says.
    pub fn new(plan: PoolPlan) -> Self {
        Self { left: plan.messages, plan, publishing: None, last: None }
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
        let Some(publishing) = &mut self.publishing else { return };
        let once = publishing.is_once();
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
        if publishing.publish(topic, delay, numbers.clone(), bodies, context).is_err() {
            complete(&numbers, PublishOutcome::Refused, context);
        }
    }

    /// Tells the machine something, and sees to what comes of it if that concerns it.
    fn drive(
        &mut self,
        context: &mut Context<'_>,
        tell: impl FnOnce(&mut Wired<ProducerPool>, &mut Context<'_>) -> bool,
    ) {
        if let Some(publishing) = &mut self.publishing
            && tell(&mut publishing.wired, context)
        {
            self.settle(context);
        }
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        let Some(publishing) = &mut self.publishing else { return };
        while let Some(completed) = publishing.step(context) {
            for (id, messages, result) in completed {
                let outcome = outcome_of(&result);
                if let Err(error) = &result {
                    context.log(format_args!("publish {id}: {error}"));
                }
                check_last(self.last.as_ref(), &messages, outcome, context);
                complete(&messages, outcome, context);
            }
        }
        context.arm(publishing.wired.machine.poll_timeout());
    }
}

impl Client for Pool {
    fn started(&mut self, context: &mut Context<'_>) {
        self.publishing = Some(Publishing::begin(&self.plan.options, &self.plan.nsqds, context));
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
        if let Some(publishing) = self.publishing.take() {
            publishing.die(context);
        }
        self.started(context);
    }

    fn check_held(&self) -> Result<(), String> {
        let Some(publishing) = &self.publishing else { return Ok(()) };
        let pool = &publishing.wired.machine;
        let limits = &self.plan.options.producer;
        let (publishes, bytes) = (pool.outstanding(), pool.outstanding_bytes());
        if publishes <= limits.max_outstanding && bytes <= limits.max_outstanding_bytes {
            return Ok(());
        }
        Err(format!("has {publishes} publishes of {bytes} bytes without outcome"))
    }

    fn check_done(&self) -> Result<(), String> {
        if self.last.is_none() {
            return Err("has not published the last messages".into());
        }
        self.publishing.as_ref().map_or(Ok(()), Publishing::check_done)
    }
}

/// Wakes.
const PUBLISH: u64 = 0;
const LAST: u64 = 1;
