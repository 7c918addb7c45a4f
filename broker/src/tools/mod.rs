//! The small tools: `sansq pub` and `sansq tail`.
//!
//! They drive the client machines of the core with blocking sockets: one thread that reads for each
//! connection, and one that does everything else, fed by a channel. No runtime is involved.

mod link;
mod lookup;
mod options;
mod publish;
mod tail;

use core::fmt;

pub use options::{PubOptions, TailOptions, normalise};
pub use publish::run_pub;
pub use tail::run_tail;

/// Why a tool ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum ToolError {
    /// The messages to publish could not be read.
    Input(std::io::Error),
    /// No nsqlookupd could be asked, or none knows an nsqd.
    Lookup(String),
    /// Standard output does not take what is printed.
    Output(std::io::Error),
    /// A message was not published.
    Publish {
        /// The nsqd.
        address: String,
        /// How many messages it did acknowledge.
        acknowledged: u64,
        /// Why.
        error: sansq_core::client::PublishError,
    },
    /// An nsqd can't be subscribed to.
    Subscribe {
        /// The nsqd.
        address: String,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => write!(f, "reading the messages failed: {error}"),
            Self::Lookup(text) => f.write_str(text),
            Self::Output(error) => write!(f, "writing the messages failed: {error}"),
            Self::Publish { address, acknowledged, error } => write!(
                f,
                "publishing to {address} failed after {acknowledged} acknowledged messages: {error}"
            ),
            Self::Subscribe { address, reason } => {
                write!(f, "subscribing at {address} failed: {reason}")
            }
        }
    }
}

impl core::error::Error for ToolError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Input(error) | Self::Output(error) => Some(error),
            Self::Publish { error, .. } => Some(error),
            Self::Lookup(_) | Self::Subscribe { .. } => None,
        }
    }
}
