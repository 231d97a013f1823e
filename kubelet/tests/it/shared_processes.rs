//! Pods whose containers see one another's processes.

use std::time::Duration;

use kubelet::LogLimits;
use kubelet::image::ImageStore;
use kubelet::pod::{ContainerId, ContainerName, PodRef};
use kubelet::runtime::native::NativeRuntime;
use kubelet::runtime::{ContainerConfig, Exit, Runtime};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::containers::{World, script, world};
use crate::fork_server::{wait_until, with_argument};
use crate::native::{PATIENCE, end, shim_command, wait_for_log};

const SPEC: &str = "{shareProcessNamespace: true, containers: [{name: main}, {name: other}]}";
/// Defines `finds TIME`, which sets `p` to the number of the process that sleeps for that time.
const FINDS: &str = "finds() { for d in /proc/[0-9]*; do p=${d#/proc/}; \
    [ \"$(2>/dev/null <$d/cmdline busybox tr '\\0' ' ')\" = \"busybox sleep $1 \" ] && return; done; return 1; }; ";

fn other(world: &World, attempt: u32, text: &str) -> ContainerConfig {
    let text = script(&format!("{FINDS}until finds 1000; do :; done; {text}"));
    ContainerConfig { container: ContainerName("other".to_owned()), ..world.config(attempt, &text) }
}

async fn start(world: &World, config: ContainerConfig) -> ContainerId {
    let id = world.runtime.create_container(config).await.expect("create");
    world.runtime.start_container(&id).await.expect("start");
    id
}

/// A container whose process sleeps for 1000 seconds.
async fn start_main(world: &World, attempt: u32) -> ContainerId {
    start(world, world.config(attempt, &script("echo mine > /tmp/own; exec busybox sleep 1000"))).await
}

/// What a command in a container that runs says.
async fn look(world: &World, id: &ContainerId, command: &str) -> String {
    let command = ["/bin/busybox", "sh", "-c", &format!("{FINDS}{command}")].map(str::to_owned);
    let done = world.runtime.exec_sync(id, &command, PATIENCE).await.expect("exec");
    String::from_utf8_lossy(&done.output).into_owned()
}

/// The processes that hold the pod's.
fn holders(world: &World) -> Vec<String> {
    let sandbox = world.runtime.sandbox_dir(&PodRef::of(&world.pod)).expect("native");
    with_argument(sandbox.to_str().expect("UTF-8 path"))
}

fn kill_now(pid: &str) {
    kill(Pid::from_raw(pid.parse().expect("a number")), Signal::SIGKILL).expect("killed");
}

