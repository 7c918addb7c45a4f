//! Certificates that are not what they should be, on both sides of a connection, and files of them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::process::{run, sansq};
use crate::server::{RUNTIMES, Server, frame};

/// A certificate, its key, and what it says.
struct Certified {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    chain: Vec<CertificateDer<'static>>,
}

fn params(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["nsqd.example".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params
}

impl Certified {
    fn alone(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        Self { params, key, pem: own.pem(), chain: vec![own.der().clone()] }
    }

    /// What its key signs.
    fn signs(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let own = params.signed_by(&key, &issuer).unwrap();
        let chain = [&[own.der().clone()], &self.chain[..]].concat();
        Self { params, key, pem: own.pem(), chain }
    }
}

const CA: IsCa = IsCa::Ca(BasicConstraints::Unconstrained);

/// Takes every server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether nsqd serves a client that shows this certificate.
fn comes_in(nsqd: &Server, shown: &Certified) -> bool {
    let mut socket = nsqd.client();
    let identify = br#"{"feature_negotiation":true,"tls_v1":true}"#;
    let len = (identify.len() as u32).to_be_bytes();
    socket.write_all(&[b"IDENTIFY\n", &len[..], identify].concat()).unwrap();
    assert!(String::from_utf8(frame(&mut socket).1).unwrap().contains(r#""tls_v1":true"#));
    let key = PrivateKeyDer::try_from(shown.key.serialize_der()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(shown.chain.clone(), key)
        .unwrap();
    let name = ServerName::try_from("nsqd.example").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream: StreamOwned<ClientConnection, TcpStream> = StreamOwned::new(connection, socket);
    let mut ok = [0; 10];
    stream.read_exact(&mut ok).is_ok_and(|()| ok == *b"\0\0\0\x06\0\0\0\0OK")
}

/// A folder with nsqd's own certificate, and the flags that name it.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let own = Certified::alone(params("nsqd", IsCa::NoCa));
        files.write("cert.pem", &own.pem);
        files.write("key.pem", &own.key.serialize_pem());
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn flags(&self, trusted: &Path) -> Vec<String> {
        let flag =
            |flag: &str, name: &str| format!("{flag}={}", self.0.path().join(name).display());
        vec![
            flag("--tls-cert", "cert.pem"),
            flag("--tls-key", "key.pem"),
            format!("--tls-root-ca-file={}", trusted.display()),
            "--tls-client-auth-policy=require-verify".into(),
            "--https-address=127.0.0.1:0".into(),
        ]
    }

    fn nsqd(&self, runtime: &str, trusted: &str) -> Server {
        let flags = self.flags(&self.write("trusted.pem", trusted));
        Server::nsqd(runtime, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[test]
fn nobody_comes_in_with_what_a_certificate_signed_that_is_no_authoritys() {
    let files = Files::new();
    let authority = Certified::alone(params("an authority", CA));
    let pinned = Certified::alone(params("a pinned one", IsCa::ExplicitNoCa));
    let old = |mut params: CertificateParams| {
        params.not_after = date_time_ymd(2020, 1, 1);
        params
    };
    let expired = Certified::alone(old(params("an expired one", CA)));
    let without = Certified::alone(params("without basicConstraints", IsCa::NoCa));
    let mut terms = params("may not sign", CA);
    terms.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let no_signer = Certified::alone(terms);
    let alone = Certified::alone(params("of length 0", IsCa::Ca(BasicConstraints::Constrained(0))));
    let all = [&authority, &pinned, &expired, &without, &no_signer, &alone];
    let trusted: String = all.map(|one| one.pem.as_str()).concat();
    let admin = || params("admin", IsCa::NoCa);
    for runtime in RUNTIMES {
        let nsqd = files.nsqd(runtime, &trusted);
        for good in [&authority.signs(admin()), &pinned, &without, &alone.signs(admin())] {
            assert!(comes_in(&nsqd, good), "{runtime}: {:?}", good.params.distinguished_name);
        }
        for bad in [
            pinned.signs(admin()),
            expired.signs(admin()),
            without.signs(admin()),
            no_signer.signs(admin()),
            alone.signs(params("in between", CA)).signs(admin()),
            Certified::alone(admin()),
        ] {
            assert!(!comes_in(&nsqd, &bad), "{runtime}: {:?}", bad.chain.len());
        }
        assert!(!comes_in(&nsqd, &expired));
        // Nothing is lost for those who are welcome.
        assert!(comes_in(&nsqd, &authority.signs(admin())));
    }
}

#[test]
fn a_bad_block_is_named_once_and_the_others_count() {
    let files = Files::new();
    let authority = Certified::alone(params("an authority", CA));
    let bad = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let nsqd = files.nsqd("tokio", &format!("{bad}{}", authority.pem));
    assert!(comes_in(&nsqd, &authority.signs(params("admin", IsCa::NoCa))));
    let log = nsqd.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("trusted.pem")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(" WARNING: TLS: "), "{log}");
    assert!(lines[0].contains(": block 1 (CERTIFICATE) can't be used: it is no cert"), "{log}");
}

#[test]
fn files_that_can_not_be_used_end_the_start_with_one_line() {
    let files = Files::new();
    let swapped = |names: [&str; 2]| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| files.0.path().join(name).display().to_string();
        let (status, _, log) = run(sansq()
            .args(["nsqd", "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"])
            .arg("--https-address=127.0.0.1:0")
            .arg(format!("--data-path={}", folder.path().display()))
            .arg(format!("--tls-cert={}", path(names[0])))
            .arg(format!("--tls-key={}", path(names[1]))));
        assert_eq!(status, Some(1));
        log
    };
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    files.write("encrypted.pem", encrypted);
    for (names, said) in [
        (
            ["key.pem", "cert.pem"],
            "key.pem: there is no certificate in it, but a private key; perhaps",
        ),
        (["cert.pem", "encrypted.pem"], "encrypted.pem: block 1 (ENCRYPTED PRIVATE KEY) can't be"),
    ] {
        let log = swapped(names);
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains(" FATAL: "), "{log}");
        assert!(log.contains(said), "{log}");
    }
}
