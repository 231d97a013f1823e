//! Certificate requests (PKCS #10) and who may be asked to sign which: the rules of upstream's signers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// Signs certificates that authenticate to the API server; never approved by itself.
pub const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs the certificates by which nodes authenticate to the API server.
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs the certificates that kubelets serve with.
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";

const NODES_GROUP: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// What a request asks to be certified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The user, to the API server.
    pub common_name: String,
    /// The groups, to the API server.
    pub organizations: Vec<String>,
    /// DNS names.
    pub names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// The key to be certified, as a SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl CertificateRequest {
    /// Reads a request and checks that its sender has the key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        const LABEL: &str = "CERTIFICATE REQUEST";
        let (_, pem) = parse_x509_pem(pem).map_err(|_| format!("PEM block type must be {LABEL}"))?;
        if pem.label != LABEL {
            return Err(format!("PEM block type must be {LABEL}"));
        }
        let (_, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|error| format!("it is no certificate request: {error}"))?;
        request.verify_signature().map_err(|_| "its signature is not by the key that it holds".to_owned())?;
        let info = &request.certification_request_info;
        let text = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let mut read = Self {
            common_name: info.subject.iter_common_name().next().and_then(text).unwrap_or_default(),
            organizations: info.subject.iter_organization().filter_map(text).collect(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(alternatives) = extension {
                alternatives.general_names.iter().for_each(|name| read.add(name));
            }
        }
        Ok(read)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
            _ => {}
        }
    }

    /// Whether `signer`, one of the three above, may sign this for `usages`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, signer: &str, usages: &[String]) -> Result<(), String> {
        match signer {
            API_CLIENT => check_client_usages(usages),
            NODE_CLIENT => {
                self.check_node()?;
                self.check_no_alternatives()?;
                check_usages(usages, "client auth")
            }
            NODE_SERVING => {
                self.check_node()?;
                self.check_serving()?;
                check_usages(usages, "server auth")
            }
            other => Err(format!("{other:?} is no signer of this cluster")),
        }
    }

    fn check_node(&self) -> Result<(), String> {
        if self.organizations != [NODES_GROUP] {
            return Err(format!("subject organization is not {NODES_GROUP}"));
        }
        match self.common_name.strip_prefix(NODE_PREFIX) {
            Some(_) => Ok(()),
            None => Err(format!("subject common name does not begin with {NODE_PREFIX}")),
        }
    }

    fn check_no_alternatives(&self) -> Result<(), String> {
        let given = [
            ("DNS", !self.names.is_empty()),
            ("email", !self.emails.is_empty()),
            ("IP", !self.addresses.is_empty()),
            ("URI", !self.uris.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((kind, _)) => Err(format!("{kind} subjectAltNames are not allowed")),
            None => Ok(()),
        }
    }

    fn check_serving(&self) -> Result<(), String> {
        if self.names.is_empty() && self.addresses.is_empty() {
            return Err("at least one DNS or IP subjectAltName is required".to_owned());
        }
        let given = [("email", !self.emails.is_empty()), ("URI", !self.uris.is_empty())];
        match given.iter().find(|(_, given)| *given) {
            Some((kind, _)) => Err(format!("{kind} subjectAltNames are not allowed")),
            None => Ok(()),
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

/// Somebody's client certificate: what else it is for is optional, and little is allowed.
fn check_client_usages(usages: &[String]) -> Result<(), String> {
    const PURPOSE: &str = "client auth";
    const ALLOWED: [&str; 3] = ["digital signature", "key encipherment", PURPOSE];
    if let Some(other) = usages.iter().find(|usage| !ALLOWED.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.iter().any(|usage| usage == PURPOSE) {
        true => Ok(()),
        false => Err(format!("missing required usage for client certificate: {PURPOSE}")),
    }
}

/// A node's: the purpose and a signature are asked for, and nothing else but a key's encipherment.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let has = |usage: &str| usages.iter().any(|own| own == usage);
    let allowed = ["digital signature", "key encipherment", purpose];
    if !has(purpose) || !has("digital signature") || usages.iter().any(|own| !allowed.contains(&own.as_str()))
    {
        return Err(format!("usages did not match [\"digital signature\" \"key encipherment\" {purpose:?}]"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(purpose: &str) -> Vec<String> {
        [purpose, "digital signature"].map(str::to_owned).to_vec()
    }

    fn node() -> CertificateRequest {
        CertificateRequest {
            common_name: "system:node:n1".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..CertificateRequest::default()
        }
    }

    #[test]
    fn signers_sign_what_is_theirs() {
        let serving = CertificateRequest { names: vec!["n1".to_owned()], ..node() };
        assert_eq!(node().check(NODE_CLIENT, &usages("client auth")), Ok(()));
        assert_eq!(serving.check(NODE_SERVING, &usages("server auth")), Ok(()));
        let jane = CertificateRequest { common_name: "jane".to_owned(), ..CertificateRequest::default() };
        assert_eq!(jane.check(API_CLIENT, &usages("client auth")), Ok(()));
        assert_eq!(
            jane.check(API_CLIENT, &["client auth".to_owned()]),
            Ok(()),
            "a signature isn't asked for"
        );
        let refusals = [
            (serving.check(NODE_CLIENT, &usages("client auth")), "DNS subjectAltNames are not allowed"),
            (
                node().check(NODE_SERVING, &usages("server auth")),
                "at least one DNS or IP subjectAltName is required",
            ),
            (node().check(NODE_CLIENT, &usages("server auth")), "usages did not match"),
            (jane.check(NODE_CLIENT, &usages("client auth")), "subject organization is not system:nodes"),
            (jane.check(API_CLIENT, &[]), "missing required usage for client certificate: client auth"),
            (
                jane.check(API_CLIENT, &usages("server auth")),
                "invalid usage for client certificate: server auth",
            ),
            (jane.check("example.com/mine", &usages("client auth")), "is no signer of this cluster"),
        ];
        for (refusal, expected) in refusals {
            let why = refusal.expect_err(expected);
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(
                CertificateRequest::parse(text.as_bytes()),
                Err("PEM block type must be CERTIFICATE REQUEST".to_owned())
            );
        }
    }
}
