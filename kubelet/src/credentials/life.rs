//! When a certificate is renewed: a decision over times.

use std::ops::Range;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// From when until when the first certificate of a chain (PEM) is good.
///
/// # Errors
/// If there is no certificate.
pub fn validity(chain_pem: &str) -> Result<Range<Timestamp>, String> {
    let first = CertificateDer::from_pem_slice(chain_pem.as_bytes());
    let first = first.map_err(|error| format!("it holds no certificate: {error}"))?;
    let (_, parsed) = X509Certificate::from_der(&first).map_err(|error| error.to_string())?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp());
    let (from, until) = (at(parsed.validity().not_before), at(parsed.validity().not_after));
    Ok(from.map_err(|error| error.to_string())?..until.map_err(|error| error.to_string())?)
}

/// When to renew what is good for so long: after 70 to 90 % of its life, as upstream, so that a cluster's nodes don't
/// come all at once; `chance` lies between 0 and 1. Earlier if it may be no older than `at_most` from `since`.
pub fn renewal(
    valid: &Range<Timestamp>,
    chance: f64,
    since: Timestamp,
    at_most: Option<Duration>,
) -> Timestamp {
    let life = valid.end.duration_since(valid.start).as_secs_f64();
    let part = SignedDuration::from_secs_f64(life * (0.7 + 0.2 * chance.clamp(0.0, 1.0)));
    let due = valid.start.saturating_add(part).unwrap_or(valid.end);
    let asked =
        at_most.and_then(|at_most| since.saturating_add(SignedDuration::try_from(at_most).ok()?).ok());
    asked.map_or(due, |asked| asked.min(due))
}

/// How long until `due`; nothing if it has passed.
pub fn wait(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_in_the_last_third_of_their_life() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let valid = at(0)..at(1000);
        assert_eq!(renewal(&valid, 0.0, at(0), None), at(700));
        assert_eq!(renewal(&valid, 1.0, at(0), None), at(900));
        assert_eq!(renewal(&valid, 7.0, at(0), None), at(900));
        assert_eq!(renewal(&valid, 0.5, at(100), Some(Duration::from_secs(50))), at(150));
        assert_eq!(renewal(&valid, 0.5, at(100), Some(Duration::from_secs(5000))), at(800));
        assert_eq!(wait(at(5), at(3)), Duration::from_secs(2));
        assert_eq!(wait(at(5), at(9)), Duration::ZERO, "at once");
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        assert!(validity("junk").expect_err("no certificate").contains("no certificate"));
    }
}
