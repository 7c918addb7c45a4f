//! Events of the core as lines of `tracing`; the target says which program speaks.

use core::fmt::Display;
use core::sync::atomic::{AtomicU64, Ordering};

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
        self.log_kind(level, None, line);
    }

    /// Writes one line of a `kind` that peers can cause at will, which is a field of the event.
    /// Whoever writes the lines may leave some of a kind out, and say how many.
    pub fn log_kind(self, level: Level, kind: Option<&'static str>, line: impl Display) {
        match self {
            Self::Nsqd => match level {
                Level::Debug => tracing::debug!(target: "nsqd", kind, "{line}"),
                Level::Info => tracing::info!(target: "nsqd", kind, "{line}"),
                Level::Warn => tracing::warn!(target: "nsqd", kind, "{line}"),
                Level::Error | Level::Fatal => tracing::error!(target: "nsqd", kind, "{line}"),
            },
            Self::Nsqlookupd => match level {
                Level::Debug => tracing::debug!(target: "nsqlookupd", kind, "{line}"),
                Level::Info => tracing::info!(target: "nsqlookupd", kind, "{line}"),
                Level::Warn => tracing::warn!(target: "nsqlookupd", kind, "{line}"),
                Level::Error | Level::Fatal => {
                    tracing::error!(target: "nsqlookupd", kind, "{line}");
                }
            },
        }
    }

    /// Writes many lines, each with its level and kind. Those of a start with many topics are
    /// within a span
    /// [`BATCH`]: whoever writes them may do so together, at its end.
    pub fn log_all<L: Display>(
        self,
        lines: impl ExactSizeIterator<Item = (Level, Option<&'static str>, L)>,
    ) {
        let _batch = (lines.len() >= BATCH_MIN).then(|| match self {
            Self::Nsqd => tracing::info_span!(target: "nsqd", BATCH).entered(),
            Self::Nsqlookupd => tracing::info_span!(target: "nsqlookupd", BATCH).entered(),
        });
        for (level, kind, line) in lines {
            self.log_kind(level, kind, line);
        }
    }

    /// Writes one line at INFO.
    pub fn info(self, line: impl Display) {
        self.log(Level::Info, line);
    }
}

/// Lines of this process's log that were not written, for `/metrics`. Whoever writes the log counts
/// them.
#[derive(Debug, Default)]
pub struct Unwritten {
    lost: AtomicU64,
    left_out: AtomicU64,
}

impl Unwritten {
    /// So many lines were lost because whoever takes the log did not take them in time.
    pub fn note_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// A line was left out because there were too many of its kind.
    pub fn note_left_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines that were lost, and those that were left out.
    pub fn counts(&self) -> (u64, u64) {
        (self.lost.load(Ordering::Relaxed), self.left_out.load(Ordering::Relaxed))
    }
}

/// Of the log of this process, which has one.
pub static UNWRITTEN: Unwritten =
    Unwritten { lost: AtomicU64::new(0), left_out: AtomicU64::new(0) };
