//! The negotiation: what comes of a client's IDENTIFY, and what it is answered
//! (nsqd-protocol.md section 8).

use alloc::string::String;
use core::time::Duration;

use serde::Serialize;

use crate::nsqd::config::{Config, HEARTBEAT_INTERVAL_DEFAULT, OUTPUT_BUFFER_SIZE_DEFAULT};
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::protocol::identify::Identify;
use crate::protocol::json;
use crate::version::{NSQ_VERSION, SANSQ_VERSION};

/// What is in force on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::nsqd) struct Settings {
    /// `None` if heartbeats are off.
    pub(in crate::nsqd) heartbeat_interval: Option<Duration>,
    /// Bytes; an upper bound, since sansq writes out whenever it has nothing more to add.
    pub(in crate::nsqd) output_buffer_size: usize,
    /// An upper bound likewise.
    pub(in crate::nsqd) output_buffer_timeout: Duration,
    /// Percent of the channel's messages; 0 for all.
    pub(in crate::nsqd) sample_rate: u8,
    /// How long a delivered message may stay unanswered.
    pub(in crate::nsqd) msg_timeout: Duration,
}

impl Settings {
    /// What is in force before any IDENTIFY.
    pub(in crate::nsqd) const fn new(config: &Config) -> Self {
        Self {
            heartbeat_interval: Some(HEARTBEAT_INTERVAL_DEFAULT),
            output_buffer_size: OUTPUT_BUFFER_SIZE_DEFAULT,
            output_buffer_timeout: config.output_buffer_timeout,
            sample_rate: 0,
            msg_timeout: config.msg_timeout,
        }
    }

    /// Applies what a client asks for, field by field in the reference's order.
    ///
    /// # Errors
    /// `E_BAD_BODY IDENTIFY … is invalid` for the first field out of range.
    pub(in crate::nsqd) fn apply(
        &mut self,
        identify: &Identify,
        config: &Config,
    ) -> Result<(), ProtocolError> {
        match identify.heartbeat_interval {
            -1 => self.heartbeat_interval = None,
            0 => {}
            ms if in_range(ms, Duration::from_secs(1), config.max_heartbeat_interval) => {
                self.heartbeat_interval = Some(Duration::from_millis(ms as u64));
            }
            ms => return Err(invalid("heartbeat interval", ms)),
        }
        let (min, max) = (config.min_output_buffer_timeout, config.max_output_buffer_timeout);
        match identify.output_buffer_timeout {
            -1 => self.output_buffer_timeout = Duration::ZERO,
            0 => {}
            ms if in_range(ms, min, max) => {
                self.output_buffer_timeout = Duration::from_millis(ms as u64);
            }
            ms => return Err(invalid("output buffer timeout", ms)),
        }
        match identify.output_buffer_size {
            -1 => (self.output_buffer_size, self.output_buffer_timeout) = (1, Duration::ZERO),
            0 => {}
            size if size >= 64 && size as u64 <= config.max_output_buffer_size as u64 => {
                self.output_buffer_size = size as usize;
            }
            size => return Err(invalid("output buffer size", size)),
        }
        match u8::try_from(identify.sample_rate) {
            Ok(rate @ 0..=99) => self.sample_rate = rate,
            _ => return Err(invalid("sample rate", identify.sample_rate)),
        }
        match identify.msg_timeout {
            0 => {}
            ms if in_range(ms, Duration::from_secs(1), config.max_msg_timeout) => {
                self.msg_timeout = Duration::from_millis(ms as u64);
            }
            ms => return Err(invalid("msg timeout", ms)),
        }
        Ok(())
    }

    /// The JSON answer to a client that negotiates (section 8.3), keys in the reference's order,
    /// then sansq's own version. `upgrades` are what comes next.
    pub(in crate::nsqd) fn answer(&self, upgrades: &Upgrades, config: &Config) -> String {
        json::encode(&Answer {
            max_rdy_count: config.max_rdy_count,
            version: NSQ_VERSION,
            max_msg_timeout: config.max_msg_timeout.as_millis(),
            msg_timeout: self.msg_timeout.as_millis(),
            tls_v1: upgrades.tls,
            deflate: upgrades.deflate,
            deflate_level: upgrades.deflate_level,
            max_deflate_level: config.max_deflate_level,
            snappy: upgrades.snappy,
            sample_rate: self.sample_rate,
            auth_required: config.is_auth_enabled(),
            output_buffer_size: self.output_buffer_size,
            output_buffer_timeout: self.output_buffer_timeout.as_millis(),
            topology_region: &config.topology_region,
            topology_zone: &config.topology_zone,
            sansq_version: SANSQ_VERSION,
        })
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    max_rdy_count: u32,
    version: &'static str,
    max_msg_timeout: u128,
    msg_timeout: u128,
    tls_v1: bool,
    deflate: bool,
    deflate_level: u8,
    max_deflate_level: u8,
    snappy: bool,
    sample_rate: u8,
    auth_required: bool,
    output_buffer_size: usize,
    output_buffer_timeout: u128,
    topology_region: &'a str,
    topology_zone: &'a str,
    sansq_version: &'static str,
}

/// What happens to a connection behind the answer to its IDENTIFY, in this order (section 8.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::nsqd) struct Upgrades {
    /// TLS.
    pub(in crate::nsqd) tls: bool,
    /// Snappy.
    pub(in crate::nsqd) snappy: bool,
    /// Deflate.
    pub(in crate::nsqd) deflate: bool,
    /// The level of Deflate, whether or not it comes: 1 to 9.
    pub(in crate::nsqd) deflate_level: u8,
}

impl Upgrades {
    /// No upgrades.
    pub(in crate::nsqd) fn none(config: &Config) -> Self {
        let deflate_level = DEFLATE_LEVEL_DEFAULT.min(config.max_deflate_level);
        Self { tls: false, snappy: false, deflate: false, deflate_level }
    }

