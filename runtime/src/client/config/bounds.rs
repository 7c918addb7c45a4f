//! The options by name: how they are set, and within which bounds.

use core::fmt::Display;
use core::ops::{RangeFrom, RangeFull, RangeInclusive};
use core::time::Duration;

use sansq_core::client::Secret;
use sansq_core::duration::go_duration;

use super::{Config, ConfigError, text};
use crate::nearest;

impl Config {
    /// The names of all options that [`set`](Self::set) takes, go-nsq's first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        text::fields::<Self>().iter().copied()
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
        let Some(option) = Self::names().find(|known| *known == canonical) else {
            let nearest = nearest(&canonical, Self::names());
            return Err(ConfigError::Unknown { name: name.into(), nearest });
        };
        let invalid =
            |expected| ConfigError::Invalid { name: option, value: value.into(), expected };
        let read: Self = text::read(option, value).map_err(|expected| {
            invalid(Self::default().judge(option).expected.unwrap_or(expected))
        })?;
        match read.judge(option) {
            Judgement { is_within: true, .. } => self.take(option, read),
            _ if option == "auth_secret" => read.check_bounds(option)?,
            Judgement { expected, .. } => return Err(invalid(expected.unwrap_or_default())),
        }
        Ok(())
    }

    /// Checks the bounds of all options and whether they go together. Files are not looked at.
    ///
    /// # Errors
    /// [`ConfigError`] for the first that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        for name in Self::names() {
            self.check_bounds(name)?;
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

    fn check_bounds(&self, name: &'static str) -> Result<(), ConfigError> {
        let Judgement { is_within, value, expected } = self.judge(name);
        let invalid =
            || ConfigError::Invalid { name, value, expected: expected.unwrap_or_default() };
        if is_within { Ok(()) } else { Err(invalid()) }
    }
}

/// An option's value, and what is expected of it apart from its type.
struct Judgement {
    is_within: bool,
    /// As it is written.
    value: String,
    expected: Option<String>,
}

macro_rules! options {
    ($($bounds:expr => $($field:ident),+;)*) => {
        impl Config {
            /// Takes one option over.
            fn take(&mut self, name: &str, from: Self) {
                match name {
                    $($(stringify!($field) => self.$field = from.$field,)+)*
                    _ => {}
                }
            }

            fn judge(&self, name: &str) -> Judgement {
                match name {
                    $($(stringify!($field) => $bounds.judge(&self.$field),)+)*
                    _ => (..).judge(&()),
                }
            }
        }
    };
}

options! {
    (millis(1)..) => dial_timeout, lookupd_poll_timeout, heartbeat_interval, publish_timeout,
        handshake_timeout, redial_min, redial_max;
    (millis(100)..=minutes(5)) => read_timeout, write_timeout;
    (millis(10)..=minutes(5)) => lookupd_poll_interval;
    (0.0..=1.0) => lookupd_poll_jitter;
    (millis(0)..=minutes(60)) => max_requeue_delay, default_requeue_delay, max_backoff_duration,
        backoff_multiplier;
    (millis(1000)..=minutes(5)) => low_rdy_idle_timeout, low_rdy_timeout;
    (millis(1)..=millis(5000)) => rdy_redistribute_interval;
    (0..=99) => sample_rate;
    (1..=9) => deflate_level;
    (millis(0)..) => output_buffer_timeout;
    (0..=FRAME_SIZE_MAX) => max_msg_size;
    (1..=FRAME_SIZE_MAX) => max_body_size;
    (1..=usize::MAX) => max_outstanding;
    (millis(0)..=millis(5)) => linger;
    SecretLen => auth_secret;
    (..) => local_addr, backoff_strategy, max_attempts, client_id, hostname, user_agent,
        topology_region, topology_zone, tls_v1, tls_root_ca_file, tls_insecure_skip_verify,
        tls_cert, tls_key, tls_min_version, deflate, snappy, output_buffer_size, max_in_flight,
        msg_timeout, skip_lookupd_authorization, close_timeout, max_outstanding_bytes, retry,
        max_req_timeout, auto_touch, rdy_shares, backoff_scope, tls_server_name, upgrade_required;
}

/// The longest that the protocol's lengths can say.
const FRAME_SIZE_MAX: u32 = i32::MAX as u32;

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Which values an option may have.
trait Bounds<T> {
    fn judge(&self, value: &T) -> Judgement;
}

/// All that its type has.
impl<T> Bounds<T> for RangeFull {
    fn judge(&self, _: &T) -> Judgement {
        Judgement { is_within: true, value: String::new(), expected: None }
    }
}

impl<T: Quantity> Bounds<T> for RangeFrom<T> {
    fn judge(&self, value: &T) -> Judgement {
        let expected = format!("{} of at least {}", T::NAME, self.start.show());
        let is_within = self.contains(value);
        Judgement { is_within, value: value.show().to_string(), expected: Some(expected) }
    }
}

impl<T: Quantity> Bounds<T> for RangeInclusive<T> {
    fn judge(&self, value: &T) -> Judgement {
        let (least, most) = (self.start().show(), self.end().show());
        let expected = format!("{} from {least} to {most}", T::NAME);
        let is_within = self.contains(value);
        Judgement { is_within, value: value.show().to_string(), expected: Some(expected) }
    }
}

/// What can be off.
impl<T: Quantity> Bounds<Option<T>> for RangeFrom<T> {
    fn judge(&self, value: &Option<T>) -> Judgement {
        let Judgement { is_within, value: shown, expected } =
            self.judge(value.as_ref().unwrap_or(&self.start));
        Judgement { is_within, value: shown, expected: expected.map(|text| text + ", or -1") }
    }
}

/// What has a size.
trait Quantity: PartialOrd {
    const NAME: &'static str;

    fn show(&self) -> impl Display;
}

macro_rules! quantities {
    ($($kind:ty: $name:literal, $show:expr;)*) => {
        $(impl Quantity for $kind {
            const NAME: &'static str = $name;

            fn show(&self) -> impl Display {
                $show(*self)
            }
        })*
    };
}

quantities! {
    Duration: "a duration", go_duration;
    f64: "a number", core::convert::identity;
    u8: "a whole number", core::convert::identity;
    u32: "a whole number", core::convert::identity;
    usize: "a whole number", core::convert::identity;
}

/// The bounds of the secret, which no error shows.
struct SecretLen;

impl Bounds<Option<Secret>> for SecretLen {
    fn judge(&self, secret: &Option<Secret>) -> Judgement {
        let fits = |secret: &Secret| (1..=SECRET_LEN_MAX).contains(&secret.expose().len());
        Judgement {
            is_within: secret.as_ref().is_none_or(fits),
            value: "(secret)".into(),
            expected: Some(format!("a secret of up to {SECRET_LEN_MAX} bytes")),
        }
    }
}

/// The longest secret that is sent.
const SECRET_LEN_MAX: usize = 64 * 1024;
