//! The node's Lease in `kube-node-lease`: one small write that says "I live".

use std::time::Duration;

use api::self_fence;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Where the nodes' leases are.
pub const NAMESPACE: &str = "kube-node-lease";

/// `leaseDurationSeconds`: whole seconds, at least one.
pub fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX)
}

/// The Lease to create.
pub fn lease(node: &str, owner: Option<OwnerReference>, duration: Duration, now: Timestamp) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(whole_seconds(duration)),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// The node that owns its Lease, so that the Lease goes with it.
pub fn owner(node: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

/// The merge patch of a renewal.
pub fn renewal(node: &str, duration: Duration, now: Timestamp) -> Value {
    json!({ "spec": {
        "holderIdentity": node,
        "leaseDurationSeconds": whole_seconds(duration),
        "renewTime": MicroTime(now),
    }})
}

/// A renewal that promises something to pods that fence themselves: only if nobody has written the Lease since it was
/// of that version. `mark` is what is said of those that may have been replaced.
pub fn tenure(
    node: &str,
    version: &str,
    mark: Option<&str>,
    (lasts, keeps): (Duration, bool),
    now: Timestamp,
) -> Value {
    let mut patch = renewal(node, lasts, now);
    let keeps = keeps.then_some("true");
    patch["metadata"] = json!({
        "resourceVersion": version,
        "annotations": {self_fence::GIVEN_UP: mark, self_fence::ANNOTATION: keeps},
    });
    patch
}

/// Renews the Lease of a node on which nobody fences himself, or creates it where there is none. Only the node writes
/// it, so that needs no precondition and no read before it.
pub async fn renew(
    leases: &Api<Lease>,
    node: &str,
    owner: Option<OwnerReference>,
    duration: Duration,
) -> Result<(), kube::Error> {
    let now = Timestamp::now();
    let patch = Patch::Merge(renewal(node, duration, now));
    match leases.patch(node, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            leases.create(&PostParams::default(), &lease(node, owner, duration, now)).await.map(drop)
        }
        done => done.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_that_promises_is_conditional_and_settles_the_mark() {
        let patch = tenure("n1", "7", None, (Duration::from_secs(40), true), Timestamp::UNIX_EPOCH);
        let spec = json!({"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": "1970-01-01T00:00:00.000000Z"});
        let annotations = json!({"amoeba.dev/given-up": null, "amoeba.dev/self-fence": "true"});
        assert_eq!(
            patch,
            json!({"metadata": {"resourceVersion": "7", "annotations": annotations}, "spec": spec})
        );
        let back = tenure(
            "n1",
            "7",
            Some(self_fence::BACK),
            (Duration::from_secs(40), false),
            Timestamp::UNIX_EPOCH,
        );
        let annotations = json!({"amoeba.dev/given-up": "back", "amoeba.dev/self-fence": null});
        assert_eq!(back["metadata"]["annotations"], annotations);
    }
}
