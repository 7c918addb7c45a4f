//! Events of the core as lines of `tracing`; the target says which program speaks.

use core::fmt::Display;

use sansq_core::log::Level;

/// The name of a span around many lines that were caused at once.
pub const BATCH: &str = "batch";

/// Fewer lines are written one by one.
const BATCH_MIN: usize = 64;

/// The program that a line is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Program {
    /// The broker.
    Nsqd,
    /// The directory.
    Nsqlookupd,
}

impl Program {
    /// Writes one line. Nothing is formatted if nobody listens.
    pub fn log(self, level: Level, line: impl Display) {
        match self {
            Self::Nsqd => match level {
                Level::Debug => tracing::debug!(target: "nsqd", "{line}"),
                Level::Info => tracing::info!(target: "nsqd", "{line}"),
                Level::Warn => tracing::warn!(target: "nsqd", "{line}"),
                Level::Error | Level::Fatal => tracing::error!(target: "nsqd", "{line}"),
            },
            Self::Nsqlookupd => match level {
                Level::Debug => tracing::debug!(target: "nsqlookupd", "{line}"),
                Level::Info => tracing::info!(target: "nsqlookupd", "{line}"),
                Level::Warn => tracing::warn!(target: "nsqlookupd", "{line}"),
                Level::Error | Level::Fatal => tracing::error!(target: "nsqlookupd", "{line}"),
            },
        }
    }

    /// Writes many lines. Those of a start with many topics are within a span [`BATCH`]: whoever writes them
    /// may do so together, at its end.
    pub fn log_all<L: Display>(self, lines: impl ExactSizeIterator<Item = (Level, L)>) {
        let _batch = (lines.len() >= BATCH_MIN).then(|| match self {
            Self::Nsqd => tracing::info_span!(target: "nsqd", BATCH).entered(),
            Self::Nsqlookupd => tracing::info_span!(target: "nsqlookupd", BATCH).entered(),
        });
        for (level, line) in lines {
            self.log(level, line);
        }
    }

    /// Writes one line at INFO.
    pub fn info(self, line: impl Display) {
        self.log(Level::Info, line);
    }
}
