//! Whether a pod that was bound to this node may run here.
//!
//! The scheduler decides from a view that may be stale; the node has the last word, in upstream's words.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::pod::life::Verdict;

/// Resources by name, in thousandths for `cpu` and in units for all else.
pub type Amounts = BTreeMap<String, i128>;

/// What a node has, in the units of [`Amounts`].
pub fn amounts(quantities: &BTreeMap<String, ApiQuantity>) -> Amounts {
    quantities.iter().filter_map(|(name, quantity)| Some((name.clone(), amount(name, quantity)?))).collect()
}

/// A quantity that doesn't parse counts as absent: the API server lets none through.
fn amount(name: &str, quantity: &ApiQuantity) -> Option<i128> {
    let quantity = Quantity::parse(&quantity.0).ok()?;
    Some(if name == "cpu" { quantity.as_milli() } else { quantity.value() })
}

/// What the pod asks for: the sum of its containers and sidecars, or more while an init container runs.
pub fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total = Amounts::new();
    spec.containers.iter().for_each(|c| add(&mut total, &container_requests(c)));
    let mut sidecars = Amounts::new();
    let mut highest = Amounts::new();
    for init in spec.init_containers.iter().flatten() {
        let own = container_requests(init);
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut highest, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, &own);
            raise(&mut highest, &with_sidecars);
        }
    }
    raise(&mut total, &highest);
    add(&mut total, &spec.overhead.as_ref().map(amounts).unwrap_or_default());
    total
}

fn container_requests(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    resources.and_then(|r| r.requests.as_ref()).map(amounts).unwrap_or_default()
}

/// Adds up.
pub fn add(total: &mut Amounts, more: &Amounts) {
    more.iter().for_each(|(name, amount)| *total.entry(name.clone()).or_default() += amount);
}

fn raise(total: &mut Amounts, to: &Amounts) {
    for (name, amount) in to {
        let entry = total.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// Refuses a pod that doesn't fit beside those that run.
pub fn admit(pod: &Pod, used: &Amounts, pods: usize, allocatable: &Amounts) -> Result<(), Verdict> {
    let mut wanted = requests(pod);
    wanted.insert("pods".to_owned(), 1);
    let mut used = used.clone();
    used.insert("pods".to_owned(), i128::try_from(pods).unwrap_or(i128::MAX));
    for (name, requested) in wanted.into_iter().filter(|(_, requested)| *requested > 0) {
        let capacity = allocatable.get(&name).copied().unwrap_or_default();
        let taken = used.get(&name).copied().unwrap_or_default();
        if taken + requested > capacity {
            return Err(out_of(&name, requested, taken, capacity));
        }
    }
    Ok(())
}

fn out_of(name: &str, requested: i128, used: i128, capacity: i128) -> Verdict {
    let message = format!(
        "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, \
         used: {used}, capacity: {capacity}"
    );
    Verdict::plain(&format!("OutOf{name}"), message)
}

/// `status.qosClass`: Guaranteed if every container limits CPU and memory and requests no less.
pub fn qos_class(pod: &Pod) -> &'static str {
    let containers: Vec<&Container> =
        crate::pod::roles::declared(pod).map(|(container, _)| container).collect();
    if containers.iter().all(|c| qos_amounts(c).0.is_empty() && qos_amounts(c).1.is_empty()) {
        return "BestEffort";
    }
    let guaranteed = containers.iter().all(|c| {
        let (requests, limits) = qos_amounts(c);
        limits.len() == 2 && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount))
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// The positive requests and limits of CPU and memory.
fn qos_amounts(container: &Container) -> (Amounts, Amounts) {
    let resources = container.resources.clone().unwrap_or_default();
    let part = |quantities: Option<BTreeMap<String, ApiQuantity>>| -> Amounts {
        let all = quantities.as_ref().map(amounts).unwrap_or_default();
        all.into_iter().filter(|(name, amount)| (name == "cpu" || name == "memory") && *amount > 0).collect()
    };
    (part(resources.requests), part(resources.limits))
}
