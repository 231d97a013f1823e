//! Every workload kind on real processes, with unmodified kubectl and helm: one cluster for all.

use e2e::{Cluster, eventually, helm, manifest};
use std::process::Command;

#[test]
fn each_kind_lives_as_its_users_expect() {
    let cluster = Cluster::up(1, 2);
    cluster.k(&format!("apply -f {}", manifest("workloads.yaml")));
    stateful_set(&cluster);
    services_and_budgets(&cluster);
    daemon_set(&cluster);
    replication_controller(&cluster);
    job(&cluster);
    failing_job(&cluster);
    cron_job(&cluster);
    chart_of_all(&cluster);
    gone(&cluster);
}

fn stateful_set(cluster: &Cluster) {
    let status = cluster.k("rollout status statefulset/db --timeout=60s");
    assert!(status.contains("roll out complete: 2 new pods have been updated"), "{status}");
    let names = cluster.k("get pods -l app=db -o jsonpath={.items[*].metadata.name}");
    assert_eq!(names, "db-0 db-1");
    assert_eq!(
        cluster.k("get pod db-1 -o jsonpath={.metadata.labels.apps\\.kubernetes\\.io/pod-index}"),
        "1"
    );
    cluster.k("set image statefulset/db db=other:2");
    let status = cluster.k("rollout status statefulset/db --timeout=60s");
    assert!(status.contains("roll out complete: 2 new pods"), "{status}");
    assert!(cluster.a("rollout status statefulset/db").contains("roll out complete: 2 new pods"));
    assert!(cluster.a("rollout history statefulset/db").contains("\n2 "));
    let history = cluster.k("rollout history statefulset/db");
    assert!(history.contains("\n2 "), "{history}");
    broken_rollout(cluster);
    cluster.k("scale statefulset/db --replicas=3");
    cluster.k("rollout status statefulset/db --timeout=60s");
}

/// Beyond upstream: nobody has to delete the stuck pod by hand.
fn broken_rollout(cluster: &Cluster) {
    let command =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"db","command":["/no/such/program"]}]}}}}"#;
    let patched = cluster.kubectl(["patch", "statefulset", "db", "-p", command]);
    assert!(patched.ok, "{}", patched.err);
    eventually("the new db-1 can't start", || {
        let pod = cluster.kubectl([
            "get",
            "pod",
            "db-1",
            "-o",
            "jsonpath={.spec.containers[0].command[0]} {.status.conditions[?(@.type==\"Ready\")].status}",
        ]);
        (pod.out == "/no/such/program False").then_some(())
    });
    assert!(cluster.k("rollout undo statefulset/db").contains("rolled back"));
    cluster.k("rollout status statefulset/db --timeout=60s");
    cluster.ready_pods("app=db", 2);
    let images = cluster.k("get pods -l app=db -o jsonpath={.items[*].spec.containers[0].image}");
    assert_eq!(images, "other:2 other:2");
}

fn services_and_budgets(cluster: &Cluster) {
    eventually("the headless Service's slice has all pods", || {
        let slices = cluster.k("get endpointslices -l kubernetes.io/service-name=db -o jsonpath={.items[*].endpoints[*].hostname}");
        let mut names: Vec<&str> = slices.split_whitespace().collect();
        names.sort_unstable();
        (names == ["db-0", "db-1", "db-2"]).then_some(())
    });
    eventually("Endpoints have them, too", || {
        let names = cluster.k("get endpoints db -o jsonpath={.subsets[*].addresses[*].targetRef.name}");
        (names.split_whitespace().count() >= 1).then_some(())
    });
    eventually("one of them may go", || {
        let allowed = cluster.k("get pdb db -o jsonpath={.status.disruptionsAllowed}/{.status.expectedPods}");
        (allowed == "1/3").then_some(())
    });
}

fn daemon_set(cluster: &Cluster) {
    cluster.k("rollout status daemonset/agent --timeout=60s");
    let mut nodes: Vec<String> = cluster
        .ready_pods("app=agent", 2)
        .iter()
        .map(|pod| pod["spec"]["nodeName"].as_str().expect("bound").to_owned())
        .collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 2, "one on each node");
    cluster.k("set image daemonset/agent agent=other:2");
    let status = cluster.k("rollout status daemonset/agent --timeout=60s");
    assert!(status.contains("successfully rolled out"), "{status}");
    assert!(cluster.k("rollout undo daemonset/agent").contains("rolled back"));
    cluster.k("rollout status daemonset/agent --timeout=60s");
    let images = cluster.k("get pods -l app=agent -o jsonpath={.items[*].spec.containers[0].image}");
    assert_eq!(images, "busybox:1.37 busybox:1.37");
}

fn replication_controller(cluster: &Cluster) {
    cluster.ready_pods("app=old", 2);
    cluster.k("scale rc/old --replicas=1");
    cluster.ready_pods("app=old", 1);
    cluster.k("wait --for=jsonpath={.status.readyReplicas}=1 rc/old --timeout=60s");
}

