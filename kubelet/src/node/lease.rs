//! The node's Lease in `kube-node-lease`: one small write that says "I live".

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Where the nodes' leases are.
pub const NAMESPACE: &str = "kube-node-lease";

/// `leaseDurationSeconds`: whole seconds, at least one.
fn whole_seconds(duration: Duration) -> i32 {
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

/// The merge patch of a renewal. Only the node writes its Lease, so the renewal needs no precondition and no read before it.
pub fn renewal(node: &str, duration: Duration, now: Timestamp) -> Value {
    json!({ "spec": {
        "holderIdentity": node,
        "leaseDurationSeconds": whole_seconds(duration),
        "renewTime": MicroTime(now),
    }})
}

/// Renews the Lease, or creates it where there is none.
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
