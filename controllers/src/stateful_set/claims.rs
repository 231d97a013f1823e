//! The claims of a StatefulSet's pods: made before the pod, kept after it, or owned so that they go with it.

use super::{Look, identity};
use crate::{
    owner,
    plan::{Action, Part, Target, to_value},
    pod::Pod,
};
use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{ResourceExt, core::ApiResource};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

impl Look<'_> {
    fn claim_templates(&self) -> Vec<PersistentVolumeClaim> {
        self.spec.volume_claim_templates.clone().unwrap_or_default()
    }

    fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.view.claims.iter().find(|claim| claim.name_any() == name).cloned()
    }

    /// Makes the claims that the pod lacks; false while an old one of the same name is still being deleted.
    pub(super) fn create_claims(&mut self, ordinal: i32) -> bool {
        for template in self.claim_templates() {
            let name = identity::claim_name(self.set, &template.name_any(), ordinal);
            match self.claim(&name) {
                Some(claim) if claim.metadata.deletion_timestamp.is_some() => return false,
                Some(_) => {}
                None => self.create_claim(&template, &name),
            }
        }
        true
    }

    fn create_claim(&mut self, template: &PersistentVolumeClaim, name: &str) {
        let mut labels: BTreeMap<String, String> = template.labels().clone();
        labels.extend(self.spec.selector.match_labels.clone().unwrap_or_default());
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": self.set.namespace(), "name": name, "labels": labels},
            "spec": to_value(&template.spec),
        });
        if !template.annotations().is_empty() {
            object["metadata"]["annotations"] = json!(template.annotations());
        }
        if self.policy().deleted {
            object["metadata"]["ownerReferences"] = json!([owner::controller_reference(self.set)]);
        }
        self.plan.push(Action::Create {
            kind: ApiResource::erase::<PersistentVolumeClaim>(&()),
            object,
            announce: None,
            reason: "its pod needs it".to_owned(),
        });
    }

    /// The claims of wanted pods belong to the set, or to nobody, as the policy has it now.
    pub(super) fn keep_claims(&mut self) {
        if self.spec.persistent_volume_claim_retention_policy.is_none() {
            return;
        }
        let wanted = self.policy().deleted.then(|| owner::controller_reference(self.set));
        for ordinal in self.wanted() {
            self.set_claim_owner(ordinal, wanted.as_ref());
        }
    }

    /// The claims of a pod that is scaled away go with it, if the policy says so.
    pub(super) fn hand_over_claims(&mut self, ordinal: i32, pod: &Pod) {
        if self.policy().scaled {
            let reference = OwnerReference {
                controller: None,
                block_owner_deletion: None,
                ..owner::controller_reference(pod)
            };
            self.set_claim_owner(ordinal, Some(&reference));
        }
    }

    fn set_claim_owner(&mut self, ordinal: i32, wanted: Option<&OwnerReference>) {
        for template in self.claim_templates() {
            let name = identity::claim_name(self.set, &template.name_any(), ordinal);
            let Some(claim) = self.claim(&name) else { continue };
            let references = self.with_owner(&claim, ordinal, wanted);
            if references != claim.owner_references() {
                let patch = json!({"metadata": {"ownerReferences": references}});
                self.plan.patch(Target::of(&*claim), Part::Whole, patch, "its retention policy");
            }
        }
    }

    /// The claim's owners with `wanted` as the only one of the set and its pod.
    fn with_owner(
        &self,
        claim: &PersistentVolumeClaim,
        ordinal: i32,
        wanted: Option<&OwnerReference>,
    ) -> Vec<OwnerReference> {
        let (set, pod) = (self.set.name_any(), identity::name_of(self.set, ordinal));
        let is_ours = |owner: &OwnerReference| {
            (owner.kind == "StatefulSet" && owner.name == set) || (owner.kind == "Pod" && owner.name == pod)
        };
        let owners = claim.owner_references();
        if let Some(wanted) = wanted
            && owners.iter().filter(|owner| is_ours(owner)).all(|owner| owner.uid == wanted.uid)
            && owners.iter().any(|owner| owner.uid == wanted.uid)
        {
            return owners.to_vec();
        }
        owners.iter().filter(|owner| !is_ours(owner)).cloned().chain(wanted.cloned()).collect()
    }

    fn policy(&self) -> Policy {
        let policy = self.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
        let deletes = |policy: Option<String>| policy.as_deref() == Some("Delete");
        Policy { deleted: deletes(policy.when_deleted), scaled: deletes(policy.when_scaled) }
    }
}

/// When claims go.
struct Policy {
    deleted: bool,
    scaled: bool,
}
