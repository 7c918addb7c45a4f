//! nsqd's options. Source: http-and-ops.md section 4, nsqd-protocol.md sections 1, 17 and 19.1.

use core::fmt;
use core::num::NonZero;
use core::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Parser, ValueHint};
use sansq_core::log::Level;
use sansq_toolkit::flags::level;
use serde::Serialize;

use super::value::{
    count, duration, level_number, longer_than, number, port, positive, shards, whole,
};
use super::{
    LogFormat, Program, Runtime, TlsRequired, TlsVersion, WITHOUT_EFFECT, default_node_id,
    defaults, host_name,
};

/// What nsqd runs with. The fields have the options' names in the config file.
#[derive(Clone, Debug, Parser, PartialEq, Serialize)]
#[command(name = "nsqd")]
pub struct NsqdOptions {
    /// Path of a TOML file with options
    #[arg(long, help_heading = "General", default_value = "", value_hint = ValueHint::FilePath)]
    #[serde(skip)]
    pub config: String,
    /// Print the version and end
    #[arg(long, help_heading = "General")]
    #[serde(skip)]
    pub version: bool,
    /// Without effect
    #[arg(long, help_heading = "General")]
    #[serde(skip)]
    pub verbose: bool,
    /// Part of the message ids, 0 to 1023; differs from nsqd to nsqd [default: made from the host's
    /// name]
    #[arg(long = "node-id", help_heading = "General", value_parser = whole)]
    #[arg(default_value_t = default_node_id(&host_name()), hide_default_value = true)]
    pub id: i64,
    /// Without effect, use --node-id
    #[arg(long, help_heading = "General")]
    #[serde(skip)]
    pub worker_id: bool,
    /// What drives the servers: tokio, smol or async-std
    #[arg(long, help_heading = "General", default_value = "tokio")]
    pub runtime: Runtime,
    /// Threads among which the topics are divided; by default one per core
    #[arg(long, help_heading = "General")]
    #[arg(default_value_t = cores(), hide_default_value = true, value_parser = shards)]
    pub shards: u16,
    /// host:port for clients, or the path of a unix socket
    #[arg(long, help_heading = "Listening", default_value = "0.0.0.0:4150")]
    pub tcp_address: String,
    /// host:port for HTTP, or the path of a unix socket; empty for none
    #[arg(long, help_heading = "Listening", default_value = "0.0.0.0:4151")]
    pub http_address: String,
    /// host:port for HTTPS, used with --tls-cert and --tls-key; empty for none
    #[arg(long, help_heading = "Listening", default_value = "0.0.0.0:4152")]
    pub https_address: String,
    /// Address that nsqlookupd passes on to consumers [default: the host's name]
    #[arg(long, help_heading = "Listening")]
    #[arg(default_value_t = host_name(), hide_default_value = true)]
    pub broadcast_address: String,
    /// TCP port that nsqlookupd passes on; 0: the port of --tcp-address
    #[arg(long, help_heading = "Listening", default_value_t = 0, value_parser = port)]
    pub broadcast_tcp_port: u16,
    /// HTTP port that nsqlookupd passes on; 0: the port of --http-address
    #[arg(long, help_heading = "Listening", default_value_t = 0, value_parser = port)]
    pub broadcast_http_port: u16,
    /// Folder of the queue files, which has to exist; empty: the current folder
    #[arg(long, help_heading = "Storage", default_value = "", value_hint = ValueHint::DirPath)]
    pub data_path: String,
    /// Messages kept in memory per topic and per channel; 0: all on disk
    #[arg(long, help_heading = "Storage", default_value_t = 10_000, value_parser = count)]
    pub mem_queue_size: u64,
    /// Bytes of a queue file before the next one is begun
    #[arg(long, help_heading = "Storage", default_value_t = 104_857_600, value_parser = positive)]
    pub max_bytes_per_file: u64,
    /// Queue operations per fsync
    #[arg(long, help_heading = "Storage", default_value_t = 2_500, value_parser = positive)]
    pub sync_every: u64,
    /// Longest time from an operation to its fsync
    #[arg(long, help_heading = "Storage")]
    #[arg(default_value = "2s", value_parser = longer_than(Duration::ZERO))]
    pub sync_timeout: Duration,
    /// Time in flight before a message is sent again
    #[arg(long, help_heading = "Messages", default_value = "1m0s", value_parser = duration)]
    pub msg_timeout: Duration,
    /// Longest time in flight that a client can ask for
    #[arg(long, help_heading = "Messages", default_value = "15m0s", value_parser = duration)]
    pub max_msg_timeout: Duration,
    /// Bytes of a message
    #[arg(long, help_heading = "Messages", default_value_t = 1_048_576, value_parser = positive)]
    pub max_msg_size: u64,
    /// Longest delay of REQ and DPUB
    #[arg(long, help_heading = "Messages", default_value = "1h0m0s", value_parser = duration)]
    pub max_req_timeout: Duration,
    /// Bytes of the body of MPUB, IDENTIFY and AUTH
    #[arg(long, help_heading = "Messages", default_value_t = 5_242_880, value_parser = positive)]
    pub max_body_size: u64,
    /// Bytes of publishes not answered yet; beyond it clients are not read
    #[arg(long, help_heading = "Messages")]
    #[arg(default_value_t = 64 * 1024 * 1024, value_parser = positive)]
    pub max_unanswered_bytes: u64,
    /// Longest heartbeat interval that a client can ask for
    #[arg(long, help_heading = "Clients", default_value = "1m0s", value_parser = duration)]
    pub max_heartbeat_interval: Duration,
    /// Highest RDY count
    #[arg(long, help_heading = "Clients", default_value_t = 2_500, value_parser = count)]
    pub max_rdy_count: u64,
    /// Bytes of the largest output buffer that a client can ask for
    #[arg(long, help_heading = "Clients", default_value_t = 65_536, value_parser = count)]
    pub max_output_buffer_size: u64,
    /// Longest output buffer timeout that a client can ask for
    #[arg(long, help_heading = "Clients", default_value = "30s", value_parser = duration)]
    pub max_output_buffer_timeout: Duration,
    /// Shortest output buffer timeout that a client can ask for
    #[arg(long, help_heading = "Clients", default_value = "25ms", value_parser = duration)]
    pub min_output_buffer_timeout: Duration,
    /// Longest time that output waits for more
    #[arg(long, help_heading = "Clients")]
    #[arg(default_value = "250ms", value_parser = longer_than(Duration::ZERO))]
    pub output_buffer_timeout: Duration,
    /// Consumers per channel; 0: any number
    #[arg(long, help_heading = "Clients", default_value_t = 0, value_parser = count)]
    pub max_channel_consumers: u64,
    /// Topics; 0: any number
    #[arg(long, help_heading = "Clients", default_value_t = 1_000_000, value_parser = count)]
    pub max_topics: u64,
    /// Channels of each topic; 0: any number
    #[arg(long, help_heading = "Clients", default_value_t = 100_000, value_parser = count)]
    pub max_channels_per_topic: u64,
    /// Clients that may be connected; 0: as many as the limit on open files allows
    #[arg(long, help_heading = "Clients", default_value_t = 0, value_parser = count)]
    pub max_connections: u64,
    /// Connections to HTTP and HTTPS; one more closes the most idle; 0: an eighth of the limit on
    /// open files, 8 to 1024
    #[arg(long, help_heading = "Clients", default_value_t = 0, value_parser = count)]
    pub max_http_connections: u64,
    /// Let clients negotiate Deflate
    #[arg(long, help_heading = "Clients", default_value_t = true)]
    pub deflate: bool,
    /// Highest Deflate level that a client can ask for, 1 to 9
    #[arg(long, help_heading = "Clients", default_value_t = 6, value_parser = whole)]
    pub max_deflate_level: i64,
    /// Let clients negotiate Snappy
    #[arg(long, help_heading = "Clients", default_value_t = true)]
    pub snappy: bool,
    /// host:port of an nsqlookupd; repeat for more
    #[arg(long = "lookupd-tcp-address", help_heading = "nsqlookupd")]
    pub nsqlookupd_tcp_addresses: Vec<String>,
    /// Time to connect to nsqlookupd and auth servers over HTTP
    #[arg(long, help_heading = "nsqlookupd", default_value = "2s", value_parser = duration)]
    pub http_client_connect_timeout: Duration,
    /// Time for a request to nsqlookupd and auth servers
    #[arg(long, help_heading = "nsqlookupd", default_value = "5s", value_parser = duration)]
    pub http_client_request_timeout: Duration,
    /// host:port or URL of an auth server; any switches authorization on; repeat for more
    #[arg(long = "auth-http-address", help_heading = "Authorization")]
    pub auth_http_addresses: Vec<String>,
    /// get or post
    #[arg(long, help_heading = "Authorization", default_value = "get")]
    pub auth_http_request_method: String,
    /// PEM file of the certificate
    #[arg(long, help_heading = "TLS", default_value = "", value_hint = ValueHint::FilePath)]
    pub tls_cert: String,
    /// PEM file of the key
    #[arg(long, help_heading = "TLS", default_value = "", value_hint = ValueHint::FilePath)]
    pub tls_key: String,
    /// Client certificates: require (any) or require-verify; also turns --tls-required on
    #[arg(long, help_heading = "TLS", default_value = "")]
    pub tls_client_auth_policy: String,
    /// PEM file of the authorities for client certificates
    #[arg(long, help_heading = "TLS", default_value = "", value_hint = ValueHint::FilePath)]
    pub tls_root_ca_file: String,
    /// Refuse clients without TLS: true, false, or tcp-https to keep HTTP open
    #[arg(long, help_heading = "TLS", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_required: TlsRequired,
    /// Oldest TLS version accepted: tls1.0, tls1.1, tls1.2 or tls1.3
    #[arg(long, help_heading = "TLS", default_value = "tls1.0")]
    pub tls_min_version: TlsVersion,
    /// host:port of statsd over UDP; empty for none
    #[arg(long, help_heading = "Statistics", default_value = "")]
    pub statsd_address: String,
    /// Time between two pushes, above 1s
    #[arg(long, help_heading = "Statistics")]
    #[arg(default_value = "1m0s", value_parser = longer_than(Duration::from_secs(1)))]
    pub statsd_interval: Duration,
    /// Push memory figures, too
    #[arg(long, help_heading = "Statistics", default_value_t = true)]
    pub statsd_mem_stats: bool,
    /// What metric names begin with; %s stands for the host
    #[arg(long, help_heading = "Statistics", default_value = "nsq.%s")]
    pub statsd_prefix: String,
    /// Bytes of a packet
    #[arg(long, help_heading = "Statistics", default_value_t = 508, value_parser = count)]
    pub statsd_udp_packet_size: u64,
    /// Leave out ephemeral topics and channels
    #[arg(long, help_heading = "Statistics")]
    pub statsd_exclude_ephemeral: bool,
    /// Percentiles of end-to-end latency to keep, each in (0, 1], as 0.99,0.95; repeat for more
    #[arg(long = "e2e-processing-latency-percentile", help_heading = "Statistics")]
    #[arg(value_delimiter = ',', value_parser = number)]
    pub e2e_processing_latency_percentiles: Vec<f64>,
    /// Time that the percentiles cover
    #[arg(long, help_heading = "Statistics", default_value = "10m0s", value_parser = duration)]
    pub e2e_processing_latency_window_time: Duration,
    /// Let /metrics show sums over all topics instead of figures for each topic and channel
    #[arg(long, help_heading = "Statistics")]
    pub metrics_aggregate: bool,
    /// Experiment to switch on: topology-aware-consumption; repeat for more
    #[arg(long, help_heading = "Topology")]
    pub enable_experiment: Vec<String>,
    /// Region this nsqd is in, told to clients and nsqlookupd
    #[arg(long, help_heading = "Topology", default_value = "")]
    pub topology_region: String,
    /// Zone this nsqd is in, told to clients and nsqlookupd
    #[arg(long, help_heading = "Topology", default_value = "")]
    pub topology_zone: String,
    /// debug, info, warn, error or fatal
    #[arg(long, help_heading = "Log", default_value = "info", value_parser = level())]
    #[serde(serialize_with = "level_number")]
    pub log_level: Level,
    /// What each log line begins with
    #[arg(long, help_heading = "Log", default_value = "[nsqd] ")]
    pub log_prefix: String,
    /// text, or json: one object per line, without prefix
    #[arg(long, help_heading = "Log", default_value = "text")]
    pub log_format: LogFormat,
    /// Kept for compatibility: sansq scans no queues
    #[arg(long, help_heading = WITHOUT_EFFECT, default_value_t = 4, value_parser = count)]
    pub queue_scan_worker_pool_max: u64,
    /// Kept for compatibility: sansq scans no queues
    #[arg(long, help_heading = WITHOUT_EFFECT, default_value_t = 20, value_parser = count)]
    pub queue_scan_selection_count: u64,
}

