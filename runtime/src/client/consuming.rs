//! A consumer's machine, and the messages that wait for the program.

use core::mem;
use core::task::Poll;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use sansq_core::client::{
    ClientMachine, Consumer, ConsumerActions, ConsumerEvent, Delivery, DeliveryKey, DialId,
};
use sansq_core::time::Now;

use super::events::Listeners;
use super::machine::{Client, Task};
use super::message::Message;
use super::setup::DeadLetter;
use super::shared::Shared;
use super::waiters::Waiters;
use super::wakers::Wakers;

/// A core [`Consumer`] and those who wait for it.
#[derive(Debug)]
pub(super) struct Consuming {
    pub(super) machine: Consumer,
    pub(super) listeners: Listeners<ConsumerEvent>,
    /// Messages that nobody has taken yet: at most as many as the machine has in flight.
    queue: VecDeque<Delivery>,
    pub(super) takers: Waiters,
    /// Messages that were attempted too often, for the hook.
    dead: VecDeque<Delivery>,
    dead_letter: Option<DeadLetter>,
    /// What [`resume`](Self::resume) goes back to.
    max_in_flight: u32,
    pub(super) stoppers: Waiters,
    is_stopping: bool,
    is_over: bool,
}

impl Consuming {
    pub(super) fn new(
        machine: Consumer,
        max_in_flight: u32,
        dead_letter: Option<DeadLetter>,
    ) -> Self {
        Self {
            machine,
            listeners: Listeners::default(),
            queue: VecDeque::new(),
            takers: Waiters::default(),
            dead: VecDeque::new(),
            dead_letter,
            max_in_flight,
            stoppers: Waiters::default(),
            is_stopping: false,
            is_over: false,
        }
    }

    /// The next message; `None`: there will be no more.
    pub(super) fn poll_next(&mut self) -> Poll<Option<Delivery>> {
        if let Some(delivery) = self.queue.pop_front() {
            return Poll::Ready(Some(delivery));
        }
        if self.is_stopping || self.is_over {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    pub(super) fn poll_stopped(&self) -> Poll<()> {
        if self.is_over || self.machine.is_stopped() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Gives back what nobody has taken, and waits up to `grace` for the rest.
    pub(super) fn stop(&mut self, grace: Duration, now: Now, out: &mut ConsumerActions) {
        self.is_stopping = true;
        self.machine.stop(grace, now, out);
    }

    pub(super) fn pause(&mut self, now: Now, out: &mut ConsumerActions) {
        self.machine.change_max_in_flight(0, now, out);
    }

    pub(super) fn resume(&mut self, now: Now, out: &mut ConsumerActions) {
        self.machine.change_max_in_flight(self.max_in_flight, now, out);
    }

    pub(super) fn change_max_in_flight(&mut self, count: u32, now: Now, out: &mut ConsumerActions) {
        self.max_in_flight = count;
        self.machine.change_max_in_flight(count, now, out);
    }

    /// Gives back every message that nobody has taken.
    fn give_back(&mut self, now: Now, out: &mut ConsumerActions) {
        for delivery in mem::take(&mut self.queue) {
            // One that is not ours any more comes again anyway.
            let _ = self.machine.requeue(delivery.key, Some(Duration::ZERO), false, now, out);
        }
    }

    /// Drops what the server sends again, so that nobody works on it in vain, and the queue has no
    /// more than what is in flight.
    fn lose(&mut self, is_lost: impl Fn(&DeliveryKey) -> bool) {
        self.queue.retain(|delivery| !is_lost(&delivery.key));
        self.dead.retain(|delivery| !is_lost(&delivery.key));
    }
}

impl Client for Consuming {
    type Machine = Consumer;

    fn machine(&self) -> &Consumer {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Consumer {
        &mut self.machine
    }

    fn lost(&mut self, id: DialId) {
        self.lose(|key| key.dial == id);
    }

    fn settle(&mut self, now: Now, out: &mut ConsumerActions, wakers: &mut Wakers) {
        if !out.messages.is_empty() {
            for delivery in out.messages.drain(..) {
                if delivery.exhausted && self.dead_letter.is_some() {
                    self.dead.push_back(delivery);
                } else {
                    self.queue.push_back(delivery);
                }
            }
            self.takers.wake_all(wakers);
        }
        if self.is_stopping {
            self.give_back(now, out);
            self.takers.wake_all(wakers);
        }
        if !out.net.close.is_empty() {
            self.lose(|key| out.net.close.contains(&key.dial));
        }
        for event in out.events.drain(..) {
            if let ConsumerEvent::TimedOut { key: late, .. } = &event {
                self.lose(|key| key == late);
            }
            self.listeners.tell(&event, wakers);
            wakers.log(event.level(), event);
        }
        if self.machine.is_stopped() {
            self.end(wakers);
        }
    }

    fn end(&mut self, wakers: &mut Wakers) {
        self.is_over = true;
        self.queue.clear();
        self.dead.clear();
        self.takers.wake_all(wakers);
        self.stoppers.wake_all(wakers);
        self.listeners.end(wakers);
    }

    fn has_task(&self) -> bool {
        !self.dead.is_empty()
    }

    fn next_task(shared: &Arc<Shared<Self>>) -> Option<Task> {
        let (delivery, hook) =
            shared.look(|client| Some((client.dead.pop_front()?, client.dead_letter.clone()?)))?;
        Some(hook.start(Message::new(Arc::clone(shared), delivery)))
    }
}
