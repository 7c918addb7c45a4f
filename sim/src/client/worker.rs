//! The core's consumer, and a program that handles what it gives.

use core::time::Duration;

use bytes::BytesMut;
use sansq_core::client::{
    ClientMachine, Consumer, ConsumerActions, ConsumerOptions, PoolOptions, ProducerPool,
};
use sansq_core::http::call::CallResult;
use sansq_core::machine::MachineActions;
use sansq_core::name::{ChannelName, TopicName};

use super::handler::{Desk, Habitual, Handler};
use super::pool::Publishing;
use super::publisher::{complete, outcome_of};
use super::wires::Wired;
use super::{Client, Context, Gone, lookupd_http_address, nsqd_address};
use crate::chance::Chance;
use crate::net::LinkId;
use crate::swarm::Habits;

/// What a [`Worker`] does.
#[derive(Clone, Debug)]
pub struct WorkerPlan {
    /// The settings of the consumer. With `max_attempts` other than 0, or without handing over what
    /// is above it, messages are finished and not handled, which the judges do not accept.
    pub options: ConsumerOptions,
    /// The nsqds that it is given, by number; none: it asks all nsqlookupds.
    pub nsqds: Vec<usize>,
    /// The topic.
    pub topic: TopicName,
    /// The channel.
    pub channel: ChannelName,
    /// What it does with messages, if it has no handler of its own. In any case `ready_percent`
    /// changes `max_in_flight`, and `close_percent` stops the consumer in good order and starts a
    /// new one, which forgets what was not answered.
    pub habits: Habits,
    /// The settings of the pool with which its handler publishes, to the same nsqds; without it
    /// there is none.
    pub pool: Option<PoolOptions>,
}

impl WorkerPlan {
    /// A consumer that finds nsqds through the nsqlookupds and finishes everything, ten messages at
    /// a time.
    pub fn new(topic: TopicName, channel: ChannelName) -> Self {
        let options = ConsumerOptions {
            max_in_flight: 10,
            max_attempts: 0,
            lookupd_poll_interval: Duration::from_secs(5),
            ..ConsumerOptions::default()
        };
        Self { options, nsqds: Vec::new(), topic, channel, habits: Habits::good(), pool: None }
    }
}

/// Consumes with the core's `Consumer`, for a [`Handler`].
#[derive(Debug)]
pub struct Worker {
    plan: WorkerPlan,
    handler: Box<dyn Handler>,
    machine: Option<Volatile>,
    is_stopping: bool,
}

/// What dies with the process.
#[derive(Debug)]
struct Volatile {
    consumer: Wired<Consumer>,
    publishing: Option<Publishing>,
}

impl Worker {
    /// One that does what the habits of `plan` say: it finishes, requeues with and without backoff,
    /// touches, is slow, or never answers, as a program that panics does.
    pub fn new(plan: WorkerPlan) -> Self {
        let handler = Habitual::new(plan.habits.clone());
        Self::with_handler(plan, handler)
    }

    /// One that leaves messages to a handler of one's own.
    pub fn with_handler(plan: WorkerPlan, handler: impl Handler + 'static) -> Self {
        Self { plan, handler: Box::new(handler), machine: None, is_stopping: false }
    }

    fn begin(&mut self, context: &mut Context<'_>) {
        let plan = &self.plan;
        let seed = context.rng.next_u64();
        let consumer = Consumer::new(plan.topic, plan.channel, plan.options.clone(), seed)
            .expect("the options are in range");
        let (mut wired, now) = (Wired::new(consumer), context.now());
        let Wired { machine: consumer, actions, .. } = &mut wired;
        for node in &plan.nsqds {
            consumer.add_nsqd(&nsqd_address(*node), now, actions);
        }
        if plan.nsqds.is_empty() {
            for lookupd in 0..context.lookupds() {
                let address = lookupd_http_address(lookupd);
                consumer.add_nsqlookupd(&address, now, actions).expect("this is an address");
            }
        }
        let publishing = plan.pool.as_ref();
        let publishing = publishing.map(|pool| Publishing::begin(pool, &plan.nsqds, context));
        self.machine = Some(Volatile { consumer: wired, publishing });
        self.is_stopping = false;
        self.handler.begin();
        self.settle(context);
    }

