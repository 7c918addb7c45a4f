//! nsqlookupd's options, and those of both servers in one process.
//!
//! Source: http-and-ops.md section 5.

use core::net::SocketAddr;
use core::time::Duration;

use clap::{ArgMatches, Command, Parser, ValueHint};
use sansq_core::log::Level;
use sansq_core::nsqlookupd::{NAMES_MAX, REGISTRATIONS_MAX, REGISTRATIONS_MAX_PER_NSQD};
use sansq_toolkit::flags::level;
use serde::Serialize;

use super::value::{count, duration, level_number, positive};
use super::{LogFormat, NsqdOptions, Program, Runtime, defaults, host_name};

/// What nsqlookupd runs with. The fields have the options' names in the config file.
#[derive(Clone, Debug, Parser, PartialEq, Serialize)]
#[command(name = "nsqlookupd")]
pub struct NsqlookupdOptions {
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
    /// What drives the server: tokio, smol or async-std
    #[arg(long, help_heading = "General", default_value = "tokio")]
    pub runtime: Runtime,
    /// host:port to listen on for nsqd
    #[arg(long, help_heading = "Listening", default_value = "0.0.0.0:4160")]
    pub tcp_address: String,
    /// host:port to serve HTTP at
    #[arg(long, help_heading = "Listening", default_value = "0.0.0.0:4161")]
    pub http_address: String,
    /// Connections to HTTP; one more closes the most idle; 0: an eighth of the limit on open files,
    /// 8 to 1024
    #[arg(long, help_heading = "Listening", default_value_t = 0, value_parser = count)]
    pub max_http_connections: u64,
    /// Address that nsqd is told to reach this nsqlookupd at [default: the host's name]
    #[arg(long, help_heading = "Listening")]
    #[arg(default_value_t = host_name(), hide_default_value = true)]
    pub broadcast_address: String,
    /// How long an nsqd may be silent and still be listed
    #[arg(long, help_heading = "Producers", default_value = "5m0s", value_parser = duration)]
    pub inactive_producer_timeout: Duration,
    /// How long a producer stays hidden after /topic/tombstone
    #[arg(long, help_heading = "Producers", default_value = "45s", value_parser = duration)]
    pub tombstone_lifetime: Duration,
    /// Topics and channels together; those that no nsqd has go first
    #[arg(long, help_heading = "Limits")]
    #[arg(default_value_t = NAMES_MAX as u64, value_parser = positive)]
    pub max_names: u64,
    /// Pairs of a topic or channel and an nsqd that has it; who has most gives way
    #[arg(long, help_heading = "Limits")]
    #[arg(default_value_t = REGISTRATIONS_MAX as u64, value_parser = positive)]
    pub max_registrations: u64,
    /// Topics and channels of one nsqd; more are refused
    #[arg(long, help_heading = "Limits")]
    #[arg(default_value_t = REGISTRATIONS_MAX_PER_NSQD as u64, value_parser = positive)]
    pub max_registrations_per_nsqd: u64,
    /// debug, info, warn, error or fatal
    #[arg(long, help_heading = "Log", default_value = "info", value_parser = level())]
    #[serde(serialize_with = "level_number")]
    pub log_level: Level,
    /// What each log line begins with
    #[arg(long, help_heading = "Log", default_value = "[nsqlookupd] ")]
    pub log_prefix: String,
    /// text, or json: one object per line, without prefix
    #[arg(long, help_heading = "Log", default_value = "text")]
    pub log_format: LogFormat,
}

impl Default for NsqlookupdOptions {
    fn default() -> Self {
        defaults()
    }
}

impl Program for NsqlookupdOptions {
    const ABOUT: &'static str = concat!(
        "nsqlookupd of sansq ",
        env!("CARGO_PKG_VERSION"),
        ": tells consumers which nsqd has their topic."
    );
}

