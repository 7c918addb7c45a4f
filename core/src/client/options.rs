//! What a client tells a server about itself, and how long it waits (clients.md section 1.3, part
//! 4).

use alloc::string::String;
use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;

use serde::Serialize;

use crate::protocol::json;
use crate::secret::Secret;
#[cfg(feature = "upgrade")]
use crate::upgrade::ClientTls;

/// The settings of one connection, with NSQ's names and go-nsq's defaults.
///
/// Fields of servers that do not know them are ignored there. The ranges of the negotiated ones are
/// the server's, so a value that it does not like comes back as
/// [`IdentifyRefused`](super::ConnectionError::IdentifyRefused).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionOptions {
    /// The name in the server's statistics; empty: `hostname` up to its first dot.
    pub client_id: String,
    /// The name of the machine. The core cannot know it: the runtime fills it in.
    pub hostname: String,
    /// The name and version of the client.
    pub user_agent: String,
    /// How often the server shows that it lives, in whole milliseconds; `None`: never, and then
    /// `read_timeout` does not apply either. Servers refuse to serve a consumer without heartbeats.
    pub heartbeat_interval: Option<Duration>,
    /// The size in bytes of the server's write buffer; `None`: no buffer.
    pub output_buffer_size: Option<u32>,
    /// How long the server may hold a message back in its buffer, in whole milliseconds; `None`: no
    /// limit but the buffer's size.
    pub output_buffer_timeout: Option<Duration>,
    /// How long a message may be in flight, in whole milliseconds; `None`: as the server is set.
    pub msg_timeout: Option<Duration>,
    /// The percentage of messages to receive; 0: all. The reference server sends one percent more
    /// than asked for (nsqd-protocol.md section 10.4).
    pub sample_rate: u8,
    /// The region of this client, for servers with the topology experiment.
    pub topology_region: String,
    /// The zone of this client, for servers with the topology experiment.
    pub topology_zone: String,
    /// What to authenticate with; sent only to a server that requires it.
    pub auth_secret: Option<Secret>,
    /// How long connecting may take.
    pub dial_timeout: Duration,
    /// How long IDENTIFY and AUTH together may take. Heartbeats do not extend it.
    pub handshake_timeout: Duration,
    /// How long the server may be silent; at least `heartbeat_interval`.
    pub read_timeout: Duration,
    /// The largest frame that is accepted, in bytes of its size field. A larger one closes the
    /// connection, so this must grow with the server's `--max-msg-size`.
    pub max_frame_size: usize,
    /// TLS and compression; nothing by default.
    #[cfg(feature = "upgrade")]
    pub upgrades: Upgrades,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            client_id: String::new(),
            hostname: String::new(),
            user_agent: USER_AGENT.into(),
            heartbeat_interval: Some(Duration::from_secs(30)),
            output_buffer_size: Some(16 * 1024),
            output_buffer_timeout: Some(Duration::from_millis(250)),
            msg_timeout: None,
            sample_rate: 0,
            topology_region: String::new(),
            topology_zone: String::new(),
            auth_secret: None,
            dial_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
            max_frame_size: MAX_FRAME_SIZE,
            #[cfg(feature = "upgrade")]
            upgrades: Upgrades::default(),
        }
    }
}

impl ConnectionOptions {
    /// Checks what no server would accept and what could never work.
    ///
    /// # Errors
    /// [`InvalidOption`] for the first value out of its range.
    pub fn check(&self) -> Result<(), InvalidOption> {
        let invalid = |name, reason| Err(InvalidOption { name, reason });
        if let Some(interval) = self.heartbeat_interval {
            if interval < Duration::from_millis(1) {
                return invalid("heartbeat_interval", "must be at least 1 ms, or off");
            }
            if interval > self.read_timeout {
                return invalid("heartbeat_interval", "must not be above read_timeout");
            }
        }
        if self.sample_rate > SAMPLE_RATE_MAX {
            return invalid("sample_rate", "must be 0 to 99");
        }
        if self.auth_secret.as_ref().is_some_and(|secret| !is_sendable(secret)) {
            return invalid("auth_secret", "must have 1 to 65536 bytes");
        }
        if self.dial_timeout.is_zero() {
            return invalid("dial_timeout", "must not be zero");
        }
        if self.handshake_timeout.is_zero() {
            return invalid("handshake_timeout", "must not be zero");
        }
        if !(FRAME_SIZE_LEAST..=i32::MAX as usize).contains(&self.max_frame_size) {
            return invalid("max_frame_size", "must be 4096 to 2147483647 bytes");
        }
        let asked = self.asked();
        if asked.snappy && asked.deflate.is_some() {
            return invalid("snappy", "must not be asked for together with deflate");
        }
        if asked.deflate.is_some_and(|level| !DEFLATE_LEVELS.contains(&level)) {
            return invalid("deflate_level", "must be 1 to 9");
        }
        Ok(())
    }

