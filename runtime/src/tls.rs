//! TLS from files: certificates, keys and authorities in PEM (nsqd-protocol.md section 17, http-and-ops.md
//! section 4).
//!
//! Versions are 1.2 and 1.3; rustls has no older ones. Sessions are not resumed: NSQ's connections live long,
//! and what would be remembered for their next one is memory and one more secret.

use core::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion, version,
};
use sansq_core::upgrade::{ClientTls, ServerTls};

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
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
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

/// Reads what a server speaks TLS with, for NSQ's protocol and for HTTPS.
///
/// # Errors
/// If a file can't be read, or has not in it what it should; the text names the file.
pub fn server(options: &ServerTlsOptions) -> io::Result<ServerTls> {
    let certificates = certificates(&options.cert)?;
    let key = private_key(&options.key)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(options.min_version.versions())
        .map_err(invalid)?;
    // The file is read even if nobody's certificate will be held against it: a mistake in it shows now.
    let roots = options.root_ca_file.as_deref().map(roots_in).transpose()?;
    let builder = match options.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Require => builder.with_client_cert_verifier(Arc::new(Anybody(provider))),
        ClientAuth::RequireVerify => {
            let roots = Arc::new(roots.map_or_else(system_roots, Ok)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().map_err(invalid)?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| in_file(&options.key, error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(ServerTls::new(Arc::new(config)))
}

/// What a client's TLS is made of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientTlsOptions {
    /// The authorities that are trusted; `None` for those of the system.
    pub root_ca_file: Option<PathBuf>,
    /// The client's own certificate, with those between it and the authority, and the file of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The oldest version.
    pub min_version: MinVersion,
    /// Trusts every server, whoever it is: what is sent is hidden from those who listen, and not from
    /// those who come in between.
    pub insecure_skip_verify: bool,
}

/// Reads what a client speaks TLS with.
///
/// # Errors
/// If a file can't be read, or has not in it what it should, or there is no authority; the text names
/// the file.
pub fn client(options: &ClientTlsOptions) -> io::Result<ClientTls> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(options.min_version.versions())
        .map_err(invalid)?;
    // The file is read even if no certificate will be held against it: a mistake in it shows now.
    let roots = options.root_ca_file.as_deref().map(roots_in).transpose()?;
    let builder = if options.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots.map_or_else(system_roots, Ok)?)
    };
    let config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| in_file(key, error))?,
    };
    Ok(ClientTls::new(Arc::new(config)))
}

/// Whose certificate a server has to have that is asked at `host`.
///
/// # Errors
/// If `host` is no name and no address.
pub fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(invalid)
}

/// The certificates of a file, of which there is at least one.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| in_file(path, pem_error(error, "certificate")))?;
    if certificates.is_empty() {
        return Err(in_file(path, "no certificate in it"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| in_file(path, pem_error(error, "private key")))
}

/// The authorities of a file. Certificates that are no authority's are left out, like in the reference.
fn roots_in(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 {
        return Err(in_file(path, "no authority's certificate in it"));
    }
    Ok(roots)
}

fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match found.errors.into_iter().next() {
        _ if added > 0 => Ok(roots),
        Some(error) => Err(invalid(error)),
        None => Err(invalid("the system has no authorities' certificates")),
    }
}

fn pem_error(error: pem::Error, what: &str) -> String {
    if matches!(error, pem::Error::NoItemsFound) {
        format!("no {what} in it")
    } else {
        error.to_string()
    }
}

fn in_file(path: &Path, why: impl fmt::Display) -> io::Error {
    invalid(format!("{}: {why}", path.display()))
}

fn invalid(why: impl fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, why.to_string())
}

/// Takes every peer that has a certificate, and the key to it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
