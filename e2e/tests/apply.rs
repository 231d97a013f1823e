//! Server-side apply, as kubectl and helm use it.

use std::process::Command;

use e2e::{Cluster, eventually, helm, manifest};

fn deployment(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: shared}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: shared}}}}\n  template:\n    metadata: {{labels: {{app: shared}}}}\n    \
         spec:\n      containers:\n      - {{name: c, image: i, command: [sleep, '3600']}}\n"
    )
}

#[test]
fn two_managers_share_an_object() {
    let cluster = Cluster::up(1, 1);
    let file = cluster.path().join("shared.yaml");
    let path = file.display();
    let write = |replicas| std::fs::write(&file, deployment(replicas)).expect("write the manifest");
    write(1);
    let applied = "deployment.apps/shared serverside-applied\n";
    assert_eq!(cluster.k(&format!("apply --server-side -f {path}")), applied);
    assert_eq!(cluster.k(&format!("apply --server-side --field-manager=twin -f {path}")), applied);
    write(2);
    let refused = cluster.k_fails(&format!("apply --server-side --field-manager=twin -f {path}"));
    assert!(refused.contains("conflict with \"kubectl\": .spec.replicas"), "{refused}");
    let forced = format!("apply --server-side --force-conflicts --field-manager=twin -f {path}");
    assert_eq!(cluster.k(&forced), applied);
    assert_eq!(cluster.k("get deployment shared -o jsonpath={.spec.replicas}"), "2");
    cluster.ready_pods("app=shared", 2);
    let managers = cluster.k("get deployment shared -o jsonpath={.metadata.managedFields[*].manager}");
    assert_eq!(
        managers.split(' ').filter(|name| matches!(*name, "kubectl" | "twin")).count(),
        2,
        "{managers}"
    );
}

#[test]
fn a_client_side_applier_becomes_a_server_side_one() {
    let cluster = Cluster::up(1, 1);
    let file = cluster.path().join("shared.yaml");
    std::fs::write(&file, deployment(1)).expect("write the manifest");
    cluster.k(&format!("apply -f {}", file.display()));
    std::fs::write(&file, deployment(3)).expect("write the manifest");
    // kubectl takes over what it applied before: no conflict with itself.
    cluster.k(&format!("apply --server-side -f {}", file.display()));
    assert_eq!(cluster.k("get deployment shared -o jsonpath={.spec.replicas}"), "3");
}

#[test]
fn a_chart_is_installed_upgraded_rolled_back_and_removed() {
    let Some(helm) = helm() else { return eprintln!("skipped: no helm (HELM=/path/to/helm)") };
    let cluster = Cluster::up(1, 2);
    let run = |line: &str| {
        let output = Command::new(&helm)
            .args(line.split_whitespace())
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("HOME", cluster.path())
            .output()
            .expect("helm runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "helm {line}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let chart = manifest("charts/web");
    let replicas = |count: &str| {
        assert_eq!(cluster.k("get deployment site -o jsonpath={.status.readyReplicas}"), count);
    };
    assert!(run(&format!("install site {chart} --wait --timeout 60s")).contains("STATUS: deployed"));
    replicas("2");
    run(&format!("upgrade site {chart} --set replicas=3,colour=blue --wait --timeout 60s"));
    replicas("3");
    eventually("only pods of the new colour", || {
        let pods = cluster.ready_pods("app=site", 3);
        let names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
        names.map(|name| cluster.k(&format!("logs {name}"))).all(|log| log.contains("blue")).then_some(())
    });
    run("rollback site 1 --wait --timeout 60s");
    replicas("2");
    assert_eq!(cluster.k("get configmap site -o jsonpath={.data.colour}"), "green");
    let history = run("history site");
    assert!(history.contains("Rollback to 1") && history.contains("superseded"), "{history}");
    run("uninstall site --wait --timeout 60s");
    assert_eq!(cluster.k("get deployments,services,configmaps -l app=site -o name"), "");
    cluster.k_fails("get service site");
}

#[test]
fn an_application_is_written_whole_and_brought_back() {
    let cluster = Cluster::up(1, 1);
    let file = cluster.path().join("app.yaml");
    let map = |name: &str, text: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{text: {text}}}\n"
        )
    };
    let space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let write = |documents: &[String]| std::fs::write(&file, documents.concat()).expect("write the manifest");
    let atomic = || cluster.amoeba(["apply", "--atomic", "-f", &file.display().to_string()]);
    // A mistake in the last document: not even the namespace is made, and the error has its line.
    write(&[space.to_owned(), map("a", "one"), map("b", "one").replace("data: {text", "dota: {text")]);
    let refused = atomic();
    assert!(
        refused.err.contains("app.yaml:13:") && refused.err.contains("nothing was changed"),
        "{}",
        refused.err
    );
    cluster.k_fails("get namespace shop");
    write(&[space.to_owned(), map("a", "one"), map("b", "one")]);
    assert_eq!(atomic().out, "namespace/shop created\nconfigmap/a created\nconfigmap/b created\n");
    let versions =
        cluster.k("get configmaps -n shop -o jsonpath={.items[?(@.data.text)].metadata.resourceVersion}");
    let (first, second) = versions.split_once(' ').expect("two versions");
    assert_eq!(first, second, "one transaction has one revision");
    write(&[space.to_owned(), map("a", "two"), map("b", "one")]);
    assert_eq!(atomic().out, "namespace/shop unchanged\nconfigmap/a configured\nconfigmap/b unchanged\n");
    // The past, who made it, and the way back; also of what is gone.
    let past = cluster.a(&format!("get configmap/a -n shop --at {first} -o jsonpath={{.data.text}}"));
    assert_eq!(past, "one");
    let history = cluster.a("history configmap/a -n shop --no-headers");
    assert!(history.contains("data.text: \"one\" → \"two\"") && history.contains("created"), "{history}");
    let differ = cluster.amoeba(["diff", "configmap/a", "-n", "shop", "--at", first]);
    assert!(differ.out.contains("- data.text: \"one\"\n+ data.text: \"two\"\n"), "{}", differ.out);
    cluster.k("delete configmap a -n shop");
    assert_eq!(cluster.a(&format!("revert configmap/a -n shop --to {first}")), "configmap/a created again\n");
    assert_eq!(cluster.k("get configmap a -n shop -o jsonpath={.data.text}"), "one");
}
