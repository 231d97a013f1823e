//! A token by which a machine becomes a member of the control plane: the cluster's authorities lie in it for who has
//! the token, sealed with a key that the cluster never sees.
//!
//! All that is made belongs to the token's Secret, and goes with it.

use std::path::Path;

use api::bootstrap_token::{BootstrapToken, NAMESPACE};
use apiserver::pki::handover::{Authorities, CertificateKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::failure::Failure;

/// The type of the Secret with the authorities.
const SECRET_TYPE: &str = "amoeba.dev/authorities";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Leaves the authorities of `pki_dir` in the cluster for who has this token, whose Secret was just made, and returns the
/// key that they are sealed with.
///
/// # Errors
/// The authorities can't be read here, or the cluster refuses.
pub async fn hand_over(
    cluster: &Cluster,
    token: &BootstrapToken,
    made: &Value,
    pki_dir: &Path,
) -> Result<CertificateKey, Failure> {
    let authorities = Authorities::read(pki_dir).map_err(|error| {
        let why = "a token of the control plane is made on a member, which has the authorities";
        Failure::Usage(format!("--pki-dir {}: {error}: {why}", pki_dir.display()))
    })?;
    let key = CertificateKey::random();
    for (path, object) in objects(token, made, &authorities, &key) {
        cluster.create(&path, &object).await?;
    }
    Ok(key)
}

/// The Secret, and who may read it: the one with the token.
fn objects(
    token: &BootstrapToken,
    made: &Value,
    authorities: &Authorities,
    key: &CertificateKey,
) -> [(String, Value); 3] {
    let name = token.authorities_name();
    let owner = json!({
        "apiVersion": "v1", "kind": "Secret", "name": token.secret_name(), "uid": made["metadata"]["uid"],
    });
    let metadata = json!({"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]});
    let sealed = authorities.seal(key).into_iter();
    let data: Map<String, Value> =
        sealed.map(|(name, bytes)| (name, STANDARD.encode(bytes).into())).collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": SECRET_TYPE, "data": data});
    let rbac = format!("{RBAC}/v1");
    let role = json!({
        "apiVersion": rbac, "kind": "Role", "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": token.own_group()}],
    });
    let roles = |plural: &str| format!("/apis/{rbac}/namespaces/{NAMESPACE}/{plural}");
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    [(secrets, secret), (roles("roles"), role), (roles("rolebindings"), binding)]
}
