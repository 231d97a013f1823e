//! Endpoints in slices: at most 100 each, changed as little as possible.
//!
//! Endpoints of one address type and one set of ports share slices. A slice keeps what still belongs to it, new
//! endpoints fill slices that have room, and only the rest gets new ones: every change of a slice goes to every
//! node of the cluster. Upstream's `staging/src/k8s.io/endpointslice` gives the rules.

use crate::{
    endpoint_slice::{MANAGED_BY, SERVICE_NAME},
    owner::{self, Owned},
    plan::{Action, Part, Plan, Target, to_value},
    trigger_time::{self, Triggers},
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::{ResourceExt, core::ApiResource};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Endpoints of one slice; upstream's `--max-endpoints-per-slice`.
const ROOM: usize = 100;

/// Endpoints that may share slices.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// `IPv4` or `IPv6`.
    pub address_type: &'static str,
    /// The same for all.
    pub ports: Vec<EndpointPort>,
    /// In a stable order.
    pub endpoints: Vec<Endpoint>,
}

/// What makes slices: whose they are and what they say about it.
pub struct Publisher<'a, O> {
    /// Their owner.
    pub owner: &'a O,
    /// The Service's name.
    pub service: String,
    /// Who keeps them up to date.
    pub manager: &'static str,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// What leads to changes; none if the slices don't say.
    pub triggers: Option<Triggers>,
}

impl<O: Owned> Publisher<'_, O> {
    /// Brings `existing` slices to hold `groups`.
    pub fn publish(&self, groups: Vec<Group>, existing: &[Arc<EndpointSlice>], plan: &mut Plan) {
        let mut unused: Vec<Arc<EndpointSlice>> = existing.to_vec();
        let is_new = existing.is_empty();
        for group in groups {
            let fits = |slice: &Arc<EndpointSlice>| {
                slice.address_type == group.address_type && ports_of(slice) == group.ports
            };
            let (fitting, rest): (Vec<_>, Vec<_>) = unused.into_iter().partition(fits);
            unused = rest;
            self.fill(&group, fitting, is_new, plan);
        }
        unused.iter().for_each(|slice| delete(slice, plan));
    }

    fn fill(&self, group: &Group, slices: Vec<Arc<EndpointSlice>>, is_new: bool, plan: &mut Plan) {
        let mut left: VecDeque<&Endpoint> = group.endpoints.iter().collect();
        let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in slices {
            let still: Vec<Endpoint> =
                slice.endpoints.iter().flatten().filter_map(|old| take(&mut left, old)).collect();
            kept.push((slice, still));
        }
        // Those that change anyway are filled first.
        kept.sort_by_key(|(slice, still)| slice.endpoints.as_deref().unwrap_or_default() == still.as_slice());
        let placeholder = group.endpoints.is_empty();
        for (number, (slice, mut endpoints)) in kept.iter().cloned().enumerate() {
            let room = ROOM.saturating_sub(endpoints.len()).min(left.len());
            endpoints.extend(left.drain(..room).cloned());
            match endpoints.is_empty() && !(placeholder && number == 0) {
                true => delete(&slice, plan),
                false => self.update(&slice, endpoints, plan),
            }
        }
        if placeholder && kept.is_empty() {
            plan.push(self.create(group, Vec::new(), is_new));
        }
        let left: Vec<Endpoint> = left.into_iter().cloned().collect();
        left.chunks(ROOM).for_each(|endpoints| plan.push(self.create(group, endpoints.to_vec(), is_new)));
    }

    fn update(&self, slice: &EndpointSlice, endpoints: Vec<Endpoint>, plan: &mut Plan) {
        let mut patch = json!({});
        if slice.endpoints.as_deref().unwrap_or_default() != endpoints.as_slice() {
            patch["endpoints"] = to_value(&endpoints);
            self.say_why(slice, &endpoints, &mut patch);
        }
        let missing: BTreeMap<String, String> = self
            .all_labels()
            .into_iter()
            .filter(|(name, value)| slice.labels().get(name) != Some(value))
            .collect();
        if !missing.is_empty() {
            patch["metadata"]["labels"] = json!(missing);
        }
        plan.patch(Target::of(slice), Part::Whole, patch, "its endpoints have changed");
    }

    /// Notes what led to the change; a change that nothing led to takes away what was noted.
    fn say_why(&self, slice: &EndpointSlice, endpoints: &[Endpoint], patch: &mut Value) {
        let Some(triggers) = &self.triggers else { return };
        let known = slice.endpoints.as_deref().unwrap_or_default();
        let changed = endpoints.iter().filter(|endpoint| !known.contains(endpoint));
        let trigger = triggers.earliest(changed.filter_map(uid_of));
        if slice.annotations().get(trigger_time::ANNOTATION).map(String::as_str) != trigger.as_str() {
            patch["metadata"]["annotations"] = json!({trigger_time::ANNOTATION: trigger});
        }
    }

    fn create(&self, group: &Group, endpoints: Vec<Endpoint>, is_new: bool) -> Action {
        let mut object = self.slice(group, &endpoints);
        let trigger = self.triggers.as_ref().map(|triggers| match is_new {
            true => triggers.first(),
            false => triggers.earliest(endpoints.iter().filter_map(uid_of)),
        });
        if let Some(trigger) = trigger.filter(Value::is_string) {
            object["metadata"]["annotations"] = json!({trigger_time::ANNOTATION: trigger});
        }
        Action::Create {
            kind: ApiResource::erase::<EndpointSlice>(&()),
            object,
            announce: None,
            reason: format!("{} endpoints have no slice", endpoints.len()),
        }
    }

    fn slice(&self, group: &Group, endpoints: &[Endpoint]) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.owner.namespace(),
                "generateName": format!("{}-", self.service),
                "labels": self.all_labels(),
                "ownerReferences": [owner::controller_reference(self.owner)],
            },
            "addressType": group.address_type,
            "ports": to_value(&group.ports),
            "endpoints": to_value(&endpoints),
        })
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert(SERVICE_NAME.to_owned(), self.service.clone());
        labels.insert(MANAGED_BY.to_owned(), self.manager.to_owned());
        labels
    }
}

/// Takes the endpoint that `old` has become out of `left`.
fn take(left: &mut VecDeque<&Endpoint>, old: &Endpoint) -> Option<Endpoint> {
    let same = |new: &&Endpoint| new.addresses == old.addresses && uid_of(new) == uid_of(old);
    let place = left.iter().position(same)?;
    left.remove(place).cloned()
}

/// The uid of the pod that an endpoint is.
fn uid_of(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.uid.as_deref()
}

fn ports_of(slice: &EndpointSlice) -> Vec<EndpointPort> {
    slice.ports.clone().unwrap_or_default()
}

fn delete(slice: &EndpointSlice, plan: &mut Plan) {
    plan.delete(Target::of(slice), "none of its endpoints is left");
}

/// The type of an address, as slices name it.
pub fn address_type(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}