    /// What a client asks for, as far as this server has it.
    ///
    /// # Errors
    /// `E_IDENTIFY_FAILED` if that is both Snappy and Deflate.
    pub(in crate::nsqd) fn asked(
        identify: &Identify,
        config: &Config,
    ) -> Result<Self, ProtocolError> {
        let none = Self::none(config);
        if !identify.feature_negotiation || !cfg!(feature = "upgrade") {
            return Ok(none);
        }
        let (snappy, deflate) =
            (identify.snappy && config.snappy, identify.deflate && config.deflate);
        if snappy && deflate {
            let text = *b"cannot enable both deflate and snappy compression";
            return Err(ProtocolError::new(ErrorCode::IdentifyFailed, text));
        }
        let deflate_level = match u8::try_from(identify.deflate_level) {
            Ok(level) if deflate && level > 0 => level.min(config.max_deflate_level),
            Err(_) if deflate && identify.deflate_level > 0 => config.max_deflate_level,
            _ => none.deflate_level,
        };
        Ok(Self { tls: identify.tls_v1 && config.has_tls(), snappy, deflate, deflate_level })
    }

    /// Whether there are any.
    pub(in crate::nsqd) const fn any(&self) -> bool {
        self.tls || self.snappy || self.deflate
    }
}

/// The deflate level of a client that names none.
const DEFLATE_LEVEL_DEFAULT: u8 = 6;

fn in_range(ms: i64, min: Duration, max: Duration) -> bool {
    u64::try_from(ms).is_ok_and(|ms| (min..=max).contains(&Duration::from_millis(ms)))
}

fn invalid(field: &str, value: i64) -> ProtocolError {
    let text = alloc::format!("IDENTIFY {field} ({value}) is invalid");
    ProtocolError::new(ErrorCode::BadBody, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn negotiate(body: &str) -> Result<Settings, String> {
        let config = Config::default();
        let mut settings = Settings::new(&config);
        let identify = Identify::decode(body.as_bytes()).map_err(|error| error.to_string())?;
        settings.apply(&identify, &config).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn borders_of_every_field() {
        let good = [
            "{}",
            "null",
            r#"{"heartbeat_interval":1000}"#,
            r#"{"heartbeat_interval":60000}"#,
            r#"{"heartbeat_interval":-1}"#,
            r#"{"output_buffer_size":64}"#,
            r#"{"output_buffer_size":65536}"#,
            r#"{"output_buffer_timeout":25}"#,
            r#"{"output_buffer_timeout":30000}"#,
            r#"{"msg_timeout":1000}"#,
            r#"{"msg_timeout":900000}"#,
            r#"{"sample_rate":99}"#,
        ];
        for body in good {
            assert!(negotiate(body).is_ok(), "{body}");
        }
        let bad = [
            (r#"{"heartbeat_interval":999}"#, "heartbeat interval (999)"),
            (r#"{"heartbeat_interval":60001}"#, "heartbeat interval (60001)"),
            (r#"{"heartbeat_interval":-2}"#, "heartbeat interval (-2)"),
            (r#"{"output_buffer_size":63}"#, "output buffer size (63)"),
            (r#"{"output_buffer_size":65537}"#, "output buffer size (65537)"),
            (r#"{"output_buffer_timeout":24}"#, "output buffer timeout (24)"),
            (r#"{"output_buffer_timeout":30001}"#, "output buffer timeout (30001)"),
            (r#"{"msg_timeout":999}"#, "msg timeout (999)"),
            (r#"{"msg_timeout":900001}"#, "msg timeout (900001)"),
            (r#"{"msg_timeout":-1}"#, "msg timeout (-1)"),
            (r#"{"sample_rate":100}"#, "sample rate (100)"),
            (r#"{"sample_rate":-1}"#, "sample rate (-1)"),
            // The first field in the order of the checks decides.
            (r#"{"msg_timeout":1,"heartbeat_interval":1}"#, "heartbeat interval (1)"),
            (r#"{"output_buffer_size":1,"output_buffer_timeout":1}"#, "output buffer timeout (1)"),
        ];
        for (body, text) in bad {
            let text = alloc::format!("E_BAD_BODY IDENTIFY {text} is invalid");
            assert_eq!(negotiate(body), Err(text), "{body}");
        }
        for body in [r#"{"sample_rate":4294967296}"#, r#"{"tls_v1":1}"#, r#"{"client_id":5}"#, "[]"]
        {
            let text = "E_BAD_BODY IDENTIFY failed to decode JSON body";
            assert_eq!(negotiate(body), Err(text.into()), "{body}");
        }
    }

    #[test]
    fn the_answer_shows_what_is_in_force() {
        let config = Config::default();
        let expected = "{\"max_rdy_count\":2500,\"version\":\"1.3.0\",\"max_msg_timeout\":900000,\
            \"msg_timeout\":60000,\"tls_v1\":false,\"deflate\":false,\"deflate_level\":6,\
            \"max_deflate_level\":6,\"snappy\":false,\"sample_rate\":0,\"auth_required\":false,\
            \"output_buffer_size\":16384,\"output_buffer_timeout\":250,\"topology_region\":\"\",\
            \"topology_zone\":\"\",\"sansq_version\":\"0.1.0\"}";
        assert_eq!(Settings::new(&config).answer(&Upgrades::none(&config), &config), expected);
        let unbuffered =
            negotiate(r#"{"output_buffer_size":-1,"output_buffer_timeout":500}"#).unwrap();
        assert_eq!(unbuffered.output_buffer_size, 1);
        assert_eq!(unbuffered.output_buffer_timeout, Duration::ZERO);
    }
}
