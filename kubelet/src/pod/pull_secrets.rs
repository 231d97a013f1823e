//! Logins of registries, from the Secrets that a pod names in `imagePullSecrets`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::Value;

use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::Login;
use crate::pod::env::{Reference, Sources};

/// The Secrets.
pub fn references(pod: &Pod) -> impl Iterator<Item = Reference> {
    let names = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    names.map(|secret| Reference::Secret(secret.name.clone()))
}

/// The logins of those that exist, by registry. What can't be read is left out: the pull says what it lacks.
pub fn logins(pod: &Pod, sources: &Sources) -> Vec<(String, Login)> {
    let secrets = references(pod).filter_map(|reference| match reference {
        Reference::Secret(name) => sources.secrets.get(&name),
        _ => None,
    });
    secrets.flat_map(of_secret).collect()
}

/// The names of those that don't exist.
pub fn missing(pod: &Pod, sources: &Sources) -> Vec<String> {
    let names = references(pod).filter_map(|reference| match reference {
        Reference::Secret(name) => Some(name),
        _ => None,
    });
    names.filter(|name| !sources.secrets.contains_key(name)).collect()
}

/// Of a Secret of the type `kubernetes.io/dockerconfigjson`, or of the older `kubernetes.io/dockercfg`, by registry.
pub fn of_secret(secret: &Secret) -> Vec<(String, Login)> {
    let text =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    match (text(".dockerconfigjson"), text(".dockercfg")) {
        (Some(bytes), _) => of_config(bytes),
        (None, Some(bytes)) => of_auths(&parsed(bytes)),
        (None, None) => Vec::new(),
    }
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Of Docker's `config.json`, by registry.
pub fn of_config(bytes: &[u8]) -> Vec<(String, Login)> {
    of_auths(&parsed(bytes)["auths"])
}

fn of_auths(auths: &Value) -> Vec<(String, Login)> {
    let entries = auths.as_object().into_iter().flatten();
    entries.filter_map(|(server, entry)| Some((registry(server), login(entry)?))).collect()
}

/// Entries are keyed by host or by URL, and Docker Hub has a name of its own there.
fn registry(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    let is_hub = matches!(host, "index.docker.io" | "registry-1.docker.io");
    if is_hub { DEFAULT_REGISTRY.to_owned() } else { host.to_owned() }
}

fn login(entry: &Value) -> Option<Login> {
    if let (Some(user), Some(password)) = (entry["username"].as_str(), entry["password"].as_str()) {
        return Some(Login { user: user.to_owned(), password: password.to_owned() });
    }
    let decoded = String::from_utf8(STANDARD.decode(entry["auth"].as_str()?).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Login { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_in_all_forms() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cHc="},
            "r.example:5000":{"username":"you","password":"p:w"},"broken":{"auth":"?"}}}"#;
        let data = [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(json.as_bytes().to_vec()))];
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        let login =
            |user: &str, password: &str| Login { user: user.to_owned(), password: password.to_owned() };
        let want = vec![
            ("docker.io".to_owned(), login("me", "pw")),
            ("r.example:5000".to_owned(), login("you", "p:w")),
        ];
        assert_eq!(of_secret(&secret), want);
        assert_eq!(of_secret(&Secret::default()), vec![]);
        let pod =
            serde_yaml::from_str("{spec: {containers: [], imagePullSecrets: [{name: one}, {name: two}]}}");
        let secrets = [("two".to_owned(), secret)].into();
        assert_eq!(missing(&pod.expect("a pod"), &Sources { secrets, ..Sources::default() }), ["one"]);
    }
}
