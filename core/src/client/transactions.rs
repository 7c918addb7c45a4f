//! The publishes that are not over yet, in order (clients.md section 2.3).
//!
//! ```text
//!   push --> waiting --send_next--> sent --answer--> completed
//!                                           every other way out completes with an error
//! ```
//!
//! - Ids and deadlines rise along `sent` and then `waiting`, so everything completes in order, and the
//!   next deadline is at one of two places.
//! - A publish that is completed while its answer is still to come keeps its place at the front of
//!   `sent` (*abandoned*), because answers carry no id.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;

use super::actions::{PublishError, PublishId};
use super::error::ConnectionError;
use crate::name::TopicName;
use crate::protocol::encode;
use crate::time::{Instant, Now};

pub(super) type Completed = Vec<(PublishId, Result<(), PublishError>)>;

/// What is to be sent for one publish.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) topic: TopicName,
    pub(super) command: Command,
    pub(super) body: Bytes,
}

/// The command that carries a publish.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    /// PUB.
    Publish,
    /// DPUB.
    PublishAfter(Duration),
    /// MPUB; the body is the list of messages.
    PublishMany,
}

#[derive(Debug)]
struct Transaction {
    id: PublishId,
    deadline: Instant,
    publish: Publish,
}

#[derive(Debug)]
pub(super) struct Transactions {
    sent: VecDeque<Transaction>,
    abandoned: usize,
    waiting: VecDeque<Transaction>,
    /// Of the bodies of all that are not completed.
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
    next_id: u64,
    /// When an answer came last, or else when `sent` got its first entry.
    progress: Instant,
    room_wanted: bool,
    room_came: bool,
}

impl Transactions {
    pub(super) const fn new(count_max: usize, bytes_max: usize) -> Self {
        Self {
            sent: VecDeque::new(),
            abandoned: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            count_max,
            bytes_max,
            next_id: 0,
            progress: Instant::ZERO,
            room_wanted: false,
            room_came: false,
        }
    }

    /// Takes a publish, whose `deadline` is not before that of any earlier one. A single publish is
    /// always taken, whatever its length.
    pub(super) fn push(
        &mut self,
        publish: Publish,
        deadline: Instant,
    ) -> Result<PublishId, PublishError> {
        let count = self.sent.len() + self.waiting.len();
        let bytes = self.bytes.saturating_add(publish.body.len());
        if count > 0 && (count >= self.count_max || bytes > self.bytes_max) {
            self.room_wanted = true;
            self.room_came = false;
            return Err(PublishError::Full);
        }
        self.bytes = bytes;
        let id = PublishId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Transaction { id, deadline, publish });
        Ok(id)
    }

    /// Appends the next command; false if none waits, or if its time is up.
    pub(super) fn send_next(&mut self, now: Now, out: &mut Vec<u8>) -> bool {
        if self.waiting.front().is_none_or(|next| next.deadline <= now.instant) {
            return false;
        }
        let Some(next) = self.waiting.pop_front() else {
            return false;
        };
        let Publish { topic, command, body } = &next.publish;
        match command {
            Command::Publish => encode::publish(topic, body, out),
            Command::PublishAfter(delay) => encode::publish_after(topic, *delay, body, out),
            Command::PublishMany => encode::publish_list(topic, body, out),
        }
        if self.sent.is_empty() {
            self.progress = now.instant;
        }
        self.sent.push_back(next);
        true
    }

    /// The oldest that was sent is answered: with `Some(id)` if it is completed by that, `None` if it
    /// was completed before.
    pub(super) fn answer(&mut self, now: Now) -> Result<Option<PublishId>, NothingSent> {
        let answered = self.sent.pop_front().ok_or(NothingSent)?;
        self.progress = now.instant;
        self.room_came = true;
        if self.abandoned > 0 {
            self.abandoned -= 1;
            return Ok(None);
        }
        self.bytes -= answered.publish.body.len();
        Ok(Some(answered.id))
    }

    /// Completes what has passed its deadline. `error` says why nothing was sent.
    pub(super) fn expire(&mut self, now: Now, error: &ConnectionError, completed: &mut Completed) {
        while let Some(late) = self.sent.get_mut(self.abandoned)
            && late.deadline <= now.instant
        {
            self.abandoned += 1;
            self.bytes -= late.publish.body.len();
            late.publish.body = Bytes::new();
            self.room_came = true;
            completed.push((late.id, Err(PublishError::Unknown(ConnectionError::TimedOut))));
        }
        while self.waiting.front().is_some_and(|next| next.deadline <= now.instant) {
            self.drop_waiting(error, completed);
        }
    }

    /// The connection is gone, and what was sent may have been carried out.
    pub(super) fn lose(&mut self, error: &ConnectionError, completed: &mut Completed) {
        for lost in self.sent.drain(..).skip(self.abandoned) {
            self.bytes -= lost.publish.body.len();
            completed.push((lost.id, Err(PublishError::Unknown(error.clone()))));
        }
        self.abandoned = 0;
        self.room_came = true;
    }

    /// Gives up what was not sent.
    pub(super) fn fail_waiting(&mut self, error: &ConnectionError, completed: &mut Completed) {
        while !self.waiting.is_empty() {
            self.drop_waiting(error, completed);
        }
    }

    fn drop_waiting(&mut self, error: &ConnectionError, completed: &mut Completed) {
        if let Some(dropped) = self.waiting.pop_front() {
            self.bytes -= dropped.publish.body.len();
            self.room_came = true;
            completed.push((dropped.id, Err(PublishError::NotSent(error.clone()))));
        }
    }

    /// Whether everything is completed.
    pub(super) fn is_done(&self) -> bool {
        self.outstanding() == 0
    }

    /// How many are not completed.
    pub(super) fn outstanding(&self) -> usize {
        self.sent.len() - self.abandoned + self.waiting.len()
    }

    /// The bytes of their bodies.
    pub(super) const fn outstanding_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_anything_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether there is room again after a refusal; says so once.
    pub(super) fn take_room(&mut self) -> bool {
        let room = self.room_wanted && self.room_came;
        if room {
            self.room_wanted = false;
        }
        room
    }

    /// The earliest deadline of all; O(1).
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let next = self.sent.get(self.abandoned).or_else(|| self.waiting.front());
        next.map(|transaction| transaction.deadline)
    }

    /// When the last sign of progress came, if an answer is due.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        (!self.sent.is_empty()).then_some(self.progress)
    }
}

/// An answer came although nothing was sent.
#[derive(Debug)]
pub(super) struct NothingSent;
