//! What is worth a line in the log about a queue on disk.

use core::fmt;

use crate::log::Level;
use crate::storage::Failure;

/// Something happened to a queue on disk; the `Display` is what follows the queue's name in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DiskEvent {
    /// The disk does not do what it is asked; it is asked again. Once per change of state.
    Failing(Failure),
    /// It does again.
    Recovered,
}

impl DiskEvent {
    /// How loud the line is.
    pub const fn level(&self) -> Level {
        match self {
            Self::Failing(_) => Level::Error,
            Self::Recovered => Level::Info,
        }
    }
}

impl fmt::Display for DiskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing(failure) => failure.fmt(f),
            Self::Recovered => f.write_str("the disk works again"),
        }
    }
}
