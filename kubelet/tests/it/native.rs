//! Real processes under real shims.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::eventually;
use kubelet::LogLimits;
use kubelet::image::ImageStore;
use kubelet::pod::{ContainerId, ContainerName, PodRef, PodUid};
use kubelet::runtime::native::{NativeRuntime, log_path};
use kubelet::runtime::{
    Begins, ContainerConfig, Exit, Fetch, FoundState, ImageUse, PullPolicy, Runtime, RuntimeEvent,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

/// The longest anything here may take; far above what it does take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The example beside this test's program.
pub fn shim_command() -> Vec<std::ffi::OsString> {
    let test = std::env::current_exe().expect("own path");
    let target = test.parent().and_then(Path::parent).expect("target directory");
    vec![target.join("examples/shim").into_os_string()]
}

pub fn runtime(dir: &Path, limits: LogLimits) -> (NativeRuntime, mpsc::Receiver<RuntimeEvent>) {
    let images = ImageStore::open(&dir.join("images")).expect("image store");
    let runtime = NativeRuntime::new(dir, images, shim_command(), limits);
    let events = runtime.events().expect("first reader");
    (runtime, events)
}

fn pod() -> PodRef {
    PodRef { namespace: "default".to_owned(), name: "web".to_owned(), uid: PodUid("u1".to_owned()) }
}

pub fn shell(attempt: u32, script: &str) -> ContainerConfig {
    ContainerConfig {
        pod: pod(),
        container: ContainerName("main".to_owned()),
        target: None,
        attempt,
        image: "any".to_owned(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        args: Vec::new(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        working_dir: None,
        user: None,
        group: None,
        termination_message_path: None,
        termination_message_from_logs: false,
        stop_signal: None,
        pod_group: None,
        cgroup: None,
        limits: Default::default(),
        oom_score_adj: 0,
        network: None,
        isolation: None,
        stdin: false,
        stdin_once: false,
        tty: false,
        asked: None,
        self_fence: false,
    }
}

pub async fn start(runtime: &NativeRuntime, config: ContainerConfig) -> ContainerId {
    let id = runtime.create_container(config).await.expect("create");
    runtime.start_container(&id).await.expect("start");
    id
}

pub async fn end(events: &mut mpsc::Receiver<RuntimeEvent>) -> Exit {
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("an end in time").expect("open").exit
}

fn log(dir: &Path, attempt: u32) -> PathBuf {
    log_path(dir, &pod(), &ContainerName("main".to_owned()), attempt)
}

/// The text of a log without times and tags.
pub fn text(path: &Path) -> String {
    let raw = std::fs::read_to_string(path).unwrap_or_default();
    raw.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
}

/// Waits until the log holds this.
pub async fn wait_for_log(path: &Path, wanted: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !text(path).contains(wanted) {
        assert!(std::time::Instant::now() < deadline, "no {wanted:?} in {}", path.display());
        tokio::task::yield_now().await;
    }
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).join("stat").exists()
}

#[tokio::test]
async fn output_environment_and_exit_code_are_kept() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    start(&runtime, shell(0, "echo $GREETING $HOSTNAME; echo oops >&2; printf unfinished; exit 7")).await;
    let exit = end(&mut events).await;
    assert_eq!((exit.code, exit.reason), (7, None));
    let mut lines: Vec<String> = text(&log(dir.path(), 0)).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["hello web", "oops", "unfinished"]);
}

#[tokio::test]
async fn signals_end_the_process_and_all_it_has_started() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    // A descendant in a session of its own, which no process group reaches.
    let script = "setsid sh -c 'echo child $$; exec sleep 1000' & wait";
    let id = start(&runtime, shell(0, script)).await;
    wait_for_log(&log(dir.path(), 0), "child ").await;
    let child = text(&log(dir.path(), 0)).trim().rsplit(' ').next().expect("pid").to_owned();
    assert!(is_alive(&child));
    runtime.stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(end(&mut events).await.code, 143);
    assert!(!is_alive(&child), "the supervisor ends after the last descendant");
}

#[tokio::test]
async fn a_process_that_ignores_term_is_killed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let id = start(&runtime, shell(0, "trap '' TERM; echo ready; while :; do sleep 0.01; done")).await;
    wait_for_log(&log(dir.path(), 0), "ready").await;
    runtime.stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    runtime.stop_container(&id, Duration::ZERO).await.expect("kill");
    assert_eq!(end(&mut events).await.code, 137);
    runtime.stop_container(&id, Duration::ZERO).await.expect("an ended container is no error");
}

