//! Where a service account says so, its pods use only the secrets that it lists: upstream's annotation
//! `kubernetes.io/enforce-mountable-secrets`.

use api::object;
use serde_json::Value;

use super::service_account::items;

/// The pod uses no other secrets.
///
/// # Errors
/// The first that it may not use, and where, in upstream's words.
pub fn check(account: &Value, pod: &Value) -> Result<(), String> {
    let lists = |list: &str, secret: &str| items(&account[list]).iter().any(|item| item["name"] == secret);
    let name = object::name(account);
    if let Some((place, _)) = uses(&pod["spec"]).into_iter().find(|(_, secret)| !lists("secrets", secret)) {
        return Err(format!(
            "{place} is not allowed because service account {name} does not reference that secret"
        ));
    }
    let pulls = items(&pod["spec"]["imagePullSecrets"]).iter().filter_map(|secret| secret["name"].as_str());
    match pulls.enumerate().find(|(_, secret)| !lists("imagePullSecrets", secret)) {
        None => Ok(()),
        Some((index, secret)) => Err(format!(
            "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {name} does not \
             reference that imagePullSecret"
        )),
    }
}

/// Each use of a secret: where, and which.
fn uses(spec: &Value) -> Vec<(String, &str)> {
    let volumes = items(&spec["volumes"]).iter().filter_map(|volume| volume["secret"]["secretName"].as_str());
    let mut uses: Vec<(String, &str)> =
        volumes.map(|secret| (format!("volume with secret.secretName=\"{secret}\""), secret)).collect();
    for (kind, list) in [("init container", "initContainers"), ("container", "containers")] {
        for container in items(&spec[list]) {
            uses.extend(of_container(kind, container));
        }
    }
    uses
}

fn of_container<'a>(kind: &str, container: &'a Value) -> Vec<(String, &'a str)> {
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    let own = text(&container["name"]);
    let vars = items(&container["env"]).iter().filter_map(|var| {
        let secret = var["valueFrom"]["secretKeyRef"]["name"].as_str()?;
        let var = text(&var["name"]);
        Some((format!("{kind} {own} with envVar {var} referencing secret.secretName=\"{secret}\""), secret))
    });
    let sources = items(&container["envFrom"]).iter().filter_map(|from| {
        let secret = from["secretRef"]["name"].as_str()?;
        Some((format!("{kind} {own} with envFrom referencing secret.secretName=\"{secret}\""), secret))
    });
    vars.chain(sources).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_account_doesnt_list_is_refused_where_it_is_used() {
        let account = json!({
            "metadata": {"name": "robot"},
            "secrets": [{"name": "mine"}],
            "imagePullSecrets": [{"name": "pull"}],
        });
        let var =
            |secret: &str| json!({"name": "V", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}});
        let judge = |spec: Value| check(&account, &json!({ "spec": spec })).err().unwrap_or_default();
        assert_eq!(
            judge(json!({
                "volumes": [{"secret": {"secretName": "mine"}}, {"configMap": {"name": "other"}}],
                "containers": [{"name": "c", "env": [var("mine")], "envFrom": [{"secretRef": {"name": "mine"}}]}],
                "imagePullSecrets": [{"name": "pull"}],
            })),
            ""
        );
        let cases = [
            (
                json!({"volumes": [{"secret": {"secretName": "other"}}]}),
                "volume with secret.secretName=\"other\" is",
            ),
            (
                json!({"containers": [{"name": "c", "env": [var("other")]}]}),
                "container c with envVar V referencing secret.secretName=\"other\" is",
            ),
            (
                json!({"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "other"}}]}]}),
                "init container i with envFrom referencing secret.secretName=\"other\" is",
            ),
            (json!({"imagePullSecrets": [{"name": "mine"}]}), "imagePullSecrets[0].name=\"mine\" is"),
        ];
        for (spec, expected) in cases {
            assert!(judge(spec.clone()).starts_with(expected), "{spec}: {}", judge(spec.clone()));
        }
    }
}
