//! Whom a TLS client believes, and who it is.

use std::fs;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use streaming::anyone::Anyone;

use crate::pki::{PkiError, Renewed, tls as pki};
use crate::reach::authorities::Authorities;

/// Where systems keep the authorities that they believe.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Whom to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust<'a> {
    /// Who has a certificate of these authorities, in PEM.
    Bundle(&'a [u8]),
    /// Who has a certificate of those that this machine believes.
    Machine,
    /// Anyone: pods have no names that a certificate could hold, and some say that they don't care.
    Anyone,
}

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The bundle can't be read.
    #[error("unable to load root certificates: {0}")]
    Bundle(String),
    /// It holds no certificate.
    #[error("unable to load root certificates: no certificate is among them")]
    Empty,
    /// The machine keeps none where it is looked for.
    #[error("this machine has no authorities in {}: name one", AUTHORITIES.join(", "))]
    NoMachine,
    /// Our own certificate or the library's settings are wrong.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// A client that believes `trust`, and shows `identity` if it is asked who it is.
///
/// # Errors
/// [`TrustError`].
pub fn client(trust: Trust<'_>, identity: Option<&Arc<Renewed>>) -> Result<Arc<ClientConfig>, TrustError> {
    let builder = ClientConfig::builder_with_provider(pki::provider())
        .with_safe_default_protocol_versions()
        .map_err(PkiError::Tls)?;
    let builder = match trust {
        Trust::Bundle(pem) => believing(builder, Authorities::new(certificates(pem)?)?),
        Trust::Machine => believing(builder, Authorities::new(certificates(&machine()?)?)?),
        Trust::Anyone => believing(builder, Anyone::new(pki::provider())),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => pki::shows(builder, identity.clone()),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn believing(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    verifier: impl ServerCertVerifier + 'static,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
    all.map_err(|error| TrustError::Bundle(error.to_string()))
}

fn machine() -> Result<Vec<u8>, TrustError> {
    AUTHORITIES.iter().find_map(|path| fs::read(path).ok()).ok_or(TrustError::NoMachine)
}
