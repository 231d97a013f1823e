//! DefaultStorageClass: a claim that names no class gets the default one.

use std::sync::Arc;

use api::object;
use serde_json::{Value, json};

use super::lookup;
use crate::error::Outcome;
use crate::verbs::Call;

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// In old objects this names the class.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Names the default class, if there is one. An empty name is a name: it means "no class".
pub async fn set(call: &Call<'_>, claim: &mut Value) -> Outcome<()> {
    let named =
        claim["spec"].get("storageClassName").is_some() || object::annotations(claim).contains_key(OLD_CLASS);
    if !named
        && let Some(name) = default_class(&lookup::list(call, "storage.k8s.io", "storageclasses", "").await?)
    {
        claim["spec"]["storageClassName"] = json!(name);
    }
    Ok(())
}

/// Of several default classes the newest counts, and of equally old ones the first by name.
fn default_class(classes: &[Arc<Value>]) -> Option<String> {
    let defaults = classes.iter().filter(|class| {
        let annotations = object::annotations(class);
        DEFAULT.iter().any(|key| annotations.get(*key).is_some_and(|value| value == "true"))
    });
    let created =
        |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let newest =
        defaults.min_by_key(|class| (std::cmp::Reverse(created(class)), object::name(class).to_owned()));
    newest.map(|class| object::name(class).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_default_counts() {
        let class = |name: &str, created: &str, default: &str| {
            let annotations = json!({DEFAULT[0]: default});
            let metadata = json!({"name": name, "creationTimestamp": created, "annotations": annotations});
            Arc::new(json!({"metadata": metadata}))
        };
        let old = class("a", "2026-01-01T00:00:00Z", "true");
        let new = class("c", "2026-02-01T00:00:00Z", "true");
        let twin = class("b", "2026-02-01T00:00:00Z", "true");
        let none = class("d", "2026-03-01T00:00:00Z", "false");
        assert_eq!(default_class(std::slice::from_ref(&none)), None);
        assert_eq!(default_class(&[old, new, twin, none]).as_deref(), Some("b"));
    }
}
