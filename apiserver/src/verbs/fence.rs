//! Fencing: a write that names the lease by which its author leads is made only while the author holds it.
//!
//! Ours, beyond upstream. A leader that was paused believes in a lease that another has taken meanwhile; its own
//! clock may tell it so too late, after the request has left. The header `Amoeba-Fence` says which lease, at
//! which count of transitions, by whom: `NAMESPACE/NAME/TRANSITIONS/HOLDER`. The lease's revision becomes a
//! condition of the write's own transaction, so there is no moment in between.

use std::borrow::Cow;

use api::status::Status;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use store::kv::Revision;

use super::Call;
use crate::admission::Guard;
use crate::error::Outcome;
use crate::storage::key::Key;
use crate::storage::{Commit, Write, decode_part};

/// The header, as clients send it.
const HEADER: &str = "amoeba-fence";

/// How often a lease may be renewed under one write before the client is told to try again.
const TRIES: usize = 4;

/// What is read of a Lease: a leader's every write asks for it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lease<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    holder_identity: Option<Cow<'a, str>>,
    lease_transitions: Option<i64>,
}

/// The term of leadership that a write belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    namespace: String,
    name: String,
    transitions: i64,
    holder: String,
}

impl Fence {
    /// The fence that a request asks for, if it does.
    ///
    /// # Errors
    /// 400 if it can't be read: a write that wants a fence is never made without one.
    pub fn of(headers: &HeaderMap) -> Result<Option<Fence>, Status> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        let fence = Fence::parse(text).ok_or_else(|| {
            Status::bad_request(format!(
                "Amoeba-Fence: invalid value {text:?}: it must be NAMESPACE/NAME/TRANSITIONS/HOLDER of a Lease"
            ))
        });
        fence.map(Some)
    }

    fn parse(text: &str) -> Option<Fence> {
        let parts: [&str; 4] = text.splitn(4, '/').collect::<Vec<_>>().try_into().ok()?;
        let [namespace, name, transitions, holder] = parts.map(str::to_owned);
        let is_named = !namespace.is_empty() && !name.is_empty() && !holder.is_empty();
        Some(Fence { transitions: transitions.parse().ok()?, namespace, name, holder }).filter(|_| is_named)
    }

    /// Whether the lease is still that of the term.
    fn holds(&self, lease: &Lease<'_>) -> bool {
        lease.spec.holder_identity.as_deref() == Some(&self.holder)
            && lease.spec.lease_transitions.unwrap_or(0) == self.transitions
            && lease.metadata.deletion_timestamp.is_none()
    }

    /// The lease as a condition. What the cache shows will do if it is good news: the transaction finds out if it is
    /// old. Bad news is looked up in the store.
    async fn guard(&self, call: &Call<'_>, key: &Bytes, believe_cache: bool) -> Outcome<Guard> {
        if believe_cache
            && let Some(cached) = call.storage().cache.get(key)
            && self.holds(&decode_part(&cached)?)
        {
            return Ok((key.clone(), cached.revision));
        }
        if let Some(stored) = call.storage().read(key).await?
            && self.holds(&decode_part(&stored)?)
        {
            return Ok((key.clone(), stored.revision));
        }
        let Fence { namespace, name, transitions, holder } = self;
        let why = format!(
            "the lease {namespace}/{name} is no longer held by {holder:?} at transition {transitions}: its \
             leadership is over"
        );
        Err(Status::conflict(&call.resource.plural, &call.resource.group, call.name(), &why).into())
    }
}

/// Writes while the fence stands.
///
/// # Errors
/// 409 if it doesn't.
pub async fn commit(call: &Call<'_>, fence: &Fence, write: Write) -> Outcome<Commit> {
    let unknown = || Status::bad_request("Amoeba-Fence: this server has no leases");
    let leases = call.server.registry.find("coordination.k8s.io", "v1", "leases").ok_or_else(unknown)?;
    let key = Key::Object(&leases, &fence.namespace, &fence.name).to_bytes();
    for attempt in 0..TRIES {
        let mut guarded = write.clone();
        guarded.guards.push(fence.guard(call, &key, attempt == 0).await?);
        match call.commit_unfenced(guarded).await? {
            // The object is as expected, so it was a guard that broke: perhaps only a renewal.
            Commit::Lost(found) if revision(&found) == write.expected => {}
            end => return Ok(end),
        }
    }
    Ok(Commit::Lost(call.storage().read(&write.key).await?))
}

fn revision(found: &Option<crate::storage::object::Stored>) -> Revision {
    found.as_ref().map_or(Revision::default(), |stored| stored.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_fence_names_a_term_and_nothing_less() {
        let fence = Fence::parse("kube-system/kcm/3/host_a/b").expect("a fence");
        let holds = |lease: Value| fence.holds(&serde_json::from_str(&lease.to_string()).expect("a lease"));
        let lease = |holder: &str, transitions: i64| json!({"spec": {"holderIdentity": holder, "leaseTransitions": transitions}});
        assert!(holds(lease("host_a/b", 3)));
        assert!(!holds(lease("host_a/b", 4)) && !holds(lease("other", 3)));
        assert!(!holds(json!({})) && !holds(lease("", 3)));
        let mut leaving = lease("host_a/b", 3);
        leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(!holds(leaving));
        for wrong in ["", "a/b/3", "a/b/x/c", "/b/3/c", "a//3/c", "a/b/3/"] {
            assert_eq!(Fence::parse(wrong), None, "{wrong}");
        }
    }
}
