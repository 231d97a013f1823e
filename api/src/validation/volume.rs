//! Rules for the volumes of a pod.

use std::collections::BTreeSet;

use super::certificates::signer_name;
use super::container::{PULL_POLICIES, relative_path};
use super::field::{Errors, Field, label_selector};
use super::pod::Owner;
use crate::name;

/// All volumes of a pod spec.
pub(super) fn volumes(volumes: &Field<'_>, owner: Owner) -> Errors {
    let mut errors = Errors::new();
    let mut names = BTreeSet::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        errors.extend(name.named(name::dns1123_label));
        if !name.is_empty() && !names.insert(name.text()) {
            errors.push(name.duplicate());
        }
        errors.extend(one_source(&volume, owner));
    }
    errors
}

fn one_source(volume: &Field<'_>, owner: Owner) -> Errors {
    let keys = volume.value.as_object().into_iter().flat_map(|map| map.keys());
    let given: Vec<Field<'_>> = keys.filter(|key| *key != "name").map(|key| volume.get(key)).collect();
    let mut errors = Errors::new();
    if given.is_empty() {
        errors.push(volume.required("must specify a volume type"));
    }
    for extra in given.iter().skip(1) {
        errors.push(extra.forbidden("may not specify more than 1 volume type"));
    }
    if let Some(source) = given.first() {
        errors.extend(self::source(source, owner));
    }
    errors
}

fn source(source: &Field<'_>, owner: Owner) -> Errors {
    match source.path.rsplit('.').next() {
        Some("configMap") => files(source, "name"),
        Some("secret") => files(source, "secretName"),
        Some("downwardAPI") => items(source, "path"),
        Some("hostPath") => host_path(source),
        Some("persistentVolumeClaim") => source.get("claimName").present(),
        Some("projected") => projected(source),
        Some("nfs") => {
            let mut errors = source.get("server").present();
            errors.extend(source.get("path").present());
            errors
        }
        Some("image") => image(source, owner),
        _ => Errors::new(),
    }
}

/// In a template something else may fill the reference in, as upstream has it.
fn image(source: &Field<'_>, owner: Owner) -> Errors {
    let mut errors = Errors::new();
    if owner == Owner::None {
        errors.extend(source.get("reference").present());
    }
    errors.extend(source.get("pullPolicy").one_of(&PULL_POLICIES));
    errors
}

fn files(source: &Field<'_>, name: &str) -> Errors {
    let mut errors = source.get(name).present();
    errors.extend(mode(&source.get("defaultMode")));
    errors.extend(items(source, "key"));
    errors
}

fn items(source: &Field<'_>, required: &str) -> Errors {
    let mut errors = Errors::new();
    for item in source.get("items").items() {
        errors.extend(item.get(required).present());
        if required != "path" {
            errors.extend(item.get("path").present());
        }
        errors.extend(relative_path(&item.get("path")));
        errors.extend(mode(&item.get("mode")));
    }
    errors
}

fn mode(mode: &Field<'_>) -> Errors {
    match mode.int() {
        Some(number) if !(0..=0o777).contains(&number) => {
            vec![mode.invalid("must be a number between 0 and 0777 (octal), both inclusive")]
        }
        _ => Errors::new(),
    }
}

fn host_path(source: &Field<'_>) -> Errors {
    let path = source.get("path");
    let mut errors = path.present();
    if path.text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
    let kinds =
        ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
    errors.extend(source.get("type").one_of(&kinds));
    errors
}

fn projected(source: &Field<'_>) -> Errors {
    let mut errors = mode(&source.get("defaultMode"));
    for each in source.get("sources").items() {
        for name in ["configMap", "secret"] {
            let reference = each.get(name);
            if reference.exists() {
                errors.extend(reference.get("name").present());
                errors.extend(items(&reference, "key"));
            }
        }
        let token = each.get("serviceAccountToken");
        if token.exists() {
            errors.extend(token.get("path").present());
            let seconds = token.get("expirationSeconds");
            if seconds.int().is_some_and(|seconds| seconds < 600) {
                errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
            }
        }
        let bundle = each.get("clusterTrustBundle");
        if bundle.exists() {
            errors.extend(trust_bundle(&bundle));
        }
    }
    errors
}

/// One bundle by its name, or those of a signer by their labels.
fn trust_bundle(bundle: &Field<'_>) -> Errors {
    let (name, signer, labels) = (bundle.get("name"), bundle.get("signerName"), bundle.get("labelSelector"));
    let mut errors = Errors::new();
    match (name.exists(), signer.exists()) {
        (true, true) => errors.push(bundle.invalid("only one of name and signerName may be used")),
        (true, false) => {
            errors.extend(bundle_name(&name));
            if labels.exists() {
                errors.push(labels.invalid("labelSelector must be unset if name is specified"));
            }
        }
        (false, true) => {
            errors.extend(signer_name(&signer));
            errors.extend(label_selector(&labels));
        }
        (false, false) => errors.push(bundle.required("either name or signerName must be specified")),
    }
    errors.extend(bundle.get("path").present());
    errors.extend(relative_path(&bundle.get("path")));
    errors
}

/// A bundle of a signer has the signer's name before the last colon.
fn bundle_name(name: &Field<'_>) -> Errors {
    if name.is_empty() {
        return vec![name.required("must be a valid object name")];
    }
    let own = name.text().rsplit(':').next().unwrap_or_default();
    let wrong = name::dns1123_subdomain(own).err();
    wrong.map(|why| name.invalid(format!("not a valid clustertrustbundlename: {why}"))).into_iter().collect()
}
