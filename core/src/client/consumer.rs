//! Consuming one channel of one topic (clients.md part 3).

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::BytesMut;

use super::actions::{CallId, DialId, NetActions};
use super::error::ConnectionError;
use super::frame::Received;
use super::options::{ConnectionOptions, InvalidOption};
use crate::http::call::{CallResult, UrlError};
use crate::message::MESSAGE_ID_LEN;
use crate::name::{ChannelName, TopicName};
use crate::time::{Instant, Now};

/// The settings of a consumer, with go-nsq's names, defaults and bounds (clients.md part 4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsumerOptions {
    /// Those of its connections.
    pub connection: ConnectionOptions,
    /// How many messages may be in flight on all connections together; 0: paused.
    pub max_in_flight: u32,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self { connection: ConnectionOptions::default(), max_in_flight: 1 }
    }
}

/// Names a message in flight: its connection and its id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeliveryKey {
    /// The connection that it came over.
    pub dial: DialId,
    /// The id as the server wrote it.
    pub id: [u8; MESSAGE_ID_LEN],
}

/// A message for the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// What to answer with.
    pub key: DeliveryKey,
    /// The message.
    pub message: Received,
    /// The nsqd that sent it, `host:port`.
    pub nsqd: Arc<str>,
    /// When the server sends it again unless it is answered or touched; `None` if the server does not say.
    pub deadline: Option<Instant>,
    /// It was attempted more than `max_attempts` times and is for the dead-letter hook, not for the handler.
    /// Only with `hand_over_exhausted`; otherwise the consumer finishes it by itself.
    pub exhausted: bool,
}

/// The answer comes too late, and was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AnswerError {
    /// The message was answered before.
    Answered,
    /// The connection that it came over is gone; the server sends it again.
    ConnectionLost,
    /// Its time in flight is over; the server sends it again.
    TimedOut,
}

impl core::fmt::Display for AnswerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Answered => "the message was answered before",
            Self::ConnectionLost => "the connection that the message came over is gone",
            Self::TimedOut => "the message's time in flight is over",
        })
    }
}

impl core::error::Error for AnswerError {}

/// Everything that calls into a [`Consumer`] ask of the driver.
#[derive(Debug, Default)]
pub struct ConsumerActions {
    /// Connections and lookups.
    pub net: NetActions,
    /// Messages for the program, in the order in which they came.
    pub messages: Vec<Delivery>,
    /// What is worth a line in a log, or a caller's attention.
    pub events: Vec<ConsumerEvent>,
}

/// What happened to a consumer. `Display` is the text of the log line.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// The consumer is stopped and asks for nothing any more.
    Stopped,
    /// A connection is over.
    Disconnected {
        /// The nsqd.
        nsqd: Arc<str>,
        /// Why.
        error: ConnectionError,
    },
}

impl ConsumerEvent {
    /// How loud it is.
    pub const fn level(&self) -> crate::log::Level {
        crate::log::Level::Info
    }
}

impl core::fmt::Display for ConsumerEvent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

/// Counts since the consumer was made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConsumerStats {
    /// Messages that came.
    pub received: u64,
}

/// Consumes one channel over connections to any number of nsqds, given or found.
#[derive(Debug)]
pub struct Consumer;

impl Consumer {
    /// A consumer that has no nsqd yet.
    pub fn new(
        _topic: TopicName,
        _channel: ChannelName,
        _options: ConsumerOptions,
        _seed: u64,
    ) -> Result<Self, InvalidOption> {
        todo!()
    }

    /// Consumes from the nsqd at `host:port` too; false if it does already.
    pub fn add_nsqd(&mut self, _address: &str, _now: Now, _out: &mut ConsumerActions) -> bool {
        todo!()
    }

    /// Forgets an nsqd: drains and closes its connection. False if it is not known.
    pub fn remove_nsqd(&mut self, _address: &str, _now: Now, _out: &mut ConsumerActions) -> bool {
        todo!()
    }

