//! Values as they are written: in files by serde, and on command lines.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use sansq_core::client::{BackoffScope, BackoffStrategy, RdyShares, RetryPolicy, Secret};
use sansq_core::duration::{go_duration, parse_go_duration};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

use crate::tls::MinVersion;

/// A value that is one of a few words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// The words. Of several for one value the first is written.
    const WORDS: &'static [(&'static str, Self)];

    fn read(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| *word)
    }

    /// What would be right.
    fn expected() -> String {
        let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        format!("one of {}", words.join(", "))
    }
}

impl Word for BackoffStrategy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("exponential", Self::Exponential), ("full_jitter", Self::FullJitter)];
}

impl Word for BackoffScope {
    const WORDS: &'static [(&'static str, Self)] =
        &[("consumer", Self::Consumer), ("connection", Self::Connection)];
}

impl Word for RdyShares {
    const WORDS: &'static [(&'static str, Self)] = &[("equal", Self::Equal), ("rate", Self::Rate)];
}

impl Word for RetryPolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("never", Self::Never), ("not_stored", Self::NotStored), ("always", Self::Always)];
}

impl Word for MinVersion {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tls1.2", Self::Tls12),
        ("tls1.3", Self::Tls13),
        ("tls1.1", Self::Tls12),
        ("tls1.0", Self::Tls12),
        ("ssl3.0", Self::Tls12),
    ];
}

/// A duration in Go's form, or in whole milliseconds.
pub(super) fn read_duration(text: &str) -> Option<Duration> {
    if let Ok(millis) = text.parse() {
        return Some(Duration::from_millis(millis));
    }
    parse_go_duration(text).ok()
}

/// The same, or what go-nsq takes for "off".
pub(super) fn read_duration_or_off(text: &str) -> Option<Option<Duration>> {
    match text {
        "-1" | "-1ms" => Some(None),
        _ => read_duration(text).map(Some),
    }
}

pub(super) fn read_bytes_or_off(text: &str) -> Option<Option<u32>> {
    if text == "-1" { Some(None) } else { text.parse().ok().map(Some) }
}

/// As Go reads them.
pub(super) fn read_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// An IP address, with a port that leaves the choice to the system, or without.
pub(super) fn read_address(text: &str) -> Option<Option<IpAddr>> {
    if text.is_empty() {
        return Some(None);
    }
    let with_port = || text.parse::<SocketAddr>().ok().filter(|address| address.port() == 0);
    text.parse().ok().or_else(|| with_port().map(|address| address.ip())).map(Some)
}

/// An empty one is none.
pub(super) fn read_secret(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text))
}

pub(super) const DURATION: &str = "a duration like 1m30s, or whole milliseconds";
pub(super) const ADDRESS: &str = "an IP address, with port 0 or without a port";

/// Takes a text or a whole number, which `read` gets as text.
struct Written<T> {
    read: fn(&str) -> Option<T>,
    expected: &'static str,
}

impl<T> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let invalid = || E::custom(format_args!("{text:?} is not {}", self.expected));
        (self.read)(text).ok_or_else(invalid)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

pub(super) mod duration {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&go_duration(*value))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Written { read: read_duration, expected: DURATION })
    }
}

pub(super) mod duration_or_off {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(&go_duration(*value)),
            None => serializer.serialize_i64(-1),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        deserializer.deserialize_any(Written { read: read_duration_or_off, expected: DURATION })
    }
}

pub(super) mod bytes_or_off {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<u32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(value.map_or(-1, i64::from))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u32>, D::Error> {
        let expected = "a number of bytes, or -1";
        deserializer.deserialize_any(Written { read: read_bytes_or_off, expected })
    }
}

pub(super) mod address {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<IpAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpAddr>, D::Error> {
        deserializer.deserialize_any(Written { read: read_address, expected: ADDRESS })
    }
}

pub(super) mod word {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer, W: Word>(
        value: &W,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.word())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, W: Word>(
        deserializer: D,
    ) -> Result<W, D::Error> {
        let text = String::deserialize(deserializer)?;
        let invalid = || D::Error::custom(format_args!("{text:?} is not {}", W::expected()));
        W::read(&text).ok_or_else(invalid)
    }
}

pub(super) mod secret {
    use super::*;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        String::deserialize(deserializer).map(|text| read_secret(&text))
    }
}
