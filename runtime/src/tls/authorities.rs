//! Whom an authority vouches for.
//!
//! webpki builds the path from a peer's certificate to an authority, and verifies the signatures,
//! names and times of what is in between. Of the authority itself it knows a name and a key:
//! whether it still is one, and may sign, and over how many others, is looked up here (RFC 5280,
//! 6.1; the reference does the same). A certificate that is in the file itself is taken as it is,
//! without a path.

use core::cell::RefCell;
use core::fmt;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DistinguishedName, OtherError};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter};

use super::certificate::{Certificate, Purpose, Terms, Unfit};

/// The certificates that are trusted.
pub(super) struct Authorities {
    trusted: Vec<Trusted>,
    /// The same as webpki knows them.
    anchors: Vec<TrustAnchor<'static>>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

struct Trusted {
    der: CertificateDer<'static>,
    anchor: Option<TrustAnchor<'static>>,
    /// The contents of its name.
    subject: Vec<u8>,
    key: Vec<u8>,
    name: String,
    terms: Terms,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.trusted.iter().map(|trusted| &trusted.name)).finish()
    }
}

impl Authorities {
    /// Trusts `certificates`. Those that can't be read are left out.
    pub(super) fn new(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let trusted: Vec<_> = certificates.into_iter().filter_map(Trusted::new).collect();
        let anchors = trusted.iter().filter_map(|trusted| trusted.anchor.clone()).collect();
        let hints_len: usize = trusted.iter().map(|trusted| trusted.subject.len() + 8).sum();
        let hints = trusted.iter().map(|it| DistinguishedName::in_sequence(&it.subject));
        let hints = if hints_len <= HINTS_LEN_MAX { hints.collect() } else { Vec::new() };
        Self { trusted, anchors, hints, algorithms }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.trusted.is_empty()
    }

    /// The names that clients are told, so that those with several certificates know which one to
    /// show.
    pub(super) fn hints(&self) -> &[DistinguishedName] {
        &self.hints
    }

    pub(super) const fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    /// Whether a client may come in with `certificate`.
    ///
    /// # Errors
    /// If it may not.
    pub(super) fn verify_client(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        self.verify(certificate, between, now, Purpose::Client)
    }

    /// Whether a server with `certificate` is the one that is called `name`.
    ///
    /// # Errors
    /// If it is not.
    pub(super) fn verify_server(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.verify(certificate, between, now, Purpose::Server)?;
        if Certificate::read(certificate).is_ok_and(|certificate| certificate.terms.version < 3) {
            // Of its subject nobody takes a name any more.
            let (expected, presented) = (name.to_owned(), Vec::new());
            let error = CertificateError::NotValidForNameContext { expected, presented };
            return Err(error.into());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
    }

    fn verify(
        &self,
        der: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), CertificateError> {
        let certificate = Certificate::read(der).map_err(|_| CertificateError::BadEncoding)?;
        if self.trusted.iter().any(|trusted| trusted.der == *der) {
            return certificate.terms.may_be_shown(now, purpose);
        }
        if certificate.terms.version < 3 || certificate.terms.says_authority() {
            return self.verify_without_path(&certificate, now, purpose);
        }
        self.verify_path(der, between, now, purpose)
    }

    /// What webpki takes for no peer's: a certificate without extensions, or an authority's own.
    /// One of the authorities has to have signed it itself.
    fn verify_without_path(
        &self,
        certificate: &Certificate<'_>,
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), CertificateError> {
        certificate.terms.may_be_shown(now, purpose)?;
        let mut error = CertificateError::UnknownIssuer;
        let issuers = self.trusted.iter().filter(|issuer| issuer.subject == certificate.issuer);
        for issuer in issuers.take(ISSUERS_MAX) {
            // Which names it has is webpki's to say.
            if issuer.terms.has_name_constraints {
                continue;
            }
            if let Err(unfit) = issuer.terms.may_vouch(now, 0, purpose) {
                error = refusal(Some(&issuer.name), unfit);
            } else if certificate.is_signed_by(&issuer.key, self.algorithms.all) {
                return Ok(());
            }
        }
        Err(error)
    }

    fn verify_path(
        &self,
        der: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), CertificateError> {
        let refused = RefCell::new(None);
        let is_fit = |path: &webpki::VerifiedPath<'_>| {
            self.verify_authorities(path, now, purpose).map_err(|error| {
                refused.replace(Some(error));
                webpki::Error::UnknownIssuer
            })
        };
        let certificate = EndEntityCert::try_from(der).map_err(certificate_error)?;
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            between,
            now,
            purpose,
            None,
            Some(&is_fit),
        );
        let path = path.map(drop);
        path.map_err(|error| refused.take().unwrap_or_else(|| certificate_error(error)))
    }

    /// What webpki does not ask of the authorities of a path.
    fn verify_authorities(
        &self,
        path: &webpki::VerifiedPath<'_>,
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), CertificateError> {
        let mut count = 0;
        for between in path.intermediate_certificates() {
            let der = between.der();
            let certificate = Certificate::read(&der);
            let certificate = certificate.map_err(|_| refusal(None, Unfit::Unreadable))?;
            let fit = certificate.terms.may_vouch(now, count, purpose);
            fit.map_err(|unfit| refusal(Some(&certificate.name()), unfit))?;
            count += 1;
        }
        // A certificate that was renewed is there twice, with the same name and the same key.
        let mut error = CertificateError::UnknownIssuer;
        let anchor = Some(path.anchor());
        for trusted in self.trusted.iter().filter(|trusted| trusted.anchor.as_ref() == anchor) {
            match trusted.terms.may_vouch(now, count, purpose) {
                Ok(()) => return Ok(()),
                Err(unfit) => error = refusal(Some(&trusted.name), unfit),
            }
        }
        Err(error)
    }

    /// Those that may vouch at `now` for a server, for whoever can't ask about a path.
    pub(super) fn of_servers(
        &self,
        now: UnixTime,
    ) -> impl Iterator<Item = &CertificateDer<'static>> {
        let may_vouch = move |it: &&Trusted| it.terms.may_vouch(now, 0, Purpose::Server).is_ok();
        self.trusted.iter().filter(may_vouch).map(|trusted| &trusted.der)
    }
}

