//! Whether a pod that was bound to this node may run here.
//!
//! The scheduler decides from a view that may be stale; the node has the last word, in upstream's words.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::pod::life::Verdict;
use crate::pod::roles::{Role, declared};

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
    let mut total = total(pod, container_requests);
    total.extend(of_pod_itself(pod).0);
    add(&mut total, &overhead(pod));
    total
}

/// What the pod may use, of what all of its containers have a limit for.
pub fn limits(pod: &Pod) -> Amounts {
    let mut total = total(pod, container_limits);
    let declared: Vec<Amounts> = declared(pod).map(|(container, _)| container_limits(container)).collect();
    total.retain(|name, _| declared.iter().all(|limits| limits.get(name).is_some_and(|limit| *limit > 0)));
    total.extend(of_pod_itself(pod).1);
    let overhead = overhead(pod);
    total.iter_mut().for_each(|(name, limit)| *limit += overhead.get(name).copied().unwrap_or_default());
    total
}

/// Requests and limits that a pod has as a whole; they count instead of its containers'.
fn of_pod_itself(pod: &Pod) -> (Amounts, Amounts) {
    qos_amounts(pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()))
}

fn overhead(pod: &Pod) -> Amounts {
    pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()).map(amounts).unwrap_or_default()
}

/// The most of what its containers have at one time.
fn total(pod: &Pod, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total = Amounts::new();
    spec.containers.iter().for_each(|c| add(&mut total, &of(c)));
    let mut sidecars = Amounts::new();
    let mut highest = Amounts::new();
    for init in spec.init_containers.iter().flatten() {
        let own = of(init);
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
    total
}

fn container_requests(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    resources.and_then(|r| r.requests.as_ref()).map(amounts).unwrap_or_default()
}

fn container_limits(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    resources.and_then(|r| r.limits.as_ref()).map(amounts).unwrap_or_default()
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

/// Refuses a pod that is written for another operating system.
pub fn admit_system(pod: &Pod) -> Result<(), Verdict> {
    let system = pod.spec.as_ref().and_then(|spec| spec.os.as_ref()).map(|os| os.name.as_str());
    if system.is_some_and(|system| system != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Verdict::plain("PodOSNotSupported", message.to_owned()));
    }
    Ok(())
}

/// Refuses a pod that counts on AppArmor: nobody here applies its profiles.
pub fn admit_profiles(pod: &Pod) -> Result<(), Verdict> {
    let of_pod =
        pod.spec.iter().filter_map(|spec| spec.security_context.as_ref()?.app_armor_profile.as_ref());
    let of_containers = declared(pod)
        .filter_map(|(container, _)| container.security_context.as_ref()?.app_armor_profile.as_ref());
    if of_pod.chain(of_containers).any(|profile| profile.type_ != "Unconfined") {
        let message = "Cannot enforce AppArmor: this node applies no profiles (appArmorProfile)";
        return Err(Verdict::plain("AppArmor", message.to_owned()));
    }
    Ok(())
}

/// What a container asks for that no node gives; `None` if it asks for nothing of the kind.
pub fn unsupported(pod: &Pod, container: &Container) -> Option<String> {
    if pod.spec.as_ref().is_some_and(|spec| spec.resource_claims.iter().flatten().next().is_some()) {
        return Some("dynamic resources (spec.resourceClaims) are not supported by this node".to_owned());
    }
    let device = container.volume_devices.iter().flatten().next()?;
    Some(format!(
        "volume {:?} cannot be a block device at {}: volumeDevices are not supported by this node",
        device.name, device.device_path
    ))
}

/// Refuses a pod that asks for a port of the machine that another pod has.
pub fn admit_ports<'p>(pod: &Pod, others: impl Iterator<Item = &'p Pod>) -> Result<(), Verdict> {
    let wanted = host_ports(pod);
    if !wanted.is_empty()
        && others.flat_map(host_ports).any(|taken| wanted.iter().any(|port| port.meets(&taken)))
    {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(Verdict::plain("NodePorts", message.to_owned()));
    }
    Ok(())
}

/// A port of the machine.
struct HostPort<'a> {
    protocol: &'a str,
    /// All addresses of the machine, or one.
    ip: &'a str,
    port: i32,
}

const ANY: &str = "0.0.0.0";

impl HostPort<'_> {
    fn meets(&self, other: &HostPort<'_>) -> bool {
        let same = (self.protocol, self.port) == (other.protocol, other.port);
        same && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// Those of the containers that stay. In the machine's own network every port is one of the machine.
fn host_ports(pod: &Pod) -> Vec<HostPort<'_>> {
    let stay = declared(pod).filter(|(_, role)| *role != Role::Init);
    stay.flat_map(|(container, _)| container.ports.iter().flatten()).filter_map(host_port).collect()
}

