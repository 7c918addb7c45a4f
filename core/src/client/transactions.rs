//! The publishes that are not over yet, in order (clients.md section 2.3).
//!
//! ```text
//!   push --> waiting --send_next--> sent --answer--> completed
//!                                           every other way out completes with an error
//! ```
//!
//! - Ids and deadlines rise along `sent` and then `waiting`, so everything completes in order, and
//!   the next deadline is at one of two places.
//! - A publish that is over while its answer is still to come keeps its place in `sent`
//!   (*abandoned*), because answers carry no id.
//! - With `linger`, PUBs of one topic that are neighbours in `waiting` are sent as one MPUB. Its
//!   answer completes each of them. If a lone PUB finds `waiting` empty, it begins a time of
//!   waiting for others (*held*), which ends early when there is enough for a batch, or when
//!   something else is to be sent.
//! - For a [pool](super::pool) it is different: ids and deadlines are the pool's and come in any
//!   order, the pool watches the deadlines and the limits, and gets what failed back, with the
//!   reason.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;

use super::actions::{PublishError, PublishId, has_code};
use super::error::ConnectionError;
use super::figures::Latencies;
use crate::name::TopicName;
use crate::protocol::encode;
use crate::time::{Instant, Now};

pub(super) type Completed = Vec<(PublishId, Result<(), PublishError>)>;

/// What is to be sent for one publish.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) topic: TopicName,
    pub(super) command: PublishVerb,
    pub(super) body: Bytes,
}

/// The command that carries a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PublishVerb {
    /// PUB, or a part of an MPUB that is made of several.
    Publish,
    /// PUB: as a part of an MPUB it was refused.
    PublishAlone,
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
    /// It was sent in one MPUB with the next: the next one's answer is also its own.
    shares_answer: bool,
    /// Of no meaning before it is sent.
    sent_at: Instant,
    publish: Publish,
}

/// When PUBs are sent together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batching {
    /// How long one waits for others; zero: none is ever sent with another.
    pub(super) linger: Duration,
    /// The longest body of an MPUB, in bytes.
    pub(super) body_size_max: usize,
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
    batching: Batching,
    /// Until when what waits is held. Of no meaning while nothing waits.
    held_until: Option<Instant>,
    /// The bytes of bodies that came since that began.
    held_bytes: usize,
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
    figures: Figures,
}

/// What became of what was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Publishes that were stored.
    pub(super) stored: u64,
    /// Publishes that were refused.
    pub(super) refused: u64,
    /// From being sent to the answer, refusals included.
    pub(super) latencies: Latencies,
}

impl Transactions {
    pub(super) fn new(count_max: usize, bytes_max: usize, batching: Batching) -> Self {
        Self {
            sent: VecDeque::new(),
            abandoned: 0,
            waiting: VecDeque::new(),
            cancelled: 0,
            batching,
            held_until: None,
            held_bytes: 0,
            returned: None,
            bytes: 0,
            count_max,
            bytes_max,
            next_seq: 0,
            progress: Instant::ZERO,
            room_wanted: false,
            room_came: false,
            figures: Figures::default(),
        }
    }

    /// Takes a publish, whose `deadline` is not before that of any earlier one. A single publish is
    /// always taken, whatever its length.
    pub(super) fn push(
        &mut self,
        publish: Publish,
        now: Now,
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
        self.push_as(id, publish, now, deadline);
        Ok(id)
    }

    /// From now on this belongs to a pool.
    pub(super) fn give_to_pool(&mut self) {
        self.returned = Some(Vec::new());
    }

