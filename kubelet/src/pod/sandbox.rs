//! The files that every container of a pod has: who it is, who others are, and whom to ask.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod::PodRef;
use crate::pod::hostname::{DEFAULT_DOMAIN, hostname, own_names};
use crate::runtime::SandboxConfig;

/// What the host's own files say.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The host's name.
    pub hostname: String,
}

/// The cluster's own resolver.
#[derive(Clone, Debug)]
pub struct ClusterDns {
    /// Its address.
    pub server: String,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
}

/// What the pod's containers share. `ip` is the pod's address, `cluster` whom it asks for names unless its
/// policy says otherwise.
///
/// # Errors
/// What an event says: the pod can't be called as it asks.
pub fn sandbox(
    pod: &Pod,
    host: &HostFiles,
    ip: &str,
    cluster: Option<&ClusterDns>,
) -> Result<SandboxConfig, String> {
    let domain = cluster.map_or(DEFAULT_DOMAIN, |dns| &dns.domain);
    let spec = pod.spec.clone().unwrap_or_default();
    let containers = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    let on_host = spec.host_network == Some(true);
    Ok(SandboxConfig {
        object: Arc::new(pod.clone()),
        pod: PodRef::of(pod),
        shares_ipc: containers > 1 && spec.host_ipc != Some(true),
        hosts: hosts(pod, host, ip, domain),
        resolv_conf: resolv_conf(&resolvers(pod, host, cluster), spec.dns_config.as_ref()),
        hostname: if on_host { host.hostname.clone() } else { hostname(pod, domain)? } + "\n",
    })
}

fn hosts(pod: &Pod, host: &HostFiles, ip: &str, domain: &str) -> String {
    let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let mut text = if on_host {
        format!("# Kubernetes-managed hosts file (host network).\n{}", host.hosts)
    } else {
        let known = [
            ("127.0.0.1", "localhost"),
            ("::1", "localhost ip6-localhost ip6-loopback"),
            ("fe00::0", "ip6-localnet"),
            ("fe00::0", "ip6-mcastprefix"),
            ("fe00::1", "ip6-allnodes"),
            ("fe00::2", "ip6-allrouters"),
        ];
        let lines: String = known.iter().map(|(address, names)| format!("{address}\t{names}\n")).collect();
        format!("# Kubernetes-managed hosts file.\n{lines}{ip}\t{}\n", own_names(pod, domain))
    };
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// By the pod's `dnsPolicy`: the cluster's resolver, the host's, or none.
fn resolvers(pod: &Pod, host: &HostFiles, cluster: Option<&ClusterDns>) -> String {
    let spec = pod.spec.as_ref();
    let on_host = spec.is_some_and(|spec| spec.host_network == Some(true));
    match spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst") {
        "None" => String::new(),
        "Default" => host.resolv_conf.clone(),
        "ClusterFirst" if on_host => host.resolv_conf.clone(),
        _ => cluster.map_or_else(|| host.resolv_conf.clone(), |dns| of_cluster(pod, host, dns)),
    }
}

/// Short names are looked for in the pod's namespace, then in the cluster, then where the host looks.
fn of_cluster(pod: &Pod, host: &HostFiles, dns: &ClusterDns) -> String {
    let (namespace, domain) = (pod.metadata.namespace.as_deref().unwrap_or_default(), &dns.domain);
    let hosts = host.resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("search "));
    let further: String = hosts.flat_map(str::split_whitespace).map(|name| format!(" {name}")).collect();
    format!(
        "search {namespace}.svc.{domain} svc.{domain} {domain}{further}\n\
         nameserver {}\noptions ndots:5\n",
        dns.server
    )
}

