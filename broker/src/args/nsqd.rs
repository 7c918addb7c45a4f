//! nsqd's options. Source: http-and-ops.md section 4, nsqd-protocol.md sections 1, 17 and 19.1.

use core::fmt;
use core::num::NonZero;
use core::time::Duration;

use sansq_core::log::Level;

use super::{
    Flag, HOST_NAME, LogFormat, Program, Runtime, TlsRequired, TlsVersion, default_node_id,
    host_name,
};

/// What nsqd runs with. The fields are the flags of the same names.
#[derive(Clone, Debug, PartialEq)]
pub struct NsqdOptions {
    /// The auth servers: `host:port` or a URL.
    pub auth_http_address: Vec<String>,
    /// `get` or `post`, which [`Self::check`] makes sure of.
    pub auth_http_request_method: String,
    /// The address that nsqlookupd is told.
    pub broadcast_address: String,
    /// The HTTP port that nsqlookupd is told; 0 for the one listened on.
    pub broadcast_http_port: u16,
    /// The TCP port that nsqlookupd is told; 0 for the one listened on.
    pub broadcast_tcp_port: u16,
    /// The path of the config file; empty for none.
    pub config: String,
    /// The folder of the queue files; empty for the current one.
    pub data_path: String,
    /// Whether clients may negotiate Deflate.
    pub deflate: bool,
    /// The percentiles of end-to-end latency to keep, each in (0, 1].
    pub e2e_processing_latency_percentile: Vec<f64>,
    /// The time that the percentiles cover.
    pub e2e_processing_latency_window_time: Duration,
    /// Experiments to switch on; unknown ones are accepted.
    pub enable_experiment: Vec<String>,
    /// `host:port` to serve HTTP at, or the path of a unix socket; empty for none.
    pub http_address: String,
    /// The time to connect to nsqlookupd and auth servers over HTTP.
    pub http_client_connect_timeout: Duration,
    /// The time for a request to nsqlookupd and auth servers.
    pub http_client_request_timeout: Duration,
    /// `host:port` to serve HTTPS at, given a certificate and key; empty for none.
    pub https_address: String,
    /// The form of the log.
    pub log_format: LogFormat,
    /// The quietest level that is logged.
    pub log_level: Level,
    /// What each log line begins with.
    pub log_prefix: String,
    /// The nsqlookupd instances to announce topics to.
    pub lookupd_tcp_address: Vec<String>,
    /// Bytes of the body of MPUB, IDENTIFY and AUTH.
    pub max_body_size: u64,
    /// Bytes that clients may have sent and have no answer to yet.
    pub max_unanswered_bytes: u64,
    /// Bytes of a queue file before the next one is begun.
    pub max_bytes_per_file: u64,
    /// Consumers per channel; 0 for any number.
    pub max_channel_consumers: u64,
    /// Channels of each topic; 0 for any number.
    pub max_channels_per_topic: u64,
    /// Clients that may be connected; 0 for as many as the limit on open files allows.
    pub max_connections: u64,
    /// The highest Deflate level, 1 to 9, which [`Self::check`] makes sure of.
    pub max_deflate_level: i64,
    /// The longest heartbeat interval that a client can ask for.
    pub max_heartbeat_interval: Duration,
    /// Connections to the HTTP API; 0 for an eighth of the limit on open files, 8 to 1024.
    pub max_http_connections: u64,
    /// Bytes of a message.
    pub max_msg_size: u64,
    /// The cap of TOUCH and of what clients ask for.
    pub max_msg_timeout: Duration,
    /// Bytes of the largest output buffer that a client can ask for.
    pub max_output_buffer_size: u64,
    /// The longest output buffer timeout that a client can ask for.
    pub max_output_buffer_timeout: Duration,
    /// The highest RDY count.
    pub max_rdy_count: u64,
    /// The cap of REQ, DPUB and `/pub?defer`.
    pub max_req_timeout: Duration,
    /// Topics; 0 for any number.
    pub max_topics: u64,
    /// Messages in memory per topic and per channel; 0 puts all on disk.
    pub mem_queue_size: u64,
    /// Whether `/metrics` shows sums over all topics instead of figures for each.
    pub metrics_aggregate: bool,
    /// The shortest output buffer timeout that a client can ask for.
    pub min_output_buffer_timeout: Duration,
    /// How long a message is in flight unless the client says otherwise.
    pub msg_timeout: Duration,
    /// 0 to 1023, which [`Self::check`] makes sure of; goes into message ids.
    pub node_id: i64,
    /// The longest time that output may wait, unless the client says otherwise.
    pub output_buffer_timeout: Duration,
    /// Kept for compatibility: sansq has one deadline heap per shard and scans nothing.
    pub queue_scan_selection_count: u64,
    /// Kept for compatibility: sansq has one deadline heap per shard and scans nothing.
    pub queue_scan_worker_pool_max: u64,
    /// What drives the servers.
    pub runtime: Runtime,
    /// Threads among which the topics are divided, 1 to 256.
    pub shards: u16,
    /// Whether clients may negotiate Snappy.
    pub snappy: bool,
    /// `host:port` of statsd over UDP; empty for none.
    pub statsd_address: String,
    /// Whether ephemeral topics and channels are left out.
    pub statsd_exclude_ephemeral: bool,
    /// The time between two pushes, above one second.
    pub statsd_interval: Duration,
    /// Whether memory figures are pushed.
    pub statsd_mem_stats: bool,
    /// What metric names begin with; `%s` stands for the host.
    pub statsd_prefix: String,
    /// Bytes of a packet.
    pub statsd_udp_packet_size: u64,
    /// Queue operations per fsync.
    pub sync_every: u64,
    /// The longest time between an operation and its fsync.
    pub sync_timeout: Duration,
    /// `host:port` to serve clients at, or the path of a unix socket.
    pub tcp_address: String,
    /// The PEM file of the certificate.
    pub tls_cert: String,
    /// `require`, `require-verify`, or anything else for no client certificates.
    pub tls_client_auth_policy: String,
    /// The PEM file of the key.
    pub tls_key: String,
    /// The oldest TLS version accepted.
    pub tls_min_version: TlsVersion,
    /// Who needs TLS.
    pub tls_required: TlsRequired,
    /// The PEM file of the authorities that client certificates are checked against.
    pub tls_root_ca_file: String,
    /// The region this nsqd is in.
    pub topology_region: String,
    /// The zone this nsqd is in.
    pub topology_zone: String,
    /// Accepted for compatibility, without effect in the reference too.
    pub verbose: bool,
    /// Whether only the version is asked for.
    pub version: bool,
    /// Accepted for compatibility, without effect in the reference too.
    pub worker_id: bool,
}

