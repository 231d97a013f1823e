//! Variables that tell a container of the Services that were there when it began.
//!
//! Upstream's names and rules (`pkg/kubelet/envvars`): those of the pod's own namespace unless it says
//! `enableServiceLinks: false`, and `default/kubernetes` always, which client libraries look for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};

/// Where the Service stands that every container hears of.
pub const MASTER_NAMESPACE: &str = "default";
/// Its name.
pub const MASTER: &str = "kubernetes";

/// Whether the pod hears of the Services of its namespace.
pub fn wants_links(pod: &Pod) -> bool {
    pod.spec.as_ref().is_none_or(|spec| spec.enable_service_links != Some(false))
}

/// The variables of these Services; of two that would have one name the later one counts.
pub fn variables<'a>(services: impl IntoIterator<Item = &'a Service>) -> BTreeMap<String, String> {
    services.into_iter().flat_map(of_service).collect()
}

/// Those without an address, as headless ones, have none.
fn of_service(service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.clone().unwrap_or_default();
    let address = spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None");
    let address = address.filter(|_| spec.type_.as_deref() != Some("ExternalName"));
    let (Some(address), Some([first, ..])) = (address, spec.ports.as_deref()) else { return Vec::new() };
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let mut all = vec![
        (format!("{prefix}_SERVICE_HOST"), address.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
        (format!("{prefix}_PORT"), url(first, &address)),
    ];
    for port in spec.ports.iter().flatten() {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            all.push((format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string()));
        }
        all.extend(link(&prefix, port, &address));
    }
    all
}

/// As Docker told linked containers of one port.
fn link(prefix: &str, port: &ServicePort, address: &str) -> [(String, String); 4] {
    let prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol(port).to_uppercase());
    [
        (prefix.clone(), url(port, address)),
        (format!("{prefix}_PROTO"), protocol(port).to_lowercase()),
        (format!("{prefix}_PORT"), port.port.to_string()),
        (format!("{prefix}_ADDR"), address.to_owned()),
    ]
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn url(port: &ServicePort, address: &str) -> String {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("{}://{host}:{}", protocol(port).to_lowercase(), port.port)
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: &str) -> Vec<String> {
        let text = format!("{{metadata: {{name: redis-primary}}, spec: {spec}}}");
        let service: Service = serde_yaml::from_str(&text).expect("a Service");
        variables([&service]).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn a_service_is_told_of_as_upstream_tells() {
        let got = of(
            "{clusterIP: 10.0.0.11, ports: [{name: p-q, port: 6379}, {name: u, port: 53, protocol: UDP}]}",
        );
        let want = [
            "REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379",
            "REDIS_PRIMARY_PORT_53_UDP=udp://10.0.0.11:53",
            "REDIS_PRIMARY_PORT_53_UDP_ADDR=10.0.0.11",
            "REDIS_PRIMARY_PORT_53_UDP_PORT=53",
            "REDIS_PRIMARY_PORT_53_UDP_PROTO=udp",
            "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379",
            "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11",
            "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
            "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
            "REDIS_PRIMARY_SERVICE_HOST=10.0.0.11",
            "REDIS_PRIMARY_SERVICE_PORT=6379",
            "REDIS_PRIMARY_SERVICE_PORT_P_Q=6379",
            "REDIS_PRIMARY_SERVICE_PORT_U=53",
        ];
        assert_eq!(got, want);
        assert_eq!(
            of("{clusterIP: 'fd00::1', ports: [{port: 1}]}")[0],
            "REDIS_PRIMARY_PORT=tcp://[fd00::1]:1"
        );
    }

    #[test]
    fn what_has_no_address_is_not_told_of() {
        for spec in [
            "{clusterIP: None, ports: [{port: 1}]}",
            "{ports: [{port: 1}]}",
            "{type: ExternalName, externalName: a.b, clusterIP: 10.0.0.1, ports: [{port: 1}]}",
            "{clusterIP: 10.0.0.1}",
        ] {
            assert_eq!(of(spec), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn links_are_wanted_unless_refused() {
        let pod = |spec: &str| serde_yaml::from_str::<Pod>(&format!("{{spec: {spec}}}")).expect("a pod");
        assert!(wants_links(&pod("{containers: []}")));
        assert!(!wants_links(&pod("{containers: [], enableServiceLinks: false}")));
    }
}
