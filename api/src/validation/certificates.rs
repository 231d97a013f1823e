//! Rules for certificate signing requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;

use super::field::{Errors, Field};
use crate::csr::CertificateRequest;
use crate::status::FieldError;

/// Shortest life that may be asked for, in seconds.
const SHORTEST_SECONDS: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// A whole request.
pub(super) fn signing_request(root: &Field<'_>) -> Errors {
    let spec = root.get("spec");
    let mut errors = request(&spec.get("request"));
    errors.extend(usages(&spec.get("usages")));
    errors.extend(signer_name(&spec.get("signerName")));
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < SHORTEST_SECONDS) {
        errors.push(seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
    errors.extend(conditions(&root.at("status.conditions")));
    errors.extend(certificate(&root.at("status.certificate")));
    errors
}

/// A bundle of a signer begins with the signer's name, others have no colon; what is in it are certificates.
pub(super) fn trust_bundle(root: &Field<'_>) -> Errors {
    let (name, signer) = (root.at("metadata.name"), root.at("spec.signerName"));
    let mut errors = Errors::new();
    if signer.is_empty() {
        if name.text().contains(':') {
            errors
                .push(name.invalid("ClusterTrustBundle without signer name must not have \":\" in its name"));
        }
    } else {
        errors.extend(signer_name(&signer));
        let prefix = format!("{}:", signer.text().replace('/', ":"));
        if !name.text().starts_with(&prefix) {
            let why = format!(
                "ClusterTrustBundle for signerName {} must be named with prefix {prefix}",
                signer.text()
            );
            errors.push(name.invalid(why));
        }
    }
    errors.extend(trust_anchors(&root.at("spec.trustBundle")));
    errors
}

fn trust_anchors(bundle: &Field<'_>) -> Errors {
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut errors = Errors::new();
    for block in Pem::iter_from_buffer(bundle.text().as_bytes()).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            errors.push(bundle.invalid(format!("entry {} has bad block type: {}", seen.len(), block.label)));
        } else if seen.contains(&block.contents) {
            errors.push(bundle.invalid("contains duplicate trust anchor"));
        } else if block.parse_x509().is_err() {
            errors.push(bundle.invalid(format!("entry {} does not parse as X.509", seen.len())));
        }
        seen.push(block.contents);
    }
    if seen.is_empty() {
        errors.push(bundle.invalid("at least one trust anchor must be provided"));
    }
    errors
}

fn request(request: &Field<'_>) -> Errors {
    let pem = STANDARD.decode(request.text()).unwrap_or_default();
    CertificateRequest::parse(&pem).err().map(|why| request.invalid(why)).into_iter().collect()
}

fn usages(usages: &Field<'_>) -> Errors {
    if usages.is_empty() {
        return vec![usages.required("")];
    }
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for usage in usages.items() {
        if !USAGES.contains(&usage.text()) {
            errors.push(FieldError::not_supported(&usage.path, usage.value.clone(), &USAGES));
        } else if seen.contains(&usage.text()) {
            errors.push(usage.duplicate());
        }
        seen.push(usage.text());
    }
    errors
}

/// A domain and a path.
pub(super) fn signer_name(name: &Field<'_>) -> Errors {
    let well_formed = |text: &str| {
        let (domain, path) = text.split_once('/')?;
        let labels = domain.split('.').count() > 1 && crate::name::dns1123_subdomain(domain).is_ok();
        let parts = path.split('.').all(|part| crate::name::dns1123_label(part).is_ok());
        (labels && parts && text.len() <= 571).then_some(())
    };
    match name.text() {
        "" => vec![name.required("")],
        "kubernetes.io/legacy-unknown" => {
            vec![name.invalid("the legacy signerName is not allowed via this API version")]
        }
        text if well_formed(text).is_none() => {
            vec![
                name.invalid(
                    "must be a fully qualified domain and path of the form 'example.com/signer-name'",
                ),
            ]
        }
        _ => Errors::new(),
    }
}

fn conditions(conditions: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut seen: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        errors.extend(kind.present());
        let decides = matches!(kind.text(), "Approved" | "Denied" | "Failed");
        match status.text() {
            "" => errors.push(status.required("")),
            "True" => {}
            _ if decides => {
                errors.push(FieldError::not_supported(&status.path, status.value.clone(), &["True"]))
            }
            "False" | "Unknown" => {}
            _ => errors.push(FieldError::not_supported(
                &status.path,
                status.value.clone(),
                &["False", "True", "Unknown"],
            )),
        }
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !other.is_empty() && seen.contains(&other) {
            errors.push(kind.invalid("Approved and Denied conditions are mutually exclusive"));
        } else if seen.contains(&kind.text()) {
            errors.push(kind.duplicate());
        }
        seen.push(kind.text());
    }
    errors
}

fn certificate(certificate: &Field<'_>) -> Errors {
    if certificate.is_empty() {
        return Errors::new();
    }
    let pem = STANDARD.decode(certificate.text()).unwrap_or_default();
    let parsed = x509_parser::pem::parse_x509_pem(&pem).ok().filter(|(_, pem)| pem.label == "CERTIFICATE");
    match parsed.is_some_and(|(_, pem)| pem.parse_x509().is_ok()) {
        true => Errors::new(),
        false => {
            let why = "must contain at least one PEM block of type CERTIFICATE with an X.509 certificate";
            vec![FieldError::invalid(&certificate.path, "<certificate data>", why)]
        }
    }
}
