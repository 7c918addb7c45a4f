//! The settings of clients under go-nsq's names (clients.md part 4), for programs that have them in
//! a file or on a command line.

use core::net::IpAddr;
use core::time::Duration;
use std::path::PathBuf;

use sansq_core::client::producer::{MAX_OUTSTANDING, MAX_OUTSTANDING_BYTES};
use sansq_core::client::{
    BackoffScope, BackoffStrategy, RdyShares, RetryPolicy, Secret, USER_AGENT,
};
use sansq_core::upgrade::ClientTls;
use serde::{Deserialize, Serialize};

use crate::host_name;
use crate::tls::MinVersion;

mod bounds;
mod convert;
mod error;
mod text;

pub use error::ConfigError;

/// All settings of a producer and of a consumer, flat: those of go-nsq with its names, defaults and
/// bounds, and behind them ours.
///
/// In a file durations are texts as Go writes them (`"1m30s"`) or whole milliseconds, and a name
/// that is none is an error; [`set`](Self::set) takes the same as text. Bounds are checked when the
/// settings are used, or by [`check`](Self::check).
///
/// ```
/// use sansq_runtime::client::{Config, ConsumerConfig};
///
/// let mut config = Config::default();
/// config.set("max-in-flight", "200")?;
/// config.set("heartbeat_interval", "10s")?;
/// config.set("snappy", "true")?;
/// let consumer = ConsumerConfig::new("orders", "shipping")?
///     .nsqd("127.0.0.1:4150")
///     .options(config.consumer_options()?)
///     .net(config.net_config()?);
/// assert_eq!(consumer.options.max_in_flight, 200);
///
/// let error = config.set("max_in_fligth", "7").unwrap_err();
/// assert_eq!(error.to_string(), "unknown option max_in_fligth; did you mean max_in_flight?");
/// let error = config.set("max_attempts", "-1").unwrap_err();
/// assert_eq!(error.to_string(), "max_attempts: \"-1\" is not a whole number from 0 to 65535");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// How long connecting may take; at least 1 ms. By default 1 s.
    #[serde(with = "text")]
    pub dial_timeout: Duration,
    /// How long a server may be silent; 100 ms to 5 min. By default 1 min.
    #[serde(with = "text")]
    pub read_timeout: Duration,
    /// Accepted for the sake of programs that set it; 100 ms to 5 min. A write has no limit of its
    /// own here: a server that takes no bytes answers nothing either, for which there are
    /// `publish_timeout` and `read_timeout`. By default 1 s.
    #[serde(with = "text")]
    pub write_timeout: Duration,
    /// The address that connections come from. A port may follow, which has to be 0.
    #[serde(with = "text", skip_serializing_if = "Option::is_none")]
    pub local_addr: Option<IpAddr>,
    /// The longest time between two questions to nsqlookupds; 10 ms to 5 min. By default 1 min.
    #[serde(with = "text")]
    pub lookupd_poll_interval: Duration,
    /// By what part of that a question may come sooner, at random; 0 to 1. By default 0.3.
    pub lookupd_poll_jitter: f64,
    /// How long an nsqlookupd may take to answer; at least 1 ms. By default 1 min.
    #[serde(with = "text")]
    pub lookupd_poll_timeout: Duration,
    /// The longest delay of a requeue that names none; 0 to 1 h. By default 15 min.
    #[serde(with = "text")]
    pub max_requeue_delay: Duration,
    /// The delay of a requeue that names none, times attempts; 0 to 1 h. By default 90 s.
    #[serde(with = "text")]
    pub default_requeue_delay: Duration,
    /// How the wait of a backoff comes about: `exponential` or `full_jitter`.
    pub backoff_strategy: BackoffStrategy,
    /// The longest wait of a backoff; 0 to 1 h, 0: no backoff. By default 2 min.
    #[serde(with = "text")]
    pub max_backoff_duration: Duration,
    /// The unit of that wait; 0 to 1 h. By default 1 s.
    #[serde(with = "text")]
    pub backoff_multiplier: Duration,
    /// How often a message may be attempted; 0: any number of times. By default 5.
    pub max_attempts: u16,
    /// With more connections than `max_in_flight`, how long one without messages keeps others
    /// waiting; 1 s to 5 min. By default 10 s.
    #[serde(with = "text")]
    pub low_rdy_idle_timeout: Duration,
    /// The same for one with messages; 1 s to 5 min. By default 30 s.
    #[serde(with = "text")]
    pub low_rdy_timeout: Duration,
    /// How often shares of RDY follow the rates, with `rdy_shares` `rate`; 1 ms to 5 s. Everything
    /// else about RDY happens when it is due. By default 5 s.
    #[serde(with = "text")]
    pub rdy_redistribute_interval: Duration,
    /// The client's name in servers' statistics; empty: `hostname` up to its first dot.
    pub client_id: String,
    /// The name of the machine. By default as the operating system has it.
    pub hostname: String,
    /// The name and version of the client.
    pub user_agent: String,
    /// The region of this client, for servers with the topology experiment.
    pub topology_region: String,
    /// The zone of this client, for servers with the topology experiment.
    pub topology_zone: String,
    /// How often servers show that they live; at least 1 ms, at most `read_timeout`. `None`,
    /// written as -1: never. By default 30 s.
    #[serde(with = "text")]
    pub heartbeat_interval: Option<Duration>,
    /// The percentage of messages to receive; 0 to 99, 0: all.
    pub sample_rate: u8,
    /// Whether connections to nsqds speak TLS. The other options of TLS have no effect without it.
    pub tls_v1: bool,
    /// TLS that is there already: then the options of TLS with files have no effect.
    #[serde(skip)]
    pub tls_config: Option<ClientTls>,
    /// The authorities that servers' certificates may be of, in PEM; `None`: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_root_ca_file: Option<PathBuf>,
    /// Takes any certificate for the server's, so that whoever comes in between can read and change
    /// everything.
    pub tls_insecure_skip_verify: bool,
    /// The client's own certificate, in PEM. Needs `tls_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The key to it, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// The oldest version of TLS: `tls1.2` or `tls1.3`. Older ones are not to be had, so `ssl3.0`,
    /// `tls1.0` and `tls1.1` mean 1.2.
    pub tls_min_version: MinVersion,
    /// Whether connections are packed with Deflate. Not together with `snappy`.
    pub deflate: bool,
    /// At which level; 1 to 9. By default 6.
    pub deflate_level: u8,
    /// Whether connections are packed with Snappy.
    pub snappy: bool,
    /// The size of servers' write buffers in bytes; `None`, written as -1: no buffer. By default
    /// 16384.
    #[serde(with = "text")]
    pub output_buffer_size: Option<u32>,
    /// How long servers may hold messages back in it; `None`, written as -1: no limit but the size.
    /// By default 250 ms.
    #[serde(with = "text")]
    pub output_buffer_timeout: Option<Duration>,
    /// How many messages may be in flight on all connections together; 0: paused. By default 1.
    pub max_in_flight: u32,
    /// How long a message may be in flight; 0: as the server is set, which is 1 min by default.
    #[serde(with = "text")]
    pub msg_timeout: Duration,
    /// The longest frame that is accepted and the longest message that is published, in bytes; 0:
    /// 16 MiB and 1 MiB. Servers have a limit of their own, `--max-msg-size`.
    pub max_msg_size: u32,
    /// What to authenticate with at servers that require it. Not written to files.
    #[serde(deserialize_with = "text::secret", skip_serializing)]
    pub auth_secret: Option<Secret>,
    /// Whether nsqlookupds are sent the secret too; **true sends it**, the name is the reference's.
    /// By default true.
    pub skip_lookupd_authorization: bool,

    /// How long a publish may take from the call to the answer; at least 1 ms. By default 30 s.
    #[serde(with = "text")]
    pub publish_timeout: Duration,
    /// How long closing a producer waits for publishes that are outstanding. By default 30 s.
    #[serde(with = "text")]
    pub close_timeout: Duration,
    /// How many publishes may be outstanding; at least 1. By default 10000.
    pub max_outstanding: usize,
    /// How many bytes of bodies may be outstanding. By default 64 MiB.
    pub max_outstanding_bytes: usize,
    /// When a publish that failed at one nsqd is tried at another: `never`, `not_stored` (if it is
    /// certain that it was not stored) or `always`. By default `not_stored`.
    pub retry: RetryPolicy,
    /// The longest batch in bytes, each message with 4 more; the servers' `--max-body-size`. By
    /// default 5 MiB.
    pub max_body_size: u32,
    /// How long a message waits for others of its topic, to be sent with them in one MPUB; 0 to 5
    /// ms, 0: every message is sent by itself. By default 0.
    #[serde(with = "text")]
    pub linger: Duration,
    /// The longest delay of a publish; the servers' `--max-req-timeout`. By default 1 h.
    #[serde(with = "text")]
    pub max_req_timeout: Duration,
    /// How long IDENTIFY, TLS, compression and AUTH together may take; at least 1 ms. By default 30
    /// s.
    #[serde(with = "text")]
    pub handshake_timeout: Duration,
    /// Whether messages are touched by themselves while they are worked on.
    pub auto_touch: bool,
    /// How `max_in_flight` is divided: `equal`, or half of it by `rate`, to those from whom more
    /// came lately. By default `equal`.
    pub rdy_shares: RdyShares,
    /// What is left alone in a backoff: all nsqds of the `consumer`, or the `connection` whose
    /// messages failed. By default `consumer`.
    pub backoff_scope: BackoffScope,
    /// The shortest wait before an nsqd is dialled again; at least 1 ms. By default 100 ms.
    #[serde(with = "text")]
    pub redial_min: Duration,
    /// The longest wait before an nsqd is dialled again; at least `redial_min`. By default 30 s.
    #[serde(with = "text")]
    pub redial_max: Duration,
    /// The name or the IP address that servers' certificates have to have; empty: the host that is
    /// dialled.
    pub tls_server_name: String,
    /// Whether a server that does not grant TLS or the compression is turned away. If not, the
    /// connection goes on without, **in clear text** if that was TLS, as go-nsq does. By default
    /// true.
    pub upgrade_required: bool,
}

