//! Defaults of a pod's volumes.

use serde_json::Value;

use super::containers::{field_ref, pull_policy};
use super::fields::{Defaults, text};

/// `rw-r--r--`
const FILE_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// Defaults of a volume; one that says nothing is an empty directory.
pub(super) fn volume(volume: &mut Value) {
    let says_nothing = volume.as_object().is_some_and(|map| map.keys().all(|key| key == "name"));
    if says_nothing {
        volume.map("emptyDir");
    }
    for source in ["secret", "configMap"] {
        volume.within(source, |source| source.or_insert("defaultMode", FILE_MODE));
    }
    volume.within("downwardAPI", downward_api);
    volume.within("projected", projected);
    volume.within("hostPath", |path| path.or_insert("type", ""));
    volume.within("image", |image| {
        let policy = pull_policy(text(image, "reference"));
        image.text("pullPolicy", policy);
    });
    volume.within("ephemeral", |ephemeral| {
        ephemeral.within("volumeClaimTemplate", |template| {
            template.under("spec", |claim| claim.text("volumeMode", "Filesystem"));
        });
    });
    volume.within("iscsi", |iscsi| iscsi.text("iscsiInterface", "default"));
    volume.within("azureDisk", azure_disk);
    volume.within("rbd", rbd);
    volume.within("scaleIO", |scale_io| {
        scale_io.text("storageMode", "ThinProvisioned");
        scale_io.text("fsType", "xfs");
    });
}

fn downward_api(source: &mut Value) {
    source.or_insert("defaultMode", FILE_MODE);
    items(source);
}

fn items(source: &mut Value) {
    source.each("items", |item| item.within("fieldRef", field_ref));
}

fn projected(projected: &mut Value) {
    projected.or_insert("defaultMode", FILE_MODE);
    projected.each("sources", |source| {
        source.within("downwardAPI", items);
        source.within("serviceAccountToken", |token| token.or_insert("expirationSeconds", TOKEN_SECONDS));
    });
}

fn azure_disk(disk: &mut Value) {
    disk.text("cachingMode", "ReadWrite");
    disk.text("kind", "Shared");
    disk.text("fsType", "ext4");
    disk.or_insert("readOnly", false);
}

fn rbd(rbd: &mut Value) {
    rbd.text("pool", "rbd");
    rbd.text("user", "admin");
    rbd.text("keyring", "/etc/ceph/keyring");
}
