//! Publishing to any of several nsqds, given or found (clients.md part 7, B1 to B8).

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::actions::{CallId, DialId, ProducerActions, PublishError, PublishId};
use super::options::InvalidOption;
use super::producer::ProducerOptions;
use crate::http::call::{CallResult, UrlError};
use crate::name::TopicName;
use crate::time::{Instant, Now};

/// When a publish that failed at one nsqd is tried at another, until its deadline.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RetryPolicy {
    /// Never: the first outcome is the caller's.
    Never,
    /// When it is certain that nothing was stored: never sent, or refused for a reason that another nsqd
    /// may not have.
    #[default]
    NotStored,
    /// Also when it was sent and not answered, so that the message may come twice.
    Always,
}

/// The settings of a pool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PoolOptions {
    /// Those of each producer in it.
    pub producer: ProducerOptions,
    /// What becomes of publishes that fail.
    pub retry: RetryPolicy,
}

/// Publishes to the nsqds that it is given, or that nsqlookupds know.
#[derive(Debug)]
pub struct ProducerPool;

impl ProducerPool {
    /// A pool without an nsqd.
    pub fn new(_options: PoolOptions, _seed: u64) -> Result<Self, InvalidOption> {
        todo!()
    }

    /// Publishes to the nsqd at `host:port` too, and starts to connect; false if it does already.
    pub fn add_nsqd(&mut self, _address: &str, _now: Now, _out: &mut ProducerActions) -> bool {
        todo!()
    }

    /// Publishes to this nsqd no more; what it has not answered yet is waited for.
    pub fn remove_nsqd(&mut self, _address: &str, _now: Now, _out: &mut ProducerActions) -> bool {
        todo!()
    }

    /// Asks the nsqlookupd at `host:port` or a URL for nsqds (`/nodes`), now and every
    /// `lookupd_poll_interval`; false if it does already.
    pub fn add_nsqlookupd(
        &mut self,
        _address: &str,
        _now: Now,
        _out: &mut ProducerActions,
    ) -> Result<bool, UrlError> {
        todo!()
    }

    /// Publishes a message; see [`Producer::publish`](super::Producer::publish).
    pub fn publish(
        &mut self,
        _topic: &TopicName,
        _body: Bytes,
        _now: Now,
        _out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        todo!()
    }

    /// Publishes a message that the broker holds back for `delay`.
    pub fn publish_after(
        &mut self,
        _topic: &TopicName,
        _delay: Duration,
        _body: Bytes,
        _now: Now,
        _out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        todo!()
    }

    /// Publishes several messages with one command, all of them or none.
    pub fn publish_many<B: AsRef<[u8]>>(
        &mut self,
        _topic: &TopicName,
        _bodies: &[B],
        _now: Now,
        _out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        todo!()
    }

    /// Takes no more publishes, waits up to `close_timeout` for those outstanding and then stops.
    pub fn close(&mut self, _now: Now, _out: &mut ProducerActions) {
        todo!()
    }

    /// Whether it is closed and asks for nothing any more.
    pub fn is_stopped(&self) -> bool {
        todo!()
    }

    /// How many nsqds publishes can go to at once.
    pub fn connected(&self) -> usize {
        todo!()
    }

    /// How many publishes are taken and not completed.
    pub fn outstanding(&self) -> usize {
        todo!()
    }

    /// The dial has succeeded.
    pub fn handle_connected(&mut self, _id: DialId, _now: Now, _out: &mut ProducerActions) {
        todo!()
    }

    /// The dial has failed; `error` is the system's text.
    pub fn handle_connect_failed(
        &mut self,
        _id: DialId,
        _error: &str,
        _now: Now,
        _out: &mut ProducerActions,
    ) {
        todo!()
    }

    /// Bytes have arrived; takes all complete frames out of `input`.
    pub fn handle_input(
        &mut self,
        _id: DialId,
        _input: &mut BytesMut,
        _now: Now,
        _out: &mut ProducerActions,
    ) {
        todo!()
    }

    /// The connection is gone: closed by the broker, or broken with the system's text.
    pub fn handle_closed(
        &mut self,
        _id: DialId,
        _error: Option<&str>,
        _now: Now,
        _out: &mut ProducerActions,
    ) {
        todo!()
    }

    /// An nsqlookupd answered, or did not.
    pub fn handle_called(
        &mut self,
        _id: CallId,
        _result: CallResult,
        _now: Now,
        _out: &mut ProducerActions,
    ) {
        todo!()
    }

    /// Time has passed; does nothing before [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, _now: Now, _out: &mut ProducerActions) {
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

    /// The addresses of its nsqds.
    pub fn addresses(&self) -> Vec<String> {
        todo!()
    }
}
