//! What a consumer asks of whoever drives it, and what it tells.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::super::actions::{DialId, NetActions};
use super::super::connection::Identity;
use super::super::directory::DirectoryEvent;
use super::super::error::ConnectionError;
use super::super::figures::{ErrorCounts, Latencies};
use super::super::frame::Received;
use crate::log::{Level, OneLine};
use crate::machine::MachineActions;
use crate::message::MESSAGE_ID_LEN;
use crate::time::Instant;

/// Everything that calls into a [`Consumer`](super::Consumer) ask of the driver.
#[derive(Debug, Default)]
pub struct ConsumerActions {
    /// Connections and lookups.
    pub net: NetActions,
    /// Messages for the program, in the order in which they came.
    pub messages: Vec<Delivery>,
    /// What is worth a line in a log, or a caller's attention.
    pub events: Vec<ConsumerEvent>,
}

impl MachineActions for ConsumerActions {
    fn is_empty(&self) -> bool {
        self.net.is_empty() && self.messages.is_empty() && self.events.is_empty()
    }

    fn clear(&mut self) {
        self.net.clear();
        self.messages.clear();
        self.events.clear();
    }
}

/// Names one delivery of a message: the connection that it came over, its id, and which time it
/// was. A message that comes again has another key, so a late answer to the first delivery does not
/// answer the second.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeliveryKey {
    /// The connection that it came over.
    pub dial: DialId,
    /// The id as the server wrote it.
    pub id: [u8; MESSAGE_ID_LEN],
    pub(super) serial: u64,
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
    /// When the server sends it again unless it is answered or touched; `None` if the server does
    /// not say.
    pub deadline: Option<Instant>,
    /// It was attempted more than `max_attempts` times and is for the dead-letter hook, not for the
    /// handler. Only with `hand_over_exhausted`; otherwise the consumer finishes it by itself.
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

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "the message was answered before",
            Self::ConnectionLost => "the connection that the message came over is gone",
            Self::TimedOut => "the message's time in flight is over",
        })
    }
}

impl core::error::Error for AnswerError {}

/// What happened to a consumer. `Display` is the text of the log line.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// A dial begins.
    Connecting {
        /// The nsqd.
        nsqd: Arc<str>,
    },
    /// The server took the secret.
    Authenticated {
        /// The nsqd.
        nsqd: Arc<str>,
        /// What it said about it.
        identity: Identity,
    },
    /// The nsqd has taken the subscription: messages can come.
    Subscribed {
        /// The nsqd.
        nsqd: Arc<str>,
        /// Its version; empty from a server without negotiation.
        version: String,
        /// The largest RDY count that it takes. Below `max_in_flight` it limits the throughput.
        max_rdy_count: u32,
    },
    /// A connection, or the try to make one, is over. Its messages in flight can't be answered any
    /// more.
    Disconnected {
        /// The nsqd.
        nsqd: Arc<str>,
        /// Why.
        error: ConnectionError,
        /// How long until the next dial; `None`: there is none.
        redial_after: Option<Duration>,
    },
    /// An nsqd has refused the client or the subscription for good, and is not dialled again until
    /// it is [added](super::Consumer::add_nsqd) again.
    GaveUp {
        /// The nsqd.
        nsqd: Arc<str>,
        /// Why.
        error: ConnectionError,
    },
    /// An nsqd that was removed, or that no nsqlookupd names any more, is drained and closed.
    Draining {
        /// The nsqd.
        nsqd: Arc<str>,
    },
    /// A connection was closed because that was wanted; nothing was in flight any more.
    Closed {
        /// The nsqd.
        nsqd: Arc<str>,
    },
    /// An nsqd refused a command of a subscribed connection, such as an answer that came too late
    /// (`E_FIN_FAILED`, `E_REQ_FAILED`, `E_TOUCH_FAILED`). The connection is in use as long as the
    /// nsqd keeps it.
    Refused {
        /// The nsqd.
        nsqd: Arc<str>,
        /// The nsqd's text.
        text: String,
    },
    /// A message was not answered in time. The nsqd sends it again.
    TimedOut {
        /// The nsqd.
        nsqd: Arc<str>,
        /// The delivery, which can't be answered any more.
        key: DeliveryKey,
    },
    /// A message was attempted more than `max_attempts` times and was finished without the program.
    Exhausted {
        /// The nsqd.
        nsqd: Arc<str>,
        /// The message's id.
        id: [u8; MESSAGE_ID_LEN],
        /// How often it was attempted.
        attempts: u16,
    },
    /// Answers say that the program does not cope: nothing is asked for until `wait` is over.
    Backoff {
        /// The nsqd whose messages they were, and that alone is left alone, with
        /// [`BackoffScope::Connection`](super::BackoffScope::Connection); `None`: all of them.
        nsqd: Option<Arc<str>>,
        /// The level, from 1.
        level: u32,
        /// How long until a single message is tried.
        wait: Duration,
    },
    /// The wait of a backoff is over, and the next message decides.
    BackoffTest {
        /// As in [`Backoff`](Self::Backoff).
        nsqd: Option<Arc<str>>,
    },
    /// The program copes again.
    BackoffOver {
        /// As in [`Backoff`](Self::Backoff).
        nsqd: Option<Arc<str>>,
    },
    /// An nsqlookupd did not answer, or lists too many.
    Directory(DirectoryEvent),
    /// The consumer is to stop: nothing more is asked for.
    Stopping,
    /// The consumer is stopped and asks for nothing any more.
    Stopped,
}