    #[cfg(feature = "upgrade")]
    pub(super) const fn asked(&self) -> Asked {
        let Upgrades { tls, snappy, deflate, required, .. } = &self.upgrades;
        Asked { tls: tls.is_some(), snappy: *snappy, deflate: *deflate, required: *required }
    }

    #[cfg(not(feature = "upgrade"))]
    pub(super) const fn asked(&self) -> Asked {
        Asked { tls: false, snappy: false, deflate: None, required: true }
    }

    /// The JSON body of IDENTIFY, with go-nsq's keys in go-nsq's order (clients.md section 1.2).
    pub fn identify_body(&self) -> String {
        let short = self.hostname.split('.').next().unwrap_or_default();
        let client_id = if self.client_id.is_empty() { short } else { &self.client_id };
        let asked = self.asked();
        json::encode(&IdentifyBody {
            client_id,
            deflate: asked.deflate.is_some(),
            deflate_level: asked.deflate.unwrap_or(DEFLATE_LEVEL),
            feature_negotiation: true,
            heartbeat_interval: millis_or_off(self.heartbeat_interval),
            hostname: &self.hostname,
            long_id: &self.hostname,
            msg_timeout: self.msg_timeout.map_or(0, millis),
            output_buffer_size: self.output_buffer_size.map_or(OFF, i64::from),
            output_buffer_timeout: millis_or_off(self.output_buffer_timeout),
            sample_rate: self.sample_rate,
            short_id: client_id,
            snappy: asked.snappy,
            tls_v1: asked.tls,
            topology_region: &self.topology_region,
            topology_zone: &self.topology_zone,
            user_agent: &self.user_agent,
        })
    }
}

#[derive(Serialize)]
struct IdentifyBody<'a> {
    client_id: &'a str,
    deflate: bool,
    deflate_level: u8,
    feature_negotiation: bool,
    heartbeat_interval: i64,
    hostname: &'a str,
    long_id: &'a str,
    msg_timeout: i64,
    output_buffer_size: i64,
    output_buffer_timeout: i64,
    sample_rate: u8,
    short_id: &'a str,
    snappy: bool,
    tls_v1: bool,
    topology_region: &'a str,
    topology_zone: &'a str,
    user_agent: &'a str,
}

/// What a connection asks to speak through (clients.md section 1.5). The order is TLS, then Snappy
/// or Deflate.
#[cfg(feature = "upgrade")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upgrades {
    /// Speaks TLS, trusting whom this says.
    pub tls: Option<ClientTls>,
    /// The name or the IP address that the server's certificate has to have; `None`: the host in
    /// the address that is dialled.
    pub tls_server_name: Option<String>,
    /// Packs with Snappy. Not together with `deflate`.
    pub snappy: bool,
    /// Packs with Deflate, at this level, 1 to 9. Servers may pack what they send at a lower one.
    pub deflate: Option<u8>,
    /// Whether a server that does not grant what is asked for is turned away, with
    /// [`UpgradeRefused`](super::ConnectionError::UpgradeRefused). If not, the connection goes on
    /// without, **in clear text** if that was TLS, as the reference client does.
    pub required: bool,
}

#[cfg(feature = "upgrade")]
impl Default for Upgrades {
    /// Asks for nothing.
    fn default() -> Self {
        Self { tls: None, tls_server_name: None, snappy: false, deflate: None, required: true }
    }
}

/// The same without what it takes to do it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) tls: bool,
    pub(super) snappy: bool,
    pub(super) deflate: Option<u8>,
    pub(super) required: bool,
}

fn millis_or_off(interval: Option<Duration>) -> i64 {
    interval.map_or(OFF, millis)
}

fn millis(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis()).unwrap_or(i64::MAX)
}

