//! A pod from an image, with everything that hangs on it, by unmodified kubectl on real processes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use e2e::registry::{Registry, Setup};
use e2e::{Cluster, eventually, free_port, image};

/// What the container does: it says what it sees, serves it, and tells when its configuration changes.
const SCRIPT: &str = r#"
echo "pid $$ on $(hostname) from $FROM with $GREETING and $SECRET"
echo "root: $(ls / | busybox xargs)"
echo "token: $(ls /var/run/secrets/kubernetes.io/serviceaccount | busybox xargs)"
echo "mode: $(busybox stat -L -c %a /secret/key) key: $(cat /secret/key)"
echo "one: $(cat /one.txt) memory: $(busybox df /memory | busybox tail -1 | busybox awk '{print $2}')"
touch /config/x 2>/dev/null || echo "config is read-only"
httpd -p 127.0.0.1:$PORT -h /config
last= trusted=
while :; do
  now=$(cat /config/word)
  [ "$now" = "$last" ] || echo "word: $now"
  last=$now
  now=$(cat /trust/signer.pem | busybox grep -c BEGIN)
  [ "$now" = "$trusted" ] || echo "trusted: $now"
  trusted=$now
  sleep 0.1
done
"#;

fn manifest(port: u16) -> String {
    format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: words}}
data: {{word: first, greeting: hello}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{key: hidden}}
---
apiVersion: v1
kind: Pod
metadata: {{name: box, labels: {{app: box}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: box:1
    imagePullPolicy: IfNotPresent
    env:
    - {{name: PORT, value: "{port}"}}
    - {{name: GREETING, valueFrom: {{configMapKeyRef: {{name: words, key: greeting}}}}}}
    - {{name: SECRET, valueFrom: {{secretKeyRef: {{name: keys, key: key}}}}}}
    resources: {{limits: {{memory: 64Mi, cpu: 500m}}}}
    readinessProbe: {{exec: {{command: [cat, /config/word]}}, periodSeconds: 1}}
    livenessProbe: {{httpGet: {{path: /word, port: {port}, host: 127.0.0.1}}, periodSeconds: 1}}
    startupProbe: {{tcpSocket: {{port: {port}, host: 127.0.0.1}}, periodSeconds: 1, failureThreshold: 60}}
    volumeMounts:
    - {{name: config, mountPath: /config}}
    - {{name: secret, mountPath: /secret}}
    - {{name: config, mountPath: /one.txt, subPath: word}}
    - {{name: memory, mountPath: /memory}}
    - {{name: trust, mountPath: /trust}}
  volumes:
  - {{name: config, configMap: {{name: words}}}}
  - {{name: secret, secret: {{secretName: keys, defaultMode: 0400}}}}
  - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}
  - name: trust
    projected:
      sources:
      - clusterTrustBundle: {{path: signer.pem, signerName: example.com/s, labelSelector: {{}}, optional: true}}
"#
    )
}

#[test]
fn a_pod_from_an_image_lives_through_its_agents_death() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: containers from images need root");
        return;
    }
    let cluster = Cluster::up(1, 1);
    assert_eq!(image::load(&cluster, "box:1", SCRIPT), "loaded docker.io/library/box:1\n");
    assert!(cluster.a("image ls").contains("docker.io/library/box:1"));
    assert!(cluster.apply(&manifest(free_port())).ok);
    cluster.ready_pods("app=box", 1);
    sees_what_it_should(&cluster);
    nodes_tell_of_their_images(&cluster);
    follows_its_configuration(&cluster);
    follows_whom_to_trust(&cluster);
    outlives_its_agent(&cluster);
    copies_stay_inside(&cluster);
    let refused = cluster.amoeba(["image", "rm", "box:1"]);
    assert!(refused.err.contains("in use by a container"), "{}", refused.err);
    shows_an_image(&cluster);
    pulls_with_a_secret(&cluster);
    cluster.k("delete pod box --timeout=60s");
    eventually("nothing of a deleted pod is mounted", || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        (!mounts.contains(cluster.path().to_str().expect("UTF-8"))).then_some(())
    });
    eventually("the image can go", || cluster.amoeba(["image", "rm", "box:1"]).ok.then_some(()));
}

