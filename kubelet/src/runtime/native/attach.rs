//! Attaching to a container, by way of its supervisor.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::runtime::session::sizes;
use crate::runtime::{Input, Output, RuntimeError, Session, Streams, TerminalSize};
use crate::shim::attach::SOCKET;
use crate::shim::attach_frame::{Kind, put, take};

/// What is on its way between the supervisor and who is attached, in bytes.
const BUFFER: usize = 64 << 10;

/// Attaches to the container with this directory.
pub async fn start(directory: &Path, streams: Streams) -> Result<Session, RuntimeError> {
    let mut socket = connect(directory).await.map_err(super::system("reach the container's supervisor"))?;
    if streams.stdin {
        let mut hello = Vec::new();
        put(Kind::Stdin, &[], &mut hello);
        socket.write_all(&hello).await.map_err(super::system("talk to the container's supervisor"))?;
    }
    let (stdin, typed) = tokio::io::duplex(BUFFER);
    let (stdout, out) = tokio::io::duplex(BUFFER);
    let (stderr, err) = tokio::io::duplex(BUFFER);
    let (resize, new_sizes) = sizes();
    let (reader, writer) = tokio::io::split(socket);
    let (out, err) = (streams.stdout.then_some(out), streams.stderr.then_some(err));
    let end = async move {
        tokio::select! {
            heard = hear(reader, out, err) => heard.map(|()| 0),
            said = say(writer, typed, new_sizes) => said.map(|()| 0),
        }
        .map_err(super::system("talk to the container's supervisor"))
    };
    Ok(Session {
        stdin: streams.stdin.then(|| Box::new(stdin) as Input),
        stdout: streams.stdout.then(|| Box::new(stdout) as Output),
        stderr: streams.stderr.then(|| Box::new(stderr) as Output),
        resize,
        end: Box::pin(end),
    })
}

/// The path of a socket is short by the kernel's rules; through the directory's descriptor it is.
async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let directory = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(SOCKET);
    UnixStream::connect(path).await
}

/// What the container says, until it ends.
async fn hear(
    mut reader: ReadHalf<UnixStream>,
    mut out: Option<DuplexStream>,
    mut err: Option<DuplexStream>,
) -> io::Result<()> {
    let mut input = Vec::new();
    while reader.read_buf(&mut input).await? > 0 {
        while let Some(frame) = take(&mut input).map_err(io::Error::other)? {
            let to = match frame.kind {
                Kind::Stdout => &mut out,
                Kind::Stderr => &mut err,
                _ => continue,
            };
            if let Some(to) = to {
                to.write_all(&frame.payload).await?;
            }
        }
    }
    Ok(())
}

/// What is typed, and the terminal's sizes; ends only with an error.
async fn say(
    mut writer: WriteHalf<UnixStream>,
    typed: DuplexStream,
    mut sizes: mpsc::Receiver<TerminalSize>,
) -> io::Result<()> {
    let (mut typed, mut buffer) = (Some(typed), vec![0; BUFFER]);
    loop {
        let mut out = Vec::new();
        tokio::select! {
            read = read(&mut typed, &mut buffer) => match read? {
                0 => {
                    typed = None;
                    put(Kind::StdinEnd, &[], &mut out);
                }
                read => put(Kind::Stdin, &buffer[..read], &mut out),
            },
            Some(TerminalSize { width, height }) = sizes.recv() => {
                put(Kind::Resize, &[width.to_be_bytes(), height.to_be_bytes()].concat(), &mut out);
            }
        }
        writer.write_all(&out).await?;
    }
}

async fn read(from: &mut Option<DuplexStream>, buffer: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}
