//! The same manifests on either runtime, end to end: the shop of `manifests/shop/`, whose tiers find each other by
//! Services, on a node's own containers and on containerd's, by unmodified kubectl.

use std::path::Path;
use std::process::Command;

use e2e::containerd::Containerd;
use e2e::{Cluster, checkout, eventually, free_port, is_ready, manifest, wait_for_line};
use nix::sched::{CloneFlags, unshare};

#[test]
fn a_shop_runs_alike_on_either_runtime() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: containers from images need root");
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.expect("iproute2").success());
    let dir = tempfile::tempdir().expect("a directory");
    let archive = dir.path().join("shop.tar");
    let made = Command::new(checkout().join("manifests/shop/image.sh")).arg(&archive).status();
    assert!(made.expect("a shell").success());
    {
        let mut cluster = Cluster::up_with(1, 1, &["--pod-network", "bridge"]);
        cluster.a(&format!("image load {}", archive.display()));
        open_shop(&cluster, "10.244.");
        sells(&cluster);
        outlives_its_agent(&cluster, || ());
        close_shop(&cluster);
        cluster.stop();
    }
    on_containerd(&archive);
}

fn on_containerd(archive: &Path) {
    let Some(mut containerd) = Containerd::start() else { return };
    containerd.import(archive);
    let before = containerd.containers();
    let endpoint = containerd.endpoint();
    let flags = ["--pod-network", "bridge", "--container-runtime-endpoint", &endpoint];
    let mut cluster = Cluster::up_with(1, 1, &flags);
    open_shop(&cluster, "172.");
    sells(&cluster);
    assert!(
        containerd.containers().len() >= before.len() + 8,
        "containerd has four pods and their containers"
    );
    outlives_its_agent(&cluster, || {
        containerd.kill();
        containerd.run();
    });
    balancers_are_told(&cluster);
    close_shop(&cluster);
    eventually("nothing of deleted pods is left at containerd", || {
        (containerd.containers() == before).then_some(())
    });
    is_not_ready_without_its_runtime(&cluster, &mut containerd);
    cluster.stop();
}

/// Everything is up, at addresses of the runtime's network.
fn open_shop(cluster: &Cluster, addresses: &str) {
    cluster.k(&format!("apply -f {}", manifest("shop/shop.yaml")));
    for tier in ["cache", "web", "worker"] {
        cluster.k(&format!("rollout status deployment/{tier} --timeout=120s"));
    }
    for pod in cluster.items("pods -l app=shop") {
        let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
        assert!(ip.starts_with(addresses), "{ip}");
        assert!(is_ready(&pod), "{pod}");
    }
}

fn close_shop(cluster: &Cluster) {
    cluster.k(&format!("delete --timeout=60s -f {}", manifest("shop/shop.yaml")));
    cluster.k("wait --for=delete pod -l app=shop --timeout=60s");
}

