//! What the program answers to messages, and what happens if it does not (clients.md section 3.6).

use alloc::sync::Arc;
use core::time::Duration;

use super::Consumer;
use super::actions::{AnswerError, ConsumerActions, DeliveryKey};
use super::in_flight::{Due, Entry};
use super::slowdown::Signal;
use crate::time::{Instant, Now};

impl Consumer {
    /// The message is done.
    ///
    /// # Errors
    /// [`AnswerError`] if it can't be answered any more; nothing is sent then.
    pub fn finish(
        &mut self,
        key: DeliveryKey,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<(), AnswerError> {
        let result = self.complete(key, now, out);
        self.settle(now, out);
        result
    }

    /// The message is to come again after `delay`; `None`: `default_requeue_delay` times attempts,
    /// at most `max_requeue_delay`. Servers cut delays at their `--max-req-timeout`. `backoff`:
    /// whether it is a sign that the consumer should slow down.
    ///
    /// # Errors
    /// [`AnswerError`] if it can't be answered any more; nothing is sent then.
    pub fn requeue(
        &mut self,
        key: DeliveryKey,
        delay: Option<Duration>,
        backoff: bool,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<(), AnswerError> {
        let signal = if backoff { Signal::Backoff } else { Signal::Continue };
        let result = self.take(key, now).map(|entry| {
            let delay = delay.unwrap_or_else(|| self.default_delay(entry.attempts));
            self.send_requeue(key, delay, Some(signal), now, out);
        });
        self.settle(now, out);
        result
    }

    fn default_delay(&self, attempts: u16) -> Duration {
        let delay = self.options.default_requeue_delay.saturating_mul(u32::from(attempts));
        delay.min(self.options.max_requeue_delay)
    }

    /// The message needs more time: the server starts its timeout again, up to its longest. Returns
    /// the new deadline, `None` if the server does not say.
    ///
    /// # Errors
    /// [`AnswerError`] if it can't be answered any more; nothing is sent then.
    pub fn touch(
        &mut self,
        key: DeliveryKey,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<Option<Instant>, AnswerError> {
        let link = self.links.get_mut(&key.dial).ok_or(AnswerError::ConnectionLost)?;
        let deadline = self.in_flight.touch(key, now)?;
        link.connection.touch(&key.id);
        self.totals.touched += 1;
        self.settle(now, out);
        Ok(deadline)
    }

    /// Finishes without settling.
    pub(super) fn complete(
        &mut self,
        key: DeliveryKey,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<(), AnswerError> {
        self.take(key, now)?;
        self.signal(key.dial, Signal::Resume, now, out);
        if let Some(link) = self.links.get_mut(&key.dial) {
            link.connection.finish(&key.id);
            self.totals.finished += 1;
            if let Some(nsqd) = self.nsqds.get_mut(&link.nsqd) {
                nsqd.finished += 1;
            }
        }
        Ok(())
    }

    /// Requeues without settling; `signal`: what it says about the program, if anything.
    pub(super) fn give_back(
        &mut self,
        key: DeliveryKey,
        delay: Duration,
        signal: Option<Signal>,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<(), AnswerError> {
        self.take(key, now)?;
        self.send_requeue(key, delay, signal, now, out);
        Ok(())
    }

    fn send_requeue(
        &mut self,
        key: DeliveryKey,
        delay: Duration,
        signal: Option<Signal>,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        if let Some(signal) = signal {
            self.signal(key.dial, signal, now, out);
        }
        if let Some(link) = self.links.get_mut(&key.dial) {
            link.connection.requeue(&key.id, delay);
            self.totals.requeued += 1;
            if let Some(nsqd) = self.nsqds.get_mut(&link.nsqd) {
                nsqd.requeued += 1;
            }
        }
    }

    fn take(&mut self, key: DeliveryKey, now: Now) -> Result<Entry, AnswerError> {
        let link = self.links.get_mut(&key.dial).ok_or(AnswerError::ConnectionLost)?;
        let entry = self.in_flight.take(key)?;
        if let Some(nsqd) = self.nsqds.get_mut(&link.nsqd) {
            nsqd.latencies.record(now.instant.saturating_since(entry.received_at));
        }
        link.in_flight = link.in_flight.saturating_sub(1);
        link.active = now.instant;
        self.spread.is_dirty |= self.spread.follows_answers;
        Ok(entry)
    }

    /// Touches what the consumer touches by itself, and lets go what was not answered in time.
    pub(super) fn handle_message_timeouts(&mut self, now: Now, out: &mut ConsumerActions) {
        while let Some(due) = self.in_flight.next_due(now) {
            let (Due::Touch(key) | Due::Over(key)) = due;
            let Some(link) = self.links.get_mut(&key.dial) else {
                continue;
            };
            if matches!(due, Due::Touch(_)) {
                link.connection.touch(&key.id);
                self.totals.touched += 1;
                continue;
            }
            link.in_flight = link.in_flight.saturating_sub(1);
            let nsqd: Arc<str> = link.nsqd.clone();
            self.spread.is_dirty |= self.spread.follows_answers;
            self.timed_out(&nsqd, key, out);
        }
    }
}