impl NsqdOptions {
    /// Checks what has to be right before anything starts, in the reference's order, and raises
    /// `tls_required` where a policy for client certificates implies it.
    ///
    /// # Errors
    /// [`CheckError`] has the reference's text.
    pub fn check(&mut self) -> Result<(), CheckError> {
        if !self.tls_client_auth_policy.is_empty() && self.tls_required == TlsRequired::No {
            self.tls_required = TlsRequired::Yes;
        }
        if !(1..=9).contains(&self.max_deflate_level) {
            return Err(CheckError::DeflateLevel);
        }
        if !(0..NODE_IDS).contains(&self.id) {
            return Err(CheckError::NodeId);
        }
        match (self.tls_cert.is_empty(), self.tls_key.is_empty()) {
            (true, true) if self.tls_required != TlsRequired::No => {
                return Err(CheckError::TlsRequired);
            }
            (false, true) | (true, false) => return Err(CheckError::TlsPair),
            (true, true) | (false, false) => {}
        }
        if !matches!(self.auth_http_request_method.as_str(), "get" | "post") {
            return Err(CheckError::AuthMethod);
        }
        let percentiles = &self.e2e_processing_latency_percentiles;
        if let Some(bad) = percentiles.iter().find(|p| !(**p > 0.0 && **p <= 1.0)) {
            return Err(CheckError::Percentile(*bad));
        }
        Ok(())
    }
}

