//! Publishing to one nsqd (clients.md part 2).
//!
//! ```text
//!           publish, connect
//!   (new) ------------------> dialling --> handshake --> open --close, all completed--> stopped
//!                                ^            |            |
//!                                +-- wait <---+------------+  dial failed, connection lost
//! ```
//!
//! - Once it has begun, a producer dials again by itself until it is closed. It does so at once
//!   after a connection that lived for [`HEALTHY_AFTER`], else after a wait that grows (see
//!   [`Backoff`]).
//! - Publishes are taken in every state before `close` and wait for a connection until their
//!   deadline, `publish_timeout` after they were taken. They are sent without waiting for earlier
//!   answers, and answers complete them in order (nsqd-protocol.md section 22, item 1).
//! - With [`linger`](ProducerOptions::linger), neighbouring PUBs of one topic are sent as one MPUB,
//!   which the broker takes or refuses as a whole. If it refuses one for its size or for a bad
//!   message, its messages are sent again one by one, so that only the one that is to blame fails.
//! - Each publish completes exactly once, in the order of the ids, but for those that are sent one
//!   by one in this way. When a connection is lost, those
//!   that were handed to the driver are [`Unknown`](PublishError::Unknown); the others wait on.
//! - The broker closes a connection when it refuses a publish, and answers nothing behind. The
//!   reference broker carries out nothing behind either (section 6), but sansq may have: publishes
//!   to other topics need not wait for each other. So those that were sent behind the refused one
//!   are [`Unknown`](PublishError::Unknown) too, and nothing is published twice without the
//!   caller's will.
//! - When the broker turns the client itself away (IDENTIFY or AUTH), everything that waits fails
//!   with that reason. The producer dials on.
//!
//! Limits: publishes and bytes outstanding (`max_outstanding`, `max_outstanding_bytes`, then
//! [`PublishError::Full`]); bytes handed out for one write ([`TRANSMIT_LEN_MAX`], then the rest at
//! the next call); the frame size (`max_frame_size`, then the connection is dropped).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use core::time::Duration;

use super::actions::{Dial, DialId, ProducerActions, ProducerEvent, PublishError, PublishId};
use super::backoff::Backoff;
use super::connection::{ClientConnection, ClientConnectionOutput, Identity, Negotiated};
use super::error::{ConnectionError, readable};
use super::figures::ErrorCounts;
use super::frame::Received;
use super::options::{ConnectionOptions, InvalidOption};
use super::transactions::{Batching, Publish, PublishVerb, Transactions};
use crate::name::TopicName;
use crate::protocol::encode;
use crate::protocol::frame::OK;
use crate::rng::Rng;
use crate::time::{Instant, Now};

mod stats;

pub use stats::PublishStats;

/// The settings of a producer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProducerOptions {
    /// Those of its connection.
    pub connection: ConnectionOptions,
    /// How long a publish may take from the call to the broker's answer. A broker that answers
    /// nothing for this long loses its connection.
    pub publish_timeout: Duration,
    /// How long `close` waits for publishes that are outstanding.
    pub close_timeout: Duration,
    /// How many publishes may be outstanding.
    pub max_outstanding: usize,
    /// How many bytes of bodies may be outstanding. A single publish is taken whatever its length.
    pub max_outstanding_bytes: usize,
    /// The longest body in bytes; the broker's `--max-msg-size`.
    pub max_msg_size: usize,
    /// The longest batch in bytes, each message with 4 more; the broker's `--max-body-size`.
    pub max_body_size: usize,
    /// The longest delay; the broker's `--max-req-timeout`.
    pub max_req_timeout: Duration,
    /// How long a message waits for others of its topic, to be sent with them in one MPUB; up to
    /// [`LINGER_MAX`], and below `publish_timeout`. Zero: every message is sent by itself, at once.
    /// Messages that wait anyway, for a connection for example, are sent together without a wait of
    /// their own.
    pub linger: Duration,
    /// The shortest wait before dialling again.
    pub backoff_min: Duration,
    /// The longest wait before dialling again.
    pub backoff_max: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            publish_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(30),
            max_outstanding: MAX_OUTSTANDING,
            max_outstanding_bytes: MAX_OUTSTANDING_BYTES,
            max_msg_size: 1024 * 1024,
            max_body_size: 5 * 1024 * 1024,
            max_req_timeout: Duration::from_secs(3600),
            linger: Duration::ZERO,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
        }
    }
}

