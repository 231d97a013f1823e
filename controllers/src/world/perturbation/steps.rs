//! The steps of stories about workloads and volumes.

use crate::world::{World, object_key, objects::words, text};
use serde_json::{Value, json};

pub fn cluster(world: &mut World) {
    for node in ["n1", "n2"] {
        world.make("node", node, &words(&[]));
        world.make("lease", node, &words(&[]));
    }
    world.make("namespace", "default", &words(&[]));
}

pub fn live(world: &mut World) {
    world.pass(1);
    world.schedule();
    world.kubelets(&[]);
}

pub fn later(world: &mut World) {
    world.pass(15);
    world.kubelets(&[]);
}

pub fn minutes(world: &mut World) {
    world.pass(65);
    world.kubelets(&[]);
}

pub fn work(world: &mut World) {
    world.finish_jobs(|_| true);
}

pub fn work_badly(world: &mut World) {
    world.finish_jobs(|pod| {
        text(pod, "/metadata/annotations/batch.kubernetes.io~1job-completion-index") != "1"
    });
}

pub fn job(world: &mut World) {
    world.make("job", "work", &words(&["completions=3", "parallelism=2", "app=work"]));
}

pub fn indexed_job(world: &mut World) {
    let spec = ["completions=3", "parallelism=3", "indexed", "per-index=2", "app=index"];
    world.make("job", "index", &words(&spec));
}

fn spec(world: &mut World, plural: &str, name: &str, spec: Value) {
    world.edit(plural, &object_key(&format!("default/{name}")), &json!({ "spec": spec }));
}

pub fn suspend(world: &mut World) {
    spec(world, "jobs", "work", json!({"suspend": true}));
}

pub fn resume(world: &mut World) {
    spec(world, "jobs", "work", json!({"suspend": false}));
}

pub fn delete_job(world: &mut World) {
    world.server.delete(&("jobs".to_owned(), object_key("default/work")), None, None);
}

fn image(name: &str) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "c", "image": name}]}}})
}

pub fn stateful_set(world: &mut World) {
    world.make("statefulset", "db", &words(&["replicas=3", "app=db"]));
}

pub fn new_image(world: &mut World) {
    spec(world, "statefulsets", "db", image("b"));
}

pub fn shrink(world: &mut World) {
    spec(world, "statefulsets", "db", json!({"replicas": 1}));
}

pub fn claiming_set(world: &mut World) {
    let claims = json!({"spec": {
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}});
    world.make_with("statefulset", "db", &words(&["replicas=2", "parallel", "app=db"]), &claims);
}

pub fn shrink_claiming(world: &mut World) {
    spec(world, "statefulsets", "db", json!({"replicas": 1}));
}

pub fn daemon_set(world: &mut World) {
    world.make("daemonset", "log", &words(&["app=log"]));
}

pub fn new_daemon_image(world: &mut World) {
    spec(world, "daemonsets", "log", image("b"));
}

pub fn cron_job(world: &mut World) {
    world.make("cronjob", "tick", &words(&["every=1", "app=tick", "policy=Forbid"]));
}

pub fn replication_controller(world: &mut World) {
    world.make("rc", "old", &words(&["replicas=3", "app=old"]));
}

pub fn lose_a_pod(world: &mut World) {
    let pod = world.keys("podgc").into_iter().next().expect("a pod");
    world.server.delete(&("pods".to_owned(), object_key(&pod)), None, None);
}

pub fn service(world: &mut World) {
    world.make("service", "web", &words(&[]));
}

pub fn pods_with_addresses(world: &mut World) {
    for number in 1..=3 {
        let status = json!({"status": {"podIP": format!("10.0.0.{number}")}});
        world.make_with("pod", &format!("p{number}"), &words(&["node=n1", "ready"]), &status);
    }
}

pub fn lose_p1(world: &mut World) {
    world.server.delete(&("pods".to_owned(), object_key("default/p1")), None, None);
}

pub fn deployment_and_budget(world: &mut World) {
    world.make("deployment", "web", &words(&["replicas=3", "image=a"]));
    world.make("budget", "web", &words(&["max=1"]));
}

pub fn roll_deployment(world: &mut World) {
    spec(world, "deployments", "web", image("b"));
}

pub fn volumes(world: &mut World) {
    world.make("volume", "small", &words(&["size=1Gi"]));
    world.make("volume", "large", &words(&["size=10Gi"]));
}

pub fn claims(world: &mut World) {
    world.make("claim", "data", &words(&["size=5Gi"]));
    world.make("claim", "more", &words(&["size=20Gi"]));
}

pub fn delete_claim(world: &mut World) {
    world.server.delete(&("persistentvolumeclaims".to_owned(), object_key("default/data")), None, None);
}

pub fn late_volume(world: &mut World) {
    world.make("volume", "huge", &words(&["size=30Gi"]));
}

pub fn waiting_claim(world: &mut World) {
    world.make("class", "local", &words(&["waits"]));
    world.make("claim", "cache", &words(&["uid=u-cache", "size=1Gi", "class=local"]));
}

pub fn select_node(world: &mut World) {
    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    world.edit("persistentvolumeclaims", &object_key("default/cache"), &chosen);
}

pub fn delete_cache(world: &mut World) {
    world.server.delete(&("persistentvolumeclaims".to_owned(), object_key("default/cache")), None, None);
}

pub fn removed(world: &mut World) {
    world.end(&object_key("kube-system/remove-pvc-u-cache"), "Succeeded", 0);
}

pub fn ephemeral_pod(world: &mut World) {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"]}});
    let volume = json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}});
    world.make_with("pod", "p", &words(&[]), &json!({"spec": {"volumes": [volume]}}));
}

pub fn lose_ephemeral_claim(world: &mut World) {
    let claim = object_key("default/p-scratch");
    world.server.delete(&("persistentvolumeclaims".to_owned(), claim), None, None);
}

pub fn rights(world: &mut World) {
    let rule = |resource: &str| json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]);
    let selectors = json!([{"matchLabels": {"to": "all"}}]);
    let sum = json!({"aggregationRule": {"clusterRoleSelectors": selectors}});
    world.make_with("clusterrole", "all", &words(&[]), &sum);
    for (name, resource) in [("a", "pods"), ("b", "services")] {
        let part = json!({"metadata": {"labels": {"to": "all"}}, "rules": rule(resource)});
        world.make_with("clusterrole", name, &words(&[]), &part);
    }
    world.make("account", "builder", &words(&["uid=u-b"]));
    let names =
        json!({"kubernetes.io/service-account.name": "builder", "kubernetes.io/service-account.uid": "u-b"});
    let token = json!({"type": "kubernetes.io/service-account-token", "metadata": {"annotations": names}});
    world.make_with("secret", "token", &words(&[]), &token);
}

pub fn end_account_and_role(world: &mut World) {
    world.server.delete(&("serviceaccounts".to_owned(), object_key("default/builder")), None, None);
    world.server.delete(&("clusterroles".to_owned(), object_key("a")), None, None);
}
