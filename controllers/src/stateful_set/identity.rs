//! What makes a pod of a StatefulSet that one: its name, labels, host name and claims.

use crate::history::{POD_REVISION, Revision};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume},
};
use kube::ResourceExt;
use std::collections::BTreeMap;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// `SET-ORDINAL`.
pub fn name_of(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The ordinal in a pod's name, if it is one of the set's.
pub fn ordinal_of(set: &StatefulSet, pod: &str) -> Option<i32> {
    let ordinal = pod.strip_prefix(&set.name_any())?.strip_prefix('-')?;
    let canonical = ordinal == "0" || !ordinal.starts_with(['0', '+', '-']);
    ordinal.parse().ok().filter(|_| canonical)
}

/// `TEMPLATE-SET-ORDINAL`.
pub fn claim_name(set: &StatefulSet, template: &str, ordinal: i32) -> String {
    format!("{template}-{}", name_of(set, ordinal))
}

/// The labels of the identity.
pub fn labels_of(set: &StatefulSet, ordinal: i32) -> BTreeMap<String, String> {
    [(POD_NAME, name_of(set, ordinal)), (POD_INDEX, ordinal.to_string())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// The template of one pod.
pub fn template_of(set: &StatefulSet, revision: &Revision, ordinal: i32) -> PodTemplateSpec {
    let mut template = revision.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.extend(labels_of(set, ordinal));
    labels.insert(POD_REVISION.to_owned(), revision.name.clone());
    let spec = template.spec.get_or_insert_default();
    spec.hostname = Some(name_of(set, ordinal));
    spec.subdomain = set.spec.service_name.clone().filter(|name| !name.is_empty());
    let claimed: Vec<Volume> = set
        .spec
        .volume_claim_templates
        .iter()
        .flatten()
        .map(|claim| volume(&claim.name_any(), claim_name(set, &claim.name_any(), ordinal)))
        .collect();
    if !claimed.is_empty() {
        let volumes = spec.volumes.get_or_insert_default();
        // A claim takes the place of a volume of the same name.
        volumes.retain(|volume| claimed.iter().all(|claim| claim.name != volume.name));
        volumes.extend(claimed);
    }
    template
}

fn volume(name: &str, claim_name: String) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::ordinal_of;
    use k8s_openapi::api::apps::v1::StatefulSet;

    #[test]
    fn only_canonical_names_are_members() {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("web".to_owned());
        let cases =
            [("web-0", Some(0)), ("web-12", Some(12)), ("web-01", None), ("web-x", None), ("web--1", None)];
        for (name, ordinal) in cases.into_iter().chain([("web2-0", None), ("web", None), ("web-1-0", None)]) {
            assert_eq!(ordinal_of(&set, name), ordinal, "{name}");
        }
    }
}