/// What plain `sansq` runs with: nsqd's options, and nsqlookupd's addresses behind a prefix.
///
/// It is what somebody starts who tries it out, so that it listens on this host only unless it is
/// told to do otherwise: nobody on the network finds a broker there that asks for no password.
#[derive(Clone, Debug, Parser, PartialEq, Serialize)]
#[command(name = "sansq")]
pub struct BothOptions {
    /// nsqd's options, with other defaults.
    #[command(flatten)]
    #[serde(flatten)]
    pub nsqd: NsqdOptions,
    /// host:port for its protocol
    #[arg(long, help_heading = BESIDE, default_value = "127.0.0.1:4160")]
    pub nsqlookupd_tcp_address: String,
    /// host:port for its HTTP API
    #[arg(long, help_heading = BESIDE, default_value = "127.0.0.1:4161")]
    pub nsqlookupd_http_address: String,
    /// Address that nsqd is told to reach it at
    /// [default: 127.0.0.1 if only this host is listened to, else the host's name]
    #[arg(long, help_heading = BESIDE)]
    #[arg(default_value_t = host_name(), hide_default_value = true)]
    pub nsqlookupd_broadcast_address: String,
}

impl Default for BothOptions {
    fn default() -> Self {
        defaults()
    }
}

impl Program for BothOptions {
    const ABOUT: &'static str = concat!(
        "sansq ",
        env!("CARGO_PKG_VERSION"),
        ": NSQ's nsqd and nsqlookupd in one process, with ./data as data path.\n\
         They listen on 127.0.0.1 only: see Listening for more, such as --tcp-address=:4150.\n\
         `sansq help` lists the other things that sansq does."
    );

    fn adapt(command: Command) -> Command {
        command
            .mut_arg("data_path", |arg| arg.default_value(Self::DATA_PATH))
            .mut_arg("tcp_address", |arg| arg.default_value("127.0.0.1:4150"))
            .mut_arg("http_address", |arg| arg.default_value("127.0.0.1:4151"))
            .mut_arg("https_address", |arg| arg.default_value("127.0.0.1:4152"))
            .mut_arg("broadcast_address", |arg| {
                arg.help(
                    "Address that nsqlookupd passes on to consumers [default: 127.0.0.1 if only \
                     this host is listened to, else the host's name]",
                )
            })
    }

    fn heed(&mut self, given: &ArgMatches) {
        self.nsqd.heed(given);
    }
}

impl BothOptions {
    /// The data path unless another one is given; only this one is made if it is missing.
    pub const DATA_PATH: &str = "./data";

    /// The options of the two servers. nsqlookupd takes those of the log and the limit on HTTP
    /// connections from nsqd; nsqd takes nsqlookupd's address unless one was given. An nsqlookupd
    /// at port 0 is for the caller to add once its port is known. A server that listens on this
    /// host only tells others an address of this host.
    pub fn split(self) -> (NsqdOptions, NsqlookupdOptions) {
        let Self { mut nsqd, nsqlookupd_tcp_address: address, .. } = self;
        // A host's name need not lead to where only the host itself is heard.
        let host = host_name();
        let reachable = |broadcast: String, listens: &str| match loopback(listens) {
            Some(local) if broadcast == host => local,
            _ => broadcast,
        };
        nsqd.broadcast_address = reachable(nsqd.broadcast_address, &nsqd.tcp_address);
        if nsqd.nsqlookupd_tcp_addresses.is_empty() && !address.ends_with(":0") {
            let port = address.strip_prefix("0.0.0.0").or_else(|| address.strip_prefix("[::]"));
            nsqd.nsqlookupd_tcp_addresses.push(match port {
                Some(port) => format!("127.0.0.1{port}"),
                None if address.starts_with(':') => format!("127.0.0.1{address}"),
                None => address.clone(),
            });
        }
        let nsqlookupd = NsqlookupdOptions {
            broadcast_address: reachable(
                self.nsqlookupd_broadcast_address,
                &self.nsqlookupd_http_address,
            ),
            http_address: self.nsqlookupd_http_address,
            log_format: nsqd.log_format,
            log_level: nsqd.log_level,
            max_http_connections: nsqd.max_http_connections,
            runtime: nsqd.runtime,
            tcp_address: address,
            ..NsqlookupdOptions::default()
        };
        (nsqd, nsqlookupd)
    }
}

/// The IP address of `host:port` if only this host can reach it.
fn loopback(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().ok()?;
    address.ip().is_loopback().then(|| address.ip().to_string())
}

/// What the flags of the second server are called on the help page.
const BESIDE: &str = "nsqlookupd beside it";
