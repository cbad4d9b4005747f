//! Certificates as they are made: an authority that can answer for given names alone, and a server's certificate from it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::ServerName;
use time::OffsetDateTime;

pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// With the day before: Apple's limit for certificates is 398.
const SERVER_DAYS: u32 = 397;
/// Twenty years, so that none need be told to trust another before the machine is gone.
const CA_DAYS: u32 = 7300;

/// A certificate and its key, both as PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A new authority. Its certificate says that it is not to be believed about other names than these, so that whoever steals the
/// key cannot pass for a bank.
pub(super) fn authority(names: &[ServerName<'_>], now: SystemTime) -> Result<Pair, rcgen::Error> {
    // The day tells two of them apart in a browser's list.
    let mut params = params(
        &format!("Zoetrope local authority of {}", OffsetDateTime::from(now).date()),
        CA_DAYS,
        now,
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let permitted_subtrees = names.iter().map(subtree).collect();
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// A certificate for a server of these names, with [`title`] as its first line.
pub(super) fn issue(
    ca: &Pair,
    names: &[ServerName<'_>],
    now: SystemTime,
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let mut params = params("Zoetrope", SERVER_DAYS, now);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true; // Python from 3.13 on insists
    params.subject_alt_names = names.iter().map(alternative).collect::<Result<_, _>>()?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Pair { certificate: format!("{}\n{certificate}", title(names)), key: key.serialize_pem() })
}

/// What stands above a certificate: readers of PEM skip it.
pub(super) fn title(names: &[ServerName<'_>]) -> String {
    let names: Vec<_> = names.iter().map(|name| name.to_str()).collect();
    format!("# for {}", names.join(" "))
}

/// The authority's certificate and those that the public trusts, as PEM.
pub(super) fn bundle(ca: &Pair) -> String {
    let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| pem(der));
    std::iter::once(ca.certificate.clone()).chain(public).collect()
}

fn params(name: &str, days: u32, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "Zoetrope");
    params.not_before = (now - DAY).into(); // a client's clock may be late
    params.not_after = (now + DAY * days).into();
    params
}

fn subtree(name: &ServerName<'_>) -> GeneralSubtree {
    match address(name) {
        Some(address) => GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
            address,
            if address.is_ipv4() { 32 } else { 128 },
        )),
        None => GeneralSubtree::DnsName(name.to_str().into_owned()),
    }
}

fn alternative(name: &ServerName<'_>) -> Result<SanType, rcgen::Error> {
    match address(name) {
        Some(address) => Ok(SanType::IpAddress(address)),
        None => Ok(SanType::DnsName(name.to_str().as_ref().try_into()?)),
    }
}

fn address(name: &ServerName<'_>) -> Option<IpAddr> {
    match name {
        ServerName::IpAddress(address) => Some((*address).into()),
        _ => None,
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.extend(line.iter().map(|&byte| char::from(byte)));
        lines.push('\n');
    }
    lines + "-----END CERTIFICATE-----\n"
}
