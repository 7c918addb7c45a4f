//! Why a client has no connection (clients.md sections 1.4 to 1.10 and 2.4).

use alloc::string::String;
use core::fmt;

use super::frame::FrameError;
#[cfg(feature = "upgrade")]
use crate::upgrade::UpgradeError;

/// Why a connection ended, or never came about.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The address could not be connected to; the text is the system's.
    Dial(String),
    /// The server did not accept the connection within `dial_timeout`.
    DialTimeout,
    /// IDENTIFY, the upgrades and AUTH were not done within `handshake_timeout`.
    HandshakeTimeout,
    /// The server answered IDENTIFY with an error; the text is the server's.
    IdentifyRefused(String),
    /// The answer to IDENTIFY is neither `OK` nor a JSON object with fields of the right types.
    IdentifyAnswer,
    /// The server announced TLS or a compression that was not asked for.
    UnexpectedUpgrade(&'static str),
    /// The server does not grant TLS or the compression that is required.
    UpgradeRefused(&'static str),
    /// The server answered something other than `OK` once TLS or the compression was there.
    UpgradeAnswer(&'static str),
    /// TLS or the compression did not come about: a certificate that is not trusted, for example.
    #[cfg(feature = "upgrade")]
    Upgrade(UpgradeError),
    /// What the server sends through TLS or the compression is broken.
    #[cfg(feature = "upgrade")]
    Layer(UpgradeError),
    /// The server wants a secret and there is none.
    AuthRequired,
    /// The server refused the secret; the text is the server's.
    AuthRefused(String),
    /// The server closed the connection.
    Closed,
    /// The connection broke; the text is the system's.
    Io(String),
    /// Nothing came, not even a heartbeat, for `read_timeout`.
    ReadTimeout,
    /// Heartbeats came, but no answer to a publish that was sent `publish_timeout` ago, or to SUB
    /// within `handshake_timeout`.
    NoAnswer,
    /// The server sent something that is not a frame.
    Frame(FrameError),
    /// The server answered what was not asked, or with a text that is no answer to it.
    UnexpectedResponse(String),
    /// The server sent an error although no answer was due.
    UnexpectedError(String),
    /// The server sent a message before the connection was subscribed.
    UnexpectedMessage,
    /// The server sent many more messages than it was asked for.
    TooManyMessages,
    /// The server refused a command, which ends a connection (nsqd-protocol.md section 6).
    Refused(String),
    /// No nsqd is known: none was given, and none found yet.
    NoNsqd,
    /// The deadline of the publish passed.
    TimedOut,
    /// The client was closed.
    Stopped,
}

impl ConnectionError {
    /// Whether server and client turned each other away. Trying again rarely helps before somebody
    /// changes the configuration of one of the two.
    pub const fn is_refusal(&self) -> bool {
        #[cfg(feature = "upgrade")]
        if matches!(self, Self::Upgrade(_)) {
            return true;
        }
        matches!(
            self,
            Self::AuthRefused(_)
                | Self::AuthRequired
                | Self::IdentifyAnswer
                | Self::IdentifyRefused(_)
                | Self::UnexpectedUpgrade(_)
                | Self::UpgradeAnswer(_)
                | Self::UpgradeRefused(_)
        )
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(text) | Self::Io(text) => f.write_str(text),
            Self::DialTimeout => f.write_str("connecting timed out"),
            Self::HandshakeTimeout => {
                f.write_str("IDENTIFY, an upgrade or AUTH was not answered in time")
            }
            Self::IdentifyRefused(text) => write!(f, "failed to IDENTIFY - {text}"),
            Self::IdentifyAnswer => {
                f.write_str("failed to IDENTIFY - the answer is not one of nsqd")
            }
            Self::UnexpectedUpgrade(name) => {
                write!(f, "failed to IDENTIFY - {name} was not asked for")
            }
            Self::UpgradeRefused(name) => {
                write!(f, "failed to IDENTIFY - the server does not grant {name}")
            }
            Self::UpgradeAnswer(name) => write!(f, "invalid response from {name} upgrade"),
            #[cfg(feature = "upgrade")]
            Self::Upgrade(error) => write!(f, "failed to upgrade - {error}"),
            #[cfg(feature = "upgrade")]
            Self::Layer(error) => error.fmt(f),
            Self::AuthRequired => f.write_str("Auth Required"),
            Self::AuthRefused(text) => write!(f, "Error authenticating {text}"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::ReadTimeout => f.write_str("the server was silent for too long"),
            Self::NoAnswer => f.write_str("the server answers heartbeats only"),
            Self::Frame(error) => error.fmt(f),
            Self::UnexpectedResponse(text) => write!(f, "unexpected response {text:?}"),
            Self::UnexpectedError(text) => write!(f, "unexpected error {text:?}"),
            Self::UnexpectedMessage => f.write_str("unexpected message"),
            Self::TooManyMessages => f.write_str("many more messages than the RDY count"),
            Self::Refused(text) => write!(f, "the server refused a command: {text}"),
            Self::NoNsqd => f.write_str("no nsqd is known"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl core::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        #[cfg(feature = "upgrade")]
        if let Self::Upgrade(error) | Self::Layer(error) = self {
            return Some(error);
        }
        if let Self::Frame(error) = self { Some(error) } else { None }
    }
}

impl From<FrameError> for ConnectionError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// What a server wrote, made readable: damaged parts replaced, cut at [`TEXT_LEN_MAX`] bytes.
pub(super) fn readable(text: &[u8]) -> String {
    let text = text.get(..TEXT_LEN_MAX).unwrap_or(text);
    String::from_utf8_lossy(text).into_owned()
}

/// The most bytes of an error text that are kept. The longest text of the reference quotes a word
/// of a command line of 16 KiB, each byte of it escaped with 4.
const TEXT_LEN_MAX: usize = 128 * 1024;
