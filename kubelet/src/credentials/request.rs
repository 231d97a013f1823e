//! Asks the cluster for a certificate: a key, a CertificateSigningRequest, and the answer.

use std::net::IpAddr;
use std::time::Duration;

use api::csr::{NODE_CLIENT, NODE_SERVING};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::runtime::wait::{self, await_condition};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

/// How long somebody may take to decide; upstream waits as long.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To show to the API server.
    Client,
    /// To be called by the node's name, and at these addresses.
    Serving(Vec<IpAddr>),
}

/// A certificate with its key, both PEM. There is no `Debug`: it would show the key.
#[derive(Clone)]
pub struct Certified {
    /// The certificate, and those between it and the authority.
    pub chain_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request can't be made.
    #[error("make a certificate request for {node:?}")]
    Make {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The API server doesn't take it.
    #[error("ask the API server for a certificate")]
    Submit(#[source] Box<kube::Error>),
    /// The decision can't be followed.
    #[error("wait for the certificate request {name}")]
    Wait {
        /// The request.
        name: String,
        /// Why.
        #[source]
        source: Box<wait::Error>,
    },
    /// It was decided against.
    #[error("the certificate request {name} was {verdict}: {message}")]
    Refused {
        /// The request.
        name: String,
        /// `Denied` or `Failed`.
        verdict: String,
        /// What was said of it.
        message: String,
    },
    /// Nobody decided.
    #[error(
        "nobody decided on the certificate request {0}: see it with `kubectl get csr`, \
         and approve it with `kubectl certificate approve {0}`"
    )]
    Undecided(String),
}

impl Purpose {
    fn signer(&self) -> &'static str {
        match self {
            Self::Client => NODE_CLIENT,
            Self::Serving(_) => NODE_SERVING,
        }
    }

    fn usages(&self) -> Vec<String> {
        let purpose = match self {
            Self::Client => "client auth",
            Self::Serving(_) => "server auth",
        };
        ["digital signature", purpose].map(str::to_owned).to_vec()
    }

    fn alternatives(&self, node: &str) -> Result<Vec<SanType>, rcgen::Error> {
        match self {
            Self::Client => Ok(Vec::new()),
            Self::Serving(addresses) => {
                let name = SanType::DnsName(node.try_into()?);
                Ok([name].into_iter().chain(addresses.iter().copied().map(SanType::IpAddress)).collect())
            }
        }
    }
}

/// Asks, and waits until it is decided. A node that asks again makes another request with another key: an answer to
/// an earlier one would be for a key that is lost.
///
/// # Errors
/// [`RequestError`] says what was attempted.
pub async fn obtain(client: &kube::Client, node: &str, purpose: &Purpose) -> Result<Certified, RequestError> {
    let (request_pem, key_pem) =
        request(node, purpose).map_err(|source| RequestError::Make { node: node.to_owned(), source })?;
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request_pem.into_bytes()),
            signer_name: purpose.signer().to_owned(),
            usages: Some(purpose.usages()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let created = requests.create(&PostParams::default(), &object).await;
    let created = created.map_err(|source| RequestError::Submit(Box::new(source)))?;
    let name = created.metadata.name.unwrap_or_default();
    let waited = tokio::time::timeout(PATIENCE, await_condition(requests, &name, is_decided)).await;
    let waited = waited.map_err(|_| RequestError::Undecided(name.clone()))?;
    let decided =
        waited.map_err(|source| RequestError::Wait { name: name.clone(), source: Box::new(source) })?;
    let chain_pem = issued(&name, decided.as_ref())?;
    Ok(Certified { chain_pem, key_pem })
}

/// A new key, and the request by it: both PEM.
fn request(node: &str, purpose: &Purpose) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    params.subject_alt_names = purpose.alternatives(node)?;
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|pem| !pem.is_empty())
}

/// `Denied` or `Failed`, and why.
fn refusal(request: &CertificateSigningRequest) -> Option<(String, String)> {
    let conditions = request.status.as_ref()?.conditions.as_deref()?;
    let refused =
        conditions.iter().find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed"))?;
    Some((refused.type_.clone(), refused.message.clone().unwrap_or_default()))
}

/// A request that is gone will never be answered.
fn is_decided(request: Option<&CertificateSigningRequest>) -> bool {
    request.is_none_or(|request| certificate(request).is_some() || refusal(request).is_some())
}

fn issued(name: &str, request: Option<&CertificateSigningRequest>) -> Result<String, RequestError> {
    let name = name.to_owned();
    let Some(request) = request else { return Err(RequestError::Undecided(name)) };
    if let Some((verdict, message)) = refusal(request) {
        return Err(RequestError::Refused { name, verdict: verdict.to_lowercase(), message });
    }
    let pem = certificate(request).unwrap_or_default();
    String::from_utf8(pem.to_vec()).map_err(|_| RequestError::Refused {
        name,
        verdict: "answered".to_owned(),
        message: "the certificate is no PEM".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::csr::CertificateRequest;

    #[test]
    fn requests_are_what_their_signers_sign() {
        for purpose in [Purpose::Client, Purpose::Serving(vec!["10.0.0.1".parse().expect("an address")])] {
            let (pem, _) = request("n1", &purpose).expect("a request");
            let read = CertificateRequest::parse(pem.as_bytes()).expect("it is read");
            assert_eq!(read.check(purpose.signer(), &purpose.usages()), Ok(()), "{purpose:?}");
            assert_eq!(read.common_name, "system:node:n1");
        }
    }

    #[test]
    fn a_decision_is_a_certificate_a_refusal_or_the_end() {
        let request = |status: serde_json::Value| -> CertificateSigningRequest {
            let spec = serde_json::json!({"request": "", "signerName": "s"});
            serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec, "status": status}))
                .expect("a request")
        };
        let condition = |kind: &str| serde_json::json!([{"type": kind, "status": "True", "message": "why"}]);
        let approved = request(serde_json::json!({"conditions": condition("Approved")}));
        assert!(!is_decided(Some(&approved)), "it isn't signed yet");
        let signed = request(serde_json::json!({"conditions": condition("Approved"), "certificate": "UEVN"}));
        assert!(is_decided(Some(&signed)));
        assert_eq!(issued("c", Some(&signed)).expect("issued"), "PEM");
        let denied = request(serde_json::json!({"conditions": condition("Denied")}));
        let refused = issued("c", Some(&denied)).expect_err("denied").to_string();
        assert_eq!(refused, "the certificate request c was denied: why");
        assert!(is_decided(Some(&denied)) && is_decided(None));
    }
}
