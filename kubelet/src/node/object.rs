//! The Node object as the agent wants it, and the difference to the one that is there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use crate::config::{CapacityOverrides, KubeletConfig};
use crate::eviction::Pressure;
use crate::node::facts::Machine;
use crate::node::images::{self, NodeImage};

/// Upstream's default of pods per node.
const PODS: u32 = 110;

/// Everything the node says of itself.
#[derive(Clone, Debug)]
pub struct NodeDescription {
    /// The Node's name, labels and taints.
    pub config: KubeletConfig,
    /// What was measured.
    pub machine: Machine,
    /// Such as `amoeba://0.1.0`.
    pub runtime_version: String,
    /// The port of the node's API, if it is served.
    pub port: Option<u16>,
}

/// The four conditions: type, status while all is well, reason, message.
const CONDITIONS: [Row<'static>; 4] = [
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
];

/// A condition: type, status, reason, message.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str);

/// How the node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What it is running out of.
    pub pressure: Pressure,
    /// It goes down.
    pub shutting_down: bool,
    /// Why the container runtime can't run pods.
    pub runtime: Vec<String>,
    /// The images that it tells of, the biggest first.
    pub images: Vec<NodeImage>,
}

impl Health {
    /// Why the node isn't ready, several reasons as upstream lists them; `None` if it is.
    fn unready(&self) -> Option<String> {
        let down = self.shutting_down.then_some("node is shutting down");
        let all: Vec<&str> = self.runtime.iter().map(String::as_str).chain(down).collect();
        match all.as_slice() {
            [] => None,
            [one] => Some((*one).to_owned()),
            several => Some(format!("[{}]", several.join(", "))),
        }
    }
}

/// What is said while all isn't well.
fn trouble(pressure: Pressure, unready: Option<&str>) -> Vec<Row<'_>> {
    let rows = [
        (
            pressure.memory,
            (
                "MemoryPressure",
                "True",
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
        ),
        (pressure.disk, ("DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure")),
        (
            pressure.processes,
            ("PIDPressure", "True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ),
        (unready.is_some(), ("Ready", "False", "KubeletNotReady", unready.unwrap_or_default())),
    ];
    rows.into_iter().filter(|(holds, _)| *holds).map(|(_, row)| row).collect()
}

impl NodeDescription {
    /// The labels every node has, and those asked for.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let own = [
            ("kubernetes.io/hostname", self.config.node_name.0.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.machine.architecture.as_str()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.machine.architecture.as_str()),
        ];
        let mut labels = self.config.labels.clone();
        labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        labels
    }

    /// The Node to create.
    pub fn node(&self, health: &Health, now: Timestamp) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.config.node_name.0.clone()),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: self.range(),
                pod_cidrs: self.range().map(|range| vec![range]),
                taints: Some(self.config.taints.clone()).filter(|taints| !taints.is_empty()),
                ..NodeSpec::default()
            }),
            status: Some(self.status(None, health, now)),
        }
    }

    fn range(&self) -> Option<String> {
        self.config.network.as_ref()?.range.map(|range| range.to_string())
    }

    /// What the node has.
    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        let CapacityOverrides { cpu, memory, ephemeral_storage, pods } = self.config.capacity.clone();
        let kib = |bytes: u64| format!("{}Ki", bytes / 1024);
        [
            ("cpu", cpu.unwrap_or_else(|| self.machine.cpus.to_string())),
            ("memory", memory.unwrap_or_else(|| kib(self.machine.memory))),
            ("ephemeral-storage", ephemeral_storage.unwrap_or_else(|| kib(self.machine.storage))),
            ("pods", pods.unwrap_or(PODS).to_string()),
        ]
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
        .collect()
    }

    /// The status to report over the one that is there.
    pub fn status(&self, before: Option<&NodeStatus>, health: &Health, now: Timestamp) -> NodeStatus {
        NodeStatus {
            capacity: Some(self.capacity()),
            allocatable: Some(self.capacity()),
            addresses: Some(self.addresses()),
            conditions: Some(conditions(before, health, now)),
            daemon_endpoints: self.port.map(|port| NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: port.into() }),
            }),
            node_info: Some(self.info()),
            // Also if there are none: what is left out of a patch stays.
            images: Some(images::told(&health.images)),
            ..NodeStatus::default()
        }
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        [("InternalIP", self.config.address.to_string()), ("Hostname", self.config.node_name.0.clone())]
            .into_iter()
            .map(|(kind, address)| NodeAddress { type_: kind.to_owned(), address })
            .collect()
    }

    fn info(&self) -> NodeSystemInfo {
        let machine = self.machine.clone();
        NodeSystemInfo {
            machine_id: machine.machine_id,
            system_uuid: machine.system_uuid,
            boot_id: machine.boot_id,
            kernel_version: machine.kernel,
            os_image: machine.os_image,
            container_runtime_version: self.runtime_version.clone(),
            kubelet_version: self.config.version.clone(),
            // Nobody fills it any more; the field is still required.
            kube_proxy_version: String::new(),
            operating_system: "linux".to_owned(),
            architecture: machine.architecture,
            ..NodeSystemInfo::default()
        }
    }

    /// The patch that makes labels what they should be; `None` if they are.
    pub fn label_patch(&self, node: &Node) -> Option<Value> {
        let has = node.metadata.labels.clone().unwrap_or_default();
        let missing: BTreeMap<String, String> =
            self.labels().into_iter().filter(|(name, value)| has.get(name) != Some(value)).collect();
        (!missing.is_empty()).then(|| json!({ "metadata": { "labels": missing } }))
    }

    /// Whether the reported status is as it should be, apart from its heartbeat times.
    pub fn is_reported(&self, node: &Node, health: &Health, now: Timestamp) -> bool {
        let Some(seen) = &node.status else { return false };
        let wanted = self.status(Some(seen), health, now);
        let verdicts = |status: &NodeStatus| -> Vec<[String; 3]> {
            let known = |c: &&NodeCondition| CONDITIONS.iter().any(|(kind, ..)| c.type_ == *kind);
            let mut all: Vec<_> = status.conditions.iter().flatten().filter(known).map(verdict).collect();
            all.sort();
            all
        };
        wanted.capacity == seen.capacity
            && wanted.allocatable == seen.allocatable
            && wanted.addresses == seen.addresses
            && wanted.daemon_endpoints == seen.daemon_endpoints
            && wanted.node_info == seen.node_info
            && wanted.images.as_deref().unwrap_or_default() == seen.images.as_deref().unwrap_or_default()
            && verdicts(&wanted) == verdicts(seen)
    }

    /// The strategic merge patch of the `status` subresource.
    pub fn status_patch(&self, node: &Node, health: &Health, now: Timestamp) -> Value {
        json!({ "status": self.status(node.status.as_ref(), health, now) })
    }
}