#[tokio::test]
async fn a_container_that_fences_itself_ends_with_the_nodes_promise() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let fenced = |attempt| {
        let script = "setsid sh -c 'echo child $$; exec sleep 1000' & wait";
        ContainerConfig { self_fence: true, ..shell(attempt, script) }
    };
    let id = runtime.create_container(fenced(0)).await.expect("create");
    let refused = runtime.start_container(&id).await.expect_err("nothing was promised").chain();
    assert!(refused.contains("the node can't say that it lives"), "{refused}");

    let promise = kubelet::fence::path(dir.path());
    let until = kubelet::fence::now() + Duration::from_secs(3);
    kubelet::fence::promise(&promise, until).expect("written");
    start(&runtime, fenced(1)).await;
    wait_for_log(&log(dir.path(), 1), "child ").await;
    let child = text(&log(dir.path(), 1)).trim().rsplit(' ').next().expect("pid").to_owned();
    // Nobody renews, as when the agent is dead or cut off.
    let exit = end(&mut events).await;
    assert!(kubelet::fence::now() >= until, "not earlier than was promised");
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("SelfFenced")));
    assert!(!is_alive(&child), "nothing of it is left");
}

/// Whether nothing runs any more under this number; one that nobody has waited for doesn't run.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_supervisor_that_hangs_on_its_log_is_fenced_all_the_same() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    // A pipe that nobody empties: writing to it hangs, as on a disk that has gone.
    let path = log(dir.path(), 0);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("opened");
    let until = kubelet::fence::now() + Duration::from_secs(3);
    kubelet::fence::promise(&kubelet::fence::path(dir.path()), until).expect("written");
    let pids = dir.path().join("pids");
    let script = format!(
        "setsid sleep 1000 & echo $! $$ > {0}.new; mv {0}.new {0}; while :; do echo full; done",
        pids.display()
    );
    start(&runtime, ContainerConfig { self_fence: true, ..shell(0, &script) }).await;
    let pids = eventually("it runs", || std::fs::read_to_string(&pids).ok());
    for pid in pids.split_whitespace() {
        let pid = pid.parse().expect("a number");
        assert!(!has_ended(pid) || kubelet::fence::now() >= until, "not earlier than was promised");
        eventually("it ends with the promise", || has_ended(pid).then_some(()));
    }
    assert!(kubelet::fence::now() >= until);
    // The disk is back, and what had to be written is.
    let emptying = tokio::task::spawn_blocking(move || empty(pipe));
    let exit = end(&mut events).await;
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("SelfFenced")));
    emptying.await.expect("emptied");
}

