//! The processes of a node: its agent, the shims of its containers, and everything below them.
//!
//! Shims outlive their agent, so they are found by the node's directory on their command line, not by who
//! their parent is.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its command line.
    pub arguments: Vec<String>,
}

/// The shims of the node whose directory is `dir`, and all processes below them; parents first.
pub fn pods_of(processes: &[Process], dir: &Path) -> Vec<i32> {
    let shims = processes.iter().filter(|process| is_shim_of(process, dir)).map(|process| process.pid);
    let mut found: Vec<i32> = shims.collect();
    let mut known: BTreeSet<i32> = found.iter().copied().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = processes.iter().filter(|process| process.parent == parent).map(|process| process.pid);
        found.extend(children.filter(|pid| known.insert(*pid)));
        next += 1;
    }
    found
}

/// `PROGRAM shim … DIR/… …`: no other program has a reason to be called like this.
fn is_shim_of(process: &Process, dir: &Path) -> bool {
    match &process.arguments[..] {
        [_, verb, rest @ ..] => {
            verb == "shim" && rest.iter().any(|argument| Path::new(argument).starts_with(dir))
        }
        _ => false,
    }
}

/// All processes of this host that can be read.
pub fn all() -> io::Result<Vec<Process>> {
    let entries = fs::read_dir("/proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // A process that ends while it is read is no process any more.
    Ok(pids.filter_map(|pid| read(pid).ok().flatten()).collect())
}

fn read(pid: i32) -> io::Result<Option<Process>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let command = fs::read(format!("/proc/{pid}/cmdline"))?;
    let parts = command.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    let arguments = parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    Ok(parent(&stat).map(|parent| Process { pid, parent, arguments }))
}

/// The fourth field of `/proc/PID/stat`. The second is a name in parentheses that may contain anything.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sends `signal` to the processes of a node's pods. Parents first, so that nobody reports what happens to
/// the rest.
pub fn signal_pods(dir: &Path, signal: Signal) -> io::Result<()> {
    for pid in pods_of(&all()?, dir) {
        // It may have ended in between.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, command: &str) -> Process {
        Process { pid, parent, arguments: command.split(' ').map(str::to_owned).collect() }
    }

    #[test]
    fn shims_are_known_by_their_directory_and_bring_their_children() {
        let processes = [
            process(1, 0, "init"),
            process(10, 1, "/bin/amoeba node --data-dir /d/nodes/n1"),
            process(11, 10, "/bin/amoeba shim /d/nodes/n1/containers/a"),
            process(12, 11, "/bin/sh -c sleep"),
            process(13, 12, "sleep 100"),
            process(14, 1, "/bin/amoeba shim /d/nodes/n1/containers/b"),
            process(20, 1, "/bin/amoeba shim /d/nodes/n10/containers/c"),
            process(21, 20, "sleep 5"),
            process(30, 1, "vim /d/nodes/n1 shim"),
        ];
        assert_eq!(pods_of(&processes, Path::new("/d/nodes/n1")), [11, 14, 12, 13]);
        assert_eq!(pods_of(&processes, Path::new("/d/nodes/n10")), [20, 21]);
        assert!(pods_of(&processes, Path::new("/d/nodes/n2")).is_empty());
    }

    #[test]
    fn the_parent_is_read_behind_any_name() {
        assert_eq!(parent("12 (a) b (c) S 7 12 12 0"), Some(7));
        assert_eq!(parent("nonsense"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = i32::try_from(std::process::id()).expect("process ids are small");
        assert!(all().expect("/proc is readable").iter().any(|process| process.pid == own));
    }
}
