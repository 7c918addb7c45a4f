//! What all layers have in common: how far a step got, and what works a flush out.

use alloc::vec::Vec;
use core::fmt;

use snap::raw;

/// How far a call of [`Stack::decode`](super::Stack::decode) got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Decoded {
    /// Everything that is complete: more bytes of the peer are needed.
    All,
    /// There are plain bytes, and there may be more: call again.
    Some,
    /// The handshake of TLS is over, and the next layer can be put on it: call again.
    Handshaken,
    /// The peer sends nothing more.
    End,
}

/// What works out one flush: shared by all connections of a thread, and empty between calls.
pub struct Scratch {
    /// Plain bytes in one piece, at most a block of Snappy.
    pub(super) block: Vec<u8>,
    pub(super) packed: Vec<u8>,
    pub(super) snappy: raw::Encoder,
}

impl Default for Scratch {
    /// Allocates nothing yet.
    fn default() -> Self {
        Self { block: Vec::new(), packed: Vec::new(), snappy: raw::Encoder::new() }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}
