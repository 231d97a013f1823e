//! Environments: `testdata/env/*.txt`, rewritten by `UPDATE=1`. Each case is YAML with the pod and the
//! objects it refers to, followed by `----` and the environment or the message.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubelet::pod::downward::NodeFacts;
use kubelet::pod::env::{Sources, environment};
use kubelet::pod::expand::expand_all;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    pod: Pod,
    #[serde(default)]
    config_maps: Vec<ConfigMap>,
    #[serde(default)]
    secrets: Vec<Secret>,
    #[serde(default)]
    services: BTreeMap<String, String>,
}

fn node() -> NodeFacts {
    let allocatable = [("cpu", "4"), ("memory", "8Gi")];
    let allocatable = allocatable.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    NodeFacts {
        host_ip: "10.0.0.1".to_owned(),
        pod_ip: "10.244.0.7".to_owned(),
        allocatable: BTreeMap::from(allocatable),
    }
}

fn answer(yaml: &str) -> String {
    let case: Case = serde_yaml::from_str(yaml).expect("a case in YAML");
    let named = |name: &Option<String>| name.clone().unwrap_or_default();
    let sources = Sources {
        config_maps: case.config_maps.into_iter().map(|m| (named(&m.metadata.name), m)).collect(),
        secrets: case.secrets.into_iter().map(|s| (named(&s.metadata.name), s)).collect(),
        services: case.services,
        ..Sources::default()
    };
    let container = &case.pod.spec.as_ref().expect("spec").containers[0];
    match environment(&case.pod, container, &sources, &node()) {
        Err(message) => format!("error: {message}\n"),
        Ok(env) => {
            let lines: String = env.iter().map(|(name, value)| format!("{name}={value:?}\n")).collect();
            let words: Vec<String> =
                container.command.iter().chain(&container.args).flatten().cloned().collect();
            let words = expand_all(&words, &env);
            if words.is_empty() { lines } else { format!("{lines}runs {words:?}\n") }
        }
    }
}

fn replay(script: &str) -> String {
    let cases = script.split("\n\n").filter(|case| !case.trim().is_empty());
    let answered = cases.map(|case| {
        let input = case.split("----").next().unwrap_or_default().trim_matches('\n');
        format!("{input}\n----\n{}", answer(input))
    });
    answered.collect::<Vec<_>>().join("\n")
}

#[test]
fn environments() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/env/cases.txt");
    let script = std::fs::read_to_string(&path).expect("cases");
    let today = replay(&script);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &today).expect("write");
        return;
    }
    assert_eq!(script, today, "UPDATE=1 rewrites it");
}
