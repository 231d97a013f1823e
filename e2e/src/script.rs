//! Scripts of shell commands with what they print: a user's session with a cluster, that reads as a list.
//!
//! A script is blocks with blank lines between them: comments (`# `), then a command behind `$ ` (its further lines
//! behind `> `), then what it prints. A command behind `~ ` is tried until it prints that. Each line of the output
//! must match a line of the script; runs of spaces count as one, and empty lines are left out. In the script
//!
//! * `*` stands for any text within a line, and a line `...` for any number of lines;
//! * `! ` begins a line of standard error (after all lines of standard output);
//! * `[1.32] ` begins a line that only this version of kubectl prints;
//! * `exit N` stands last where the exit code isn't 0.
//!
//! `UPDATE=1` rewrites, with the first kubectl, the answers that don't match.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{Cluster, PATIENCE, amoeba_binary, checkout, helm, pause};

/// Where a script's commands run: a home of their own with the tools on the path, in a namespace of their own.
pub struct Shell {
    home: PathBuf,
    namespace: String,
    version: String,
    /// Process groups of commands that left something in the background.
    groups: std::cell::RefCell<Vec<i32>>,
}

impl Shell {
    /// Prepares the folder `name` in the cluster's directory and creates the namespace of that name.
    pub fn new(cluster: &Cluster, kubectl: &Path, name: &str) -> Self {
        let home = cluster.path().join("shells").join(name);
        let tools = home.join("bin");
        fs::create_dir_all(&tools).expect("a directory");
        let link = |tool: &Path, name: &str| {
            std::os::unix::fs::symlink(tool, tools.join(name)).expect("a link to the tool");
        };
        link(kubectl, "kubectl");
        link(&amoeba_binary(), "amoeba");
        if let Some(helm) = helm() {
            link(&helm, "helm");
        }
        fs::copy(cluster.kubeconfig(), home.join("kubeconfig")).expect("the kubeconfig is copied");
        let shell = Self {
            version: version_of(kubectl),
            home,
            namespace: name.to_owned(),
            groups: Default::default(),
        };
        for command in [
            format!("kubectl create namespace {name}"),
            format!("kubectl config set-context --current --namespace={name}"),
        ] {
            let output = shell.run(&command);
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
        shell
    }

    /// Plays a script; answers each step that went wrong, and the script with the answers that were given.
    fn play(&self, script: &str) -> (Vec<String>, String) {
        let mut wrong = Vec::new();
        let mut played = Vec::new();
        for block in script.split("\n\n").filter(|block| !block.trim().is_empty()) {
            let step = Step::parse(block.trim_end());
            let printed = self.answer(&step);
            match step.answered_by(&printed, &self.version) {
                true => played.push(block.trim_end().to_owned()),
                false => {
                    wrong.push(format!("{}\n  printed\n{}", step.render(&step.expected), printed.join("\n")));
                    played.push(step.render(&printed));
                }
            }
        }
        (wrong, played.join("\n\n") + "\n")
    }

    /// What the step's command prints, at last if it is to be tried again.
    fn answer(&self, step: &Step) -> Vec<String> {
        // A step that is being written has no answer to wait for.
        let fresh = step.expected.is_empty() && updating();
        let deadline = Instant::now() + if fresh { Duration::from_secs(4) } else { PATIENCE };
        loop {
            let printed =
                step.command.as_ref().map(|command| printed(&self.run(command))).unwrap_or_default();
            let patient = step.retried && Instant::now() < deadline;
            if !patient || (!fresh && step.answered_by(&printed, &self.version)) {
                return printed;
            }
            pause(Duration::from_millis(100));
        }
    }

    /// Runs a command in a process group of its own, which `timeout` makes.
    fn run(&self, command: &str) -> Output {
        let system = std::env::var_os("PATH").unwrap_or_default();
        let mut path = OsString::from(self.home.join("bin"));
        path.push(":");
        path.push(system);
        let child = Command::new("timeout")
            .args([&PATIENCE.as_secs().to_string(), "bash", "-o", "pipefail", "-c", command])
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.home)
            .env("KUBECONFIG", self.home.join("kubeconfig"))
            .env("MANIFESTS", checkout().join("manifests"))
            .env("TESTDATA", checkout().join("e2e/testdata"))
            .env("NAMESPACE", &self.namespace)
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        if command.contains("& ") {
            self.groups.borrow_mut().push(i32::try_from(child.id()).expect("pids fit"));
        }
        child.wait_with_output().expect("the shell ends")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        for group in self.groups.borrow().iter() {
            // SAFETY: kill(2) has no memory effects; a group that is gone only gives ESRCH.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}

/// Plays the script of this name in `e2e/testdata/commands/`.
///
/// # Panics
/// With every step that went wrong.
pub fn play(cluster: &Cluster, kubectl: &Path, name: &str) {
    let file = checkout().join("e2e/testdata/commands").join(name).with_extension("txt");
    let script = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let shell = Shell::new(cluster, kubectl, &format!("{name}-{}", version_of(kubectl).replace('.', "-")));
    let started = Instant::now();
    let (wrong, played) = shell.play(&script);
    eprintln!("{name} with kubectl {}: {:.0?}", shell.version, started.elapsed());
    if updating() {
        fs::write(&file, played).expect("the script is rewritten");
    } else {
        assert!(wrong.is_empty(), "{name} with kubectl {}:\n\n{}", shell.version, wrong.join("\n\n"));
    }
}

fn updating() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// `1.37` of `Client Version: v1.37.0`.
fn version_of(kubectl: &Path) -> String {
    let output = Command::new(kubectl).args(["version", "--client"]).output().expect("kubectl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next().and_then(|line| line.split_once(": v")).expect("a version").1;
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

struct Step {
    comments: Vec<String>,
    retried: bool,
    /// None in a block of comments alone.
    command: Option<String>,
    expected: Vec<String>,
}

impl Step {
    fn parse(block: &str) -> Self {
        let mut lines = block.lines().peekable();
        let comments =
            std::iter::from_fn(|| lines.next_if(|line| line.starts_with('#'))).map(str::to_owned).collect();
        let first = lines.next().unwrap_or_default();
        let command = first.strip_prefix("$ ").or(first.strip_prefix("~ "));
        assert!(command.is_some() || first.is_empty(), "a command begins with `$ ` or `~ `: {first}");
        let command = command.map(|first| {
            let more = std::iter::from_fn(|| lines.next_if(|line| line.starts_with('>')));
            more.fold(first.to_owned(), |all, line| {
                all + "\n" + line.strip_prefix("> ").unwrap_or(&line[1..])
            })
        });
        let retried = first.starts_with('~');
        Self { comments, retried, command, expected: lines.map(str::to_owned).collect() }
    }

    fn render(&self, answer: &[String]) -> String {
        let mut lines = self.comments.clone();
        if let Some(command) = &self.command {
            let prompt = if self.retried { '~' } else { '$' };
            lines.push(format!("{prompt} {}", command.replace('\n', "\n> ")));
        }
        lines.extend(answer.iter().cloned());
        lines.join("\n")
    }

    fn answered_by(&self, printed: &[String], version: &str) -> bool {
        let expected: Vec<String> =
            self.expected.iter().filter_map(|line| for_version(line, version)).map(squeezed).collect();
        lines_match(&expected, &printed.iter().map(|line| squeezed(line)).collect::<Vec<_>>())
    }
}

/// The lines of standard output, then those of standard error, then the exit code.
fn printed(output: &Output) -> Vec<String> {
    let lines = |bytes: &[u8], prefix: &str| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let filled = text.lines().filter(|line| !line.trim().is_empty());
        filled.map(|line| format!("{prefix}{}", line.trim_end())).collect::<Vec<_>>()
    };
    let mut all = lines(&output.stdout, "");
    all.extend(lines(&output.stderr, "! "));
    match output.status.code() {
        Some(0) => {}
        Some(code) => all.push(format!("exit {code}")),
        None => all.push("ended by a signal".to_owned()),
    }
    all
}

/// The line without its version, if it is for this one.
fn for_version<'a>(line: &'a str, version: &str) -> Option<&'a str> {
    match line.strip_prefix("[1.").and_then(|rest| rest.split_once("] ")) {
        Some((minor, rest)) => (version == format!("1.{minor}")).then_some(rest),
        None => Some(line),
    }
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lines_match(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "..." => {
            (0..=printed.len()).any(|skip| lines_match(rest, &printed[skip..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, others)| text_matches(line, first) && lines_match(rest, others)),
    }
}

fn text_matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .any(|at| text_matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(block: &str, printed: &[&str]) -> bool {
        let printed: Vec<String> = printed.iter().map(|line| (*line).to_owned()).collect();
        Step::parse(block).answered_by(&printed, "1.32")
    }

    #[test]
    fn answers_match_line_by_line() {
        assert!(answered("$ x\nNAME   AGE\nweb *s", &["NAME AGE", "web    5s"]));
        assert!(!answered("$ x\nweb", &["web", "more"]), "nothing may follow");
        assert!(!answered("$ x\nweb\nmore", &["web"]), "nothing may be missing");
        assert!(!answered("$ x", &["! error", "exit 1"]), "silence means success");
        assert!(answered("$ x\n...\nlast", &["first", "second", "last"]));
        assert!(answered("$ x\n[1.37] new\n[1.32] old", &["old"]));
        assert!(!answered("$ x\na*c", &["ab"]));
    }

    #[test]
    fn a_step_is_rendered_as_it_was_parsed() {
        let block = "# Why.\n~ cat <<END\n> text\n> END\ntext\nexit 3";
        let step = Step::parse(block);
        assert_eq!(step.command.as_deref(), Some("cat <<END\ntext\nEND"));
        assert!(step.retried);
        assert_eq!(step.render(&step.expected), block);
    }
}