impl NsqdOptions {
    /// The defaults on a host of this name.
    pub fn for_host(host: &str) -> Self {
        Self {
            auth_http_address: vec![],
            auth_http_request_method: "get".into(),
            broadcast_address: host.into(),
            broadcast_http_port: 0,
            broadcast_tcp_port: 0,
            config: String::new(),
            data_path: String::new(),
            deflate: true,
            e2e_processing_latency_percentile: vec![],
            e2e_processing_latency_window_time: MINUTE * 10,
            enable_experiment: vec![],
            http_address: "0.0.0.0:4151".into(),
            http_client_connect_timeout: Duration::from_secs(2),
            http_client_request_timeout: Duration::from_secs(5),
            https_address: "0.0.0.0:4152".into(),
            log_format: LogFormat::Text,
            log_level: Level::Info,
            log_prefix: "[nsqd] ".into(),
            lookupd_tcp_address: vec![],
            max_body_size: 5_242_880,
            max_unanswered_bytes: 64 * 1024 * 1024,
            max_bytes_per_file: 104_857_600,
            max_channel_consumers: 0,
            max_channels_per_topic: 100_000,
            max_connections: 0,
            max_deflate_level: 6,
            max_heartbeat_interval: MINUTE,
            max_http_connections: 0,
            max_msg_size: 1_048_576,
            max_msg_timeout: MINUTE * 15,
            max_output_buffer_size: 65_536,
            max_output_buffer_timeout: Duration::from_secs(30),
            max_rdy_count: 2_500,
            max_req_timeout: MINUTE * 60,
            max_topics: 1_000_000,
            mem_queue_size: 10_000,
            metrics_aggregate: false,
            min_output_buffer_timeout: Duration::from_millis(25),
            msg_timeout: MINUTE,
            node_id: default_node_id(host),
            output_buffer_timeout: Duration::from_millis(250),
            queue_scan_selection_count: 20,
            queue_scan_worker_pool_max: 4,
            runtime: Runtime::Tokio,
            shards: cores(),
            snappy: true,
            statsd_address: String::new(),
            statsd_exclude_ephemeral: false,
            statsd_interval: MINUTE,
            statsd_mem_stats: true,
            statsd_prefix: "nsq.%s".into(),
            statsd_udp_packet_size: 508,
            sync_every: 2_500,
            sync_timeout: Duration::from_secs(2),
            tcp_address: "0.0.0.0:4150".into(),
            tls_cert: String::new(),
            tls_client_auth_policy: String::new(),
            tls_key: String::new(),
            tls_min_version: TlsVersion::Tls10,
            tls_required: TlsRequired::No,
            tls_root_ca_file: String::new(),
            topology_region: String::new(),
            topology_zone: String::new(),
            verbose: false,
            version: false,
            worker_id: false,
        }
    }

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
        if !(0..NODE_IDS).contains(&self.node_id) {
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
        let percentiles = &self.e2e_processing_latency_percentile;
        if let Some(bad) = percentiles.iter().find(|p| !(**p > 0.0 && **p <= 1.0)) {
            return Err(CheckError::Percentile(*bad));
        }
        Ok(())
    }
}

