//! What a producer asks of whoever drives it, and what it tells.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::connection::{ClientConnection, Identity};
use super::directory::DirectoryEvent;
use super::error::ConnectionError;
use crate::http::call::Call;
use crate::log::{Level, OneLine};
use crate::machine::MachineActions;
use crate::name::InvalidName;

/// What a client machine asks of the driver about its connections, grouped by who acts on it. The
/// driver owns it, carries it out in the order of the fields and clears it.
#[derive(Debug, Default)]
pub struct NetActions {
    /// The last bytes for connections that are in `close` too: commands without an answer, and the
    /// end of TLS and Deflate. To be written behind what is being written, as far as the socket
    /// takes it at once; nothing is lost if it does not.
    pub farewells: Vec<(DialId, Vec<u8>)>,
    /// Connections and dials to drop at once; there is no report back about them.
    pub close: Vec<DialId>,
    /// Addresses to connect to. Reported back by `handle_connected` or `handle_connect_failed`.
    pub dial: Vec<Dial>,
    /// Connections with bytes to write: call `swap_transmit` until it gives none.
    pub transmit: Vec<DialId>,
    /// Requests to nsqlookupds. Each is reported back once, by `handle_called`.
    pub calls: Vec<(LookupCallId, Call)>,
}

impl MachineActions for NetActions {
    fn is_empty(&self) -> bool {
        self.farewells.is_empty()
            && self.close.is_empty()
            && self.dial.is_empty()
            && self.transmit.is_empty()
            && self.calls.is_empty()
    }

    fn clear(&mut self) {
        self.farewells.clear();
        self.close.clear();
        self.dial.clear();
        self.transmit.clear();
        self.calls.clear();
    }
}

impl NetActions {
    /// Drops a connection that is not broken.
    pub(super) fn close(&mut self, id: DialId, connection: &mut ClientConnection) {
        let mut last = Vec::new();
        connection.swap_farewell(&mut last);
        if !last.is_empty() {
            self.farewells.push((id, last));
        }
        self.close.push(id);
    }

    /// Drops a connection because of `error`.
    pub(super) fn close_failed(
        &mut self,
        id: DialId,
        connection: &mut ClientConnection,
        error: &ConnectionError,
    ) {
        // Only one that is turned away is whole.
        if error.is_refusal() {
            self.close(id, connection);
        } else {
            self.close.push(id);
        }
    }

    /// A connection has something to write.
    pub(super) fn transmit(&mut self, id: DialId) {
        if !self.transmit.contains(&id) {
            self.transmit.push(id);
        }
    }
}

/// Everything that calls into a [`Producer`](super::Producer) or a
/// [`ProducerPool`](super::ProducerPool) ask of the driver.
#[derive(Debug, Default)]
pub struct ProducerActions {
    /// Connections.
    pub net: NetActions,
    /// Publishes that are over, each exactly once; those of one nsqd in the order of their ids.
    pub completed: Vec<(PublishId, Result<(), PublishError>)>,
    /// A publish was refused with [`PublishError::Full`] before, and some room has come since.
    pub room: bool,
    /// What is worth a line in a log.
    pub events: Vec<ProducerEvent>,
}

impl MachineActions for ProducerActions {
    fn is_empty(&self) -> bool {
        self.net.is_empty() && self.completed.is_empty() && !self.room && self.events.is_empty()
    }

    fn clear(&mut self) {
        self.net.clear();
        self.completed.clear();
        self.room = false;
        self.events.clear();
    }
}

/// Names a dial and the connection that comes of it. Reports about any but the latest are ignored,
/// so one that races with a close does no harm.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DialId(pub(super) u64);

/// Names a request to an nsqlookupd until it is reported back.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LookupCallId(pub(super) u64);

/// An address to connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dial {
    /// What to report back with.
    pub id: DialId,
    /// The address as it was given, `host:port`; the runtime resolves it.
    pub address: String,
}

