//! Children as processes: how each is started, and what it says on its standard output.
//!
//! A child is in its own process group, so that Ctrl-C in a terminal reaches only the supervisor, which ends
//! everything in order. It ends at once when the supervisor dies (it asks the kernel for that itself, see
//! [`crate::member::end_with_parent`]): an agent that nobody watches would fight with the next `up` over its
//! directory. The pods of a node live on under their shims and are adopted.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::layout::ChildId;

/// How many bytes of a log are shown when its process doesn't start.
const TAIL: u64 = 1500;

/// Everything that is needed to start a child again and again.
#[derive(Clone, Debug)]
pub struct ChildSpec {
    /// Which child.
    pub id: ChildId,
    /// The arguments of `amoeba`.
    pub arguments: Vec<OsString>,
    /// Where its log goes; grows over restarts.
    pub log: PathBuf,
}

/// A started child.
pub struct Running {
    /// The process.
    pub process: Child,
    /// What it says.
    pub says: Reports,
}

/// What a child tells its supervisor, one word a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It serves.
    Ready,
    /// This member leads the Raft group.
    Leading,
    /// It doesn't lead any more.
    Following,
}

impl Report {
    /// The word on the pipe.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leading => "leading",
            Self::Following => "following",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Ready, Self::Leading, Self::Following].into_iter().find(|report| report.word() == word)
    }
}

/// The reports of a child.
pub struct Reports(tokio::io::Lines<BufReader<ChildStdout>>);

impl Reports {
    /// The next one; `None` when it closed its output.
    pub async fn next(&mut self) -> Option<Report> {
        while let Ok(Some(line)) = self.0.next_line().await {
            if let Some(report) = Report::parse(line.trim()) {
                return Some(report);
            }
        }
        None
    }
}

/// Starts a child. Must be called on the main thread: the kernel ends the child when the *thread* that
/// started it ends.
pub fn spawn(spec: &ChildSpec) -> io::Result<Running> {
    let log = open_log(&spec.log)?;
    let mut process = Command::new(std::env::current_exe()?)
        .args(&spec.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let stdout = process.stdout.take().expect("standard output was asked to be a pipe");
    Ok(Running { process, says: Reports(BufReader::new(stdout).lines()) })
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// How a process ended, as it reads after its name.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended by itself".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |name| name.to_string())
}

/// The last lines of a log, indented, for an error message.
pub fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(its log can't be read: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(8)..];
    last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(how(ExitStatus::from_raw(0)), "ended by itself");
        assert_eq!(how(ExitStatus::from_raw(3 << 8)), "ended with exit code 3");
        assert_eq!(how(ExitStatus::from_raw(9)), "was killed by SIGKILL");
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        std::fs::write(&path, text).expect("written");
        let tail = tail(&path);
        assert!(tail.ends_with("  line 99") && tail.lines().count() == 8, "{tail}");
    }
}
