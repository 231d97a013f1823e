//! Processes that a test starts: what they say, and their end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc;
use std::time::Instant;

use crate::PATIENCE;

/// A background process that ends with the test.
pub struct Background(Child);

impl Background {
    /// Takes the process over.
    pub fn new(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits for a line that contains `text` and returns it.
pub fn wait_for_line(lines: &mpsc::Receiver<String>, text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => seen.push(line),
            Err(error) => panic!("no line with `{text}` ({error}); saw: {seen:#?}"),
        }
    }
}

/// What a process prints, line by line.
pub fn lines_of(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // After the receiver is gone, keep reading, so that the process never blocks on a full pipe.
            send.send(line).ok();
        }
    });
    receive
}

/// The end of each log in a directory, for a failed test.
pub(crate) fn print_logs_in(dir: &Path) {
    for file in fs::read_dir(dir).into_iter().flatten().flatten() {
        if file.path().extension().is_some_and(|extension| extension == "log") {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let tail: Vec<_> = text.lines().rev().take(40).collect();
            eprintln!("--- {}", file.path().display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Our binary's processes that were started on a directory and whose arguments pass `keep`.
pub(crate) fn processes_on(dir: &Path, keep: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let dir = dir.to_str().expect("UTF-8 path");
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let args = arguments(*pid);
            args.iter().any(|arg| arg.contains(dir)) && is_ours(*pid) && keep(&args)
        })
        .collect()
}

/// Kills whatever was started on a directory, pods and all.
pub fn end_all_on(dir: &Path) {
    processes_on(dir, |_| true).into_iter().for_each(kill_tree);
}

pub(crate) fn arguments(pid: i32) -> Vec<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

fn is_ours(pid: i32) -> bool {
    let target = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    target.file_name().is_some_and(|name| name.to_string_lossy().starts_with("amoeba"))
}

pub(crate) fn kill(pid: i32) {
    // SAFETY: kill(2) has no memory effects; a pid that is already gone only gives ESRCH.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Kills a process and its descendants.
fn kill_tree(pid: i32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    kill(pid);
    children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill_tree);
}
