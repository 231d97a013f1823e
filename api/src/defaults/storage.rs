//! Defaults of volumes, claims and classes.

use serde_json::{Value, json};

use super::fields::Defaults;

pub(super) fn persistent_volume(volume: &mut Value) {
    volume.under("status", |status| status.text("phase", "Pending"));
    volume.under("spec", |spec| {
        spec.text("persistentVolumeReclaimPolicy", "Retain");
        spec.text("volumeMode", "Filesystem");
        spec.within("hostPath", |path| path.or_insert("type", ""));
    });
}

pub(super) fn claim(claim: &mut Value) {
    claim.under("status", |status| status.text("phase", "Pending"));
    claim.under("spec", claim_spec);
}

/// The spec of a claim, also inside a template.
pub(super) fn claim_spec(spec: &mut Value) {
    spec.text("volumeMode", "Filesystem");
    spec.map("resources");
    // The old and the new field say the same, unless the new one names another namespace.
    let (old, new) = (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned());
    match (old, new) {
        (Some(old), None) => spec.set("dataSourceRef", old),
        (None, Some(new)) if new.get("namespace").is_none() => spec.set("dataSource", new),
        _ => {}
    }
}

pub(super) fn storage_class(class: &mut Value) {
    class.text("reclaimPolicy", "Delete");
    class.text("volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(driver: &mut Value) {
    driver.under("spec", |spec| {
        spec.or_insert("attachRequired", true);
        spec.or_insert("podInfoOnMount", false);
        spec.or_insert("storageCapacity", false);
        spec.text("fsGroupPolicy", "ReadWriteOnceWithFSType");
        spec.or_insert("volumeLifecycleModes", json!(["Persistent"]));
        spec.or_insert("requiresRepublish", false);
        spec.or_insert("seLinuxMount", false);
    });
}

pub(super) fn volume_attachment(attachment: &mut Value) {
    attachment.under("status", |status| status.or_insert("attached", false));
}
