//! TLS from files: certificates, keys and authorities in PEM (nsqd-protocol.md section 17,
//! http-and-ops.md section 4).
//!
//! Versions are 1.2 and 1.3; rustls has no older ones. Sessions are not resumed: NSQ's connections
//! live long, and what would be remembered for their next one is memory and one more secret.
//!
//! What can't be read in a file of several certificates is left out, with a warning; what is then
//! missing is an error.

mod authorities;
mod certificate;
mod identity;
mod pem;
mod verify;

use core::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion, version};
use sansq_core::upgrade::{ClientTls, ServerTls};
use serde::{Deserialize, Serialize};

use self::authorities::Authorities;
use self::identity::{certificates, identity};
use self::verify::{AnyClient, AnyServer, KnownClient, KnownServer};

/// What a server's TLS is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerTlsOptions {
    /// The certificate, with those between it and the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities for clients' certificates; `None` for those of the system.
    pub root_ca_file: Option<PathBuf>,
    /// What is expected of clients.
    pub client_auth: ClientAuth,
    /// The oldest version.
    pub min_version: MinVersion,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClientAuth {
    /// No, and they are not asked for one.
    #[default]
    None,
    /// Any, no matter whose: it only has to be theirs.
    Require,
    /// One of an authority that is known.
    RequireVerify,
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum MinVersion {
    /// TLS 1.2. Older versions are not to be had, so their names mean this one.
    #[default]
    #[serde(rename = "tls1.2", alias = "tls1.1", alias = "tls1.0", alias = "ssl3.0")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "tls1.3")]
    Tls13,
}

impl MinVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => &ONLY_TLS13,
        }
    }
}

/// What was read, and what was left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loaded<T> {
    /// What TLS is spoken with.
    pub tls: T,
    /// What of the files is not used, a line each, which names the file and says why.
    pub warnings: Vec<String>,
}

/// Reads what a server speaks TLS with, for NSQ's protocol and for HTTPS.
///
/// # Errors
/// If a file can't be read, or has not in it what it should; the text names the file.
pub fn server(options: &ServerTlsOptions) -> io::Result<Loaded<ServerTls>> {
    let mut warnings = Vec::new();
    let provider = Arc::new(ring::default_provider());
    let own = identity(&options.cert, &options.key, &provider, &mut warnings)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(options.min_version.versions())
        .map_err(invalid)?;
    // The file is read even if nobody's certificate will be held against it: a mistake in it shows
    // now.
    let known = options.root_ca_file.as_deref();
    let known = known.map(|path| authorities_in(path, &provider, &mut warnings)).transpose()?;
    let builder = match options.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Require => {
            let algorithms = provider.signature_verification_algorithms;
            builder.with_client_cert_verifier(Arc::new(AnyClient(algorithms)))
        }
        ClientAuth::RequireVerify => {
            let known = known.map_or_else(|| authorities_of_system(&provider), Ok)?;
            builder.with_client_cert_verifier(Arc::new(KnownClient(Arc::new(known))))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { tls: ServerTls::new(Arc::new(config)), warnings })
}

/// What a client's TLS is made of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientTlsOptions {
    /// The authorities that are trusted; `None` for those of the system.
    pub root_ca_file: Option<PathBuf>,
    /// The client's own certificate, with those between it and the authority, and the file of its
    /// key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The oldest version.
    pub min_version: MinVersion,
    /// Trusts every server, whoever it is: what is sent is hidden from those who listen, and not
    /// from those who come in between.
    pub insecure_skip_verify: bool,
}

/// Reads what a client speaks TLS with.
///
/// # Errors
/// If a file can't be read, or has not in it what it should, or there is no authority; the text
/// names the file.
pub fn client(options: &ClientTlsOptions) -> io::Result<Loaded<ClientTls>> {
    let mut warnings = Vec::new();
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(options.min_version.versions())
        .map_err(invalid)?
        .dangerous();
    // The file is read even if no certificate will be held against it: a mistake in it shows now.
    let known = options.root_ca_file.as_deref();
    let known = known.map(|path| authorities_in(path, &provider, &mut warnings)).transpose()?;
    let builder = if options.insecure_skip_verify {
        let algorithms = provider.signature_verification_algorithms;
        builder.with_custom_certificate_verifier(Arc::new(AnyServer(algorithms)))
    } else {
        let known = known.map_or_else(|| authorities_of_system(&provider), Ok)?;
        builder.with_custom_certificate_verifier(Arc::new(KnownServer(Arc::new(known))))
    };
    let config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let own = identity(cert, key, &provider, &mut warnings)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
        }
    };
    let config = Arc::new(config);
    let tls = if options.insecure_skip_verify {
        ClientTls::with_any_name(config)
    } else {
        ClientTls::new(config)
    };
    Ok(Loaded { tls, warnings })
}

/// The certificates of the system's authorities that may vouch for servers now, for whoever speaks
/// TLS without [`client`].
///
/// # Errors
/// If there are none.
pub fn system_authorities() -> io::Result<Vec<CertificateDer<'static>>> {
    let known = authorities_of_system(&ring::default_provider())?;
    let certificates: Vec<_> = known.of_servers(UnixTime::now()).cloned().collect();
    if certificates.is_empty() {
        return Err(invalid("no certificate of the system's authorities is valid now"));
    }
    Ok(certificates)
}

/// Those whom a file says to trust.
fn authorities_in(
    path: &Path,
    provider: &CryptoProvider,
    warnings: &mut Vec<String>,
) -> io::Result<Authorities> {
    let algorithms = provider.signature_verification_algorithms;
    certificates(path, warnings).map(|trusted| Authorities::new(trusted, algorithms))
}

fn authorities_of_system(provider: &CryptoProvider) -> io::Result<Authorities> {
    let found = rustls_native_certs::load_native_certs();
    let known = Authorities::new(found.certs, provider.signature_verification_algorithms);
    match found.errors.into_iter().next() {
        _ if !known.is_empty() => Ok(known),
        Some(error) => Err(invalid(error)),
        None => Err(invalid("the system has no authorities' certificates")),
    }
}

/// The line about something in a file that is not used.
fn warning(path: &Path, why: &str) -> String {
    format!("{}: {why}; the rest of the file is used", path.display())
}

fn in_file(path: &Path, why: impl fmt::Display) -> io::Error {
    invalid(format!("{}: {why}", path.display()))
}

fn invalid(why: impl fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, why.to_string())
}

#[cfg(test)]
mod tests;