fn host_port(port: &ContainerPort) -> Option<HostPort<'_>> {
    Some(HostPort {
        protocol: port.protocol.as_deref().unwrap_or("TCP"),
        ip: port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or(ANY),
        port: port.host_port.filter(|number| *number > 0)?,
    })
}

fn out_of(name: &str, requested: i128, used: i128, capacity: i128) -> Verdict {
    let message = format!(
        "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    Verdict::plain(&format!("OutOf{name}"), message)
}

/// `status.qosClass`: Guaranteed if every container limits CPU and memory and requests no less. A pod with resources as
/// a whole is judged by those.
pub fn qos_class(pod: &Pod) -> &'static str {
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let parts: Vec<(Amounts, Amounts)> = match whole {
        Some(_) => vec![qos_amounts(whole)],
        None => declared(pod).map(|(container, _)| qos_amounts(container.resources.as_ref())).collect(),
    };
    if parts.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        return "BestEffort";
    }
    let guaranteed = |(requests, limits): &(Amounts, Amounts)| {
        limits.len() == 2 && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount))
    };
    if parts.iter().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

/// The positive requests and limits of CPU and memory.
fn qos_amounts(resources: Option<&ResourceRequirements>) -> (Amounts, Amounts) {
    let part = |quantities: &Option<BTreeMap<String, ApiQuantity>>| -> Amounts {
        let all = quantities.as_ref().map(amounts).unwrap_or_default();
        all.into_iter().filter(|(name, amount)| (name == "cpu" || name == "memory") && *amount > 0).collect()
    };
    resources.map(|all| (part(&all.requests), part(&all.limits))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        serde_yaml::from_str(&format!("{{spec: {spec}}}")).expect("a pod")
    }

    #[test]
    fn a_port_of_the_machine_is_given_once() {
        let has = |port: &str| {
            pod(&format!("{{containers: [{{name: c, ports: [{{containerPort: 1, {port}}}]}}]}}"))
        };
        let taken = [
            has("hostPort: 80, hostIP: 127.0.0.1"),
            has("hostPort: 53, protocol: UDP"),
            has("protocol: TCP"),
        ];
        for (port, free) in [
            ("hostPort: 81", true),
            ("hostPort: 53", true),
            ("hostPort: 80, hostIP: 127.0.0.2", true),
            ("protocol: UDP", true),
            ("hostPort: 80", false),
            ("hostPort: 80, hostIP: 127.0.0.1", false),
            ("hostPort: 53, hostIP: 127.0.0.1, protocol: UDP", false),
        ] {
            let refused = admit_ports(&has(port), taken.iter()).err();
            assert_eq!(refused.is_none(), free, "{port}: {refused:?}");
        }
        let before =
            "{containers: [], initContainers: [{name: i, ports: [{containerPort: 80, hostPort: 80}]}]}";
        assert_eq!(admit_ports(&pod(before), taken.iter()), Ok(()), "it is over before it is in the way");
        let refused = admit_ports(&has("hostPort: 80"), taken.iter()).expect_err("taken");
        assert_eq!(refused.reason, "NodePorts");
    }

    #[test]
    fn what_nobody_would_enforce_is_refused() {
        let with = |profile: &str| {
            pod(&format!("{{containers: [], securityContext: {{appArmorProfile: {{type: {profile}}}}}}}"))
        };
        assert_eq!(admit_profiles(&with("Unconfined")), Ok(()));
        let own = "{containers: [{name: c, securityContext: {appArmorProfile: {type: Localhost, localhostProfile: p}}}]}";
        for refused in [with("RuntimeDefault"), pod(own)] {
            assert_eq!(admit_profiles(&refused).expect_err("refused").reason, "AppArmor");
        }
        let why = |spec: &str| {
            let pod = pod(spec);
            unsupported(&pod, &pod.spec.as_ref().expect("a spec").containers[0]).unwrap_or_default()
        };
        assert_eq!(why("{containers: [{name: c}]}"), "");
        assert!(why("{containers: [{name: c}], resourceClaims: [{name: gpu}]}").contains("resourceClaims"));
        let device = why("{containers: [{name: c, volumeDevices: [{name: v, devicePath: /dev/x}]}]}");
        assert!(device.starts_with("volume \"v\" cannot be a block device at /dev/x"), "{device}");
    }

    #[test]
    fn a_pod_of_another_system_is_refused() {
        assert_eq!(admit_system(&pod("{containers: [], os: {name: linux}}")), Ok(()));
        let refused = admit_system(&pod("{containers: [], os: {name: windows}}")).expect_err("refused");
        assert_eq!(refused.reason, "PodOSNotSupported");
    }
}
