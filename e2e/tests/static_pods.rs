//! Pods that a node runs from files: shown by the API, ended by their files, and independent of the API server.

use std::fs;

use e2e::machines::Machines;
use e2e::{eventually, is_ready};
use serde_json::Value;

fn manifest(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: main, image: plain, imagePullPolicy: Never, command: [sh, -c, '{script}']}}\n"
    )
}

fn text<'a>(pod: &'a Value, path: &str) -> &'a str {
    pod.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn files_are_pods_with_and_without_an_api_server() {
    let mut machines = Machines::start(1);
    let folder = machines.path("manifests");
    fs::create_dir(&folder).expect("a folder");
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).expect("written");
    write("web.yaml", &manifest("web", "echo here; exec sleep 100000"));
    write("bad.yaml", &manifest("bad", "true").replace("containers", "kontainers"));
    let joining = machines.joining(1, "");
    let flags = ["--pod-manifest-path", folder.to_str().expect("text")];
    let first: Vec<&str> = joining.iter().map(String::as_str).chain(flags).collect();
    machines.start_node(1, "worker", &first);

    let ready = |machines: &Machines| machines.object(1, "pod web-worker").filter(is_ready);
    let first = eventually("the mirror is ready", || ready(&machines));
    let annotation =
        |name: &str| text(&first, &format!("/metadata/annotations/kubernetes.io~1config.{name}"));
    assert_eq!(annotation("source"), "file");
    assert_eq!(annotation("mirror"), annotation("hash"));
    assert_eq!(text(&first, "/metadata/ownerReferences/0/kind"), "Node");
    eventually("its log", || (machines.k(1, "logs web-worker") == "here\n").then_some(()));
    assert!(machines.log("worker").contains("bad.yaml"), "the bad file is named");

    // Who deletes the mirror ends nothing.
    machines.k(1, "delete pod web-worker --wait=false");
    let again = eventually("another mirror is ready", || {
        ready(&machines).filter(|pod| text(pod, "/metadata/uid") != text(&first, "/metadata/uid"))
    });
    let container = "/status/containerStatuses/0/containerID";
    assert_eq!(text(&again, container), text(&first, container));

    // Without any API server a file becomes a pod, and another agent takes up what ran.
    machines.kill("m1");
    let sign = machines.path("sign");
    write("late.yaml", &manifest("late", &format!("echo $$ >> {}; exec sleep 100000", sign.display())));
    eventually("it runs", || fs::read_to_string(&sign).ok().filter(|pid| !pid.is_empty()));
    machines.kill("worker");
    fs::remove_file(folder.join("web.yaml")).expect("removed");
    machines.start_only_member();
    machines.start_node(1, "worker", &flags);
    eventually("the API shows what is", || {
        let late = machines.object(1, "pod late-worker").filter(is_ready);
        late.filter(|_| !machines.kubectl(1, "get pod web-worker").ok)
    });
    let begun = fs::read_to_string(&sign).expect("a sign");
    assert_eq!(begun.lines().count(), 1, "it began once: {begun}");
}
