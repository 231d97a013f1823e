//! Secrets at rest: sealed before they are proposed to the store, opened when they are read from it.
//!
//! No member's disk, log, snapshot or backup holds a Secret's text, and neither does a stock etcd; only the
//! key file does, which lies with the certificate authorities. A value is sealed by AES-256-GCM under a fresh
//! random nonce, with its storage key as associated data: moved to another key, it can't be opened. The form
//! is that of upstream's `aesgcm` provider: `k8s:enc:aesgcm:v1:ID:` and then nonce, text and tag.
//!
//! Values from before there were keys are read as they are, and sealed at the next start.

mod keys;
mod kv;

pub use keys::{EncryptionKeys, KeyFileError};
pub use kv::SealedKv;

/// The parts of the key space that are sealed.
const SEALED: [&[u8]; 1] = [b"/registry/core/secrets/"];

/// Whether values at this key are sealed.
fn is_sealed(key: &[u8]) -> bool {
    SEALED.iter().any(|prefix| key.starts_with(prefix))
}
