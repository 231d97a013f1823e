//! Defaults of containers: image pulling, ports, probes, environment.

use serde_json::{Map, Value};

use super::fields::{Defaults, text};

/// Defaults of a container of any of the three lists.
pub(super) fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    container.text("imagePullPolicy", policy);
    container.text("terminationMessagePath", "/dev/termination-log");
    container.text("terminationMessagePolicy", "File");
    container.map("resources");
    container.each("ports", |port| port.text("protocol", "TCP"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        container.within(name, probe);
    }
    container.within("lifecycle", |lifecycle| {
        lifecycle.within("postStart", |handler| handler.within("httpGet", http_get));
        lifecycle.within("preStop", |handler| handler.within("httpGet", http_get));
    });
    container.each("env", |variable| {
        variable.within("valueFrom", |source| {
            source.within("fieldRef", field_ref);
            source.within("fileKeyRef", |file| file.or_insert("optional", false));
        });
    });
}

/// An image without a fixed tag may change, so it is pulled each time.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':').map(|(_, tag)| tag), digest) {
        (Some("latest"), None) | (None, None) => "Always",
        (Some("latest"), Some(_)) => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        nonzero(probe, field, value);
    }
    probe.within("httpGet", http_get);
    probe.within("grpc", |grpc| grpc.or_insert("service", ""));
}

/// These numbers have no meaningful zero, so zero counts as absent.
fn nonzero(probe: &mut Value, field: &str, value: i64) {
    if probe.get(field).is_none_or(|number| number == 0) {
        probe.set(field, value.into());
    }
}

fn http_get(action: &mut Value) {
    action.text("path", "/");
    action.text("scheme", "HTTP");
}

/// A reference to a field of the pod.
pub(super) fn field_ref(reference: &mut Value) {
    if reference.is_null() {
        *reference = Value::Object(Map::new());
    }
    reference.text("apiVersion", "v1");
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn only_a_fixed_tag_is_not_pulled_again() {
        let table = [
            ("web", "Always"),
            ("web:latest", "Always"),
            ("web:1", "IfNotPresent"),
            ("localhost:5000/web", "Always"),
            ("localhost:5000/web:1", "IfNotPresent"),
            ("web@sha256:0", "IfNotPresent"),
            ("web:1@sha256:0", "IfNotPresent"),
        ];
        for (image, policy) in table {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