fn sees_what_it_should(cluster: &Cluster) {
    let log = cluster.k("logs box");
    for line in [
        "pid 1 on box from image with hello and hidden",
        "root: bin config dev etc memory one.txt proc secret sys tmp trust var",
        "token: ca.crt namespace token",
        "mode: 400 key: hidden",
        "one: first memory: 1024",
        "config is read-only",
        "word: first",
    ] {
        assert!(log.lines().any(|l| l == line), "{line:?} is not in\n{log}");
    }
    let events =
        cluster.k("get events --field-selector involvedObject.name=box -o jsonpath={.items[*].reason}");
    assert!(events.contains("Pulled") && !events.contains("NotIsolated"), "{events}");
    let id = cluster.k("get pod box -o jsonpath={.status.containerStatuses[0].imageID}");
    assert!(id.starts_with("sha256:"), "{id}");
}

fn nodes_tell_of_their_images(cluster: &Cluster) {
    let images = eventually("the node tells of its images", || {
        let images = cluster.k("get node n1 -o jsonpath={.status.images}");
        (!images.is_empty()).then_some(images)
    });
    let images: serde_json::Value = serde_json::from_str(&images).expect("JSON");
    assert_eq!(images[0]["names"], serde_json::json!(["docker.io/library/box:1"]));
    assert!(images[0]["sizeBytes"].as_u64().is_some_and(|size| size > 100_000), "{images}");
}

/// A pod that reads the volume of another image.
fn reader(name: &str, image: &str, policy: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  imagePullSecrets: [{{name: login}}]
  containers:
  - name: main
    image: box:1
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo sees $(ls /data) and $(ls /programs); exec sleep 1000"]
    volumeMounts:
    - {{name: data, mountPath: /data}}
    - {{name: data, mountPath: /programs, subPathExpr: bin}}
  volumes:
  - {{name: data, image: {{reference: "{image}", pullPolicy: {policy}}}}}
"#
    )
}

