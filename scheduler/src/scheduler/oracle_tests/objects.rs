//! The API objects that the models stand for, as the scheduler reads them.

use super::model::{Company, ModelBudget, ModelNode, ModelPod, ModelSpread, Whose, namespace_name};
use crate::budget::Budget;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use serde_json::{Value, json};

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn node_object(name: u8, node: &ModelNode) -> NodeInfo {
    let mut labels = json!({"kubernetes.io/hostname": format!("n{name}"), "disk": node.disk.to_string()});
    if let Some(zone) = node.zone {
        labels["zone"] = json!(zone.to_string());
        labels["topology.kubernetes.io/zone"] = json!(zone.to_string());
    }
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let taint = |(value, effect): (u8, u8)| json!({"key": "t", "value": value.to_string(), "effect": effects[usize::from(effect)]});
    let image = |(number, size): (&u8, &i64)| json!({"names": [format!("r:1/i{number}:latest")], "sizeBytes": size << 20});
    let object = json!({
        "metadata": {"name": format!("n{name}"), "labels": labels},
        "spec": {"unschedulable": node.cordoned, "taints": node.taint.map(taint).into_iter().collect::<Vec<_>>()},
        "status": {
            "allocatable": {
                "cpu": format!("{}m", node.cpu), "memory": "64Gi", "example.com/gpu": node.gpu.to_string(),
                "pods": node.pods.to_string(),
            },
            "images": node.images.iter().map(image).collect::<Vec<_>>(),
        },
    });
    NodeInfo::of(&serde_json::from_value(object).expect("a node"))
}

pub(super) fn pod_object(name: u8, incarnation: u64, pod: &ModelPod, node: Option<u8>) -> PodInfo {
    let mut spec = json!({
        "priority": pod.priority,
        "containers": [{"name": "c", "image": format!("r:1/i{}", pod.images[0]), "resources": {"requests": {
            "cpu": format!("{}m", pod.cpu), "example.com/gpu": pod.gpu.to_string(),
        }}}],
    });
    let more = pod.images.iter().skip(1);
    let nothing = json!({"requests": {"cpu": "0", "memory": "0"}});
    spec["initContainers"] = more
        .map(|image| json!({"name": "i", "image": format!("r:1/i{image}:latest"), "resources": nothing}))
        .collect();
    if let Some(disk) = pod.disk {
        spec["nodeSelector"] = json!({"disk": disk.to_string()});
    }
    if let Some((is_in, zones)) = &pod.zones {
        let zones: Vec<String> = zones.iter().map(u8::to_string).collect();
        let operator = if *is_in { "In" } else { "NotIn" };
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": operator, "values": zones}]}],
        });
    }
    if pod.overhead > 0 {
        spec["overhead"] = json!({"cpu": format!("{}m", pod.overhead)});
    }
    if let Some((weight, zone)) = pod.wishes.zone {
        let term =
            json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone.to_string()]}]});
        spec["affinity"]["nodeAffinity"][PREFERRED] = json!([{"weight": weight, "preference": term}]);
    }
    if let Some((weight, company)) = &pod.wishes.company {
        let kind = if *weight > 0 { "podAffinity" } else { "podAntiAffinity" };
        let term = company_object(company);
        spec["affinity"][kind][PREFERRED] = json!([{"weight": weight.abs(), "podAffinityTerm": term}]);
    }
    if let Some(value) = pod.tolerates {
        let all = json!({"operator": "Exists"});
        let one = json!({"key": "t", "value": value.to_string()});
        spec["tolerations"] = json!([if value == 9 { all } else { one }]);
    }
    if let Some((address, udp, port)) = pod.port {
        let address = if address == 0 { String::new() } else { format!("127.0.0.{address}") };
        spec["containers"][0]["ports"] = json!([{
            "containerPort": 1, "hostPort": port, "hostIP": address, "protocol": if udp { "UDP" } else { "TCP" },
        }]);
    }
    if let Some(rule) = &pod.spread {
        spec["topologySpreadConstraints"] = json!([spread_object(rule)]);
    }
    for (kind, rule) in [("podAffinity", pod.near), ("podAntiAffinity", pod.apart)] {
        if let Some(company) = rule {
            let term = company_object(&company);
            spec["affinity"][kind]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term]);
        }
    }
    let claim = |name: &u8| json!({"name": format!("c{name}"), "persistentVolumeClaim": {"claimName": format!("c{name}")}});
    spec["volumes"] = pod.claims.iter().map(claim).collect();
    if let Some(node) = node {
        spec["nodeName"] = json!(format!("n{node}"));
    }
    let metadata = json!({
        "name": format!("p{name}"), "namespace": namespace_name(pod.namespace), "uid": format!("p{name}-{incarnation}"),
        "labels": {"app": pod.app.to_string()},
    });
    PodInfo::of(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod"))
}

pub(super) fn budget_object(name: u8, budget: ModelBudget) -> Budget {
    let object = json!({
        "metadata": {"name": format!("b{name}"), "namespace": namespace_name(0)},
        "spec": {"selector": {"matchLabels": {"app": budget.app.to_string()}}},
        "status": {
            "disruptionsAllowed": budget.allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
        },
    });
    Budget::of(&serde_json::from_value(object).expect("a budget"))
}

fn company_object(Company { by_zone, app, of }: &Company) -> Value {
    let mut term = json!({
        "topologyKey": topology_key(*by_zone), "labelSelector": {"matchLabels": {"app": app.to_string()}},
    });
    let team = |team: &u8| json!({"matchLabels": {"team": team.to_string()}});
    match of {
        Whose::Own => {}
        Whose::All => term["namespaceSelector"] = json!({}),
        Whose::Named(name) => term["namespaces"] = json!([namespace_name(*name)]),
        Whose::Team(value) => term["namespaceSelector"] = team(value),
        Whose::NamedOrTeam(name, value) => {
            term["namespaces"] = json!([namespace_name(*name)]);
            term["namespaceSelector"] = team(value);
        }
    }
    term
}

fn topology_key(by_zone: bool) -> &'static str {
    if by_zone { "zone" } else { "kubernetes.io/hostname" }
}

fn spread_object(rule: &ModelSpread) -> Value {
    let policy = |honor: bool| if honor { "Honor" } else { "Ignore" };
    json!({
        "topologyKey": topology_key(rule.by_zone),
        "maxSkew": rule.skew, "minDomains": rule.min_domains, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": rule.app.to_string()}},
        "nodeAffinityPolicy": policy(rule.honor_affinity), "nodeTaintsPolicy": policy(rule.honor_taints),
    })
}
