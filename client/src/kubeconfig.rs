//! The kubeconfigs that the cluster writes itself: one cluster, one user with a certificate, everything inside, so
//! that a file can be copied.

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::config::{Kubeconfig, NamedExtension};
use serde_json::json;
use std::fmt;

use crate::config::SERVERS_EXTENSION;

/// How somebody reaches a cluster, and by what he is known there. `Debug` doesn't show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// URLs of API servers, in the order in which they are tried; at least one.
    pub servers: Vec<String>,
    /// Who signs the servers' certificates, PEM.
    pub ca_pem: String,
    /// What the user is called in the file.
    pub user: String,
    /// The certificate chain, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("servers", &self.servers)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let encoded = |pem: &str| STANDARD.encode(pem);
        let (first, others) = self.servers.split_first().expect("a cluster has a server");
        let mut cluster = json!({"server": first, "certificate-authority-data": encoded(&self.ca_pem)});
        if !others.is_empty() {
            cluster["extensions"] = json!([{"name": SERVERS_EXTENSION, "extension": others}]);
        }
        api::yaml::to_yaml(&json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "amoeba", "cluster": cluster}],
            "users": [{"name": self.user, "user": {
                "client-certificate-data": encoded(&self.certificate_pem),
                "client-key-data": encoded(&self.key_pem)}}],
            "contexts": [{"name": "amoeba", "context": {"cluster": "amoeba", "user": self.user}}],
            "current-context": "amoeba",
        }))
    }

    /// Reads what [`Credentials::to_yaml`] wrote.
    ///
    /// # Errors
    /// What is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = Kubeconfig::from_yaml(text).map_err(|error| error.to_string())?;
        let (servers, ca_pem) = cluster_of(&read)?;
        let user = read.auth_infos.first().ok_or("it has no user")?;
        // The type of a key in memory is closed; as JSON it is the file's text again.
        let data = serde_json::to_value(user).map_err(|error| error.to_string())?;
        let field = |name: &str, what: &str| decoded(data["user"][name].as_str(), what);
        Ok(Self {
            servers,
            ca_pem,
            user: user.name.clone(),
            certificate_pem: field("client-certificate-data", "client certificate")?,
            key_pem: field("client-key-data", "client key")?,
        })
    }
}

/// The servers and the authority (PEM) of the first cluster in a kubeconfig.
///
/// # Errors
/// What is missing.
pub fn cluster_of(config: &Kubeconfig) -> Result<(Vec<String>, String), String> {
    let named = config.clusters.first();
    let cluster = named.and_then(|named| named.cluster.as_ref()).ok_or("it has no cluster")?;
    let first = cluster.server.clone().ok_or("it names no server")?;
    let others = further_servers(cluster.extensions.as_deref());
    let ca_pem = decoded(cluster.certificate_authority_data.as_deref(), "certificate authority")?;
    Ok((std::iter::once(first).chain(others).collect(), ca_pem))
}

/// What stands in the extension that names further servers.
pub fn further_servers(extensions: Option<&[NamedExtension]>) -> Vec<String> {
    let ours = extensions.into_iter().flatten().filter(|named| named.name == SERVERS_EXTENSION);
    let urls = ours.filter_map(|named| named.extension.as_array()).flatten();
    urls.filter_map(|url| url.as_str()).map(str::to_owned).collect()
}

fn decoded(text: Option<&str>, what: &str) -> Result<String, String> {
    let bytes = text.and_then(|text| STANDARD.decode(text).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| format!("it holds no {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let written = Credentials {
            servers: vec!["https://10.0.0.1:6443".to_owned(), "https://10.0.0.2:6443".to_owned()],
            ca_pem: "authority".to_owned(),
            user: "system:node:n1".to_owned(),
            certificate_pem: "certificate".to_owned(),
            key_pem: "key".to_owned(),
        };
        assert_eq!(Credentials::parse(&written.to_yaml()), Ok(written.clone()));
        assert!(!format!("{written:?}").contains("key"));
        let lost = written.to_yaml().replace("client-key-data", "client-keys-data");
        assert_eq!(Credentials::parse(&lost), Err("it holds no client key".to_owned()));
    }
}
