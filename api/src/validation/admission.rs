//! Rules of webhooks and admission policies: where webhooks are, and what expressions are.

use super::field::{Errors, Field};
use crate::cel::Type;
use crate::cel::admission::{Purpose, Subject, compiled};
use crate::status::FieldError;

/// The webhooks of a configuration.
pub(super) fn webhooks(root: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let mut names: Vec<&str> = Vec::new();
    for hook in root.get("webhooks").items() {
        let name = hook.get("name");
        if names.contains(&name.text()) {
            errors.push(name.duplicate());
        }
        names.push(name.text());
        if !name.is_empty() && name.text().split('.').count() < 3 {
            errors.push(name.invalid("should be a domain with at least three segments separated by dots"));
        }
        errors.extend(client_config(&hook.get("clientConfig")));
        errors.extend(conditions(
            &hook.get("matchConditions"),
            Purpose::HookCondition,
            &Subject::dynamic(false),
        ));
        errors.extend(review_versions(&hook.get("admissionReviewVersions")));
        for operation in
            hook.get("rules").items().flat_map(|rule| rule.get("operations").items().collect::<Vec<_>>())
        {
            errors.extend(operation.one_of(&["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]));
        }
    }
    errors
}

/// A webhook is at a URL or behind a service.
fn client_config(config: &Field<'_>) -> Errors {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.exists(), service.exists()) {
        (true, true) | (false, false) => {
            vec![FieldError::required(&config.path, "exactly one of url or service is required")]
        }
        (true, false) => self::url(&url),
        (false, true) => service
            .get("path")
            .text()
            .chars()
            .next()
            .filter(|first| *first != '/')
            .map(|_| service.get("path").invalid("must start with a '/'"))
            .into_iter()
            .collect(),
    }
}

fn url(url: &Field<'_>) -> Errors {
    let form = "; desired format: https://host[/path]";
    let Some(rest) = url.text().strip_prefix("https://") else {
        let scheme = url.text().split("://").next().unwrap_or_default();
        return vec![url.invalid(format!("'https' is the only allowed URL scheme, not {scheme:?}{form}"))];
    };
    let host = rest.split('/').next().unwrap_or_default();
    let wrong = [
        (host.is_empty(), "host must be specified"),
        (host.contains('@'), "user information is not permitted in the URL"),
        (rest.contains('#'), "fragments are not permitted in the URL"),
        (rest.contains('?'), "query parameters are not permitted in the URL"),
    ];
    wrong.into_iter().filter(|(is, _)| *is).map(|(_, why)| url.invalid(format!("{why}{form}"))).collect()
}

/// We speak `v1`; a hook that doesn't can't be called.
fn review_versions(versions: &Field<'_>) -> Errors {
    if versions.is_empty() {
        return vec![versions.required("must specify one of v1, v1beta1")];
    }
    match versions.items().any(|version| matches!(version.text(), "v1" | "v1beta1")) {
        true => Errors::new(),
        false => vec![versions.invalid("must include at least one of v1, v1beta1")],
    }
}

fn validations(spec: &Field<'_>) -> Errors {
    if !spec.get("validations").is_empty() || !spec.get("auditAnnotations").is_empty() {
        return Errors::new();
    }
    let why = "validations or auditAnnotations must be specified";
    vec![spec.get("validations").required(why), spec.get("auditAnnotations").required(why)]
}

/// A policy's expressions compile, with the variables that stand before them.
pub(super) fn policy(kind: &str, spec: &Field<'_>) -> Errors {
    let mut subject = Subject::dynamic(spec.get("paramKind").exists());
    let mut errors = match kind {
        "ValidatingAdmissionPolicy" => validations(spec),
        _ => Errors::new(),
    };
    errors.extend(conditions(&spec.get("matchConditions"), Purpose::Condition, &subject));
    errors.extend(variables(&spec.get("variables"), &mut subject));
    for validation in spec.get("validations").items() {
        errors.extend(expression(&validation.get("expression"), Purpose::Validation, &subject));
        errors.extend(expression(&validation.get("messageExpression"), Purpose::Message, &subject));
    }
    for annotation in spec.get("auditAnnotations").items() {
        errors.extend(expression(&annotation.get("valueExpression"), Purpose::AuditAnnotation, &subject));
    }
    for mutation in spec.get("mutations").items() {
        errors.extend(self::mutation(&mutation, &subject));
    }
    errors
}

fn conditions(conditions: &Field<'_>, purpose: Purpose, subject: &Subject) -> Errors {
    let mut errors = Errors::new();
    let mut names: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let name = condition.get("name");
        errors.extend(name.present());
        if !name.is_empty() && names.contains(&name.text()) {
            errors.push(name.duplicate());
        }
        names.push(name.text());
        errors.extend(expression(&condition.get("expression"), purpose, subject));
    }
    errors
}

/// Each is known to what stands behind it, by the type that it gives.
fn variables(variables: &Field<'_>, subject: &mut Subject) -> Errors {
    let mut errors = Errors::new();
    let known = subject.variables.get_or_insert_default();
    known.clear();
    for variable in variables.items() {
        let (name, source) = (variable.get("name"), variable.get("expression"));
        if !name.is_empty() && !is_identifier(name.text()) {
            errors.push(name.invalid("name is not a valid CEL identifier"));
        }
        errors.extend(expression(&source, Purpose::Variable, subject));
        let kind = compiled(source.text(), Purpose::Variable, subject);
        let kind = kind.map_or(Type::Dyn, |program| program.result().clone());
        subject.variables.get_or_insert_default().push((name.text().to_owned(), kind));
    }
    errors
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|rest| rest.is_ascii_alphanumeric() || rest == '_')
}

