//! TLS from files: etcd's certificate flags as rustls configurations.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate with its key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// PEM: the certificate, followed by those that lead to the authority.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// A file of certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It isn't PEM, or has nothing of what we look for.
    #[error("{path} has no {what} in PEM form", path = .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// Certificate and key don't go together, or the library refuses them.
    #[error("cannot use {path}", path = .path.display())]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authority can't verify anybody.
    #[error("cannot verify clients with {path}", path = .path.display())]
    Verifier {
        /// The authority's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// A server that shows `own`, and lets only those in whose certificate one of `authorities` signed; anybody
/// if there are none.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn server(
    own: &KeyPairFiles,
    authorities: Option<&Path>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Refused { path: own.certificate.clone(), source })?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider());
            let refused = |source| TlsError::Verifier { path: path.to_owned(), source };
            builder.with_client_cert_verifier(verifier.build().map_err(refused)?)
        }
    };
    let (chain, key) = read_pair(own)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Refused { path: own.certificate.clone(), source })?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that trusts `authorities` (the system's if none are given) and shows `own` if it has one.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn client(authorities: &Path, own: Option<&KeyPairFiles>) -> Result<Arc<ClientConfig>, TlsError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Refused { path, source }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(refused(authorities))?
        .with_root_certificates(roots(authorities)?);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let (chain, key) = read_pair(own)?;
            builder.with_client_auth_cert(chain, key).map_err(refused(&own.certificate))?
        }
    };
    Ok(Arc::new(config))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Refused { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

fn read_pair(
    files: &KeyPairFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&files.certificate)?;
    let text = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| TlsError::Empty { path: files.key.clone(), what: "private key" })?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Empty { path: path.to_owned(), what: "certificate" }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Named, not taken from a process-wide default: a library in the same process can't change it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
