//! What the machines are given.

use std::path::PathBuf;

use sansq_core::client::directory::DirectoryOptions;
use sansq_core::client::{
    ConnectionOptions, ConsumerOptions, MAX_FRAME_SIZE, PoolOptions, ProducerOptions, Upgrades,
};
use sansq_core::log::Level;
use sansq_core::upgrade::ClientTls;

use super::{Config, ConfigError};
use crate::client::NetConfig;
use crate::client::wakers::log;
use crate::tls::{self, ClientTlsOptions, Loaded};

impl Config {
    /// What these settings are for a connection. Reads the files of TLS, if it is asked for.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting that is wrong; of a file it names the option and the file.
    pub fn connection_options(&self) -> Result<ConnectionOptions, ConfigError> {
        self.check()?;
        let max_frame_size = match self.max_msg_size {
            0 => MAX_FRAME_SIZE,
            // The answer to IDENTIFY is no message, and has to fit as well.
            size => (size as usize).max(FRAME_SIZE_LEAST),
        };
        let name = &self.tls_server_name;
        let upgrades = Upgrades {
            tls: self.tls_v1.then(|| self.tls_with_warnings()).transpose()?,
            tls_server_name: Some(name).filter(|name| !name.is_empty()).cloned(),
            snappy: self.snappy,
            deflate: self.deflate.then_some(self.deflate_level),
            required: self.upgrade_required,
        };
        let options = ConnectionOptions {
            client_id: self.client_id.clone(),
            hostname: self.hostname.clone(),
            user_agent: self.user_agent.clone(),
            heartbeat_interval: self.heartbeat_interval,
            output_buffer_size: self.output_buffer_size,
            output_buffer_timeout: self.output_buffer_timeout,
            msg_timeout: Some(self.msg_timeout).filter(|timeout| !timeout.is_zero()),
            sample_rate: self.sample_rate,
            topology_region: self.topology_region.clone(),
            topology_zone: self.topology_zone.clone(),
            auth_secret: self.auth_secret.clone(),
            dial_timeout: self.dial_timeout,
            handshake_timeout: self.handshake_timeout,
            read_timeout: self.read_timeout,
            max_frame_size,
            upgrades,
        };
        options.check()?;
        Ok(options)
    }

    /// What these settings are for a producer of one nsqd.
    ///
    /// # Errors
    /// As [`connection_options`](Self::connection_options).
    pub fn producer_options(&self) -> Result<ProducerOptions, ConfigError> {
        let default = ProducerOptions::default();
        let options = ProducerOptions {
            connection: self.connection_options()?,
            publish_timeout: self.publish_timeout,
            close_timeout: self.close_timeout,
            max_outstanding: self.max_outstanding,
            max_outstanding_bytes: self.max_outstanding_bytes,
            max_msg_size: match self.max_msg_size {
                0 => default.max_msg_size,
                size => size as usize,
            },
            max_body_size: self.max_body_size as usize,
            max_req_timeout: self.max_req_timeout,
            linger: self.linger,
            backoff_min: self.redial_min,
            backoff_max: self.redial_max,
        };
        options.check()?;
        Ok(options)
    }

    /// What these settings are for a producer of any number of nsqds.
    ///
    /// # Errors
    /// As [`connection_options`](Self::connection_options).
    pub fn pool_options(&self) -> Result<PoolOptions, ConfigError> {
        let producer = self.producer_options()?;
        let lookupd = DirectoryOptions {
            poll_interval: self.lookupd_poll_interval,
            poll_jitter: self.lookupd_poll_interval.mul_f64(self.lookupd_poll_jitter),
            poll_timeout: self.lookupd_poll_timeout,
            ..DirectoryOptions::default()
        };
        let lookupd_authorization = self.skip_lookupd_authorization;
        Ok(PoolOptions { producer, retry: self.retry, lookupd, lookupd_authorization })
    }

    /// What these settings are for a consumer.
    ///
    /// # Errors
    /// As [`connection_options`](Self::connection_options).
    pub fn consumer_options(&self) -> Result<ConsumerOptions, ConfigError> {
        let options = ConsumerOptions {
            connection: self.connection_options()?,
            max_in_flight: self.max_in_flight,
            max_attempts: self.max_attempts,
            default_requeue_delay: self.default_requeue_delay,
            max_requeue_delay: self.max_requeue_delay,
            rdy_shares: self.rdy_shares,
            rdy_redistribute_interval: self.rdy_redistribute_interval,
            backoff_scope: self.backoff_scope,
            backoff_strategy: self.backoff_strategy,
            backoff_multiplier: self.backoff_multiplier,
            max_backoff_duration: self.max_backoff_duration,
            low_rdy_idle_timeout: self.low_rdy_idle_timeout,
            low_rdy_timeout: self.low_rdy_timeout,
            lookupd_poll_interval: self.lookupd_poll_interval,
            // Checked to be 0 to 1.
            lookupd_poll_jitter_percent: (self.lookupd_poll_jitter * 100.0).round() as u8,
            lookupd_poll_timeout: self.lookupd_poll_timeout,
            lookupd_authorization: self.skip_lookupd_authorization,
            auto_touch: self.auto_touch,
            redial_min: self.redial_min,
            redial_max: self.redial_max,
            ..ConsumerOptions::default()
        };
        options.check()?;
        Ok(options)
    }

    /// What these settings say about sockets, and about nsqlookupds that are asked over HTTPS: whom
    /// nsqds are believed by TLS, they are too.
    ///
    /// # Errors
    /// As [`connection_options`](Self::connection_options).
    pub fn net_config(&self) -> Result<NetConfig, ConfigError> {
        self.check()?;
        // What is left out of the files is said where they are read for connections.
        let http_tls = self.tls_v1.then(|| self.tls()).transpose()?.map(|loaded| loaded.tls);
        Ok(NetConfig { local_address: self.local_addr, http_tls, ..NetConfig::default() })
    }

    fn tls_with_warnings(&self) -> Result<ClientTls, ConfigError> {
        let loaded = self.tls()?;
        for warning in loaded.warnings {
            log(Level::Warn, format_args!("TLS: {warning}"));
        }
        Ok(loaded.tls)
    }

    fn tls(&self) -> Result<Loaded<ClientTls>, ConfigError> {
        if let Some(tls) = &self.tls_config {
            return Ok(Loaded { tls: tls.clone(), warnings: Vec::new() });
        }
        let given =
            |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let options = ClientTlsOptions {
            root_ca_file: given(&self.tls_root_ca_file),
            identity: given(&self.tls_cert).zip(given(&self.tls_key)),
            min_version: self.tls_min_version,
            insecure_skip_verify: self.tls_insecure_skip_verify,
        };
        tls::client(&options).map_err(|error| {
            let reason = error.to_string();
            let is_about = |path: &Option<PathBuf>| {
                let file = path.as_ref().map(|path| format!("{}: ", path.display()));
                file.is_some_and(|file| reason.starts_with(&file))
            };
            let files = [
                ("tls_root_ca_file", &self.tls_root_ca_file),
                ("tls_cert", &self.tls_cert),
                ("tls_key", &self.tls_key),
            ];
            let blamed = files.into_iter().find(|(_, path)| is_about(path));
            let name = blamed.map_or("tls_v1", |(name, _)| name);
            ConfigError::File { name, reason }
        })
    }
}

/// The least that connections take.
const FRAME_SIZE_LEAST: usize = 4096;
