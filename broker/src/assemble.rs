//! The servers, on the runtime that the user chose.

use core::hash::{BuildHasher, Hasher};
use std::collections::hash_map::RandomState;
use std::io;
use std::path::{Path, PathBuf};

use sansq_core::log::Level;
use sansq_core::nsqd::http::{Memory, OptionValue};
use sansq_core::nsqd::{self, AuthMethod, Config, StatsdOptions};
use sansq_core::nsqlookupd;
use sansq_core::upgrade::{ClientTls, ServerTls};
use sansq_runtime::options;
use sansq_runtime::storage::DataPath;
use sansq_runtime::tls::{
    self, ClientAuth, ClientTlsOptions, Loaded, MinVersion, ServerTlsOptions,
};
use sansq_smol::{Address, Executor};
use sansq_toolkit::log::{NSQD, log, set_nsqd_level};

use crate::args::{
    NsqdOptions, NsqlookupdOptions, Runtime, TlsRequired, TlsVersion, host_name, shown,
};
use crate::limits::{self, Connections, raise_open_files};

/// A running server on any runtime.
#[derive(Debug)]
pub(crate) enum Running {
    Smol(sansq_smol::ServerHandle),
    Tokio(sansq_tokio::ServerHandle),
}

/// Ends a server that another thread waits for.
#[derive(Debug)]
pub(crate) enum Stopper {
    Smol(sansq_smol::Stopper),
    Tokio(sansq_tokio::Stopper),
}

impl Running {
    pub(crate) fn tcp_addr(&self) -> &Address {
        match self {
            Self::Smol(server) => server.tcp_addr(),
            Self::Tokio(server) => server.tcp_addr(),
        }
    }

    pub(crate) fn http_addr(&self) -> Option<&Address> {
        match self {
            Self::Smol(server) => server.http_addr(),
            Self::Tokio(server) => server.http_addr(),
        }
    }

    pub(crate) fn stopper(&self) -> Stopper {
        match self {
            Self::Smol(server) => Stopper::Smol(server.stopper()),
            Self::Tokio(server) => Stopper::Tokio(server.stopper()),
        }
    }

    pub(crate) fn join(self) -> io::Result<()> {
        match self {
            Self::Smol(server) => server.join(),
            Self::Tokio(server) => server.join(),
        }
    }
}

impl Stopper {
    pub(crate) fn shut_down(&self) {
        match self {
            Self::Smol(stopper) => stopper.shut_down(),
            Self::Tokio(stopper) => stopper.shut_down(),
        }
    }
}

/// Starts an nsqd.
pub(crate) fn start_nsqd(
    flags: &NsqdOptions,
    tls: Option<ServerTls>,
    data_path: DataPath,
) -> io::Result<Running> {
    let mut options = nsqd_options(flags);
    options.config.tls = tls;
    options.client_tls = client_tls(flags)?;
    match flags.runtime {
        Runtime::Tokio => sansq_tokio::Nsqd::bind(options, data_path)?.spawn().map(Running::Tokio),
        Runtime::Smol => sansq_smol::Nsqd::bind(options, data_path)?.spawn().map(Running::Smol),
        Runtime::AsyncStd => sansq_smol::Nsqd::bind(options, data_path)?
            .spawn_on(Executor::AsyncStd)
            .map(Running::Smol),
    }
}

/// Starts an nsqlookupd.
pub(crate) fn start_nsqlookupd(flags: &NsqlookupdOptions) -> io::Result<Running> {
    let options = options::LookupdOptions {
        tcp_address: flags.tcp_address.clone(),
        http_address: flags.http_address.clone(),
        max_http_connections: limits::http(flags.max_http_connections, raise_open_files()),
        config: nsqlookupd::LookupdConfig {
            broadcast_address: flags.broadcast_address.clone(),
            hostname: host_name(),
            inactive_producer_timeout: flags.inactive_producer_timeout,
            tombstone_lifetime: flags.tombstone_lifetime,
            names_max: size(flags.max_names),
            registrations_max: size(flags.max_registrations),
            registrations_max_per_nsqd: size(flags.max_registrations_per_nsqd),
            ..nsqlookupd::LookupdConfig::default()
        },
    };
    match flags.runtime {
        Runtime::Tokio => sansq_tokio::Lookupd::bind(options)?.spawn().map(Running::Tokio),
        Runtime::Smol => sansq_smol::Lookupd::bind(options)?.spawn().map(Running::Smol),
        Runtime::AsyncStd => {
            sansq_smol::Lookupd::bind(options)?.spawn_on(Executor::AsyncStd).map(Running::Smol)
        }
    }
}

