//! Drives exec and attach: a client's channels on one side, a process's streams on the other.

use std::time::Duration;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use streaming::remote_command::{Channel, Codec, Event};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::runtime::{Input, Output, RuntimeError, Session, Streams, TerminalSize};
use crate::server::streams::{IDLE, STREAM_CREATION};
use crate::wire::{self, Incoming, Wire};

/// One read from a process: what a pipe holds.
const READ_SIZE: usize = 64 << 10;
/// How long the output of a process that has ended may be silent until that counts as its end: something that
/// it has left behind may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(100);
/// The most pieces of input that may come before the last channel is there.
const EARLY: usize = 64;
/// The longest text of a terminal's size, in bytes.
const SIZE_TEXT: usize = 1 << 10;

/// What is being done, for the words of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A command was started.
    Exec,
    /// A container is attached to.
    Attach,
}

/// Converses with the client until the process has ended or the client is gone. `start` is run once all
/// channels are there.
pub async fn converse<S: AsyncRead + AsyncWrite + Send>(
    stream: S,
    codec: Codec,
    streams: Streams,
    doing: Doing,
    start: BoxFuture<'static, Result<Session, RuntimeError>>,
) {
    let (wire, mut incoming) = wire::open(codec, stream);
    let ready = tokio::time::timeout(STREAM_CREATION, until_ready(&wire, &mut incoming));
    let Ok(Some(early)) = ready.await else { return };
    let end = match start.await {
        Ok(session) => attended(&wire, &mut incoming, streams, early, session).await,
        Err(error) => Some(Err(error)),
    };
    // Without an end it is the client that has gone.
    let Some(end) = end else { return };
    let status = status(doing, end);
    let farewell = |codec: &mut Codec, out: &mut Vec<u8>| {
        if let Some(text) = spoken(&status, codec.has_status()) {
            codec.send(Channel::Error, text.as_bytes(), out);
        }
        codec.end(out);
    };
    wire.farewell(&mut incoming, farewell).await;
}

/// Waits for the client's channels; what it has said meanwhile is kept.
async fn until_ready<S: AsyncRead + AsyncWrite>(
    wire: &Wire<Codec, S>,
    incoming: &mut Incoming<S>,
) -> Option<Vec<Event>> {
    let mut early = Vec::new();
    while !wire.with(|codec| codec.is_ready()) {
        match incoming.next_or_state(wire).await? {
            Some(event) if event != Event::End && early.len() < EARLY => early.push(event),
            Some(_) => return None,
            None => {}
        }
    }
    Some(early)
}

/// Moves everything both ways until the process has ended; `None` if the client has gone before, or has
/// been silent for too long.
async fn attended<S: AsyncRead + AsyncWrite>(
    wire: &Wire<Codec, S>,
    incoming: &mut Incoming<S>,
    streams: Streams,
    early: Vec<Event>,
    session: Session,
) -> Option<Result<i32, RuntimeError>> {
    let Session { stdin, stdout, stderr, resize, end } = session;
    let first = [(streams.stdout, Channel::Stdout), (streams.stderr, Channel::Stderr)];
    let first = first.into_iter().find_map(|(wanted, channel)| wanted.then_some(channel));
    wire.send(|codec, out| codec.begun(first.unwrap_or(Channel::Error), out)).await.ok()?;
    let (ended, over) = watch::channel(false);
    let output = async {
        tokio::join!(
            send_all(wire, Channel::Stdout, stdout, over.clone()),
            send_all(wire, Channel::Stderr, stderr, over.clone())
        )
    };
    let end = async {
        let code = end.await;
        ended.send_replace(true);
        code
    };
    tokio::select! {
        (code, _) = async { tokio::join!(end, output) } => Some(code),
        () = take_all(wire, incoming, early, stdin, resize) => None,
        () = wire.idle(IDLE) => None,
    }
}

/// Sends what the process says on one channel.
async fn send_all<S: AsyncRead + AsyncWrite>(
    wire: &Wire<Codec, S>,
    channel: Channel,
    from: Option<Output>,
    mut over: watch::Receiver<bool>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            () = silence(&mut over) => break,
        };
        let Ok(read @ 1..) = read else { break };
        // A client that is gone is seen by who listens to it.
        if wire.send(|codec, out| codec.send(channel, &buffer[..read], out)).await.is_err() {
            return;
        }
    }
    let _ = wire.send(|codec, out| codec.finish(channel, out)).await;
}

