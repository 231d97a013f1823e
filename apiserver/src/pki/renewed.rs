//! Certificates of our own for as long as we run: each is made anew before it ends.
//!
//! Whoever opens or takes a connection asks for the certificate of now, and who asks late in its life gets the next
//! one. So there is no timer that could be missed, and what isn't used isn't renewed. What is connected stays so.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Issued, PkiError, tls};

/// In percent of a certificate's life: how much of it has gone when the next one is made.
const RENEW_AT: i64 = 80;
/// How soon it is tried again if no certificate can be made.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// A certificate that is renewed.
pub struct Renewed {
    issue: Box<dyn Fn() -> Result<Issued, PkiError> + Send + Sync>,
    current: RwLock<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    /// From when on it is time for the next one.
    renew_at: Timestamp,
}

impl Current {
    /// A certificate that was made just now.
    fn of(issued: &Issued, now: Timestamp) -> Result<Self, PkiError> {
        Ok(Self { key: Arc::new(tls::certified_key(issued)?), renew_at: renew_at(now, issued.end()?) })
    }
}

impl Renewed {
    /// What `issue` makes, now and again and again.
    ///
    /// # Errors
    /// The first one can't be made.
    pub fn new(
        issue: impl Fn() -> Result<Issued, PkiError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, PkiError> {
        let first = Current::of(&issue()?, Timestamp::now())?;
        Ok(Arc::new(Self { issue: Box::new(issue), current: RwLock::new(first) }))
    }

    fn key(&self, now: Timestamp) -> Arc<CertifiedKey> {
        {
            let current = self.current.read();
            if now < current.renew_at {
                return current.key.clone();
            }
        }
        let mut current = self.current.write();
        // Whoever asked at the same time may have been faster.
        if now >= current.renew_at {
            match (self.issue)().and_then(|issued| Current::of(&issued, now)) {
                Ok(next) => *current = next,
                Err(error) => {
                    tracing::warn!(%error, "a certificate of this server can't be renewed");
                    current.renew_at = now + AGAIN;
                }
            }
        }
        current.key.clone()
    }
}

#[cfg(test)]
impl Renewed {
    /// As if most of its life had gone.
    pub(super) fn age(&self) {
        self.current.write().renew_at = Timestamp::MIN;
    }
}

/// When it is time for the next certificate after one that was made at `now` and lasts until `end`.
fn renew_at(now: Timestamp, end: Timestamp) -> Timestamp {
    let life = end.duration_since(now).as_secs();
    now + SignedDuration::from_secs(life.max(0) * RENEW_AT / 100)
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key(Timestamp::now()))
    }
}

impl ResolvesClientCert for Renewed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key(Timestamp::now()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("renew_at", &self.current.read().renew_at).finish_non_exhaustive()
    }
}

/// A certificate that somebody shows at an end of a connection.
pub trait Shown {
    /// In the form in which TLS asks for it.
    ///
    /// # Errors
    /// It can't be read.
    fn resolver(&self) -> Result<Arc<Renewed>, PkiError>;
}

impl Shown for Arc<Renewed> {
    fn resolver(&self) -> Result<Arc<Renewed>, PkiError> {
        Ok(self.clone())
    }
}

/// One that stays as it is, whenever it ends.
impl Shown for Issued {
    fn resolver(&self) -> Result<Arc<Renewed>, PkiError> {
        let (key, same) = (Arc::new(tls::certified_key(self)?), self.clone());
        let current = RwLock::new(Current { key, renew_at: Timestamp::MAX });
        Ok(Arc::new(Renewed { issue: Box::new(move || Ok(same.clone())), current }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::pki::Pki;

    #[test]
    fn the_next_one_is_made_after_four_fifths_of_a_life() {
        let at = |second: i64| Timestamp::from_second(second).expect("in range");
        for (now, end, expected) in [(1_000, 2_000, 1_800), (1_000, 1_001, 1_000), (1_000, 900, 1_000)] {
            assert_eq!(renew_at(at(now), at(end)), at(expected), "{now}..{end}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_in_time_and_kept_while_that_fails() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pki = Pki::load_or_create(dir.path()).expect("authorities");
        let broken = Arc::new(AtomicBool::new(false));
        let fails = broken.clone();
        let own = Renewed::new(move || match fails.load(Ordering::Relaxed) {
            true => pki.issue_client("jane", &["a", "b", "more than there is room for"]),
            false => pki.issue_client("jane", &[]),
        });
        let (own, now, day) = (own.expect("a certificate"), Timestamp::now(), SignedDuration::from_hours(24));
        let seen = |days: i32| own.key(now + day * days).cert[0].clone();
        let first = seen(0);
        assert_eq!(seen(290), first, "a year has 292 days and some");
        broken.store(true, Ordering::Relaxed);
        assert_eq!(seen(293), first);
        broken.store(false, Ordering::Relaxed);
        let second = seen(294);
        assert_ne!(second, first);
        assert_eq!(seen(294), second);
    }
}
