//! Which volume fits a claim best.

use super::{claim_ref, class_of_claim, class_of_volume, is_for};
use api::{quantity::Quantity, selector::LabelSelector};
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::api::resource::Quantity as Amount,
};
use kube::ResourceExt;
use std::{collections::BTreeMap, sync::Arc};

const STORAGE: &str = "storage";

/// The volume that names the claim, or else the smallest free one that has all it asks for. A claim that waits for
/// its first consumer gets only the former: which free volume a pod can reach is the scheduler's to say.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    waits: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let right = || volumes.iter().filter(|volume| same_mode(claim, volume) && is_large_enough(claim, volume));
    let prebound = right().find(|volume| is_for(volume, claim));
    let free = right().filter(|volume| !waits && is_free(volume) && matches(claim, volume));
    prebound.or_else(|| free.min_by_key(|volume| (bytes(capacity(volume)), volume.name_any())))
}

/// What keeps the volume that a claim names from being the claim's; none if nothing does.
pub fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    if !is_large_enough(claim, volume) {
        return Some("requested PV is too small");
    }
    if class_of_claim(claim).unwrap_or_default() != class_of_volume(volume) {
        return Some("storageClassName does not match");
    }
    if !same_mode(claim, volume) {
        return Some("incompatible volumeMode");
    }
    (!has_access_modes(claim, volume)).then_some("incompatible accessMode")
}

fn is_free(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    claim_ref(volume).is_none() && phase == Some("Available") && volume.metadata.deletion_timestamp.is_none()
}

fn matches(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selected = selector.is_none_or(|selector| {
        LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(volume.labels()))
    });
    selected
        && class_of_claim(claim).unwrap_or_default() == class_of_volume(volume)
        && has_access_modes(claim, volume)
}

fn has_access_modes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let offered = volume.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten()).collect::<Vec<_>>();
    let mut wanted = claim.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten());
    wanted.all(|mode| offered.contains(&mode))
}

fn same_mode(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let mode = |mode: Option<&String>| mode.map_or("Filesystem", String::as_str).to_owned();
    mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()))
        == mode(volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()))
}

fn is_large_enough(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    bytes(capacity(volume)) >= bytes(requests(claim))
}

/// What a claim asks for.
pub fn requests(claim: &PersistentVolumeClaim) -> Option<&BTreeMap<String, Amount>> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

/// What a volume offers.
pub fn capacity(volume: &PersistentVolume) -> Option<&BTreeMap<String, Amount>> {
    volume.spec.as_ref()?.capacity.as_ref()
}

/// Quantities that don't parse (the API server admits none) count as zero.
fn bytes(amounts: Option<&BTreeMap<String, Amount>>) -> i128 {
    let amount = amounts.and_then(|amounts| amounts.get(STORAGE));
    amount.and_then(|amount| Quantity::parse(&amount.0).ok()).map_or(0, |amount| amount.value())
}
