//! Certificates, keys and files that are not what they usually are. `testdata/make.sh` made those
//! that rcgen can't make.

use std::sync::Arc;

use rcgen::CustomExtension;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{CertificateError, OtherError, ServerConfig, SignatureAlgorithm, SignatureScheme};

use super::super::certificate::Certificate;
use super::super::pem::Blocks;
use super::*;

fn testdata(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/testdata")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(testdata(name)).unwrap()
}

fn served(cert: &str, key: &str) -> ServerTlsOptions {
    ServerTlsOptions {
        cert: testdata(cert),
        key: testdata(key),
        root_ca_file: None,
        client_auth: ClientAuth::None,
        min_version: MinVersion::Tls12,
    }
}

/// A client that takes every server and shows this certificate.
fn shows(cert: &str, key: &str) -> ClientTls {
    let identity = Some((testdata(cert), testdata(key)));
    let options =
        ClientTlsOptions { identity, insecure_skip_verify: true, ..ClientTlsOptions::default() };
    client(&options).unwrap().tls
}

fn takes_all() -> ClientTls {
    client(&ClientTlsOptions { insecure_skip_verify: true, ..ClientTlsOptions::default() })
        .unwrap()
        .tls
}

/// As a client of TLS 1.2 only, or of 1.3.
fn of_version(tls: &ClientTls, version: &'static SupportedProtocolVersion) -> ClientTls {
    let old = tls.config();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms())))
        .with_client_cert_resolver(Arc::clone(&old.client_auth_cert_resolver));
    ClientTls::new(Arc::new(config))
}

#[test]
fn a_certificate_of_version_1_is_served_and_shown() {
    let with_root = |client_auth, name: &str| ServerTlsOptions {
        client_auth,
        root_ca_file: Some(testdata(name)),
        ..served("v1.pem", "v1.key")
    };
    for version in [&version::TLS12, &version::TLS13] {
        let shown = of_version(&shows("v1.pem", "v1.key"), version);
        for (client_auth, root, names) in [
            (ClientAuth::None, "ca.pem", Some("")),
            (ClientAuth::Require, "p521.pem", Some("of version 1")),
            // As in the reference: the authority signed it, or it is in the file itself.
            (ClientAuth::RequireVerify, "ca.pem", Some("of version 1")),
            (ClientAuth::RequireVerify, "v1.pem", Some("of version 1")),
            (ClientAuth::RequireVerify, "v1-ca.pem", None),
            (ClientAuth::RequireVerify, "p521.pem", None),
        ] {
            let server = server(&with_root(client_auth, root)).unwrap().tls;
            let info = shake_hands(&server, &shown);
            let found = info.as_ref().ok().map(|info| info.common_name.as_str());
            assert_eq!(found, names, "{client_auth:?} {root} {info:?}");
        }
    }
    // Nobody who asks for a name finds one in it.
    let server = server(&served("v1.pem", "v1.key")).unwrap().tls;
    for root in ["ca.pem", "v1.pem"] {
        let root_ca_file = Some(testdata(root));
        let options = ClientTlsOptions { root_ca_file, ..ClientTlsOptions::default() };
        let error = shake_hands(&server, &client(&options).unwrap().tls).unwrap_err().to_string();
        assert!(error.contains("not valid for name"), "{error}");
    }
}

#[test]
fn an_authority_of_version_1_vouches_unless_somebody_vouched_for_it() {
    let server = server(&served("below-v1-ca.pem", "v1.key")).unwrap().tls;
    let trusting = |name| {
        let root_ca_file = Some(testdata(name));
        let options = ClientTlsOptions { root_ca_file, ..ClientTlsOptions::default() };
        shake_hands(&server, &client(&options).unwrap().tls)
    };
    trusting("v1-ca.pem").unwrap();
    trusting("below-v1-ca.pem").unwrap();
    trusting("v1.pem").unwrap_err();
}

#[test]
fn a_critical_extension_that_nobody_knows_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(vec!["nsqd.example".into()]).unwrap();
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    let key = KeyPair::generate().unwrap();
    let (cert, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let options = ServerTlsOptions { cert, key: key_file, ..served("", "") };
    shake_hands(&server(&options).unwrap().tls, &takes_all()).unwrap();
}

