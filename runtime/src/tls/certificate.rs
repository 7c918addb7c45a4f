//! What there is in a certificate that decides for whom it speaks (RFC 5280, 4.1).
//!
//! webpki takes only certificates of version 3 for a peer's, and looks at little in those of an
//! authority. What it leaves out is read here.

use core::fmt;
use core::time::Duration;

use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, ExtendedKeyPurpose};
use x509_cert::der::asn1::{AnyRef, BitStringRef, GeneralizedTime, UtcTime};
use x509_cert::der::{
    self, Decode, ErrorKind, Reader, SliceReader, Tag, TagMode, TagNumber, Tagged,
};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;

/// A certificate that can be read, of any version. Nothing of it is verified.
#[derive(Clone, Debug)]
pub(super) struct Certificate<'a> {
    /// What is signed.
    signed: &'a [u8],
    /// By which algorithm: the contents of the `AlgorithmIdentifier`.
    algorithm: &'a [u8],
    signature: BitStringRef<'a>,
    /// The name of whoever signed it: the contents of the `Name`.
    pub(super) issuer: &'a [u8],
    /// The name of whom it is about: the contents of the `Name`.
    pub(super) subject: &'a [u8],
    /// The key of whom it is about, a whole `SubjectPublicKeyInfo`.
    pub(super) key: &'a [u8],
    pub(super) terms: Terms,
}

/// What a certificate may be used for, and when.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// 1 to 3.
    pub(super) version: u8,
    /// Whether who issued it is whom it is about.
    is_self_issued: bool,
    not_before: UnixTime,
    not_after: UnixTime,
    is_authority: Option<bool>,
    path_len_max: Option<u8>,
    may_sign: Option<bool>,
    /// The contents of their identifiers.
    purposes: Option<Vec<Vec<u8>>>,
    pub(super) has_name_constraints: bool,
    unknown_critical: bool,
}

/// What a peer is taken for, if its certificate says what it is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// A client of ours.
    Client,
    /// A server that we are a client of.
    Server,
}

impl Purpose {
    /// The key purposes that will do, as they are in a certificate: its own, and any.
    pub(super) const fn ids(self) -> [&'static [u8]; 2] {
        const ANY: &[u8] = &[0x55, 0x1d, 0x25, 0];
        const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
        const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
        match self {
            Self::Client => [CLIENT, ANY],
            Self::Server => [SERVER, ANY],
        }
    }

    /// The error for a certificate that is good for other things only.
    pub(super) const fn not_allowed(self) -> CertificateError {
        CertificateError::InvalidPurposeContext {
            required: match self {
                Self::Client => ExtendedKeyPurpose::ClientAuth,
                Self::Server => ExtendedKeyPurpose::ServerAuth,
            },
            presented: Vec::new(),
        }
    }
}

/// Why an authority's certificate does not speak for another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unfit {
    Expired,
    NotYetValid,
    NoAuthority,
    MayNotSign,
    PathTooLong,
    Purpose,
    UnknownCritical,
    Unreadable,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet",
            Self::NoAuthority => "it is no authority's (basicConstraints do not say CA:TRUE)",
            Self::MayNotSign => "its keyUsage does not allow it to sign certificates (keyCertSign)",
            Self::PathTooLong => "its pathlen allows fewer certificates in between",
            Self::Purpose => "its extendedKeyUsage does not allow this use",
            Self::UnknownCritical => "it has a critical extension that is not supported",
            Self::Unreadable => "it can't be read",
        })
    }
}

impl<'a> Certificate<'a> {
    /// Reads a certificate.
    ///
    /// # Errors
    /// If it is no certificate in DER, has more than 64 extensions, or an extension that matters
    /// can't be read or is there twice.
    pub(super) fn read(der: &'a [u8]) -> der::Result<Self> {
        let mut whole = contents(AnyRef::from_der(der)?)?;
        let signed = whole.tlv_bytes()?;
        let algorithm = sequence(whole.decode()?)?;
        let signature = whole.decode()?;
        whole.finish(())?;

        let mut tbs = contents(AnyRef::from_der(signed)?)?;
        let version: Option<u8> = tbs.context_specific(TagNumber::N0, TagMode::Explicit)?;
        let version = version.unwrap_or_default().saturating_add(1);
        let _serial: AnyRef<'_> = tbs.decode()?;
        if sequence(tbs.decode()?)? != algorithm || !(1..=3).contains(&version) {
            return Err(ErrorKind::Failed.into());
        }
        let issuer = sequence(tbs.decode()?)?;
        let mut validity = contents(tbs.decode()?)?;
        let (not_before, not_after) = (time(validity.decode()?)?, time(validity.decode()?)?);
        validity.finish(())?;
        let subject = sequence(tbs.decode()?)?;
        let key = tbs.tlv_bytes()?;
        for _unique_id in 0..2 {
            if !tbs.is_finished() && tbs.peek_byte() != Some(EXTENSIONS_TAG) {
                let _: AnyRef<'_> = tbs.decode()?;
            }
        }
        let mut extensions = None;
        if tbs.peek_byte() == Some(EXTENSIONS_TAG) {
            let tagged: AnyRef<'_> = tbs.decode()?;
            extensions = Some(contents(AnyRef::from_der(tagged.value())?)?);
        }
        tbs.finish(())?;

        let mut terms = Terms {
            version,
            is_self_issued: issuer == subject,
            not_before,
            not_after,
            is_authority: None,
            path_len_max: None,
            may_sign: None,
            purposes: None,
            has_name_constraints: false,
            unknown_critical: false,
        };
        let mut seen: Vec<&[u8]> = Vec::new();
        while let Some(extensions) = extensions.as_mut().filter(|rest| !rest.is_finished()) {
            let extension = Extension::read(extensions.decode()?)?;
            if seen.len() == EXTENSIONS_MAX || seen.contains(&extension.id) {
                return Err(ErrorKind::Failed.into());
            }
            seen.push(extension.id);
            terms.take(&extension)?;
        }
        Ok(Self { signed, algorithm, signature, issuer, subject, key, terms })
    }

