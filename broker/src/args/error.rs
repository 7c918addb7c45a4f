//! Why the command line or the config file was refused, in one line each.

use core::fmt;

/// The command line or the config file can't be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ArgsError {
    /// A flag's value is of the wrong type or out of range.
    BadValue {
        /// The flag's name, without dashes.
        flag: String,
        /// The value as given.
        value: String,
        /// What it has to be.
        expected: String,
    },
    /// The config file can't be read, is no TOML, or has a value that does not fit its key.
    Config {
        /// Its path.
        file: String,
        /// What is wrong, in one line.
        reason: String,
    },
    /// An argument is not UTF-8, or has dashes in the wrong places.
    Malformed(String),
    /// A flag that needs a value is the last argument.
    MissingValue {
        /// The flag's name, without dashes.
        flag: String,
        /// What the value has to be.
        expected: String,
    },
    /// There is no flag or subcommand of this name.
    Unknown {
        /// `flag` or `command`.
        what: &'static str,
        /// As given, without dashes.
        name: String,
        /// The known name that is most like it, if one is.
        nearest: Option<String>,
    },
}

impl ArgsError {
    /// The exit status: 2 for a usage error, 1 for a bad config file (http-and-ops.md section 6).
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Config { .. } => 1,
            Self::BadValue { .. }
            | Self::Malformed(_)
            | Self::MissingValue { .. }
            | Self::Unknown { .. } => 2,
        }
    }
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadValue { flag, value, expected } => {
                write!(f, "flag --{flag}: {value:?} is not {expected}")
            }
            Self::Config { file, reason } => {
                write!(f, "failed to load config file {file} - {reason}")
            }
            Self::Malformed(argument) => write!(f, "bad flag syntax: {argument}"),
            Self::MissingValue { flag, expected } => {
                write!(f, "flag --{flag} needs {expected} behind it")
            }
            Self::Unknown { what, name, nearest } => {
                let dashes = if *what == "flag" { "--" } else { "" };
                write!(f, "unknown {what} {dashes}{name}")?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean {dashes}{nearest}?"),
                    None => f.write_str("; --help lists what there is"),
                }
            }
        }
    }
}

impl core::error::Error for ArgsError {}
