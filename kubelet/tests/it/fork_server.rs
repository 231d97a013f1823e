//! The process that containers' supervisors are forked from.

use std::path::Path;
use std::time::Duration;

use kubelet::LogLimits;
use kubelet::runtime::Runtime;

use crate::native::{PATIENCE, end, runtime, shell, start};

/// The processes that have this text among their arguments.
pub fn with_argument(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let has = |pid: &String| {
        let arguments = std::fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == text.as_bytes())
    };
    pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())).filter(has).collect()
}

/// The fork server is the one that is known by the node's directory alone.
fn servers(dir: &Path) -> Vec<String> {
    with_argument(dir.to_str().expect("UTF-8 path"))
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn it_is_one_for_all_and_supervisors_are_told_apart_by_their_directories() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let ids = [
        start(&runtime, shell(0, "exec sleep 1000")).await,
        start(&runtime, shell(1, "exec sleep 1000")).await,
    ];
    assert_eq!(servers(dir.path()).len(), 1);
    for attempt in ["0", "1"] {
        let container = dir.path().join("containers/u1/main").join(attempt);
        assert_eq!(servers(&container).len(), 1, "{}", container.display());
    }
    for id in &ids {
        runtime.stop_container(id, Duration::ZERO).await.expect("kill");
        assert_eq!(end(&mut events).await.code, 137);
    }
    drop(runtime);
    wait_until("the fork server ends with its agent", || servers(dir.path()).is_empty());
}

#[tokio::test]
async fn killed_it_takes_no_container_along_and_is_replaced() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (runtime, mut events) = runtime(dir.path(), LogLimits::default());
    let first = start(&runtime, shell(0, "exec sleep 1000")).await;
    let [server] = servers(dir.path()).try_into().expect("one fork server");
    let pid = nix::unistd::Pid::from_raw(server.parse().expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    wait_until("the fork server is gone", || servers(dir.path()).is_empty());
    let second = start(&runtime, shell(1, "exec sleep 1000")).await;
    for id in [&first, &second] {
        runtime.stop_container(id, Duration::from_secs(30)).await.expect("stop");
        assert_eq!(end(&mut events).await.code, 143, "it ran until it was asked to stop");
    }
}
