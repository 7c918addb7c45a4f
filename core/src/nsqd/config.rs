//! What an operator decides about an nsqd, with NSQ's option names (http-and-ops.md section 4).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::protocol::command::Limits;

/// The options of an nsqd that its machines act on.
///
/// [`Config::default`] has the reference's defaults; [`Config::check`] says what is out of range.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Goes into message ids; 0 to 1023.
    pub node_id: u16,
    /// Told to nsqlookupd and in `/info`.
    pub broadcast_address: String,
    /// The port told to nsqlookupd for clients.
    pub broadcast_tcp_port: u16,
    /// The port told to nsqlookupd for HTTP.
    pub broadcast_http_port: u16,
    /// The host's name, in `/info` and told to nsqlookupd.
    pub hostname: String,
    /// The port really listened on; -1 for a unix socket.
    pub tcp_port: i32,
    /// The port really listened on; -1 for a unix socket, 0 if HTTP is off.
    pub http_port: i32,
    /// The port really listened on for HTTPS; 0 if there is none.
    pub https_port: i32,
    /// When this nsqd started, in seconds since the Unix epoch.
    pub start_time: i64,
    /// The nsqlookupds to register with, as `host:port`.
    pub lookupd_tcp_addresses: Vec<String>,
    /// The auth servers, as `host:port` or as a URL. With any, clients need AUTH.
    pub auth_http_addresses: Vec<String>,
    /// How they are asked.
    pub auth_http_request_method: AuthMethod,
    /// How long a connection to an auth server, or to an nsqlookupd over HTTP, may take to be made.
    pub http_client_connect_timeout: Duration,
    /// How long a request to one of them may take, its connection included.
    pub http_client_request_timeout: Duration,
    /// Told to clients and nsqlookupd.
    pub topology_region: String,
    /// Told to clients and nsqlookupd.
    pub topology_zone: String,
    /// Whether consumers of this zone, then those of this region, get messages before others.
    pub topology_aware_consumption: bool,
    /// Messages in memory per topic and, separately, per channel.
    pub mem_queue_size: usize,
    /// The largest message body in bytes.
    pub max_msg_size: usize,
    /// The largest declared body of IDENTIFY, AUTH and MPUB in bytes.
    pub max_body_size: usize,
    /// Bytes that clients may have sent and have no answer to yet, over all shards and HTTP:
    /// publishes under way, and bodies that are half there. At it they are not read from. Each
    /// shard has an equal part, and HTTP has one; each part has room for one body at least.
    pub max_unanswered_bytes: usize,
    /// How long a delivered message may stay unanswered if the client names no time.
    pub msg_timeout: Duration,
    /// The upper bound of a client's `msg_timeout`, and how far TOUCH can extend a delivery.
    pub max_msg_timeout: Duration,
    /// The upper bound of the delays of REQ and DPUB.
    pub max_req_timeout: Duration,
    /// The upper bound of a client's `heartbeat_interval`.
    pub max_heartbeat_interval: Duration,
    /// The upper bound of RDY.
    pub max_rdy_count: u32,
    /// The upper bound of a client's `output_buffer_size` in bytes.
    pub max_output_buffer_size: usize,
    /// The `output_buffer_timeout` of a client that names none.
    pub output_buffer_timeout: Duration,
    /// The lower bound of a client's `output_buffer_timeout`.
    pub min_output_buffer_timeout: Duration,
    /// The upper bound of a client's `output_buffer_timeout`.
    pub max_output_buffer_timeout: Duration,
    /// Connections per channel; 0 for no limit.
    pub max_channel_consumers: usize,
    /// Topics; 0 for no limit. Those that are there at the start are kept.
    pub max_topics: usize,
    /// Channels of each topic; 0 for no limit. Those that are there at the start are kept.
    pub max_channels_per_topic: usize,
    /// The percentiles of end-to-end latency to show, each in (0, 1]; empty switches the measuring
    /// off.
    pub e2e_processing_latency_percentiles: Vec<f64>,
    /// The time that the percentiles cover.
    pub e2e_processing_latency_window_time: Duration,
    /// Where statistics are pushed, and how.
    pub statsd: StatsdOptions,
    /// Whether clients may have Deflate.
    pub deflate: bool,
    /// Whether clients may have Snappy.
    pub snappy: bool,
    /// The upper bound of a client's `deflate_level`; 1 to 9.
    pub max_deflate_level: u8,
    /// Whether there is a disk: the driver carries out [`Actions::storage`](super::Actions).
    /// Without it everything is in memory only, and publishers wait where a queue is full.
    pub disk: bool,
    /// What clients may have TLS with; `None` for no TLS.
    #[cfg(feature = "upgrade")]
    pub tls: Option<crate::upgrade::ServerTls>,
    /// Who needs TLS.
    pub tls_required: TlsRequired,
    /// A data file of a queue is closed, and the next one begun, before it would grow beyond this,
    /// in bytes. A record that alone is larger gets a file of its own.
    pub max_bytes_per_file: u64,
    /// A queue on disk is synced after so many records were written or read.
    pub sync_every: u64,
    /// A queue on disk is synced at the latest so long after a record was written or read.
    pub sync_timeout: Duration,
    /// Whether `/metrics` shows sums over all topics instead of figures for each.
    pub metrics_aggregate: bool,
    /// How long a publisher is kept waiting for room, in memory or on a disk that is in trouble or
    /// too slow, before it is told `E_PUB_FAILED`.
    pub publish_wait: Duration,
}