impl Default for NsqdOptions {
    fn default() -> Self {
        Self::for_host(&host_name())
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
    const INTRO: &'static str = concat!(
        "nsqd of sansq ",
        env!("CARGO_PKG_VERSION"),
        ": receives, queues and delivers messages."
    );
    const USAGE: &'static str = "nsqd [flags]";

    #[rustfmt::skip] // A table: one flag, one row.
    fn flags(&mut self) -> Vec<Flag<'_>> {
        vec![
            Flag::new("General", "config", &mut self.config, "path of a TOML file with options").not_in_file(),
            Flag::new("General", "version", &mut self.version, "print the version and end").not_in_file(),
            Flag::new("General", "verbose", &mut self.verbose, "without effect").not_in_file(),
            Flag::new("General", "node-id", &mut self.node_id, "part of the message ids, 0 to 1023; differs from nsqd to nsqd").key("id").by_default("made from the host's name"),
            Flag::new("General", "worker-id", &mut self.worker_id, "without effect, use --node-id").not_in_file(),
            Flag::new("General", "runtime", &mut self.runtime, "what drives the servers: tokio, smol or async-std"),
            Flag::new("General", "shards", &mut self.shards, "threads among which the topics are divided; by default one per core").within(1, SHARDS_MAX).by_default(""),
            Flag::new("Listening", "tcp-address", &mut self.tcp_address, "host:port for clients, or the path of a unix socket"),
            Flag::new("Listening", "http-address", &mut self.http_address, "host:port for HTTP, or the path of a unix socket; empty for none"),
            Flag::new("Listening", "https-address", &mut self.https_address, "host:port for HTTPS, used with --tls-cert and --tls-key; empty for none"),
            Flag::new("Listening", "broadcast-address", &mut self.broadcast_address, "address that nsqlookupd passes on to consumers").by_default(HOST_NAME),
            Flag::new("Listening", "broadcast-tcp-port", &mut self.broadcast_tcp_port, "TCP port that nsqlookupd passes on; 0: the port of --tcp-address"),
            Flag::new("Listening", "broadcast-http-port", &mut self.broadcast_http_port, "HTTP port that nsqlookupd passes on; 0: the port of --http-address"),
            Flag::new("Storage", "data-path", &mut self.data_path, "folder of the queue files, which has to exist; empty: the current folder"),
            Flag::new("Storage", "mem-queue-size", &mut self.mem_queue_size, "messages kept in memory per topic and per channel; 0: all on disk"),
            Flag::new("Storage", "max-bytes-per-file", &mut self.max_bytes_per_file, "bytes of a queue file before the next one is begun").at_least(1),
            Flag::new("Storage", "sync-every", &mut self.sync_every, "queue operations per fsync").at_least(1),
            Flag::new("Storage", "sync-timeout", &mut self.sync_timeout, "longest time from an operation to its fsync").at_least(1),
            Flag::new("Messages", "msg-timeout", &mut self.msg_timeout, "time in flight before a message is sent again"),
            Flag::new("Messages", "max-msg-timeout", &mut self.max_msg_timeout, "longest time in flight that a client can ask for"),
            Flag::new("Messages", "max-msg-size", &mut self.max_msg_size, "bytes of a message").at_least(1),
            Flag::new("Messages", "max-req-timeout", &mut self.max_req_timeout, "longest delay of REQ and DPUB"),
            Flag::new("Messages", "max-body-size", &mut self.max_body_size, "bytes of the body of MPUB, IDENTIFY and AUTH").at_least(1),
            Flag::new("Messages", "max-unanswered-bytes", &mut self.max_unanswered_bytes, "bytes of publishes not answered yet; beyond it clients are not read").at_least(1),
            Flag::new("Messages", "queue-scan-worker-pool-max", &mut self.queue_scan_worker_pool_max, "kept for compatibility: sansq scans no queues").without_effect(),
            Flag::new("Messages", "queue-scan-selection-count", &mut self.queue_scan_selection_count, "kept for compatibility: sansq scans no queues").without_effect(),
            Flag::new("Clients", "max-heartbeat-interval", &mut self.max_heartbeat_interval, "longest heartbeat interval that a client can ask for"),
            Flag::new("Clients", "max-rdy-count", &mut self.max_rdy_count, "highest RDY count"),
            Flag::new("Clients", "max-output-buffer-size", &mut self.max_output_buffer_size, "bytes of the largest output buffer that a client can ask for"),
            Flag::new("Clients", "max-output-buffer-timeout", &mut self.max_output_buffer_timeout, "longest output buffer timeout that a client can ask for"),
            Flag::new("Clients", "min-output-buffer-timeout", &mut self.min_output_buffer_timeout, "shortest output buffer timeout that a client can ask for"),
            Flag::new("Clients", "output-buffer-timeout", &mut self.output_buffer_timeout, "longest time that output waits for more").at_least(1),
            Flag::new("Clients", "max-channel-consumers", &mut self.max_channel_consumers, "consumers per channel; 0: any number"),
            Flag::new("Clients", "max-topics", &mut self.max_topics, "topics; 0: any number"),
            Flag::new("Clients", "max-channels-per-topic", &mut self.max_channels_per_topic, "channels of each topic; 0: any number"),
            Flag::new("Clients", "max-connections", &mut self.max_connections, "clients that may be connected; 0: as many as the limit on open files allows"),
            Flag::new("Clients", "max-http-connections", &mut self.max_http_connections, "connections to HTTP and HTTPS; one more closes the most idle; 0: an eighth of the limit on open files, 8 to 1024"),
            Flag::new("Clients", "deflate", &mut self.deflate, "let clients negotiate Deflate"),
            Flag::new("Clients", "max-deflate-level", &mut self.max_deflate_level, "highest Deflate level that a client can ask for, 1 to 9"),
            Flag::new("Clients", "snappy", &mut self.snappy, "let clients negotiate Snappy"),
            Flag::new("nsqlookupd", "lookupd-tcp-address", &mut self.lookupd_tcp_address, "host:port of an nsqlookupd").key("nsqlookupd_tcp_addresses"),
            Flag::new("nsqlookupd", "http-client-connect-timeout", &mut self.http_client_connect_timeout, "time to connect to nsqlookupd and auth servers over HTTP"),
            Flag::new("nsqlookupd", "http-client-request-timeout", &mut self.http_client_request_timeout, "time for a request to nsqlookupd and auth servers"),
            Flag::new("Authorization", "auth-http-address", &mut self.auth_http_address, "host:port or URL of an auth server; any switches authorization on").key("auth_http_addresses"),
            Flag::new("Authorization", "auth-http-request-method", &mut self.auth_http_request_method, "get or post"),
            Flag::new("TLS", "tls-cert", &mut self.tls_cert, "PEM file of the certificate"),
            Flag::new("TLS", "tls-key", &mut self.tls_key, "PEM file of the key"),
            Flag::new("TLS", "tls-client-auth-policy", &mut self.tls_client_auth_policy, "client certificates: require (any) or require-verify; also turns --tls-required on"),
            Flag::new("TLS", "tls-root-ca-file", &mut self.tls_root_ca_file, "PEM file of the authorities for client certificates"),
            Flag::new("TLS", "tls-required", &mut self.tls_required, "refuse clients without TLS: true, false, or tcp-https to keep HTTP open"),
            Flag::new("TLS", "tls-min-version", &mut self.tls_min_version, "oldest TLS version accepted: tls1.0, tls1.1, tls1.2 or tls1.3"),
            Flag::new("Statistics", "statsd-address", &mut self.statsd_address, "host:port of statsd over UDP; empty for none"),
            Flag::new("Statistics", "statsd-interval", &mut self.statsd_interval, "time between two pushes, above 1s").at_least(1_000_000_001),
            Flag::new("Statistics", "statsd-mem-stats", &mut self.statsd_mem_stats, "push memory figures, too"),
            Flag::new("Statistics", "statsd-prefix", &mut self.statsd_prefix, "what metric names begin with; %s stands for the host"),
            Flag::new("Statistics", "statsd-udp-packet-size", &mut self.statsd_udp_packet_size, "bytes of a packet"),
            Flag::new("Statistics", "statsd-exclude-ephemeral", &mut self.statsd_exclude_ephemeral, "leave out ephemeral topics and channels"),
            Flag::new("Statistics", "e2e-processing-latency-percentile", &mut self.e2e_processing_latency_percentile, "percentiles of end-to-end latency to keep, each in (0, 1], as 0.99,0.95").key("e2e_processing_latency_percentiles"),
            Flag::new("Statistics", "e2e-processing-latency-window-time", &mut self.e2e_processing_latency_window_time, "time that the percentiles cover"),
            Flag::new("Statistics", "metrics-aggregate", &mut self.metrics_aggregate, "let /metrics show sums over all topics instead of figures for each topic and channel"),
            Flag::new("Topology", "enable-experiment", &mut self.enable_experiment, "experiment to switch on: topology-aware-consumption"),
            Flag::new("Topology", "topology-region", &mut self.topology_region, "region this nsqd is in, told to clients and nsqlookupd"),
            Flag::new("Topology", "topology-zone", &mut self.topology_zone, "zone this nsqd is in, told to clients and nsqlookupd"),
            Flag::new("Log", "log-level", &mut self.log_level, "debug, info, warn, error or fatal"),
            Flag::new("Log", "log-prefix", &mut self.log_prefix, "what each log line begins with"),
            Flag::new("Log", "log-format", &mut self.log_format, "text, or json: one object per line, without prefix"),
        ]
    }

    fn version(&self) -> bool {
        self.version
    }

    fn config(&self) -> &str {
        &self.config
    }
}

fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u16::try_from(cores.min(SHARDS_MAX as usize)).unwrap_or(1)
}

const MINUTE: Duration = Duration::from_secs(60);

/// Message ids have ten bits for the node (nsqd-protocol.md section 15.1).
const NODE_IDS: i64 = 1024;

/// More threads than any machine that runs a broker has cores; each shard holds a lane to each
/// other.
const SHARDS_MAX: i64 = 256;
