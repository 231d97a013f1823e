//! Whom TLS clients of the node believe: the authorities of the machine, or those of one file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Where systems keep the authorities that they believe.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The machine's; none where it has none.
pub fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let file = SYSTEM.iter().find_map(|path| CertificateDer::pem_file_iter(path).ok());
    // One that can't be read is one less to believe.
    roots.add_parsable_certificates(file.into_iter().flatten().map_while(Result::ok));
    roots
}

/// Those of a file in PEM.
///
/// # Errors
/// It can't be read, or holds none.
pub fn of_file(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    match roots.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate in PEM")),
        false => Ok(roots),
    }
}

/// A client that believes them, and shows nothing of its own.
///
/// # Errors
/// Never with the algorithms that we have.
pub fn client(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
