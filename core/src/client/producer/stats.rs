//! Figures of one nsqd that is published to.

use alloc::string::String;

use super::super::figures::{ErrorCounts, Latencies};
use super::Producer;

/// Counts of one nsqd since the producer was made, and what is now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PublishStats {
    /// The nsqd, `host:port`.
    pub nsqd: String,
    /// Whether publishes can go to it at once.
    pub is_connected: bool,
    /// Publishes that it was given and that are not completed.
    pub outstanding: usize,
    /// The bytes of their bodies.
    pub outstanding_bytes: usize,
    /// Publishes that it has stored.
    pub stored: u64,
    /// Publishes that it has refused.
    pub refused: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// How long answers took, from being sent to their arrival; refusals are answers.
    pub latencies: Latencies,
    /// Connections that ended or did not come about, those included that a refused publish ended.
    pub errors: ErrorCounts,
}

impl Producer {
    /// Counts of its nsqd, and what is now.
    pub fn stats(&self) -> PublishStats {
        let figures = self.transactions.figures();
        PublishStats {
            nsqd: self.address.clone(),
            is_connected: self.is_connected(),
            outstanding: self.outstanding(),
            outstanding_bytes: self.outstanding_bytes(),
            stored: figures.stored,
            refused: figures.refused,
            reconnects: self.opens.saturating_sub(1),
            latencies: figures.latencies.clone(),
            errors: self.errors.clone(),
        }
    }
}