    /// Takes a publish under the pool's id, whatever the limits are. Returns what to find it by.
    pub(super) fn push_as(
        &mut self,
        id: PublishId,
        publish: Publish,
        now: Now,
        deadline: Instant,
    ) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.bytes = self.bytes.saturating_add(publish.body.len());
        if !self.batching.linger.is_zero() {
            self.hold(&publish, now, deadline);
        }
        self.waiting.push_back(Transaction {
            seq,
            id,
            deadline,
            is_over: false,
            shares_answer: false,
            sent_at: now.instant,
            publish,
        });
        seq
    }

    /// Begins to hold what waits, goes on or ends it, now that `publish` comes.
    fn hold(&mut self, publish: &Publish, now: Now, deadline: Instant) {
        let until = now.instant + self.batching.linger;
        if publish.command != PublishVerb::Publish || deadline <= until {
            self.held_until = None;
            return;
        }
        if !self.is_anything_waiting() {
            self.held_until = Some(until);
            self.held_bytes = 0;
        }
        self.held_bytes += LIST_ITEM_LEN + publish.body.len();
        if self.waiting.len() + 1 >= BATCH_COUNT_MAX || self.held_bytes >= self.batch_len_max() {
            self.held_until = None;
        }
    }

    /// When what waits is to be sent although nothing joins it.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until.filter(|_| self.is_anything_waiting())
    }

    /// Lets what waits go.
    pub(super) const fn release(&mut self) {
        self.held_until = None;
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
        // It would be over before it is sent. The driver's next look at its timer lets it go.
        if self.held_until.is_some_and(|until| deadline <= until) {
            self.held_until = Some(Instant::ZERO);
        }
    }

    /// Ends a publish without completing it. Returns whether it was sent; `None`: it is over
    /// already.
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

    /// Appends the next command; false if none waits, if it is held, or if its time is up.
    pub(super) fn send_next(&mut self, now: Now, out: &mut Vec<u8>) -> bool {
        while self.cancelled > 0 && self.waiting.front().is_some_and(|next| next.is_over) {
            self.waiting.pop_front();
            self.cancelled -= 1;
        }
        if self.waiting.front().is_none_or(|next| next.deadline <= now.instant) {
            return false;
        }
        if self.held_until.is_some_and(|until| until > now.instant) {
            return false;
        }
        self.held_until = None;
        if self.sent.is_empty() {
            self.progress = now.instant;
        }
        if !self.batching.linger.is_zero() && self.send_batch(now, out) {
            return true;
        }
        let Some(mut next) = self.waiting.pop_front() else {
            return false;
        };
        next.sent_at = now.instant;
        let Publish { topic, command, body } = &next.publish;
        match command {
            PublishVerb::Publish | PublishVerb::PublishAlone => encode::publish(topic, body, out),
            PublishVerb::PublishAfter(delay) => encode::publish_after(topic, *delay, body, out),
            PublishVerb::PublishMany => encode::publish_list(topic, body, out),
        }
        self.sent.push_back(next);
        true
    }

    /// Appends one MPUB for the first PUBs that wait; false if there are less than two for it.
    fn send_batch(&mut self, now: Now, out: &mut Vec<u8>) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        let (topic, len_max) = (first.publish.topic, self.batch_len_max());
        let (mut count, mut len) = (0, LIST_HEAD_LEN);
        for next in self.waiting.iter().filter(|next| !next.is_over) {
            let Publish { topic: next_topic, command, body } = &next.publish;
            let next_len = len + LIST_ITEM_LEN + body.len();
            let fits = *command == PublishVerb::Publish
                && *next_topic == topic
                && next.deadline > now.instant
                && next_len <= len_max;
            if !fits || count == BATCH_COUNT_MAX {
                break;
            }
            (count, len) = (count + 1, next_len);
        }
        if count < 2 {
            return false;
        }
        let alive = self.waiting.iter().filter(|next| !next.is_over);
        let bodies = alive.take(count).map(|next| &next.publish.body);
        encode::publish_batch(&topic, len, count, bodies, out);
        while count > 0
            && let Some(mut next) = self.waiting.pop_front()
        {
            if next.is_over {
                self.cancelled -= 1;
                continue;
            }
            count -= 1;
            next.shares_answer = count > 0;
            next.sent_at = now.instant;
            self.sent.push_back(next);
        }
        true
    }

    fn batch_len_max(&self) -> usize {
        self.batching.body_size_max.min(BATCH_LEN_MAX)
    }

    /// The oldest that was sent is answered, and completed by that if it was not before.
    pub(super) fn answer(
        &mut self,
        now: Now,
        completed: &mut Completed,
    ) -> Result<(), NothingSent> {
        let mut stored = 0;
        self.pop_answered(now, |answered| {
            stored += 1;
            completed.push((answered.id, Ok(())));
        })?;
        self.figures.stored += stored;
        Ok(())
    }

    /// The oldest that was sent is refused. PUBs that were sent together, and refused for something
    /// that only one of them may have, wait again, to be sent one by one.
    pub(super) fn refuse(
        &mut self,
        text: &str,
        now: Now,
        completed: &mut Completed,
    ) -> Result<(), NothingSent> {
        let is_split = self.sent.front().is_some_and(|first| first.shares_answer)
            && has_code(text, &SPLIT_CODES);
        let mut refused = Vec::new();
        self.pop_answered(now, |transaction| refused.push(transaction))?;
        if is_split {
            // The connection ends now, so nothing that was sent before them is left.
            self.held_until = None;
            for mut transaction in refused.into_iter().rev() {
                self.bytes = self.bytes.saturating_add(transaction.publish.body.len());
                transaction.shares_answer = false;
                transaction.publish.command = PublishVerb::PublishAlone;
                self.waiting.push_front(transaction);
            }
        } else {
            self.figures.refused += refused.len() as u64;
            for transaction in refused {
                self.fail(transaction, PublishError::Rejected(text.into()), completed);
            }
        }
        Ok(())
    }

    /// Takes what the next answer is for off the list, and gives `each` what is not over.
    fn pop_answered(
        &mut self,
        now: Now,
        mut each: impl FnMut(Transaction),
    ) -> Result<(), NothingSent> {
        self.progress = now.instant;
        self.room_came = true;
        loop {
            let answered = self.sent.pop_front().ok_or(NothingSent)?;
            let is_last = !answered.shares_answer;
            self.figures.latencies.record(now.instant.saturating_since(answered.sent_at));
            if answered.is_over {
                self.abandoned -= 1;
            } else {
                self.bytes -= answered.publish.body.len();
                each(answered);
            }
            if is_last {
                return Ok(());
            }
        }
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
                let error = PublishError::Unknown(error.clone());
                self.fail(lost, error, completed);
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

    /// What became of what was sent.
    pub(super) const fn figures(&self) -> &Figures {
        &self.figures
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

    fn is_anything_waiting(&self) -> bool {
        self.waiting.len() > self.cancelled
    }

    /// Whether something waits and is not held.
    pub(super) fn is_anything_due(&self) -> bool {
        self.held_until.is_none() && self.is_anything_waiting()
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

/// At so many PUBs an MPUB is full.
const BATCH_COUNT_MAX: usize = 512;

/// The longest body of an MPUB that is made of PUBs, in bytes, if `max_body_size` does not say
/// less. A quarter of [`TRANSMIT_LEN_MAX`](super::producer::TRANSMIT_LEN_MAX): the broker stores
/// nothing of a batch before it has all of it, and the cost of a command is nothing beside 64 KiB
/// of messages.
const BATCH_LEN_MAX: usize = 64 * 1024;

/// The number of messages, which an MPUB's body begins with.
const LIST_HEAD_LEN: usize = 4;

/// A message's length, which comes before it.
const LIST_ITEM_LEN: usize = 4;

/// The refusals of an MPUB for what one of its messages is, or for its length (nsqd-protocol.md
/// section 6).
const SPLIT_CODES: [&str; 2] = ["E_BAD_BODY", "E_BAD_MESSAGE"];

/// An answer came although nothing was sent.
#[derive(Debug)]
pub(super) struct NothingSent;
