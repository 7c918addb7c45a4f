//! What a server is started with; the same for every runtime.

use sansq_core::log::Level;
use sansq_core::upgrade::ClientTls;
use sansq_core::{nsqd, nsqlookupd};

/// An nsqd to start: its addresses, its shards, and what its machines act on.
#[derive(Clone, Debug)]
pub struct NsqdOptions {
    /// Where clients connect, as `host:port`. Without a host: on every interface. Port 0: a free
    /// one.
    pub tcp_address: String,
    /// Where the HTTP API listens, in the same form; `None` switches it off.
    pub http_address: Option<String>,
    /// Where the HTTP API listens over TLS, in the same form; only with a certificate. `None`
    /// switches it off.
    pub https_address: Option<String>,
    /// Whom auth servers and nsqlookupds are believed that are asked over TLS; `None` lets no such
    /// request succeed.
    pub client_tls: Option<ClientTls>,
    /// How many clients may be connected; more are told so and closed.
    pub max_connections: usize,
    /// How many connections to the HTTP API may be open, at least 1. For one more another one goes,
    /// whoever has moved nothing for the longest time.
    pub max_http_connections: usize,
    /// How many data files may be open at a time, divided among the shards; each has one at least.
    /// As many files more may be written or synced at that time. Queues that are busy and more than
    /// that have their files opened again and again, which costs a few microseconds each time.
    pub data_files: usize,
    /// How many shards, and so threads; 1 to 256.
    pub shards: u16,
    /// Everything random follows from it: jitter, sampling, the choice of equals.
    pub seed: u64,
    /// The local time's distance from UTC in seconds, for the dates that `/stats` shows.
    pub utc_offset: i32,
    /// Measures the process's memory for `/stats`; `None` shows zeros.
    pub memory: Option<fn() -> nsqd::http::Memory>,
    /// Gives memory back to the system that the process has, and nothing uses, for
    /// `/debug/freememory`. It is called on a thread of its own. Without it that path is 404.
    pub free_memory: Option<fn()>,
    /// What `/config` shows. The runtime corrects what is known only when the listeners are open.
    pub shown: nsqd::http::OptionValues,
    /// Changes how quiet the log is; without it `/config/log_level` can't be changed.
    pub set_log_level: Option<fn(Level)>,
    /// The options of the machines. The runtime fills in `tcp_port` and `http_port` with the ports
    /// really listened on, and with them `broadcast_tcp_port` and `broadcast_http_port` where these
    /// are 0; `statsd.prefix` is the pattern as the flag has it, and becomes what it stands for.
    pub config: nsqd::Config,
}

impl Default for NsqdOptions {
    /// The reference's addresses, one shard, and no limit to clients.
    fn default() -> Self {
        Self {
            tcp_address: String::from("0.0.0.0:4150"),
            http_address: Some(String::from("0.0.0.0:4151")),
            https_address: Some(String::from("0.0.0.0:4152")),
            client_tls: None,
            max_connections: usize::MAX,
            max_http_connections: HTTP_CONNECTIONS_MAX,
            data_files: DATA_FILES_MAX,
            shards: 1,
            seed: 0,
            utc_offset: 0,
            memory: None,
            free_memory: None,
            shown: nsqd::http::OptionValues::default(),
            set_log_level: None,
            config: nsqd::Config::default(),
        }
    }
}

/// An nsqlookupd to start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LookupdOptions {
    /// Where nsqds connect, as in [`NsqdOptions::tcp_address`].
    pub tcp_address: String,
    /// Where consumers look topics up over HTTP, in the same form.
    pub http_address: String,
    /// How many connections to the HTTP API may be open, as in
    /// [`NsqdOptions::max_http_connections`].
    pub max_http_connections: usize,
    /// The options of the machine. The runtime fills in `tcp_port` and `http_port` with the ports
    /// really listened on.
    pub config: nsqlookupd::LookupdConfig,
}

impl Default for LookupdOptions {
    /// The reference's addresses.
    fn default() -> Self {
        Self {
            tcp_address: String::from("0.0.0.0:4160"),
            http_address: String::from("0.0.0.0:4161"),
            max_http_connections: HTTP_CONNECTIONS_MAX,
            config: nsqlookupd::LookupdConfig::default(),
        }
    }
}

/// Connections to an HTTP API that are useful at one time.
pub const HTTP_CONNECTIONS_MAX: usize = 1024;

/// Data files that are useful to have open at one time.
pub const DATA_FILES_MAX: usize = 256;

/// The most shards of one nsqd. Beyond the number of cores they only cost.
pub const SHARDS_MAX: u16 = 256;
