//! The supervisor of one container: the hidden subcommand `amoeba shim DIRECTORY`.
//!
//! It outlives the agent. It starts the container's command, keeps its output as CRI log lines, reaps
//! whatever the command leaves behind, and writes down how it ended. Single-threaded and without tokio:
//! one blocking `poll` over two pipes and a signal descriptor.
//!
//! Always holds: once `state.json` exists, an `exit.json` will follow, or the shim was killed, and then
//! the command's process was killed with it; `exit.json` is on disk before the shim ends; no descendant
//! outlives the command.

pub mod log;
pub mod record;
mod spawn;
mod supervise;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, fork, pipe2, setsid};

use crate::shim::record::ContainerDir;

/// Runs the shim with the arguments that follow the subcommand's name: the container's directory. Must
/// be called before any thread is started: it forks.
///
/// Returns 0 once the command runs; on failure the reason is on standard error and the code is 1.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(directory), None) = (args.next(), args.next()) else {
        eprintln!("usage: shim DIRECTORY");
        return ExitCode::from(2);
    };
    match launch(&ContainerDir::new(PathBuf::from(directory))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Forks the supervisor and waits until it has started the command. The agent waits for this first
/// process only, so that a fresh shim and an adopted one are alike: neither is the agent's child.
fn launch(directory: &ContainerDir) -> Result<(), String> {
    // Closed on exec, or the command would hold the report open for as long as it runs.
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("make a pipe: {error}"))?;
    // SAFETY: shim_main's contract is that no other thread exists, so the child may allocate.
    match unsafe { fork() }.map_err(|error| format!("fork: {error}"))? {
        ForkResult::Parent { .. } => {
            drop(writer);
            await_report(reader)
        }
        ForkResult::Child => {
            drop(reader);
            become_supervisor(directory, writer)
        }
    }
}

/// An empty report is success; a supervisor that dies without a word counts as such a word.
fn await_report(reader: OwnedFd) -> Result<(), String> {
    let mut report = String::new();
    std::fs::File::from(reader)
        .read_to_string(&mut report)
        .map_err(|error| format!("read the supervisor's report: {error}"))?;
    match report.strip_prefix("ok") {
        Some("") => Ok(()),
        _ if report.is_empty() => Err("the supervisor ended before it started the command".to_owned()),
        _ => Err(report),
    }
}

fn become_supervisor(directory: &ContainerDir, report: OwnedFd) -> ! {
    let mut report = std::fs::File::from(report);
    let started = setsid().map_err(io::Error::from).and_then(|_| detach()).map_err(|error| error.to_string());
    let running = started.and_then(|()| spawn::start(directory));
    let code = match running {
        Ok(running) => {
            // The reader may have been killed; the container runs on all the same.
            let _ = report.write_all(b"ok");
            drop(report);
            supervise::run(directory, running)
        }
        Err(message) => {
            let _ = report.write_all(message.as_bytes());
            1
        }
    };
    std::process::exit(code)
}

/// Lets go of the agent's descriptors and directory: a pipe held open here would never close there.
fn detach() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}
