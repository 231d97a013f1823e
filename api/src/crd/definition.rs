//! Which CustomResourceDefinitions are allowed, with upstream's texts.

use serde_json::Value;

use super::{rules_check, schema_rules, structural_rules};
use crate::jsonpath::Template;
use crate::name::{self, Checked};
use crate::status::FieldError;

type Errors = Vec<FieldError>;

const APPROVAL: &str = "api-approved.kubernetes.io";

/// Checks a defaulted definition that is to be created. Metadata is checked elsewhere.
pub fn validate_definition(crd: &Value) -> Errors {
    let mut errors = naming(crd);
    errors.extend(approval(crd));
    errors.extend(spec(&crd["spec"]));
    errors.extend(stored_versions(crd));
    errors
}

/// What may not change in a definition, once it is served or at all.
pub fn validate_definition_update(crd: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let established = conditions(old, "Established") == Some("True");
    let fixed = [("spec.scope", "/spec/scope"), ("spec.names.kind", "/spec/names/kind")];
    for (path, pointer) in fixed.into_iter().filter(|_| established) {
        errors.extend(immutable(path, pointer, crd, old));
    }
    for (path, pointer) in [("spec.group", "/spec/group"), ("spec.names.plural", "/spec/names/plural")] {
        errors.extend(immutable(path, pointer, crd, old));
    }
    errors
}

fn immutable(path: &str, pointer: &str, crd: &Value, old: &Value) -> Option<FieldError> {
    let (new, old) = (crd.pointer(pointer), old.pointer(pointer));
    (new != old).then(|| FieldError::invalid(path, new.cloned().unwrap_or_default(), "field is immutable"))
}

/// The formats in a definition's schemas that nobody knows; for warnings.
pub fn unrecognized_formats(crd: &Value) -> Vec<String> {
    let schemas = versions(&crd["spec"]).map(|version| &version["schema"]["openAPIV3Schema"]);
    schemas.flat_map(schema_rules::unrecognized).collect()
}

/// The status of a condition.
fn conditions<'a>(crd: &'a Value, kind: &str) -> Option<&'a str> {
    let mut all = crd["status"]["conditions"].as_array()?.iter();
    all.find(|condition| condition["type"] == kind)?["status"].as_str()
}

fn naming(crd: &Value) -> Errors {
    let (given, spec) = (text(&crd["metadata"], "name"), &crd["spec"]);
    let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
    match given == wanted {
        true => Errors::new(),
        false => {
            vec![FieldError::invalid("metadata.name", given, r#"must be spec.names.plural+"."+spec.group"#)]
        }
    }
}

/// Groups of the community are for kinds that the community has seen.
fn approval(crd: &Value) -> Errors {
    let group = text(&crd["spec"], "group");
    let protected = |suffix: &str| group == suffix || group.ends_with(&format!(".{suffix}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return Errors::new();
    }
    let at = format!("metadata.annotations[{APPROVAL}]");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match crd["metadata"]["annotations"][APPROVAL].as_str().unwrap_or_default() {
        "" => {
            let why = format!("protected groups must have approval annotation {APPROVAL:?}, {see}");
            vec![FieldError::required(at, why)]
        }
        given if given.starts_with("unapproved") || is_url(given) => Errors::new(),
        given => {
            let why = format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason \
                 starting with \"unapproved\", {see}"
            );
            vec![FieldError::invalid(at, given, why)]
        }
    }
}

fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty())
}

fn spec(spec: &Value) -> Errors {
    let mut errors = group(text(spec, "group"));
    errors.extend(scope(text(spec, "scope")));
    errors.extend(names(&spec["names"]));
    errors.extend(version_list(spec));
    errors.extend(conversion(&spec["conversion"]));
    if spec["preserveUnknownFields"] == true {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                   spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    errors
}

fn group(group: &str) -> Errors {
    let at = "spec.group";
    if group.is_empty() {
        return vec![FieldError::required(at, "")];
    }
    if let Err(why) = name::dns1123_subdomain(group) {
        return vec![FieldError::invalid(at, group, why)];
    }
    match group.contains('.') {
        true => Errors::new(),
        false => vec![FieldError::invalid(at, group, "should be a domain with at least one dot")],
    }
}

fn scope(scope: &str) -> Errors {
    match scope {
        "Cluster" | "Namespaced" => Errors::new(),
        "" => vec![FieldError::required("spec.scope", "")],
        _ => vec![FieldError::not_supported("spec.scope", scope, &["Cluster", "Namespaced"])],
    }
}

fn names(names: &Value) -> Errors {
    let mut errors = Errors::new();
    let mut label = |at: String, given: &str, required: bool, lower: bool| {
        let checked: Checked = match lower {
            true => name::dns1035_label(&given.to_lowercase()),
            false => name::dns1035_label(given),
        };
        match (given.is_empty(), checked) {
            (true, _) if required => errors.push(FieldError::required(at, "")),
            (true, _) | (_, Ok(())) => {}
            (_, Err(why)) if lower => {
                let why = format!("may have mixed case, but should otherwise match: {why}");
                errors.push(FieldError::invalid(at, given, why));
            }
            (_, Err(why)) => errors.push(FieldError::invalid(at, given, why)),
        }
    };
    for (key, lower) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        label(format!("spec.names.{key}"), text(names, key), true, lower);
    }
    for key in ["shortNames", "categories"] {
        for (index, given) in structural_rules::items(names, key).filter_map(Value::as_str).enumerate() {
            label(format!("spec.names.{key}[{index}]"), given, false, false);
        }
    }
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            list_kind,
            "kind and listKind may not be the same",
        ));
    }
    errors
}