/// Names a publish until it is completed; later ones are greater.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublishId(pub(super) u64);

impl fmt::Display for PublishId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a publish was not taken, or what became of it.
///
/// The last three are outcomes: after [`Rejected`](Self::Rejected) and [`NotSent`](Self::NotSent)
/// the broker has not got the messages, after [`Unknown`](Self::Unknown) it may have.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic's name is not valid.
    Topic(InvalidName),
    /// The producer was closed.
    Closed,
    /// There is no message.
    EmptyBatch,
    /// A message has no body, which NSQ does not allow.
    EmptyBody,
    /// A body is too long.
    BodyTooBig {
        /// Its length in bytes.
        size: usize,
        /// `max_msg_size`, in bytes.
        max: usize,
    },
    /// The messages are too long together.
    BatchTooBig {
        /// Their length in bytes, with 4 for each and 4 more.
        size: usize,
        /// `max_body_size`, in bytes.
        max: usize,
    },
    /// The delay is too long.
    DelayTooLong {
        /// `max_req_timeout`.
        max: Duration,
    },
    /// Too many publishes or bytes are outstanding. Worth another try when
    /// [`ProducerActions::room`] is set.
    Full,
    /// The broker said no; the text is the broker's.
    Rejected(String),
    /// The broker did not get it.
    NotSent(ConnectionError),
    /// It was sent and not answered, be it that the connection broke or that the broker refused a
    /// publish before it: the broker may have the messages. Publishing again may duplicate them.
    Unknown(ConnectionError),
}

/// What a failed publish means to somebody who may try again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The broker has not got the messages and will not take them as they are, nor will another.
    Rejected,
    /// The broker has not acknowledged the messages, and does not hold all of them. Another try can
    /// duplicate them only where one of several channels could not store what the others did.
    NotStored,
    /// The broker may have the messages; another try may duplicate them.
    Unknown,
}

impl PublishError {
    /// Whether the messages may have been stored, and whether another try makes sense.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Rejected(text) if has_code(text, &NOT_STORED_CODES) => Outcome::NotStored,
            Self::Topic(_)
            | Self::EmptyBatch
            | Self::EmptyBody
            | Self::BodyTooBig { .. }
            | Self::BatchTooBig { .. }
            | Self::DelayTooLong { .. }
            | Self::Rejected(_) => Outcome::Rejected,
            Self::Closed | Self::Full | Self::NotSent(_) => Outcome::NotStored,
            Self::Unknown(_) => Outcome::Unknown,
        }
    }
}

/// Whether the broker's text begins with one of these codes.
pub(super) fn has_code(text: &str, codes: &[&str]) -> bool {
    codes.contains(&text.split(' ').next().unwrap_or_default())
}

/// What nsqd says when it could not store a message (nsqd-protocol.md section 6): nothing is wrong
/// with the message, so another nsqd may take it. `E_PUT_FAILED` is that of versions before 0.2.20.
const NOT_STORED_CODES: [&str; 4] =
    ["E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED", "E_PUT_FAILED"];

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(error) => write!(f, "invalid topic: {error}"),
            Self::Closed => f.write_str("the producer is closed"),
            Self::EmptyBatch => f.write_str("no message"),
            Self::EmptyBody => f.write_str("a message without body"),
            Self::BodyTooBig { size, max } => write!(f, "message too big {size} > {max}"),
            Self::BatchTooBig { size, max } => write!(f, "body too big {size} > {max}"),
            Self::DelayTooLong { max } => write!(f, "the delay is above {} ms", max.as_millis()),
            Self::Full => f.write_str("too much is outstanding"),
            Self::Rejected(text) => f.write_str(text),
            Self::NotSent(error) => write!(f, "not sent: {error}"),
            Self::Unknown(error) => write!(f, "sent, answer lost: {error}"),
        }
    }
}

impl core::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        if let Self::NotSent(error) | Self::Unknown(error) = self { Some(error) } else { None }
    }
}

