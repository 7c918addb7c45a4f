//! The options by name: how each is read, and within which bounds.

use core::fmt::Display;
use core::net::IpAddr;
use core::str::FromStr;
use core::time::Duration;
use std::path::PathBuf;

use sansq_core::client::Secret;
use sansq_core::duration::go_duration;

use super::text::{self, Word};
use super::{Config, ConfigError};
use crate::nearest;

impl Config {
    /// The names of all options that [`set`](Self::set) takes, go-nsq's first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OPTIONS.iter().map(|option| option.name)
    }

    /// Sets one option from text, as go-nsq does; in `name` hyphens count as underscores. Durations
    /// are in Go's form or in whole milliseconds, `true` is also `1` and `t`, an empty text is
    /// "none" where there is such a thing.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no such option, or it can't have this value; nothing is changed
    /// then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let canonical = name.replace('-', "_");
        match OPTIONS.iter().find(|option| option.name == canonical) {
            Some(option) => (option.set)(self, option.name, value),
            None => {
                let nearest = nearest(&canonical, Self::names());
                Err(ConfigError::Unknown { name: name.into(), nearest })
            }
        }
    }

    /// Checks the bounds of all options and whether they go together. Files are not looked at.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        for option in OPTIONS {
            (option.check)(self, option.name)?;
        }
        let conflict = |name, reason| Err(ConfigError::Conflict { name, reason });
        if self.heartbeat_interval.is_some_and(|interval| interval > self.read_timeout) {
            return conflict("heartbeat_interval", "must not be above read_timeout");
        }
        if self.snappy && self.deflate {
            return conflict("snappy", "must not be asked for together with deflate");
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            let (name, reason) = if self.tls_cert.is_some() {
                ("tls_cert", "must come with tls_key")
            } else {
                ("tls_key", "must come with tls_cert")
            };
            return conflict(name, reason);
        }
        if self.redial_max < self.redial_min {
            return conflict("redial_max", "must be at least redial_min");
        }
        Ok(())
    }
}

/// One option.
struct Entry {
    name: &'static str,
    set: fn(&mut Config, &'static str, &str) -> Result<(), ConfigError>,
    check: fn(&Config, &'static str) -> Result<(), ConfigError>,
}

macro_rules! options {
    ($($field:ident: $kind:expr,)*) => {
        &[$(Entry {
            name: stringify!($field),
            set: |config, name, text| {
                config.$field = $kind.parse(name, text)?;
                Ok(())
            },
            check: |config, name| $kind.check(name, &config.$field),
        }),*]
    };
}

const OPTIONS: &[Entry] = options! {
    dial_timeout: Time::AT_LEAST_1_MS,
    read_timeout: Time(millis(100), minutes(5)),
    write_timeout: Time(millis(100), minutes(5)),
    local_addr: Address,
    lookupd_poll_interval: Time(millis(10), minutes(5)),
    lookupd_poll_jitter: Fraction,
    lookupd_poll_timeout: Time::AT_LEAST_1_MS,
    max_requeue_delay: Time(millis(0), minutes(60)),
    default_requeue_delay: Time(millis(0), minutes(60)),
    backoff_strategy: OneOf,
    max_backoff_duration: Time(millis(0), minutes(60)),
    backoff_multiplier: Time(millis(0), minutes(60)),
    max_attempts: Whole(0, u16::MAX),
    low_rdy_idle_timeout: Time(millis(1000), minutes(5)),
    low_rdy_timeout: Time(millis(1000), minutes(5)),
    rdy_redistribute_interval: Time(millis(1), millis(5000)),
    client_id: Text,
    hostname: Text,
    user_agent: Text,
    topology_region: Text,
    topology_zone: Text,
    heartbeat_interval: TimeOrOff(millis(1)),
    sample_rate: Whole(0, 99),
    tls_v1: Switch,
    tls_root_ca_file: File,
    tls_insecure_skip_verify: Switch,
    tls_cert: File,
    tls_key: File,
    tls_min_version: OneOf,
    deflate: Switch,
    deflate_level: Whole(1, 9),
    snappy: Switch,
    output_buffer_size: BytesOrOff,
    output_buffer_timeout: TimeOrOff(millis(0)),
    max_in_flight: Whole(0, u32::MAX),
    msg_timeout: Time(millis(0), Duration::MAX),
    max_msg_size: Whole(0, FRAME_SIZE_MAX),
    auth_secret: Hidden,
    skip_lookupd_authorization: Switch,
    publish_timeout: Time::AT_LEAST_1_MS,
    close_timeout: Time(millis(0), Duration::MAX),
    max_outstanding: Whole(1, usize::MAX),
    max_outstanding_bytes: Whole(0, usize::MAX),
    retry: OneOf,
    max_body_size: Whole(1, FRAME_SIZE_MAX),
    linger: Time(millis(0), millis(5)),
    max_req_timeout: Time(millis(0), Duration::MAX),
    handshake_timeout: Time::AT_LEAST_1_MS,
    auto_touch: Switch,
    rdy_shares: OneOf,
    backoff_scope: OneOf,
    redial_min: Time::AT_LEAST_1_MS,
    redial_max: Time::AT_LEAST_1_MS,
    tls_server_name: Text,
    upgrade_required: Switch,
};

/// The longest that the protocol's lengths can say.
const FRAME_SIZE_MAX: u32 = i32::MAX as u32;

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// What sort of value an option has.
trait Kind<T> {
    /// Reads a value, in its bounds or not.
    fn read(&self, text: &str) -> Option<T>;
    /// What would be right, to be read behind "is not".
    fn expected(&self) -> String;
    /// Whether a value is within its bounds.
    fn holds(&self, _value: &T) -> bool {
        true
    }
    /// A value as it is written.
    fn show(&self, _value: &T) -> String {
        String::new()
    }

    fn parse(&self, name: &'static str, text: &str) -> Result<T, ConfigError> {
        self.read(text).filter(|value| self.holds(value)).ok_or_else(|| ConfigError::Invalid {
            name,
            value: text.into(),
            expected: self.expected(),
        })
    }

    fn check(&self, name: &'static str, value: &T) -> Result<(), ConfigError> {
        if self.holds(value) {
            return Ok(());
        }
        Err(ConfigError::Invalid { name, value: self.show(value), expected: self.expected() })
    }
}

/// A duration from the first to the second.
struct Time(Duration, Duration);

impl Time {
    const AT_LEAST_1_MS: Self = Self(millis(1), Duration::MAX);
}

impl Kind<Duration> for Time {
    fn read(&self, text: &str) -> Option<Duration> {
        text::read_duration(text)
    }

    fn expected(&self) -> String {
        let Self(least, most) = self;
        match (*least, *most) {
            (Duration::ZERO, Duration::MAX) => text::DURATION.into(),
            (least, Duration::MAX) => format!("a duration of at least {}", go_duration(least)),
            (least, most) => {
                format!("a duration from {} to {}", go_duration(least), go_duration(most))
            }
        }
    }

    fn holds(&self, value: &Duration) -> bool {
        (self.0..=self.1).contains(value)
    }

    fn show(&self, value: &Duration) -> String {
        go_duration(*value).to_string()
    }
}

/// A duration that is at least this, or -1.
struct TimeOrOff(Duration);

impl Kind<Option<Duration>> for TimeOrOff {
    fn read(&self, text: &str) -> Option<Option<Duration>> {
        text::read_duration_or_off(text)
    }

    fn expected(&self) -> String {
        format!("a duration of at least {}, or -1", go_duration(self.0))
    }

    fn holds(&self, value: &Option<Duration>) -> bool {
        value.is_none_or(|value| value >= self.0)
    }

    fn show(&self, value: &Option<Duration>) -> String {
        value.map_or_else(|| "-1".into(), |value| go_duration(value).to_string())
    }
}

/// A whole number from the first to the second.
struct Whole<N>(N, N);

impl<N: Copy + Display + FromStr + PartialOrd> Kind<N> for Whole<N> {
    fn read(&self, text: &str) -> Option<N> {
        text.parse().ok()
    }

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }

    fn holds(&self, value: &N) -> bool {
        (self.0..=self.1).contains(value)
    }

    fn show(&self, value: &N) -> String {
        value.to_string()
    }
}

struct BytesOrOff;

impl Kind<Option<u32>> for BytesOrOff {
    fn read(&self, text: &str) -> Option<Option<u32>> {
        text::read_bytes_or_off(text)
    }

