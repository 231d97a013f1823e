//! rustls configurations for each of the cluster's connections.

use std::sync::Arc;

use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::renewed::Renewed;
use super::{Issued, PkiError, Shown};

pub(super) fn parse_certificate(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| PkiError::Pem { what: "certificate", source })
}

/// When an authority's certificate ends, in seconds since 1970.
pub(super) fn end_of(certificate: &CertificateDer<'_>) -> i64 {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    parsed.map_or(i64::MAX, |(_, certificate)| certificate.validity().not_after.timestamp())
}

/// Anonymous clients get in; whoever shows a certificate must show one of `authority`.
pub(super) fn optional_clients_of(
    authority: &CertificateDer<'static>,
) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(PkiError::Verifier)
}

/// Nobody gets in without a certificate of `authority`.
pub(super) fn only_clients_of(
    authority: &CertificateDer<'static>,
) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), provider())
        .build()
        .map_err(PkiError::Verifier)
}

pub(super) fn server_config(
    serving: &impl Shown,
    verifier: Arc<dyn ClientCertVerifier>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, PkiError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving.resolver()?);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

pub(super) fn client_config(
    authority: &CertificateDer<'static>,
    identity: &impl Shown,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?
        .with_root_certificates(roots(authority)?);
    let mut config = shows(builder, identity.resolver()?);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that shows a certificate of ours. It takes up no session of before: with that its server would take up
/// the certificate of before, too, and again at the next connection.
pub(crate) fn shows(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Arc<Renewed>,
) -> ClientConfig {
    let mut config = builder.with_client_cert_resolver(identity);
    config.resumption = Resumption::disabled();
    config
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(PkiError::Tls)?;
    Ok(roots)
}

/// A certificate and its key, to be shown.
pub(super) fn certified_key(issued: &Issued) -> Result<CertifiedKey, PkiError> {
    let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| PkiError::Pem { what: "certificate", source })?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())
        .map_err(|source| PkiError::Pem { what: "private key", source })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(PkiError::Tls)
}

/// Named, not taken from a process-wide default: a library in the same process can't change it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
