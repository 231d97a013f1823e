//! PersistentVolumeClaimResize: only a bound claim whose class allows it may ask for more room.

use api::object;
use api::quantity::Quantity;
use api::status::Status;
use serde_json::Value;

use super::lookup;
use crate::error::Outcome;
use crate::verbs::Call;

/// # Errors
/// 403 if the claim asks for more and may not.
pub async fn check(call: &Call<'_>, claim: &Value, old: &Value) -> Outcome<()> {
    if size(claim) <= size(old) {
        return Ok(());
    }
    let forbid =
        |why: &str| Err(Status::forbidden("persistentvolumeclaims", "", object::name(claim), why).into());
    if old["status"]["phase"] != "Bound" {
        return forbid("Only bound persistent volume claims can be expanded");
    }
    let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = match class {
        "" => None,
        name => lookup::one(call, "storage.k8s.io", "storageclasses", "", name).await?,
    };
    match class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        true => Ok(()),
        false => forbid(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ),
    }
}

fn size(claim: &Value) -> Option<Quantity> {
    Quantity::parse(claim["spec"]["resources"]["requests"]["storage"].as_str()?).ok()
}