/// Whether a server takes a secret of this length.
fn is_sendable(secret: &Secret) -> bool {
    (1..=SECRET_LEN_MAX).contains(&secret.expose().len())
}

/// An option is out of its range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidOption {
    /// The option's name.
    pub name: &'static str,
    /// What is expected of it.
    pub reason: &'static str,
}

impl fmt::Display for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.reason)
    }
}

impl core::error::Error for InvalidOption {}

/// The name and version that clients of this crate carry unless told otherwise.
pub const USER_AGENT: &str = concat!("sansq/", env!("CARGO_PKG_VERSION"));

/// The default of `max_frame_size`: 16 times the default limit of a message, because operators
/// raise that one without telling their clients. A frame takes memory only as its bytes arrive.
pub const MAX_FRAME_SIZE: usize = 16 * 1024 * 1024;

/// Below this a client could not read the answer to IDENTIFY of a server with long names.
const FRAME_SIZE_LEAST: usize = 4096;

/// The limit of the reference server.
const SAMPLE_RATE_MAX: u8 = 99;

/// The longest secret in bytes; real ones have tens. The server takes a whole body, 5 MiB.
const SECRET_LEN_MAX: usize = 64 * 1024;

/// Sent although Deflate is not asked for, as go-nsq does.
const DEFLATE_LEVEL: u8 = 6;

/// Those that Deflate has.
const DEFLATE_LEVELS: RangeInclusive<u8> = 1..=9;

/// Switches a negotiated feature off.
const OFF: i64 = -1;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn the_body_of_the_reference_client() {
        let options = ConnectionOptions {
            hostname: "vm".into(),
            user_agent: "go-nsq/1.1.0".into(),
            ..ConnectionOptions::default()
        };
        assert_eq!(
            options.identify_body(),
            concat!(
                r#"{"client_id":"vm","deflate":false,"deflate_level":6,"feature_negotiation":true,"#,
                r#""heartbeat_interval":30000,"hostname":"vm","long_id":"vm","msg_timeout":0,"#,
                r#""output_buffer_size":16384,"output_buffer_timeout":250,"sample_rate":0,"#,
                r#""short_id":"vm","snappy":false,"tls_v1":false,"topology_region":"","#,
                r#""topology_zone":"","user_agent":"go-nsq/1.1.0"}"#
            )
        );
    }

    #[test]
    fn names_are_shortened_and_escaped_and_features_switched_off() {
        let options = ConnectionOptions {
            hostname: "a\"b.example.org".into(),
            heartbeat_interval: None,
            output_buffer_size: None,
            output_buffer_timeout: None,
            msg_timeout: Some(Duration::from_secs(2)),
            ..ConnectionOptions::default()
        };
        let body = options.identify_body();
        for part in [
            r#""client_id":"a\"b","#,
            r#""hostname":"a\"b.example.org","#,
            r#""short_id":"a\"b","#,
            r#""heartbeat_interval":-1,"#,
            r#""output_buffer_size":-1,"output_buffer_timeout":-1,"#,
            r#""msg_timeout":2000,"#,
            r#""user_agent":"sansq/"#,
        ] {
            assert!(body.contains(part), "{part} in {body}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let good = ConnectionOptions::default();
        assert_eq!(good.check(), Ok(()));
        let millis = Duration::from_millis;
        for (bad, name) in [
            (
                ConnectionOptions { heartbeat_interval: Some(Duration::ZERO), ..good.clone() },
                "heartbeat_interval",
            ),
            (
                ConnectionOptions { heartbeat_interval: Some(millis(60_001)), ..good.clone() },
                "heartbeat_interval",
            ),
            (ConnectionOptions { sample_rate: 100, ..good.clone() }, "sample_rate"),
            (
                ConnectionOptions { auth_secret: Some(Secret::new("")), ..good.clone() },
                "auth_secret",
            ),
            (ConnectionOptions { dial_timeout: Duration::ZERO, ..good.clone() }, "dial_timeout"),
            (
                ConnectionOptions { handshake_timeout: Duration::ZERO, ..good.clone() },
                "handshake_timeout",
            ),
            (ConnectionOptions { max_frame_size: 4095, ..good }, "max_frame_size"),
        ] {
            assert_eq!(bad.check().map_err(|error| error.name), Err(name));
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Some(Secret::new("hunter2"));
        let options = ConnectionOptions { auth_secret: secret, ..ConnectionOptions::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
