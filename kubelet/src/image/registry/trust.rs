//! By what a registry is known: the system's authorities, and a folder of its own by Docker's convention.
//!
//! | in `certs.d/HOST:PORT/` | what |
//! |---|---|
//! | `*.crt` | authorities of this registry beside the system's; or its own certificate, if it has signed itself |
//! | `NAME.cert`, `NAME.key` | what we show to it |
//!
//! Of several `certs.d` the first counts that has a folder for the registry. The port is left out where the
//! reference has none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::authorities;

/// Where other runtimes of this machine look.
const SHARED: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// What is known of one registry.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Its folder, if it has one.
    folder: Option<PathBuf>,
    /// Where one would be seen first.
    place: PathBuf,
}

impl Trust {
    /// `own`: a `certs.d` that goes before those of the machine.
    pub fn of(registry: &str, own: &Path) -> Self {
        let places = [own, Path::new(SHARED[0]), Path::new(SHARED[1])].map(|certs| certs.join(registry));
        let folder = places.iter().find(|place| place.is_dir()).cloned();
        let [place, ..] = places;
        Self { folder, place }
    }

    /// Somebody has said how the registry is known: it speaks TLS then, wherever it is.
    pub fn is_told(&self) -> bool {
        self.folder.is_some()
    }

    /// How TLS is spoken with the registry, and with those to whom it sends us.
    ///
    /// # Errors
    /// A file of the folder can't be used.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Believer::new(self.authorities()?, provider.clone())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match self.identity()? {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|error| self.unusable(error))
            }
        }
    }

    fn unusable(&self, error: rustls::Error) -> String {
        format!("the client certificate in {}: {error}", self.place.display())
    }

    /// The folder's files with this extension, by name.
    fn files(&self, extension: &str) -> Result<Vec<PathBuf>, String> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let failed = |error: io::Error| format!("read {}: {error}", folder.display());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            files.extend(Some(path).filter(|path| path.extension().is_some_and(|found| found == extension)));
        }
        files.sort();
        Ok(files)
    }

    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let mut all = Vec::new();
        for file in self.files("crt")? {
            all.extend(certificates(&file)?);
        }
        Ok(all)
    }

    /// What we show, if the registry has a folder that says so.
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        let Some(file) = self.files("cert")?.into_iter().next() else { return Ok(None) };
        let key = file.with_extension("key");
        if !key.exists() {
            let (key, file) = (key.display(), file.display());
            return Err(format!(
                "missing key {key} for client certificate {file}; certificates of authorities must end in .crt"
            ));
        }
        let read =
            PrivateKeyDer::from_pem_file(&key).map_err(|error| format!("read {}: {error}", key.display()));
        Ok(Some((certificates(&file)?, read?)))
    }

    /// What is said of a handshake that failed, in the words of other runtimes, and what would help.
    pub fn explain(&self, host: &str, error: &io::Error) -> String {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let why = match tls {
            Some(rustls::Error::InvalidCertificate(why)) => why,
            Some(rustls::Error::InvalidMessage(_)) => {
                return "http: server gave HTTP response to HTTPS client".to_owned();
            }
            _ => return error.to_string(),
        };
        let why = match why {
            // An authority that was made anew may have its old name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "certificate signed by unknown authority: put the authority's certificate into {}/ca.crt",
                self.folder.as_ref().unwrap_or(&self.place).display()
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("certificate is not valid for {host}")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "certificate has expired".to_owned()
            }
            other => format!("{other:?}"),
        };
        format!("tls: failed to verify certificate: x509: {why}")
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: rustls_pki_types::pem::Error| format!("read {}: {error}", file.display());
    let read = CertificateDer::pem_file_iter(file).map_err(failed)?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(failed)?;
    if all.is_empty() { Err(format!("{} holds no certificate in PEM form", file.display())) } else { Ok(all) }
}

/// Believes whom authorities vouch for, and who shows one of the given certificates itself: Docker's own guide has
/// registries sign their certificates themselves, as an authority's.
#[derive(Debug)]
struct Believer {
    /// None where no authority is known at all.
    chains: Option<Arc<WebPkiServerVerifier>>,
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Believer {
    fn new(own: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let mut roots = authorities::system();
        for certificate in &own {
            roots.add(certificate.clone()).map_err(|error| format!("an authority's certificate: {error}"))?;
        }
        if roots.is_empty() {
            return Ok(Self { chains: None, own, provider });
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        Ok(Self { chains: Some(chains.map_err(|error| error.to_string())?), own, provider })
    }
}

/// A certificate that is known holds for its names and its time.
fn holds(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let bad = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
    rustls::client::verify_server_name(&rustls::server::ParsedCertificate::try_from(certificate)?, name)?;
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad())?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    match parsed.validity().is_valid_at(now.ok_or_else(bad)?) {
        true => Ok(()),
        false => Err(rustls::Error::InvalidCertificate(CertificateError::Expired)),
    }
}

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let judged = self.chains.as_ref().map_or(unknown, |chains| {
            chains.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        });
        match judged {
            Err(_) if self.own.iter().any(|own| own == end_entity) => {
                holds(end_entity, name, now).map(|()| ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(dir: &Path) -> Trust {
        Trust::of("r.example:5000", dir)
    }

    #[test]
    fn a_registry_is_known_by_its_folder() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!trust(dir.path()).is_told());
        let folder = dir.path().join("r.example:5000");
        std::fs::create_dir(&folder).expect("a directory");
        assert!(trust(dir.path()).is_told());
        assert!(trust(dir.path()).config().is_ok(), "an empty one is no obstacle");
        std::fs::write(folder.join("ca.crt"), "").expect("a file");
        let ca = folder.join("ca.crt").display().to_string();
        let error = trust(dir.path()).config().expect_err("empty");
        assert_eq!(error, format!("{ca} holds no certificate in PEM form"));
        let key = rcgen::generate_simple_self_signed(["r.example".to_owned()]).expect("a certificate");
        std::fs::write(folder.join("ca.crt"), key.cert.pem()).expect("a file");
        std::fs::write(folder.join("me.cert"), key.cert.pem()).expect("a file");
        let error = trust(dir.path()).config().expect_err("no key");
        assert!(
            error.starts_with(&format!("missing key {}/me.key for client certificate", folder.display())),
            "{error}"
        );
        std::fs::write(folder.join("me.key"), key.signing_key.serialize_pem()).expect("a file");
        assert!(trust(dir.path()).config().is_ok());
    }

    #[test]
    fn what_failed_is_said_with_the_remedy() {
        let said =
            |error: rustls::Error| trust(Path::new("/c")).explain("r.example", &io::Error::other(error));
        let of = |why| said(rustls::Error::InvalidCertificate(why));
        let x509 = "tls: failed to verify certificate: x509: certificate";
        let remedy = "put the authority's certificate into /c/r.example:5000/ca.crt";
        assert_eq!(
            of(CertificateError::UnknownIssuer),
            format!("{x509} signed by unknown authority: {remedy}")
        );
        assert_eq!(of(CertificateError::NotValidForName), format!("{x509} is not valid for r.example"));
        assert_eq!(of(CertificateError::Expired), format!("{x509} has expired"));
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(said(plain), "http: server gave HTTP response to HTTPS client");
        assert_eq!(trust(Path::new("/c")).explain("r", &io::ErrorKind::TimedOut.into()), "timed out");
    }
}