impl Default for Config {
    fn default() -> Self {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        Self {
            dial_timeout: secs(1),
            read_timeout: secs(60),
            write_timeout: secs(1),
            local_addr: None,
            lookupd_poll_interval: secs(60),
            lookupd_poll_jitter: 0.3,
            lookupd_poll_timeout: secs(60),
            max_requeue_delay: secs(15 * 60),
            default_requeue_delay: secs(90),
            backoff_strategy: BackoffStrategy::Exponential,
            max_backoff_duration: secs(120),
            backoff_multiplier: secs(1),
            max_attempts: 5,
            low_rdy_idle_timeout: secs(10),
            low_rdy_timeout: secs(30),
            rdy_redistribute_interval: secs(5),
            client_id: String::new(),
            hostname: host_name(),
            user_agent: USER_AGENT.into(),
            topology_region: String::new(),
            topology_zone: String::new(),
            heartbeat_interval: Some(secs(30)),
            sample_rate: 0,
            tls_v1: false,
            tls_config: None,
            tls_root_ca_file: None,
            tls_insecure_skip_verify: false,
            tls_cert: None,
            tls_key: None,
            tls_min_version: MinVersion::Tls12,
            deflate: false,
            deflate_level: 6,
            snappy: false,
            output_buffer_size: Some(16 * 1024),
            output_buffer_timeout: Some(millis(250)),
            max_in_flight: 1,
            msg_timeout: Duration::ZERO,
            max_msg_size: 0,
            auth_secret: None,
            skip_lookupd_authorization: true,
            publish_timeout: secs(30),
            close_timeout: secs(30),
            max_outstanding: MAX_OUTSTANDING,
            max_outstanding_bytes: MAX_OUTSTANDING_BYTES,
            retry: RetryPolicy::NotStored,
            max_body_size: 5 * 1024 * 1024,
            linger: Duration::ZERO,
            max_req_timeout: secs(3600),
            handshake_timeout: secs(30),
            auto_touch: false,
            rdy_shares: RdyShares::Equal,
            backoff_scope: BackoffScope::Consumer,
            redial_min: millis(100),
            redial_max: secs(30),
            tls_server_name: String::new(),
            upgrade_required: true,
        }
    }
}

#[cfg(test)]
mod tests;