/// The part that belongs to the type is there, and only that.
fn mutation(mutation: &Field<'_>, subject: &Subject) -> Errors {
    let kind = mutation.get("patchType");
    let mut errors = kind.present();
    for (name, part, purpose) in [
        ("ApplyConfiguration", "applyConfiguration", Purpose::ApplyConfiguration),
        ("JSONPatch", "jsonPatch", Purpose::JsonPatch),
    ] {
        let part = mutation.get(part);
        match (kind.text() == name, part.exists()) {
            (true, true) => {
                let source = part.get("expression");
                errors.extend(source.present());
                errors.extend(expression(&source, purpose, subject));
            }
            (true, false) => {
                let why = format!("must be specified when patchType is {name}");
                errors.push(FieldError::required(&part.path, why));
            }
            (false, true) => {
                let why = format!("must not be specified when patchType is not {name}");
                errors.push(part.invalid(why));
            }
            (false, false) => {}
        }
    }
    errors
}

/// An expression compiles and gives what it is for; whether it must be there is said elsewhere.
fn expression(source: &Field<'_>, purpose: Purpose, subject: &Subject) -> Errors {
    if source.text().trim().is_empty() {
        return Errors::new();
    }
    compiled(source.text(), purpose, subject).err().map(|why| source.invalid(why)).into_iter().collect()
}

/// A binding names its parameters in one way, and what it wants without contradiction.
pub(super) fn binding(spec: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    let params = spec.get("paramRef");
    if params.exists() {
        let (name, selector) = (params.get("name"), params.get("selector"));
        match (!name.is_empty(), selector.exists()) {
            (true, true) => {
                errors.push(params.invalid("name and selector are mutually exclusive"));
            }
            (false, false) => {
                errors.push(FieldError::required(&params.path, "one of name or selector must be specified"))
            }
            _ => {}
        }
        errors.extend(params.get("parameterNotFoundAction").present());
    }
    let actions = spec.get("validationActions");
    let wants = |action: &str| actions.items().any(|given| given.text() == action);
    if wants("Deny") && wants("Warn") {
        errors.push(actions.invalid("must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"));
    }
    errors
}