fn verdict(condition: &NodeCondition) -> [String; 3] {
    let message = condition.message.clone().unwrap_or_default();
    [condition.type_.clone(), condition.status.clone(), message]
}

fn conditions(before: Option<&NodeStatus>, health: &Health, now: Timestamp) -> Vec<NodeCondition> {
    let before = before.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unready = health.unready();
    let trouble = trouble(health.pressure, unready.as_deref());
    let row = |well: &Row<'static>| *trouble.iter().find(|(kind, ..)| *kind == well.0).unwrap_or(well);
    CONDITIONS.iter().map(|well| condition(&row(well), before, now)).collect()
}

fn condition(
    (kind, status, reason, message): &Row<'_>,
    before: &[NodeCondition],
    now: Timestamp,
) -> NodeCondition {
    let same = before.iter().find(|c| c.type_ == *kind && c.status == *status);
    NodeCondition {
        type_: (*kind).to_owned(),
        status: (*status).to_owned(),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        reason: Some((*reason).to_owned()),
        message: Some((*message).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_is_wrong_and_since_when() {
        let then: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("time");
        let before = NodeStatus {
            conditions: Some(conditions(None, &Health::default(), then)),
            ..NodeStatus::default()
        };
        let pressure = Pressure { disk: true, ..Pressure::default() };
        let runtime = vec!["container runtime is down".to_owned()];
        let health = Health { pressure, shutting_down: true, runtime, images: Vec::new() };
        let told = conditions(Some(&before), &health, now);
        let rows: Vec<(&str, &str, &str, bool)> = told
            .iter()
            .map(|c| {
                let moved = c.last_transition_time == Some(Time(now));
                (c.type_.as_str(), c.status.as_str(), c.message.as_deref().unwrap_or_default(), moved)
            })
            .collect();
        let want = [
            ("MemoryPressure", "False", "kubelet has sufficient memory available", false),
            ("DiskPressure", "True", "kubelet has disk pressure", true),
            ("PIDPressure", "False", "kubelet has sufficient PID available", false),
            ("Ready", "False", "[container runtime is down, node is shutting down]", true),
        ];
        assert_eq!(rows, want);
    }
}
