//! What the options are made of: NSQ's words as enums, and how clap reads numbers and durations.

use core::ops::RangeInclusive;
use core::time::Duration;

use clap::ValueEnum;
use sansq_core::duration::{go_duration, parse_go_duration};
use sansq_core::log::Level;
use serde::{Serialize, Serializer};

use super::nsqd::SHARDS_MAX;

/// Whom nsqd refuses without TLS (nsqd-protocol.md section 17). `/config` shows the number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(into = "u16")]
pub enum TlsRequired {
    /// Nobody.
    #[value(name = "false", aliases = ["0", "f"])]
    No = 0,
    /// Clients over TCP and over HTTP.
    #[value(name = "true", aliases = ["1", "t"])]
    Yes = 2,
    /// Clients over TCP; HTTP stays open.
    #[value(name = "tcp-https")]
    ExceptHttp = 1,
}

impl From<TlsRequired> for u16 {
    fn from(required: TlsRequired) -> Self {
        required as Self
    }
}

/// The oldest TLS version that nsqd accepts (nsqd-protocol.md section 17). `/config` shows its
/// number in TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(into = "u16")]
pub enum TlsVersion {
    /// TLS 1.0, the default; also what an empty text means.
    #[value(name = "tls1.0", alias = "")]
    Tls10 = 0x0301,
    /// TLS 1.1.
    #[value(name = "tls1.1")]
    Tls11 = 0x0302,
    /// TLS 1.2.
    #[value(name = "tls1.2")]
    Tls12 = 0x0303,
    /// TLS 1.3.
    #[value(name = "tls1.3")]
    Tls13 = 0x0304,
}

impl From<TlsVersion> for u16 {
    fn from(version: TlsVersion) -> Self {
        version as Self
    }
}

/// What drives the servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// tokio, one current-thread runtime per shard.
    Tokio,
    /// smol, one local executor per shard.
    Smol,
    /// async-std, which is no longer maintained; smol is what its authors point to.
    AsyncStd,
}

/// A level as `/config` shows it.
pub(super) fn level_number<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(level.number())
}

pub(super) fn whole(text: &str) -> Result<i64, String> {
    integer(text, i64::MIN..=i64::MAX)
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    integer(text, 0..=i64::MAX)
}

pub(super) fn positive(text: &str) -> Result<u64, String> {
    integer(text, 1..=i64::MAX)
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    integer(text, 0..=u16::MAX.into())
}

pub(super) fn shards(text: &str) -> Result<u16, String> {
    integer(text, 1..=SHARDS_MAX.into())
}

fn integer<T: TryFrom<i64>>(text: &str, range: RangeInclusive<i64>) -> Result<T, String> {
    let number = parse_int(text).filter(|number| range.contains(number));
    number.and_then(|number| number.try_into().ok()).ok_or_else(|| {
        match (range.start(), range.end()) {
            (&i64::MIN, _) => "it has to be a whole number".into(),
            (min, &i64::MAX) => format!("it has to be a whole number from {min} up"),
            (min, max) => format!("it has to be a whole number from {min} to {max}"),
        }
    })
}

/// A whole number the way NSQ's flags take it: decimal, or with the prefix `0x`, `0o`, `0b` or `0`;
/// with a prefix `_` may separate digits.
fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let digits: String = digits.chars().filter(|c| radix == 10 || *c != '_').collect();
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// A decimal number; a list of them may have blanks behind its commas.
pub(super) fn number(text: &str) -> Result<f64, &'static str> {
    text.trim().parse().map_err(|_| "it has to be a number such as 0.99")
}

pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_go_duration(text).map_err(|_| "it has to be a duration such as 250ms, 2s or 1h30m")
}

/// A duration above `limit`.
pub(super) fn longer_than(
    limit: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync {
    move |text| match duration(text)? {
        duration if duration > limit => Ok(duration),
        _ => Err(format!("it has to be more than {}", go_duration(limit))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        for (text, number) in [
            ("0", Some(0)),
            ("42", Some(42)),
            ("+42", Some(42)),
            ("-7", Some(-7)),
            ("0x10", Some(16)),
            ("0X1f", Some(31)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0b101", Some(5)),
            ("0xff_ff", Some(65_535)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1_000", None),
            ("many", None),
            ("1.0", None),
            ("", None),
            ("-", None),
            ("0x", None),
            ("--1", None),
            ("08", None),
            (" 1", None),
        ] {
            assert_eq!(parse_int(text), number, "{text}");
        }
    }

    #[test]
    fn numbers_keep_to_their_ranges() {
        assert_eq!((port("65535"), count("0x10")), (Ok(65_535), Ok(16)));
        for (refused, range) in [
            (port("65536").map(u64::from), "0 to 65535"),
            (port("-1").map(u64::from), "0 to 65535"),
            (shards("0").map(u64::from), "1 to 256"),
            (shards("257").map(u64::from), "1 to 256"),
            (positive("0"), "1 up"),
            (count("x"), "0 up"),
        ] {
            assert_eq!(refused, Err(format!("it has to be a whole number from {range}")));
        }
        assert_eq!(
            longer_than(Duration::from_secs(1))("1s"),
            Err("it has to be more than 1s".into())
        );
        assert_eq!(longer_than(Duration::from_secs(1))("1001ms"), Ok(Duration::from_millis(1_001)));
    }

    #[test]
    fn words() {
        for (text, required) in [
            ("TCP-HTTPS", TlsRequired::ExceptHttp),
            ("True", TlsRequired::Yes),
            ("0", TlsRequired::No),
        ] {
            assert_eq!(TlsRequired::from_str(text, true), Ok(required));
        }
        assert_eq!(TlsVersion::from_str("", true), Ok(TlsVersion::Tls10));
        assert!(TlsVersion::from_str("ssl3.0", true).is_err());
    }
}
