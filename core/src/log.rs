//! How loud a line of the log is. The machines report *events*; their `Display` is the reference's
//! text.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// The level of a log line, quietest last.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// For people who look into one connection.
    Debug,
    /// What an operator wants to have seen.
    Info,
    /// Something is wrong and sansq copes with it.
    Warn,
    /// Something failed for somebody.
    Error,
    /// The program ends.
    Fatal,
}

impl Level {
    const ALL: [Self; 5] = [Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// The level that `word` names: debug, info, warn, error or fatal, in any letter case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word().eq_ignore_ascii_case(word))
    }

    /// The word by which flags and the config file name it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The number by which `/config/log_level` names it, from 1 for debug to 5 for fatal
    /// (http-and-ops.md section 2.9).
    pub const fn number(self) -> u8 {
        match self {
            Self::Debug => 1,
            Self::Info => 2,
            Self::Warn => 3,
            Self::Error => 4,
            Self::Fatal => 5,
        }
    }
}

impl fmt::Display for Level {
    /// The word in NSQ's log lines (http-and-ops.md section 7).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARNING",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        })
    }
}

/// The beginning of what a peer sent, for the log: up to `max` bytes, and how many more there are.
pub fn beginning(bytes: &[u8], max: usize) -> String {
    let Some(beginning) = bytes.get(..max).filter(|_| bytes.len() > max) else {
        return String::from_utf8_lossy(bytes).into_owned();
    };
    let left = Count(bytes.len() - max, "byte");
    format!("{}… ({left} more)", String::from_utf8_lossy(beginning))
}

/// How many there are of something, whose plural ends in an s: `1 connection`, `2 connections`.
#[derive(Clone, Copy, Debug)]
pub struct Count<N>(pub N, pub &'static str);

impl<N: Copy + fmt::Display + From<u8> + PartialEq> fmt::Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, thing) = *self;
        let plural = if number == N::from(1) { "" } else { "s" };
        write!(f, "{number} {thing}{plural}")
    }
}

/// How much of a body that a peer sent is shown in the log.
pub const SHOWN_LEN_MAX: usize = 1024;

/// Shows text of a peer on one line: control characters as escapes, so that it cannot forge a line.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(beginning(b"abc", 3), "abc");
        assert_eq!(beginning(b"abcde", 3), "abc… (2 bytes more)");
        assert_eq!(beginning("ä".as_bytes(), 1), "\u{fffd}… (1 byte more)");
    }

    #[test]
    fn one_is_singular() {
        let counts = [0_u64, 1, 2].map(|number| Count(number, "line").to_string());
        assert_eq!(counts, ["0 lines", "1 line", "2 lines"]);
    }
}