/// How auth servers are asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AuthMethod {
    /// The facts are in the URL.
    #[default]
    Get,
    /// The facts are in the body, as JSON.
    Post,
}

/// Whom an nsqd refuses without TLS (nsqd-protocol.md section 17).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TlsRequired {
    /// Nobody.
    #[default]
    No,
    /// Clients, by any command but IDENTIFY, and every request over plain HTTP.
    Yes,
    /// Clients; plain HTTP stays open.
    TcpHttps,
}

/// The most nsqlookupds that a list put to `/config` may name. Those of the flags have no limit.
pub const LOOKUPDS_MAX: usize = 256;

/// The heartbeat interval of a connection that has not negotiated another one (nsqd-protocol.md
/// section 9).
pub const HEARTBEAT_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);

/// How long a new connection may take to send its magic (nsqd-protocol.md W21). Far above what a
/// slow peer needs.
pub const MAGIC_DEADLINE: Duration = Duration::from_secs(60);

/// How long a client without heartbeats may take for a command, from its first byte on; with
/// heartbeats it has two intervals (nsqd-protocol.md section 9). The reference waits for ever.
pub const COMMAND_DEADLINE_WITHOUT_HEARTBEAT: Duration = Duration::from_secs(60);

/// Bytes of one connection that take nothing of the shard's shared room: of unanswered publishes,
/// and of a body that is half there. So a client with small messages is not held up by those with
/// large ones.
pub const ALLOWANCE_LEN: usize = 32 * 1024;

/// Bytes that are kept of each text that a client says of itself in IDENTIFY, and of those that an
/// auth server says of it; the rest is cut off. Clients' are far shorter.
pub const IDENTITY_LEN_MAX: usize = 1024;

/// The longest secret of AUTH, in bytes. It is kept as long as the connection, and sent in a URL.
pub const AUTH_SECRET_LEN_MAX: usize = 64 * 1024;

/// Topics of which one connection's publishes are counted apart, for the statistics. Those to
/// further topics are in no client's count.
pub const PUB_COUNTS_MAX: usize = 1024;

/// What all connections of a shard have for their allowances together, in bytes, at least.
pub const SMALL_ROOM_MIN: usize = 256 * 1024;

