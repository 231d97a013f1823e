//! The watches of what storage consists of, as one stream of what the scheduler learns.

use super::CHANGES;
use crate::name::{ClaimKey, VolumeName};
use crate::storage::{ClaimInfo, ClassInfo, NodeLimits, StorageEvent, VolumeInfo};
use api::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::k8s::api::storage::v1::{CSINode, StorageClass};
use client::informer::{Change, Informer, Object, Subscription};
use kube::{Api, Client, Resource, ResourceExt};

/// One kind.
struct Feed<K: Object>(
    #[expect(dead_code, reason = "it runs as long as it is held")] Informer<K>,
    Subscription<K>,
)
where
    K::DynamicType: Clone;

impl<K: Object> Feed<K>
where
    K: Resource<DynamicType = ()>,
{
    fn start(client: &Client) -> Self {
        let informer = Informer::builder(Api::<K>::all(client.clone())).start();
        let subscription = informer.subscribe(CHANGES);
        Feed(informer, subscription)
    }

    /// `None` in the answer tells that the kind has been listed.
    async fn next(
        &mut self,
        applied: impl Fn(&K) -> StorageEvent,
        gone: impl Fn(&K) -> StorageEvent,
    ) -> Option<Option<StorageEvent>> {
        Some(match self.1.recv().await? {
            Change::Applied { new, .. } => Some(applied(&new)),
            Change::Deleted(old) => Some(gone(&old)),
            Change::Synced => None,
        })
    }
}

/// All kinds.
pub struct StorageFeed {
    claims: Feed<PersistentVolumeClaim>,
    volumes: Feed<PersistentVolume>,
    classes: Feed<StorageClass>,
    nodes: Feed<CSINode>,
}

impl StorageFeed {
    /// How many kinds are listed.
    pub const KINDS: usize = 4;

    /// Starts the watches.
    pub fn start(client: &Client) -> Self {
        StorageFeed {
            claims: Feed::start(client),
            volumes: Feed::start(client),
            classes: Feed::start(client),
            nodes: Feed::start(client),
        }
    }

    /// The next event, or `None` inside when one of the kinds has been listed; `None` once a watch has ended.
    pub async fn next(&mut self) -> Option<Option<StorageEvent>> {
        tokio::select! {
            event = self.claims.next(
                |claim| StorageEvent::Claim(ClaimInfo::of(claim)),
                |claim| StorageEvent::ClaimGone(claim_key(claim)),
            ) => event,
            event = self.volumes.next(
                |volume| StorageEvent::Volume(VolumeInfo::of(volume)),
                |volume| StorageEvent::VolumeGone(VolumeName(volume.name_any().into())),
            ) => event,
            event = self.classes.next(
                |class| StorageEvent::Class(ClassInfo::of(class)),
                |class| StorageEvent::ClassGone(class.name_any().into()),
            ) => event,
            event = self.nodes.next(
                |node| StorageEvent::Limits(NodeLimits::of(node)),
                |node| StorageEvent::LimitsGone(node.name_any().as_str().into()),
            ) => event,
        }
    }
}

fn claim_key(claim: &PersistentVolumeClaim) -> ClaimKey {
    ClaimKey::new(&claim.namespace().unwrap_or_default(), &claim.name_any())
}
