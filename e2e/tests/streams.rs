//! Unmodified kubectl, each version that is there, talks to processes and ports of pods: WebSocket and SPDY.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use e2e::{Cluster, eventually, free_port, kubectls, wait_for_line};

/// Processes that answer on a port of the loopback and on one of the pod's address, and one that is talked to.
fn pods(port: u16, reached: u16) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: talker, labels: {{app: talker}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: host
    command: [python3, -m, http.server, "{port}", --bind, 127.0.0.1, --directory, /usr/share]
    ports: [{{containerPort: {port}, hostPort: {port}}}]
  - name: web
    image: host
    env: [{{name: ADDRESS, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}]
    command: [python3, -m, http.server, "{reached}", --bind, $(ADDRESS), --directory, /usr/share]
    ports: [{{containerPort: {reached}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: talker}}
spec: {{selector: {{app: talker}}, ports: [{{name: web, port: 80, targetPort: {reached}}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: host, stdin: true, command: [sh, -c, "while read line; do echo got $line; done"]}}
  - {{name: other, image: host, command: [sleep, infinity]}}
"#
    )
}

#[test]
fn processes_and_ports_are_reached_with_each_kubectl() {
    let mut cluster = Cluster::up(1, 1);
    let port = free_port();
    let reached = free_port();
    let applied = cluster.apply(&pods(port, reached));
    assert!(applied.ok, "{applied:?}");
    cluster.k("wait --for=condition=Ready pod/talker pod/reader --timeout=60s");
    for kubectl in kubectls() {
        eprintln!("with {}", kubectl.display());
        cluster.use_kubectl(&kubectl);
        executed(&cluster, &kubectl);
        attached(&cluster, &kubectl);
        copied(&cluster);
        forwarded(&cluster, port);
        proxied(&cluster, reached);
    }
    measured(&cluster);
}

#[test]
fn an_api_server_behind_the_clusters_is_reached_with_each_kubectl() {
    let mut cluster = Cluster::up(1, 1);
    let applied = cluster.apply(&e2e::extension::serve());
    assert!(applied.ok, "{applied:?}");
    for kubectl in kubectls() {
        eprintln!("with {}", kubectl.display());
        cluster.use_kubectl(&kubectl);
        cluster.k("wait --for=condition=Available apiservice/v1alpha1.wardle.example.com --timeout=60s");
        let listed = cluster.k("get apiservices v1alpha1.wardle.example.com --no-headers");
        let cells: Vec<&str> = listed.split_whitespace().take(3).collect();
        assert_eq!(cells, ["v1alpha1.wardle.example.com", "default/wardle", "True"], "{listed}");
        let kinds = cluster.k("api-resources --api-group=wardle.example.com --no-headers");
        let cells: Vec<&str> = kinds.split_whitespace().collect();
        assert_eq!(cells, ["flunders", "fl", "wardle.example.com/v1alpha1", "true", "Flunder"], "{kinds}");
        assert_eq!(cluster.k("get fl -o jsonpath={.items[*].spec.for}"), "kubernetes-admin");
        assert!(cluster.k("get flunders").contains("only"));
    }
    cluster.k("delete service wardle");
    cluster.k("wait --for=condition=Available=false apiservice/v1alpha1.wardle.example.com --timeout=60s");
    let refused = cluster.k_fails("get --raw /apis/wardle.example.com/v1alpha1/namespaces/default/flunders");
    assert!(refused.contains("unable to handle the request"), "{refused}");
}

/// Runs kubectl with something to read; its exit code and what it printed.
fn typed(cluster: &Cluster, kubectl: &std::path::Path, line: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let typing = std::thread::spawn(move || stdin.write_all(&input));
    let done = child.wait_with_output().expect("an end");
    typing.join().expect("a thread").expect("typed");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (done.status.code().unwrap_or(-1), text(done.stdout), text(done.stderr))
}

fn executed(cluster: &Cluster, kubectl: &std::path::Path) {
    let line = ["exec", "-i", "talker", "--", "sh", "-c", "cat; echo oops >&2; exit 42"];
    let long = "0123456789abcdef\n".repeat(50_000);
    let (code, out, err) = typed(cluster, kubectl, &line, long.as_bytes());
    assert_eq!((code, out.len()), (42, long.len()), "{err}");
    assert!(err.contains("oops\n") && err.contains("command terminated with exit code 42"), "{err}");
    let missing = cluster.k_fails("exec talker -- no-such-program");
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");
    let wrong = cluster.k_fails("exec reader -c nothing -- true");
    assert!(
        wrong.contains("container nothing is not valid for pod reader") || wrong.contains("not found"),
        "{wrong}"
    );
    // A terminal of its own, through `script`, which gives kubectl one.
    let command = format!(
        "{} --kubeconfig {} exec -it talker -- sh -c 'tty && echo $TERM && exit 3'",
        kubectl.display(),
        cluster.kubeconfig().display()
    );
    let done = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output();
    let done = done.expect("script");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("/dev/pts/") && said.contains("xterm"), "{said}");
    assert_eq!(done.status.code(), Some(3), "{said}");
}

fn attached(cluster: &Cluster, kubectl: &std::path::Path) {
    let mut child = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(["attach", "-i", "reader", "-c", "main"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl");
    let lines = e2e::lines_of(child.stdout.take().expect("piped"));
    let mut stdin = child.stdin.take().expect("piped");
    writeln!(stdin, "hello").expect("typed");
    wait_for_line(&lines, "got hello");
    drop(stdin);
    child.kill().expect("ours");
    child.wait().expect("an end");
    let log = cluster.k("logs reader -c main");
    assert!(log.contains("got hello"), "{log}");
}

fn copied(cluster: &Cluster) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (from, inside, back) = (dir.path().join("from"), dir.path().join("inside"), dir.path().join("back"));
    std::fs::create_dir_all(&inside).expect("directory");
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&from, &content).expect("write");
    cluster.k(&format!("cp {} talker:{}/file", from.display(), inside.display()));
    assert_eq!(std::fs::read(inside.join("file")).expect("copied"), content);
    cluster.k(&format!("cp talker:{}/file {}", inside.display(), back.display()));
    assert_eq!(std::fs::read(&back).expect("copied back"), content);
}

fn forwarded(cluster: &Cluster, port: u16) {
    let local = free_port();
    let (_forwarding, lines) = cluster.follow(&format!("port-forward pod/talker {local}:{port}"));
    wait_for_line(&lines, "Forwarding from 127.0.0.1");
    // Several in one, one after the other and at once.
    let mut streams: Vec<_> =
        (0..5).map(|_| TcpStream::connect(("127.0.0.1", local)).expect("forwarded")).collect();
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    }
    for stream in &mut streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    }
}