#[test]
fn a_certificate_with_many_extensions_is_not_read() {
    let key = KeyPair::generate().unwrap();
    let with = |count: u64| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        let extension = |n| CustomExtension::from_oid_content(&[1, 2, 3, n], vec![5, 0]);
        params.custom_extensions = (0..count).map(extension).collect();
        params.self_signed(&key).unwrap()
    };
    Certificate::read(with(64).der()).unwrap();
    Certificate::read(with(65).der()).unwrap_err();
}

/// What is said of a certificate and a key that can't be used.
fn said_of(cert: &Path, key: &Path) -> String {
    let options = ServerTlsOptions { cert: cert.into(), key: key.into(), ..served("", "") };
    let said = server(&options).unwrap_err().to_string();
    let identity = Some((cert.into(), key.into()));
    let options =
        ClientTlsOptions { identity, insecure_skip_verify: true, ..ClientTlsOptions::default() };
    // Both sides say the same.
    assert_eq!(client(&options).unwrap_err().to_string(), said);
    assert!(!said.contains('\n'), "{said}");
    said
}

#[test]
fn what_can_not_be_served_is_named_and_what_would_be_right() {
    let good = "good ones are RSA of 2048 to 4096 bits, EC on P-256 or P-384, and Ed25519";
    let no_such = format!("such keys are not supported; {good}");
    for (cert, key, blamed, said) in [
        ("p521.pem", "p521.key", "p521.key", format!("an EC key on P-521, and {no_such}")),
        ("rsa1024.pem", "rsa1024.key", "rsa1024.key", format!("of 1024 bits, and {no_such}")),
        ("rsa8192.pem", "rsa8192.key", "rsa8192.key", format!("of 8192 bits, and {no_such}")),
        ("ed448.pem", "ed448.key", "ed448.key", format!("it is an Ed448 key, and {no_such}")),
        ("rsa.pem", "rsa-encrypted.key", "rsa-encrypted.key", "the key is encrypted".into()),
        (
            "rsa.pem",
            "rsa-encrypted-pkcs1.key",
            "rsa-encrypted-pkcs1.key",
            "the key is encrypted".into(),
        ),
        ("rsa.key", "rsa.pem", "rsa.key", "but a private key; perhaps the files".into()),
        ("rsa.pem", "rsa.pem", "rsa.pem", "but a certificate; perhaps the files".into()),
        ("rsa.pem", "v1.key", "v1.key", "belong to the first certificate (CN=rsa) in".into()),
        ("make.sh", "v1.key", "make.sh", "no block between -----BEGIN and -----END".into()),
    ] {
        let found = said_of(&testdata(cert), &testdata(key));
        assert!(found.starts_with(&format!("{}: ", testdata(blamed).display())), "{found}");
        assert!(found.contains(&said), "{found}");
    }
    let folder = tempfile::tempdir().unwrap();
    let der = folder.path().join("cert.der");
    let bytes = CertificateDer::from_pem_file(testdata("rsa.pem")).unwrap();
    fs::write(&der, &bytes).unwrap();
    assert!(said_of(&der, &testdata("rsa.key")).contains("it is DER, and has to be PEM"));
    let request = folder.path().join("request.pem");
    fs::write(&request, text("rsa.pem").replace("CERTIFICATE", "CERTIFICATE REQUEST")).unwrap();
    let said = said_of(&request, &testdata("rsa.key"));
    assert!(said.ends_with("no certificate in it, but CERTIFICATE REQUEST"), "{said}");
    let large = folder.path().join("large.pem");
    fs::File::create(&large).unwrap().set_len(17 << 20).unwrap();
    assert!(said_of(&large, &testdata("rsa.key")).contains("larger than 16 MiB"));
}

