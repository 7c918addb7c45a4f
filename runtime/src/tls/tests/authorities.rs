//! Whom the certificates of a file vouch for, and what the reference says to the same.

use core::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::super::authorities::Authorities;
use super::*;

/// Noon of a day in 2026, around which all these certificates are valid if nothing else is said.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_783_000_000));

/// Who signs, and with what.
struct Signer {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["nsqd.example".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Signer {
    fn root(params: CertificateParams) -> Self {
        Self::root_with(params, KeyPair::generate().unwrap())
    }

    fn root_with(params: CertificateParams, key: KeyPair) -> Self {
        let certificate = params.self_signed(&key).unwrap().into();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().into();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, params: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate: Certificate = params.signed_by(&key, &self.issuer).unwrap();
        certificate.into()
    }
}

/// What is said of a peer with `chain` at `now`, by a server and by a client, who trust `trusted`.
fn judge_at(
    now: UnixTime,
    trusted: &[&CertificateDer<'static>],
    chain: &[&CertificateDer<'static>],
) -> [Result<(), String>; 2] {
    let known = Authorities::new(trusted.iter().map(|der| (*der).clone()), algorithms());
    let between: Vec<_> = chain[1..].iter().map(|der| (*der).clone()).collect();
    let name = ServerName::try_from("nsqd.example").unwrap();
    [
        known.verify_client(chain[0], &between, now).map_err(|error| format!("{error:?}")),
        known.verify_server(chain[0], &between, &name, now).map_err(|error| format!("{error:?}")),
    ]
}

fn accepted(trusted: &[&CertificateDer<'static>], chain: &[&CertificateDer<'static>]) {
    assert_eq!(judge_at(NOW, trusted, chain), [Ok(()), Ok(())]);
}

/// Both sides refuse the peer, and `why` is said.
fn refused(trusted: &[&CertificateDer<'static>], chain: &[&CertificateDer<'static>], why: &str) {
    for said in judge_at(NOW, trusted, chain) {
        let said = said.expect_err(why);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_pinned_certificate_vouches_for_nobody_but_itself() {
    let authority = Signer::root(authority("an authority"));
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let mut pinned = params("pinned");
        pinned.is_ca = is_ca;
        let own = Signer::root(pinned.clone());
        let admin = own.leaf(&params("admin"));
        for trusted in [&[&own.certificate][..], &[&authority.certificate, &own.certificate]] {
            accepted(trusted, &[&own.certificate]);
            refused(trusted, &[&admin], "it is no authority's");
            refused(trusted, &[&admin, &own.certificate], "it is no authority's");
        }
        // The same if an authority signed it.
        let given = authority.below(pinned);
        let admin = given.leaf(&params("admin"));
        accepted(&[&given.certificate], &[&given.certificate]);
        refused(&[&given.certificate], &[&admin], "it is no authority's");
        accepted(&[&authority.certificate], &[&given.certificate]);
        refused(&[&authority.certificate], &[&admin, &given.certificate], "EndEntityUsedAsCa");
        let both = [&authority.certificate, &given.certificate];
        refused(&both, &[&admin], "it is no authority's");
    }
}

#[test]
fn a_pinned_certificate_is_held_to_its_own_terms() {
    let mut old = params("old");
    old.not_after = date_time_ymd(2021, 1, 1);
    let old = Signer::root(old).certificate;
    refused(&[&old], &[&old], "Expired");
    let mut early = params("early");
    early.not_before = date_time_ymd(2039, 1, 1);
    let early = Signer::root(early).certificate;
    refused(&[&early], &[&early], "NotValidYet");
    let mut signer = params("signs code");
    signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let signer = Signer::root(signer).certificate;
    refused(&[&signer], &[&signer], "InvalidPurpose");
    // An authority's own will do, as in the reference.
    let own = Signer::root(authority("an authority")).certificate;
    accepted(&[&own], &[&own]);
}

#[test]
fn an_authority_that_has_expired_vouches_for_nobody() {
    let mut terms = authority("an authority");
    terms.not_before = date_time_ymd(2024, 1, 1);
    terms.not_after = date_time_ymd(2026, 1, 1);
    let key = KeyPair::generate().unwrap();
    let again = KeyPair::from_pem(&key.serialize_pem()).unwrap();
    let old = Signer::root_with(terms.clone(), key);
    let leaf = old.leaf(&params("a peer"));
    refused(&[&old.certificate], &[&leaf], "it has expired");
    refused(&[&old.certificate], &[&leaf, &old.certificate], "it has expired");
    // It is asked when the peer comes, and not when the file is read.
    let day = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400));
    let of_2025 = day(20_089);
    assert_eq!(judge_at(of_2025, &[&old.certificate], &[&leaf]), [Ok(()), Ok(())]);
    let of_2022 = day(18_993);
    for said in judge_at(of_2022, &[&old.certificate], &[&leaf]) {
        assert!(said.unwrap_err().contains("it is not valid yet"));
    }
    // The same authority with a new certificate, in the same file.
    terms.not_after = date_time_ymd(2040, 1, 1);
    let new = Signer::root_with(terms, again);
    for trusted in [[&old, &new], [&new, &old]] {
        accepted(&trusted.map(|signer| &signer.certificate), &[&leaf]);
    }
}

/// A peer's certificate and those of so many authorities between it and `root`.
fn chain_below(root: &Signer, count: usize) -> Vec<CertificateDer<'static>> {
    let mut between: Vec<Signer> = Vec::new();
    for number in 0..count {
        let next = between.last().unwrap_or(root).below(authority(&format!("between {number}")));
        between.push(next);
    }
    let leaf = between.last().unwrap_or(root).leaf(&params("a peer"));
    let between = between.iter().rev().map(|signer| signer.certificate.clone());
    [leaf].into_iter().chain(between).collect()
}

#[test]
fn an_authority_vouches_over_as_many_others_as_its_pathlen_allows() {
    for allowed in 0..3 {
        let mut terms = authority("root");
        terms.is_ca = IsCa::Ca(BasicConstraints::Constrained(allowed));
        let root = Signer::root(terms);
        for count in 0..4 {
            let chain = chain_below(&root, count);
            let chain: Vec<_> = chain.iter().collect();
            if count <= usize::from(allowed) {
                accepted(&[&root.certificate], &chain);
            } else {
                refused(&[&root.certificate], &chain, "its pathlen allows fewer");
            }
        }
    }
    // Nothing is said of a length: webpki's own limit, or none.
    let root = Signer::root(authority("root"));
    let chain = chain_below(&root, 4);
    accepted(&[&root.certificate], &chain.iter().collect::<Vec<_>>());
}

#[test]
fn identifiers_and_times_of_any_size_can_be_read() {
    let mut terms = authority("root");
    terms.not_before = date_time_ymd(1950, 1, 1);
    terms.not_after = date_time_ymd(9999, 12, 31);
    let long: Vec<u64> = [1, 2].into_iter().chain([u64::from(u32::MAX); 12]).collect();
    for id in [&[1, 2][..], &long] {
        terms.custom_extensions.push(CustomExtension::from_oid_content(id, vec![5, 0]));
        terms.extended_key_usages.push(ExtendedKeyUsagePurpose::Other(id.to_vec()));
    }
    let strict = Signer::root(terms.clone());
    refused(&[&strict.certificate], &[&strict.leaf(&params("a peer"))], "extendedKeyUsage");
    terms.extended_key_usages.push(ExtendedKeyUsagePurpose::Any);
    let root = Signer::root(terms);
    accepted(&[&root.certificate], &[&root.leaf(&params("a peer"))]);
    accepted(&[&root.certificate], &[&root.certificate]);
}

#[test]
fn an_authority_has_to_be_allowed_to_sign() {
    let mut terms = authority("root");
    terms.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let root = Signer::root(terms.clone());
    refused(&[&root.certificate], &[&root.leaf(&params("a peer"))], "keyCertSign");
    terms.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let root = Signer::root(terms);
    accepted(&[&root.certificate], &[&root.leaf(&params("a peer"))]);
    // The same in between.
    let mut terms = authority("between");
    terms.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let between = root.below(terms);
    let leaf = between.leaf(&params("a peer"));
    refused(&[&root.certificate], &[&leaf, &between.certificate], "keyCertSign");
}

#[test]
fn what_an_authority_may_vouch_for_is_what_its_purposes_say() {
    let with = |purposes: &[ExtendedKeyUsagePurpose]| {
        let mut terms = authority("root");
        terms.extended_key_usages = purposes.to_vec();
        let root = Signer::root(terms);
        let leaf = root.leaf(&params("a peer"));
        judge_at(NOW, &[&root.certificate], &[&leaf]).map(|said| said.is_ok())
    };
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    assert_eq!(with(&[ServerAuth]), [false, true]);
    assert_eq!(with(&[ClientAuth]), [true, false]);
    assert_eq!(with(&[ClientAuth, ServerAuth]), [true, true]);
    assert_eq!(with(&[CodeSigning]), [false, false]);
    assert_eq!(with(&[CodeSigning, Any]), [true, true]);
}

#[test]
fn what_a_peer_may_be_is_what_its_purposes_say() {
    let root = Signer::root(authority("root"));
    let with = |purposes: &[ExtendedKeyUsagePurpose]| {
        let mut terms = params("a peer");
        terms.extended_key_usages = purposes.to_vec();
        let leaf = root.leaf(&terms);
        judge_at(NOW, &[&root.certificate], &[&leaf]).map(|said| said.is_ok())
    };
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    assert_eq!(with(&[]), [true, true]);
    assert_eq!(with(&[ServerAuth]), [false, true]);
    assert_eq!(with(&[ClientAuth]), [true, false]);
    assert_eq!(with(&[CodeSigning]), [false, false]);
    assert_eq!(with(&[Any]), [true, true]);
    assert_eq!(with(&[CodeSigning, Any]), [true, true]);
}

#[test]
fn name_constraints_of_an_authority_hold() {
    for (name, is_good) in [("example", true), ("elsewhere", false)] {
        let mut terms = authority("root");
        terms.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(name.into())],
            excluded_subtrees: Vec::new(),
        });
        let root = Signer::root(terms);
        let leaf = root.leaf(&params("a peer"));
        let said = judge_at(NOW, &[&root.certificate], &[&leaf]).map(|said| said.is_ok());
        assert_eq!(said, [is_good; 2], "{name}");
        // Without a path nobody looks at names, so nobody is taken.
        let leaf = root.below(authority("an authority below")).certificate;
        refused(&[&root.certificate], &[&leaf], "UnknownIssuer");
    }
}

