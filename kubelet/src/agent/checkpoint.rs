//! The pods' records on disk: `pods/UID.json` holds the pod with the status last computed.
//!
//! Always holds: a pod is recorded before anything of it runs. Nothing waits for the disk: what is written survives
//! the agent's death, and after a power cut nothing runs any more. The first version is synced while the pod starts,
//! so that what ran for longer than that is known afterwards, and counted.

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
    pub fn save(&self, pod: &Pod) -> io::Result<()> {
        let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
        write_atomically(&self.path(&uid), pod)
    }

    /// Has the record survive a power cut.
    pub fn sync(&self, uid: &PodUid) -> io::Result<()> {
        fs::File::open(self.path(uid))?.sync_all()?;
        fs::File::open(&self.0)?.sync_all()
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
