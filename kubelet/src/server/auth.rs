//! Who may call the node's API.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::config::ServingTls;
use crate::server::ServerError;

/// Members of this group may do everything.
const MASTERS: &str = "system:masters";

/// TLS with required client certificates, and who of their owners may call.
#[derive(Clone)]
pub struct Tls {
    /// The server's configuration.
    pub config: Arc<rustls::ServerConfig>,
    allowed_users: Arc<Vec<String>>,
}

/// A caller's name and groups, from its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The subject's common name.
    pub user: String,
    /// The subject's organizations.
    pub groups: Vec<String>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: &ServingTls) -> Result<Self, ServerError> {
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|source| ServerError::Pem { path: files.key.clone(), source })?;
        let fails = |source| ServerError::Tls { cert: files.cert.clone(), source };
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots(&files.client_ca)?.into(), provider.clone())
                .build()
                .map_err(|source| ServerError::ClientCa { path: files.client_ca.clone(), source })?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(fails)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(fails)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), allowed_users: Arc::new(files.allowed_users.clone()) })
    }

    /// Whether this caller may call.
    pub fn allows(&self, caller: &Caller) -> bool {
        self.allowed_users.contains(&caller.user) || caller.groups.iter().any(|group| group == MASTERS)
    }
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

impl Caller {
    /// From a certificate that TLS has verified; `None` if it names nobody.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject: &X509Name<'_> = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
        Some(Self { user, groups: groups.collect() })
    }
}