/// What pods serve is reached through the API server by pod and by Service, and through `kubectl proxy`.
fn proxied(cluster: &Cluster, port: u16) {
    let space = "/api/v1/namespaces/default";
    let page = cluster.k(&format!("get --raw {space}/pods/talker:{port}/proxy/"));
    assert!(page.contains("Directory listing for /"), "{page}");
    let service = format!("{space}/services/talker:web/proxy");
    let by_service = eventually("the Service's endpoint is ready", || {
        let ran = cluster.kubectl(["get", "--raw", &format!("{service}/")]);
        ran.ok.then_some(ran.out)
    });
    assert_eq!(by_service, page);
    let missing = cluster.k_fails(&format!("get --raw {service}/no-such-file"));
    assert!(missing.contains("the server could not find the requested resource"), "{missing}");

    let (_proxying, lines) = cluster.follow("proxy --port=0");
    let line = wait_for_line(&lines, "Starting to serve on ");
    let address = line.rsplit(' ').next().expect("an address").to_owned();
    let asked = |path: &str| {
        let mut stream = TcpStream::connect(&address).expect("kubectl listens");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    };
    let version = asked("/version");
    assert!(version.starts_with("HTTP/1.0 200 OK") && version.contains("gitVersion"), "{version}");
    let page = asked(&format!("{service}/"));
    assert!(page.starts_with("HTTP/1.0 200 OK") && page.contains("Directory listing for /"), "{page}");
}

fn measured(cluster: &Cluster) {
    let top = eventually("kubectl top pod", || {
        let ran = cluster.kubectl(["top", "pod", "talker", "--no-headers"]);
        ran.ok.then_some(ran.out)
    });
    let cells: Vec<&str> = top.split_whitespace().collect();
    assert_eq!(cells[0], "talker", "{top}");
    let memory: u64 = cells[2].trim_end_matches("Mi").parse().expect("mebibytes");
    assert!(cells[1].ends_with('m') && (1..2000).contains(&memory), "{top}");
    let top = eventually("kubectl top node", || {
        let ran = cluster.kubectl(["top", "node", "--no-headers"]);
        ran.ok.then_some(ran.out)
    });
    assert!(top.contains('%'), "{top}");
}