/// Returns when the process has ended and a while has passed since.
async fn silence(over: &mut watch::Receiver<bool>) {
    // Its sender lives as long as the conversation.
    let _ = over.wait_for(|over| *over).await;
    tokio::time::sleep(DRAIN).await;
}

/// Takes what the client says, until it is gone.
async fn take_all<S: AsyncRead + AsyncWrite>(
    wire: &Wire<Codec, S>,
    incoming: &mut Incoming<S>,
    early: Vec<Event>,
    mut stdin: Option<Input>,
    resize: mpsc::Sender<TerminalSize>,
) {
    let mut sizes = Vec::new();
    let mut early = early.into_iter();
    while let Some(event) = match early.next() {
        Some(event) => Some(event),
        None => incoming.next(wire).await,
    } {
        match event {
            Event::Data(Channel::Stdin, bytes) => {
                let Some(input) = &mut stdin else { continue };
                // Who doesn't read its input any more isn't written to any more.
                if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
                    stdin = None;
                }
            }
            Event::Data(_, bytes) => {
                sizes.extend_from_slice(&bytes);
                if let Some(size) = newest_size(&mut sizes) {
                    // A process that has ended has no terminal any more.
                    let _ = resize.send(size).await;
                }
            }
            Event::Closed(Channel::Stdin) => {
                if let Some(mut input) = stdin.take() {
                    let _ = input.shutdown().await;
                }
            }
            Event::Closed(_) => {}
            Event::End => return,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// The newest whole size in what was received; what isn't whole yet stays, and what is none goes.
fn newest_size(text: &mut Vec<u8>) -> Option<TerminalSize> {
    let mut sizes = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let (mut newest, mut read, mut nonsense) = (None, 0, false);
    loop {
        match sizes.next() {
            Some(Ok(Size { width, height })) => newest = Some(TerminalSize { width, height }),
            Some(Err(error)) => {
                nonsense = !error.is_eof();
                break;
            }
            None => break,
        }
        read = sizes.byte_offset();
    }
    text.drain(..read);
    if nonsense || text.len() > SIZE_TEXT {
        text.clear();
    }
    newest
}

/// How it ended, as a Status.
fn status(doing: Doing, end: Result<i32, RuntimeError>) -> Value {
    let failure = |reason: &str, code: Option<u16>, message: String, details: Value| {
        let mut status = json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": details,
        });
        if let Some(code) = code {
            status["code"] = code.into();
        }
        status
    };
    match end {
        Ok(0) => json!({ "metadata": {}, "status": "Success" }),
        Ok(code) => failure(
            "NonZeroExitCode",
            None,
            format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            json!({ "causes": [{ "reason": "ExitCode", "message": code.to_string() }] }),
        ),
        Err(error) => {
            let attempted = match doing {
                Doing::Exec => "executing command in",
                Doing::Attach => "attaching to",
            };
            let message = format!("error {attempted} container: {}", error.chain());
            let details = json!({ "causes": [{ "message": message }] });
            failure("InternalError", Some(500), format!("Internal error occurred: {message}"), details)
        }
    }
}

/// What is said of it: before the fourth version only of a failure, and in words.
fn spoken(status: &Value, has_status: bool) -> Option<String> {
    match has_status {
        true => Some(status.to_string()),
        false => status["message"].as_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_pieces_and_the_newest_counts() {
        let mut text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":43}{\"Wid".to_vec();
        assert_eq!(newest_size(&mut text), Some(TerminalSize { width: 132, height: 43 }));
        assert_eq!(text, b"{\"Wid");
        text.extend_from_slice(b"th\":1,\"Height\":2}");
        assert_eq!(newest_size(&mut text), Some(TerminalSize { width: 1, height: 2 }));
        for nonsense in [&b"what"[..], b"{\"Width\":70000,\"Height\":1}", &[b' '; 2000]] {
            text.extend_from_slice(nonsense);
            assert_eq!(newest_size(&mut text), None);
            assert_eq!(text, b"");
        }
    }

    #[test]
    fn ends_are_told_in_upstreams_words() {
        assert_eq!(spoken(&status(Doing::Exec, Ok(0)), false), None);
        let told = status(Doing::Exec, Ok(3));
        assert_eq!(told["details"]["causes"], json!([{ "reason": "ExitCode", "message": "3" }]));
        assert_eq!(told["reason"], "NonZeroExitCode");
        let failed =
            status(Doing::Exec, Err(RuntimeError::Start("exec: \"x\": permission denied".to_owned())));
        let want =
            "Internal error occurred: error executing command in container: exec: \"x\": permission denied";
        assert_eq!(spoken(&failed, false).as_deref(), Some(want));
    }
}
