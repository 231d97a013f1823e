//! Nodes, with the pods on them.

use api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use super::Related;
use super::sheet::{Sheet, items, plain, time};

/// A node, its lease and its pods.
pub fn describe(sheet: &mut Sheet, node: &Value, related: &Related, now: Timestamp) {
    let (spec, status) = (&node["spec"], &node["status"]);
    sheet.line("Name", api::object::name(node));
    sheet.line("Roles", roles(node));
    sheet.labels(node);
    sheet.line("CreationTimestamp", time(&node["metadata"]["creationTimestamp"]));
    sheet.lines("Taints", &items(&spec["taints"]).iter().map(taint).collect::<Vec<_>>());
    sheet.line("Unschedulable", (spec["unschedulable"] == true).to_string());
    lease(sheet, related.lease.as_ref());
    sheet.conditions(
        &status["conditions"],
        &[
            ("Type", "type"),
            ("Status", "status"),
            ("LastHeartbeatTime", "lastHeartbeatTime"),
            ("LastTransitionTime", "lastTransitionTime"),
            ("Reason", "reason"),
            ("Message", "message"),
        ],
    );
    pairs(
        sheet,
        "Addresses",
        items(&status["addresses"]).iter().map(|a| (plain(&a["type"]), plain(&a["address"]))),
    );
    quantities(sheet, "Capacity", &status["capacity"]);
    quantities(sheet, "Allocatable", &status["allocatable"]);
    system(sheet, &status["nodeInfo"]);
    pods(sheet, &related.children, now);
    allocated(sheet, &status["allocatable"], &related.children);
}

fn roles(node: &Value) -> String {
    let labels = api::object::labels(node);
    let roles: Vec<String> = labels
        .keys()
        .filter_map(|key| key.strip_prefix("node-role.kubernetes.io/").map(str::to_owned))
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn taint(taint: &Value) -> String {
    match taint["value"].as_str() {
        Some(value) if !value.is_empty() => {
            format!("{}={value}:{}", plain(&taint["key"]), plain(&taint["effect"]))
        }
        _ => format!("{}:{}", plain(&taint["key"]), plain(&taint["effect"])),
    }
}

fn lease(sheet: &mut Sheet, lease: Option<&Value>) {
    sheet.title("Lease");
    let spec = lease.map_or(&Value::Null, |lease| &lease["spec"]);
    sheet.deeper(|sheet| {
        let or_unset = |value: &Value| if value.is_null() { "<unset>".to_owned() } else { time(value) };
        sheet.line("HolderIdentity", or_unset(&spec["holderIdentity"]));
        sheet.line("AcquireTime", or_unset(&spec["acquireTime"]));
        sheet.line("RenewTime", or_unset(&spec["renewTime"]));
    });
}

fn pairs(sheet: &mut Sheet, name: &str, pairs: impl Iterator<Item = (String, String)>) {
    sheet.title(name);
    sheet.deeper(|sheet| pairs.for_each(|(key, value)| sheet.line(&key, value)));
}

fn quantities(sheet: &mut Sheet, name: &str, quantities: &Value) {
    let list = quantities.as_object().into_iter().flatten();
    pairs(sheet, name, list.map(|(key, value)| (key.clone(), plain(value))));
}

fn system(sheet: &mut Sheet, info: &Value) {
    const FIELDS: [(&str, &str); 10] = [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ];
    pairs(
        sheet,
        "System Info",
        FIELDS.into_iter().map(|(title, field)| (title.to_owned(), plain(&info[field]))),
    );
}

fn is_live(pod: &&Value) -> bool {
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn pods(sheet: &mut Sheet, pods: &[Value], now: Timestamp) {
    let live: Vec<&Value> = pods.iter().filter(is_live).collect();
    sheet.line("Non-terminated Pods", format!("({} in total)", live.len()));
    if live.is_empty() {
        return;
    }
    sheet.row(&["Namespace", "Name", "CPU Requests", "Memory Requests", "Age"]);
    sheet.row(&["---------", "----", "------------", "---------------", "---"]);
    for pod in live {
        let age =
            api::object::creation_timestamp(pod).map_or_else(String::new, |time| api::time::age(time, now));
        let (cpu, memory) = (requested(pod, "cpu"), requested(pod, "memory"));
        sheet.row(&[
            api::object::namespace(pod),
            api::object::name(pod),
            &cpu.to_string(),
            &memory.to_string(),
            &age,
        ]);
    }
}

/// What the containers of a pod ask for together. Init containers run before the others and are left out,
/// as kubectl's table is about what a pod holds while it runs.
fn requested(pod: &Value, resource: &str) -> Quantity {
    let containers = items(&pod["spec"]["containers"]).iter();
    let amounts = containers.filter_map(|container| {
        let text = plain(&container["resources"]["requests"][resource]);
        Quantity::parse(&text).ok()
    });
    amounts.fold(Quantity::from_milli(0), |sum, amount| if sum.is_zero() { amount } else { sum.add(&amount) })
}

fn allocated(sheet: &mut Sheet, allocatable: &Value, pods: &[Value]) {
    sheet.title("Allocated resources");
    sheet.row(&["Resource", "Requests"]);
    sheet.row(&["--------", "--------"]);
    for resource in ["cpu", "memory"] {
        let zero = Quantity::from_milli(0);
        let sum = pods.iter().filter(is_live).fold(zero, |sum, pod| {
            let amount = requested(pod, resource);
            if sum.is_zero() { amount } else { sum.add(&amount) }
        });
        let whole = Quantity::parse(&plain(&allocatable[resource])).map_or(0, |whole| whole.as_milli());
        let percent = if whole == 0 { 0 } else { sum.as_milli() * 100 / whole };
        sheet.row(&[resource, &format!("{sum} ({percent}%)")]);
    }
}