#[tokio::test]
async fn containers_see_one_another_and_the_end_of_one_leaves_the_rest() {
    let Some(mut world) = world("{}", SPEC) else { return };
    world.make_sandbox().await;
    let main = start_main(&world, 0).await;
    let (exit, said) = world
        .run(other(
            &world,
            0,
            "[ $$ = 1 ] || echo not the first; cat /proc/1/comm; kill -0 $p && echo reached; \
             cat /proc/$p/root/tmp/own; (busybox sleep 2000 & echo $! > /tmp/orphan); read o < /tmp/orphan; \
             until grep -q '^PPid:.1$' /proc/$o/status; do :; done; kill $o; while [ -e /proc/$o ]; do :; done; \
             echo buried; (busybox setsid busybox sleep 3000 >/dev/null 2>&1 </dev/null &); exit 3",
        ))
        .await;
    assert_eq!((exit.code, said.as_str()), (3, "not the first\npause\nreached\nmine\nburied\n"), "{exit:?}");
    let seen = look(&world, &main, "busybox cat /proc/1/comm; finds 3000; echo $?").await;
    assert_eq!(seen, "pause\n1\n", "what a container leaves behind ends with it");
    world.runtime.stop_container(&main, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(
        end(&mut world.events).await.code,
        143,
        "it isn't the first process: what it doesn't catch ends it"
    );
    assert_eq!(holders(&world).len(), 1);
    world.runtime.stop_sandbox(&PodRef::of(&world.pod)).await.expect("stopped");
    assert!(holders(&world).is_empty());
}

#[tokio::test]
async fn who_may_look_into_everything_finds_nothing_of_the_host_in_the_first_process() {
    let spec = "{shareProcessNamespace: true, containers: [{name: main, securityContext: {capabilities: {add: [SYS_PTRACE]}}}]}";
    let Some(mut world) = world("{}", spec) else { return };
    let said = world
        .say(&script(
            "ls /proc/1/root | wc -l; busybox tr -d '\\0' < /proc/1/environ | wc -c; ls /proc/1/fd; \
             grep -E '^(Uid|CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/1/status; grep -c . /proc/1/mountinfo; \
             [ $(readlink /proc/1/ns/ipc) = $(readlink /proc/self/ns/ipc) ] || echo another",
        ))
        .await;
    let none = "0".repeat(16);
    let want = format!(
        "0\n0\n0\nUid:\t65535\t65535\t65535\t65535\nCapPrm:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n1\nanother\n"
    );
    assert_eq!(said, want);
}

#[tokio::test]
async fn the_holder_outlives_the_agent_and_is_found_by_the_next_which_ends_it() {
    let Some(mut world) = world("{}", SPEC) else { return };
    world.make_sandbox().await;
    let main = start_main(&world, 0).await;
    let held = holders(&world);
    assert_eq!(held.len(), 1);
    let images = ImageStore::open(&world.dir.path().join("images")).expect("store");
    let next = NativeRuntime::new(world.dir.path(), images, shim_command(), LogLimits::default());
    world.events = next.events().expect("first reader");
    // The fork server, the holder's parent, ends with its agent.
    drop(std::mem::replace(&mut world.runtime, next));
    wait_until("the fork server ends", || {
        with_argument(world.dir.path().to_str().expect("UTF-8")).is_empty()
    });
    assert_eq!(world.runtime.list_containers().await.expect("list").len(), 1);
    assert!(!world.runtime.has_lost(&PodRef::of(&world.pod)).await);
    let (exit, said) = world.run(other(&world, 0, "echo found")).await;
    assert_eq!((exit.code, said.as_str(), holders(&world)), (0, "found\n", held));
    world.runtime.stop_container(&main, Duration::ZERO).await.expect("kill");
    assert_eq!(end(&mut world.events).await.code, 137);
    world.runtime.remove_sandbox(&PodRef::of(&world.pod)).await.expect("removed");
    assert!(holders(&world).is_empty());
}

#[tokio::test]
async fn with_the_holder_all_end_and_the_sandbox_is_lost_until_it_is_made_again() {
    let Some(mut world) = world("{}", SPEC) else { return };
    world.make_sandbox().await;
    start_main(&world, 0).await;
    let [holder] = holders(&world).try_into().expect("one");
    kill_now(&holder);
    let Exit { code, reason, .. } = end(&mut world.events).await;
    assert_eq!((code, reason), (137, None));
    wait_until("the holder is gone", || holders(&world).is_empty());
    assert!(world.runtime.has_lost(&PodRef::of(&world.pod)).await);
    world.make_sandbox().await;
    assert!(!world.runtime.has_lost(&PodRef::of(&world.pod)).await);
    start_main(&world, 1).await;
    let (_, said) = world.run(other(&world, 0, "echo again")).await;
    assert_eq!(said, "again\n");
    assert_eq!(kubelet::power_off(world.dir.path()).expect("power off"), 1);
    wait_until("nothing is left after a power cut", || holders(&world).is_empty());
}

#[tokio::test]
async fn a_container_whose_supervisor_dies_leaves_nothing_in_the_pod() {
    let Some(mut world) = world("{}", SPEC) else { return };
    world.make_sandbox().await;
    let main = start_main(&world, 0).await;
    let leaves = "(busybox setsid busybox sleep 4000 >/dev/null 2>&1 </dev/null &); echo left; exec busybox sleep 5000";
    let config = other(&world, 0, leaves);
    let log = world.log(&config);
    start(&world, config.clone()).await;
    wait_for_log(&log, "left\n").await;
    let run = world.dir.path().join(format!("containers/{}/other/0", config.pod.uid));
    let [supervisor] = with_argument(run.to_str().expect("UTF-8 path")).try_into().expect("one");
    kill_now(&supervisor);
    let exit = end(&mut world.events).await;
    assert_eq!(exit.reason.as_deref(), Some("ContainerStatusUnknown"));
    let gone = "while finds 4000 || finds 5000; do :; done; echo nobody";
    let (exit, said) = world.run(other(&world, 1, gone)).await;
    assert_eq!(exit.code, 0);
    assert!(said.ends_with("nobody\n"), "{said}");
    world.runtime.stop_container(&main, Duration::ZERO).await.expect("kill");
}

#[tokio::test]
async fn a_container_that_fences_itself_leaves_nothing_in_the_pod() {
    let Some(mut world) = world("{}", SPEC) else { return };
    world.make_sandbox().await;
    let main = start_main(&world, 0).await;
    let until = kubelet::fence::now() + Duration::from_secs(3);
    kubelet::fence::promise(&kubelet::fence::path(world.dir.path()), until).expect("written");
    let leaves = "(busybox setsid busybox sleep 6000 >/dev/null 2>&1 </dev/null &); exec busybox sleep 7000";
    let (exit, _) = world.run(ContainerConfig { self_fence: true, ..other(&world, 0, leaves) }).await;
    assert!(kubelet::fence::now() >= until, "not earlier than was promised");
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("SelfFenced")));
    assert_eq!(look(&world, &main, "finds 6000 || finds 7000; echo $?").await, "1\n");
    world.runtime.stop_container(&main, Duration::ZERO).await.expect("kill");
}
