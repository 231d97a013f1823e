//! What a Service holds, read from its specification.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

/// Addresses and node ports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: BTreeSet<u16>,
}

impl Claims {
    /// Those of a Service; nobody's, if it is null.
    pub(super) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let mut addresses: Vec<IpAddr> = Vec::new();
        if Self::wants_address(service) {
            let listed = spec["clusterIPs"].as_array().into_iter().flatten();
            let all = [&spec["clusterIP"]].into_iter().chain(listed).filter_map(Value::as_str);
            addresses.extend(all.filter_map(|text| text.parse::<IpAddr>().ok()));
            addresses.sort_unstable();
            addresses.dedup();
        }
        let numbers = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
        let numbers = numbers.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64);
        let ports = numbers.filter_map(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
        Self { addresses, ports: ports.collect() }
    }

    /// Whether it has a cluster IP or should: external names and headless services don't.
    pub(super) fn wants_address(service: &Value) -> bool {
        let spec = &service["spec"];
        matches!(spec["type"].as_str(), Some("ClusterIP" | "NodePort" | "LoadBalancer"))
            && spec["clusterIP"] != "None"
    }

    /// Whether each of its ports is open on every node.
    pub(super) fn wants_node_ports(service: &Value) -> bool {
        let spec = &service["spec"];
        match spec["type"].as_str() {
            Some("NodePort") => true,
            Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
            _ => false,
        }
    }

    /// Whether nodes are asked if they have endpoints of it.
    pub(super) fn wants_health_check(service: &Value) -> bool {
        let spec = &service["spec"];
        spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_holds_what_it_says() {
        let claims = |spec: Value| {
            let claims = Claims::of(&json!({"spec": spec}));
            (claims.addresses.len(), claims.ports.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(claims(Value::Null), (0, vec![]));
        assert_eq!(
            claims(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]})),
            (1, vec![])
        );
        assert_eq!(
            claims(json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]})),
            (0, vec![])
        );
        let ports = json!([{"nodePort": 30000, "protocol": "TCP"}, {"nodePort": 30000, "protocol": "UDP"}, {"nodePort": 70000}]);
        let spec = json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": ports, "healthCheckNodePort": 31000});
        assert_eq!(claims(spec), (1, vec![30000, 31000]));
    }
}
