//! What objects use, which of them a quota selects, and what is charged.

use super::*;

fn pod(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

fn shown(amounts: &Amounts) -> String {
    to_value(amounts).to_string().replace('"', "")
}

#[test]
fn what_objects_use() {
    let both = json!({"requests": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2"}, "limits": {"cpu": "2", "nvidia.com/gpu": "2"}});
    let mut ended = pod(both.clone());
    ended["status"] = json!({"phase": "Failed"});
    let ports = json!([{"port": 1}, {"port": 2}]);
    let cases = [
        (
            "",
            "pods",
            pod(both),
            "{count/pods:1,cpu:1,limits.cpu:2,memory:1Gi,pods:1,requests.cpu:1,requests.memory:1Gi,requests.nvidia.com/gpu:2}",
        ),
        ("", "pods", ended, "{count/pods:1}"),
        ("", "secrets", json!({}), "{count/secrets:1,secrets:1}"),
        ("apps", "deployments", json!({}), "{count/deployments.apps:1}"),
        (
            "",
            "services",
            json!({"spec": {"type": "NodePort", "ports": ports}}),
            "{count/services:1,services:1,services.loadbalancers:0,services.nodeports:2}",
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}}),
            "{count/services:1,services:1,services.loadbalancers:1,services.nodeports:0}",
        ),
        (
            "",
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}}),
            "{count/persistentvolumeclaims:1,fast.storageclass.storage.k8s.io/persistentvolumeclaims:1,fast.storageclass.storage.k8s.io/requests.storage:1Gi,persistentvolumeclaims:1,requests.storage:1Gi}",
        ),
    ];
    for (group, plural, object, expected) in cases {
        assert_eq!(shown(&usage(group, plural, &object)), expected);
    }
}

#[test]
fn scopes() {
    let quota = |scopes: Value, selector: Value| json!({"hard": {"pods": "1"}, "scopes": scopes, "scopeSelector": {"matchExpressions": selector}});
    let mut short = pod(json!({"requests": {"cpu": "1"}}));
    short["spec"]["activeDeadlineSeconds"] = json!(5);
    short["spec"]["priorityClassName"] = json!("high");
    let lazy = pod(json!({}));
    let class = |operator: &str, values: Value| json!([{"scopeName": "PriorityClass", "operator": operator, "values": values}]);
    let cases = [
        (quota(json!([]), json!([])), true, true),
        (quota(json!(["Terminating"]), json!([])), true, false),
        (quota(json!(["NotTerminating", "BestEffort"]), json!([])), false, true),
        (quota(json!(["NotBestEffort"]), json!([])), true, false),
        (quota(json!([]), class("In", json!(["high"]))), true, false),
        (quota(json!([]), class("NotIn", json!(["high"]))), false, true),
        (quota(json!([]), class("Exists", json!([]))), true, false),
        (quota(json!([]), class("DoesNotExist", json!([]))), false, true),
        (quota(json!(["CrossNamespacePodAffinity"]), json!([])), false, false),
    ];
    for (spec, of_short, of_lazy) in cases {
        assert_eq!(selects(&spec, "", "pods", &short), of_short, "{spec}");
        assert_eq!(selects(&spec, "", "pods", &lazy), of_lazy, "{spec}");
    }
    let scoped = json!({"hard": {"secrets": "1"}, "scopes": ["BestEffort"]});
    assert!(!selects(&scoped, "", "secrets", &json!({})));
}

#[test]
fn charging() {
    let quota = json!({
        "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "2", "cpu": "1"}},
        "status": {"hard": {"pods": "2", "cpu": "1"}, "used": {"pods": "1", "cpu": "600m"}},
    });
    let of = |cpu: &str| usage("", "pods", &pod(json!({"requests": {"cpu": cpu}})));
    assert_eq!(charge(&quota, &of("400m")), Ok(Some(json!({"pods": "2", "cpu": "1"}))));
    assert_eq!(
        charge(&quota, &of("500m")),
        Err("exceeded quota: q, requested: cpu=500m, used: cpu=600m, limited: cpu=1".to_owned())
    );
    assert_eq!(charge(&quota, &usage("", "secrets", &json!({}))), Ok(None));
    let mut fresh = quota.clone();
    fresh["status"] = json!({});
    assert_eq!(charge(&fresh, &of("1m")), Err("status unknown for quota: q, resources: cpu,pods".to_owned()));
    let less = difference(&Amounts::new(), &of("100m"));
    assert_eq!(charge(&quota, &less), Ok(Some(json!({"pods": "0", "cpu": "500m"}))));
}

#[test]
fn containers_state_what_is_limited() {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": "1", "memory": "1Gi", "pods": "1"}}});
    let why = complete(&quota, "", "pods", &pod(json!({"requests": {"cpu": "1"}}))).expect_err("incomplete");
    assert_eq!(why, "failed quota: q: must specify limits.cpu for: c; memory for: c");
    let full = pod(json!({"requests": {"memory": "1"}, "limits": {"cpu": "1"}}));
    assert_eq!(complete(&quota, "", "pods", &full), Ok(()));
}
