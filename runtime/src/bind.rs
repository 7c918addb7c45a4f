//! Options checked, listeners opened: what comes before a server's first thread.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use sansq_core::nsqd::http::OptionValue;
use sansq_core::nsqd::statsd_prefix;

use crate::listen::{Listener, Listens};
use crate::options::{LookupdOptions, NsqdOptions, SHARDS_MAX};
use crate::socket::Address;

/// A server whose listeners are open and which does not run yet.
#[derive(Debug)]
pub struct Bound<O> {
    /// The options, with the ports really listened on.
    pub options: O,
    /// For NSQ's protocol.
    pub tcp: Listener,
    /// For the HTTP API, unless it is switched off.
    pub http: Option<Listener>,
    /// For the HTTP API over TLS, if there is a certificate and it is not switched off.
    pub https: Option<Listener>,
}

impl<O> Bound<O> {
    /// Where NSQ's protocol is spoken.
    pub const fn tcp_addr(&self) -> &Address {
        &self.tcp.address
    }

    /// Where the HTTP API listens, unless it is switched off.
    pub fn http_addr(&self) -> Option<&Address> {
        self.http.as_ref().map(|http| &http.address)
    }
}

impl Bound<NsqdOptions> {
    /// Where the HTTP API listens over TLS, if it does.
    pub fn https_addr(&self) -> Option<&Address> {
        self.https.as_ref().map(|https| &https.address)
    }

    /// Opens an nsqd's listeners.
    ///
    /// # Errors
    /// If an option is out of range, or an address cannot be listened on; the text names it
    /// (http-and-ops.md section 4).
    pub fn nsqd(mut options: NsqdOptions) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        options.config.check().map_err(|error| invalid(error.to_string()))?;
        if options.shards == 0 || options.shards > SHARDS_MAX {
            return Err(invalid(format!("--shards must be [1,{SHARDS_MAX}]")));
        }
        let tcp = Listener::open(Listens::Clients, &options.tcp_address)?;
        let http = options.http_address.as_deref();
        let http = http.map(|address| Listener::open(Listens::Http, address)).transpose()?;
        let https = options.https_address.as_deref().filter(|_| options.config.tls.is_some());
        let https = https.map(|address| Listener::open_tcp(Listens::Https, address)).transpose()?;
        let config = &mut options.config;
        config.disk = true;
        // -1 for a unix socket; 0 if HTTP is off.
        let shown = |listener: &Listener| listener.address.port().map_or(-1, i32::from);
        (config.tcp_port, config.http_port) = (shown(&tcp), http.as_ref().map_or(0, shown));
        config.https_port = https.as_ref().map_or(0, shown);
        if config.broadcast_tcp_port == 0 {
            config.broadcast_tcp_port = tcp.address.port().unwrap_or(0);
        }
        if config.broadcast_http_port == 0 {
            let port = http.as_ref().and_then(|http| http.address.port());
            config.broadcast_http_port = port.unwrap_or(0);
        }
        for (name, port) in [
            ("broadcast_tcp_port", config.broadcast_tcp_port),
            ("broadcast_http_port", config.broadcast_http_port),
        ] {
            options.shown.set(name, OptionValue::Integer(port.into()));
        }
        // What is given is a pattern; only now is known what it stands for.
        let statsd = &mut config.statsd;
        let (host, port) = (&config.broadcast_address, config.broadcast_http_port);
        statsd.prefix = statsd_prefix(&statsd.prefix, host, port);
        options.shown.set("statsd_prefix", OptionValue::Text(statsd.prefix.clone()));
        if config.start_time == 0 {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            config.start_time = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        }
        Ok(Self { options, tcp, http, https })
    }
}

impl Bound<LookupdOptions> {
    /// Opens an nsqlookupd's listeners.
    ///
    /// # Errors
    /// If an address cannot be listened on; the text names it.
    pub fn lookupd(mut options: LookupdOptions) -> io::Result<Self> {
        let tcp = Listener::open_tcp(Listens::Nsqds, &options.tcp_address)?;
        let http = Listener::open_tcp(Listens::LookupHttp, &options.http_address)?;
        options.config.tcp_port = tcp.address.port().unwrap_or(0);
        options.config.http_port = http.address.port().unwrap_or(0);
        Ok(Self { options, tcp, http: Some(http), https: None })
    }
}