    fn expected(&self) -> String {
        "a number of bytes, or -1".into()
    }
}

/// From 0 to 1.
struct Fraction;

impl Kind<f64> for Fraction {
    fn read(&self, text: &str) -> Option<f64> {
        text.parse().ok()
    }

    fn expected(&self) -> String {
        "a number from 0 to 1".into()
    }

    fn holds(&self, value: &f64) -> bool {
        (0.0..=1.0).contains(value)
    }

    fn show(&self, value: &f64) -> String {
        value.to_string()
    }
}

struct Switch;

impl Kind<bool> for Switch {
    fn read(&self, text: &str) -> Option<bool> {
        text::read_bool(text)
    }

    fn expected(&self) -> String {
        "true or false".into()
    }
}

struct Text;

impl Kind<String> for Text {
    fn read(&self, text: &str) -> Option<String> {
        Some(text.into())
    }

    fn expected(&self) -> String {
        "a text".into()
    }
}

struct File;

impl Kind<Option<PathBuf>> for File {
    fn read(&self, text: &str) -> Option<Option<PathBuf>> {
        Some((!text.is_empty()).then(|| text.into()))
    }

    fn expected(&self) -> String {
        "a path".into()
    }
}

struct Address;

impl Kind<Option<IpAddr>> for Address {
    fn read(&self, text: &str) -> Option<Option<IpAddr>> {
        text::read_address(text)
    }

    fn expected(&self) -> String {
        text::ADDRESS.into()
    }
}

/// A secret, which no error shows.
struct Hidden;

impl Kind<Option<Secret>> for Hidden {
    fn read(&self, text: &str) -> Option<Option<Secret>> {
        Some(text::read_secret(text))
    }

    fn expected(&self) -> String {
        format!("a secret of up to {SECRET_LEN_MAX} bytes")
    }

    fn holds(&self, value: &Option<Secret>) -> bool {
        value.as_ref().is_none_or(|secret| (1..=SECRET_LEN_MAX).contains(&secret.expose().len()))
    }

    fn show(&self, _: &Option<Secret>) -> String {
        "(secret)".into()
    }

    fn parse(&self, name: &'static str, text: &str) -> Result<Option<Secret>, ConfigError> {
        let secret = text::read_secret(text);
        self.check(name, &secret)?;
        Ok(secret)
    }
}

/// The longest secret that is sent.
const SECRET_LEN_MAX: usize = 64 * 1024;

/// One of a few words.
struct OneOf;

impl<W: Word> Kind<W> for OneOf {
    fn read(&self, text: &str) -> Option<W> {
        W::read(text)
    }

    fn expected(&self) -> String {
        W::expected()
    }
}