impl ProducerOptions {
    /// Checks what could never work.
    ///
    /// # Errors
    /// [`InvalidOption`] for the first value out of its range.
    pub fn check(&self) -> Result<(), InvalidOption> {
        self.connection.check()?;
        let invalid = |name, reason| Err(InvalidOption { name, reason });
        if self.publish_timeout.is_zero() {
            return invalid("publish_timeout", "must not be zero");
        }
        if self.max_outstanding == 0 {
            return invalid("max_outstanding", "must be at least 1");
        }
        if !(1..=LENGTH_MAX).contains(&self.max_msg_size) {
            return invalid("max_msg_size", "must be 1 to 2147483647 bytes");
        }
        if !(1..=LENGTH_MAX).contains(&self.max_body_size) {
            return invalid("max_body_size", "must be 1 to 2147483647 bytes");
        }
        if self.linger > LINGER_MAX {
            return invalid("linger", "must be 0 to 5 ms");
        }
        if self.linger >= self.publish_timeout {
            return invalid("linger", "must be below publish_timeout");
        }
        if self.backoff_min < BACKOFF_LEAST {
            return invalid("backoff_min", "must be at least 1 ms");
        }
        if self.backoff_max < self.backoff_min {
            return invalid("backoff_max", "must be at least backoff_min");
        }
        Ok(())
    }

    /// A PUB, if the broker would take it.
    pub(super) fn message(&self, topic: &TopicName, body: Bytes) -> Result<Publish, PublishError> {
        self.check_body(&body)?;
        Ok(Publish { topic: *topic, command: PublishVerb::Publish, body })
    }

    /// A DPUB, if the broker would take it.
    pub(super) fn message_after(
        &self,
        topic: &TopicName,
        delay: Duration,
        body: Bytes,
    ) -> Result<Publish, PublishError> {
        self.check_body(&body)?;
        let max = self.max_req_timeout;
        if delay > max {
            return Err(PublishError::DelayTooLong { max });
        }
        Ok(Publish { topic: *topic, command: PublishVerb::PublishAfter(delay), body })
    }

    /// An MPUB, if the broker would take it.
    pub(super) fn messages<B: AsRef<[u8]>>(
        &self,
        topic: &TopicName,
        bodies: &[B],
    ) -> Result<Publish, PublishError> {
        if bodies.is_empty() {
            return Err(PublishError::EmptyBatch);
        }
        for body in bodies {
            self.check_body(body.as_ref())?;
        }
        let (size, max) = (encode::message_list_len(bodies), self.max_body_size);
        if size > max {
            return Err(PublishError::BatchTooBig { size, max });
        }
        let mut list = Vec::with_capacity(size);
        encode::message_list(bodies, &mut list);
        Ok(Publish { topic: *topic, command: PublishVerb::PublishMany, body: Bytes::from(list) })
    }

    fn check_body(&self, body: &[u8]) -> Result<(), PublishError> {
        let (size, max) = (body.len(), self.max_msg_size);
        match size {
            0 => Err(PublishError::EmptyBody),
            _ if size > max => Err(PublishError::BodyTooBig { size, max }),
            _ => Ok(()),
        }
    }
}

/// Publishes to one nsqd, pipelined, over one connection that it keeps up.
///
/// See the [module's page](self) for its states and promises, and [`crate::client`] for a whole
/// loop.
#[derive(Debug)]
pub struct Producer {
    address: String,
    options: ProducerOptions,
    transactions: Transactions,
    link: Option<Link>,
    redial_at: Option<Instant>,
    backoff: Backoff,
    dials: u64,
    /// How many of them came to a connection.
    opens: u64,
    errors: ErrorCounts,
    /// Why there is no connection; what waits in vain fails with it.
    failure: Option<ConnectionError>,
    /// When `close` stops waiting.
    close_at: Option<Instant>,
    stopped: bool,
}

