//! Unmodified kubectl, each version that is there, does to a cluster what a Kubernetes user expects.

use e2e::{Cluster, eventually, kubectls, manifest, wait_for_line};

#[test]
fn a_deployments_life_with_each_kubectl() {
    let mut cluster = Cluster::up(1, 2);
    for kubectl in kubectls() {
        eprintln!("with {}", kubectl.display());
        cluster.use_kubectl(&kubectl);
        let web = format!("-f {}", manifest("web.yaml"));
        created_and_rolled_out(&cluster, &web);
        shown(&cluster);
        logged(&cluster);
        scaled_under_watch(&cluster);
        changed_and_undone(&cluster);
        labelled(&cluster);
        deleted(&cluster, &web);
    }
}

fn created_and_rolled_out(cluster: &Cluster, web: &str) {
    assert_eq!(cluster.k(&format!("apply {web}")), "deployment.apps/web created\n");
    let status = cluster.k("rollout status deployment/web --timeout=60s");
    assert!(status.contains("deployment \"web\" successfully rolled out"), "{status}");
    assert_eq!(cluster.k(&format!("apply {web}")), "deployment.apps/web unchanged\n");
    cluster.ready_pods("app=web", 6);
}

fn shown(cluster: &Cluster) {
    let deployment = cluster.k("get deployment web");
    let row = deployment.lines().nth(1).expect("one row").split_whitespace().take(4).collect::<Vec<_>>();
    assert_eq!(row, ["web", "6/6", "6", "6"], "{deployment}");
    let wide = cluster.k("get pods -l app=web -o wide");
    assert_eq!(wide.lines().count(), 7, "{wide}");
    assert!(wide.lines().next().is_some_and(|header| header.contains("NOMINATED NODE")), "{wide}");
    let described = cluster.k("describe deployment web");
    assert!(
        described.contains("6 desired | 6 updated | 6 total | 6 available | 0 unavailable"),
        "{described}"
    );
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    let pod = cluster.k("get pods -l app=web -o name").lines().next().expect("a pod").to_owned();
    let described = cluster.k(&format!("describe {pod}"));
    for word in ["Successfully assigned default/web-", "Started", "Restart Count:  0"] {
        assert!(described.contains(word), "no `{word}` in\n{described}");
    }
}

fn logged(cluster: &Cluster) {
    let pod = cluster.k("get pods -l app=web -o name").lines().next().expect("a pod").to_owned();
    let (_following, lines) = cluster.follow(&format!("logs -f {pod}"));
    wait_for_line(&lines, "started on ");
}

fn scaled_under_watch(cluster: &Cluster) {
    assert_eq!(cluster.k("scale deployment/web --replicas=2"), "deployment.apps/web scaled\n");
    let before: Vec<_> =
        cluster.ready_pods("app=web", 2).iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    let (_following, lines) = cluster.follow("get pods -l app=web -w");
    wait_for_line(&lines, "NAME");
    cluster.k("scale deployment/web --replicas=3");
    let pods = cluster.ready_pods("app=web", 3);
    let new = pods
        .iter()
        .map(|pod| &pod["metadata"]["name"])
        .find(|name| !before.contains(name))
        .expect("a new pod");
    let new = new.as_str().expect("a name");
    let running = wait_for_line(&lines, "Running");
    let all = std::iter::once(running).chain(std::iter::repeat_with(|| wait_for_line(&lines, "Running")));
    assert!(all.take(9).any(|line| line.starts_with(new)), "the watch never showed {new} Running");
}

fn changed_and_undone(cluster: &Cluster) {
    let value =
        "get deployment web -o jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"COLOUR\")].value}";
    cluster.k("set env deployment/web COLOUR=blue");
    cluster.k("rollout status deployment/web --timeout=60s");
    assert_eq!(cluster.k(value), "blue");
    let container = cluster.k("get deployment web -o jsonpath={.spec.template.spec.containers[0].name}");
    cluster.k(&format!("set image deployment/web {container}=another:2"));
    cluster.k("rollout status deployment/web --timeout=60s");
    eventually("only pods of the new image", || {
        let images = cluster.k("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}");
        images.split(' ').all(|image| image == "another:2").then_some(())
    });
    assert!(cluster.k("rollout undo deployment/web").contains("rolled back"));
    cluster.k("rollout status deployment/web --timeout=60s");
    let image = cluster.k("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
    assert_ne!(image, "another:2");
    assert_eq!(cluster.k(value), "blue", "undo goes back one revision, not two");
    let history = cluster.k("rollout history deployment/web");
    assert!(
        history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() >= 3,
        "{history}"
    );
}

fn labelled(cluster: &Cluster) {
    assert_eq!(cluster.k("label deployment web tier=front"), "deployment.apps/web labeled\n");
    assert_eq!(cluster.k("get deployment -l tier=front -o name"), "deployment.apps/web\n");
    cluster.k("label deployment web tier-");
    assert_eq!(cluster.k("get deployment -l tier=front -o name"), "");
}

fn deleted(cluster: &Cluster, web: &str) {
    assert!(cluster.k(&format!("delete {web}")).starts_with("deployment.apps \"web\" deleted"));
    eventually("no ReplicaSet and no pod is left", || {
        cluster.k("get replicasets,pods -l app=web -o name").is_empty().then_some(())
    });
}