impl Default for NsqdOptions {
    fn default() -> Self {
        defaults()
    }
}

/// An option without which nsqd does not start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CheckError {
    /// The auth request method is neither `get` nor `post`.
    AuthMethod,
    /// The highest Deflate level is not 1 to 9.
    DeflateLevel,
    /// The node id is not 0 to 1023.
    NodeId,
    /// A latency percentile is not in (0, 1].
    Percentile(f64),
    /// There is a certificate without key or a key without certificate.
    TlsPair,
    /// TLS is required and there is no certificate.
    TlsRequired,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthMethod => "--auth-http-request-method must be post or get",
            Self::DeflateLevel => "--max-deflate-level must be [1,9]",
            Self::NodeId => "--node-id must be [0,1024)",
            Self::Percentile(percentile) => {
                return write!(f, "invalid E2E processing latency percentile: {percentile}");
            }
            Self::TlsPair => {
                "failed to build TLS config - --tls-cert and --tls-key need each other"
            }
            Self::TlsRequired => "cannot require TLS client connections without TLS key and cert",
        })
    }
}

impl core::error::Error for CheckError {}

impl Program for NsqdOptions {
    const ABOUT: &'static str = concat!(
        "nsqd of sansq ",
        env!("CARGO_PKG_VERSION"),
        ": receives, queues and delivers messages."
    );

    fn heed(&mut self, given: &ArgMatches) {
        // The reference sorts what the command line says, and keeps the order of the config file.
        let percentiles = "e2e_processing_latency_percentiles";
        if given.value_source(percentiles) == Some(ValueSource::CommandLine) {
            self.e2e_processing_latency_percentiles.sort_by(|a, b| b.total_cmp(a));
        }
    }
}

fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u16::try_from(cores).unwrap_or(SHARDS_MAX).min(SHARDS_MAX)
}

/// Message ids have ten bits for the node (nsqd-protocol.md section 15.1).
const NODE_IDS: i64 = 1024;

/// More threads than any machine that runs a broker has cores; each shard holds a lane to each
/// other.
pub(super) const SHARDS_MAX: u16 = 256;