    /// Tells the machines something, and sees to what comes of it if that concerns one of them.
    fn drive(
        &mut self,
        context: &mut Context<'_>,
        tell: impl FnOnce(&mut Volatile, &mut Context<'_>) -> bool,
    ) {
        if let Some(machine) = &mut self.machine
            && tell(machine, context)
        {
            self.settle(context);
        }
    }

    /// Lets the handler do something, and sees to what comes of it.
    fn with_desk(
        &mut self,
        context: &mut Context<'_>,
        call: impl FnOnce(&mut dyn Handler, &mut Desk<'_, '_>),
    ) {
        let Some(Volatile { consumer, publishing }) = &mut self.machine else { return };
        let WorkerPlan { topic, channel, .. } = self.plan;
        let publishing = publishing.as_mut();
        call(&mut *self.handler, &mut Desk { topic, channel, consumer, publishing, context });
        self.settle(context);
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        let Some(Volatile { consumer, publishing }) = &mut self.machine else { return };
        let WorkerPlan { topic, channel, .. } = self.plan;
        loop {
            let actions = core::mem::take(&mut consumer.actions);
            let is_idle = actions.is_empty();
            let ConsumerActions { net, messages, events } = actions;
            for event in events {
                context.log(format_args!("{event}"));
            }
            consumer.carry_out(net, context);
            for delivery in messages {
                let publishing = publishing.as_mut();
                let mut desk = Desk { topic, channel, consumer, publishing, context };
                self.handler.handle(delivery, &mut desk);
            }
            let done = publishing.as_mut().and_then(|publishing| publishing.step(context));
            if is_idle && done.is_none() {
                break;
            }
            for (id, numbers, result) in done.into_iter().flatten() {
                if let Err(error) = &result {
                    context.log(format_args!("publish {id}: {error}"));
                }
                let outcome = outcome_of(&result);
                complete(&numbers, outcome, context);
                for number in numbers {
                    let publishing = publishing.as_mut();
                    let mut desk = Desk { topic, channel, consumer, publishing, context };
                    self.handler.published(number, outcome, &mut desk);
                }
            }
        }
        if self.is_stopping && consumer.machine.is_stopped() {
            return self.begin(context);
        }
        let publishing = publishing.as_ref();
        let deadlines = [
            consumer.machine.poll_timeout(),
            publishing.and_then(|publishing| publishing.wired.machine.poll_timeout()),
        ];
        context.arm(deadlines.into_iter().flatten().min());
    }

    /// Changes `max_in_flight` or stops, as the habits are.
    fn look_after(&mut self, context: &mut Context<'_>) {
        context.wake(LOOK_EVERY, LOOK);
        let changes = context.rng.percent(self.plan.habits.ready_percent);
        let leaves = context.rng.percent(self.plan.habits.close_percent);
        let most = self.plan.options.max_in_flight;
        let drawn = context.rng.between(0, u64::from(most)) as u32;
        let Some(machine) = &mut self.machine else { return };
        let Wired { machine: consumer, actions: out, .. } = &mut machine.consumer;
        if context.is_calm() {
            consumer.change_max_in_flight(most, context.now(), out);
        } else if leaves && !self.is_stopping {
            self.is_stopping = true;
            consumer.stop(context.rng.within(GRACE_MAX), context.now(), out);
        } else if changes {
            consumer.change_max_in_flight(drawn, context.now(), out);
        }
        self.settle(context);
    }

    /// Nobody hears any more what became of publishes.
    fn give_up_publishes(&mut self, context: &mut Context<'_>) {
        let machine = self.machine.take();
        if let Some(publishing) = machine.and_then(|machine| machine.publishing) {
            publishing.die(context);
        }
    }
}

impl Client for Worker {
    fn started(&mut self, context: &mut Context<'_>) {
        context.handles(self.plan.topic, self.plan.channel);
        self.begin(context);
        context.wake(LOOK_EVERY, LOOK);
    }

    fn connected(&mut self, link: LinkId, context: &mut Context<'_>) {
        self.drive(context, |machine, context| {
            machine.consumer.connected(link, context)
                || machine.pool().is_some_and(|pool| pool.connected(link, context))
        });
    }

    fn input(&mut self, link: LinkId, input: &mut BytesMut, context: &mut Context<'_>) {
        self.drive(context, |machine, context| {
            machine.consumer.input(link, input, context)
                || machine.pool().is_some_and(|pool| pool.input(link, input, context))
        });
    }

    fn writable(&mut self, link: LinkId, context: &mut Context<'_>) {
        self.drive(context, |machine, context| {
            machine.consumer.writable(link, context)
                || machine.pool().is_some_and(|pool| pool.writable(link, context))
        });
    }

    fn closed(&mut self, link: LinkId, why: Gone, context: &mut Context<'_>) {
        self.drive(context, |machine, context| {
            machine.consumer.closed(link, why, context)
                || machine.pool().is_some_and(|pool| pool.closed(link, why, context))
        });
    }

    fn called(&mut self, key: u64, result: CallResult, context: &mut Context<'_>) {
        self.drive(context, |machine, context| {
            machine.consumer.called(key, result.clone(), context)
                || machine.pool().is_some_and(|pool| pool.called(key, result, context))
        });
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        self.drive(context, |machine, context| {
            if let Some(pool) = machine.pool() {
                pool.timeout(context);
            }
            machine.consumer.timeout(context)
        });
    }

    fn woken(&mut self, token: u64, context: &mut Context<'_>) {
        match token.checked_sub(1) {
            None => self.look_after(context),
            Some(token) => self.with_desk(context, |handler, desk| handler.woken(token, desk)),
        }
    }

    fn calm(&mut self, context: &mut Context<'_>) {
        self.with_desk(context, |handler, desk| handler.calm(desk));
    }

    fn crashed(&mut self, context: &mut Context<'_>) {
        self.give_up_publishes(context);
        self.started(context);
    }

    fn check_done(&self) -> Result<(), String> {
        if self.is_stopping {
            return Err("has not stopped".into());
        }
        let publishing = self.machine.as_ref().and_then(|machine| machine.publishing.as_ref());
        publishing.map_or(Ok(()), Publishing::check_done)
    }
}

impl Volatile {
    fn pool(&mut self) -> Option<&mut Wired<ProducerPool>> {
        self.publishing.as_mut().map(|publishing| &mut publishing.wired)
    }
}

/// The wake that looks after the consumer; those of the handler are its tokens, and one more.
const LOOK: u64 = 0;

/// How often it does.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The longest that a consumer that stops waits for what is in flight.
const GRACE_MAX: Duration = Duration::from_secs(3);
