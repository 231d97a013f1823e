//! A container's standard streams: three pipes, or a terminal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::runtime::ContainerConfig;
use crate::runtime::native::pty;

/// The supervisor's ends.
#[derive(Debug)]
pub struct Ours {
    /// What is typed goes here, if anything may be.
    pub stdin: Option<OwnedFd>,
    /// What it says comes from here.
    pub stdout: OwnedFd,
    /// And from here, unless it has a terminal.
    pub stderr: Option<OwnedFd>,
    /// Its terminal's side, to set the size of.
    pub terminal: Option<OwnedFd>,
}

/// The command's ends.
#[derive(Debug)]
pub struct Theirs {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// They are a terminal, which the command's session has to take as its own.
    pub is_terminal: bool,
}

/// Opens both ends, all closed on exec.
///
/// # Errors
/// The system has no descriptors or terminals left.
pub fn open(config: &ContainerConfig) -> io::Result<(Ours, Theirs)> {
    if config.tty {
        let (master, slave) = pty::open()?;
        let stdin = if config.stdin { Some(master.try_clone()?) } else { None };
        let ours = Ours { stdin, stdout: master.try_clone()?, stderr: None, terminal: Some(master) };
        let (stdin, stdout) = (slave.try_clone()?, slave.try_clone()?);
        return Ok((ours, Theirs { stdin, stdout, stderr: slave, is_terminal: true }));
    }
    let (stdin, typed) = match config.stdin {
        true => pipe2(OFlag::O_CLOEXEC).map(|(read, write)| (read, Some(write)))?,
        false => (File::open("/dev/null")?.into(), None),
    };
    let ((stdout, out), (stderr, err)) = (pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?);
    let ours = Ours { stdin: typed, stdout, stderr: Some(stderr), terminal: None };
    Ok((ours, Theirs { stdin, stdout: out, stderr: err, is_terminal: false }))
}
