//! What a container's status tells of its mounts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, ImageVolumeStatus, VolumeMount, VolumeMountStatus, VolumeStatus,
};

/// The status of all mounts, as the container has them; `images` has those of volumes by the volumes' names.
pub fn mounts(spec: &Container, images: &BTreeMap<String, String>) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec.volume_mounts.iter().flatten();
    let told: Vec<_> = mounts.map(|mount| told(mount, images.get(&mount.name))).collect();
    Some(told).filter(|told| !told.is_empty())
}

/// The images that were told of.
pub fn images(status: &ContainerStatus) -> BTreeMap<String, String> {
    let mounts = status.volume_mounts.iter().flatten();
    let image =
        |mount: &VolumeMountStatus| Some(mount.volume_status.as_ref()?.image.as_ref()?.image_ref.clone());
    mounts.filter_map(|mount| Some((mount.name.clone(), image(mount)?))).collect()
}

fn told(mount: &VolumeMount, image: Option<&String>) -> VolumeMountStatus {
    let read_only = mount.read_only.filter(|read_only| *read_only);
    let image = image.map(|image_ref| ImageVolumeStatus { image_ref: image_ref.clone() });
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only,
        recursive_read_only: read_only.map(|_| recursive(mount).to_owned()),
        volume_status: image.map(|image| VolumeStatus { image: Some(image) }),
    }
}

/// `IfPossible` becomes what came of it: with propagation from the host it isn't possible.
fn recursive(mount: &VolumeMount) -> &'static str {
    let propagates = mount.mount_propagation.as_deref().is_some_and(|mode| mode != "None");
    match mount.recursive_read_only.as_deref() {
        Some("Enabled") => "Enabled",
        Some("IfPossible") if !propagates => "Enabled",
        _ => "Disabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_of_as_they_are() {
        let spec: Container = serde_yaml::from_str(
            "{name: c, volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b, readOnly: true}, \
             {name: c, mountPath: /c, readOnly: true, recursiveReadOnly: IfPossible}, \
             {name: c, mountPath: /d, readOnly: true, recursiveReadOnly: IfPossible, mountPropagation: HostToContainer}]}",
        )
        .expect("a container");
        let known = BTreeMap::from([("a".to_owned(), "sha256:1".to_owned())]);
        let told = mounts(&spec, &known);
        let rows: Vec<_> = told
            .iter()
            .flatten()
            .map(|m| (m.mount_path.as_str(), m.read_only, m.recursive_read_only.as_deref()))
            .collect();
        let want = [
            ("/a", None, None),
            ("/b", Some(true), Some("Disabled")),
            ("/c", Some(true), Some("Enabled")),
            ("/d", Some(true), Some("Disabled")),
        ];
        assert_eq!(rows, want);
        assert_eq!(images(&ContainerStatus { volume_mounts: told, ..ContainerStatus::default() }), known);
        assert_eq!(mounts(&Container::default(), &known), None);
    }
}