/// How long a body that is half there may hold room while others wait for it. A client that sends 5
/// MiB at 1 MiB/s is in time.
pub const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// How long the handshake of TLS may take (nsqd-protocol.md section 2.1).
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// The output buffer size that an IDENTIFY answer shows if the client names none.
pub const OUTPUT_BUFFER_SIZE_DEFAULT: usize = 16 * 1024;

/// The longest command line, its line feed included (nsqd-protocol.md section 4).
pub const LINE_LEN_MAX: usize = 16 * 1024;

/// Commands of one connection that may wait for another shard or for room in memory. Beyond it the
/// connection's next command is not decoded, and so the socket's window closes.
pub const PENDING_REPLIES_MAX: usize = 256;

/// HTTP requests of one shard under way at a time, to auth servers and nsqlookupds. More wait;
/// their queue is bounded by who asks: each connection has at most one, each new topic one per
/// nsqlookupd.
pub const CALLS_MAX: usize = 64;

/// Bytes that are decrypted and unpacked for one connection in one call: beyond it, others come
/// first. A few bytes can be packed that expand a thousandfold.
pub const DECODED_LEN_MAX: usize = 256 * 1024;

/// Bytes of answers that one peer has not taken beyond which no further command of it is decoded: a
/// peer that sends and does not read must not make the broker remember its answers without end.
/// Messages do not count, so a consumer that is slow to read them can still finish them.
pub const REPLIES_OWED_MAX: usize = 256 * 1024;

/// Bytes owed to one connection beyond which no more messages are delivered to it. Heartbeats are
/// still added, and answers up to [`REPLIES_OWED_MAX`].
pub const OWED_LEN_MAX: usize = 256 * 1024;

/// How long a peer that takes no bytes keeps its connection if it switched heartbeats off; with
/// heartbeats the interval is the limit, as in the reference (nsqd-protocol.md section 2.1).
pub const WRITE_DEADLINE_WITHOUT_HEARTBEAT: Duration = Duration::from_secs(60);

/// How long a closing connection may take to accept the bytes still owed to it.
pub const LINGER: Duration = Duration::from_secs(5);

