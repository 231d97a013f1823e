//! The part of a kubeconfig that a measurement needs: one server and one client certificate.

use anyhow::{Context, Result};
use base64::Engine as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Where to connect, and as whom.
#[derive(Clone)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The name that the server's certificate must have.
    pub name: ServerName<'static>,
    /// Roots, and the client certificate if there is one.
    pub tls: Arc<ClientConfig>,
    /// Bearer token, if there is one.
    pub token: Option<String>,
}

impl Target {
    /// Reads the first cluster and user of a kubeconfig with embedded certificates.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let config: Value =
            serde_yaml::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        Self::of(&config).with_context(|| format!("use {}", path.display()))
    }

    fn of(config: &Value) -> Result<Self> {
        let server = config["clusters"][0]["cluster"]["server"].as_str().context("no server")?;
        let uri: http::Uri = server.parse().context("the server's URL")?;
        let host = uri.host().context("the server's URL has no host")?;
        Ok(Target {
            address: format!("{host}:{}", uri.port_u16().unwrap_or(443)),
            name: ServerName::try_from(host.to_owned()).context("the server's name")?,
            tls: Arc::new(tls(config)?),
            token: config["users"][0]["user"]["token"].as_str().map(str::to_owned),
        })
    }
}

fn tls(config: &Value) -> Result<ClientConfig> {
    let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&pem(cluster, "certificate-authority-data")?)? {
        roots.add(certificate).context("the certificate authority")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    if user["token"].is_string() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = certificates(&pem(user, "client-certificate-data")?)?;
    let key = PrivateKeyDer::from_pem_slice(&pem(user, "client-key-data")?).context("the client key")?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

/// Embedded, or in the file that the field without `-data` names.
fn pem(object: &Value, field: &str) -> Result<Vec<u8>> {
    let file = object[field.trim_end_matches("-data")].as_str();
    let Some(encoded) = object[field].as_str() else {
        let file = file.with_context(|| format!("no {field}"))?;
        return std::fs::read(file).with_context(|| format!("read {file}"));
    };
    base64::engine::general_purpose::STANDARD.decode(encoded).with_context(|| format!("decode {field}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().context("a certificate")
}
