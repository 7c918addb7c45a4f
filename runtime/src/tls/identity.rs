//! A certificate of one's own and its key, from files.
//!
//! What peers are shown need not be what rustls would take from them: a certificate of version 1,
//! or with extensions that nobody here knows, is the peer's to judge. Only the key has to be one
//! that ring signs with, and has to belong to the certificate.

use core::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{self, Decode, Reader, SliceReader, Tag, Tagged};

use super::certificate::{self, Certificate, contents};
use super::pem::{Block, Blocks, CERTIFICATE};
use super::{in_file, warning};

/// Reads the certificate in `cert`, with those between it and the authority, and the key in `key`.
/// What is left out is added to `warnings`.
///
/// # Errors
/// If one of them can't be used; the text names the file.
pub(super) fn identity(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
    warnings: &mut Vec<String>,
) -> io::Result<CertifiedKey> {
    let before = warnings.len();
    let chain = certificates(cert, warnings)?;
    let key_file = key;
    let key = private_key(key_file, provider, warnings)?;
    let belongs = match (key.public_key(), chain.first()) {
        (Some(key), Some(first)) => {
            certificate::public_key(first).is_ok_and(|of_certificate| of_certificate == key)
        }
        // Every key of ring's has a public half, and there is a certificate.
        _ => true,
    };
    if !belongs {
        let first = chain.first().and_then(|first| Certificate::read(first).ok());
        let name = first.map(|first| format!(" ({})", first.name())).unwrap_or_default();
        let left_out: String = warnings[before..].iter().map(|why| format!("; {why}")).collect();
        let why = format!(
            "the key does not belong to the first certificate{name} in {}{left_out}",
            cert.display()
        );
        return Err(in_file(key_file, why));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// The certificates of a file, of which there is at least one. Those that can't be read are left
/// out, and `warnings` says so.
///
/// # Errors
/// If there is none; the text names the file.
pub(super) fn certificates(
    path: &Path,
    warnings: &mut Vec<String>,
) -> io::Result<Vec<CertificateDer<'static>>> {
    let file = Blocks::read(path)?;
    let (mut certificates, mut bad) = (Vec::new(), Vec::new());
    for block in file.blocks.iter().filter(|block| block.label == CERTIFICATE) {
        match block.der.as_deref().map_err(|why| *why).and_then(readable) {
            Ok(der) => certificates.push(der),
            Err(why) => bad.push(format!("{} can't be used: {why}", block.shown())),
        }
    }
    if certificates.is_empty() {
        let why = bad.into_iter().next().unwrap_or_else(|| file.lacks("certificate"));
        return Err(in_file(path, why));
    }
    warnings.extend(bad.iter().map(|why| warning(path, why)));
    Ok(certificates)
}

fn readable(der: &[u8]) -> Result<CertificateDer<'static>, &'static str> {
    let read = Certificate::read(der).map_err(|_| "it is no certificate in DER");
    read.map(|_| CertificateDer::from(der.to_owned()))
}

fn private_key(
    path: &Path,
    provider: &CryptoProvider,
    warnings: &mut Vec<String>,
) -> io::Result<Arc<dyn SigningKey>> {
    let file = Blocks::read(path)?;
    let mut bad = Vec::new();
    for block in file.blocks.iter().filter(|block| block.is_key()) {
        match signing_key(block, provider) {
            Ok(key) => {
                warnings.extend(bad.iter().map(|why: &String| warning(path, why)));
                return Ok(key);
            }
            Err(why) => bad.push(format!("{} can't be used: {why}", block.shown())),
        }
    }
    let why = bad.into_iter().next().unwrap_or_else(|| file.lacks("private key"));
    Err(in_file(path, why))
}

fn signing_key(block: &Block, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    if block.is_encrypted {
        return Err(ENCRYPTED.into());
    }
    let der = block.der.as_ref().map_err(|why| String::from(*why))?;
    let kind = KeyKind::of(der).map_err(|_| String::from("it is no private key in DER"))?;
    let key = match kind.format {
        Format::Encrypted => return Err(ENCRYPTED.into()),
        Format::Pkcs1 => PrivateKeyDer::from(PrivatePkcs1KeyDer::from(der.clone())),
        Format::Pkcs8 => PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der.clone())),
        Format::Sec1 => PrivateKeyDer::from(PrivateSec1KeyDer::from(der.clone())),
    };
    provider.key_provider.load_private_key(key).map_err(|_| {
        let why = if kind.is_usable() { "it is damaged" } else { "such keys are not supported" };
        format!("it is {kind}, and {why}; {USABLE}")
    })
}

/// What a private key is, whatever its block says.
#[derive(Debug)]
struct KeyKind {
    format: Format,
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    /// RFC 8017 appendix A.1.2.
    Pkcs1,
    /// RFC 5958.
    Pkcs8,
    /// RFC 5915.
    Sec1,
    /// RFC 5958, 3.
    Encrypted,
}

#[derive(Debug)]
enum Algorithm {
    /// With so many bits.
    Rsa(usize),
    /// On this curve, if it is named.
    Ec(Option<ObjectIdentifier>),
    Ed25519,
    Other(ObjectIdentifier),
    /// Not to be seen.
    Hidden,
}