#[test]
fn nothing_of_a_block_is_shown_but_its_label() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one-line.pem");
    let (cert, key) = (testdata("v1.pem"), testdata("v1.key"));
    let lost = "can't be used: its BEGIN has to be a line of its own";
    for (name, label) in [("v1.key", "PRIVATE KEY"), ("v1.pem", "CERTIFICATE")] {
        let good = text(name);
        let good = good.trim_end();
        let contents = good.lines().nth(1).unwrap();
        let said = |file: String| {
            fs::write(&path, file).unwrap();
            let (cert, key) = if label == "CERTIFICATE" { (&path, &key) } else { (&cert, &path) };
            let said = said_of(cert, key);
            let said = said.strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned();
            // No five characters of what is in the block are there.
            for part in contents.as_bytes().windows(5) {
                assert!(!said.contains(str::from_utf8(part).unwrap()), "{said}");
            }
            said
        };
        for between in ["", " ", "\\n"] {
            let found = said(good.lines().collect::<Vec<_>>().join(between));
            assert!(found.starts_with(&format!("block 1 ({label}) {lost}")), "{found}");
        }
        let found = said(good.replacen(&format!("{label}-----\n"), &format!("{label}-----"), 1));
        assert!(found.starts_with(&format!("block 1 ({label}) {lost}")), "{found}");
        let found = said(format!("{good}{good}"));
        let more = format!("block 1 ({label}) can't be used: there is more in its END line");
        assert_eq!(found, more);
        // What is no label is not shown either.
        for odd in [contents, "", "Certificate", &"A".repeat(65)] {
            let found = said(good.replace(label, odd));
            assert!(found.ends_with("in it, but block 1"), "{found}");
        }
        let longest = "A".repeat(64);
        assert!(said(good.replace(label, &longest)).ends_with(&format!(", but {longest}")));
    }
}

#[test]
fn a_mark_of_utf_8_is_read_and_utf_16_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, format!("\u{feff}{}", text("v1.pem"))).unwrap();
    fs::write(&key, format!("\u{feff}{}", text("v1.key"))).unwrap();
    let options = ServerTlsOptions { cert: cert.clone(), key: key.clone(), ..served("", "") };
    assert_eq!(server(&options).unwrap().warnings, [""; 0]);
    for mark in ["\u{feff}", ""] {
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            let file = format!("{mark}{}", text("v1.key"));
            fs::write(&key, file.encode_utf16().flat_map(order).collect::<Vec<_>>()).unwrap();
            let said = said_of(&cert, &key);
            assert!(said.ends_with(": it is UTF-16; save it as UTF-8"), "{said}");
        }
    }
}

#[test]
fn a_key_is_what_it_is_and_not_what_its_block_says() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    for (cert, name, label) in [
        ("rsa.pem", "rsa.key", "PRIVATE KEY"),
        ("rsa.pem", "rsa-pkcs1.key", "RSA PRIVATE KEY"),
        ("sec1.pem", "sec1.key", "EC PRIVATE KEY"),
    ] {
        for other in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ANY PRIVATE KEY"] {
            let wrong = text(name)
                .replace(&format!("BEGIN {label}"), &format!("BEGIN {other}"))
                .replace(&format!("END {label}"), &format!("END {other}"));
            fs::write(&key, wrong).unwrap();
            let options = ServerTlsOptions { key: key.clone(), ..served(cert, "") };
            let loaded = server(&options).unwrap();
            assert_eq!(loaded.warnings, [""; 0], "{name} {other}");
            shake_hands(&loaded.tls, &takes_all()).unwrap();
        }
    }
}

/// A block whose contents are cut short, and the lines that a text editor leaves.
fn spoiled(pem: &str) -> String {
    let half = pem.len() / 2;
    format!("{}\r\n-----END CERTIFICATE-----\r\n", &pem[..half])
}

#[test]
fn a_block_that_is_bad_leaves_the_others_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.pem");
    let (good, bad) = (text("ca.pem"), spoiled(&text("rsa.pem")));
    let cut = text("rsa.pem").split("-----END").next().unwrap().to_owned();
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    for (bundle, said) in [
        (format!("{good}{bad}"), "block 2 (CERTIFICATE) can't be used: "),
        (format!("{bad}{good}"), "block 1 (CERTIFICATE) can't be used: "),
        (format!("{good}{cut}"), "block 2 (CERTIFICATE) can't be used: it has no END line"),
        (format!("{cut}\n{good}"), "block 1 (CERTIFICATE) can't be used: it has no END line"),
        (format!("a\n{good}\n{no_certificate}"), "block 2 (CERTIFICATE) can't be used: it is no c"),
        (format!("{no_base64}\n{good}"), "block 1 (CERTIFICATE) can't be used: it is not valid b"),
    ] {
        fs::write(&path, bundle).unwrap();
        let line = format!("{}: {said}", path.display());
        let options = ServerTlsOptions {
            root_ca_file: Some(path.clone()),
            client_auth: ClientAuth::RequireVerify,
            ..served("v1.pem", "v1.key")
        };
        let loaded = server(&options).unwrap();
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        assert!(loaded.warnings[0].starts_with(&line), "{:?}", loaded.warnings);
        assert!(loaded.warnings[0].ends_with("the rest of the file is used"));
        shake_hands(&loaded.tls, &shows("v1.pem", "v1.key")).unwrap();
        let root_ca_file = Some(path.clone());
        let options = ClientTlsOptions { root_ca_file, ..ClientTlsOptions::default() };
        assert_eq!(client(&options).unwrap().warnings, loaded.warnings);
    }
    fs::write(&path, &bad).unwrap();
    let options = ClientTlsOptions { root_ca_file: Some(path), ..Default::default() };
    let said = client(&options).unwrap_err().to_string();
    assert!(said.contains("block 1 (CERTIFICATE) can't be used: "), "{said}");
}

