//! The publishes that are not over yet, in order (clients.md section 2.3).
//!
//! ```text
//!   push --> waiting --send_next--> sent --answer--> completed
//!                                           every other way out completes with an error
//! ```
//!
//! - Ids and deadlines rise along `sent` and then `waiting`, so everything completes in order, and the
//!   next deadline is at one of two places.
//! - A publish that is over while its answer is still to come keeps its place in `sent`
//!   (*abandoned*), because answers carry no id.
//! - For a [pool](super::pool) it is different: ids and deadlines are the pool's and come in any order,
//!   the pool watches the deadlines and the limits, and gets what failed back, with the reason.

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
    /// Rises along `sent` and `waiting`.
    seq: u64,
    id: PublishId,
    deadline: Instant,
    /// Completed, or nobody's any more; its place in `sent` is still that of an answer.
    is_over: bool,
    publish: Publish,
}

/// A publish that failed, on its way back to the pool.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) id: PublishId,
    pub(super) error: PublishError,
    pub(super) publish: Publish,
}

#[derive(Debug)]
pub(super) struct Transactions {
    sent: VecDeque<Transaction>,
    /// How many of `sent` are over; without a pool, the first ones.
    abandoned: usize,
    waiting: VecDeque<Transaction>,
    /// How many of `waiting` are over.
    cancelled: usize,
    /// What failed, for the pool that all of this belongs to, which empties it after each call.
    returned: Option<Vec<Returned>>,
    /// Of the bodies of all that are not completed.
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
    next_seq: u64,
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
            cancelled: 0,
            returned: None,
            bytes: 0,
            count_max,
            bytes_max,
            next_seq: 0,
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
        let id = PublishId(self.next_seq);
        self.push_as(id, publish, deadline);
        Ok(id)
    }

    /// From now on this belongs to a pool.
    pub(super) fn give_to_pool(&mut self) {
        self.returned = Some(Vec::new());
    }

    /// Takes a publish under the pool's id, whatever the limits are. Returns what to find it by.
    pub(super) fn push_as(&mut self, id: PublishId, publish: Publish, deadline: Instant) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.bytes = self.bytes.saturating_add(publish.body.len());
        self.waiting.push_back(Transaction { seq, id, deadline, is_over: false, publish });
        seq
    }

    /// Changes a deadline of the pool's.
    pub(super) fn set_deadline(&mut self, seq: u64, deadline: Instant) {
        for queue in [&mut self.sent, &mut self.waiting] {
            if let Ok(at) = queue.binary_search_by_key(&seq, |transaction| transaction.seq)
                && let Some(found) = queue.get_mut(at)
            {
                found.deadline = deadline;
            }
        }
    }

    /// Ends a publish without completing it. Returns whether it was sent; `None`: it is over already.
    pub(super) fn cancel(&mut self, seq: u64) -> Option<bool> {
        let is_sent = self.waiting.front().is_none_or(|first| seq < first.seq);
        let queue = if is_sent { &mut self.sent } else { &mut self.waiting };
        let found = queue.binary_search_by_key(&seq, |transaction| transaction.seq);
        let found = queue.get_mut(found.ok()?).filter(|transaction| !transaction.is_over)?;
        found.is_over = true;
        self.bytes -= found.publish.body.len();
        found.publish.body = Bytes::new();
        if is_sent {
            self.abandoned += 1;
            return Some(true);
        }
        self.cancelled += 1;
        // Each clearing pays for itself with the cancels before it.
        if self.cancelled * 2 > self.waiting.len() {
            self.waiting.retain(|transaction| !transaction.is_over);
            self.cancelled = 0;
        }
        Some(false)
    }

    /// Gives back what was not sent, in order.
    pub(super) fn take_waiting(&mut self, into: &mut Vec<(PublishId, Publish)>) {
        self.cancelled = 0;
        for taken in self.waiting.drain(..).filter(|transaction| !transaction.is_over) {
            self.bytes -= taken.publish.body.len();
            into.push((taken.id, taken.publish));
        }
    }

    /// What failed since the last call, if this belongs to a pool.
    pub(super) fn returned(&mut self) -> impl Iterator<Item = Returned> + '_ {
        self.returned.iter_mut().flat_map(|returned| returned.drain(..))
    }

    /// How many answers are to come and commands to be sent, for whomever.
    pub(super) fn load(&self) -> usize {
        self.sent.len() + self.waiting.len()
    }

    /// Appends the next command; false if none waits, or if its time is up.
    pub(super) fn send_next(&mut self, now: Now, out: &mut Vec<u8>) -> bool {
        while self.cancelled > 0 && self.waiting.front().is_some_and(|next| next.is_over) {
            self.waiting.pop_front();
            self.cancelled -= 1;
        }
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
        Ok(self.pop_answered(now)?.map(|answered| answered.id))
    }

    /// The oldest that was sent is refused.
    pub(super) fn refuse(
        &mut self,
        text: &str,
        now: Now,
        completed: &mut Completed,
    ) -> Result<(), NothingSent> {
        if let Some(refused) = self.pop_answered(now)? {
            self.fail(refused, PublishError::Rejected(text.into()), completed);
        }
        Ok(())
    }

    fn pop_answered(&mut self, now: Now) -> Result<Option<Transaction>, NothingSent> {
        let answered = self.sent.pop_front().ok_or(NothingSent)?;
        self.progress = now.instant;
        self.room_came = true;
        if answered.is_over {
            self.abandoned -= 1;
            return Ok(None);
        }
        self.bytes -= answered.publish.body.len();
        Ok(Some(answered))
    }

    fn fail(&mut self, failed: Transaction, error: PublishError, completed: &mut Completed) {
        let Transaction { id, publish, .. } = failed;
        match &mut self.returned {
            Some(returned) => returned.push(Returned { id, error, publish }),
            None => completed.push((id, Err(error))),
        }
    }

    /// Completes what has passed its deadline. `error` says why nothing was sent.
    pub(super) fn expire(&mut self, now: Now, error: &ConnectionError, completed: &mut Completed) {
        if self.returned.is_some() {
            return;
        }
        while let Some(late) = self.sent.get_mut(self.abandoned)
            && late.deadline <= now.instant
        {
            self.abandoned += 1;
            late.is_over = true;
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
        while let Some(lost) = self.sent.pop_front() {
            if !lost.is_over {
                self.bytes -= lost.publish.body.len();
                self.fail(lost, PublishError::Unknown(error.clone()), completed);
            }
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
        let Some(dropped) = self.waiting.pop_front() else { return };
        if dropped.is_over {
            self.cancelled -= 1;
        } else {
            self.bytes -= dropped.publish.body.len();
            self.room_came = true;
            self.fail(dropped, PublishError::NotSent(error.clone()), completed);
        }
    }

    /// Whether everything is completed.
    pub(super) fn is_done(&self) -> bool {
        self.outstanding() == 0
    }

    /// How many are not completed.
    pub(super) fn outstanding(&self) -> usize {
        self.sent.len() - self.abandoned + self.waiting.len() - self.cancelled
    }

    /// The bytes of their bodies.
    pub(super) const fn outstanding_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_anything_waiting(&self) -> bool {
        self.waiting.len() > self.cancelled
    }

    /// Whether there is room again after a refusal; says so once.
    pub(super) fn take_room(&mut self) -> bool {
        let room = self.room_wanted && self.room_came;
        if room {
            self.room_wanted = false;
        }
        room
    }

    /// The earliest deadline of all, unless a pool watches them; O(1).
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.returned.is_some() {
            return None;
        }
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