fn job(cluster: &Cluster) {
    cluster.k("wait --for=condition=complete job/sum --timeout=60s");
    let status = cluster.k("get job sum -o jsonpath={.status.succeeded}/{.status.completedIndexes}");
    assert_eq!(status, "3/0-2");
    let logs = cluster.k("logs -l job-name=sum --tail=-1");
    let mut lines: Vec<&str> = logs.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["index 0", "index 1", "index 2"]);
    let conditions = cluster.k("get job sum -o jsonpath={.status.conditions[*].type}");
    assert_eq!(conditions, "SuccessCriteriaMet Complete");
    let held = cluster.k("get pods -l job-name=sum -o jsonpath={.items[*].metadata.finalizers}");
    assert_eq!(held, "", "every pod is counted and let go");
}

fn failing_job(cluster: &Cluster) {
    let applied = cluster.apply(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: fails}\nspec:\n  backoffLimit: 0\n  \
         ttlSecondsAfterFinished: 1\n  template:\n    spec:\n      restartPolicy: Never\n      containers:\n      \
         - {name: c, image: i, command: [\"/bin/sh\", \"-c\", \"exit 3\"]}\n",
    );
    assert!(applied.ok, "{}", applied.err);
    eventually("the Job failed, and went when its time was over", || {
        cluster.k("get jobs -o name").lines().all(|name| name != "job.batch/fails").then_some(())
    });
    eventually("its pods went with it", || {
        cluster.k("get pods -l job-name=fails -o name").is_empty().then_some(())
    });
    let events =
        cluster.k("get events --field-selector reason=BackoffLimitExceeded -o jsonpath={.items[*].message}");
    assert_eq!(events, "Job has reached the specified backoff limit");
}

fn cron_job(cluster: &Cluster) {
    assert_eq!(cluster.k("create job now --from=cronjob/nightly"), "job.batch/now created\n");
    cluster.k("wait --for=condition=complete job/now --timeout=60s");
    cluster.k("get cronjob nightly");
    // Due at the next full minute of a place five hours behind, or at once if that has passed meanwhile: without its
    // time zone the CronJob would be due at another time of the day.
    let date = Command::new("date").args(["-u", "-d", "now + 1 minute - 5 hours", "+%M %H"]).output();
    let due = String::from_utf8(date.expect("date runs").stdout).expect("text");
    let schedule = format!(r#"{{"spec":{{"schedule":"{} * * *","timeZone":"Etc/GMT+5"}}}}"#, due.trim());
    let patched = cluster.kubectl(["patch", "cronjob", "nightly", "--type=merge", "-p", &schedule]);
    assert!(patched.ok, "{}", patched.err);
    eventually("the schedule started a Job, which is complete", || {
        let last = cluster.k("get cronjob nightly -o jsonpath={.status.lastSuccessfulTime}");
        let started = cluster.k("get cronjob nightly -o jsonpath={.status.lastScheduleTime}");
        (!last.is_empty() && !started.is_empty()).then_some(())
    });
    cluster.k(r#"patch cronjob nightly --type=merge -p {"spec":{"suspend":true}}"#);
}

/// helm waits for what a chart makes.
fn chart_of_all(cluster: &Cluster) {
    let Some(helm) = helm() else { return eprintln!("skipped: no helm (HELM=/path/to/helm)") };
    let chart = cluster.path().join("chart");
    std::fs::create_dir_all(chart.join("templates")).expect("a directory");
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: all\nversion: 0.1.0\n").expect("written");
    let all = std::fs::read_to_string(manifest("workloads.yaml")).expect("readable");
    let renamed = all.replace("name: db", "name: {{ .Release.Name }}-db").replace("app: db", "app: chart-db");
    let renamed = renamed
        .replace("serviceName: db", "serviceName: {{ .Release.Name }}-db")
        .replace("name: agent\nspec", "name: chart-agent\nspec")
        .replace("app: agent", "app: chart-agent")
        .replace("name: old\nspec", "name: chart-old\nspec")
        .replace("app: old", "app: chart-old")
        .replace("name: sum\nspec", "name: chart-sum\nspec")
        .replace("name: nightly\nspec", "name: chart-nightly\nspec");
    std::fs::write(chart.join("templates/all.yaml"), renamed).expect("written");
    let chart = chart.to_str().expect("UTF-8");
    for line in
        [format!("install rel {chart} --wait --timeout 90s"), "uninstall rel --wait --timeout 90s".to_owned()]
    {
        let output = Command::new(&helm)
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("HOME", cluster.path())
            .args(line.split(' '))
            .output()
            .expect("helm runs");
        assert!(output.status.success(), "helm {line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn gone(cluster: &Cluster) {
    cluster.k(&format!("delete -f {} --timeout=60s", manifest("workloads.yaml")));
    eventually("nothing is left of them", || {
        let left = cluster.k("get pods,controllerrevisions,endpointslices,jobs -o name");
        left.lines().all(|name| name.contains("kubernetes") || name.contains("job.batch/now")).then_some(())
    });
}