/// A dial, and the connection that it becomes.
#[derive(Debug)]
struct Link {
    id: DialId,
    connection: ClientConnection,
    opened_at: Option<Instant>,
    /// The broker has answered a publish: what follows is not the same failure again.
    answered: bool,
    /// It is not given up for missing answers before this.
    judged_from: Instant,
}

impl Producer {
    /// A producer for the nsqd at `address`, `host:port`. It does nothing before the first call of
    /// [`connect`](Self::connect) or of a publish. `seed` spreads its redials among those of
    /// others.
    ///
    /// # Errors
    /// [`InvalidOption`] if an option is out of its range.
    pub fn new(
        address: impl Into<String>,
        options: ProducerOptions,
        seed: u64,
    ) -> Result<Self, InvalidOption> {
        options.check()?;
        let batching = Batching { linger: options.linger, body_size_max: options.max_body_size };
        let (count_max, bytes_max) = (options.max_outstanding, options.max_outstanding_bytes);
        Ok(Self {
            address: address.into(),
            transactions: Transactions::new(count_max, bytes_max, batching),
            link: None,
            redial_at: None,
            backoff: Backoff::new(options.backoff_min, options.backoff_max, Rng::new(seed)),
            dials: 0,
            opens: 0,
            errors: ErrorCounts::default(),
            failure: None,
            close_at: None,
            stopped: false,
            options,
        })
    }

    /// Makes it a member of a pool: its dials are numbered from `first_dial`, and what was said of
    /// pools in [`transactions`](super::transactions) holds.
    pub(super) fn join_pool(&mut self, first_dial: u64) {
        self.dials = first_dial;
        self.transactions.give_to_pool();
    }

    /// The publishes, for the pool.
    pub(super) const fn transactions(&mut self) -> &mut Transactions {
        &mut self.transactions
    }

    /// The latest dial, or the connection that came of it.
    pub(super) fn dial_id(&self) -> Option<DialId> {
        self.link.as_ref().map(|link| link.id)
    }

    /// How many answers are to come and commands to be sent.
    pub(super) fn load(&self) -> usize {
        self.transactions.load()
    }

    /// Takes a publish of the pool's. Returns what to find it by.
    pub(super) fn take_as(
        &mut self,
        id: PublishId,
        publish: Publish,
        now: Now,
        deadline: Instant,
        out: &mut ProducerActions,
    ) -> u64 {
        let seq = self.transactions.push_as(id, publish, now, deadline);
        self.settle(out);
        seq
    }

    /// Starts to connect, unless that has begun; a publish does it too.
    pub fn connect(&mut self, now: Now, out: &mut ProducerActions) {
        let begun = self.link.is_some() || self.redial_at.is_some() || self.close_at.is_some();
        if !begun {
            self.dial(now, out);
        }
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// [`PublishError`] if it is not taken: [`Full`](PublishError::Full) for the moment, or because
    /// of what it is. Nothing is completed then.
    pub fn publish(
        &mut self,
        topic: &TopicName,
        body: Bytes,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        self.take(self.options.message(topic, body)?, now, out)
    }

    /// Publishes a message that the broker holds back for `delay`, in whole milliseconds.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_after(
        &mut self,
        topic: &TopicName,
        delay: Duration,
        body: Bytes,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        self.take(self.options.message_after(topic, delay, body)?, now, out)
    }

