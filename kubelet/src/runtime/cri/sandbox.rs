//! What a runtime is asked for when a pod's sandbox is made: a value of the pod and its node.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::proto::{self, NamespaceMode, Protocol, security_profile::ProfileType};
use crate::pod::PodRef;
use crate::runtime::SandboxConfig;

/// Upstream's labels, by which a pod's parts are found again.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Which node agent's it is: several may share a runtime.
pub const AGENT: &str = "amoeba.dev/agent";

/// The labels by which this agent finds a pod's parts again.
pub fn labels(agent: &str, pod: &PodRef) -> BTreeMap<String, String> {
    let labels =
        [(AGENT, agent), (POD_UID, &pod.uid.0), (POD_NAME, &pod.name), (POD_NAMESPACE, &pod.namespace)];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The whole order. `attempt` is 0 for a pod's first sandbox.
pub fn order(config: &SandboxConfig, agent: &str, logs: &Path, attempt: u32) -> proto::PodSandboxConfig {
    let (pod, who) = (&*config.object, &config.pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let on_host = spec.host_network == Some(true);
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(self::labels(agent, who));
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: who.name.clone(),
            uid: who.uid.0.clone(),
            namespace: who.namespace.clone(),
            attempt,
        }),
        // In the host's network the name is the host's.
        hostname: if on_host { String::new() } else { config.hostname.trim_end().to_owned() },
        log_directory: logs.display().to_string(),
        dns_config: Some(dns(&config.resolv_conf)),
        port_mappings: if on_host { Vec::new() } else { ports(&spec) },
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: Some(linux(pod, &spec)),
    }
}

fn linux(pod: &Pod, spec: &PodSpec) -> proto::LinuxPodSandboxConfig {
    let context = spec.security_context.clone().unwrap_or_default();
    let sysctls = context.sysctls.iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect();
    let number = |id: Option<i64>| id.map(|value| proto::Int64Value { value });
    let privileged = |c: &k8s_openapi::api::core::v1::Container| {
        c.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
    };
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    proto::LinuxPodSandboxConfig {
        cgroup_parent: cgroup(&PodRef::of(pod)),
        security_context: Some(proto::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(spec)),
            run_as_user: number(context.run_as_user),
            run_as_group: number(context.run_as_group.filter(|_| context.run_as_user.is_some())),
            readonly_rootfs: false,
            supplemental_groups: context.supplemental_groups.into_iter().flatten().collect(),
            privileged: all.into_iter().any(privileged),
            seccomp: Some(profile(ProfileType::RuntimeDefault)),
        }),
        sysctls,
    }
}

/// Where a pod's containers are counted, in every tree of control groups.
pub fn cgroup(pod: &PodRef) -> String {
    format!("/kubepods/pod{}", pod.uid)
}

/// A profile without a file.
pub fn profile(kind: ProfileType) -> proto::SecurityProfile {
    proto::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() }
}

/// Which namespaces are the host's, the pod's, or each container's.
pub fn namespaces(spec: &PodSpec) -> proto::NamespaceOption {
    let of = |host: Option<bool>, otherwise: NamespaceMode| match host {
        Some(true) => NamespaceMode::Node.into(),
        _ => otherwise.into(),
    };
    let shared = spec.share_process_namespace == Some(true);
    proto::NamespaceOption {
        network: of(spec.host_network, NamespaceMode::Pod),
        pid: of(spec.host_pid, if shared { NamespaceMode::Pod } else { NamespaceMode::Container }),
        ipc: of(spec.host_ipc, NamespaceMode::Pod),
        target_id: String::new(),
    }
}

/// The ports of the host that lead to the pod; the runtime's network plugins open them.
fn ports(spec: &PodSpec) -> Vec<proto::PortMapping> {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = all.flat_map(|container| container.ports.iter().flatten());
    let mapping = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        Some(proto::PortMapping {
            protocol: protocol.into(),
            container_port: port.container_port,
            host_port: port.host_port.filter(|port| *port > 0)?,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    };
    ports.filter_map(mapping).collect()
}

/// The same resolver as in `resolv.conf`, in the runtime's words.
fn dns(resolv_conf: &str) -> proto::DnsConfig {
    let values = |keyword: &str| -> Vec<String> {
        let lines = resolv_conf.lines().map(str::split_whitespace);
        lines
            .filter_map(|mut words| (words.next() == Some(keyword)).then_some(words))
            .flatten()
            .map(str::to_owned)
            .collect()
    };
    proto::DnsConfig { servers: values("nameserver"), searches: values("search"), options: values("options") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::sandbox::{HostFiles, sandbox};

    fn of(spec: &str) -> proto::PodSandboxConfig {
        let text = format!(
            "{{metadata: {{name: web, namespace: shop, uid: u, labels: {{app: web}}, annotations: {{a: b}}}}, spec: {spec}}}"
        );
        let pod: Pod = serde_yaml::from_str(&text).expect("a pod");
        let host = HostFiles {
            resolv_conf: "nameserver 10.0.0.1\nsearch corp a\noptions ndots:2\n".to_owned(),
            ..HostFiles::default()
        };
        order(&sandbox(&pod, &host, "", None).expect("a name"), "me", Path::new("/logs"), 1)
    }

    #[test]
    fn a_pod_is_found_by_its_labels_and_asks_the_nodes_resolver() {
        let order = of("{containers: [{name: a}]}");
        let labels: Vec<_> = order.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            labels,
            [
                "amoeba.dev/agent=me",
                "app=web",
                "io.kubernetes.pod.name=web",
                "io.kubernetes.pod.namespace=shop",
                "io.kubernetes.pod.uid=u"
            ]
        );
        let dns = order.dns_config.expect("a resolver");
        assert_eq!((dns.servers.join(" "), dns.searches.join(" ")), ("10.0.0.1".into(), "corp a".into()));
        assert_eq!((dns.options.join(" "), order.hostname.as_str()), ("ndots:2".into(), "web"));
        assert_eq!(order.annotations["a"], "b");
        assert_eq!(order.metadata.expect("metadata").attempt, 1);
    }

    #[test]
    fn namespaces_and_ports_are_as_the_pod_has_them() {
        let shown = |spec: &str| {
            let order = of(spec);
            let linux = order.linux.expect("linux");
            let context = linux.security_context.expect("a context");
            let options = context.namespace_options.expect("namespaces");
            let ports: Vec<_> = order.port_mappings.iter().map(|p| (p.host_port, p.container_port)).collect();
            (options.network(), options.pid(), options.ipc(), context.privileged, ports)
        };
        use NamespaceMode::{Container, Node, Pod};
        let ports = "ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]";
        assert_eq!(
            shown(&format!("{{containers: [{{name: a, {ports}}}]}}")),
            (Pod, Container, Pod, false, vec![(8080, 80)])
        );
        assert_eq!(
            shown(&format!(
                "{{hostNetwork: true, hostPID: true, hostIPC: true, containers: [{{name: a, {ports}}}]}}"
            )),
            (Node, Node, Node, false, vec![])
        );
        assert_eq!(
            shown(
                "{shareProcessNamespace: true, containers: [{name: a, securityContext: {privileged: true}}]}"
            ),
            (Pod, Pod, Pod, true, vec![])
        );
    }
}
