//! A node as the scheduler sees it: what it offers and whom it keeps away.

use crate::images::NodeImages;
use crate::name::NodeName;
use crate::resources::Amounts;
use crate::selector::Labels;
use crate::taint::Taint;
use api::k8s::api::core::v1 as core;

/// The parts of a node that decisions depend on. Heartbeats change none of them, so equal values mean that
/// nothing has to be looked at again.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    /// Name of the node.
    pub name: NodeName,
    /// Labels for selectors and topology.
    pub labels: Labels,
    /// Taints in the order the node lists them (messages name the first untolerated one).
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// What pods may take in total.
    pub allocatable: Amounts,
    /// What it has pulled.
    pub images: NodeImages,
}

impl NodeInfo {
    /// Reads an API object.
    pub fn of(node: &core::Node) -> Self {
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let status = node.status.as_ref();
        NodeInfo {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints.iter().filter_map(Taint::of).collect(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: Amounts::of(status.and_then(|status| status.allocatable.as_ref())),
            images: status.and_then(|status| status.images.as_deref()).map(images).unwrap_or_default(),
        }
    }
}

fn images(list: &[core::ContainerImage]) -> NodeImages {
    let names = |image: &core::ContainerImage| -> NodeImages {
        let bytes = image.size_bytes.unwrap_or(0);
        image.names.iter().flatten().map(|name| (name.as_str().into(), bytes)).collect()
    };
    list.iter().flat_map(names).collect()
}
