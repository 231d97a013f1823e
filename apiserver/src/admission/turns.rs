//! Turns: requests of one namespace that charge a quota go one after the other.
//!
//! A quota is charged in the transaction that writes the object, on the condition that nobody else charged
//! it meanwhile. Without turns all but one of many concurrent requests would lose and start anew.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Namespaces with the same remainder share a turn.
const QUEUES: usize = 64;

/// A turn; it ends when this is dropped.
pub type Turn = OwnedMutexGuard<()>;

/// The queues.
#[derive(Debug)]
pub struct Turns(Vec<Arc<Mutex<()>>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..QUEUES).map(|_| Arc::default()).collect())
    }
}

impl Turns {
    /// Waits for this namespace's turn.
    pub async fn take(&self, namespace: &str) -> Turn {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % QUEUES as u64).unwrap_or_default();
        self.0[index].clone().lock_owned().await
    }
}
