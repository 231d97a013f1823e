//! Persistent volumes that lie on this node: claims followed to their volume's directory.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, Client};
use std::path::PathBuf;

use crate::agent::volumes::host_path;

/// Where the claim's volume is. The error is what an event says.
pub async fn directory(client: &Client, namespace: &str, claim: &str) -> Result<PathBuf, String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let about = |error: kube::Error| crate::agent::chain(&error);
    let found = claims.get(claim).await.map_err(about)?;
    let bound = found.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let name = found.spec.and_then(|spec| spec.volume_name).filter(|name| bound && !name.is_empty());
    let name = name.ok_or_else(|| format!("persistentvolumeclaim \"{claim}\" is not bound"))?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get(&name).await.map_err(about)?;
    local_path(&name, &volume)
}

fn local_path(name: &str, volume: &PersistentVolume) -> Result<PathBuf, String> {
    let spec = volume.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("persistentvolume \"{name}\": volumeMode Block is not supported by this node"));
    }
    if let Some(local) = spec.local {
        let path = PathBuf::from(&local.path);
        return match path.is_dir() {
            true => Ok(path),
            false => Err(format!("path {:?} does not exist", local.path)),
        };
    }
    if let Some(host) = spec.host_path {
        let path = PathBuf::from(&host.path);
        return host_path::prepare(&path, host.type_.as_deref().unwrap_or_default()).map(|()| path);
    }
    Err(format!(
        "persistentvolume \"{name}\" is neither local nor hostPath: other kinds are not supported by this node"
    ))
}
