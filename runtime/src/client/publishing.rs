//! A producer's machine, and the publishes that somebody waits for.
//!
//! ```text
//!   publish --> pool has room --> slot --completed--> the caller's outcome
//!          `--> Full: waiting, in order --room--^
//! ```

use core::mem;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sansq_core::client::{
    ClientMachine, ConnectionError, ProducerActions, ProducerEvent, ProducerPool, PublishError,
    PublishId,
};
use sansq_core::name::TopicName;
use sansq_core::time::{Instant, Now};

use super::events::Listeners;
use super::machine::Client;
use super::waiters::Waiters;
use super::wakers::{Offer, Wakers};

/// A [`ProducerPool`] and those who wait for it.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) pool: ProducerPool,
    pub(super) listeners: Listeners<ProducerEvent>,
    publish_timeout: Duration,
    /// Publishes that the pool has taken and somebody waits for.
    slots: BTreeMap<PublishId, Slot>,
    /// Those that the pool has no room for. Each is held by a future of the program, which is their
    /// limit.
    waiting: BTreeMap<Ticket, Waiting>,
    /// When those fail that wait.
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// What became of those that waited, until their futures ask.
    admitted: BTreeMap<Ticket, Result<PublishId, PublishError>>,
    next_ticket: u64,
    pub(super) closers: Waiters,
    is_closed: bool,
    is_over: bool,
}

#[derive(Debug)]
pub(super) enum Slot {
    Open(Option<Waker>),
    Done(Result<(), PublishError>),
}

/// A place among those that wait for room; the smaller, the earlier.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
pub(super) struct Waiting {
    publish: Submission,
    deadline: Instant,
    waker: Option<Waker>,
}

/// What was kept for a publish, to be dropped while the lock is free.
pub(super) type Left = (Option<Waiting>, Option<Slot>);

/// What a caller wants published.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    pub(super) topic: TopicName,
    pub(super) payload: Payload,
    /// `None`: `publish_timeout`.
    pub(super) timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) enum Payload {
    One(Bytes),
    After(Duration, Bytes),
    Many(Vec<Bytes>),
}

/// Where a publish is.
#[derive(Debug)]
pub(super) enum Submitted {
    Waiting(Ticket),
    Taken(PublishId),
}

impl Publishing {
    pub(super) fn new(pool: ProducerPool, publish_timeout: Duration) -> Self {
        Self {
            pool,
            listeners: Listeners::default(),
            publish_timeout,
            slots: BTreeMap::new(),
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            admitted: BTreeMap::new(),
            next_ticket: 0,
            closers: Waiters::default(),
            is_closed: false,
            is_over: false,
        }
    }

    /// Takes a publish if there is room now, and nobody waits for room already.
    pub(super) fn enqueue(
        &mut self,
        publish: &Submission,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        if !self.waiting.is_empty() {
            return Err(PublishError::Full);
        }
        let deadline = self.deadline(publish, now);
        let id = self.offer(publish, deadline, now, out)?;
        self.slots.insert(id, Slot::Open(None));
        Ok(id)
    }