impl Trusted {
    fn new(der: CertificateDer<'static>) -> Option<Self> {
        let certificate = Certificate::read(&der).ok()?;
        let anchor = webpki::anchor_from_trusted_cert(&der);
        Some(Self {
            anchor: anchor.ok().map(|anchor| anchor.to_owned()),
            subject: certificate.subject.to_vec(),
            key: certificate.key.to_vec(),
            name: certificate.name(),
            terms: certificate.terms,
            der,
        })
    }
}

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, ids: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut ids = ids.peekable();
        if ids.peek().is_none() {
            return Ok(());
        }
        let good = self.ids().map(KeyPurposeId::new);
        let mut is_good = false;
        for id in ids {
            is_good |= good.contains(&id?);
        }
        // Whom it concerns knows what was asked for; webpki's own error has no way to be made.
        if is_good { Ok(()) } else { Err(webpki::Error::EmptyEkuExtension) }
    }
}

/// An authority's certificate that does not speak for a peer's.
#[derive(Clone, Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Refusal {}

fn refusal(name: Option<&str>, unfit: Unfit) -> CertificateError {
    let name = name.unwrap_or("in between");
    other(Refusal(format!("the authority's certificate {name} does not count: {unfit}")))
}

fn other(error: impl core::error::Error + Send + Sync + 'static) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(error)))
}

/// What webpki found, as rustls says it: so the peer gets the alert that fits.
fn certificate_error(error: webpki::Error) -> CertificateError {
    use webpki::Error;
    #[expect(clippy::wildcard_enum_match_arm, reason = "of its many errors few have an alert")]
    match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateError::BadEncoding,
        Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Error::UnknownIssuer => CertificateError::UnknownIssuer,
        Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Error::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        Error::EmptyEkuExtension => CertificateError::InvalidPurpose,
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            other(Refusal(UNSUPPORTED.into()))
        }
        error => other(error),
    }
}

/// What is said of a signature that ring can't verify.
const UNSUPPORTED: &str = "it, or one between it and the authority, is signed in a way that is \
    not supported; good ones are RSA of 2048 to 8192 bits and EC on P-256 or P-384, with SHA-2, \
    and Ed25519";

/// The most bytes of names that clients are told; beyond it they are told none, which means any.
/// A message of TLS has a little more room.
const HINTS_LEN_MAX: usize = 60_000;

/// The most authorities of one name whose signature is looked for.
const ISSUERS_MAX: usize = 16;