    /// Publishes several messages with one command: the broker takes all of them or, unless its
    /// disk fails, none. The bodies are copied.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_many<B: AsRef<[u8]>>(
        &mut self,
        topic: &TopicName,
        bodies: &[B],
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        self.take(self.options.messages(topic, bodies)?, now, out)
    }

    fn take(
        &mut self,
        publish: Publish,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        if self.close_at.is_some() {
            return Err(PublishError::Closed);
        }
        let deadline = now.instant + self.options.publish_timeout;
        let id = self.transactions.push(publish, now, deadline)?;
        self.connect(now, out);
        self.settle(out);
        Ok(id)
    }

    /// Takes no more publishes, waits up to `close_timeout` for those outstanding and then stops.
    pub fn close(&mut self, now: Now, out: &mut ProducerActions) {
        if self.close_at.is_none() {
            self.close_at = Some(now.instant + self.options.close_timeout);
            self.settle(out);
        }
    }

    /// Whether it is closed and asks for nothing any more.
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether publishes go out at once.
    pub fn is_connected(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.connection.is_open())
    }

    /// The address of its nsqd.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many publishes are taken and not completed.
    pub fn outstanding(&self) -> usize {
        self.transactions.outstanding()
    }

    /// The bytes of their bodies.
    pub const fn outstanding_bytes(&self) -> usize {
        self.transactions.outstanding_bytes()
    }

    /// The dial has succeeded. If it is not wanted any more, its connection is to be closed.
    pub fn handle_connected(&mut self, id: DialId, now: Now, out: &mut ProducerActions) {
        match self.link_of(id) {
            Some(link) => link.connection.handle_connected(now),
            None => out.net.close.push(id),
        }
        self.settle(out);
    }

    /// The dial has failed; `error` is the system's text.
    pub fn handle_connect_failed(
        &mut self,
        id: DialId,
        error: &str,
        now: Now,
        out: &mut ProducerActions,
    ) {
        if self.link_of(id).is_some() {
            self.end_link(ConnectionError::Dial(error.into()), now, out);
        }
        self.settle(out);
    }

    /// Bytes have arrived; takes all complete frames out of `input`.
    pub fn handle_input(
        &mut self,
        id: DialId,
        input: &mut BytesMut,
        now: Now,
        out: &mut ProducerActions,
    ) {
        let Some(link) = self.link.as_mut().filter(|link| link.id == id) else {
            input.clear();
            return;
        };
        let Link { connection, opened_at, answered, .. } = link;
        let transactions = &mut self.transactions;
        let mut answers =
            FrameMatcher { transactions, out, now, opened: false, answered: false, fault: None };
        let result = connection.handle_input(input, now, &mut answers);
        let FrameMatcher { opened, answered: answered_now, fault, .. } = answers;
        *answered |= answered_now;
        if opened {
            *opened_at = Some(now.instant);
            self.opens += 1;
            self.transactions.release();
            self.failure = None;
        }
        if let Some(error) = fault.or_else(|| result.err()) {
            input.clear();
            out.net.close_failed(id, connection, &error);
            self.end_link(error, now, out);
        }
        self.settle(out);
    }

    /// The connection is gone: closed by the broker, or broken with the system's text `error`.
    pub fn handle_closed(
        &mut self,
        id: DialId,
        error: Option<&str>,
        now: Now,
        out: &mut ProducerActions,
    ) {
        if self.link_of(id).is_some() {
            let error = error
                .map_or(ConnectionError::Closed, |error| ConnectionError::Io(String::from(error)));
            self.end_link(error, now, out);
        }
        self.settle(out);
    }

    /// Time has passed; does nothing before [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Now, out: &mut ProducerActions) {
        self.expire(now, out);
        if self.held_until().is_some_and(|at| at <= now.instant) {
            self.transactions.release();
        }
        if self.close_at.is_some_and(|at| at <= now.instant) {
            self.transactions.lose(&ConnectionError::Stopped, &mut out.completed);
            self.transactions.fail_waiting(&ConnectionError::Stopped, &mut out.completed);
        } else if self.redial_at.is_some_and(|at| at <= now.instant) {
            self.dial(now, out);
        } else if let Some(link) = &mut self.link {
            let id = link.id;
            let mut result = link.connection.handle_timeout(now);
            if self.answer_deadline().is_some_and(|at| at <= now.instant) {
                result = result.and(Err(ConnectionError::NoAnswer));
            }
            if let Err(error) = result {
                out.net.close.push(id);
                self.end_link(error, now, out);
            }
        }
        self.settle(out);
    }

    fn expire(&mut self, now: Now, out: &mut ProducerActions) {
        let timed_out = ConnectionError::TimedOut;
        let error = self.failure.as_ref().unwrap_or(&timed_out);
        self.transactions.expire(now, error, &mut out.completed);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; O(1).
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let link = self.link.as_ref().and_then(|link| link.connection.poll_timeout());
        let publish = self.transactions.next_deadline();
        let held_until = self.held_until();
        let deadlines =
            [link, publish, held_until, self.answer_deadline(), self.redial_at, self.close_at];
        deadlines.into_iter().flatten().min()
    }

    /// Its connection, if [`handle_timeout`](Self::handle_timeout) would judge by what has not come
    /// from it; with `is_late` also if anything of it is unanswered.
    pub(super) fn overdue(&self, now: Now, is_late: bool) -> Option<DialId> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        let link = self.link.as_ref()?;
        let owes = is_late && self.transactions.unanswered_since().is_some();
        let is_overdue =
            owes || is_due(link.connection.poll_timeout()) || is_due(self.answer_deadline());
        is_overdue.then_some(link.id)
    }

    /// Does not give the connection up before `until`.
    pub(super) fn postpone(&mut self, id: DialId, until: Instant) {
        if let Some(link) = self.link.as_mut().filter(|link| link.id == id) {
            link.connection.postpone(until);
            link.judged_from = until.max(link.judged_from);
        }
    }

    /// When what waits is to be sent although nothing joins it, if it can be.
    fn held_until(&self) -> Option<Instant> {
        self.is_connected().then(|| self.transactions.held_until()).flatten()
    }

    /// When the broker has left what was sent without answer for too long.
    fn answer_deadline(&self) -> Option<Instant> {
        let judged_from = self.link.as_ref().map_or(Instant::ZERO, |link| link.judged_from);
        let deadline = self.transactions.unanswered_since()? + self.options.publish_timeout;
        Some(deadline.max(judged_from))
    }

    /// Empties `spare` and fills it with the bytes to write next, none if there are none. What is
    /// handed out here counts as sent.
    ///
    /// Publishes are turned into bytes only now, so a driver that calls this when its socket takes
    /// more gets as many as there are for one write, and a publish that nobody could write is not
    /// in doubt when the connection goes.
    pub fn swap_transmit(&mut self, now: Now, spare: &mut Vec<u8>) {
        spare.clear();
        let Some(link) = &mut self.link else {
            return;
        };
        link.connection.swap_transmit_with(spare, |spare| {
            while spare.len() < TRANSMIT_LEN_MAX && self.transactions.send_next(now, spare) {}
        });
    }

    fn link_of(&mut self, id: DialId) -> Option<&mut Link> {
        self.link.as_mut().filter(|link| link.id == id)
    }

    fn dial(&mut self, now: Now, out: &mut ProducerActions) {
        let id = DialId(self.dials);
        self.dials += 1;
        self.redial_at = None;
        let connection = ClientConnection::dial(&self.options.connection, &self.address, now);
        self.link = Some(Link {
            id,
            connection,
            opened_at: None,
            answered: false,
            judged_from: Instant::ZERO,
        });
        out.net.dial.push(Dial { id, address: self.address.clone() });
        out.events.push(ProducerEvent::Connecting);
    }

    /// The connection or the dial is over. Its publishes are completed, or wait for the next one.
    fn end_link(&mut self, error: ConnectionError, now: Now, out: &mut ProducerActions) {
        let Some(link) = self.link.take() else {
            return;
        };
        self.transactions.lose(&error, &mut out.completed);
        if error.is_refusal() {
            self.transactions.fail_waiting(&error, &mut out.completed);
        }
        let lived = link.opened_at.map(|opened_at| now.instant.saturating_since(opened_at));
        let healthy = lived.is_some_and(|lived| lived >= HEALTHY_AFTER);
        if healthy || link.answered {
            self.backoff.reset();
        }
        let redial_after = if self.is_closing_done() {
            None
        } else if healthy {
            Some(Duration::ZERO)
        } else {
            Some(self.backoff.next_wait())
        };
        self.errors.record(error.code(), error.to_string());
        self.failure = Some(error.clone());
        out.events.push(ProducerEvent::Disconnected { error, redial_after });
        if redial_after == Some(Duration::ZERO) {
            self.dial(now, out);
        } else {
            self.redial_at = redial_after.map(|wait| now.instant + wait);
        }
    }

    fn is_closing_done(&self) -> bool {
        self.close_at.is_some() && self.transactions.is_done()
    }

    /// Ends every call: stops when nothing is left to wait for, and says what the driver has to do.
    pub(super) fn settle(&mut self, out: &mut ProducerActions) {
        if self.is_closing_done() && !self.stopped {
            self.stopped = true;
            self.redial_at = None;
            if let Some(mut link) = self.link.take() {
                out.net.close(link.id, &mut link.connection);
            }
            out.events.push(ProducerEvent::Stopped);
        }
        out.room |= self.transactions.take_room();
        if let Some(link) = &self.link
            && (link.connection.wants_transmit()
                || link.connection.is_open() && self.transactions.is_anything_due())
        {
            out.net.transmit(link.id);
        }
    }
}