fn versions(spec: &Value) -> impl Iterator<Item = &Value> {
    structural_rules::items(spec, "versions")
}

fn version_list(spec: &Value) -> Errors {
    let mut errors = Errors::new();
    let all: Vec<&Value> = versions(spec).collect();
    let shown = || spec["versions"].clone();
    let mut seen = std::collections::BTreeSet::new();
    if !all.iter().all(|version| seen.insert(text(version, "name"))) {
        errors.push(FieldError::invalid("spec.versions", shown(), "must contain unique version names"));
    }
    if all.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", shown(), why));
    }
    for (index, version) in all.into_iter().enumerate() {
        errors.extend(one_version(version, &format!("spec.versions[{index}]")));
    }
    errors
}

fn one_version(version: &Value, at: &str) -> Errors {
    let mut errors = Errors::new();
    if let Err(why) = name::dns1035_label(text(version, "name")) {
        errors.push(FieldError::invalid(format!("{at}.name"), text(version, "name"), why));
    }
    if !text(version, "deprecationWarning").is_empty() && version["deprecated"] != true {
        let why = "can only be set for deprecated versions";
        errors.push(FieldError::invalid(
            format!("{at}.deprecationWarning"),
            text(version, "deprecationWarning"),
            why,
        ));
    }
    let path = format!("{at}.schema.openAPIV3Schema");
    match version["schema"].get("openAPIV3Schema") {
        None => errors.push(FieldError::required(path, "schemas are required")),
        Some(schema) => errors.extend(whole_schema(schema, &path)),
    }
    errors.extend(scale(&version["subresources"]["scale"], &format!("{at}.subresources.scale")));
    errors.extend(columns(version, at));
    errors.extend(selectable(version, at));
    errors
}

fn whole_schema(schema: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    schema_rules::walk(schema, path, &mut |node, at| errors.extend(schema_rules::node(node, at)));
    errors.extend(structural_rules::check(schema, path));
    // The value of a default is judged by a schema that has a meaning.
    if errors.is_empty() {
        errors.extend(schema_rules::defaults(schema, path));
        errors.extend(rules_check::check(schema, path));
    }
    errors
}

fn scale(scale: &Value, at: &str) -> Errors {
    let mut errors = Errors::new();
    if !scale.is_object() {
        return errors;
    }
    for (key, below, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", ".status.", false),
    ] {
        let (at, given) = (format!("{at}.{key}"), text(scale, key));
        let spec_too = key == "labelSelectorPath" && given.starts_with(".spec.");
        if given.is_empty() {
            errors.extend(required.then(|| FieldError::required(at, "")));
        } else if !given.starts_with('.') {
            errors.push(FieldError::invalid(at, given, "must be a simple json path starting with ."));
        } else if !given.starts_with(below) && !spec_too {
            let place =
                if required { below.trim_matches('.').to_owned() } else { "status or .spec".to_owned() };
            errors.push(FieldError::invalid(at, given, format!("should be a json path under .{place}")));
        }
    }
    errors
}

fn columns(version: &Value, at: &str) -> Errors {
    let mut errors = Errors::new();
    for (index, column) in structural_rules::items(version, "additionalPrinterColumns").enumerate() {
        let at = format!("{at}.additionalPrinterColumns[{index}]");
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        }
        let kinds = ["boolean", "date", "integer", "number", "string"];
        match text(column, "type") {
            "" => {
                let why = format!("must be one of {}", kinds.join(","));
                errors.push(FieldError::required(format!("{at}.type"), why));
            }
            kind if !kinds.contains(&kind) => {
                let why = format!("must be one of {}", kinds.join(","));
                errors.push(FieldError::invalid(format!("{at}.type"), kind, why));
            }
            _ => {}
        }
        let formats = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
        let format = text(column, "format");
        if !format.is_empty() && !formats.contains(&format) {
            let why = format!("must be one of {}", formats.join(","));
            errors.push(FieldError::invalid(format!("{at}.format"), format, why));
        }
        errors.extend(json_path(text(column, "jsonPath"), &format!("{at}.JSONPath")));
    }
    errors
}