impl ConsumerEvent {
    /// How loud it is.
    pub const fn level(&self) -> Level {
        match self {
            Self::Connecting { .. }
            | Self::Authenticated { .. }
            | Self::Subscribed { .. }
            | Self::Draining { .. }
            | Self::Closed { .. }
            | Self::BackoffTest { .. }
            | Self::BackoffOver { .. }
            | Self::Stopping
            | Self::Stopped => Level::Info,
            Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::Exhausted { .. }
            | Self::Backoff { .. } => Level::Warn,
            Self::GaveUp { .. } | Self::Refused { .. } => Level::Error,
            Self::Directory(event) => event.level(),
        }
    }
}

impl fmt::Display for ConsumerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { nsqd } => write!(f, "({nsqd}) connecting to nsqd"),
            Self::Authenticated { nsqd, identity } => write!(
                f,
                "({nsqd}) Auth accepted. Identity: {:?} {} Permissions: {}",
                identity.identity, identity.identity_url, identity.permission_count
            ),
            Self::Subscribed { nsqd, version, max_rdy_count } => {
                write!(f, "({nsqd}) subscribed at nsqd {version}, max RDY count {max_rdy_count}")
            }
            Self::Disconnected { nsqd, error, redial_after: None } => {
                write!(f, "({nsqd}) not connected: {error}")
            }
            Self::Disconnected { nsqd, error, redial_after: Some(wait) } => {
                write!(f, "({nsqd}) not connected: {error}; dialling again in {wait:?}")
            }
            Self::GaveUp { nsqd, error } => {
                write!(f, "({nsqd}) given up, this will not change by itself: {error}")
            }
            Self::Draining { nsqd } => write!(f, "({nsqd}) draining"),
            Self::Closed { nsqd } => write!(f, "({nsqd}) closed"),
            Self::Refused { nsqd, text } => {
                write!(f, "({nsqd}) a command was refused: {}", OneLine(text))
            }
            Self::TimedOut { nsqd, key } => {
                write!(f, "({nsqd}) message {} was not answered in time", key.id.escape_ascii())
            }
            Self::Exhausted { nsqd, id, attempts } => write!(
                f,
                "({nsqd}) message {} attempted {attempts} times, giving up",
                id.escape_ascii()
            ),
            Self::Backoff { nsqd: None, level, wait } => {
                write!(f, "backing off for {wait:?} (backoff level {level}), setting all to RDY 0")
            }
            Self::Backoff { nsqd: Some(nsqd), level, wait } => write!(
                f,
                "({nsqd}) backing off for {wait:?} (backoff level {level}), setting it to RDY 0"
            ),
            Self::BackoffTest { nsqd: None } => {
                f.write_str("backoff timeout expired, sending RDY 1")
            }
            Self::BackoffTest { nsqd: Some(nsqd) } => {
                write!(f, "({nsqd}) backoff timeout expired, sending RDY 1")
            }
            Self::BackoffOver { nsqd: None } => f.write_str("exiting backoff"),
            Self::BackoffOver { nsqd: Some(nsqd) } => write!(f, "({nsqd}) exiting backoff"),
            Self::Directory(event) => event.fmt(f),
            Self::Stopping => f.write_str("stopping"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// Counts since the consumer was made, and what is now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConsumerStats {
    /// Messages that came.
    pub received: u64,
    /// Messages that were finished, those that were exhausted included. Only what was sent counts.
    pub finished: u64,
    /// Messages that were requeued.
    pub requeued: u64,
    /// Touches that were sent.
    pub touched: u64,
    /// Messages that were not answered in time.
    pub timed_out: u64,
    /// Messages that were finished by the consumer after `max_attempts`.
    pub exhausted: u64,
    /// Messages in flight now.
    pub in_flight: usize,
    /// The backoff level; 0: none.
    pub backoff_level: u32,
    /// Of each nsqd that is known, by address.
    pub connections: Vec<ConnectionStats>,
}

/// Counts of one nsqd since it became known, and what is now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConnectionStats {
    /// The nsqd, `host:port`.
    pub nsqd: String,
    /// Whether it is connected and subscribed.
    pub is_subscribed: bool,
    /// Whether it has refused the client for good.
    pub is_given_up: bool,
    /// Its RDY count now.
    pub rdy: u32,
    /// Its messages in flight now.
    pub in_flight: u32,
    /// Messages that came from it.
    pub received: u64,
    /// Messages that were finished there.
    pub finished: u64,
    /// Messages that were requeued there.
    pub requeued: u64,
    /// Subscriptions after the first.
    pub reconnects: u64,
    /// The backoff level of this nsqd alone, with
    /// [`BackoffScope::Connection`](super::BackoffScope::Connection); 0: none.
    pub backoff_level: u32,
    /// How long messages were in hand, from their arrival to FIN or REQ.
    pub latencies: Latencies,
    /// Connections that ended, or did not come about, and commands that were refused.
    pub errors: ErrorCounts,
}