fn fetch(url: &str) -> Option<String> {
    let output = Command::new("curl").args(["-sf", "-m", "5", url]).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn page(cluster: &Cluster, path: &str) -> Option<String> {
    let ip = cluster.k("get service web -o jsonpath={.spec.clusterIP}");
    fetch(&format!("http://{ip}/cgi-bin/web{path}"))
}

/// Orders go by the Service to a web pod, by its name to the cache, and by that to the worker.
fn sells(cluster: &Cluster) {
    eventually("the shop is open", || page(cluster, ""));
    let (_attached, lines) = cluster.follow("attach deployment/worker");
    let orders: Vec<String> =
        (0..3).map(|_| page(cluster, "/order").expect("an order").trim().to_owned()).collect();
    wait_for_line(&lines, &format!("order {} is done", orders[2]));
    let seen = eventually("all orders are done", || {
        page(cluster, "").filter(|page| page.contains("0 wait, 3 done"))
    });
    assert!(seen.starts_with("Welcome to the shop: 0 wait, 3 done (web-"), "{seen}");
    let log = cluster.k("logs deployment/worker");
    assert!(log.starts_with("the worker on worker-"), "{log}");
    assert!(orders.iter().all(|order| log.contains(&format!("order {order} is done"))), "{log}");
    by_node_port(cluster);
    by_kubectl(cluster);
}

fn by_node_port(cluster: &Cluster) {
    let port = cluster.k("get service web -o jsonpath={.spec.ports[0].nodePort}");
    assert!(
        fetch(&format!("http://10.244.1.1:{port}/cgi-bin/web")).is_some(),
        "the node's port leads to a pod"
    );
}

fn by_kubectl(cluster: &Cluster) {
    let asked = "exec deployment/web -c web -- curl -s http://cache/cgi-bin/cache/count?wrong";
    assert_eq!(cluster.k(asked), "wrong password\n");
    let user = cluster.k("exec deployment/cache -- sh -c id${IFS}-u;${IFS}hostname;${IFS}exit${IFS}0");
    assert!(user.starts_with("1000\ncache-"), "{user}");
    let failed = cluster.k_fails("exec deployment/worker -- sh -c exit${IFS}5");
    assert!(failed.contains("exit code 5"), "{failed}");
    let local = free_port();
    let (_forwarding, lines) = cluster.follow(&format!("port-forward deployment/web {local}:8080"));
    wait_for_line(&lines, "Forwarding from");
    assert!(fetch(&format!("http://127.0.0.1:{local}/cgi-bin/web")).is_some(), "the port is forwarded");
    eventually("what the pods use is known", || {
        let told = cluster.kubectl(["top", "pods", "-l", "app=shop", "--no-headers"]);
        (told.out.lines().count() == 4).then_some(())
    });
}

/// The agent is killed, and `besides` whatever else may be: what runs goes on.
fn outlives_its_agent(cluster: &Cluster, besides: impl FnOnce()) {
    let identities = || {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} \
                    {.status.containerStatuses[0].containerID} \
                    {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
        cluster.kubectl(["get", "pods", "-l", "app=shop", "-o", path]).out
    };
    let before = identities();
    let agent = cluster.process_of("n1").expect("the agent runs");
    cluster.signal("n1", nix::libc::SIGKILL);
    besides();
    eventually("another agent runs", || cluster.process_of("n1").filter(|pid| *pid != agent));
    eventually("the new agent reaches its pods", || {
        cluster.kubectl(["exec", "deployment/worker", "--", "true"]).ok.then_some(())
    });
    assert!(page(cluster, "/order").is_some(), "the shop is open all the while");
    cluster.ready_pods("app=shop", 4);
    assert_eq!(identities(), before, "nothing was restarted");
}

fn balancers_are_told(cluster: &Cluster) {
    let patch = r#"{"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local"}}"#;
    assert!(cluster.kubectl(["patch", "service", "web", "-p", patch]).ok);
    let port = cluster.k("get service web -o jsonpath={.spec.healthCheckNodePort}");
    let asked = || {
        let url = format!("http://127.0.0.1:{port}/");
        let done = Command::new("curl").args(["-s", "-m", "5", "-w", "%{http_code}", &url]).output();
        String::from_utf8_lossy(&done.expect("curl").stdout).into_owned()
    };
    let told = |pods: usize, code: u16| {
        let end = format!("\"localEndpoints\": {pods},\n\t\"serviceProxyHealthy\": true\n}}{code}");
        eventually(&format!("{pods} pods here: {code}"), || asked().ends_with(&end).then_some(()));
    };
    told(2, 200);
    cluster.k("scale deployment/web --replicas=0");
    told(0, 503);
    cluster.k("scale deployment/web --replicas=2");
    cluster.k("rollout status deployment/web --timeout=120s");
    told(2, 200);
}

fn is_not_ready_without_its_runtime(cluster: &Cluster, containerd: &mut Containerd) {
    let condition = || {
        let ready =
            "jsonpath={range .status.conditions[?(@.type==\"Ready\")]}{.status} {.reason}: {.message}{end}";
        cluster.kubectl(["get", "node", "n1", "-o", ready]).out
    };
    containerd.kill();
    eventually("the node isn't ready", || {
        (condition() == "False KubeletNotReady: container runtime is down").then_some(())
    });
    containerd.run();
    eventually("the node is ready again", || condition().starts_with("True KubeletReady: ").then_some(()));
}
