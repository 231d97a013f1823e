//! Making certificates: subjects, lifetimes and usages. No files and no sockets.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use api::csr::CertificateRequest;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;

use super::{Issued, PkiError, Usage};

/// `rcgen` keeps one value per attribute type; the organization's OID can be spelled in two ways.
pub(super) const MAX_GROUPS: usize = 2;
const ORGANIZATION_OID: &[u64] = &[2, 5, 4, 10];
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long an authority lasts.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long what an authority signs for us lasts.
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Who a certificate speaks for.
pub(super) struct Subject<'a> {
    /// Common name; the user, to the API server.
    pub(super) user: &'a str,
    /// Organizations; the groups, to the API server.
    pub(super) groups: &'a [&'a str],
    pub(super) names: &'a [String],
    pub(super) addresses: &'a [IpAddr],
}

/// A new authority that signs itself.
pub(super) fn self_signed(common_name: &str) -> Result<(Issued, Issuer<'static, KeyPair>), PkiError> {
    let fail = |source| PkiError::Sign { subject: common_name.to_owned(), source };
    let key = KeyPair::generate().map_err(fail)?;
    let mut params = valid_for(AUTHORITY_LIFE);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).map_err(fail)?;
    let issued = Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    Ok((issued, Issuer::new(params, key)))
}

/// A certificate with a new key, signed by `issuer`.
pub(super) fn sign(
    issuer: &Issuer<'static, KeyPair>,
    subject: &Subject<'_>,
    usage: Usage,
) -> Result<Issued, PkiError> {
    let fail = |source| PkiError::Sign { subject: subject.user.to_owned(), source };
    let mut params = valid_for(LEAF_LIFE);
    params.distinguished_name = distinguished_name(subject)?;
    params.subject_alt_names = alternative_names(subject).map_err(fail)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = extended_usages(usage);
    let key = KeyPair::generate().map_err(fail)?;
    let certificate = params.signed_by(&key, issuer).map_err(fail)?;
    Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// A certificate for somebody else's key, valid from and to these seconds since 1970.
pub(super) fn sign_request(
    issuer: &Issuer<'static, KeyPair>,
    request: &CertificateRequest,
    usages: &[String],
    valid: Range<i64>,
) -> Result<String, PkiError> {
    let fail = |source| PkiError::Sign { subject: request.common_name.clone(), source };
    let groups: Vec<&str> = request.organizations.iter().map(String::as_str).collect();
    let subject = Subject {
        user: &request.common_name,
        groups: &groups,
        names: &request.names,
        addresses: &request.addresses,
    };
    let mut params = CertificateParams::default();
    set_validity(&mut params, valid);
    params.serial_number = Some(SerialNumber::from(rand::random::<u64>() >> 1));
    params.distinguished_name = distinguished_name(&subject)?;
    params.subject_alt_names = alternative_names(&subject).map_err(fail)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    for usage in usages {
        match usage.as_str() {
            "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
            "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            _ => {} // No signer of ours lets others through.
        }
    }
    let key = SubjectPublicKeyInfo::from_der(&request.public_key).map_err(fail)?;
    Ok(params.signed_by(&key, issuer).map_err(fail)?.pem())
}

/// Whether `certificate` is an authority, still valid, and belongs to `key`.
pub(super) fn check_authority(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| "it holds no X.509 certificate".to_owned())?;
    if !parsed.is_ca() {
        return Err("it isn't a certificate authority".to_owned());
    }
    if !parsed.validity().is_valid() {
        return Err(format!("it is valid only until {}", parsed.validity().not_after));
    }
    if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err("it doesn't belong to the key beside it".to_owned());
    }
    Ok(())
}

/// From yesterday, so that a peer whose clock is behind accepts it, until its life from now on is over.
fn valid_for(life: SignedDuration) -> CertificateParams {
    let now = Timestamp::now();
    let mut params = CertificateParams::default();
    set_validity(&mut params, (now - DAY).as_second()..(now + life).as_second());
    params
}

/// From and to these seconds since 1970.
fn set_validity(params: &mut CertificateParams, valid: Range<i64>) {
    let at = |second: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(second).unwrap_or_default())
    };
    (params.not_before, params.not_after) = (at(valid.start), at(valid.end));
}

fn distinguished_name(subject: &Subject<'_>) -> Result<DistinguishedName, PkiError> {
    if subject.groups.len() > MAX_GROUPS {
        return Err(PkiError::TooManyGroups { user: subject.user.to_owned(), count: subject.groups.len() });
    }
    let mut name = DistinguishedName::new();
    let spellings = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION_OID.to_vec())];
    for (spelling, group) in spellings.into_iter().zip(subject.groups) {
        name.push(spelling, *group);
    }
    name.push(DnType::CommonName, subject.user);
    Ok(name)
}

fn alternative_names(subject: &Subject<'_>) -> Result<Vec<SanType>, rcgen::Error> {
    let names = subject.names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
    let addresses = subject.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
    names.chain(addresses).collect()
}

fn extended_usages(usage: Usage) -> Vec<ExtendedKeyUsagePurpose> {
    match usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    }
}
