//! TLS, Snappy and Deflate, as transformations of bytes (nsqd-protocol.md sections 8.4 and 8.5).
//!
//! ```text
//!   socket ──wire──► TLS ──► Snappy or Deflate ──plain──► commands
//!   socket ◄──wire── TLS ◄── Snappy or Deflate ◄──plain── frames
//! ```
//!
//! A [`Stack`] is what one connection speaks through: none, one or two layers, the same on the
//! server's and on the client's side. Nothing here waits, and nothing here has a socket: bytes come
//! in, bytes go out, and what is incomplete stays. It needs std, because rustls does, and so it is
//! behind the feature `upgrade`. The randomness and the clock that TLS needs are rustls's own; with
//! TLS a run can't be replayed from its seed, with the others it can.
//!
//! # Limits
//!
//! One call of [`Stack::decode`] adds at most about [`STEP_LEN_MAX`] plain bytes, however well they
//! are packed, so that a few bytes which expand a thousandfold cost no more memory than any other
//! input: the caller carries out what is complete before it asks for more. Per connection, beyond
//! what is on its way:
//!
//! | layer | memory while it is in use | while it is idle ([`Stack::release`]) |
//! |---|---|---|
//! | TLS | a record, 16 KiB, in each direction; a handshake message, 64 KiB | a few KiB |
//! | Snappy | a chunk that is half there, 75 KiB | some bytes |
//! | Deflate | 43 KiB inwards, 320 KiB outwards | 43 KiB, since the peer may refer to what it sent before |
//!
//! What works out one flush is a [`Scratch`], which all connections of a thread share.

mod deflate;
mod snappy;
mod stack;
mod step;
mod tls;

use core::fmt;

pub use self::stack::Stack;
pub use self::step::{Decoded, Scratch};
pub use self::tls::{ClientTls, ServerTls, Tls, TlsError};

/// About how many plain bytes one call of [`Stack::decode`] adds at most: exactly, for Snappy and
/// Deflate; TLS adds up to a record more.
pub const STEP_LEN_MAX: usize = 64 * 1024;

/// A layer that is put between the socket and the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layer {
    /// TLS.
    Tls,
    /// The framing format of Snappy.
    Snappy,
    /// Raw Deflate, with the level at which we pack: 1 to 9.
    Deflate(u8),
}

impl fmt::Display for Layer {
    /// As the log names it: `TLS`, `snappy`, `deflate (level 6)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls => f.write_str("TLS"),
            Self::Snappy => f.write_str("snappy"),
            Self::Deflate(level) => write!(f, "deflate (level {level})"),
        }
    }
}

/// The peer's bytes are not what the layer is made of. Nothing can be read any more.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The Deflate stream is broken.
    Deflate,
    /// The Snappy stream is broken, and how.
    Snappy(&'static str),
    /// TLS refuses, or was refused by the peer.
    Tls(TlsError),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deflate => f.write_str("deflate: corrupt input"),
            Self::Snappy(how) => write!(f, "snappy: {how}"),
            Self::Tls(error) => write!(f, "tls: {error}"),
        }
    }
}

impl core::error::Error for UpgradeError {}

impl From<TlsError> for UpgradeError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}
