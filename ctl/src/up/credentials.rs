//! Certificates and kubeconfigs, written before anything is started.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use apiserver::pki::{Issued, MASTERS_GROUP, Pki};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::UpError;
use super::layout::{ChildId, Layout};
use super::shape::Shape;

/// The user of the admin kubeconfig.
const ADMIN: &str = "kubernetes-admin";

/// The user of simulated nodes.
const SIMULATOR: &str = "amoeba:simulated-nodes";

/// Makes what is missing and writes every kubeconfig for the port of `shape`.
pub fn prepare(layout: &Layout, shape: &Shape) -> Result<Pki, UpError> {
    let pki = Pki::load_or_create(&layout.pki())?;
    pki.write_etcd_client(&layout.pki())?;
    let url = format!("https://127.0.0.1:{}", shape.port);
    let admin = pki.issue_client(ADMIN, &[MASTERS_GROUP])?;
    write_private(&layout.admin_kubeconfig(), &kubeconfig(&url, pki.ca_pem(), ADMIN, &admin))?;
    for number in 1..=shape.nodes {
        node(layout, &pki, &url, ChildId::Node(number))?;
    }
    if shape.fake_nodes > 0 {
        // One that may write every node: it speaks for all of them.
        let issued = pki.issue_client(SIMULATOR, &[MASTERS_GROUP])?;
        let text = kubeconfig(&url, pki.ca_pem(), SIMULATOR, &issued);
        write_private(&layout.node_kubeconfig(ChildId::Fake), &text)?;
    }
    Ok(pki)
}

fn node(layout: &Layout, pki: &Pki, url: &str, child: ChildId) -> Result<(), UpError> {
    let name = child.to_string();
    let issued = pki.issue_node(&name, &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
    let user = format!("system:node:{name}");
    write_private(&layout.node_kubeconfig(child), &kubeconfig(url, pki.ca_pem(), &user, &issued))?;
    write_private(&layout.node_certificate(child), &issued.certificate_pem)?;
    write_private(&layout.node_key(child), &issued.key_pem)
}

/// A kubeconfig with everything inside, so that it can be copied.
fn kubeconfig(url: &str, ca_pem: &str, user: &str, issued: &Issued) -> String {
    let encoded = |pem: &str| Value::String(STANDARD.encode(pem));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "amoeba", "cluster": {"server": url, "certificate-authority-data": encoded(ca_pem)}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encoded(&issued.certificate_pem),
            "client-key-data": encoded(&issued.key_pem)}}],
        "contexts": [{"name": "amoeba", "context": {"cluster": "amoeba", "user": user}}],
        "current-context": "amoeba",
    });
    api::yaml::to_yaml(&config)
}

/// Writes a file that only its owner may read; it is there completely or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<(), UpError> {
    let temporary = path.with_extension("new");
    let write = || {
        // A leftover of a crash may have other rights.
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(UpError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::shape::Requested;
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