/// What clients get TLS with: `None` without a certificate.
pub(crate) fn server_tls(flags: &NsqdOptions) -> io::Result<Option<Loaded<ServerTls>>> {
    if flags.tls_cert.is_empty() {
        return Ok(None);
    }
    let path = |text: &String| PathBuf::from(text);
    let options = ServerTlsOptions {
        cert: path(&flags.tls_cert),
        key: path(&flags.tls_key),
        root_ca_file: Some(path(&flags.tls_root_ca_file)).filter(|path| path != Path::new("")),
        client_auth: match flags.tls_client_auth_policy.as_str() {
            "require" => ClientAuth::Require,
            "require-verify" => ClientAuth::RequireVerify,
            _ => ClientAuth::None,
        },
        min_version: min_version(flags.tls_min_version),
    };
    tls::server(&options).map(Some)
}

/// Whom auth servers and nsqlookupds are believed that are asked over TLS. If the system has no
/// authorities, nobody is: that is no reason not to start, since few of them are asked so.
fn client_tls(flags: &NsqdOptions) -> io::Result<Option<ClientTls>> {
    let min_version = min_version(flags.tls_min_version);
    if flags.auth_http_addresses.is_empty() && flags.nsqlookupd_tcp_addresses.is_empty() {
        return Ok(None);
    }
    if flags.tls_root_ca_file.is_empty() {
        let options = ClientTlsOptions { min_version, ..ClientTlsOptions::default() };
        return Ok(tls::client(&options).ok().map(|loaded| loaded.tls));
    }
    let root_ca_file = Some(PathBuf::from(&flags.tls_root_ca_file));
    let options = ClientTlsOptions { root_ca_file, min_version, ..ClientTlsOptions::default() };
    let loaded = tls::client(&options).map_err(|error| {
        io::Error::new(error.kind(), format!("failed to build client TLS config - {error}"))
    })?;
    // Else it was said of the same file when the server's TLS was made.
    if flags.tls_cert.is_empty() {
        log_tls(&loaded.warnings);
    }
    Ok(Some(loaded.tls))
}

/// Says what is left out of the files of TLS.
pub(crate) fn log_tls(warnings: &[String]) {
    for warning in warnings {
        log(NSQD, Level::Warn, format_args!("TLS: {warning}"));
    }
}

/// TLS 1.0 and 1.1 are not to be had: asking for them as the oldest is asking for 1.2.
fn min_version(version: TlsVersion) -> MinVersion {
    match version {
        TlsVersion::Tls10 | TlsVersion::Tls11 | TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    }
}

