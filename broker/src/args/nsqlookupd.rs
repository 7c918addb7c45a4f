//! nsqlookupd's options, and those of both servers in one process.
//!
//! Source: http-and-ops.md section 5.

use core::net::SocketAddr;
use core::time::Duration;

use sansq_core::log::Level;
use sansq_core::nsqlookupd::{NAMES_MAX, REGISTRATIONS_MAX, REGISTRATIONS_MAX_PER_NSQD};

use super::{Flag, HOST_NAME, LogFormat, NsqdOptions, Program, Runtime, host_name};

/// What nsqlookupd runs with. The fields are the flags of the same names.
#[derive(Clone, Debug, PartialEq)]
pub struct NsqlookupdOptions {
    /// The address that nsqd is told to use for this nsqlookupd.
    pub broadcast_address: String,
    /// The path of the config file; empty for none.
    pub config: String,
    /// The address to serve HTTP at.
    pub http_address: String,
    /// How long a silent producer counts as alive.
    pub inactive_producer_timeout: Duration,
    /// The form of the log.
    pub log_format: LogFormat,
    /// The quietest level that is logged.
    pub log_level: Level,
    /// What each log line begins with.
    pub log_prefix: String,
    /// Connections to the HTTP API; 0 for an eighth of the limit on open files, 8 to 1024.
    pub max_http_connections: u64,
    /// The most topics and channels together.
    pub max_names: u64,
    /// The most pairs of a topic or channel and an nsqd that has it.
    pub max_registrations: u64,
    /// The most registrations of one nsqd.
    pub max_registrations_per_nsqd: u64,
    /// What drives the server.
    pub runtime: Runtime,
    /// The address to serve the V1 protocol at.
    pub tcp_address: String,
    /// How long a tombstoned producer stays hidden.
    pub tombstone_lifetime: Duration,
    /// Accepted for compatibility, without effect in the reference too.
    pub verbose: bool,
    /// Whether only the version is asked for.
    pub version: bool,
}

impl Default for NsqlookupdOptions {
    fn default() -> Self {
        Self {
            broadcast_address: host_name(),
            config: String::new(),
            http_address: "0.0.0.0:4161".into(),
            inactive_producer_timeout: Duration::from_secs(300),
            log_format: LogFormat::Text,
            log_level: Level::Info,
            log_prefix: "[nsqlookupd] ".into(),
            max_http_connections: 0,
            max_names: NAMES_MAX as u64,
            max_registrations: REGISTRATIONS_MAX as u64,
            max_registrations_per_nsqd: REGISTRATIONS_MAX_PER_NSQD as u64,
            runtime: Runtime::Tokio,
            tcp_address: "0.0.0.0:4160".into(),
            tombstone_lifetime: Duration::from_secs(45),
            verbose: false,
            version: false,
        }
    }
}

impl Program for NsqlookupdOptions {
    const INTRO: &'static str = concat!(
        "nsqlookupd of sansq ",
        env!("CARGO_PKG_VERSION"),
        ": tells consumers which nsqd has their topic."
    );
    const USAGE: &'static str = "nsqlookupd [flags]";

    fn flags(&mut self) -> Vec<Flag<'_>> {
        let (general, log) = ("General", "Log");
        let (listen, producers, limits) = ("Listening", "Producers", "Limits");
        vec![
            Flag::new(general, "config", &mut self.config, "path of a TOML file with options")
                .not_in_file(),
            Flag::new(general, "version", &mut self.version, "print the version and end")
                .not_in_file(),
            Flag::new(general, "verbose", &mut self.verbose, "without effect").not_in_file(),
            Flag::new(
                general,
                "runtime",
                &mut self.runtime,
                "what drives the server: tokio, smol or async-std",
            ),
            Flag::new(
                listen,
                "tcp-address",
                &mut self.tcp_address,
                "host:port to listen on for nsqd",
            ),
            Flag::new(listen, "http-address", &mut self.http_address, "host:port to serve HTTP at"),
            Flag::new(
                listen,
                "max-http-connections",
                &mut self.max_http_connections,
                "connections to HTTP; one more closes the most idle; \
                 0: an eighth of the limit on open files, 8 to 1024",
            ),
            Flag::new(
                listen,
                "broadcast-address",
                &mut self.broadcast_address,
                "address that nsqd is told to reach this nsqlookupd at",
            )
            .by_default(HOST_NAME),
            Flag::new(
                producers,
                "inactive-producer-timeout",
                &mut self.inactive_producer_timeout,
                "how long an nsqd may be silent and still be listed",
            ),
            Flag::new(
                producers,
                "tombstone-lifetime",
                &mut self.tombstone_lifetime,
                "how long a producer stays hidden after /topic/tombstone",
            ),
            Flag::new(
                limits,
                "max-names",
                &mut self.max_names,
                "topics and channels together; those that no nsqd has go first",
            )
            .at_least(1),
            Flag::new(
                limits,
                "max-registrations",
                &mut self.max_registrations,
                "pairs of a topic or channel and an nsqd that has it; who has most gives way",
            )
            .at_least(1),
            Flag::new(
                limits,
                "max-registrations-per-nsqd",
                &mut self.max_registrations_per_nsqd,
                "topics and channels of one nsqd; more are refused",
            )
            .at_least(1),
            Flag::new(log, "log-level", &mut self.log_level, "debug, info, warn, error or fatal"),
            Flag::new(log, "log-prefix", &mut self.log_prefix, "what each log line begins with"),
            Flag::new(
                log,
                "log-format",
                &mut self.log_format,
                "text, or json: one object per line, without prefix",
            ),
        ]
    }

    fn version(&self) -> bool {
        self.version
    }

    fn config(&self) -> &str {
        &self.config
    }
}

