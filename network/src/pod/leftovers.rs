//! What nodes leave in the kernel that will never start again: their data directory is gone.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rtnetlink::Handle;

use super::link;
use super::namespace::{PodNetworkError, empty, outer_name, read, table_of};
use crate::nft;
use crate::table::removal;

/// Says whose pods a directory holds.
const OWNER: &str = "data-dir";

/// Notes that the pods below `root` belong to the node with this data directory.
///
/// # Errors
/// The directory can't be written to.
pub fn own(root: &Path, data_dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(root)?;
    let data_dir = std::path::absolute(data_dir)?;
    std::fs::write(root.join(OWNER), data_dir.as_os_str().as_bytes())
}

/// Removes, of all directories in `parent`, those of nodes whose data directory is gone, with the links,
/// namespaces and ports of their pods. One whose owner isn't noted is removed only if it is empty.
pub async fn sweep(handle: &Handle, parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let root = entry.path();
        if !is_orphaned(&root) {
            // Fails unless it is empty.
            let _ = std::fs::remove_dir(&root);
            continue;
        }
        match remove(handle, &root).await {
            Ok(()) => {
                tracing::info!(root = %root.display(), "removed what a node that is gone left of its network")
            }
            Err(error) => {
                tracing::warn!(%error, root = %root.display(), "remove what a node that is gone left")
            }
        }
    }
}

fn is_orphaned(root: &Path) -> bool {
    let Ok(owner) = std::fs::read(root.join(OWNER)) else { return false };
    std::fs::exists(Path::new(OsStr::from_bytes(&owner))).is_ok_and(|there| !there)
}

async fn remove(handle: &Handle, root: &Path) -> Result<(), PodNetworkError> {
    let pods = read(root).map_err(PodNetworkError::system(format!("read {}", root.display())))?;
    let with_ports = pods.values().any(|(_, ports)| !ports.is_empty());
    for uid in pods.keys() {
        link::remove(handle, &outer_name(uid)).await?;
        empty(root, uid)?;
    }
    if with_ports {
        nft::run(&removal(&table_of(root))).await?;
    }
    std::fs::remove_dir_all(root).map_err(PodNetworkError::system(format!("remove {}", root.display())))
}