#[test]
fn a_bad_block_among_ones_own_certificates_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, format!("{}{}", text("v1.pem"), spoiled(&text("ca.pem")))).unwrap();
    let bad = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    fs::write(&key, format!("{bad}{}", text("v1.key"))).unwrap();
    let options = ServerTlsOptions { cert: cert.clone(), key: key.clone(), ..served("", "") };
    let loaded = server(&options).unwrap();
    shake_hands(&loaded.tls, &takes_all()).unwrap();
    let starts = [(&cert, "block 2 (CERTIFICATE)"), (&key, "block 1 (PRIVATE KEY)")];
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    for ((path, block), warning) in starts.into_iter().zip(&loaded.warnings) {
        let line = format!("{}: {block} can't be used: ", path.display());
        assert!(warning.starts_with(&line), "{warning}");
    }
    // Without its own certificate what is left belongs to another key, and the line says what is
    // missing.
    fs::write(&cert, format!("{}{}", spoiled(&text("v1.pem")), text("ca.pem"))).unwrap();
    let said = said_of(&cert, &key);
    assert!(said.starts_with(&format!("{}: the key does not belong", key.display())), "{said}");
    assert!(said.contains("block 1 (CERTIFICATE) can't be used: "), "{said}");
    // Both in one file.
    fs::write(&cert, format!("{}{}", text("v1.key"), text("v1.pem"))).unwrap();
    let options = ServerTlsOptions { cert: cert.clone(), key: cert, ..served("", "") };
    assert_eq!(server(&options).unwrap().warnings, [""; 0]);
}

/// Signs with a key that ring does not know, for a client that does not look.
#[derive(Clone, Copy, Debug)]
struct Unknown(SignatureScheme);

impl SigningKey for Unknown {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.0).then(|| Box::new(*self) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        if self.0 == SignatureScheme::ECDSA_NISTP521_SHA512 {
            SignatureAlgorithm::ECDSA
        } else {
            SignatureAlgorithm::RSA
        }
    }
}

impl Signer for Unknown {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![0; 128])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}

#[test]
fn who_skips_the_verification_skips_all_of_it() {
    for (cert, scheme) in [
        ("p521.pem", SignatureScheme::ECDSA_NISTP521_SHA512),
        ("rsa1024.pem", SignatureScheme::RSA_PSS_SHA256),
        ("v1.pem", SignatureScheme::ECDSA_NISTP256_SHA256),
    ] {
        let chain = vec![CertificateDer::from_pem_file(testdata(cert)).unwrap()];
        let own = CertifiedKey::new(chain, Arc::new(Unknown(scheme)));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        let server = ServerTls::new(Arc::new(config));
        shake_hands(&server, &takes_all()).unwrap();
        let root_ca_file = Some(testdata("ca.pem"));
        let careful = ClientTlsOptions { root_ca_file, ..ClientTlsOptions::default() };
        shake_hands(&server, &client(&careful).unwrap().tls).unwrap_err();
    }
}

