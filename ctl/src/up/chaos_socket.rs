//! The socket by which `amoeba chaos` and the demo give orders to the supervisor: one JSON line each way.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// The longest order; a longer one is not from us.
const LONGEST_LINE: u64 = 4096;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Order {
    /// Say how every child stands.
    List,
    /// Kill a child; a node with its pods.
    Kill {
        /// `m1`, `n2`
        child: String,
    },
    /// Stop its processes without ending them.
    Stop {
        /// `m1`, `n2`
        child: String,
    },
    /// Let it go on, or start it again.
    Resume {
        /// `m1`, `n2`
        child: String,
    },
}

/// How one child stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// `m1`, `n2`
    pub name: String,
    /// `member` or `node`
    pub role: String,
    /// `running`, `killed`, …
    pub state: String,
    /// Its process, if it has one.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it leads the Raft group.
    pub leader: bool,
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It was done; every child as it stands now.
    Done(Vec<ChildStatus>),
    /// It can't be done.
    Refused(String),
}

/// An order that waits for its answer.
pub struct Pending {
    /// What to do.
    pub order: Order,
    /// Where the answer goes; the asker may be gone.
    pub answer: oneshot::Sender<Answer>,
}

/// Why an order has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// No supervisor listens.
    #[error("no cluster runs in {dir}: start one with `amoeba up`, or name its directory with --data-dir", dir = .dir.display())]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
        /// Why we think so.
        #[source]
        source: io::Error,
    },
    /// The supervisor hung up or said something strange.
    #[error("the supervisor did not answer")]
    NoAnswer(#[source] io::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Listens at `path`, replacing what a killed supervisor left there. The caller holds the directory's lock.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Takes orders and hands them to `orders`, until it is dropped or the receiver is gone.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<Pending>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let orders = orders.clone();
                    tasks.spawn(async move {
                        // An asker that hangs up or talks nonsense gets no answer and does no harm.
                        let _ = answer_one(stream, orders).await;
                    });
                }
            }
            Some(_) = tasks.join_next() => {}
            () = orders.closed() => return,
        }
    }
}

async fn answer_one(mut stream: UnixStream, orders: mpsc::Sender<Pending>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(tokio::io::AsyncReadExt::take(read, LONGEST_LINE)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(order) => {
            let (answer, answered) = oneshot::channel();
            orders.send(Pending { order, answer }).await.map_err(io::Error::other)?;
            answered.await.map_err(io::Error::other)?
        }
        Err(error) => Answer::Refused(format!("not an order: {error}")),
    };
    write.write_all(&line_of(&answer)).await
}

fn line_of(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("these types always have a JSON form");
    line.push(b'\n');
    line
}

/// Gives an order to the supervisor of `dir` and waits until it was carried out.
pub async fn order(dir: &Path, socket: &Path, order: &Order) -> Result<Vec<ChildStatus>, ChaosError> {
    let not_running = |source| ChaosError::NotRunning { dir: dir.to_owned(), source };
    let mut stream = UnixStream::connect(socket).await.map_err(not_running)?;
    stream.write_all(&line_of(order)).await.map_err(ChaosError::NoAnswer)?;
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await.map_err(ChaosError::NoAnswer)?;
    match serde_json::from_str(&line).map_err(|error| ChaosError::NoAnswer(error.into()))? {
        Answer::Done(children) => Ok(children),
        Answer::Refused(why) => Err(ChaosError::Refused(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("s");
        let (orders, mut pending) = mpsc::channel(1);
        let server = tokio::spawn(serve(listen(&socket).expect("listening"), orders));
        let asked = Order::Kill { child: "n1".into() };
        let (answer, ()) = tokio::join!(order(dir.path(), &socket, &asked), async {
            let one = pending.recv().await.expect("an order");
            assert_eq!(one.order, Order::Kill { child: "n1".into() });
            one.answer.send(Answer::Refused("no such child".into())).expect("still asking");
        });
        assert_eq!(answer.expect_err("refused").to_string(), "no such child");
        drop(pending);
        server.await.expect("it ends when nobody takes orders");
    }

    #[tokio::test]
    async fn without_a_supervisor_the_error_says_how_to_start_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = order(dir.path(), &dir.path().join("s"), &Order::List).await.expect_err("nobody listens");
        assert!(error.to_string().contains("amoeba up"), "{error}");
    }
}
