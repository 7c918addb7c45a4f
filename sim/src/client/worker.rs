//! The core's consumer, and a program that handles what it gives.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sansq_core::client::{Consumer, ConsumerOptions, Delivery, DeliveryKey};
use sansq_core::http::call::CallResult;
use sansq_core::name::{ChannelName, TopicName};

use super::wires::Wired;
use super::{Client, Context, Gone, lookupd_http_address, nsqd_address};
use crate::chance::Chance;
use crate::net::LinkId;
use crate::swarm::{Habit, Habits};

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
    /// What it does with messages; `ready_percent` changes `max_in_flight`, `close_percent` stops
    /// the consumer in good order and starts a new one.
    pub habits: Habits,
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
        Self { options, nsqds: Vec::new(), topic, channel, habits: Habits::good() }
    }
}

/// Consumes with the core's `Consumer`. Its handler finishes, requeues with and without backoff,
/// touches, is slow, or never answers, as one that panics does.
#[derive(Debug)]
pub struct Worker {
    plan: WorkerPlan,
    machine: Option<Machine>,
    planned: u64,
    is_stopping: bool,
}

/// What dies with the process.
#[derive(Debug)]
struct Machine {
    wired: Wired<Consumer>,
    tasks: BTreeMap<u64, Task>,
    /// What was never answered.
    ignored: Vec<DeliveryKey>,
}

#[derive(Debug)]
struct Task {
    key: DeliveryKey,
    habit: Habit,
    body: Bytes,
}

impl Worker {
    /// One that does what `plan` says.
    pub const fn new(plan: WorkerPlan) -> Self {
        Self { plan, machine: None, planned: 0, is_stopping: false }
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
        let (tasks, ignored) = (BTreeMap::new(), Vec::new());
        self.machine = Some(Machine { wired, tasks, ignored });
        self.is_stopping = false;
        self.settle(context);
    }

    /// Tells the machine something, and sees to what comes of it if that concerns it.
    fn drive(
        &mut self,
        context: &mut Context<'_>,
        tell: impl FnOnce(&mut Wired<Consumer>, &mut Context<'_>) -> bool,
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
            for Delivery { key, message, .. } in actions.messages {
                let habit = if context.is_calm() {
                    Habit::Finish
                } else {
                    self.plan.habits.draw(context.rng)
                };
                let task = Task { key, habit, body: message.body };
                self.planned += 1;
                machine.tasks.insert(self.planned, task);
                let is_calm = context.is_calm();
                let work_max = if is_calm { Duration::ZERO } else { self.plan.habits.work_max };
                let delay = context.rng.within(work_max);
                context.wake(delay, self.planned);
            }
        }
        if self.is_stopping && machine.wired.machine.is_stopped() {
            return self.begin(context);
        }
        let deadline = machine.wired.machine.poll_timeout();
        context.arm(deadline);
    }

    /// Changes `max_in_flight` or stops, as the habits are.
    fn look_after(&mut self, context: &mut Context<'_>) {
        context.wake(LOOK_EVERY, LOOK);
        let changes = context.rng.percent(self.plan.habits.ready_percent);
        let leaves = context.rng.percent(self.plan.habits.close_percent);
        let most = self.plan.options.max_in_flight;
        let drawn = context.rng.between(0, u64::from(most)) as u32;
        let Some(machine) = &mut self.machine else { return };
        let Wired { machine: consumer, actions: out, .. } = &mut machine.wired;
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

    /// The work on a message is done.
    fn decide(&mut self, number: u64, context: &mut Context<'_>) {
        let Some(machine) = &mut self.machine else { return };
        let Some(Task { key, habit, body }) = machine.tasks.remove(&number) else { return };
        let now = context.now();
        let Wired { machine: consumer, actions: out, .. } = &mut machine.wired;
        let result = match habit {
            Habit::Finish | Habit::FinishTwice => {
                context.handled(self.plan.topic, self.plan.channel, &body);
                let result = consumer.finish(key, now, out);
                if habit == Habit::FinishTwice && consumer.finish(key, now, out).is_ok() {
                    context.violate("a message was finished twice");
                }
                result
            }
            Habit::Requeue => {
                let delay = context.rng.within(self.plan.habits.requeue_delay_max);
                let delay = context.rng.percent(70).then_some(delay);
                let backoff = context.rng.percent(50);
                consumer.requeue(key, delay, backoff, now, out)
            }
            Habit::Touch => {
                let result = consumer.touch(key, now, out).map(|_| ());
                if result.is_ok() {
                    let delay = context.rng.within(self.plan.habits.work_max);
                    machine.tasks.insert(number, Task { key, habit: Habit::Finish, body });
                    context.wake(delay, number);
                }
                result
            }
            Habit::Ignore if context.is_calm() => consumer.requeue(key, None, false, now, out),
            Habit::Ignore => {
                machine.ignored.push(key);
                Ok(())
            }
        };
        if let Err(error) = result {
            context.log(format_args!("answers too late: {error}"));
        }
        self.settle(context);
    }
}

impl Client for Worker {
    fn started(&mut self, context: &mut Context<'_>) {
        context.handles(self.plan.topic, self.plan.channel);
        self.begin(context);
        context.wake(LOOK_EVERY, LOOK);
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
        if token == LOOK { self.look_after(context) } else { self.decide(token, context) }
    }

    /// A consumer that touches by itself would keep what is ignored for a quarter of an hour.
    fn calm(&mut self, context: &mut Context<'_>) {
        let Some(Machine { wired, ignored, .. }) = &mut self.machine else { return };
        let Wired { machine: consumer, actions, .. } = wired;
        for key in core::mem::take(ignored) {
            if let Err(error) = consumer.requeue(key, None, false, context.now(), actions) {
                context.log(format_args!("answers too late: {error}"));
            }
        }
        self.settle(context);
    }

    fn crashed(&mut self, context: &mut Context<'_>) {
        self.machine = None;
        self.started(context);
    }

    fn check_done(&self) -> Result<(), String> {
        if self.is_stopping { Err("has not stopped".into()) } else { Ok(()) }
    }
}

/// The wake that looks after the consumer; others are numbers of tasks, from 1 on.
const LOOK: u64 = 0;

/// How often it does.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The longest that a consumer that stops waits for what is in flight.
const GRACE_MAX: Duration = Duration::from_secs(3);
