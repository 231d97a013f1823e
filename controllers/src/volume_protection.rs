//! Volume protection: a PersistentVolume that is bound to a claim isn't gone before the claim is.
//! Upstream's `pkg/controller/volume/pvprotection` gives the rules.

use crate::{plan::Plan, protection};
use k8s_openapi::api::core::v1::PersistentVolume;

const FINALIZER: &str = "kubernetes.io/pv-protection";

/// What to do for `volume`.
pub fn reconcile(volume: &PersistentVolume) -> Plan {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let reasons = ["a claim may be bound to it", "no claim is bound to it any more"];
    protection::reconcile(volume, FINALIZER, reasons, || phase == Some("Bound"))
}
