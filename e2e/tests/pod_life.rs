//! What is done to pods that run, by unmodified kubectl: looked into, resized.

use std::process::{Command, Stdio};

use e2e::{Cluster, eventually, image};

/// The debugged container has a file and a process that nobody else has.
const SCRIPT: &str = "echo secret > /tmp/own; exec sleep 100000";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: box:1
    imagePullPolicy: IfNotPresent
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
    resizePolicy:
    - {resourceName: cpu, restartPolicy: NotRequired}
    - {resourceName: memory, restartPolicy: RestartContainer}
"#;

#[test]
fn a_pod_is_looked_into_and_resized_while_it_runs() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: containers from images need root");
        return;
    }
    let cluster = Cluster::up(1, 1);
    image::load(&cluster, "box:1", SCRIPT);
    assert!(cluster.apply(POD).ok);
    cluster.k("wait --for=condition=Ready pod/box --timeout=60s");
    looked_into(&cluster);
    looked_into_by_a_terminal(&cluster);
    copied(&cluster);
    node_looked_at(&cluster);
    resized(&cluster);
}

fn looked_into(cluster: &Cluster) {
    let script = "cat /proc/1/root/tmp/own; echo seen by $$";
    cluster.kubectl([
        "debug",
        "box",
        "--image=box:1",
        "--image-pull-policy=IfNotPresent",
        "--target=main",
        "-c",
        "look",
        "--profile=general",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let log = eventually("the debugger's log", || {
        let ran = cluster.kubectl(["logs", "box", "-c", "look"]);
        (ran.ok && ran.out.contains("seen by")).then_some(ran.out)
    });
    assert!(log.starts_with("secret\nseen by "), "{log}");
    let states = "{.status.ephemeralContainerStatuses[0].name} {.status.phase} {.status.containerStatuses[0].restartCount}";
    let told = cluster.kubectl(["get", "pod", "box", "-o", &format!("jsonpath={states}")]);
    assert_eq!(told.out, "look Running 0");
}

/// `script` gives kubectl a terminal.
fn looked_into_by_a_terminal(cluster: &Cluster) {
    let line = format!(
        "{} --kubeconfig {} debug box -it --image=box:1 --image-pull-policy=IfNotPresent --target=main -c shell \
         --profile=general -- sh -c 'read word; [ -t 0 ] && echo terminal; echo heard $word; exit 3'",
        e2e::kubectls()[0].display(),
        cluster.kubeconfig().display()
    );
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script");
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, b"hello\n").expect("typed");
    let done = child.wait_with_output().expect("an end");
    drop(stdin);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("heard hello") && said.contains("terminal"), "{said}");
}

fn copied(cluster: &Cluster) {
    cluster.k("debug box --copy-to=twin --profile=general -c helper --image=box:1 --image-pull-policy=IfNotPresent -- sleep 1000");
    cluster.k("wait --for=condition=Ready pod/twin --timeout=60s");
    assert_eq!(cluster.k("exec twin -c main -- cat /tmp/own"), "secret\n");
    // A copy shares its processes, so none of its containers has the first one.
    assert_eq!(cluster.k("exec twin -c main -- cat /proc/1/comm"), "pause\n");
    assert!(cluster.k("exec twin -c main -- busybox ps").contains("sleep 1000"));
    cluster.k("delete pod twin --now");
}

fn node_looked_at(cluster: &Cluster) {
    std::fs::write(cluster.path().join("of-the-host"), "host\n").expect("write");
    let file = format!("/host{}", cluster.path().join("of-the-host").display());
    let said = cluster.kubectl([
        "debug",
        "node/n1",
        "--image=box:1",
        "--image-pull-policy=IfNotPresent",
        "--profile=general",
        "--",
        "cat",
        &file,
    ]);
    let text = format!("{}{}", said.out, said.err);
    let name =
        text.split_whitespace().find(|word| word.starts_with("node-debugger-")).expect("a name").to_owned();
    let log = eventually("the debugger's log", || {
        let ran = cluster.kubectl(["logs", &name]);
        (ran.ok && !ran.out.is_empty()).then_some(ran.out)
    });
    assert_eq!(log, "host\n");
    cluster.k(&format!("delete pod {name} --now"));
    let listed = cluster.k("get --raw /api/v1/nodes/n1/proxy/logs/");
    assert!(listed.contains("<pre>\n"), "{listed}");
}

fn resized(cluster: &Cluster) {
    let patch = |resources: &str| {
        let text =
            format!("{{\"spec\":{{\"containers\":[{{\"name\":\"main\",\"resources\":{resources}}}]}}}}");
        let ran = cluster.kubectl(["patch", "pod", "box", "--subresource", "resize", "-p", &text]);
        assert!(ran.ok, "{ran:?}");
    };
    let status = "jsonpath={.status.containerStatuses[0].resources.limits.cpu} {.status.containerStatuses[0].resources.limits.memory} \
        {.status.containerStatuses[0].restartCount} {.status.conditions[?(@.type==\"PodResizeInProgress\")].status}\
        {.status.conditions[?(@.type==\"PodResizePending\")].reason}";
    let becomes = |want: &str| {
        eventually(want, || {
            let ran = cluster.kubectl(["get", "pod", "box", "-o", status]);
            (ran.out == want).then_some(())
        });
    };
    patch(r#"{"limits":{"cpu":"300m"}}"#);
    becomes("300m 64Mi 0 ");
    patch(r#"{"requests":{"cpu":"5000"},"limits":{"cpu":"5000"}}"#);
    becomes("300m 64Mi 0 Infeasible");
    patch(r#"{"requests":{"cpu":"100m"},"limits":{"cpu":"300m","memory":"96Mi"}}"#);
    becomes("300m 96Mi 1 ");
    let events = cluster.k("get events --field-selector involvedObject.name=box");
    assert!(events.contains("Container main resize requires restart"), "{events}");
    assert!(events.contains("ResizeInfeasible") && events.contains("ResizeCompleted"), "{events}");
}