/// What plain `sansq` runs with: nsqd's flags, and nsqlookupd's addresses behind a prefix.
///
/// It is what somebody starts who tries it out, so that it listens on this host only unless it is
/// told to do otherwise: nobody on the network finds a broker there that asks for no password.
#[derive(Clone, Debug, PartialEq)]
pub struct BothOptions {
    /// nsqd's options; the data path defaults to `./data`.
    pub nsqd: NsqdOptions,
    /// nsqlookupd's options.
    pub nsqlookupd: NsqlookupdOptions,
}

impl Default for BothOptions {
    fn default() -> Self {
        let nsqd = NsqdOptions {
            data_path: Self::DATA_PATH.into(),
            http_address: "127.0.0.1:4151".into(),
            https_address: "127.0.0.1:4152".into(),
            tcp_address: "127.0.0.1:4150".into(),
            ..NsqdOptions::default()
        };
        let nsqlookupd = NsqlookupdOptions {
            http_address: "127.0.0.1:4161".into(),
            tcp_address: "127.0.0.1:4160".into(),
            ..NsqlookupdOptions::default()
        };
        Self { nsqd, nsqlookupd }
    }
}

impl BothOptions {
    /// The data path unless another one is given; only this one is made if it is missing.
    pub const DATA_PATH: &str = "./data";

    /// Fills in what one server takes from the other: the log's options, the limit on HTTP
    /// connections, and nsqlookupd's address for nsqd unless one was given. An nsqlookupd at port 0
    /// is for the caller to add once its port is known. A server that listens on this host only
    /// tells others an address of this host.
    pub fn settle(&mut self) {
        self.nsqlookupd.log_format = self.nsqd.log_format;
        self.nsqlookupd.log_level = self.nsqd.log_level;
        self.nsqlookupd.max_http_connections = self.nsqd.max_http_connections;
        // A host's name need not lead to where only the host itself is heard.
        let host = host_name();
        if self.nsqd.broadcast_address == host
            && let Some(local) = loopback(&self.nsqd.tcp_address)
        {
            self.nsqd.broadcast_address = local;
        }
        if self.nsqlookupd.broadcast_address == host
            && let Some(local) = loopback(&self.nsqlookupd.http_address)
        {
            self.nsqlookupd.broadcast_address = local;
        }
        let address = &self.nsqlookupd.tcp_address;
        if self.nsqd.lookupd_tcp_address.is_empty() && !address.ends_with(":0") {
            let port = address.strip_prefix("0.0.0.0").or_else(|| address.strip_prefix("[::]"));
            let reachable = match port {
                Some(port) => format!("127.0.0.1{port}"),
                None if address.starts_with(':') => format!("127.0.0.1{address}"),
                None => address.clone(),
            };
            self.nsqd.lookupd_tcp_address.push(reachable);
        }
    }
}

/// The IP address of `host:port` if only this host can reach it.
fn loopback(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().ok()?;
    address.ip().is_loopback().then(|| address.ip().to_string())
}

impl Program for BothOptions {
    const INTRO: &'static str = concat!(
        "sansq ",
        env!("CARGO_PKG_VERSION"),
        ": NSQ's nsqd and nsqlookupd in one process, with ./data as data path.\n\
         They listen on 127.0.0.1 only: see Listening for more, such as --tcp-address=:4150.\n\
         `sansq help` lists the other things that sansq does."
    );
    const USAGE: &'static str = "sansq [flags]";

    fn flags(&mut self) -> Vec<Flag<'_>> {
        let group = "nsqlookupd beside it";
        let Self { nsqd, nsqlookupd } = self;
        let flags = nsqd.flags().into_iter().map(|flag| match flag.name() {
            "broadcast-address" => flag.by_default(HOST_NAME_OR_LOCAL),
            _ => flag,
        });
        let mut flags: Vec<_> = flags.collect();
        flags.extend([
            Flag::new(
                group,
                "nsqlookupd-tcp-address",
                &mut nsqlookupd.tcp_address,
                "host:port for its protocol",
            ),
            Flag::new(
                group,
                "nsqlookupd-http-address",
                &mut nsqlookupd.http_address,
                "host:port for its HTTP API",
            ),
            Flag::new(
                group,
                "nsqlookupd-broadcast-address",
                &mut nsqlookupd.broadcast_address,
                "address that nsqd is told to reach it at",
            )
            .by_default(HOST_NAME_OR_LOCAL),
        ]);
        flags
    }

    fn version(&self) -> bool {
        self.nsqd.version
    }

    fn config(&self) -> &str {
        &self.nsqd.config
    }
}

/// What the default is of an address that others are told, where a server may listen on this host
/// only.
const HOST_NAME_OR_LOCAL: &str = "127.0.0.1 if only this host is listened to, else the host's name";
