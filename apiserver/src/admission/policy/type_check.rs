//! `status.typeChecking` of a ValidatingAdmissionPolicy: what its expressions get wrong about the kinds that it names.
//!
//! Upstream's controller writes it a moment later; here it is part of the write. Nothing is refused because of it.

use api::cel::Type;
use api::cel::admission::{Purpose, Subject, compiled};
use api::schema::declared;
use serde_json::{Value, json};

use crate::registry::Registry;
use crate::verbs::{Call, decode};

/// Most kinds that are checked (upstream's figure).
const MAX_KINDS: usize = 10;

/// Fills in the status of a policy whose spec is new; anything else stays as it is.
pub fn complete(call: &Call<'_>, policy: &mut Value) {
    let is_policy = call.resource.group == super::GROUP && call.resource.kind == "ValidatingAdmissionPolicy";
    let generation = policy["metadata"]["generation"].clone();
    if !is_policy || policy["status"]["observedGeneration"] == generation {
        return;
    }
    let warnings = warnings(&call.server.registry, &policy["spec"]);
    let checked = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
    policy["status"] = json!({"observedGeneration": generation, "typeChecking": checked});
}

/// A kind as messages name it, and what is known of its values.
struct Checked {
    name: String,
    subject: Subject,
}

fn warnings(registry: &Registry, spec: &Value) -> Vec<Value> {
    let kinds = kinds(registry, spec);
    let mut warnings = Vec::new();
    for (index, validation) in items(&spec["validations"]).iter().enumerate() {
        for (field, purpose) in [("expression", Purpose::Validation), ("messageExpression", Purpose::Message)]
        {
            let Some(source) = validation[field].as_str().filter(|source| !source.is_empty()) else {
                continue;
            };
            let wrong: Vec<String> = kinds.iter().filter_map(|kind| wrong(kind, source, purpose)).collect();
            if !wrong.is_empty() {
                let place = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": wrong.join("\n")}));
            }
        }
    }
    warnings
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn wrong(kind: &Checked, source: &str, purpose: Purpose) -> Option<String> {
    let why = compiled(source, purpose, &kind.subject).err()?;
    Some(format!("{}: {}\n", kind.name, why.trim_start_matches("compilation failed: ")))
}

/// The kinds that the rules name without stars, in order.
fn kinds(registry: &Registry, spec: &Value) -> Vec<Checked> {
    let mut found = Vec::new();
    for rule in items(&spec["matchConstraints"]["resourceRules"]) {
        let texts = |key: &str| items(&rule[key]).iter().filter_map(Value::as_str).collect::<Vec<_>>();
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        for (group, version) in groups.iter().flat_map(|group| versions.iter().map(move |v| (group, v))) {
            let resources = texts("resources").into_iter().filter(|name| !name.contains(['*', '/']));
            found.extend(resources.filter_map(|plural| registry.find(group, version, plural)));
        }
    }
    found.sort_by_key(|resource| (resource.group.clone(), resource.version.clone(), resource.kind.clone()));
    found.dedup_by_key(|resource| (resource.api_version(), resource.kind.clone()));
    found.truncate(MAX_KINDS);
    let params = params(registry, spec);
    let checked = |resource: &std::sync::Arc<crate::registry::resource::Resource>| {
        let object = declared(decode::schema_of(resource).ok()?);
        let subject = Subject { object, params: params.clone(), variables: Some(Vec::new()) };
        let name = format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind);
        Some(Checked { name, subject: with_variables(subject, spec) })
    };
    found.iter().filter_map(checked).collect()
}

fn params(registry: &Registry, spec: &Value) -> Option<Type> {
    let kind = spec["paramKind"].as_object()?;
    let all = registry.resources();
    let same = |resource: &&std::sync::Arc<crate::registry::resource::Resource>| {
        kind.get("kind").is_some_and(|kind| *kind == resource.kind.as_str())
            && kind.get("apiVersion").is_some_and(|version| *version == resource.api_version().as_str())
    };
    let known = all.iter().find(same).and_then(|resource| decode::schema_of(resource).ok());
    Some(known.map_or(Type::Dyn, declared))
}

/// Each variable has the type that its expression gives, anything if that can't be told.
fn with_variables(mut subject: Subject, spec: &Value) -> Subject {
    for variable in items(&spec["variables"]) {
        let text = |key: &str| variable[key].as_str().unwrap_or_default();
        let kind = compiled(text("expression"), Purpose::Variable, &subject);
        let kind = kind.map_or(Type::Dyn, |program| program.result().clone());
        subject.variables.get_or_insert_default().push((text("name").to_owned(), kind));
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_held_against_the_kinds_that_rules_name() {
        let registry = Registry::builtin();
        let spec = json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments", "*/scale"]},
                {"apiGroups": ["*"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]},
            ]},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "variables.n > 1 && params.data['a'] == 'b' && object.metadata.namespace != ''"},
                {"expression": "object.spec.replica > 1", "messageExpression": "object.spec.replicas"},
                {"expression": "variables.n == 'a'"},
            ],
        });
        let found = warnings(&registry, &spec);
        let texts: Vec<&str> = found.iter().filter_map(|warning| warning["fieldRef"].as_str()).collect();
        assert_eq!(
            texts,
            [
                "spec.validations[1].expression",
                "spec.validations[1].messageExpression",
                "spec.validations[2].expression"
            ]
        );
        assert_eq!(
            found[0]["warning"],
            "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replica'\n | object.spec.replica > 1\n \
             | ...........^\n"
        );
    }
}
