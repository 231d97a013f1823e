//! How the agent asks its fork server for a process: one message that says what it is to be, with its directory and a
//! pipe for the answer, which the process closes once it is what was wanted, a supervisor once its command runs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// What a process is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To supervise the container with the directory.
    Supervisor,
    /// To hold the pid namespace of the pod with the sandbox.
    Holder,
}

impl Wanted {
    const ALL: [Self; 2] = [Self::Supervisor, Self::Holder];

    /// What a message has behind its path, in which no byte is zero. A supervisor is asked for as ever: the server may be
    /// of a newer program than the agent.
    fn mark(self) -> &'static [u8] {
        match self {
            Self::Supervisor => b"",
            Self::Holder => b"\0holder",
        }
    }
}

/// The answer of one that is what was wanted; any other is the reason why it isn't.
pub const STARTED: &str = "ok";

/// A process is wanted.
#[derive(Debug)]
pub struct Request {
    /// What for.
    pub wanted: Wanted,
    /// Of the container or sandbox whose directory this is.
    pub directory: PathBuf,
    /// Where the answer goes.
    pub report: File,
}

/// The two ends of a way for requests. It keeps messages apart, and tells when the other end is gone.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Asks for a process. Waits while the server has many requests to go.
///
/// # Errors
/// [`io::ErrorKind::BrokenPipe`] or [`io::ErrorKind::ConnectionReset`] if there is no server any more.
pub fn send(
    socket: BorrowedFd<'_>,
    wanted: Wanted,
    directory: &Path,
    report: BorrowedFd<'_>,
) -> io::Result<()> {
    let message = [IoSlice::new(directory.as_os_str().as_bytes()), IoSlice::new(wanted.mark())];
    let report = [report.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&report)];
    sendmsg::<()>(socket.as_raw_fd(), &message, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The next request; `None` when the agent has closed its end or is gone.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Request>> {
    let mut message = [0; libc::PATH_MAX as usize + 16];
    let (length, report) = loop {
        match receive_into(socket, &mut message) {
            Ok(received) => break received,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let message = &message[..length];
    let (path, mark) = message.split_at(message.iter().position(|byte| *byte == 0).unwrap_or(length));
    let wanted = Wanted::ALL.into_iter().find(|wanted| wanted.mark() == mark);
    let wanted = wanted.ok_or_else(|| io::Error::other("a request for something unknown"))?;
    let report = report.ok_or_else(|| io::Error::other("a request without a pipe for the answer"))?;
    let directory = PathBuf::from(OsStr::from_bytes(path));
    Ok(Some(Request { wanted, directory, report: File::from(report) }))
}

fn receive_into(socket: BorrowedFd<'_>, space_for: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(space_for)];
    // Closed on exec, or the command would hold the report open for as long as it runs.
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let descriptors = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made this descriptor for us and told no one else; there is room for one.
    let report = descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok((message.bytes, report))
}

/// Waits for the answer. The error is the reason for the user; a supervisor that dies without a word counts
/// as such a word.
pub fn answer(report: OwnedFd) -> Result<(), String> {
    let mut answer = String::new();
    File::from(report)
        .read_to_string(&mut answer)
        .map_err(|error| format!("read the supervisor's report: {error}"))?;
    match answer.as_str() {
        STARTED => Ok(()),
        "" => Err("the supervisor ended before it started the command".to_owned()),
        _ => Err(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;
    use std::io::Write;
    use std::os::fd::AsFd;

    fn ask(socket: &OwnedFd, wanted: Wanted, directory: &str) -> OwnedFd {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        send(socket.as_fd(), wanted, Path::new(directory), writer.as_fd()).expect("send");
        reader
    }

    #[test]
    fn requests_stay_apart_and_each_has_its_answer() {
        let (agent, server) = channel().expect("sockets");
        let (supervisor, holder) = (Wanted::Supervisor, Wanted::Holder);
        let asked = [(supervisor, "/a"), (holder, "/b"), (supervisor, "/c")];
        let answers = asked.map(|(wanted, directory)| ask(&agent, wanted, directory));
        for ((wanted, directory), word) in asked.into_iter().zip([STARTED, "no such program", ""]) {
            let mut request = receive(server.as_fd()).expect("receive").expect("a request");
            assert_eq!((request.wanted, &*request.directory), (wanted, Path::new(directory)));
            request.report.write_all(word.as_bytes()).expect("answer");
        }
        let answers = answers.map(answer);
        let died = "the supervisor ended before it started the command";
        assert_eq!(answers, [Ok(()), Err("no such program".to_owned()), Err(died.to_owned())]);
    }

    #[test]
    fn each_end_learns_that_the_other_is_gone() {
        let (agent, server) = channel().expect("sockets");
        drop(agent);
        assert!(receive(server.as_fd()).expect("receive").is_none());
        let (agent, server) = channel().expect("sockets");
        drop(server);
        let (_reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        let error = send(agent.as_fd(), Wanted::Supervisor, Path::new("/a"), writer.as_fd())
            .expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
