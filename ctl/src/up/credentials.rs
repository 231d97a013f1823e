//! Certificates and kubeconfigs, written before anything is started.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use apiserver::pki::{MASTERS_GROUP, Pki};

use super::UpError;
use super::layout::{ChildId, Layout};
use super::shape::Shape;
use crate::control_plane::certificates::{admin_kubeconfig, kubeconfig};

/// The user of simulated nodes.
const SIMULATOR: &str = "amoeba:simulated-nodes";

/// Makes what is missing and writes every kubeconfig for the port of `shape`.
pub fn prepare(layout: &Layout, shape: &Shape) -> Result<Pki, UpError> {
    let pki = Pki::load_or_create(&layout.pki())?;
    pki.write_etcd_client(&layout.pki())?;
    let url = format!("https://127.0.0.1:{}", shape.port);
    write_private(&layout.admin_kubeconfig(), &admin_kubeconfig(&pki, &url)?)?;
    for number in 1..=shape.nodes {
        node(layout, &pki, &url, ChildId::Node(number))?;
    }
    if shape.fake_nodes > 0 {
        // One that may write every node: it speaks for all of them.
        let issued = pki.issue_client(SIMULATOR, &[MASTERS_GROUP])?;
        let text = kubeconfig(&url, &pki, SIMULATOR, &issued);
        write_private(&layout.node_kubeconfig(ChildId::Fake), &text)?;
    }
    Ok(pki)
}

fn node(layout: &Layout, pki: &Pki, url: &str, child: ChildId) -> Result<(), UpError> {
    let name = child.to_string();
    let issued = pki.issue_node(&name, &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
    let user = format!("system:node:{name}");
    write_private(&layout.node_kubeconfig(child), &kubeconfig(url, pki, &user, &issued))?;
    write_private(&layout.node_certificate(child), &issued.certificate_pem)?;
    write_private(&layout.node_key(child), &issued.key_pem)
}

/// Writes a file that only its owner may read; it is there completely or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<(), UpError> {
    kubelet::credentials::write_private(path, text).map_err(UpError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::shape::Requested;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn credentials_are_complete_private_and_made_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout::new(dir.path().to_owned());
        fs::create_dir_all(layout.child(ChildId::Node(1))).expect("created");
        let shape =
            Shape::decide(None, Requested { nodes: Some(1), ..Requested::default() }).expect("a shape");
        let first = prepare(&layout, &shape).expect("prepared").ca_pem().to_owned();
        let again = prepare(&layout, &shape).expect("prepared again");
        assert_eq!(again.ca_pem(), first, "the authority is made once");
        for path in [
            layout.admin_kubeconfig(),
            layout.node_kubeconfig(ChildId::Node(1)),
            layout.node_key(ChildId::Node(1)),
        ] {
            let mode = fs::metadata(&path).expect("written").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        let config = kube::config::Kubeconfig::read_from(layout.admin_kubeconfig()).expect("a kubeconfig");
        assert_eq!(config.current_context.as_deref(), Some("amoeba"));
    }
}
