//! The supervisors of a node's containers: the hidden subcommand `amoeba shim DIRECTORY`.
//!
//! The agent starts it once, as a *fork server*: a process that has done what starting a program of this
//! size costs (megabytes of relocations, the initialisers of every library) and forks one supervisor for
//! each container it is asked for. They share those pages, so that a container costs a fork and a few
//! hundred kilobytes.
//!
//! A supervisor outlives agent and fork server. It starts the container's command, keeps its output as CRI
//! log lines, reaps whatever the command leaves behind, and writes down how it ended. Without tokio: one
//! blocking `poll` over two pipes and a signal descriptor; a container that fences itself has threads for that.
//!
//! It forks as well whoever holds the pid namespace that containers of a pod share (`holder.rs`).
//!
//! Always holds: the fork server ends when its agent does; once `state.json` exists, an `exit.json` will
//! follow, or the supervisor was killed, and then the command's process was killed with it; `exit.json` is
//! on disk before the supervisor ends; no descendant outlives the command.

pub(crate) mod attach;
pub(crate) mod attach_frame;
mod children;
mod holder;
pub(crate) mod last_words;
pub mod log;
pub mod record;
pub mod request;
mod spawn;
pub mod stdio;
mod supervise;
mod title;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork, setsid};

use crate::container::namespaces::fork_into;
use crate::process::boot_id;
use crate::shim::record::ContainerDir;
use crate::shim::request::{Request, Wanted};
pub use crate::shim::spawn::{DEFAULT_PATH, environment};
use crate::shim::title::Title;
pub use crate::shim::title::padding;

/// Runs the fork server with the arguments that follow the subcommand's name: the node's directory, by
/// which its processes are found, and as much padding as the longest path below it has on top. Requests
/// come through the socket that is its standard input. Must be called before any thread is started.
///
/// Returns when the agent has closed the socket, or is gone.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    if args.into_iter().count() != title::ARGUMENTS {
        eprintln!("usage: shim DIRECTORY PADDING (started by a node agent)");
        return ExitCode::from(2);
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("serve the node agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let requests = io::stdin();
    // What supervisors need of /proc and is the same for all is read before they are forked.
    let title = Title::of_process()?;
    boot_id()?;
    crate::container::cgroup::look();
    // SAFETY: no handler is installed; ignored, ended supervisors leave no zombies.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    while let Some(Request { wanted, directory, report }) = request::receive(requests.as_fd())? {
        // SAFETY: shim_main's contract is that no other thread exists, so the child may allocate.
        match (unsafe { fork_for(wanted) }, wanted) {
            (Ok(ForkResult::Parent { .. }), _) => {}
            (Ok(ForkResult::Child), Wanted::Supervisor) => become_supervisor(title, &directory, report),
            (Ok(ForkResult::Child), Wanted::Holder) => {
                title.show(&directory);
                holder::become_holder(&directory, report)
            }
            (Err(error), _) => tell(report, &format!("fork: {error}")),
        }
    }
    Ok(())
}

/// # Safety
/// The caller has one thread.
unsafe fn fork_for(wanted: Wanted) -> io::Result<ForkResult> {
    match wanted {
        // SAFETY: as the caller promises. By libc, which has it ready to have threads.
        Wanted::Supervisor => Ok(unsafe { fork() }?),
        Wanted::Holder => {
            // SAFETY: as the caller promises.
            let child = unsafe { fork_into(holder::namespaces(), None) }?;
            Ok(child.map_or(ForkResult::Child, |child| ForkResult::Parent { child }))
        }
    }
}

fn become_supervisor(title: Title, directory: &Path, report: File) -> ! {
    title.show(directory);
    let directory = ContainerDir::new(directory.to_owned());
    let started = leave_server().map_err(|error| error.to_string()).and_then(|()| spawn::start(&directory));
    let code = match started {
        Ok(running) => {
            tell(report, request::STARTED);
            supervise::run(&directory, running)
        }
        Err(message) => {
            tell(report, &message);
            1
        }
    };
    // SAFETY: ends the process. Nothing is buffered, and the destructors of libraries that a supervisor
    // never used would only write to pages it still shares.
    unsafe { libc::_exit(code) }
}

/// The reader may have been killed; the container runs on all the same.
fn tell(mut report: File, message: &str) {
    let _ = report.write_all(message.as_bytes());
}

/// Lets go of the server's session, descriptors and directory: a pipe or the socket held open here would
/// never close there.
fn leave_server() -> io::Result<()> {
    // SAFETY: no handler is installed; a supervisor has children to wait for.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}
