//! Built-in kinds that are served in two versions: from one to the other, over untyped objects.
//!
//! Each such kind is stored in one version. A part of an object, as it is applied, converts like the whole.

mod autoscaler;
mod event;

use serde_json::Value;

use crate::object;

/// The object in another version of its kind; as it is if that is the version it has, or no other is known.
pub fn to_version(mut object: Value, api_version: &str) -> Value {
    let (from, kind) = (object::api_version(&object).to_owned(), object::kind(&object).to_owned());
    if from == api_version {
        return object;
    }
    match (kind.as_str(), api_version) {
        ("Event", "events.k8s.io/v1") => event::to_events(&mut object),
        ("Event", "v1") => event::to_core(&mut object),
        ("HorizontalPodAutoscaler", "autoscaling/v1") => autoscaler::to_v1(&mut object),
        ("HorizontalPodAutoscaler", "autoscaling/v2") => autoscaler::to_v2(&mut object),
        _ => return object,
    }
    object::set_type(&mut object, api_version, &kind);
    object
}
