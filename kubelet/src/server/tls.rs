//! The TLS of the node's API: the certificate that is shown, which may come and be renewed while it serves, and the
//! authority of callers' certificates.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{ServingCertificate, ServingTls};
use crate::server::ServerError;

/// The certificate that is shown. Until there is one no handshake succeeds, as with upstream's kubelet.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Shown {
    /// From the next handshake on; `pem` holds the chain and the key.
    ///
    /// # Errors
    /// If it doesn't; then the old one stays.
    pub fn replace(&self, chain_pem: &str, key_pem: &str) -> Result<(), String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| error.to_string())?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
        *self.0.write() = Some(Arc::new(certified.map_err(|error| error.to_string())?));
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

/// How connections are accepted: whoever shows a certificate must show one of the cluster's; who shows none may have
/// a token.
#[derive(Clone)]
pub struct Tls {
    /// The server's configuration.
    pub config: Arc<rustls::ServerConfig>,
    /// What it shows.
    pub shown: Shown,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: &ServingTls) -> Result<Self, ServerError> {
        let shown = Shown::default();
        if let ServingCertificate::Files { cert, key } = &files.certificate {
            *shown.0.write() = Some(Arc::new(certified(cert, key)?));
        }
        let client_ca = |source| ServerError::ClientCa { path: files.client_ca.clone(), source };
        let provider = Arc::new(ring::default_provider());
        let roots = roots(&files.client_ca)?.into();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let verifier = verifier.allow_unauthenticated().build().map_err(client_ca)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| ServerError::Tls { cert: files.client_ca.clone(), source })?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(shown.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), shown })
    }
}

fn certified(cert: &Path, key: &Path) -> Result<CertifiedKey, ServerError> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|source| ServerError::Pem { path: key.to_owned(), source })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|source| ServerError::Tls { cert: cert.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let fails = |source| ServerError::Pem { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(fails)?.collect::<Result<_, _>>().map_err(fails)
}

fn roots(path: &Path) -> Result<RootCertStore, ServerError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    Ok(roots)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Shows a certificate of nobody's, and asks for none.
    pub(crate) fn config() -> rustls::ServerConfig {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server's settings")
    }
}
