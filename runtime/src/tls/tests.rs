use std::fs;

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sansq_core::nsqd::TlsInfo;
use sansq_core::transmit::Transmit;
use sansq_core::upgrade::{Stack, Tls, UpgradeError};
use tempfile::TempDir;

use super::*;

mod authorities;
mod odd;

fn algorithms() -> WebPkiSupportedAlgorithms {
    ring::default_provider().signature_verification_algorithms
}

/// Certificates of an authority, of what it vouches for, and of a stranger, as files and for
/// clients.
struct Files {
    folder: TempDir,
    client: (CertificateDer<'static>, KeyPair),
    stranger: (CertificateDer<'static>, KeyPair),
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let params = |name: &str| {
            let mut params = CertificateParams::new(vec!["nsqd.example".into()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut authority = params("an authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(authority, key);
        fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        let server_key = KeyPair::generate().unwrap();
        let server = params("a server").signed_by(&server_key, &issuer).unwrap();
        fs::write(folder.path().join("cert.pem"), server.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), server_key.serialize_pem()).unwrap();
        let other_key = KeyPair::generate().unwrap();
        fs::write(folder.path().join("other.pem"), other_key.serialize_pem()).unwrap();
        fs::write(folder.path().join("empty.pem"), "").unwrap();
        let client_key = KeyPair::generate().unwrap();
        let client = params("a client").signed_by(&client_key, &issuer).unwrap();
        let stranger_key = KeyPair::generate().unwrap();
        let stranger = params("a stranger").self_signed(&stranger_key).unwrap();
        fs::write(folder.path().join("stranger.pem"), stranger.pem()).unwrap();
        Self {
            folder,
            client: (client.der().clone(), client_key),
            stranger: (stranger.der().clone(), stranger_key),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client_options(&self) -> ClientTlsOptions {
        let root_ca_file = Some(self.path("ca.pem"));
        ClientTlsOptions { root_ca_file, ..ClientTlsOptions::default() }
    }

    fn options(&self) -> ServerTlsOptions {
        ServerTlsOptions {
            cert: self.path("cert.pem"),
            key: self.path("key.pem"),
            root_ca_file: Some(self.path("ca.pem")),
            client_auth: ClientAuth::None,
            min_version: MinVersion::Tls12,
        }
    }

    /// A client that has a certificate.
    fn client_with(&self, (cert, key): &(CertificateDer<'static>, KeyPair)) -> ClientTls {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms())))
            .with_client_auth_cert(vec![cert.clone()], key)
            .unwrap();
        ClientTls::new(Arc::new(config))
    }

    fn client_without(&self) -> ClientTls {
        client(&self.client_options()).unwrap().tls
    }
}

/// What the server knows after the handshake.
fn shake_hands(server: &ServerTls, client: &ClientTls) -> Result<TlsInfo, UpgradeError> {
    shake_hands_as(server, client, "nsqd.example")
}

/// The same with a server of this name.
fn shake_hands_as(
    server: &ServerTls,
    client: &ClientTls,
    name: &str,
) -> Result<TlsInfo, UpgradeError> {
    let (mut ends, mut wires) = ([Stack::new(), Stack::new()], [BytesMut::new(), BytesMut::new()]);
    ends[0].push_tls(Tls::client(client, name).unwrap());
    ends[1].push_tls(Tls::server(server).unwrap());
    while ends[1].is_handshaking() {
        for from in [0, 1] {
            let mut said = Transmit::new();
            ends[from].flush(&mut said);
            while !said.is_empty() {
                let mut part = [&[][..]];
                said.slices(&mut part);
                wires[from].extend_from_slice(part[0]);
                let len = part[0].len();
                said.advance(len);
            }
            let _ = ends[1 - from].decode(&mut wires[from], &mut BytesMut::new())?;
        }
    }
    Ok(ends[1].tls_info().expect("the handshake is over"))
}

#[test]
fn what_is_expected_of_clients() {
    let files = Files::new();
    let anonymous = files.client_without();
    let (known, stranger) = (files.client_with(&files.client), files.client_with(&files.stranger));
    for (client_auth, names) in [
        (ClientAuth::None, [Some(""), Some(""), Some("")]),
        (ClientAuth::Require, [None, Some("a client"), Some("a stranger")]),
        (ClientAuth::RequireVerify, [None, Some("a client"), None]),
    ] {
        let server = server(&ServerTlsOptions { client_auth, ..files.options() }).unwrap().tls;
        for (client, name) in [&anonymous, &known, &stranger].into_iter().zip(names) {
            let info = shake_hands(&server, client);
            let found = info.as_ref().ok().map(|info| info.common_name.as_str());
            assert_eq!(found, name, "{client_auth:?} {info:?}");
        }
    }
}

#[test]
fn whom_a_client_trusts_and_who_it_is() {
    let files = Files::new();
    let options = ServerTlsOptions { client_auth: ClientAuth::Require, ..files.options() };
    let server = server(&options).unwrap().tls;
    // The server's own certificate will do for a client too.
    let identity = Some((files.path("cert.pem"), files.path("key.pem")));
    let known = ClientTlsOptions { identity, ..files.client_options() };
    let info = shake_hands(&server, &client(&known).unwrap().tls);
    assert_eq!(info.unwrap().common_name, "a server");
    let root_ca_file = Some(files.path("stranger.pem"));
    let distrustful = ClientTlsOptions { root_ca_file, ..known };
    assert!(shake_hands(&server, &client(&distrustful).unwrap().tls).is_err());
    let careless = ClientTlsOptions { insecure_skip_verify: true, ..distrustful };
    assert!(shake_hands(&server, &client(&careless).unwrap().tls).is_ok());
}

#[test]
fn the_oldest_version() {
    let files = Files::new();
    let old = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms())))
        .with_no_client_auth();
    let (old, new) = (ClientTls::new(Arc::new(old)), files.client_without());
    let tls12 = server(&files.options()).unwrap().tls;
    let min_version = MinVersion::Tls13;
    let tls13 = server(&ServerTlsOptions { min_version, ..files.options() }).unwrap().tls;
    assert_eq!(shake_hands(&tls12, &old).unwrap().version, "TLS1.2");
    assert_eq!(shake_hands(&tls12, &new).unwrap().version, "TLS1.3");
    assert_eq!(shake_hands(&tls13, &new).unwrap().version, "TLS1.3");
    assert!(shake_hands(&tls13, &old).is_err());
}

#[test]
fn files_that_are_wrong_are_named() {
    let files = Files::new();
    let wrong = |change: fn(&mut ServerTlsOptions, PathBuf), name: &str| {
        let mut options = files.options();
        options.client_auth = ClientAuth::RequireVerify;
        change(&mut options, files.path(name));
        let error = server(&options).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", files.path(name).display())), "{error}");
    };
    for name in ["missing.pem", "empty.pem", "key.pem"] {
        wrong(|options, path| options.cert = path, name);
        wrong(|options, path| options.root_ca_file = Some(path), name);
    }
    for name in ["missing.pem", "empty.pem", "cert.pem", "other.pem"] {
        wrong(|options, path| options.key = path, name);
    }
    let wrong =
        |change: fn(&mut ClientTlsOptions, PathBuf, PathBuf), names: [&str; 2], blamed: &str| {
            let mut options = files.client_options();
            change(&mut options, files.path(names[0]), files.path(names[1]));
            let error = client(&options).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: ", files.path(blamed).display())), "{error}");
        };
    for name in ["missing.pem", "empty.pem", "key.pem"] {
        wrong(|options, path, _| options.root_ca_file = Some(path), [name, ""], name);
        wrong(|options, cert, key| options.identity = Some((cert, key)), [name, "key.pem"], name);
    }
    for name in ["missing.pem", "empty.pem", "cert.pem", "other.pem"] {
        wrong(|options, cert, key| options.identity = Some((cert, key)), ["cert.pem", name], name);
    }
}
