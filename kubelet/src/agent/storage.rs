//! Measures what pods with a limit have on the node's disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::agent::pressure::add_tree;
use crate::eviction::storage::StorageUsage;
use crate::pod::{ContainerName, PodRef};
use crate::runtime::native::pod_log_dir;

/// Of one pod. What vanishes while it is counted counts as nothing.
pub fn measure(data_dir: &Path, pod: &PodRef) -> StorageUsage {
    let uid = &pod.uid.0;
    let mut usage =
        StorageUsage { volumes: sizes(&data_dir.join("volumes").join(uid)), ..StorageUsage::default() };
    for place in [data_dir.join("containers").join(uid), pod_log_dir(data_dir, pod)] {
        for (name, bytes) in sizes(&place) {
            *usage.containers.entry(ContainerName(name)).or_default() += bytes;
        }
    }
    usage
}

/// Bytes below each of the folders in this one.
fn sizes(dir: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), size(entry.path()))).collect()
}

fn size(dir: PathBuf) -> u64 {
    let mut sum = (0, 0);
    let _ = add_tree(&dir, &mut sum);
    sum.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodUid;

    #[test]
    fn a_container_is_what_it_has_written_and_its_logs() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, vec![1; 100_000]).expect("written");
        };
        write("containers/u1/main/0/upper/file");
        write("logs/ns_web_u1/main/0.log");
        write("volumes/u1/cache/file");
        write("volumes/u2/cache/file");
        let pod = PodRef { namespace: "ns".into(), name: "web".into(), uid: PodUid("u1".into()) };
        let usage = measure(dir.path(), &pod);
        let main = usage.containers[&ContainerName("main".into())];
        assert!((200_000..300_000).contains(&main), "{usage:?}");
        assert!((100_000..150_000).contains(&usage.volumes["cache"]), "{usage:?}");
        assert_eq!(usage.volumes.len(), 1);
    }
}
