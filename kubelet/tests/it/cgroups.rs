//! What control groups count and limit: the same on hosts of either version. On one with version 2 alone they are
//! run by `make test-vm`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kubelet::container::cgroup::{Limits, PodGroup, is_unified, weigh};
use kubelet::pod::{ContainerId, group};
use kubelet::runtime::{ContainerConfig, Runtime};

use crate::containers::{World, script, wait_for_exec, world};
use crate::native::{PATIENCE, end, wait_for_log};

/// The interface's name of a file, as version 1 and as version 2 has it.
type File = (&'static str, &'static str, &'static str);
const MEMORY: File = ("memory", "memory.limit_in_bytes", "memory.max");
const CPU: File = ("cpu", "cpu.cfs_quota_us", "cpu.max");
const WEIGHT: File = ("cpu", "cpu.shares", "cpu.weight");

fn pods(world: &World) -> PodGroup {
    group::of(&world.pod, Some(64))
}

/// A directory of a container's group, or of its pod's.
fn dir(world: &World, container: Option<&str>, controller: &str) -> PathBuf {
    let dir = pods(world).container(container.unwrap_or("x")).dir(controller).expect("a controller");
    if container.is_some() { dir } else { dir.parent().expect("the pod's").to_owned() }
}

fn told(world: &World, container: Option<&str>, (controller, split, unified): File) -> String {
    let path = dir(world, container, controller).join(if is_unified() { unified } else { split });
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

/// A quota in the words of the interface.
fn quota(micros: &str) -> String {
    if is_unified() { format!("{micros} 100000") } else { micros.to_owned() }
}

async fn begin(world: &World, config: ContainerConfig) -> ContainerId {
    world.make_sandbox().await;
    let id = world.runtime.create_container(config).await.expect("create");
    world.runtime.start_container(&id).await.expect("start");
    id
}

async fn finish(world: &mut World, id: &ContainerId) {
    world.runtime.stop_container(id, Duration::ZERO).await.expect("kill");
    assert_eq!(end(&mut world.events).await.code, 137);
    let dir = dir(world, None, "memory");
    assert!(!dir.exists(), "the groups go with the pod's last container: {}", dir.display());
}

#[tokio::test]
async fn memory_is_limited_and_its_want_is_named() {
    let spec = "{containers: [{name: main, resources: {limits: {memory: 32Mi, cpu: 500m}}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    let mut config = world.config(0, "");
    config.command = ["/bin/busybox", "tail", "/dev/zero"].map(str::to_owned).to_vec();
    let (exit, said) = world.run(config).await;
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("OOMKilled")), "{said}");
    assert!(!dir(&world, None, "memory").exists(), "the groups go with the pod's last container");
}

#[tokio::test]
async fn limits_change_while_a_container_runs() {
    let spec = "{containers: [{name: main, resources: {limits: {memory: 64Mi, cpu: 500m}}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    let id = begin(&world, world.config(0, &script("exec busybox sleep 1000"))).await;
    wait_for_exec(&world, &id).await;
    let seen = |container| (told(&world, container, CPU), told(&world, container, MEMORY));
    let both = |wanted: (String, String)| {
        assert_eq!(seen(Some(&id.0)), wanted);
        assert_eq!(seen(None), wanted, "the pod's");
    };
    both((quota("50000"), (64 << 20).to_string()));
    let of_pod = |limits: &Limits| PodGroup { limits: limits.clone(), ..pods(&world) };
    let change = async |limits: &Limits| world.runtime.update_container(&id, limits, &of_pod(limits)).await;
    let more = Limits { cpu_request: 250, cpu: Some(1500), memory: Some(128 << 20), pids: None };
    change(&more).await.expect("more");
    both((quota("150000"), (128 << 20).to_string()));
    let less = Limits { memory: Some(4096), ..more.clone() };
    let error = change(&less).await.expect_err("too little").chain();
    assert!(
        error.contains("attempting to set container memory limit (4096) below current usage ("),
        "{error}"
    );
    both((quota("150000"), (128 << 20).to_string()));
    change(&Limits { cpu: Some(200), ..more }).await.expect("less");
    both((quota("20000"), (128 << 20).to_string()));
    finish(&mut world, &id).await;
}