    /// Asks the nsqlookupd at `host:port` or a URL too; false if it does already.
    pub fn add_nsqlookupd(
        &mut self,
        _address: &str,
        _now: Now,
        _out: &mut ConsumerActions,
    ) -> Result<bool, UrlError> {
        todo!()
    }

    /// Asks an nsqlookupd no more; false if it is not known.
    pub fn remove_nsqlookupd(&mut self, _address: &str) -> bool {
        todo!()
    }

    /// Changes `max_in_flight`; 0 pauses.
    pub fn change_max_in_flight(&mut self, _count: u32, _now: Now, _out: &mut ConsumerActions) {
        todo!()
    }

    /// The message is done.
    pub fn finish(
        &mut self,
        _key: DeliveryKey,
        _now: Now,
        _out: &mut ConsumerActions,
    ) -> Result<(), AnswerError> {
        todo!()
    }

    /// The message is to come again after `delay`; `None`: `default_requeue_delay` times attempts, at most
    /// `max_requeue_delay`. `backoff`: whether it is a sign that the consumer should slow down.
    pub fn requeue(
        &mut self,
        _key: DeliveryKey,
        _delay: Option<Duration>,
        _backoff: bool,
        _now: Now,
        _out: &mut ConsumerActions,
    ) -> Result<(), AnswerError> {
        todo!()
    }

    /// The message needs more time. Returns its new deadline.
    pub fn touch(
        &mut self,
        _key: DeliveryKey,
        _now: Now,
        _out: &mut ConsumerActions,
    ) -> Result<Option<Instant>, AnswerError> {
        todo!()
    }

    /// Takes no more messages, waits up to `grace` for answers to those in flight, requeues the rest and
    /// stops.
    pub fn stop(&mut self, _grace: Duration, _now: Now, _out: &mut ConsumerActions) {
        todo!()
    }

    /// Whether it asks for nothing any more.
    pub fn is_stopped(&self) -> bool {
        todo!()
    }

    /// Whether messages come slower than they are answered: some connection has 85 % of its RDY in flight.
    pub fn is_starved(&self) -> bool {
        todo!()
    }

    /// Counts, and each connection's.
    pub fn stats(&self) -> ConsumerStats {
        todo!()
    }

    /// The dial has succeeded.
    pub fn handle_connected(&mut self, _id: DialId, _now: Now, _out: &mut ConsumerActions) {
        todo!()
    }

    /// The dial has failed; `error` is the system's text.
    pub fn handle_connect_failed(
        &mut self,
        _id: DialId,
        _error: &str,
        _now: Now,
        _out: &mut ConsumerActions,
    ) {
        todo!()
    }

    /// Bytes have arrived; takes all complete frames out of `input`.
    pub fn handle_input(
        &mut self,
        _id: DialId,
        _input: &mut BytesMut,
        _now: Now,
        _out: &mut ConsumerActions,
    ) {
        todo!()
    }

    /// The connection is gone: closed by the server, or broken with the system's text.
    pub fn handle_closed(
        &mut self,
        _id: DialId,
        _error: Option<&str>,
        _now: Now,
        _out: &mut ConsumerActions,
    ) {
        todo!()
    }

    /// An nsqlookupd answered, or did not.
    pub fn handle_called(
        &mut self,
        _id: CallId,
        _result: CallResult,
        _now: Now,
        _out: &mut ConsumerActions,
    ) {
        todo!()
    }

    /// Time has passed; does nothing before [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, _now: Now, _out: &mut ConsumerActions) {
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Empties `spare` and fills it with the bytes to write next to this connection, none if there are none.
    pub fn swap_transmit(&mut self, _id: DialId, _now: Now, spare: &mut Vec<u8>) {
        spare.clear();
        todo!()
    }

    /// The topic and the channel.
    pub fn names(&self) -> (String, String) {
        todo!()
    }
}
