//! What a volume shows of ClusterTrustBundles: the certificates of one, or of all that a signer has under some
//! labels.
//!
//! As upstream's kubelet has it, whatever stands between certificates is dropped and each certificate comes once. The
//! order is that of their bytes, so that a restarted agent finds the file as it would write it.

use std::collections::{BTreeMap, BTreeSet};

use api::selector::LabelSelector;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use x509_parser::pem::Pem;

use crate::pod::env::Reference;

/// Letters of a line of PEM.
const LINE: usize = 64;

/// What has to be known to show it.
pub fn reference(wanted: &ClusterTrustBundleProjection) -> Option<Reference> {
    let by_name = wanted.name.clone().map(Reference::TrustBundle);
    by_name.or_else(|| wanted.signer_name.clone().map(Reference::TrustBundlesOf))
}

/// The certificates as PEM; nothing if there need be none. The error is upstream's.
pub fn anchors(
    wanted: &ClusterTrustBundleProjection,
    known: &BTreeMap<String, ClusterTrustBundle>,
) -> Result<String, String> {
    let is_optional = wanted.optional == Some(true);
    let chosen = match (&wanted.name, &wanted.signer_name) {
        (Some(name), _) => known.get(name).into_iter().collect(),
        (None, Some(signer)) => of_signer(wanted, signer, known)?,
        (None, None) => {
            return Err(
                "ClusterTrustBundle projection requires either name or signerName to be set".to_owned()
            );
        }
    };
    match &wanted.name {
        _ if is_optional || !chosen.is_empty() => Ok(normalized(&chosen)),
        Some(name) => {
            let why = format!("clustertrustbundle.certificates.k8s.io \"{name}\" not found");
            Err(format!("while getting ClusterTrustBundle: {why}"))
        }
        None => {
            Err("combination of signerName and labelSelector matched zero ClusterTrustBundles".to_owned())
        }
    }
}

/// Without a selector nothing is chosen, with an empty one everything.
fn of_signer<'a>(
    wanted: &ClusterTrustBundleProjection,
    signer: &str,
    known: &'a BTreeMap<String, ClusterTrustBundle>,
) -> Result<Vec<&'a ClusterTrustBundle>, String> {
    let Some(selector) = &wanted.label_selector else { return Ok(Vec::new()) };
    let selector = LabelSelector::from_object(selector)
        .map_err(|error| format!("while parsing label selector: {error}"))?;
    let none = BTreeMap::new();
    let is_chosen = |bundle: &&ClusterTrustBundle| {
        bundle.spec.signer_name.as_deref() == Some(signer)
            && selector.matches(bundle.metadata.labels.as_ref().unwrap_or(&none))
    };
    Ok(known.values().filter(is_chosen).collect())
}

fn normalized(bundles: &[&ClusterTrustBundle]) -> String {
    let blocks = bundles
        .iter()
        .flat_map(|bundle| Pem::iter_from_buffer(bundle.spec.trust_bundle.as_bytes()).map_while(Result::ok));
    let certificates: BTreeSet<Vec<u8>> = blocks.map(|block| block.contents).collect();
    certificates.iter().map(|certificate| pem(certificate)).collect()
}

fn pem(certificate: &[u8]) -> String {
    let encoded = STANDARD.encode(certificate);
    let lines = encoded.as_bytes().chunks(LINE).map(|line| String::from_utf8_lossy(line) + "\n");
    let lines: String = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bundle of certificates that are but their names, with something between them.
    fn bundle(name: &str, signer: &str, label: &str, certificates: &[&str]) -> (String, ClusterTrustBundle) {
        let text: String =
            certificates.iter().map(|one| format!("# {one}\n{}\n", pem(one.as_bytes()))).collect();
        let bundle = serde_json::json!({
            "metadata": {"name": name, "labels": {"is": label}},
            "spec": {"signerName": signer, "trustBundle": text},
        });
        (name.to_owned(), serde_json::from_value(bundle).expect("a bundle"))
    }

    /// The certificates in their order, or why there are none.
    fn show(wanted: &str) -> Result<String, String> {
        let known = BTreeMap::from([
            bundle("plain", "", "", &["b", "a", "b"]),
            bundle("x:s:1", "x/s", "old", &["c", "a"]),
            bundle("x:s:2", "x/s", "new", &["a", "d"]),
            bundle("x:t:1", "x/t", "new", &["e"]),
        ]);
        let wanted: ClusterTrustBundleProjection =
            serde_yaml::from_str(&format!("{{path: p, {wanted}}}")).expect("a projection");
        let text = anchors(&wanted, &known)?;
        let blocks = Pem::iter_from_buffer(text.as_bytes()).map(|block| block.expect("a block").contents);
        let names: Vec<String> = blocks.map(|name| String::from_utf8(name).expect("a name")).collect();
        assert!(text.lines().all(|line| line.len() <= LINE), "{text}");
        assert!(!text.contains('#') && (text.is_empty() || text.ends_with("-----\n")), "{text}");
        Ok(names.join(" "))
    }

    #[test]
    fn certificates_are_chosen_and_come_once() {
        for (wanted, shown) in [
            ("name: plain", "a b"),
            ("name: 'x:s:1'", "a c"),
            ("name: none, optional: true", ""),
            ("signerName: x/s, labelSelector: {}", "a c d"),
            ("signerName: x/s, labelSelector: {matchLabels: {is: new}}", "a d"),
            ("signerName: x/t, labelSelector: {matchExpressions: [{key: is, operator: Exists}]}", "e"),
            ("signerName: x/s, labelSelector: {matchLabels: {is: none}}, optional: true", ""),
            ("signerName: x/s, optional: true", ""),
        ] {
            assert_eq!(show(wanted), Ok(shown.to_owned()), "{wanted}");
        }
    }

    #[test]
    fn what_is_missing_is_named_as_upstream() {
        let nothing = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        for (wanted, why) in [
            (
                "name: none",
                "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"none\" not found",
            ),
            ("signerName: x/u, labelSelector: {}", nothing),
            ("signerName: x/s", nothing),
            ("optional: true", "ClusterTrustBundle projection requires either name or signerName to be set"),
        ] {
            assert_eq!(show(wanted), Err(why.to_owned()), "{wanted}");
        }
    }

    #[test]
    fn it_says_what_it_needs() {
        let of = |wanted: &str| reference(&serde_yaml::from_str(wanted).expect("a projection"));
        assert_eq!(of("{path: p, name: n}"), Some(Reference::TrustBundle("n".to_owned())));
        assert_eq!(of("{path: p, signerName: x/s}"), Some(Reference::TrustBundlesOf("x/s".to_owned())));
        assert_eq!(of("{path: p}"), None);
    }
}