#[test]
fn who_is_refused_for_the_authority_is_told_which_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let params = |name: &str| {
        let mut params = CertificateParams::new(vec!["nsqd.example".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let (key, own_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let pinned = params("pinned\nto me").self_signed(&key).unwrap();
    let issuer = Issuer::new(params("pinned\nto me"), key);
    let own = params("nsqd").signed_by(&own_key, &issuer).unwrap();
    fs::write(path("ca.pem"), pinned.pem()).unwrap();
    fs::write(path("cert.pem"), own.pem()).unwrap();
    fs::write(path("key.pem"), own_key.serialize_pem()).unwrap();
    let options =
        ServerTlsOptions { cert: path("cert.pem"), key: path("key.pem"), ..served("", "") };
    let server = server(&options).unwrap().tls;
    let options = ClientTlsOptions { root_ca_file: Some(path("ca.pem")), ..Default::default() };
    let error = shake_hands(&server, &client(&options).unwrap().tls).unwrap_err().to_string();
    let said = "invalid peer certificate: the authority's certificate CN=pinned\\0ato me does not \
        count: it is no authority's (basicConstraints do not say CA:TRUE)";
    assert!(error.contains(said), "{error}");
}

#[test]
fn an_authority_with_a_key_that_is_not_supported_is_no_list_of_bytes() {
    let der = CertificateDer::from_pem_file(testdata("below-p521.pem")).unwrap();
    let root = CertificateDer::from_pem_file(testdata("p521.pem")).unwrap();
    let known = Authorities::new([root], algorithms());
    let error = known.verify_client(&der, &[], UnixTime::now()).unwrap_err();
    let CertificateError::Other(OtherError(why)) = error else { panic!("{error:?}") };
    let said = "it, or one between it and the authority, is signed in a way that is not supported";
    assert!(why.to_string().starts_with(said), "{why}");
}

#[test]
fn a_name_that_no_certificate_can_have() {
    let root_ca_file = Some(testdata("ca.pem"));
    let careful = ClientTlsOptions { root_ca_file, ..ClientTlsOptions::default() };
    let careful = client(&careful).unwrap().tls;
    for name in ["012345678901", "nsqd.42", "nsqd-", "host:4150", "", "a b"] {
        let error = Tls::client(&careful, name).unwrap_err().to_string();
        assert!(error.starts_with(&format!("no certificate can be for the name {name:?}: ")));
        // It is not sent, so every server can do with it.
        let server = server(&served("v1.pem", "v1.key")).unwrap().tls;
        shake_hands_as(&server, &takes_all(), name).unwrap();
    }
}

#[test]
fn a_client_has_to_have_the_key_to_what_it_shows() {
    let options =
        ServerTlsOptions { client_auth: ClientAuth::Require, ..served("v1.pem", "v1.key") };
    let server = server(&options).unwrap().tls;
    let key = PrivateKeyDer::from_pem_file(testdata("ca.key")).unwrap();
    let key = ring::default_provider().key_provider.load_private_key(key).unwrap();
    for version in [&version::TLS12, &version::TLS13] {
        for cert in ["v1.pem", "sec1.pem"] {
            let chain = vec![CertificateDer::from_pem_file(testdata(cert)).unwrap()];
            let stolen = CertifiedKey::new(chain, Arc::clone(&key));
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(algorithms())))
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(stolen)));
            let error = shake_hands(&server, &ClientTls::new(Arc::new(config))).unwrap_err();
            assert!(error.to_string().contains("BadSignature"), "{error}");
        }
    }
}

#[test]
fn no_bytes_of_a_file_are_too_odd() {
    let pem = text("rsa.pem") + &text("rsa-encrypted-pkcs1.key") + &text("sec1.key");
    for len in 0..pem.len() {
        let blocks = Blocks::parse(&pem.as_bytes()[..len]);
        assert!(blocks.blocks.len() <= 4);
    }
    for odd in ["-----BEGIN -----", "-----BEGIN-----", "-----END A-----", "-----BEGIN A----------"]
    {
        let _ = Blocks::parse(format!("{odd}\n{odd}\n").as_bytes()).lacks("certificate");
    }
    let der = CertificateDer::from_pem_file(testdata("rsa.pem")).unwrap();
    let known = Authorities::new([der.clone()], algorithms());
    for at in 0..der.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = der.to_vec();
            changed[at] ^= change;
            let changed = CertificateDer::from(changed);
            let _ = certificate::public_key(&changed);
            assert!(known.verify_client(&changed, &[], UnixTime::now()).is_err());
            let cut = CertificateDer::from(der[..at].to_vec());
            assert!(known.verify_client(&cut, &[], UnixTime::now()).is_err());
        }
    }
}
