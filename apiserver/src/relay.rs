//! An upgraded connection to somebody else, joined to the client's: bytes both ways, unread.
//!
//! A verb answers with the other side's head, and lays the relay into the response; once the head has gone out,
//! the two connections are joined.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::body::Body;

/// The longest silence, as upstream's kubelet has it.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// How long the client may take to end after the other side has.
const FAREWELL: Duration = Duration::from_secs(5);
/// What is read at once, in bytes: this much each way is all that a relay holds.
const READ_SIZE: usize = 32 << 10;

/// The other side, waiting for the client. Clones are the same one.
#[derive(Clone)]
pub struct Relay(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    upgrade: Option<OnUpgrade>,
    /// The task of the connection, until it is upgraded.
    connection: JoinSet<()>,
    /// Kept until the end.
    guards: Vec<Box<dyn Send>>,
}

impl Relay {
    /// Makes the client's answer of the other side's `101`.
    pub fn answer(mut response: Response<Incoming>, connection: JoinSet<()>) -> Response<Body> {
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "only an upgrade can be relayed");
        let upgrade = Some(hyper::upgrade::on(&mut response));
        let (head, _) = response.into_parts();
        let mut answer = Response::from_parts(head, Body::empty());
        let relay = Self(Arc::new(Mutex::new(Waiting { upgrade, connection, guards: Vec::new() })));
        answer.extensions_mut().insert(relay);
        answer
    }

    /// Keeps `guard` until the relay ends.
    pub fn hold(&self, guard: impl Send + 'static) {
        self.0.lock().guards.push(Box::new(guard));
    }

    /// Joins the two once the client's connection is upgraded. Ends with either of them.
    pub fn begin(self, client: OnUpgrade) {
        let waiting = std::mem::take(&mut *self.0.lock());
        let Some(upgrade) = waiting.upgrade else { return };
        tokio::spawn(async move {
            let _kept = (waiting.connection, waiting.guards);
            match tokio::try_join!(client, upgrade) {
                Ok((client, other)) => join(client, other).await,
                Err(error) => tracing::debug!(%error, "an upgrade that was promised didn't come to be"),
            }
        });
    }
}

async fn join(client: Upgraded, other: Upgraded) {
    let (client_reader, client_writer) = tokio::io::split(TokioIo::new(client));
    let (other_reader, other_writer) = tokio::io::split(TokioIo::new(other));
    let last = Mutex::new(Instant::now());
    let (heard, over) = tokio::sync::oneshot::channel();
    let out = async {
        copy(other_reader, client_writer, &last).await;
        let _ = heard.send(());
    };
    let both = async { tokio::join!(copy(client_reader, other_writer, &last), out) };
    // The client hears the end and answers with its own, or has had the time to.
    let parted = async {
        let _ = over.await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        ((), ()) = both => {}
        () = parted => {}
        () = idle(&last) => {}
    }
}

/// Copies until one side ends or breaks, and passes the end on.
async fn copy<R: AsyncRead, W: AsyncWrite>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    last: &Mutex<Instant>,
) {
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        *last.lock() = Instant::now();
        if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // Who is gone doesn't hear it.
    let _ = to.shutdown().await;
}

async fn idle(last: &Mutex<Instant>) {
    loop {
        let end = *last.lock() + IDLE;
        if end <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}
