//! The downward API: a pod's own fields and resources as text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::pod::ContainerName;
use crate::pod::roles::spec_of;

/// What only the node knows.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's address.
    pub host_ip: String,
    /// The pod's address, which is the node's for a pod in the host network.
    pub pod_ip: String,
    /// What a container without a limit may use.
    pub allocatable: BTreeMap<String, ApiQuantity>,
}

/// The value of `fieldRef.fieldPath`.
pub fn field(pod: &Pod, path: &str, node: &NodeFacts) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => {
                return Err(format!(
                    "invalid fieldPath {path}: fieldPath {map:?} does not support subscript"
                ));
            }
        };
        return Ok(values.as_ref().and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let text = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(map_lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(map_lines(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => Some(node.host_ip.clone()),
        "status.podIP" | "status.podIPs" => Some(node.pod_ip.clone()),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    };
    Ok(text.unwrap_or_default())
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// The value of `resourceFieldRef`, in units of its divisor, rounded up.
pub fn resource(
    pod: &Pod,
    own: &Container,
    selector: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, String> {
    let other = selector.container_name.as_ref().filter(|name| !name.is_empty());
    let container = match other {
        None => Cow::Borrowed(own),
        Some(name) => {
            spec_of(pod, &ContainerName(name.clone())).ok_or_else(|| format!("container {name} not found"))?
        }
    };
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let quantity = amount(&container, kind, name, node)
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))??;
    let divisor = selector
        .divisor
        .as_ref()
        .map_or(Ok(Quantity::from_units(1, api::quantity::Format::Decimal)), parse)?;
    Ok(in_units(name, &quantity, &divisor).to_string())
}

fn parse(quantity: &ApiQuantity) -> Result<Quantity, String> {
    Quantity::parse(&quantity.0).map_err(|error| error.to_string())
}

/// `None` for a resource the downward API doesn't know; a missing limit is what the node has.
fn amount(
    container: &Container,
    kind: &str,
    name: &str,
    node: &NodeFacts,
) -> Option<Result<Quantity, String>> {
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()).and_then(|l| l.get(name));
    let request = resources.and_then(|r| r.requests.as_ref()).and_then(|l| l.get(name));
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let found = match kind {
        "limits" => limit.or_else(|| node.allocatable.get(name)),
        "requests" => request.or(limit),
        _ => return None,
    };
    known.then(|| found.map_or(Ok(Quantity::ZERO), parse))
}

/// CPU is counted in thousandths before it is divided, all else in whole units.
fn in_units(name: &str, quantity: &Quantity, divisor: &Quantity) -> i128 {
    let (amount, unit) = match name {
        "cpu" => (quantity.as_milli(), divisor.as_milli()),
        _ => (quantity.value(), divisor.value()),
    };
    let unit = unit.max(1);
    (amount + unit - 1).div_euclid(unit)
}