/// What happened to a producer. `Display` is the text of the log line, without the address.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProducerEvent {
    /// A dial begins.
    Connecting,
    /// The server took the secret.
    Authenticated(Identity),
    /// Publishes can be sent.
    Connected {
        /// The server's version; empty from a server without negotiation.
        version: String,
    },
    /// The server refused a publish; the text is the server's.
    Refused(String),
    /// The server sent a message although a producer never subscribes.
    StrayMessage,
    /// The connection, or the try to make one, is over.
    Disconnected {
        /// Why.
        error: ConnectionError,
        /// How long until the next dial; `None`: there is none, the producer is closed.
        redial_after: Option<Duration>,
    },
    /// The producer is closed and asks for nothing any more.
    Stopped,
    /// In a pool: this happened with one of its nsqds. The text begins with the address.
    Nsqd {
        /// The nsqd, `host:port`.
        nsqd: Arc<str>,
        /// What happened.
        event: Box<Self>,
    },
    /// In a pool: nsqlookupds list this nsqd, which is published to from now on.
    Found(String),
    /// In a pool: no nsqlookupd lists this nsqd any more, which is published to no longer.
    Vanished(String),
    /// In a pool: an nsqlookupd was asked.
    Directory(DirectoryEvent),
}

impl ProducerEvent {
    /// How loud it is.
    pub const fn level(&self) -> Level {
        match self {
            Self::Connecting
            | Self::Authenticated(_)
            | Self::Connected { .. }
            | Self::Found(_)
            | Self::Stopped
            | Self::Vanished(_) => Level::Info,
            Self::Nsqd { event, .. } => event.level(),
            Self::Directory(event) => event.level(),
            Self::StrayMessage | Self::Disconnected { .. } => Level::Warn,
            Self::Refused(_) => Level::Error,
        }
    }
}

impl fmt::Display for ProducerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting to nsqd"),
            Self::Authenticated(who) => write!(
                f,
                "Auth accepted. Identity: {:?} {} Permissions: {}",
                who.identity, who.identity_url, who.permission_count
            ),
            Self::Connected { version } => write!(f, "connected to nsqd {version}"),
            Self::Refused(text) => write!(f, "a publish was refused: {text}"),
            Self::StrayMessage => f.write_str("dropped a message that nobody subscribed to"),
            Self::Disconnected { error, redial_after: None } => {
                write!(f, "not connected: {error}")
            }
            Self::Disconnected { error, redial_after: Some(wait) } => {
                write!(f, "not connected: {error}; dialling again in {wait:?}")
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Nsqd { nsqd, event } => write!(f, "({}) {event}", OneLine(nsqd)),
            Self::Found(nsqd) => write!(f, "({}) found by nsqlookupd", OneLine(nsqd)),
            Self::Vanished(nsqd) => {
                write!(f, "({}) not known to any nsqlookupd any more", OneLine(nsqd))
            }
            Self::Directory(event) => event.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_refusals_are_for_good() {
        for (text, outcome) in [
            ("E_PUB_FAILED PUB failed exiting", Outcome::NotStored),
            ("E_MPUB_FAILED", Outcome::NotStored),
            ("E_DPUB_FAILED DPUB failed", Outcome::NotStored),
            ("E_PUT_FAILED x", Outcome::NotStored),
            ("E_PUB_FAILEDX", Outcome::Rejected),
            ("E_BAD_TOPIC E_PUB_FAILED", Outcome::Rejected),
            ("E_BAD_MESSAGE PUB message too big", Outcome::Rejected),
            ("", Outcome::Rejected),
        ] {
            assert_eq!(PublishError::Rejected(text.into()).outcome(), outcome, "{text}");
        }
        assert_eq!(PublishError::Full.outcome(), Outcome::NotStored);
        assert_eq!(PublishError::EmptyBody.outcome(), Outcome::Rejected);
        assert_eq!(PublishError::Unknown(ConnectionError::Closed).outcome(), Outcome::Unknown);
    }
}
