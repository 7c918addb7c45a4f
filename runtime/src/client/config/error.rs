//! Why settings were refused.

use core::fmt;

use sansq_core::client::InvalidOption;

/// A client's settings can't be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no option of this name.
    Unknown {
        /// The name as it was given.
        name: String,
        /// The option that it may be a misspelling of.
        nearest: Option<&'static str>,
    },
    /// A value is not one that the option can have.
    Invalid {
        /// The option.
        name: &'static str,
        /// The value as it was given, or as Go would write it; not if it is secret.
        value: String,
        /// What would be right, to be read behind "is not".
        expected: String,
    },
    /// A value does not go with that of another option.
    Conflict {
        /// The option.
        name: &'static str,
        /// What is expected of it, beginning with "must".
        reason: &'static str,
    },
    /// A file that an option names can't be read, or has not in it what it should.
    File {
        /// The option.
        name: &'static str,
        /// The file and what is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    /// The option that it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name, .. } => name,
            Self::Invalid { name, .. } | Self::Conflict { name, .. } | Self::File { name, .. } => {
                name
            }
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, nearest: None } => write!(f, "unknown option {name}"),
            Self::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "unknown option {name}; did you mean {nearest}?")
            }
            Self::Invalid { name, value, expected } => {
                write!(f, "{name}: {value:?} is not {expected}")
            }
            Self::Conflict { name, reason } => write!(f, "{name} {reason}"),
            Self::File { name, reason } => write!(f, "{name}: {reason}"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl From<InvalidOption> for ConfigError {
    fn from(InvalidOption { name, reason }: InvalidOption) -> Self {
        Self::Conflict { name, reason }
    }
}
