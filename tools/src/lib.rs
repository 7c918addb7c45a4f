//! The tools: `sansq pub`, `tail`, `to-file`, `to-http`, `to-nsq`, `stat` and `top`.
//!
//! `stat` and `top` ask nsqds over HTTP, from threads. The others consume and publish with the
//! clients that programs use, on a runtime of one thread (`clients`); what may wait for a disk, a
//! terminal or an HTTP server does so on other threads, so that heartbeats are answered.

mod clients;
mod cluster;
mod lookup;
mod options;
mod progress;
mod publish;
mod stat;
mod status;
mod tail;
mod to_file;
mod to_http;
mod to_nsq;
mod together;
mod top;

use core::fmt;

pub use clients::Sources;
pub use options::{HttpTimeouts, PubOptions, TailOptions};
pub use publish::run_pub;
pub use stat::{StatOptions, run_stat};
pub use tail::run_tail;
pub use to_file::{ToFileOptions, run_to_file};
pub use to_http::{HttpMode, Template, ToHttpOptions, run_to_http};
pub use to_nsq::{NsqMode, ToNsqOptions, run_to_nsq};
pub use top::{TopOptions, View, run_top};

/// Why a tool ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum ToolError {
    /// A part of the tool ended by a panic, which is a defect.
    Failed(&'static str),
    /// A file can't be written; what was finished before is safe.
    File(std::io::Error),
    /// The messages to publish could not be read.
    Input(std::io::Error),
    /// No nsqlookupd could be asked, or none knows an nsqd.
    Lookup(String),
    /// Standard output is no terminal, and a terminal is needed.
    NoTerminal,
    /// The operating system refuses a thread, or signals.
    Start(std::io::Error),
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
    /// TLS can't be spoken.
    Tls(String),
    /// The flags don't go together.
    Usage(String),
}

impl ToolError {
    /// What a script is told: 2 if it called the tool in a wrong way, else 1.
    pub fn exit_status(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(what) => write!(f, "{what} failed"),
            Self::File(error) => write!(f, "writing failed: {error}"),
            Self::Input(error) => write!(f, "reading the messages failed: {error}"),
            Self::NoTerminal => {
                f.write_str("standard output is no terminal; --once prints one table as text")
            }
            Self::Lookup(text) | Self::Tls(text) | Self::Usage(text) => f.write_str(text),
            Self::Start(error) => write!(f, "starting failed: {error}"),
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
            Self::File(error) | Self::Input(error) | Self::Output(error) | Self::Start(error) => {
                Some(error)
            }
            Self::Publish { error, .. } => Some(error),
            Self::Failed(_)
            | Self::Lookup(_)
            | Self::NoTerminal
            | Self::Subscribe { .. }
            | Self::Tls(_)
            | Self::Usage(_) => None,
        }
    }
}
