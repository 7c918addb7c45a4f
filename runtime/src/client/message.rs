//! A message that a program has to answer.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use sansq_core::client::{AnswerError, Consumer, ConsumerActions, Delivery, DeliveryKey};
use sansq_core::message::MESSAGE_ID_LEN;
use sansq_core::time::{Now, UnixNanos};

use super::consuming::Consuming;
use super::shared::Shared;

/// A message from a channel, to be answered with one of [`finish`](Self::finish),
/// [`requeue`](Self::requeue) and [`requeue_without_backoff`](Self::requeue_without_backoff).
///
/// Answers are queued and never wait. One that is dropped without an answer is requeued: without
/// backoff, unless a panic drops it.
#[must_use = "a message that is dropped comes again"]
pub struct Message {
    shared: Arc<Shared<Consuming>>,
    delivery: Delivery,
    /// Whether it goes back when it is dropped.
    needs_answer: bool,
}

impl Message {
    pub(super) const fn new(shared: Arc<Shared<Consuming>>, delivery: Delivery) -> Self {
        Self { shared, delivery, needs_answer: true }
    }

    /// The same message for somebody who may answer it and need not.
    pub(super) fn lend(&self) -> Self {
        let (shared, delivery) = (Arc::clone(&self.shared), self.delivery.clone());
        Self { shared, delivery, needs_answer: false }
    }

    /// What was published.
    pub const fn body(&self) -> &Bytes {
        &self.delivery.message.body
    }

    /// How often it was sent, this time included.
    pub const fn attempts(&self) -> u16 {
        self.delivery.message.attempts
    }

    /// When the nsqd took it.
    pub const fn timestamp(&self) -> UnixNanos {
        self.delivery.message.timestamp
    }

    /// The id as the nsqd wrote it: 16 hex digits. Unique within one nsqd.
    pub const fn id(&self) -> &[u8; MESSAGE_ID_LEN] {
        &self.delivery.message.id
    }

    /// The nsqd that sent it, `host:port`.
    pub fn nsqd(&self) -> &str {
        &self.delivery.nsqd
    }

    /// Whether it was attempted more than `max_attempts` times. Only with
    /// [`ConsumerConfig::dead_letter`](super::ConsumerConfig::dead_letter), whose hook gets those.
    pub const fn is_exhausted(&self) -> bool {
        self.delivery.exhausted
    }

    /// The message is done.
    ///
    /// # Errors
    /// [`AnswerError`] if it is too late for that: the message comes again.
    pub fn finish(mut self) -> Result<(), AnswerError> {
        self.answer(|machine, key, now, out| machine.finish(key, now, out))
    }

    /// The message is to come again, after `delay` or, without one, after `default_requeue_delay`
    /// times its attempts; it is a sign that the consumer should slow down.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn requeue(mut self, delay: impl Into<Option<Duration>>) -> Result<(), AnswerError> {
        let delay = delay.into();
        self.answer(|machine, key, now, out| machine.requeue(key, delay, true, now, out))
    }

    /// As [`requeue`](Self::requeue), and says nothing about how the consumer is doing.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn requeue_without_backoff(
        mut self,
        delay: impl Into<Option<Duration>>,
    ) -> Result<(), AnswerError> {
        let delay = delay.into();
        self.answer(|machine, key, now, out| machine.requeue(key, delay, false, now, out))
    }

    /// Asks for more time: `msg_timeout` from now on.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn touch(&self) -> Result<(), AnswerError> {
        let key = self.delivery.key;
        self.shared.turn(|client, now, out| client.machine.touch(key, now, out)).map(|_| ())
    }

    fn answer(
        &mut self,
        answer: impl FnOnce(
            &mut Consumer,
            DeliveryKey,
            Now,
            &mut ConsumerActions,
        ) -> Result<(), AnswerError>,
    ) -> Result<(), AnswerError> {
        self.needs_answer = false;
        let key = self.delivery.key;
        self.shared.turn(|client, now, out| answer(&mut client.machine, key, now, out))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if self.needs_answer {
            let backoff = thread::panicking();
            // If it is too late, it comes again anyway.
            let _ =
                self.answer(|machine, key, now, out| machine.requeue(key, None, backoff, now, out));
        }
    }
}

/// Without the body, which is nothing for a log.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &String::from_utf8_lossy(self.id()))
            .field("attempts", &self.attempts())
            .field("nsqd", &self.nsqd())
            .field("len", &self.body().len())
            .finish_non_exhaustive()
    }
}
