//! What a Service's new state takes over from the old one, and what goes with a change of its type.
//!
//! Upstream's `patchAllocatedValues` and `dropTypeDependentFields`: clients that send a Service without what
//! was allocated for it keep it, and clients that change its type needn't clear what only the old type had.

use api::status::FieldError;
use serde_json::{Value, json};

use super::claims::Claims;

/// The one family of addresses that Services have here.
const FAMILY: &str = "IPv4";

/// Completes the new state from the old one (null if the Service is new).
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    if !old.is_null() {
        patch(new, old);
        drop_dependent(new, old);
    }
    normalize(new);
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || *value == "" || *value == 0 || value.as_array().is_some_and(Vec::is_empty)
}

fn patch(new: &mut Value, old: &Value) {
    let addressed = |service: &Value| service["spec"]["type"] != "ExternalName";
    if addressed(old) && addressed(new) && is_unset(&new["spec"]["clusterIP"]) {
        for field in ["clusterIP", "clusterIPs"] {
            if is_unset(&new["spec"][field]) && !old["spec"][field].is_null() {
                new["spec"][field] = old["spec"][field].clone();
            }
        }
    }
    if Claims::wants_node_ports(old) && Claims::wants_node_ports(new) {
        let had = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
        for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
            let same = had
                .iter()
                .find(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]);
            if let Some(same) =
                same.filter(|same| is_unset(&port["nodePort"]) && !is_unset(&same["nodePort"]))
            {
                port["nodePort"] = same["nodePort"].clone();
            }
        }
    }
    if Claims::wants_health_check(old)
        && Claims::wants_health_check(new)
        && is_unset(&new["spec"]["healthCheckNodePort"])
    {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
}

/// Fields that the old type had, the new one hasn't, and the client didn't touch.
fn drop_dependent(new: &mut Value, old: &Value) {
    let external = |service: &Value| service["spec"]["type"] == "ExternalName";
    if external(new) && !external(old) {
        drop_same(
            new,
            old,
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"],
        );
    }
    if Claims::wants_node_ports(old)
        && !Claims::wants_node_ports(new)
        && new["spec"]["type"] != "LoadBalancer"
    {
        let had = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
        for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
            if had.iter().any(|other| other["nodePort"] == port["nodePort"])
                && let Some(port) = port.as_object_mut()
            {
                port.remove("nodePort");
            }
        }
    }
    if Claims::wants_health_check(old) && !Claims::wants_health_check(new) {
        drop_same(new, old, &["healthCheckNodePort"]);
    }
    if old["spec"]["type"] == "LoadBalancer" && new["spec"]["type"] != "LoadBalancer" {
        drop_same(new, old, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    let exposed =
        |service: &Value| matches!(service["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    let outside = |service: &Value| exposed(service) || !is_unset(&service["spec"]["externalIPs"]);
    if outside(old) && !outside(new) {
        drop_same(new, old, &["externalTrafficPolicy"]);
    }
}

fn drop_same(new: &mut Value, old: &Value, fields: &[&str]) {
    let same = |field: &&&str| new["spec"][**field] == old["spec"][**field];
    let fields: Vec<&&str> = fields.iter().filter(same).collect();
    if let Some(spec) = new["spec"].as_object_mut() {
        fields.into_iter().for_each(|field| {
            spec.remove(*field);
        });
    }
}

/// `clusterIP` is the first of `clusterIPs`; who sets one gets the other.
fn normalize(service: &mut Value) {
    let (one, list) = (service["spec"]["clusterIP"].clone(), service["spec"]["clusterIPs"].clone());
    if !is_unset(&one) && is_unset(&list) {
        service["spec"]["clusterIPs"] = json!([one]);
    } else if is_unset(&one) && !is_unset(&list) {
        service["spec"]["clusterIP"] = list[0].clone();
    }
}

/// This cluster's Services have one family of addresses.
///
/// # Errors
/// If a Service asks for another, or for two.
pub(super) fn check_families(service: &Value) -> Result<(), FieldError> {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Ok(());
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        return Err(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", why));
    }
    let families = spec["ipFamilies"].as_array().map(Vec::as_slice).unwrap_or_default();
    match families.iter().position(|family| family != FAMILY) {
        Some(index) => {
            let path = format!("spec.ipFamilies[{index}]");
            Err(FieldError::invalid(path, families[index].clone(), "not configured on this cluster"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        json!({"spec": spec})
    }

    #[test]
    fn what_was_allocated_is_kept() {
        let ports = |node: Value| json!([{"port": 80, "protocol": "TCP", "nodePort": node}]);
        let old = service(
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": ports(json!(30001))}),
        );
        let mut new = service(json!({"type": "NodePort", "ports": ports(json!(0))}));
        carry_over(&mut new, &old);
        assert_eq!(new, old);
        let mut inside = old.clone();
        inside["spec"]["type"] = json!("ClusterIP");
        carry_over(&mut inside, &old);
        assert_eq!(inside["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    }

    #[test]
    fn an_external_name_has_no_address() {
        let old = service(
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}),
        );
        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        carry_over(&mut new, &old);
        assert_eq!(new, service(json!({"type": "ExternalName"})));
    }

    #[test]
    fn one_family() {
        for (spec, path) in [
            (json!({"ipFamilyPolicy": "RequireDualStack"}), "spec.ipFamilyPolicy"),
            (json!({"ipFamilies": ["IPv4", "IPv6"]}), "spec.ipFamilies[1]"),
        ] {
            assert_eq!(check_families(&service(spec)).expect_err("refused").path, path);
        }
        assert_eq!(
            check_families(&service(json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"]}))),
            Ok(())
        );
    }
}