    /// Whether `key`, a whole `SubjectPublicKeyInfo`, made the signature.
    pub(super) fn is_signed_by(
        &self,
        key: &[u8],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        let Ok((key_algorithm, key)) = key_parts(key) else { return false };
        let (Some(signature), Some(key)) = (self.signature.as_bytes(), key.as_bytes()) else {
            return false;
        };
        algorithms.iter().any(|algorithm| {
            *algorithm.signature_alg_id() == *self.algorithm
                && *algorithm.public_key_alg_id() == *key_algorithm
                && algorithm.verify_signature(key, self.signed, signature).is_ok()
        })
    }

    /// The name of whom it is about, for people.
    pub(super) fn name(&self) -> String {
        name(self.subject)
    }
}

/// An extension as it is: identifiers may be shorter and longer than der has room for.
struct Extension<'a> {
    id: &'a [u8],
    is_critical: bool,
    value: &'a [u8],
}

impl<'a> Extension<'a> {
    fn read(extension: AnyRef<'a>) -> der::Result<Self> {
        let mut fields = contents(extension)?;
        let id = tagged(fields.decode()?, Tag::ObjectIdentifier)?;
        let is_critical: Option<bool> = fields.decode()?;
        let value = tagged(fields.decode()?, Tag::OctetString)?;
        fields.finish(Self { id, is_critical: is_critical.unwrap_or_default(), value })
    }
}

impl Terms {
    fn take(&mut self, extension: &Extension<'_>) -> der::Result<()> {
        let value = extension.value;
        match extension.id {
            BASIC_CONSTRAINTS => {
                let constraints = BasicConstraints::from_der(value)?;
                self.is_authority = Some(constraints.ca);
                self.path_len_max = constraints.path_len_constraint;
            }
            KEY_USAGE => self.may_sign = Some(KeyUsage::from_der(value)?.key_cert_sign()),
            EXTENDED_KEY_USAGE => {
                let mut ids = contents(AnyRef::from_der(value)?)?;
                let purposes = self.purposes.insert(Vec::new());
                while !ids.is_finished() {
                    purposes.push(tagged(ids.decode()?, Tag::ObjectIdentifier)?.to_vec());
                }
            }
            NAME_CONSTRAINTS => self.has_name_constraints = true,
            id => self.unknown_critical |= extension.is_critical && !HARMLESS.contains(&id),
        }
        Ok(())
    }

    /// Whether it says that it is an authority's.
    pub(super) fn says_authority(&self) -> bool {
        self.is_authority == Some(true)
    }

    /// Whether it may vouch at `now` for a peer's certificate, with so many certificates of other
    /// authorities in between (RFC 5280, 4.2.1 and 6.1.4).
    ///
    /// As in the reference a certificate that is too old to have extensions may vouch, but only if
    /// nobody vouched for it in turn.
    pub(super) fn may_vouch(
        &self,
        now: UnixTime,
        between: usize,
        purpose: Purpose,
    ) -> Result<(), Unfit> {
        let is_authority = match self.is_authority {
            Some(is_authority) => is_authority,
            None => self.version < 3 && self.is_self_issued,
        };
        if !is_authority {
            Err(Unfit::NoAuthority)
        } else if self.may_sign == Some(false) {
            Err(Unfit::MayNotSign)
        } else if now > self.not_after {
            Err(Unfit::Expired)
        } else if now < self.not_before {
            Err(Unfit::NotYetValid)
        } else if self.path_len_max.is_some_and(|max| between > usize::from(max)) {
            Err(Unfit::PathTooLong)
        } else if !self.is_for(purpose) {
            Err(Unfit::Purpose)
        } else if self.unknown_critical {
            Err(Unfit::UnknownCritical)
        } else {
            Ok(())
        }
    }

    /// Whether it is good at `now` as a peer's own.
    pub(super) fn may_be_shown(
        &self,
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), CertificateError> {
        if now > self.not_after {
            Err(CertificateError::ExpiredContext { time: now, not_after: self.not_after })
        } else if now < self.not_before {
            Err(CertificateError::NotValidYetContext { time: now, not_before: self.not_before })
        } else if self.unknown_critical {
            Err(CertificateError::UnhandledCriticalExtension)
        } else if !self.is_for(purpose) {
            Err(purpose.not_allowed())
        } else {
            Ok(())
        }
    }

