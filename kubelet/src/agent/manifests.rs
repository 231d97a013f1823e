//! Watches the folder of static pods' manifests, and keeps their mirrors in the API.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Shutdown;
use client::backoff::{Backoff, Policy};
use client::informer::Store;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio::sync::{mpsc, watch};

use crate::pod::static_pod::{MirrorStep, mirror, mirror_steps, read};
use crate::server::inotify::DirectoryWatch;

/// Between two looks at the folder although nothing has told of a change: not every file system does (upstream's
/// `fileCheckFrequency`).
const LOOK: Duration = Duration::from_secs(20);
/// A file that is being written is read when it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);

/// A folder of manifests as it was last read.
pub struct Manifests {
    dir: PathBuf,
    node: String,
    /// What each file held when it was last a pod.
    good: BTreeMap<PathBuf, Pod>,
    /// What is wrong with files, so that it is told once.
    bad: BTreeMap<PathBuf, String>,
}

impl Manifests {
    /// Nothing was read yet.
    pub fn new(dir: PathBuf, node: &str) -> Self {
        Self { dir, node: node.to_owned(), good: BTreeMap::new(), bad: BTreeMap::new() }
    }

    /// Tells which pods the files say should run, now and whenever that changes.
    pub async fn watch(mut self, tell: mpsc::Sender<Vec<Pod>>, shutdown: Shutdown) {
        let mut told: Option<Vec<Pod>> = None;
        loop {
            // Before the look, so that no change is missed.
            let changes = DirectoryWatch::new(&self.dir).ok();
            // A disk may hang, and nothing else waits for it.
            let looked = tokio::task::spawn_blocking(move || (self.look(Timestamp::now()), self)).await;
            let Ok((seen, again)) = looked else { return };
            self = again;
            match seen {
                Ok(pods) if told.as_ref() != Some(&pods) => {
                    told = Some(pods.clone());
                    if tell.send(pods).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(dir = %self.dir.display(), %error, "read the static pods' manifests");
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = changed(changes.as_ref()) => tokio::time::sleep(QUIET).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The pods of all files. A file that is no pod any more keeps the one that it was, until it is removed. A
    /// folder that isn't there holds none.
    fn look(&mut self, now: Timestamp) -> io::Result<Vec<Pod>> {
        let files = files(&self.dir)?;
        self.good.retain(|file, _| files.contains(file));
        self.bad.retain(|file, _| files.contains(file));
        for file in files {
            match self.read(&file, now) {
                Ok(pod) => {
                    self.bad.remove(&file);
                    // What hasn't changed was seen before.
                    if self.good.get(&file).map(ResourceExt::uid) != Some(pod.uid()) {
                        self.good.insert(file, pod);
                    }
                }
                Err(problem) => self.complain(file, problem),
            }
        }
        Ok(self.good.values().cloned().collect())
    }

    fn read(&self, file: &Path, now: Timestamp) -> Result<Pod, String> {
        let text = std::fs::read(file).map_err(|error| error.to_string())?;
        let pod = read(&text, file, &self.node, &now.to_string()).map_err(|error| error.to_string())?;
        let same = |(other, known): &(&PathBuf, &Pod)| {
            *other != file && (known.namespace(), known.name_any()) == (pod.namespace(), pod.name_any())
        };
        match self.good.iter().find(same) {
            Some((other, _)) => Err(format!(
                "metadata.name: Duplicate value: {:?}: {} has a pod of that name",
                pod.name_any(),
                other.display()
            )),
            None => Ok(pod),
        }
    }

    fn complain(&mut self, file: PathBuf, problem: String) {
        if self.bad.get(&file) != Some(&problem) {
            tracing::error!(file = %file.display(), problem, "this file is no static pod");
            self.bad.insert(file, problem);
        }
    }
}

/// The files that may be manifests, in the order of their names: hidden ones and folders are left out, as upstream.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Never, where nobody tells.
async fn changed(watch: Option<&DirectoryWatch>) {
    match watch {
        Some(watch) if watch.changed().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Keeps the mirrors.
pub struct Mirrors {
    pub client: kube::Client,
    pub node: String,
    /// The Node's uid, once it is registered.
    pub node_uid: watch::Receiver<Option<String>>,
    /// The pods of this node as the API has them.
    pub seen: Store<Pod>,
    /// Those that run from files; told anew whenever the API's may have changed, too.
    pub wanted: watch::Receiver<Vec<Pod>>,
}

impl Mirrors {
    /// Until asked to stop.
    pub async fn keep(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(Policy::CONNECT);
        loop {
            let again = match self.settle().await {
                Ok(()) => {
                    backoff.succeeded();
                    None
                }
                Err(error) => {
                    tracing::warn!(error = %super::chain(&error), "mirror the static pods");
                    Some(backoff.failed(rand::random()))
                }
            };
            tokio::select! {
                () = shutdown.requested() => return,
                wanted = self.wanted.changed() => if wanted.is_err() { return },
                known = self.node_uid.changed() => if known.is_err() { return },
                () = pause(again) => {}
            }
        }
    }

    async fn settle(&self) -> Result<(), kube::Error> {
        let Some(node_uid) = self.node_uid.borrow().clone().filter(|_| self.seen.is_synced()) else {
            return Ok(());
        };
        let (wanted, seen) = (self.wanted.borrow().clone(), self.seen.list());
        for step in mirror_steps(&wanted, seen.iter().map(|pod| &**pod)) {
            match step {
                MirrorStep::Create(pod) => self.create(&mirror(&pod, &self.node, &node_uid)).await?,
                MirrorStep::Delete(pod) => self.delete(&pod).await?,
                MirrorStep::Blocked(name) => {
                    tracing::error!(
                        pod = name,
                        "a pod of the API has the name of a static pod, which therefore isn't shown"
                    );
                }
            }
        }
        Ok(())
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    async fn create(&self, mirror: &Pod) -> Result<(), kube::Error> {
        match self.pods(mirror).create(&PostParams::default(), mirror).await {
            // The watch is late.
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(()),
            done => done.map(drop),
        }
    }

    async fn delete(&self, mirror: &Pod) -> Result<(), kube::Error> {
        let preconditions = Some(Preconditions { uid: mirror.uid(), resource_version: None });
        let now = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match self.pods(mirror).delete(&mirror.name_any(), &now).await {
            // Gone, or another one.
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Ok(()),
            done => done.map(drop),
        }
    }
}

async fn pause(length: Option<Duration>) {
    match length {
        Some(length) => tokio::time::sleep(length).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
        )
    }

    #[test]
    fn bad_files_are_told_of_and_dont_hinder_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("written");
        let mut manifests = Manifests::new(dir.path().join("pods"), "n1");
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(manifests.look(now).expect("no folder, no pods"), []);
        manifests.dir = dir.path().to_owned();
        write("a.yaml", &manifest("web"));
        write("b.yaml", "kind: [");
        write("c.yaml", &manifest("web"));
        write(".hidden", &manifest("hidden"));
        let mut names = || -> Vec<String> {
            manifests.look(now).expect("a look").iter().map(ResourceExt::name_any).collect()
        };
        assert_eq!(names(), ["web-n1"]);
        write("b.yaml", &manifest("db"));
        assert_eq!(names(), ["web-n1", "db-n1"]);
        // Half of a file: the pod goes on.
        write("b.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {");
        assert_eq!(names(), ["web-n1", "db-n1"]);
        std::fs::remove_file(file("b.yaml")).expect("removed");
        assert_eq!(names(), ["web-n1"]);
        let twice = &manifests.bad[&file("c.yaml")];
        assert!(twice.starts_with("metadata.name: Duplicate value: \"web-n1\""), "{twice}");
    }
}