/// The pod's own settings come on top.
fn resolv_conf(base: &str, config: Option<&PodDNSConfig>) -> String {
    let Some(config) = config else { return base.to_owned() };
    let values = |keyword: &str| -> Vec<String> {
        let lines = base.lines().filter_map(|line| line.trim().strip_prefix(keyword));
        lines
            .filter(|rest| rest.starts_with([' ', '\t']))
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    };
    let joined = |keyword: &str, own: &[String]| {
        let mut all = values(keyword);
        all.extend(own.iter().filter(|value| !all.contains(value)).cloned().collect::<Vec<_>>());
        all
    };
    let options: Vec<String> = config
        .options
        .iter()
        .flatten()
        .filter_map(|option| {
            let name = option.name.clone()?;
            Some(option.value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}")))
        })
        .collect();
    let mut text = String::new();
    let searches = joined("search", config.searches.as_deref().unwrap_or_default());
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in joined("nameserver", config.nameservers.as_deref().unwrap_or_default()) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let options = joined("options", &options);
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: &str) -> SandboxConfig {
        let text = format!("metadata: {{name: web-0, namespace: shop, uid: u}}\nspec: {spec}");
        let pod: Pod = serde_yaml::from_str(&text).expect("a pod");
        let host = HostFiles {
            hosts: "127.0.0.1 localhost\n".to_owned(),
            resolv_conf: "nameserver 10.0.0.1\nsearch corp\noptions ndots:2\n".to_owned(),
            hostname: "node-1".to_owned(),
        };
        sandbox(&pod, &host, "10.1.2.3", None).expect("a name")
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let text =
            of("{containers: [], subdomain: db, hostAliases: [{ip: 10.0.0.9, hostnames: [a, b]}]}").hosts;
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.contains("10.1.2.3\tweb-0.db.shop.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n10.0.0.9\ta\tb\n"), "{text}");
        let text = of("{containers: [], hostNetwork: true}").hosts;
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n");
    }

    #[test]
    fn resolvers_of_host_and_pod() {
        assert_eq!(of("{containers: []}").resolv_conf, "nameserver 10.0.0.1\nsearch corp\noptions ndots:2\n");
        let own =
            "dnsConfig: {nameservers: [1.1.1.1], searches: [x.y], options: [{name: ndots, value: '5'}]}";
        assert_eq!(
            of(&format!("{{containers: [], dnsPolicy: None, {own}}}")).resolv_conf,
            "search x.y\nnameserver 1.1.1.1\noptions ndots:5\n"
        );
        assert_eq!(
            of(&format!("{{containers: [], {own}}}")).resolv_conf,
            "search corp x.y\nnameserver 10.0.0.1\nnameserver 1.1.1.1\noptions ndots:2 ndots:5\n"
        );
    }

    #[test]
    fn what_is_shared_depends_on_the_containers() {
        assert!(!of("{containers: [{name: a}]}").shares_ipc);
        assert!(of("{containers: [{name: a}, {name: b}]}").shares_ipc);
        assert_eq!(of("{containers: [], hostname: own}").hostname, "own\n");
    }

    #[test]
    fn the_policy_chooses_the_resolver() {
        let dns = ClusterDns { server: "10.96.0.10".to_owned(), domain: "cluster.local".to_owned() };
        let host = HostFiles {
            resolv_conf: "search corp\nnameserver 10.0.0.1\n".to_owned(),
            ..HostFiles::default()
        };
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local corp\n\
                       nameserver 10.96.0.10\noptions ndots:5\n";
        let cases = [
            ("", cluster),
            ("dnsPolicy: ClusterFirst", cluster),
            ("dnsPolicy: ClusterFirst, hostNetwork: true", host.resolv_conf.as_str()),
            ("dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true", cluster),
            ("dnsPolicy: Default", host.resolv_conf.as_str()),
            ("dnsPolicy: None", ""),
        ];
        for (spec, expected) in cases {
            let text = format!("metadata: {{name: web-0, namespace: shop, uid: u}}\nspec: {{{spec}}}");
            let text = text.replace("spec: {", "spec: {containers: [], ").replace(", }", "}");
            let pod: Pod = serde_yaml::from_str(&text).expect("a pod");
            let made = sandbox(&pod, &host, "10.1.2.3", Some(&dns)).expect("a name");
            assert_eq!(made.resolv_conf, expected, "{spec}");
        }
    }
}