/// Matches the broker's frames to the publishes.
struct FrameMatcher<'a> {
    transactions: &'a mut Transactions,
    out: &'a mut ProducerActions,
    now: Now,
    opened: bool,
    answered: bool,
    /// The first reason to end the connection; nothing behind it counts.
    fault: Option<ConnectionError>,
}

impl ClientConnectionOutput for FrameMatcher<'_> {
    fn authenticated(&mut self, identity: Identity) {
        self.out.events.push(ProducerEvent::Authenticated(identity));
    }

    fn opened(&mut self, negotiated: &Negotiated) {
        self.opened = true;
        let version = negotiated.version.clone();
        self.out.events.push(ProducerEvent::Connected { version });
    }

    fn response(&mut self, text: Bytes) {
        if self.fault.is_some() {
            return;
        }
        // A broker answers a publish with OK and nothing else; taking any text for it, as the
        // reference client does, would report a message as stored that may not be.
        if text == OK && self.transactions.answer(self.now, &mut self.out.completed).is_ok() {
            self.answered = true;
        } else {
            self.fault = Some(ConnectionError::UnexpectedResponse(readable(&text)));
        }
    }

    fn error(&mut self, text: Bytes) {
        if self.fault.is_some() {
            return;
        }
        let text = readable(&text);
        match self.transactions.refuse(&text, self.now, &mut self.out.completed) {
            Ok(()) => {
                self.answered = true;
                self.out.events.push(ProducerEvent::Refused(text.clone()));
                self.fault = Some(ConnectionError::Refused(text));
            }
            Err(_) => self.fault = Some(ConnectionError::UnexpectedError(text)),
        }
    }

    fn message(&mut self, _: Received) {
        if self.fault.is_none() {
            self.out.events.push(ProducerEvent::StrayMessage);
        }
    }
}

/// After this long open, a connection is no part of a series of failures.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The most that `linger` may be: batches of this time are as large as they need to be at any rate
/// at which batching matters.
pub const LINGER_MAX: Duration = Duration::from_millis(5);

/// The default of `max_outstanding`: about 50 ms of what the reference broker takes from one
/// connection (clients.md section 2.6), and 2 MiB of memory besides the bodies.
pub const MAX_OUTSTANDING: usize = 10_000;

/// The default of `max_outstanding_bytes`: a dozen of the largest batches.
pub const MAX_OUTSTANDING_BYTES: usize = 64 * 1024 * 1024;

/// From this length on, [`Producer::swap_transmit`] adds no further command: enough for one large
/// write, and little enough that a broken connection leaves few publishes in doubt.
pub const TRANSMIT_LEN_MAX: usize = 256 * 1024;

/// The longest that the protocol's lengths can say.
const LENGTH_MAX: usize = i32::MAX as usize;

/// Below this a failing address would be dialled in a busy loop.
const BACKOFF_LEAST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