impl KeyKind {
    /// Looks at what is inside.
    fn of(der: &[u8]) -> der::Result<Self> {
        let mut fields = contents(AnyRef::from_der(der)?)?;
        let (first, second): (AnyRef<'_>, AnyRef<'_>) = (fields.decode()?, fields.decode()?);
        let (format, algorithm) = match (first.tag(), second.tag()) {
            (Tag::Integer, Tag::Integer) => (Format::Pkcs1, Algorithm::Rsa(bits(second))),
            (Tag::Integer, Tag::OctetString) => {
                let curve = if fields.peek_byte() == Some(CURVE_TAG) {
                    SliceReader::new(fields.decode::<AnyRef<'_>>()?.value())?.decode().ok()
                } else {
                    None
                };
                (Format::Sec1, Algorithm::Ec(curve))
            }
            (Tag::Integer, Tag::Sequence) => {
                let mut algorithm = contents(second)?;
                let id = algorithm.decode()?;
                let key: AnyRef<'_> = fields.decode()?;
                let algorithm = match id {
                    RSA => Algorithm::Rsa(rsa_bits(AnyRef::from_der(key.value())?)?),
                    EC => Algorithm::Ec(algorithm.decode().ok()),
                    ED25519 => Algorithm::Ed25519,
                    other => Algorithm::Other(other),
                };
                (Format::Pkcs8, algorithm)
            }
            (Tag::Sequence, Tag::OctetString) => (Format::Encrypted, Algorithm::Hidden),
            _ => return Err(der::ErrorKind::Failed.into()),
        };
        Ok(Self { format, algorithm })
    }

    /// Whether ring signs with such keys.
    fn is_usable(&self) -> bool {
        match &self.algorithm {
            Algorithm::Rsa(bits) => (2048..=4096).contains(bits),
            Algorithm::Ec(curve) => curve.is_none_or(|curve| matches!(curve, P256 | P384)),
            Algorithm::Ed25519 => true,
            Algorithm::Other(_) | Algorithm::Hidden => false,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.algorithm {
            Algorithm::Rsa(bits) => write!(f, "an RSA key of {bits} bits"),
            Algorithm::Ec(Some(P256)) => f.write_str("an EC key on P-256"),
            Algorithm::Ec(Some(P384)) => f.write_str("an EC key on P-384"),
            Algorithm::Ec(Some(P521)) => f.write_str("an EC key on P-521"),
            Algorithm::Ec(Some(curve)) => write!(f, "an EC key on the curve {curve}"),
            Algorithm::Ec(None) => f.write_str("an EC key on a curve without a name"),
            Algorithm::Ed25519 => f.write_str("an Ed25519 key"),
            Algorithm::Other(ED448) => f.write_str("an Ed448 key"),
            Algorithm::Other(DSA) => f.write_str("a DSA key"),
            Algorithm::Other(RSA_PSS) => f.write_str("an RSA key for PSS only"),
            Algorithm::Other(id) => write!(f, "a key for the algorithm {id}"),
            Algorithm::Hidden => f.write_str("a key that can't be seen"),
        }
    }
}

/// How many bits the key has that is inside of a PKCS #8 block. It is looked at only so far: what
/// is inside of that may be of any depth.
fn rsa_bits(key: AnyRef<'_>) -> der::Result<usize> {
    let mut fields = contents(key)?;
    let (version, modulus): (AnyRef<'_>, AnyRef<'_>) = (fields.decode()?, fields.decode()?);
    version.tag().assert_eq(Tag::Integer)?;
    modulus.tag().assert_eq(Tag::Integer)?;
    Ok(bits(modulus))
}

/// How many bits an INTEGER has.
fn bits(integer: AnyRef<'_>) -> usize {
    let bytes = integer.value();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let first = bytes.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (bytes.len() - zeros) * 8 - first
}

/// What is said of encrypted keys.
const ENCRYPTED: &str = "the key is encrypted, and nsqd cannot ask for a password; \
    openssl pkey -in FILE -out FILE2 writes it without one";

/// What is said of keys that can't be used.
const USABLE: &str = "good ones are RSA of 2048 to 4096 bits, EC on P-256 or P-384, and Ed25519";

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ED448: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.113");
const DSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10040.4.1");

/// The first byte of the curve in an EC key of its own.
const CURVE_TAG: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use super::*;

    /// PKCS #8 that says it is RSA, in PKCS #8, and so on, around an RSA key of 8 bits.
    fn nested(depth: usize) -> Vec<u8> {
        let algorithm = [0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1];
        // From its end to its beginning.
        let mut key = vec![0xff, 1, 2, 0, 1, 2, 6, 0x30];
        for _ in 0..depth {
            let octets = header(4, key.len());
            key.extend(octets.iter().rev().chain(algorithm.iter().rev()).chain(&[0, 1, 2]));
            let sequence = header(0x30, key.len());
            key.extend(sequence.iter().rev());
        }
        key.reverse();
        key
    }

    fn header(tag: u8, len: usize) -> Vec<u8> {
        let len = len.to_be_bytes();
        let zeros = len.iter().take_while(|byte| **byte == 0).count();
        let digits = &len[zeros..];
        let count = if digits.len() == 1 && digits[0] < 0x80 {
            vec![]
        } else {
            vec![0x80 | digits.len() as u8]
        };
        [&[tag], &count[..], digits].concat()
    }

    #[test]
    fn keys_in_keys_are_no_keys() {
        let kind = KeyKind::of(&nested(1)).unwrap();
        assert!(kind.format == Format::Pkcs8 && matches!(kind.algorithm, Algorithm::Rsa(8)));
        for depth in [2, 3, 100_000] {
            KeyKind::of(&nested(depth)).unwrap_err();
        }
    }
}
