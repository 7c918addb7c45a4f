//! What a worker's program does with messages: it consumes, publishes, and finishes.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use sansq_core::client::{AnswerError, Consumer, Delivery, DeliveryKey, PublishError};
use sansq_core::name::{ChannelName, TopicName};

use super::Context;
use super::pool::Publishing;
use super::wires::Wired;
use crate::chance::Chance;
use crate::model::{MessageNumber, PublishOutcome};
use crate::swarm::{Habit, Habits};

/// A program behind a consumer, and perhaps a pool of producers: the part of a
/// [`Worker`](super::worker::Worker) that is one's own. Methods without a default are called when
/// there is something to do; what the program does about it, it does at the [`Desk`].
pub trait Handler: fmt::Debug {
    /// A message has come. It is the program's until it answers it, at this call or a later one.
    fn handle(&mut self, delivery: Delivery, desk: &mut Desk<'_, '_>);

    /// What became of a message that [`Desk::publish`] took; why, is in the trace.
    fn published(&mut self, _: MessageNumber, _: PublishOutcome, _: &mut Desk<'_, '_>) {}

    /// The time of [`Desk::wake`] has come.
    fn woken(&mut self, _: u64, _: &mut Desk<'_, '_>) {}

    /// From now on nothing breaks any more, and every message is to be finished.
    fn calm(&mut self, _: &mut Desk<'_, '_>) {}

    /// The process begins, for the first time or anew: the program is to forget what a process
    /// forgets.
    fn begin(&mut self) {}
}

/// What a [`Handler`] may do.
#[derive(Debug)]
pub struct Desk<'a, 'b> {
    pub(super) topic: TopicName,
    pub(super) channel: ChannelName,
    pub(super) consumer: &'a mut Wired<Consumer>,
    pub(super) publishing: Option<&'a mut Publishing>,
    /// The clocks, chance, the trace, and the judges.
    pub context: &'a mut Context<'b>,
}

impl Desk<'_, '_> {
    /// Finishes a message, and tells the judges that the program has done its work on it.
    ///
    /// # Errors
    /// If it is too late: then the message comes again.
    pub fn finish(&mut self, delivery: &Delivery) -> Result<(), AnswerError> {
        self.context.handled(self.topic, self.channel, &delivery.message.body);
        self.answer(|consumer, now, out| consumer.finish(delivery.key, now, out))
    }

    /// Gives a message back, which comes again after `delay`, or after what the consumer thinks
    /// right; `backoff`: the consumer is to slow down.
    ///
    /// # Errors
    /// If it is too late: then the message comes again anyway.
    pub fn requeue(
        &mut self,
        key: DeliveryKey,
        delay: Option<Duration>,
        backoff: bool,
    ) -> Result<(), AnswerError> {
        self.answer(|consumer, now, out| consumer.requeue(key, delay, backoff, now, out))
    }

    /// Asks for more time for a message.
    ///
    /// # Errors
    /// If it is too late: then the message comes again.
    pub fn touch(&mut self, key: DeliveryKey) -> Result<(), AnswerError> {
        self.answer(|consumer, now, out| consumer.touch(key, now, out).map(|_| ()))
    }

    /// Publishes a message with a body of `len` bytes (8 at least), and returns its number.
    /// [`Handler::published`] tells what became of it.
    ///
    /// # Errors
    /// If the pool does not take it.
    ///
    /// # Panics
    /// If the worker's plan has no pool.
    pub fn publish(&mut self, topic: TopicName, len: usize) -> Result<MessageNumber, PublishError> {
        let publishing = self.publishing.as_mut().expect("the plan has a pool");
        let once = publishing.is_once();
        let delay = Duration::ZERO;
        let (number, body) = self.context.publishing_anywhere(topic, len, delay, once);
        publishing
            .publish(topic, delay, vec![number], vec![body], self.context)
            .map(|()| number)
            .inspect_err(|_| self.context.completed(number, PublishOutcome::Refused))
    }

    /// Calls [`Handler::woken`] with `token` after `delay`, unless the process dies before.
    pub fn wake(&mut self, delay: Duration, token: u64) {
        self.context.wake(delay, token + 1);
    }

    fn answer(
        &mut self,
        answer: impl FnOnce(
            &mut Consumer,
            sansq_core::time::Now,
            &mut sansq_core::client::ConsumerActions,
        ) -> Result<(), AnswerError>,
    ) -> Result<(), AnswerError> {
        let Wired { machine, actions, .. } = &mut *self.consumer;
        let result = answer(machine, self.context.now(), actions);
        if let Err(error) = result {
            self.context.log(format_args!("answers too late: {error}"));
        }
        result
    }
}

/// Finishes, requeues with and without backoff, touches, is slow, or never answers, as one that
/// panics does.
#[derive(Debug)]
pub(super) struct Habitual {
    habits: Habits,
    planned: u64,
    tasks: BTreeMap<u64, Task>,
    /// What was never answered.
    ignored: Vec<DeliveryKey>,
}

#[derive(Debug)]
struct Task {
    delivery: Delivery,
    habit: Habit,
}

impl Habitual {
    pub(super) const fn new(habits: Habits) -> Self {
        Self { habits, planned: 0, tasks: BTreeMap::new(), ignored: Vec::new() }
    }
}

impl Handler for Habitual {
    fn handle(&mut self, delivery: Delivery, desk: &mut Desk<'_, '_>) {
        let is_calm = desk.context.is_calm();
        let rng = desk.context.rng();
        let habit = if is_calm { Habit::Finish } else { self.habits.draw(rng) };
        let work_max = if is_calm { Duration::ZERO } else { self.habits.work_max };
        let delay = rng.within(work_max);
        self.tasks.insert(self.planned, Task { delivery, habit });
        desk.wake(delay, self.planned);
        self.planned += 1;
    }

    /// The work on a message is done. Answers that are too late are in the trace.
    fn woken(&mut self, number: u64, desk: &mut Desk<'_, '_>) {
        let Some(Task { delivery, habit }) = self.tasks.remove(&number) else { return };
        let key = delivery.key;
        let _: Result<(), AnswerError> = match habit {
            Habit::Finish => desk.finish(&delivery),
            Habit::FinishTwice => {
                let result = desk.finish(&delivery);
                let Wired { machine, actions, .. } = &mut *desk.consumer;
                if machine.finish(key, desk.context.now(), actions).is_ok() {
                    desk.context.violate("a message was finished twice");
                }
                result
            }
            Habit::Requeue => {
                let rng = desk.context.rng();
                let delay = rng.within(self.habits.requeue_delay_max);
                let delay = rng.percent(70).then_some(delay);
                let backoff = rng.percent(50);
                desk.requeue(key, delay, backoff)
            }
            Habit::Touch => {
                let result = desk.touch(key);
                if result.is_ok() {
                    let delay = desk.context.rng().within(self.habits.work_max);
                    self.tasks.insert(number, Task { delivery, habit: Habit::Finish });
                    desk.wake(delay, number);
                }
                result
            }
            Habit::Ignore if desk.context.is_calm() => desk.requeue(key, None, false),
            Habit::Ignore => {
                self.ignored.push(key);
                Ok(())
            }
        };
    }

    /// A consumer that touches by itself would keep what is ignored for a quarter of an hour.
    fn calm(&mut self, desk: &mut Desk<'_, '_>) {
        for key in core::mem::take(&mut self.ignored) {
            let _: Result<(), AnswerError> = desk.requeue(key, None, false);
        }
    }

    fn begin(&mut self) {
        self.tasks.clear();
        self.ignored.clear();
    }
}