fn nsqd_options(flags: &NsqdOptions) -> options::NsqdOptions {
    let config = Config {
        node_id: u16::try_from(flags.id).unwrap_or_default(),
        broadcast_address: flags.broadcast_address.clone(),
        broadcast_tcp_port: flags.broadcast_tcp_port,
        broadcast_http_port: flags.broadcast_http_port,
        hostname: host_name(),
        lookupd_tcp_addresses: flags.nsqlookupd_tcp_addresses.clone(),
        auth_http_addresses: flags.auth_http_addresses.clone(),
        auth_http_request_method: match flags.auth_http_request_method.as_str() {
            "post" => AuthMethod::Post,
            _ => AuthMethod::Get,
        },
        http_client_connect_timeout: flags.http_client_connect_timeout,
        http_client_request_timeout: flags.http_client_request_timeout,
        topology_region: flags.topology_region.clone(),
        topology_zone: flags.topology_zone.clone(),
        topology_aware_consumption: flags
            .enable_experiment
            .iter()
            .any(|experiment| experiment == "topology-aware-consumption"),
        mem_queue_size: size(flags.mem_queue_size),
        metrics_aggregate: flags.metrics_aggregate,
        max_bytes_per_file: flags.max_bytes_per_file,
        sync_every: flags.sync_every,
        sync_timeout: flags.sync_timeout,
        max_msg_size: size(flags.max_msg_size),
        max_body_size: size(flags.max_body_size),
        max_unanswered_bytes: size(flags.max_unanswered_bytes),
        msg_timeout: flags.msg_timeout,
        max_msg_timeout: flags.max_msg_timeout,
        max_req_timeout: flags.max_req_timeout,
        max_heartbeat_interval: flags.max_heartbeat_interval,
        max_rdy_count: u32::try_from(flags.max_rdy_count).unwrap_or(u32::MAX),
        max_output_buffer_size: size(flags.max_output_buffer_size),
        output_buffer_timeout: flags.output_buffer_timeout,
        min_output_buffer_timeout: flags.min_output_buffer_timeout,
        max_output_buffer_timeout: flags.max_output_buffer_timeout,
        max_channel_consumers: size(flags.max_channel_consumers),
        max_topics: size(flags.max_topics),
        max_channels_per_topic: size(flags.max_channels_per_topic),
        e2e_processing_latency_percentiles: flags.e2e_processing_latency_percentiles.clone(),
        e2e_processing_latency_window_time: flags.e2e_processing_latency_window_time,
        statsd: StatsdOptions {
            address: flags.statsd_address.clone(),
            prefix: flags.statsd_prefix.clone(),
            interval: flags.statsd_interval,
            mem_stats: flags.statsd_mem_stats,
            udp_packet_size: size(flags.statsd_udp_packet_size),
            exclude_ephemeral: flags.statsd_exclude_ephemeral,
        },
        deflate: flags.deflate,
        snappy: flags.snappy,
        tls_required: match flags.tls_required {
            TlsRequired::No => nsqd::TlsRequired::No,
            TlsRequired::Yes => nsqd::TlsRequired::Yes,
            TlsRequired::ExceptHttp => nsqd::TlsRequired::TcpHttps,
        },
        max_deflate_level: u8::try_from(flags.max_deflate_level).unwrap_or_default(),
        ..Config::default()
    };
    let connections = Connections::new(
        flags.max_connections,
        flags.max_http_connections,
        raise_open_files(),
        flags.shards,
    );
    let mut shown = shown(flags);
    for (name, count) in
        [("max_connections", connections.clients), ("max_http_connections", connections.http)]
    {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        shown.set(name, OptionValue::Integer(count));
    }
    options::NsqdOptions {
        tcp_address: flags.tcp_address.clone(),
        http_address: Some(flags.http_address.clone()).filter(|address| !address.is_empty()),
        https_address: Some(flags.https_address.clone()).filter(|address| !address.is_empty()),
        // Whoever starts it reads the files first.
        client_tls: None,
        max_connections: connections.clients,
        max_http_connections: connections.http,
        data_files: connections.data_files,
        shards: flags.shards,
        // Chance is only asked for here; everything inside follows from this number.
        seed: RandomState::new().build_hasher().finish(),
        utc_offset: jiff::Zoned::now().offset().seconds(),
        memory: Some(memory),
        free_memory: FREE_MEMORY,
        shown,
        set_log_level: Some(set_nsqd_level),
        config,
    }
}

/// The memory that the process has in use: its resident set, which is what an operator's other
/// tools show. 0 where the system does not tell.
fn memory() -> Memory {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let page_size = rustix::param::page_size() as u64;
    Memory { heap_in_use_bytes: pages.unwrap_or_default() * page_size, ..Memory::default() }
}

/// glibc keeps what a backlog took when the backlog is gone, for the next one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_MEMORY: Option<fn()> = Some(|| {
    #[expect(unsafe_code, reason = "no safe function asks glibc's allocator to give memory back")]
    // SAFETY: it may be called at any time, by any thread, and touches only what is not allocated.
    unsafe {
        libc::malloc_trim(0);
    }
});
/// Other allocators can't be asked.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
const FREE_MEMORY: Option<fn()> = None;

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