#[tokio::test]
async fn a_pod_is_weighed_and_limited_as_a_whole() {
    let spec = "{containers: [{name: main, resources: {requests: {cpu: 2}, limits: {cpu: 3}}},
                              {name: side, resources: {requests: {cpu: 1}, limits: {cpu: 1}}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    let id = begin(&world, world.config(0, &script("exec busybox sleep 1000"))).await;
    let weights = if is_unified() { ("174", "118") } else { ("2048", "3072") };
    assert_eq!((&*told(&world, Some(&id.0), WEIGHT), &*told(&world, None, WEIGHT)), weights);
    assert_eq!((told(&world, Some(&id.0), CPU), told(&world, None, CPU)), (quota("300000"), quota("400000")));
    let unlimited = told(&world, None, MEMORY);
    assert!(unlimited == "max" || unlimited.len() > 15, "not every container has a limit: {unlimited}");
    // Others' pods are in the class, too.
    weigh(4).expect("weigh");
    let class = dir(&world, None, "cpu").parent().expect("the class's").to_owned();
    assert!(class.ends_with("kubepods/burstable"), "{}", class.display());
    let file = if is_unified() { "cpu.weight" } else { "cpu.shares" };
    let weight: u64 =
        std::fs::read_to_string(class.join(file)).expect("a weight").trim().parse().expect("a number");
    assert!(weight >= weights.1.parse().expect("a number"), "{weight}");
    finish(&mut world, &id).await;
}

#[tokio::test]
async fn processes_are_limited() {
    let Some(mut world) = world("{}", "{containers: [{name: main}]}") else { return };
    let many = "i=0; while [ $i -lt 100 ]; do busybox sleep 1000 & i=$((i+1)); done; echo all of them";
    let (exit, said) = world.run(world.config(0, &script(many))).await;
    assert_ne!(exit.code, 0, "{said}");
    assert!(said.contains("can't fork"), "{said}");
}

#[tokio::test]
async fn usage_is_what_the_group_has_used() {
    let spec = "{containers: [{name: main, resources: {limits: {memory: 128Mi}}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    // Memory that is in no process: it is a file's, which only the group knows.
    let eat = script("head -c 20000000 /dev/zero >/dev/shm/file; echo eaten; exec busybox sleep 1000");
    let config = world.config(0, &eat);
    let log = world.log(&config);
    let id = begin(&world, config).await;
    wait_for_log(&log, "eaten").await;
    // Who joined the container is gone, and its time is not.
    let spin =
        ["/bin/busybox", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"].map(str::to_owned);
    let before = world.runtime.usage().await.expect("usage")[0].usage;
    world.runtime.exec_sync(&id, &spin, PATIENCE).await.expect("spin");
    let after = world.runtime.usage().await.expect("usage").remove(0);
    assert_eq!(after.group, format!("{}/{}", pods(&world).path, id.0));
    let used = after.usage;
    assert!(used.working_set > 20_000_000 && used.working_set < 128 << 20, "{used:?}");
    assert!(used.rss < used.working_set && used.processes == 1, "{used:?}");
    assert!(used.cpu > before.cpu, "{before:?} {used:?}");
    let counts_stalls = is_unified() && Path::new("/proc/pressure/cpu").exists();
    for stalls in [after.stalls, after.pod_stalls] {
        assert_eq!(stalls.cpu.is_some() && stalls.memory.is_some(), counts_stalls, "{stalls:?}");
    }
    finish(&mut world, &id).await;
}

/// What Docker or systemd do inside: they make groups of their own in the container's, and leave that.
const DIVIDE: &str = "
    busybox mkdir /tmp/tree
    if [ -e /sys/fs/cgroup/cgroup.procs ]; then busybox mount -t cgroup2 tree /tmp/tree
    else busybox mount -t cgroup -o memory tree /tmp/tree; fi
    busybox mkdir /tmp/tree/a /tmp/tree/b /tmp/tree/b/c
    echo $$ >/tmp/tree/a/cgroup.procs
    [ ! -e /tmp/tree/cgroup.controllers ] || echo +memory >/tmp/tree/cgroup.subtree_control || exit 4
    echo divided
    exec busybox sleep 1000";

#[tokio::test]
async fn who_divides_its_group_is_still_entered_and_leaves_nothing() {
    let spec = "{containers: [{name: main, securityContext: {privileged: true}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    let config = world.config(0, DIVIDE);
    let log = world.log(&config);
    let id = begin(&world, config).await;
    // Not by looking inside: who is in the group keeps it from being divided.
    wait_for_log(&log, "divided").await;
    let look = ["/bin/busybox", "cat", "/proc/self/cgroup"].map(str::to_owned);
    let seen = world.runtime.exec_sync(&id, &look, PATIENCE).await.expect("enter");
    assert_eq!(seen.code, 0, "{}", String::from_utf8_lossy(&seen.output));
    finish(&mut world, &id).await;
}