fn json_path(path: &str, at: &str) -> Errors {
    if path.is_empty() {
        return vec![FieldError::required(at, "")];
    }
    match Template::parse_path(path) {
        Ok(_) => Errors::new(),
        Err(error) => vec![FieldError::invalid(at, path, format!("is an invalid path: {error}"))],
    }
}

/// Most fields that a version may be selected by (upstream).
const MAX_SELECTABLE: usize = 8;

fn selectable(version: &Value, at: &str) -> Errors {
    let fields: Vec<&Value> = structural_rules::items(version, "selectableFields").collect();
    let mut errors = Errors::new();
    if fields.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(format!("{at}.selectableFields"), fields.len(), MAX_SELECTABLE));
    }
    for (index, field) in fields.iter().enumerate() {
        let (at, path) = (format!("{at}.selectableFields[{index}].jsonPath"), text(field, "jsonPath"));
        if path.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        if fields[..index].iter().any(|earlier| text(earlier, "jsonPath") == path) {
            errors.push(FieldError::duplicate(&at, path));
        }
        if let Some(why) = unselectable(&version["schema"]["openAPIV3Schema"], path) {
            errors.push(FieldError::invalid(&at, path, why));
        }
    }
    errors
}

fn unselectable(schema: &Value, path: &str) -> Option<String> {
    let Some(names) = path.strip_prefix('.') else { return Some("must start with .".to_owned()) };
    if names.split('.').next() == Some("metadata") {
        return Some("must not point to fields in metadata".to_owned());
    }
    let mut node = schema;
    for name in names.split('.') {
        match node["properties"].get(name) {
            Some(child) => node = child,
            None => return Some(format!("does not refer to a valid field: {name:?} is not a property")),
        }
    }
    let kind = text(node, "type");
    let fits = matches!(kind, "string" | "boolean" | "integer");
    (!fits).then(|| "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.".to_owned())
}

fn conversion(conversion: &Value) -> Errors {
    let webhook = &conversion["webhook"];
    match text(conversion, "strategy") {
        "Webhook" => webhook_conversion(webhook),
        "None" if webhook.is_object() => {
            let why = "should not be set when strategy is not set to Webhook";
            vec![FieldError::forbidden("spec.conversion.webhook", why)]
        }
        "None" => Errors::new(),
        "" => vec![FieldError::required("spec.conversion.strategy", "")],
        other => vec![FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])],
    }
}

fn webhook_conversion(webhook: &Value) -> Errors {
    let mut errors = Errors::new();
    let at = "spec.conversion.webhook";
    let client = &webhook["clientConfig"];
    match (client["url"].as_str(), client["service"].is_object()) {
        (None, false) if !client.is_object() => {
            let why = "required when strategy is set to Webhook";
            errors.push(FieldError::required(format!("{at}.clientConfig"), why));
        }
        (Some(_), true) | (None, false) => {
            errors.push(FieldError::required(
                format!("{at}.clientConfig"),
                "exactly one of url or service is required",
            ));
        }
        (Some(url), false) if !url.starts_with("https://") => {
            let why = format!("'https' is the only allowed URL scheme; {url:?} was given");
            errors.push(FieldError::invalid(format!("{at}.clientConfig.url"), url, why));
        }
        _ => {}
    }
    let accepted: Vec<&str> =
        structural_rules::items(webhook, "conversionReviewVersions").filter_map(Value::as_str).collect();
    let at = format!("{at}.conversionReviewVersions");
    if accepted.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else if !accepted.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
        let why = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(at, accepted.join(","), why));
    }
    errors
}

/// What lies in the store is in versions that the definition still has.
fn stored_versions(crd: &Value) -> Errors {
    let known: Vec<&str> = versions(&crd["spec"]).map(|version| text(version, "name")).collect();
    let stored = structural_rules::items(&crd["status"], "storedVersions").filter_map(Value::as_str);
    let lost = stored.enumerate().filter(|(_, version)| !known.contains(version));
    lost.map(|(index, version)| {
        let why = "missing from spec.versions; first migrate every object to another version, then take it \
                   out of status.storedVersions";
        FieldError::invalid(format!("status.storedVersions[{index}]"), version, why)
    })
    .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    structural_rules::text(value, key)
}

#[cfg(test)]
mod tests;
