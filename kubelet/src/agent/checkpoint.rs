//! The pods' records on disk: `pods/UID.json` holds the pod with the status last computed.
//!
//! Always holds: a pod is recorded durably before anything of it runs. Later versions are written without
//! an fsync: they survive the agent's death, and after a power cut the older one is as good, since nothing
//! runs any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::pod::PodUid;
use crate::shim::record::{read, write_atomically};

/// The records below one data directory.
#[derive(Clone, Debug)]
pub struct Checkpoints(PathBuf);

impl Checkpoints {
    /// Makes the directory if need be.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("pods");
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    fn path(&self, uid: &PodUid) -> PathBuf {
        self.0.join(format!("{uid}.json"))
    }

    /// Writes or replaces a record.
    pub fn save(&self, pod: &Pod, durable: bool) -> io::Result<()> {
        let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
        write_atomically(&self.path(&uid), pod, durable)
    }

    /// Removes a record; a missing one is no error.
    pub fn remove(&self, uid: &PodUid) -> io::Result<()> {
        match fs::remove_file(self.path(uid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// All records. An unreadable one is reported and left: the API server still has the pod.
    pub fn load(&self) -> io::Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(pod) => pods.push(pod),
                Err(error) => tracing::error!(path = %path.display(), %error, "read a pod's record"),
            }
        }
        Ok(pods)
    }
}
