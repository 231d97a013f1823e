//! The objects of the measurements.

use serde_json::{Value, json};

/// Path of the pods of a namespace.
pub fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// A pod that, once bound, doesn't start: what is measured is the way to its node.
pub fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}, "annotations": {"amoeba.dev/start-delay": "24h"}},
        "spec": {"containers": [container(cpu)], "terminationGracePeriodSeconds": 0},
    })
}

fn container(cpu: &str) -> Value {
    json!({
        "name": "c", "image": "registry.k8s.io/pause:3.10",
        "resources": {"requests": {"cpu": cpu, "memory": "100Mi"}},
    })
}

/// Apart from every other such pod of any namespace, by host.
pub fn apart(mut pod: Value) -> Value {
    pod["metadata"]["labels"]["color"] = json!("green");
    pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([{
        "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"color": "green"}},
        "namespaceSelector": {},
    }]);
    pod
}

/// Evenly over zones.
pub fn even(mut pod: Value) -> Value {
    pod["spec"]["topologySpreadConstraints"] = json!([{
        "topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "bench"}},
    }]);
    pod
}

/// A class above all that has none.
pub fn priority_class(name: &str) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000,
    })
}

/// A group of which so many pods start together.
pub fn gang(name: &str, size: usize) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup", "metadata": {"name": name},
        "spec": {"schedulingPolicy": {"gang": {"minCount": size}}},
    })
}

/// A group whose pods are scheduled one by one, but not before it is there.
pub fn group(name: &str) -> Value {
    let mut group = gang(name, 1);
    group["spec"]["schedulingPolicy"] = json!({"basic": {}});
    group
}

/// A Job of one pod, which ends as soon as it may.
pub fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {"annotations": {"amoeba.dev/run-time": "10ms"}},
            "spec": {"restartPolicy": "Never", "containers": [container("100m")]},
        }},
    })
}

/// A Deployment.
pub fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "containers": [container("10m")], "terminationGracePeriodSeconds": 0,
            }},
        },
    })
}
