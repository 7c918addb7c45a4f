//! Events of the core as lines of `tracing`; the target says which program speaks.

use core::fmt::Display;

use sansq_core::log::Level;

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

    /// Writes one line at INFO.
    pub fn info(self, line: impl Display) {
        self.log(Level::Info, line);
    }
}