/// A text that somebody says of a client, as it is kept: at most [`IDENTITY_LEN_MAX`] bytes.
pub(super) fn cut_identity(mut text: String) -> String {
    if text.len() > IDENTITY_LEN_MAX {
        let end = (0..=IDENTITY_LEN_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text.shrink_to_fit();
    text
}

/// What an operator decides about statsd, by the names of the flags without `statsd-`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatsdOptions {
    /// Where statsd listens, as `host:port`; empty for nowhere.
    pub address: String,
    /// What names begin with: as it is, so see [`statsd_prefix`](super::statsd_prefix).
    pub prefix: String,
    /// The time between two pushes, above one second.
    pub interval: Duration,
    /// Whether figures of the process's memory are pushed.
    pub mem_stats: bool,
    /// Bytes of a packet, up to [`PACKET_LEN_MAX`](super::PACKET_LEN_MAX); 0 for 4096. A line that
    /// is longer is a packet by itself.
    pub udp_packet_size: usize,
    /// Whether ephemeral topics and channels are left out.
    pub exclude_ephemeral: bool,
}

impl Default for StatsdOptions {
    /// The reference's defaults.
    fn default() -> Self {
        Self {
            address: String::new(),
            prefix: String::from("nsq."),
            interval: Duration::from_secs(60),
            mem_stats: true,
            udp_packet_size: 508,
            exclude_ephemeral: false,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_id: 0,
            broadcast_address: String::from("localhost"),
            broadcast_tcp_port: 4150,
            broadcast_http_port: 4151,
            hostname: String::from("localhost"),
            tcp_port: 4150,
            http_port: 4151,
            https_port: 0,
            start_time: 0,
            lookupd_tcp_addresses: Vec::new(),
            auth_http_addresses: Vec::new(),
            auth_http_request_method: AuthMethod::Get,
            http_client_connect_timeout: Duration::from_secs(2),
            http_client_request_timeout: Duration::from_secs(5),
            topology_region: String::new(),
            topology_zone: String::new(),
            topology_aware_consumption: false,
            mem_queue_size: 10_000,
            max_msg_size: 1024 * 1024,
            max_body_size: 5 * 1024 * 1024,
            max_unanswered_bytes: 64 * 1024 * 1024,
            msg_timeout: Duration::from_secs(60),
            max_msg_timeout: Duration::from_secs(15 * 60),
            max_req_timeout: Duration::from_secs(60 * 60),
            max_heartbeat_interval: Duration::from_secs(60),
            max_rdy_count: 2500,
            max_output_buffer_size: 64 * 1024,
            output_buffer_timeout: Duration::from_millis(250),
            min_output_buffer_timeout: Duration::from_millis(25),
            max_output_buffer_timeout: Duration::from_secs(30),
            max_channel_consumers: 0,
            max_topics: 1_000_000,
            max_channels_per_topic: 100_000,
            e2e_processing_latency_percentiles: Vec::new(),
            e2e_processing_latency_window_time: Duration::from_secs(600),
            statsd: StatsdOptions::default(),
            deflate: true,
            snappy: true,
            max_deflate_level: 6,
            disk: false,
            #[cfg(feature = "upgrade")]
            tls: None,
            tls_required: TlsRequired::No,
            max_bytes_per_file: 100 * 1024 * 1024,
            sync_every: 2500,
            sync_timeout: Duration::from_secs(2),
            metrics_aggregate: false,
            publish_wait: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Checks what the types leave open.
    ///
    /// # Errors
    /// The first option that is out of range, with the reference's text where it has one.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_deflate_level == 0 || self.max_deflate_level > 9 {
            return Err(ConfigError::MaxDeflateLevel);
        }
        if self.node_id > 1023 {
            return Err(ConfigError::NodeId);
        }
        if self.tls_required != TlsRequired::No && !self.has_tls() {
            return Err(ConfigError::TlsRequired);
        }
        if i32::try_from(self.max_msg_size).is_err() || self.max_msg_size == 0 {
            return Err(ConfigError::MaxMsgSize);
        }
        if i32::try_from(self.max_body_size).is_err() || self.max_body_size == 0 {
            return Err(ConfigError::MaxBodySize);
        }
        if self.msg_timeout.is_zero() {
            return Err(ConfigError::MsgTimeout);
        }
        if self.statsd.interval <= Duration::from_secs(1) {
            return Err(ConfigError::StatsdInterval);
        }
        Ok(())
    }

    /// Whether clients need AUTH.
    pub const fn is_auth_enabled(&self) -> bool {
        !self.auth_http_addresses.is_empty()
    }

    /// Whether clients may have TLS.
    pub const fn has_tls(&self) -> bool {
        #[cfg(feature = "upgrade")]
        return self.tls.is_some();
        #[cfg(not(feature = "upgrade"))]
        return false;
    }

    /// The most messages that one MPUB can hold (nsqd-protocol.md section 6.1).
    pub const fn mpub_count_max(&self) -> usize {
        self.max_body_size.saturating_sub(4) / 5
    }

    /// The longest body that a command can have.
    pub const fn body_len_max(&self) -> usize {
        if self.max_body_size > self.max_msg_size { self.max_body_size } else { self.max_msg_size }
    }

    /// One part of [`max_unanswered_bytes`](Self::max_unanswered_bytes): that of one of `shards`
    /// shards, or of HTTP. It may be less than a body.
    pub const fn unanswered_share(&self, shards: u16) -> usize {
        self.max_unanswered_bytes / (shards as usize + 1)
    }

    /// What the decoder of commands holds clients to.
    pub const fn limits(&self) -> Limits {
        Limits {
            max_msg_size: self.max_msg_size,
            max_body_size: self.max_body_size,
            mpub_count_max: self.mpub_count_max(),
            max_req_timeout: self.max_req_timeout,
            max_rdy_count: self.max_rdy_count,
            line_len_max: LINE_LEN_MAX,
            auth_secret_len_max: AUTH_SECRET_LEN_MAX,
        }
    }
}

/// An option is out of range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `--max-body-size`.
    MaxBodySize,
    /// `--max-deflate-level`.
    MaxDeflateLevel,
    /// `--max-msg-size`.
    MaxMsgSize,
    /// `--msg-timeout`.
    MsgTimeout,
    /// `--node-id`.
    NodeId,
    /// `--statsd-interval`.
    StatsdInterval,
    /// `--tls-required` without a certificate.
    TlsRequired,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxBodySize => "--max-body-size must be [1,2147483647]",
            Self::MaxDeflateLevel => "--max-deflate-level must be [1,9]",
            Self::MaxMsgSize => "--max-msg-size must be [1,2147483647]",
            Self::MsgTimeout => "--msg-timeout must be above 0",
            Self::NodeId => "--node-id must be [0,1024)",
            Self::StatsdInterval => "--statsd-interval must be above 1s",
            Self::TlsRequired => "cannot require TLS client connections without TLS key and cert",
        })
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    /// Numbers at the bounds of options and of their types, and any others.
    fn number() -> impl Strategy<Value = u64> {
        let bounds = vec![0, 1, 9, 10, 1023, 1024, i32::MAX as u64, 1 << 31, u64::MAX];
        prop_oneof![3 => prop::sample::select(bounds), 1 => any::<u64>()]
    }

    proptest! {
        /// Exactly what is in range is accepted, and what is refused is out of range.
        #[test]
        fn the_option_that_is_out_of_range_is_named(
            numbers in prop::array::uniform6(number()),
            is_good in prop::array::uniform7(any::<bool>()),
            is_tcp_only: bool,
        ) {
            let good = Config::default();
            let [level, node, message, body, timeout, interval] = numbers;
            // Half of each are as they are by default, or else nothing would ever be right.
            let pick = |at: usize, number: u64, default: u64| if is_good[at] { default } else { number };
            let level = pick(0, level, good.max_deflate_level.into()) as u8;
            let node = pick(1, node, good.node_id.into()) as u16;
            let message = pick(2, message, good.max_msg_size as u64);
            let body = pick(3, body, good.max_body_size as u64);
            let timeout = Duration::from_nanos(pick(4, timeout, 1));
            let interval = Duration::from_nanos(pick(5, interval, 1_000_000_001));
            let tls_required = match (is_good[6], is_tcp_only) {
                (true, _) => TlsRequired::No,
                (false, true) => TlsRequired::TcpHttps,
                (false, false) => TlsRequired::Yes,
            };
            let config = Config {
                max_deflate_level: level,
                node_id: node,
                max_msg_size: message as usize,
                max_body_size: body as usize,
                msg_timeout: timeout,
                statsd: StatsdOptions { interval, ..StatsdOptions::default() },
                tls_required,
                ..good
            };
            let faults: Vec<&str> = [
                ("--max-deflate-level", (1..=9).contains(&level)),
                ("--node-id", node < 1024),
                ("TLS key", tls_required == TlsRequired::No),
                ("--max-msg-size", (1..1 << 31).contains(&message)),
                ("--max-body-size", (1..1 << 31).contains(&body)),
                ("--msg-timeout", timeout.as_nanos() > 0),
                ("--statsd-interval", interval.as_millis() > 1000 || interval.as_nanos() == 1_000_000_001),
            ]
            .into_iter()
            .filter_map(|(name, is_right)| (!is_right).then_some(name))
            .collect();
            match config.check() {
                Ok(()) => prop_assert!(faults.is_empty(), "{faults:?}"),
                Err(error) => {
                    let text = error.to_string();
                    prop_assert!(faults.iter().any(|name| text.contains(name)), "{text}: {faults:?}");
                }
            }
        }
    }
}