    fn is_for(&self, purpose: Purpose) -> bool {
        let Some(purposes) = &self.purposes else { return true };
        purposes.iter().any(|id| purpose.ids().contains(&id.as_slice()))
    }
}

/// The public key of a certificate, whatever else can't be read in it.
///
/// # Errors
/// If there is none.
pub(super) fn public_key(der: &[u8]) -> Result<SubjectPublicKeyInfoDer<'_>, CertificateError> {
    let read = || {
        let mut tbs = contents(contents(AnyRef::from_der(der)?)?.decode()?)?;
        if tbs.peek_byte() == Some(VERSION_TAG) {
            tbs.tlv_bytes()?;
        }
        // The serial number, the algorithm, the issuer, the validity and the subject.
        for _ in 0..5 {
            tbs.tlv_bytes()?;
        }
        tbs.tlv_bytes()
    };
    read().map(SubjectPublicKeyInfoDer::from).map_err(|_| CertificateError::BadEncoding)
}

/// The algorithm of a key, as the contents of its `AlgorithmIdentifier`, and the key.
///
/// # Errors
/// If it is no `SubjectPublicKeyInfo`.
pub(super) fn key_parts(key: &[u8]) -> der::Result<(&[u8], BitStringRef<'_>)> {
    let mut parts = contents(AnyRef::from_der(key)?)?;
    let algorithm = sequence(parts.decode()?)?;
    let key = parts.decode()?;
    parts.finish((algorithm, key))
}

/// A name for people, from the contents of a `Name`. It may come from a peer.
fn name(contents: &[u8]) -> String {
    let name = AnyRef::new(Tag::Sequence, contents).and_then(|name| {
        let mut reader = SliceReader::new(name.value())?;
        let mut parts = Vec::new();
        while !reader.is_finished() {
            parts.push(reader.decode()?);
        }
        Ok(Name::from(x509_cert::name::RdnSequence(parts)).to_string())
    });
    // What has to be escaped in a name is; what would spoil a line of the log is not always.
    let visible = |char: char| if char.is_control() { '?' } else { char };
    let name: String = name.unwrap_or_default().chars().map(visible).take(NAME_LEN_MAX).collect();
    if name.is_empty() { "without a name".into() } else { name }
}

/// The inside of a `SEQUENCE`.
pub(super) fn contents(value: AnyRef<'_>) -> der::Result<SliceReader<'_>> {
    SliceReader::new(sequence(value)?)
}

fn sequence(value: AnyRef<'_>) -> der::Result<&[u8]> {
    tagged(value, Tag::Sequence)
}

/// The inside of what has to be a `tag`.
fn tagged(value: AnyRef<'_>, tag: Tag) -> der::Result<&[u8]> {
    value.tag().assert_eq(tag)?;
    Ok(value.value())
}

/// A moment. What was before 1970 is 1970: that is early enough for what is always valid.
fn time(value: AnyRef<'_>) -> der::Result<UnixTime> {
    let year = match (value.tag(), value.value()) {
        (Tag::UtcTime, text) if text.len() == UTC_TIME_LEN => text[..2].to_vec(),
        (Tag::GeneralizedTime, text) if text.len() == UTC_TIME_LEN + 2 => text[..4].to_vec(),
        _ => return Err(ErrorKind::DateTime.into()),
    };
    let is_early = match &year[..] {
        // Of two digits, 50 and more are of the last century.
        [_, _] => (&b"50"[..]..&b"70"[..]).contains(&&year[..]),
        year => year < &b"1970"[..],
    };
    if is_early && year.iter().all(u8::is_ascii_digit) {
        return Ok(UnixTime::since_unix_epoch(Duration::ZERO));
    }
    let since_1970 = if value.tag() == Tag::UtcTime {
        value.decode_as::<UtcTime>()?.to_unix_duration()
    } else {
        value.decode_as::<GeneralizedTime>()?.to_unix_duration()
    };
    Ok(UnixTime::since_unix_epoch(since_1970))
}

/// How long a UTCTime is: `YYMMDDhhmmssZ`.
const UTC_TIME_LEN: usize = 13;

const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];

/// Extensions that change nothing here, critical or not: the subject's key identifier and other
/// names, where revocations are (nobody asks for them), policies, and the issuer's key identifier.
const HARMLESS: [&[u8]; 5] =
    [&[0x55, 0x1d, 14], &[0x55, 0x1d, 17], &[0x55, 0x1d, 31], &[0x55, 0x1d, 32], &[0x55, 0x1d, 35]];

/// The first byte of a certificate's version.
const VERSION_TAG: u8 = 0xa0;

/// The first byte of a certificate's extensions.
const EXTENSIONS_TAG: u8 = 0xa3;

/// The most extensions of a certificate. Others have a dozen; each is compared with those before.
const EXTENSIONS_MAX: usize = 64;

/// The most characters of a name that a line shows.
const NAME_LEN_MAX: usize = 128;
