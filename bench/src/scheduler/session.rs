//! What every measurement does: namespaces, creation by several clients, waiting by one watch.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::seen::{Lines, Seen};
use crate::api::wire::Wire;
use crate::kubeconfig::Target;
use crate::process::{self, Pid};

/// Between two looks at what no watch tells us cheaply.
const GLANCE: Duration = Duration::from_millis(100);

/// The measured server.
pub struct Session {
    /// Where and as whom.
    pub target: Target,
    /// Its processes here, if known.
    pub pids: Vec<Pid>,
    /// Connections that create.
    pub clients: usize,
    /// When a measurement is given up.
    pub deadline: Duration,
}

/// One object to create, and where.
pub struct Creation {
    /// The collection's path.
    pub path: String,
    /// The object.
    pub body: Vec<u8>,
}

impl Creation {
    /// An object for a collection.
    pub fn new(path: &str, object: &Value) -> Self {
        Creation { path: path.to_owned(), body: object.to_string().into_bytes() }
    }
}

/// How long something took.
pub struct Took {
    /// From the first creation until the last one was seen to be done.
    pub wall: Duration,
    /// CPU time of the server's processes meanwhile.
    pub cpu: Duration,
}

impl Session {
    /// Waits for `future`; the error says what was awaited.
    pub async fn within<T>(&self, what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
        let result = tokio::time::timeout(self.deadline, future).await;
        result.with_context(|| format!("{what}: not within {} s", self.deadline.as_secs()))?
    }

    /// Waits until at least so many nodes are Ready; returns how many are.
    pub async fn nodes_ready(&self, count: usize) -> Result<usize> {
        let ready = async {
            let mut control = Wire::open(&self.target).await?;
            loop {
                let (status, body) = control.send("GET", "/api/v1/nodes", &[]).await?;
                // Cheaper than decoding: each Ready node has this reason exactly once.
                let ready = String::from_utf8_lossy(&body).matches("\"KubeletReady\"").count();
                if status == 200 && ready >= count.max(1) {
                    return Ok(ready);
                }
                tokio::time::sleep(GLANCE * 10).await;
            }
        };
        self.within("wait for the nodes", ready).await
    }

    /// A fresh namespace; the ServiceAccount that pods need may come a moment later.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let mut control = Wire::open(&self.target).await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        control.expect("POST", "/api/v1/namespaces", namespace.to_string().as_bytes()).await?;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        let there = async {
            while control.send("GET", &account, &[]).await?.0 != 200 {
                tokio::time::sleep(GLANCE).await;
            }
            Ok(())
        };
        self.within("wait for the namespace's account", there).await
    }

    /// Deletes a namespace and waits until it is gone, so that nothing of it disturbs what comes next.
    pub async fn remove_namespace(&self, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{name}");
        let mut control = Wire::open(&self.target).await?;
        control.send("DELETE", &path, b"{\"propagationPolicy\":\"Background\"}").await?;
        let gone = async {
            while control.send("GET", &path, &[]).await?.0 != 404 {
                tokio::time::sleep(GLANCE).await;
            }
            Ok(())
        };
        self.within(&format!("wait for the end of namespace {name}"), gone).await
    }

    /// Creates the objects and waits until `count` distinct ones of the watched collection satisfy `done`.
    pub async fn create_and_wait(
        &self,
        objects: Vec<Creation>,
        watched: &str,
        count: usize,
        done: fn(&Seen<'_>) -> bool,
    ) -> Result<Took> {
        let mut watch = Wire::open(&self.target).await?;
        watch.watch(&format!("{watched}?watch=true")).await?;
        let (before, start) = (process::cpu(&self.pids), Instant::now());
        let create = self.create(objects);
        let wait = wait(&mut watch, count, done);
        self.within("wait for the last one", async { tokio::try_join!(create, wait) }).await?;
        Ok(Took { wall: start.elapsed(), cpu: process::cpu(&self.pids).saturating_sub(before) })
    }

    /// Creates objects, each client one after another.
    pub async fn create(&self, objects: Vec<Creation>) -> Result<()> {
        let queue = std::cell::RefCell::new(objects.into_iter());
        let client = || async {
            let mut wire = Wire::open(&self.target).await?;
            loop {
                let next = queue.borrow_mut().next();
                let Some(new) = next else { return anyhow::Ok(()) };
                wire.expect("POST", &new.path, &new.body).await?;
            }
        };
        let clients: Vec<_> = (0..self.clients).map(|_| client()).collect();
        try_join_all(clients).await
    }
}

/// All of them, at once, in one task: the generator has one thread anyway.
async fn try_join_all<F: Future<Output = Result<()>>>(futures: Vec<F>) -> Result<()> {
    let mut pinned: Vec<_> = futures.into_iter().map(|one| Some(Box::pin(one))).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for slot in &mut pinned {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(Ok(())) => *slot = None,
                std::task::Poll::Ready(Err(error)) => return std::task::Poll::Ready(Err(error)),
                std::task::Poll::Pending => waiting = true,
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(())) }
    })
    .await
}

async fn wait(watch: &mut Wire, count: usize, done: fn(&Seen<'_>) -> bool) -> Result<()> {
    let (mut lines, mut finished) = (Lines::default(), HashSet::new());
    while finished.len() < count {
        let mut broken = None;
        let mut note = |piece: &[u8]| {
            let taken = lines.take(piece, |seen| {
                if done(seen) {
                    finished.insert(seen.key());
                }
            });
            broken = taken.err().or(broken.take());
        };
        if !watch.watch_piece(&mut note).await? {
            bail!("the watch ended with {} of {count}", finished.len());
        }
        if let Some(error) = broken {
            return Err(error);
        }
    }
    Ok(())
}