#[test]
fn an_authority_with_a_critical_extension_that_nobody_knows() {
    let critical = |mut terms: CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        terms.custom_extensions.push(extension);
        terms
    };
    let root = Signer::root(critical(authority("root")));
    refused(&[&root.certificate], &[&root.leaf(&params("a peer"))], "critical extension");
    let root = Signer::root(authority("root"));
    let leaf = root.leaf(&critical(params("a peer")));
    refused(&[&root.certificate], &[&leaf], "UnhandledCriticalExtension");
    refused(&[&leaf], &[&leaf], "UnhandledCriticalExtension");
}

#[test]
fn an_authoritys_own_certificate_is_taken_if_another_one_signed_it() {
    let root = Signer::root(authority("root"));
    let below = root.below(authority("below"));
    accepted(&[&root.certificate], &[&below.certificate]);
    refused(&[&below.certificate], &[&root.certificate], "UnknownIssuer");
    // A name is no signature.
    let forged = Signer::root(authority("root")).below(authority("below"));
    refused(&[&root.certificate], &[&forged.certificate], "UnknownIssuer");
    let leaf = Signer::root(authority("root")).leaf(&params("a peer"));
    refused(&[&root.certificate], &[&leaf], "BadSignature");
}

#[test]
fn clients_are_told_whose_certificates_will_do_unless_they_are_too_many() {
    let root = Signer::root(authority("root")).certificate;
    let known = Authorities::new([root.clone()], algorithms());
    assert_eq!(known.hints().len(), 1);
    let many = core::iter::repeat_n(root, 5_000);
    assert!(Authorities::new(many, algorithms()).hints().is_empty());
}

#[test]
fn of_the_systems_authorities_those_may_vouch_that_may() {
    let good = Signer::root(authority("good")).certificate;
    let mut old = authority("old");
    old.not_after = date_time_ymd(2021, 1, 1);
    let trusted =
        [good.clone(), Signer::root(old).certificate, Signer::root(params("leaf")).certificate];
    let known = Authorities::new(trusted, algorithms());
    assert_eq!(known.of_servers(NOW).collect::<Vec<_>>(), [&good]);
}