    /// Takes a publish, or lets it wait for room: then `publish` is empty. `offer` is woken when it
    /// is over.
    pub(super) fn submit(
        &mut self,
        publish: &mut Option<Submission>,
        offer: &mut Offer,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<Submitted, PublishError> {
        let Some(submission) = &*publish else { return Err(PublishError::Closed) };
        match self.enqueue(submission, now, out) {
            Ok(id) => {
                if let Some(Slot::Open(waker)) = self.slots.get_mut(&id) {
                    offer.put(waker);
                }
                return Ok(Submitted::Taken(id));
            }
            Err(PublishError::Full) => {}
            Err(error) => return Err(error),
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let deadline = self.deadline(submission, now);
        if let Some(publish) = publish.take() {
            let mut waiting = Waiting { publish, deadline, waker: None };
            offer.put(&mut waiting.waker);
            self.waiting.insert(ticket, waiting);
            self.deadlines.insert((deadline, ticket));
        }
        Ok(Submitted::Waiting(ticket))
    }

    fn deadline(&self, publish: &Submission, now: Now) -> Instant {
        now.instant + publish.timeout.unwrap_or(self.publish_timeout)
    }

    fn offer(
        &mut self,
        publish: &Submission,
        deadline: Instant,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        if self.is_over {
            return Err(PublishError::Closed);
        }
        let topic = &publish.topic;
        let id = match &publish.payload {
            Payload::One(body) => self.pool.publish(topic, body.clone(), now, out),
            Payload::After(delay, body) => {
                self.pool.publish_after(topic, *delay, body.clone(), now, out)
            }
            Payload::Many(bodies) => self.pool.publish_many(topic, bodies, now, out),
        }?;
        // Also one that has waited for room, since that time counts.
        if deadline != now.instant + self.publish_timeout {
            self.pool.set_deadline(id, deadline);
        }
        Ok(id)
    }

    /// The outcome of a publish, once there is one; until then `offer` is kept.
    pub(super) fn poll_outcome(
        &mut self,
        place: &mut Submitted,
        offer: &mut Offer,
    ) -> Poll<Result<(), PublishError>> {
        if let Submitted::Waiting(ticket) = *place {
            match self.admitted.remove(&ticket) {
                Some(Ok(id)) => *place = Submitted::Taken(id),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {
                    let Some(waiting) = self.waiting.get_mut(&ticket) else {
                        return Poll::Ready(Err(PublishError::Closed));
                    };
                    offer.put(&mut waiting.waker);
                    return Poll::Pending;
                }
            }
        }
        let Submitted::Taken(id) = *place else { return Poll::Pending };
        match self.slots.get_mut(&id) {
            Some(Slot::Open(waker)) => {
                offer.put(waker);
                Poll::Pending
            }
            Some(Slot::Done(_)) => match self.slots.remove(&id) {
                Some(Slot::Done(result)) => Poll::Ready(result),
                _ => Poll::Pending,
            },
            // Polled again after its end.
            None => Poll::Pending,
        }
    }

    /// Nobody waits for this publish any more; what the pool has taken goes its way.
    pub(super) fn detach(&mut self, place: Submitted) -> Left {
        self.leave(place).1
    }

    /// As [`detach`](Self::detach), and it is not to be sent any more.
    pub(super) fn abandon(
        &mut self,
        place: Submitted,
        now: Now,
        out: &mut ProducerActions,
    ) -> Left {
        let (id, left) = self.leave(place);
        if let Some(id) = id {
            self.pool.abandon(id, now, out);
        }
        left
    }

    /// Returns what the pool may know, too.
    fn leave(&mut self, place: Submitted) -> (Option<PublishId>, Left) {
        let mut left = Left::default();
        let id = match place {
            Submitted::Taken(id) => Some(id),
            Submitted::Waiting(ticket) => {
                left.0 = self.waiting.remove(&ticket);
                if let Some(waiting) = &left.0 {
                    self.deadlines.remove(&(waiting.deadline, ticket));
                }
                self.admitted.remove(&ticket).and_then(Result::ok)
            }
        };
        left.1 = id.and_then(|id| self.slots.remove(&id));
        (id, left)
    }

    /// Takes no more publishes; those that wait for room have waited in vain.
    pub(super) fn close(&mut self, now: Now, out: &mut ProducerActions) {
        self.pool.close(now, out);
        self.is_closed = true;
    }

    pub(super) fn poll_stopped(&self) -> Poll<()> {
        if self.is_over || self.pool.is_stopped() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How many publishes wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Offers the pool what waits for room, in order.
    fn admit(&mut self, now: Now, out: &mut ProducerActions, wakers: &mut Wakers) {
        while let Some((ticket, Waiting { publish, deadline, waker })) = self.waiting.pop_first() {
            let result = self.offer(&publish, deadline, now, out);
            match result {
                Err(PublishError::Full) => {
                    self.waiting.insert(ticket, Waiting { publish, deadline, waker });
                    return;
                }
                // Its future hears of it when the publish is over.
                Ok(id) => {
                    self.slots.insert(id, Slot::Open(waker));
                }
                Err(_) => {
                    wakers.add(waker);
                    wakers.discard(publish);
                }
            }
            self.deadlines.remove(&(deadline, ticket));
            self.admitted.insert(ticket, result);
        }
    }

    /// Fails what has waited for room for too long.
    fn expire(&mut self, now: Now, wakers: &mut Wakers) {
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now.instant
        {
            self.deadlines.pop_first();
            if let Some(waiting) = self.waiting.remove(&ticket) {
                wakers.add(waiting.waker);
                wakers.discard(waiting.publish);
                let error = PublishError::NotSent(ConnectionError::TimedOut);
                self.admitted.insert(ticket, Err(error));
            }
        }
    }

    fn refuse_waiting(&mut self, wakers: &mut Wakers) {
        self.deadlines.clear();
        for (ticket, waiting) in mem::take(&mut self.waiting) {
            wakers.add(waiting.waker);
            wakers.discard(waiting.publish);
            self.admitted.insert(ticket, Err(PublishError::Closed));
        }
    }
}

impl Client for Publishing {
    type Machine = ProducerPool;

    fn machine(&self) -> &ProducerPool {
        &self.pool
    }

    fn machine_mut(&mut self) -> &mut ProducerPool {
        &mut self.pool
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.deadlines.first().map(|(deadline, _)| *deadline);
        [self.pool.poll_timeout(), waiting].into_iter().flatten().min()
    }

    fn settle(&mut self, now: Now, out: &mut ProducerActions, wakers: &mut Wakers) {
        self.expire(now, wakers);
        if self.is_closed {
            self.refuse_waiting(wakers);
        }
        while mem::take(&mut out.room) {
            self.admit(now, out, wakers);
        }
        for (id, result) in out.completed.drain(..) {
            // Without a slot nobody waits for it.
            if let Some(slot) = self.slots.get_mut(&id)
                && let Slot::Open(waker) = mem::replace(slot, Slot::Done(result))
            {
                wakers.add(waker);
            }
        }
        for event in out.events.drain(..) {
            self.listeners.tell(&event, wakers);
            wakers.log(event.level(), event);
        }
        if self.pool.is_stopped() {
            self.end(wakers);
        }
    }

    /// What was taken and not completed may have been sent or not.
    fn end(&mut self, wakers: &mut Wakers) {
        self.is_over = true;
        self.refuse_waiting(wakers);
        for slot in self.slots.values_mut() {
            if let Slot::Open(waker) = slot {
                wakers.add(waker.take());
                *slot = Slot::Done(Err(PublishError::Unknown(ConnectionError::Stopped)));
            }
        }
        self.closers.wake_all(wakers);
        self.listeners.end(wakers);
    }
}
