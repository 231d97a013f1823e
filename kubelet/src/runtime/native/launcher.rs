//! The agent's end of its fork server: starts it when it is first needed, and again should it be killed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use parking_lot::Mutex;

use crate::container::shared_processes::{HolderOrder, SharedProcesses};
use crate::runtime::RuntimeError;
use crate::shim::padding;
use crate::shim::request::{self, Wanted};

/// Has supervisors started.
pub struct Launcher {
    command: Vec<OsString>,
    data_dir: PathBuf,
    /// Held while a request is handed over.
    server: Mutex<Option<Server>>,
    /// Held while a holder begins, or is looked for: one that is still to come isn't lost, and there is one for each pod.
    holding: Mutex<()>,
}

/// A running fork server; it ends by itself when the socket is closed.
struct Server {
    socket: OwnedFd,
    process: Child,
}

impl Launcher {
    /// `command` ends in [`crate::shim_main`].
    pub fn new(command: Vec<OsString>, data_dir: &Path) -> Self {
        Self { command, data_dir: data_dir.to_owned(), server: Mutex::new(None), holding: Mutex::new(()) }
    }

    /// Starts the supervisor of the container with this directory and waits until it has started the command or says
    /// why it could not; or the holder of the processes of the pod with this sandbox, and waits until it is one.
    pub fn launch(&self, wanted: Wanted, directory: &Path) -> Result<(), RuntimeError> {
        let system = |source| RuntimeError::System { attempted: "start a supervisor".to_owned(), source };
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|error| system(error.into()))?;
        self.ask(wanted, directory, writer.as_fd()).map_err(system)?;
        drop(writer);
        request::answer(reader).map_err(RuntimeError::Start)
    }

    /// Has somebody hold the processes of the pod with this sandbox, unless somebody does.
    pub fn hold(&self, sandbox: &Path, order: HolderOrder) -> Result<(), RuntimeError> {
        let _alone = self.holding.lock();
        let shared = SharedProcesses::of(sandbox);
        let held = shared.order(&order).and_then(|()| shared.holder());
        match held.map_err(super::system("look who holds the pod's processes"))? {
            Some(_) => Ok(()),
            None => self.launch(Wanted::Holder, sandbox),
        }
    }

    /// Somebody held the processes of the pod with this sandbox, and nobody does.
    pub fn has_lost(&self, sandbox: &Path) -> bool {
        let _alone = self.holding.lock();
        SharedProcesses::of(sandbox).is_lost()
    }

    fn ask(&self, wanted: Wanted, directory: &Path, report: BorrowedFd<'_>) -> io::Result<()> {
        let mut server = self.server.lock();
        if let Some(running) = server.as_ref() {
            match request::send(running.socket.as_fd(), wanted, directory, report) {
                Err(error) if is_gone(&error) => {}
                done => return done,
            }
        }
        if let Some(mut dead) = server.take() {
            tracing::warn!("the fork server of the containers has ended; starting another");
            dead.process.wait()?;
        }
        let fresh = server.insert(self.start_server()?);
        request::send(fresh.socket.as_fd(), wanted, directory, report)
    }

    fn start_server(&self) -> io::Result<Server> {
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| io::Error::other("no shim command is configured"))?;
        let (socket, theirs) = request::channel()?;
        let process = Command::new(program)
            .args(arguments)
            .arg(&self.data_dir)
            .arg(padding())
            .stdin(theirs)
            .stdout(Stdio::null())
            // Ctrl-C in the agent's terminal must not reach supervisors.
            .process_group(0)
            .spawn()?;
        Ok(Server { socket, process })
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
