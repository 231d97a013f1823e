//! Whom a bundle of certificates vouches for.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::pki::tls as pki;
use crate::reach::tls::TrustError;

/// Believes who has a certificate of these authorities, and each of them for itself.
///
/// `openssl req -x509` makes a certificate that is an authority's and a server's in one. Upstream's verifier takes
/// it; the one below says that an authority is no server.
#[derive(Debug)]
pub struct Authorities {
    vouching: Arc<WebPkiServerVerifier>,
    bundle: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Of these certificates.
    ///
    /// # Errors
    /// If one isn't a certificate, or there is none.
    pub fn new(bundle: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let unreadable = |error: &dyn std::error::Error| TrustError::Bundle(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in &bundle {
            roots.add(certificate.clone()).map_err(|error| unreadable(&error))?;
        }
        if roots.is_empty() {
            return Err(TrustError::Empty);
        }
        let vouching = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), pki::provider());
        Ok(Self { vouching: vouching.build().map_err(|error| unreadable(&error))?, bundle })
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let vouched = self.vouching.verify_server_cert(shown, intermediates, name, ocsp, now);
        if vouched.is_ok() || !self.bundle.contains(shown) {
            return vouched;
        }
        is_current(shown, now)?;
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouching.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouching.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouching.supported_verify_schemes()
    }
}

fn is_current(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    let now = now.ok_or(Error::FailedToGetCurrentTime)?;
    match parsed.validity() {
        validity if now < validity.not_before => Err(CertificateError::NotValidYet.into()),
        validity if now > validity.not_after => Err(CertificateError::Expired.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// As `openssl req -x509 -addext subjectAltName=DNS:ext.shop.svc` makes one, for the year 2026.
    fn of_its_own() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["ext.shop.svc".to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").into()
    }

    /// What is said of `shown` at a time in seconds since 1970 by who believes `bundle`.
    fn said(bundle: &CertificateDer<'static>, shown: &CertificateDer<'_>, name: &str, at: u64) -> String {
        let authorities = Authorities::new(vec![bundle.clone()]).expect("a bundle");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        match authorities.verify_server_cert(shown, &[], &name, &[], now) {
            Ok(_) => "believed".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    const JULY: u64 = 1_782_864_000;
    const YEAR: u64 = 365 * 86_400;

    #[test]
    fn who_vouches_for_himself_is_believed_by_his_name_in_his_time() {
        let own = of_its_own();
        assert_eq!(said(&own, &own, "ext.shop.svc", JULY), "believed");
        assert!(said(&own, &own, "other.shop.svc", JULY).contains("not valid for name"));
        assert_eq!(said(&own, &own, "ext.shop.svc", JULY + YEAR), "invalid peer certificate: Expired");
        assert_eq!(said(&own, &own, "ext.shop.svc", JULY - YEAR), "invalid peer certificate: NotValidYet");
        assert_ne!(said(&own, &of_its_own(), "ext.shop.svc", JULY), "believed");
    }
}
