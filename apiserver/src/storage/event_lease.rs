//! Events end by themselves: each is attached to a lease of the store.
//!
//! A lease costs a consensus round, so one lease serves all events of a while; it lives that much longer.

use std::time::Duration;

use store::kv::{Kv, KvError, LeaseId};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// One lease serves the events of this part of their time to live.
const SHARED_PART: u32 = 20;

/// Hands out leases for events.
pub struct EventLeases {
    ttl: Duration,
    /// Held over the grant, so that many events at once make one lease.
    current: Mutex<Option<(LeaseId, Instant)>>,
}

impl EventLeases {
    /// Leases that keep an event for at least `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, current: Mutex::new(None) }
    }

    /// A lease that lasts long enough for an event written now.
    pub async fn lease(&self, store: &dyn Kv) -> Result<LeaseId, KvError> {
        let mut current = self.current.lock().await;
        if let Some((id, renew_at)) = *current
            && Instant::now() < renew_at
        {
            return Ok(id);
        }
        let shared = self.ttl / SHARED_PART;
        let lease = store.lease_grant(None, (self.ttl + shared).as_secs().max(1)).await?;
        *current = Some((lease.id, Instant::now() + shared));
        Ok(lease.id)
    }
}
