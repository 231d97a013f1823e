//! Those who are attached to a container: they hear what it says, and may type.
//!
//! Always holds: no buffer grows beyond a constant. A container waits for a slow client, as it would for a slow
//! pipe; a client that takes nothing at all for [`PATIENCE`] is cut off.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::shim::attach_frame::{Frame, Kind, LONGEST, put, take};
use crate::shim::log::Stream;

/// The socket's name in the container's directory.
pub const SOCKET: &str = "attach.sock";
/// Clients at once; further ones are turned away.
const CLIENTS: usize = 16;
/// What may wait for a client before the container does.
const WAITING: usize = 256 << 10;
/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the clients have to take the last words, all together.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One who is attached.
struct Client {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// It types, or will.
    types: bool,
    /// Since when it has taken nothing of what waits for it.
    stalled: Option<Instant>,
}

/// All who are attached, and the door by which they come.
pub struct Attached {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
}

/// What the clients want of the container.
pub enum Wish {
    /// This is typed.
    Type(Vec<u8>),
    /// The terminal has this size.
    Resize { width: u16, height: u16 },
    /// One who has typed will type no more.
    TypedAll,
}

impl Attached {
    /// Listens in the container's directory. Without it nobody can attach, which is no reason not to run.
    pub fn listen(directory: &Path) -> Self {
        let listener = listen_in(directory).ok();
        Self { listener, clients: Vec::new() }
    }

    /// The clients are ready to hear more.
    pub fn is_listening(&self) -> bool {
        self.clients.iter().all(|client| client.output.len() < WAITING)
    }

    /// Somebody has to be looked at again soon, even if nothing happens.
    pub fn has_stalled(&self) -> bool {
        self.clients.iter().any(|client| client.stalled.is_some())
    }

    /// What to wait for; `typing`: input can be taken now.
    pub fn interests(&self, typing: bool) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let door = self.listener.iter().map(|listener| (listener.as_fd(), PollFlags::POLLIN));
        let clients = self.clients.iter().map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, typing);
            flags.set(PollFlags::POLLOUT, !client.output.is_empty());
            (client.socket.as_fd(), flags)
        });
        // Who isn't waited for mustn't be named: a poll tells of its end even if not asked.
        door.chain(clients).filter(|(_, flags)| !flags.is_empty()).collect()
    }

    /// Lets in who has come, sends what can be sent, and takes what was said if input can be taken.
    pub fn attend(&mut self, typing: bool, now: Instant) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for mut client in std::mem::take(&mut self.clients) {
            match client.attend(typing, now, &mut wishes) {
                true => self.clients.push(client),
                false if client.types => wishes.push(Wish::TypedAll),
                false => {}
            }
        }
        while let Some(Ok((socket, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if self.clients.len() < CLIENTS && socket.set_nonblocking(true).is_ok() {
                let (input, output) = Default::default();
                self.clients.push(Client { socket, input, output, types: false, stalled: None });
            }
        }
        wishes
    }

    /// Tells everybody what the container has said.
    pub fn tell(&mut self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        };
        self.clients.iter_mut().for_each(|client| put(kind, bytes, &mut client.output));
    }

    /// The container has ended: the clients take what is left, if they are quick.
    pub fn part(mut self) {
        let end = Instant::now() + LAST_WORDS;
        for client in &mut self.clients {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let blocking =
                client.socket.set_nonblocking(false).and(client.socket.set_write_timeout(Some(left)));
            if blocking.is_ok() {
                let _ = client.socket.write_all(&client.output);
            }
        }
    }
}

/// A socket's path is short by the kernel's rules, a container's isn't: so it is made from inside the
/// directory. The supervisor is a single thread, so nobody sees it move.
fn listen_in(directory: &Path) -> io::Result<UnixListener> {
    std::env::set_current_dir(directory)?;
    let listener = UnixListener::bind(SOCKET);
    std::env::set_current_dir("/")?;
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Client {
    /// False if it is gone, or has to go.
    fn attend(&mut self, typing: bool, now: Instant, wishes: &mut Vec<Wish>) -> bool {
        self.send(now) && (!typing || self.hear(wishes))
    }

    fn send(&mut self, now: Instant) -> bool {
        match self.socket.write(&self.output) {
            _ if self.output.is_empty() => true,
            Ok(0) => false,
            Ok(sent) => {
                self.output.drain(..sent);
                self.stalled = None;
                true
            }
            Err(error) if is_passing(&error) => {
                now.duration_since(*self.stalled.get_or_insert(now)) < PATIENCE
            }
            Err(_) => false,
        }
    }

    fn hear(&mut self, wishes: &mut Vec<Wish>) -> bool {
        let mut buffer = [0; LONGEST];
        match self.socket.read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => self.input.extend_from_slice(&buffer[..read]),
            Err(error) => return is_passing(&error),
        }
        loop {
            match take(&mut self.input) {
                Ok(Some(frame)) => wishes.extend(self.wish(frame)),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn wish(&mut self, Frame { kind, payload }: Frame) -> Option<Wish> {
        match (kind, &payload[..]) {
            (Kind::Stdin, _) => {
                self.types = true;
                (!payload.is_empty()).then_some(Wish::Type(payload))
            }
            (Kind::StdinEnd, _) => std::mem::take(&mut self.types).then_some(Wish::TypedAll),
            (Kind::Resize, [w0, w1, h0, h1]) => Some(Wish::Resize {
                width: u16::from_be_bytes([*w0, *w1]),
                height: u16::from_be_bytes([*h0, *h1]),
            }),
            _ => None,
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A container's standard input.
pub struct Stdin {
    file: std::fs::File,
    /// What was typed and not yet taken.
    pending: Vec<u8>,
    /// It ends when the first who types has gone.
    once: bool,
    /// That one has gone.
    ending: bool,
}

impl Stdin {
    /// Takes our end of it.
    pub fn new(fd: OwnedFd, once: bool) -> io::Result<Self> {
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self { file: fd.into(), pending: Vec::new(), once, ending: false })
    }

    /// One who has typed will type no more.
    pub fn typed_all(&mut self) {
        self.ending |= self.once;
    }

    /// All was handed over, and no more will come: it is to be closed.
    pub fn is_over(&self) -> bool {
        self.ending && self.pending.is_empty()
    }

    /// What was typed waits to be taken.
    pub fn is_full(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Our end, to wait until it takes more.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Types.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Hands over what can be; false if nobody reads any more.
    pub fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if is_passing(&error) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
