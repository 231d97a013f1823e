//! ServiceAccount: a pod that names none runs as `default`.

use serde_json::{Value, json};

/// Names the service account, in both fields that clients read.
pub fn set_default(pod: &mut Value) {
    let given = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find_map(|field| pod["spec"][field].as_str().filter(|name| !name.is_empty()))
        .unwrap_or("default")
        .to_owned();
    pod["spec"]["serviceAccountName"] = json!(given);
    pod["spec"]["serviceAccount"] = json!(given);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_agree() {
        for (spec, expected) in [
            (json!({}), "default"),
            (json!({"serviceAccountName": "builder"}), "builder"),
            (json!({"serviceAccount": "old"}), "old"),
        ] {
            let mut pod = json!({"spec": spec});
            set_default(&mut pod);
            assert_eq!(pod["spec"], json!({"serviceAccountName": expected, "serviceAccount": expected}));
        }
    }
}
