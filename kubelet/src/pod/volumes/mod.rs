//! A pod's volumes as values: what is in them, and where containers see them.

pub mod mounts;
pub mod payload;
pub mod plain;
pub mod told;
pub mod trust_bundle;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod, Volume};

use crate::pod::env::Reference;

/// The volume of this name.
pub fn volume<'a>(pod: &'a Pod, name: &str) -> Option<&'a Volume> {
    volumes(pod).find(|volume| volume.name == name)
}

/// All volumes of the pod.
pub fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The images that the container mounts, by their volumes' names.
pub fn mounted_images<'a>(pod: &'a Pod, container: &Container) -> BTreeMap<&'a str, &'a ImageVolumeSource> {
    let mounted = container.volume_mounts.iter().flatten().filter_map(|mount| volume(pod, &mount.name));
    mounted.filter_map(|volume| Some((volume.name.as_str(), volume.image.as_ref()?))).collect()
}

/// As the pod's author wrote it.
pub fn kind(volume: &Volume) -> &'static str {
    match volume {
        Volume { config_map: Some(_), .. } => "configMap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downwardAPI",
        Volume { projected: Some(_), .. } => "projected",
        Volume { host_path: Some(_), .. } => "hostPath",
        Volume { persistent_volume_claim: Some(_), .. } => "persistentVolumeClaim",
        Volume { ephemeral: Some(_), .. } => "ephemeral",
        Volume { image: Some(_), .. } => "image",
        Volume { csi: Some(_), .. } => "csi",
        Volume { nfs: Some(_), .. } => "nfs",
        Volume { iscsi: Some(_), .. } => "iscsi",
        Volume { fc: Some(_), .. } => "fc",
        Volume { empty_dir: Some(_), .. } => "emptyDir",
        _ => "unknown",
    }
}

/// Whether its contents are made from objects, and follow them.
pub fn is_made_of_objects(volume: &Volume) -> bool {
    matches!(kind(volume), "configMap" | "secret" | "downwardAPI" | "projected")
}

/// The objects that volumes of the pod show.
pub fn references(pod: &Pod) -> Vec<Reference> {
    volumes(pod).flat_map(volume_references).collect()
}

/// The objects that one volume shows.
pub fn volume_references(volume: &Volume) -> Vec<Reference> {
    let map = volume.config_map.iter().map(|source| Reference::ConfigMap(source.name.clone()));
    let secret = volume.secret.iter().filter_map(|source| source.secret_name.clone()).map(Reference::Secret);
    let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
    let parts = projected.flat_map(|part| {
        let map = part.config_map.iter().map(|source| Reference::ConfigMap(source.name.clone()));
        let secret = part.secret.iter().map(|source| Reference::Secret(source.name.clone()));
        map.chain(secret).chain(part.cluster_trust_bundle.as_ref().and_then(trust_bundle::reference))
    });
    map.chain(secret).chain(parts).collect()
}