/// Reads until nobody writes any more.
fn empty(pipe: File) {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let mut buffer = vec![0; 64 << 10];
    loop {
        poll(&mut fds, PollTimeout::NONE).expect("a poll");
        match (&pipe).read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs_and_reads_how_the_rest_ended() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (first, _events) = runtime(dir.path(), LogLimits::default());
    let running = start(&first, shell(0, "echo up; exec sleep 1000")).await;
    let ended = start(&first, shell(1, "exit 5")).await;
    wait_for_log(&log(dir.path(), 0), "up").await;
    drop(first);

    let (second, mut events) = runtime(dir.path(), LogLimits::default());
    let found = second.list_containers().await.expect("list");
    let state = |id: &ContainerId| found.iter().find(|f| f.id == *id).expect("found").state.clone();
    assert!(matches!(state(&running), FoundState::Running { .. }));
    // The other one may still be ending: then its end is told as an event.
    let exit = match state(&ended) {
        FoundState::Exited(exit) => exit,
        _ => end(&mut events).await,
    };
    assert_eq!(exit.code, 5);
    second.stop_container(&running, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(end(&mut events).await.code, 143, "the end of an adopted container is seen");
    second.remove_sandbox(&pod()).await.expect("remove");
    assert!(second.list_containers().await.expect("list").is_empty());
    assert!(!log(dir.path(), 0).exists());
}

#[tokio::test]
async fn a_power_cut_leaves_no_process_and_an_unknown_end() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (first, mut events) = runtime(dir.path(), LogLimits::default());
    start(&first, shell(0, "sh -c 'echo child $$; exec sleep 1000' & wait")).await;
    wait_for_log(&log(dir.path(), 0), "child ").await;
    let child = text(&log(dir.path(), 0)).trim().rsplit(' ').next().expect("pid").to_owned();
    assert_eq!(kubelet::power_off(dir.path()).expect("power off"), 1);
    let exit = end(&mut events).await;
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    let deadline = std::time::Instant::now() + PATIENCE;
    while is_alive(&child) && std::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert!(!is_alive(&child) || is_zombie(&child));
}

/// Killed, and not yet collected by whoever inherited it.
fn is_zombie(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, _events) = runtime(dir.path(), LogLimits::default());
    for (command, why) in [
        ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
        ("/no/such/program", "exec: \"/no/such/program\": no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let config = ContainerConfig { command: vec![command.to_owned()], ..shell(0, "") };
        let id = runtime.create_container(config).await.expect("create");
        let error = runtime.start_container(&id).await.expect_err("not startable");
        assert_eq!(error.chain(), why);
    }
    let config = ContainerConfig { command: Vec::new(), image: "nginx".to_owned(), ..shell(0, "") };
    let never = Fetch { policy: PullPolicy::Never, logins: Vec::new() };
    let silent: &Begins<'_> = &|| panic!("nothing is fetched");
    let error = runtime.ensure_image(&config, &never, silent).await.expect_err("no such image");
    let want = "Container image \"nginx\" is not present with pull policy of Never";
    assert_eq!(error.chain(), want);
    // Who names a registry doesn't mean the machine's own programs.
    let named = ContainerConfig { image: "registry.example:5000/web:1".to_owned(), ..shell(0, "true") };
    let error = runtime.ensure_image(&named, &never, silent).await.expect_err("no such image");
    assert!(error.chain().ends_with("is not present with pull policy of Never"), "{error}");
    let short = ContainerConfig { image: "nginx".to_owned(), ..shell(0, "true") };
    assert_eq!(runtime.ensure_image(&short, &never, silent).await.expect("a plain process"), ImageUse::Plain);
}

#[tokio::test]
async fn logs_are_rotated_while_the_container_runs() {
    let dir = tempfile::tempdir().expect("tempdir");
    let limits = LogLimits { max_size: 2_000, max_files: 3 };
    let (runtime, mut events) = runtime(dir.path(), limits);
    start(&runtime, shell(0, "for i in $(seq 200); do echo line $i; done")).await;
    assert_eq!(end(&mut events).await.code, 0);
    let files = kubelet::shim::log::files(&log(dir.path(), 0), limits);
    assert_eq!(files.len(), 3);
    let all: String = files.iter().map(|file| text(file)).collect();
    assert!(all.ends_with("line 200\n"), "{all}");
}

#[tokio::test]
async fn the_end_of_the_log_stands_in_for_last_words() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let config = ContainerConfig { termination_message_from_logs: true, ..shell(0, "echo why; exit 1") };
    start(&runtime, config).await;
    assert_eq!(end(&mut events).await.message.as_deref(), Some("why\n"));
    let file = dir.path().join("last-words");
    let script = format!("printf bye > {}; exit 0", file.display());
    let config = ContainerConfig { termination_message_path: Some(file), ..shell(1, &script) };
    start(&runtime, config).await;
    assert_eq!(end(&mut events).await.message.as_deref(), Some("bye"));
}

#[tokio::test]
async fn commands_beside_a_container_answer_or_time_out() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let id = start(&runtime, shell(0, "exec sleep 1000")).await;
    let words = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
    let done = runtime.exec_sync(&id, &words("echo $GREETING; exit 3"), PATIENCE).await.expect("exec");
    assert_eq!((done.code, done.output.as_slice()), (3, b"hello\n".as_slice()));
    let late = runtime.exec_sync(&id, &words("sleep 1000"), Duration::from_millis(50)).await;
    assert!(late.is_err(), "{late:?}");
    runtime.stop_container(&id, Duration::ZERO).await.expect("kill");
    assert_eq!(end(&mut events).await.code, 137);
}

#[tokio::test]
async fn a_start_that_an_earlier_agent_left_in_the_middle_is_given_up() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (first, _events) = runtime(dir.path(), LogLimits::default());
    let id = first.create_container(shell(0, "exec sleep 1000")).await.expect("create");
    let (second, _events) = runtime(dir.path(), LogLimits::default());
    let found = second.list_containers().await.expect("list");
    assert!(matches!(found[0].state, FoundState::Created), "{found:?}");
    // The first agent's shim comes late: it must not run what the second has given up.
    let error = first.start_container(&id).await.expect_err("given up");
    assert_eq!(error.chain(), "the start was given up by the agent");
}
