//! An nsqd that is consumed from, and the connection to it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use super::super::actions::DialId;
use super::super::backoff::Backoff;
use super::super::connection::{ClientConnection, ClientConnectionOutput, Identity, Negotiated};
use super::super::error::ConnectionError;
use super::super::figures::{ErrorCounts, Latencies};
use super::super::frame::Received;
use super::actions::ConnectionStats;
use super::in_flight::TimeLimits;
use super::options::ConsumerOptions;
use super::rdy::Prospects;
use super::slowdown::Slowdown;
use crate::rng::Rng;
use crate::time::{Instant, Now};

/// An nsqd that the consumer wants to be connected to.
#[derive(Debug)]
pub(super) struct Nsqd {
    /// The program has added it; otherwise an nsqlookupd named it.
    pub(super) is_given: bool,
    pub(super) link: Option<DialId>,
    pub(super) redial_at: Option<Instant>,
    pub(super) backoff: Backoff,
    /// It has refused the client for good.
    pub(super) is_given_up: bool,
    pub(super) subscriptions: u64,
    pub(super) received: u64,
    pub(super) finished: u64,
    pub(super) requeued: u64,
    /// From a message's arrival to its answer.
    pub(super) latencies: Latencies,
    pub(super) errors: ErrorCounts,
    /// With `BackoffScope::Connection`.
    pub(super) slowdown: Slowdown,
}

impl Nsqd {
    pub(super) fn new(is_given: bool, options: &ConsumerOptions, rng: &Rng) -> Self {
        Self {
            is_given,
            link: None,
            redial_at: None,
            backoff: Backoff::new(options.redial_min, options.redial_max, rng.fork(1)),
            is_given_up: false,
            subscriptions: 0,
            received: 0,
            finished: 0,
            requeued: 0,
            latencies: Latencies::default(),
            errors: ErrorCounts::default(),
            slowdown: Slowdown::new(options, rng.fork(2)),
        }
    }

    pub(super) fn stats(&self, address: &str, link: Option<&Link>) -> ConnectionStats {
        ConnectionStats {
            nsqd: address.into(),
            is_subscribed: link.is_some_and(|link| link.stage == Stage::Subscribed),
            is_given_up: self.is_given_up,
            rdy: link.map_or(0, |link| link.rdy),
            in_flight: link.map_or(0, |link| link.in_flight),
            received: self.received,
            finished: self.finished,
            requeued: self.requeued,
            reconnects: self.subscriptions.saturating_sub(1),
            backoff_level: self.slowdown.level(),
            latencies: self.latencies.clone(),
            errors: self.errors.clone(),
        }
    }
}

/// A dial, and the connection that it becomes.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) nsqd: Arc<str>,
    pub(super) connection: ClientConnection,
    pub(super) stage: Stage,
    pub(super) subscribed_at: Option<Instant>,
    /// The count that the server was told last.
    pub(super) rdy: u32,
    /// The largest count that it was ever told.
    pub(super) rdy_most: u32,
    pub(super) in_flight: u32,
    /// When it got RDY, or lost it.
    pub(super) since: Instant,
    /// When a message came or was answered last.
    pub(super) active: Instant,
    /// What a test in backoff may expect of it.
    pub(super) prospects: Prospects,
    pub(super) limits: TimeLimits,
    /// Messages since the last look at the rate.
    pub(super) recent: u32,
    /// Messages in one `rdy_redistribute_interval`, averaged over several; in parts of
    /// [`RATE_UNIT`].
    pub(super) rate: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// Dialling, IDENTIFY, AUTH.
    Handshake,
    /// SUB has no answer yet, and has to have one by then.
    Subscribing { until: Instant },
    /// Messages come.
    Subscribed,
    /// CLS was sent. At `until` what is still in flight is requeued.
    Draining { until: Instant, is_acknowledged: bool },
    /// What is owed is being written; at `until` at the latest the connection is closed.
    Closing { until: Instant },
}

impl Link {
    pub(super) fn new(nsqd: Arc<str>, options: &ConsumerOptions, now: Now) -> Self {
        Self {
            connection: ClientConnection::dial(&options.connection, &nsqd, now),
            nsqd,
            stage: Stage::Handshake,
            subscribed_at: None,
            rdy: 0,
            rdy_most: 0,
            in_flight: 0,
            since: now.instant,
            active: now.instant,
            prospects: Prospects::default(),
            limits: TimeLimits::default(),
            recent: 0,
            rate: 0,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Handshake | Stage::Subscribed => None,
            Stage::Subscribing { until }
            | Stage::Draining { until, .. }
            | Stage::Closing { until } => Some(until),
        };
        [stage, self.connection.poll_timeout()].into_iter().flatten().min()
    }

    /// An interval is over: the newest counts for a half, what was before for the other.
    pub(super) fn measure(&mut self) {
        let newest = mem::take(&mut self.recent).saturating_mul(RATE_UNIT);
        self.rate = self.rate / 2 + newest / 2;
    }

    /// Whether the server has sent more than it may. It may be ahead of us with what was not
    /// answered in time, but not by more than once the whole count.
    pub(super) fn is_flooded(&self) -> bool {
        self.in_flight >= self.rdy_most.saturating_mul(2).saturating_add(FLOOD_SLACK)
    }
}

/// So that an average below one message is not nothing.
const RATE_UNIT: u32 = 16;

/// What one read of bytes means.
#[derive(Debug)]
pub(super) enum Incoming {
    Authenticated(Identity),
    Opened(Negotiated),
    Response(Bytes),
    Error(Bytes),
    Message(Received),
}

/// Takes down what a connection tells.
pub(super) struct Frames<'a>(pub(super) &'a mut Vec<Incoming>);

impl ClientConnectionOutput for Frames<'_> {
    fn authenticated(&mut self, identity: Identity) {
        self.0.push(Incoming::Authenticated(identity));
    }

    fn opened(&mut self, negotiated: &Negotiated) {
        self.0.push(Incoming::Opened(negotiated.clone()));
    }

    fn response(&mut self, text: Bytes) {
        self.0.push(Incoming::Response(text));
    }

    fn error(&mut self, text: Bytes) {
        self.0.push(Incoming::Error(text));
    }

    fn message(&mut self, message: Received) {
        self.0.push(Incoming::Message(message));
    }
}

/// Whether trying again is of no use before somebody changes a configuration here.
pub(super) fn is_permanent(error: &ConnectionError) -> bool {
    if let ConnectionError::Refused(text)
    | ConnectionError::AuthRefused(text)
    | ConnectionError::IdentifyRefused(text) = error
    {
        let code = text.split(' ').next().unwrap_or_default();
        return PERMANENT.contains(&code);
    }
    // Not a damaged layer, a strange answer or a server without TLS: there may be another one
    // later.
    matches!(error, ConnectionError::AuthRequired)
}

/// Refusals that depend on nothing but the names, the secret and the options. `E_INVALID` is none
/// of them, since an nsqd with too many connections says so; nor is `E_AUTH_FAILED`, which is what
/// is answered while no auth server can be asked.
const PERMANENT: [&str; 5] =
    ["E_AUTH_FIRST", "E_BAD_BODY", "E_BAD_CHANNEL", "E_BAD_TOPIC", "E_UNAUTHORIZED"];

/// How many messages above twice the RDY count a connection may have in flight: those of a server
/// that sends before it is asked to, which costs nothing.
const FLOOD_SLACK: u32 = 16;