fn reads(cluster: &Cluster, name: &str, image: &str, policy: &str) {
    assert!(cluster.apply(&reader(name, image, policy)).ok);
    cluster.k(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"));
    let log = cluster.k(&format!("logs {name}"));
    assert!(log.starts_with("sees bin tmp and busybox cat echo"), "{log}");
}

/// A volume of another image: held as long as it is used, and waited for where it is missing.
fn shows_an_image(cluster: &Cluster) {
    image::load(cluster, "data:1", "");
    reads(cluster, "reader", "data:1", "Never");
    let status = cluster.k("get pod reader -o jsonpath={.status.containerStatuses[0].volumeMounts[0]}");
    assert!(
        status.contains(r#""mountPath":"/data""#) && status.contains(r#""imageRef":"sha256:"#),
        "{status}"
    );
    let refused = cluster.amoeba(["image", "rm", "data:1"]);
    assert!(refused.err.contains("in use by a container"), "{}", refused.err);
    assert!(cluster.apply(&reader("waiter", "none:1", "Never")).ok);
    let waiting = eventually("the other waits", || {
        let why = "get pod waiter -o jsonpath={.status.containerStatuses[0].state.waiting.reason}";
        Some(cluster.k(why)).filter(|why| why != "ContainerCreating" && !why.is_empty())
    });
    assert_eq!(waiting, "ErrImageNeverPull");
    cluster.k("delete pod reader waiter --timeout=60s");
}

/// From a registry that wants a password: by hand, and for the volume of a pod.
fn pulls_with_a_secret(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    image::busybox(dir.path(), "unused:1", "");
    let layer = std::fs::read(dir.path().join("image/layer.tar")).expect("a layer");
    let registry = Registry::start(dir.path(), Setup::default());
    registry.push(dir.path(), &layer);
    drop(registry);
    let registry = Registry::start(dir.path(), Setup::with_password(dir.path()));
    let name = registry.name(":1");
    let pull = |secret: &[&str]| cluster.amoeba([&["image", "pull", &name], secret].concat());
    let denied = pull(&[]).err;
    assert!(denied.contains("no basic auth credentials; pass --secret NAME or --auth-file FILE"), "{denied}");
    let missing = pull(&["--secret", "login"]).err;
    assert!(missing.contains("secrets \"login\" not found"), "{missing}");
    let (server, user) = (&registry.address, "--docker-username=me --docker-password=secret");
    cluster.k(&format!("create secret docker-registry login --docker-server={server} {user}"));
    let pulled = pull(&["--secret", "login"]);
    assert!(pulled.out.starts_with(&format!("pulled {name} (")), "{pulled:?}");
    reads(cluster, "reader", &name, "Always");
    let events =
        cluster.k("get events --field-selector involvedObject.name=reader -o jsonpath={.items[*].message}");
    for told in ["Pulling", "Successfully pulled"] {
        assert!(events.contains(&format!("{told} image \"{name}\"")), "{events}");
    }
    cluster.k("delete pod reader --timeout=60s");
}

fn follows_its_configuration(cluster: &Cluster) {
    let patched = cluster.kubectl(["patch", "configmap", "words", "-p", r#"{"data":{"word":"second"}}"#]);
    assert!(patched.ok, "{}", patched.err);
    eventually("the container sees the new word", || {
        cluster.k("logs box").lines().any(|line| line == "word: second").then_some(())
    });
}

fn follows_whom_to_trust(cluster: &Cluster) {
    let certificate = || {
        let key = rcgen::KeyPair::generate().expect("a key");
        rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").pem()
    };
    let (one, two) = (certificate(), certificate());
    let bundles = [("1", one.clone()), ("2", format!("{one}noise\n{two}"))];
    for ((name, bundle), trusted) in bundles.into_iter().zip(1..) {
        let bundle = bundle.replace('\n', "\n    ");
        let manifest = format!(
            "apiVersion: certificates.k8s.io/v1\nkind: ClusterTrustBundle\nmetadata: {{name: 'example.com:s:{name}'}}\n\
             spec:\n  signerName: example.com/s\n  trustBundle: |\n    {bundle}\n"
        );
        let applied = cluster.apply(&manifest);
        assert!(applied.ok, "{}", applied.err);
        eventually("the container sees whom to trust, each once", || {
            let log = cluster.k("logs box");
            log.lines().any(|line| line == format!("trusted: {trusted}")).then_some(())
        });
    }
}

fn outlives_its_agent(cluster: &Cluster) {
    let identity = || {
        let status =
            "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
        cluster.kubectl(["get", "pod", "box", "-o", status]).out
    };
    let before = identity();
    let agent = cluster.process_of("n1").expect("the agent runs");
    cluster.signal("n1", libc::SIGKILL);
    eventually("another agent runs", || cluster.process_of("n1").filter(|pid| *pid != agent));
    let patched = cluster.kubectl(["patch", "configmap", "words", "-p", r#"{"data":{"word":"third"}}"#]);
    assert!(patched.ok, "{}", patched.err);
    eventually("the new agent updates the volume", || {
        cluster.k("logs box").lines().any(|line| line == "word: third").then_some(())
    });
    cluster.ready_pods("app=box", 1);
    assert_eq!(identity(), before, "nothing was restarted");
}

/// What a container hands over as its files lands in the directory that was asked for, or nowhere.
fn copies_stay_inside(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("a directory");
    // What doesn't begin with `data` ends the copy, so it comes last.
    let hostile = r#"
        mkdir made outside into; echo x > made/x; ln -s "$PWD/outside" made/door
        tar -P -C made -cf evil.tar --transform 's,^x$,data/fine,' x
        tar -P -C made -rf evil.tar --transform 's,^door$,data/door,' door
        for name in data/door/escaped data/../escaped data/../../escaped data/../outside/escaped ../escaped "$PWD/outside/escaped"; do
          tar -P -C made -rf evil.tar --transform "s,^x\$,$name," x
        done"#;
    let made = Command::new("sh").args(["-ec", hostile]).current_dir(dir.path()).status();
    assert!(made.expect("tar").success());
    let archive = std::fs::File::open(dir.path().join("evil.tar")).expect("an archive");
    let planted = cluster
        .kubectl_command(&["exec", "-i", "box", "--", "sh", "-c", "cat > /evil.tar"])
        .stdin(archive)
        .status();
    assert!(planted.expect("kubectl").success());
    let script = "printf '#!/bin/sh\ncat /evil.tar\n' > /bin/tar && busybox chmod +x /bin/tar";
    assert!(cluster.kubectl(["exec", "box", "--", "sh", "-c", script]).ok);
    let into = dir.path().join("into/data");
    let told = cluster.kubectl(["cp", "box:data", into.to_str().expect("UTF-8")]);
    let names = |dir: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").file_name());
        entries.collect::<BTreeSet<_>>().into_iter().collect()
    };
    assert!(into.join("fine").exists(), "{told:?}");
    assert_eq!(names(&dir.path().join("into")), ["data"], "{told:?}");
    assert_eq!(names(&dir.path().join("outside")).len(), 0, "{told:?}");
    assert_eq!(names(dir.path()), ["evil.tar", "into", "made", "outside"], "{told:?}");
}
