//! The kinds that are asked and not stored: may I, may they, who am I, whose token is this.
//!
//! Each takes the review as it was sent, decoded, and gives it back with its status filled in.

use api::status::{FieldError, Status};
use serde_json::{Value, json};

use super::rules::{Rule, strings};
use super::{Attributes, Authenticator, Authorizer, Identity};

const AUTHORIZATION: &str = "authorization.k8s.io";

/// Whether the caller may do what the review asks for.
///
/// # Errors
/// 422 if it doesn't ask for exactly one act.
pub fn self_subject_access(authorizer: &Authorizer, who: &Identity, review: Value) -> Result<Value, Status> {
    access(authorizer, who, review, "SelfSubjectAccessReview")
}

/// Whether the user in the review may do what it asks for.
///
/// # Errors
/// 422 if it names nobody or doesn't ask for exactly one act.
pub fn subject_access(authorizer: &Authorizer, review: Value) -> Result<Value, Status> {
    let who = subject_of(&review["spec"]);
    if who.user.is_empty() && who.groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(Status::invalid("SubjectAccessReview", AUTHORIZATION, "", vec![error]));
    }
    access(authorizer, &who, review, "SubjectAccessReview")
}

/// Like [`subject_access`], for acts in the review's own namespace only.
///
/// # Errors
/// As [`subject_access`], and if the act is in another namespace.
pub fn local_subject_access(
    authorizer: &Authorizer,
    namespace: &str,
    review: Value,
) -> Result<Value, Status> {
    let asked = &review["spec"]["resourceAttributes"]["namespace"];
    if asked.as_str() != Some(namespace) {
        let path = "spec.resourceAttributes.namespace";
        let error = FieldError::invalid(path, asked.clone(), "must match metadata.namespace");
        return Err(Status::invalid("LocalSubjectAccessReview", AUTHORIZATION, "", vec![error]));
    }
    subject_access(authorizer, review)
}

/// The rules that the caller holds in a namespace.
///
/// # Errors
/// 400 without a namespace.
pub fn self_subject_rules(
    authorizer: &Authorizer,
    who: &Identity,
    mut review: Value,
) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = rules_of(authorizer, who, &namespace);
    let (urls, resources): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| !rule.urls.is_empty());
    let path_rule = |rule: &&Rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.urls });
    review["status"] = json!({
        "incomplete": false,
        "resourceRules": resources.into_iter().map(resource_rule).collect::<Vec<_>>(),
        "nonResourceRules": urls.iter().map(path_rule).collect::<Vec<_>>(),
    });
    Ok(review)
}

/// Who the caller is.
pub fn self_subject(who: &Identity, mut review: Value) -> Value {
    review["status"] = json!({ "userInfo": who.to_user_info() });
    review
}

/// Whose token the review holds.
///
/// # Errors
/// 400 without a token.
pub async fn token(authenticator: &Authenticator, mut review: Value) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let mut audiences = strings(&review["spec"]["audiences"]);
    if audiences.is_empty() {
        audiences = authenticator.accounts().policy().audiences.clone();
    }
    review["status"] = match authenticator.by_token(token, &audiences).await {
        Ok(found) => json!({
            "authenticated": true,
            "user": found.identity.to_user_info(),
            "audiences": found.audiences,
        }),
        Err(error) => json!({ "user": {}, "error": error.to_string() }),
    };
    Ok(review)
}

fn access(authorizer: &Authorizer, who: &Identity, mut review: Value, kind: &str) -> Result<Value, Status> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let act = match (resource.is_object(), path.is_object()) {
        (true, false) => resource_act(resource),
        (false, true) => {
            Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Attributes::default() }
        }
        (both, _) => return Err(not_one_act(kind, both)),
    };
    let decision = authorizer.authorize(who, &act);
    let mut status = json!({ "allowed": decision.allowed });
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    review["status"] = status;
    Ok(review)
}

fn resource_act(attributes: &Value) -> Attributes<'_> {
    Attributes {
        verb: text(attributes, "verb"),
        group: text(attributes, "group"),
        version: text(attributes, "version"),
        resource: text(attributes, "resource"),
        subresource: text(attributes, "subresource"),
        namespace: text(attributes, "namespace"),
        name: text(attributes, "name"),
        path: "",
        is_resource: true,
    }
}

fn not_one_act(kind: &str, both: bool) -> Status {
    let (path, detail) = if both {
        ("spec.nonResourceAttributes", "cannot be specified in combination with resourceAttributes")
    } else {
        (
            "spec.resourceAttributes",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )
    };
    Status::invalid(kind, AUTHORIZATION, "", vec![FieldError::invalid(path, Value::Null, detail)])
}

fn subject_of(spec: &Value) -> Identity {
    let extra = spec["extra"].as_object().into_iter().flatten();
    Identity {
        user: text(spec, "user").to_owned(),
        uid: spec["uid"].as_str().filter(|uid| !uid.is_empty()).map(str::to_owned),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), strings(values))).collect(),
    }
}

fn rules_of(authorizer: &Authorizer, who: &Identity, namespace: &str) -> Vec<Rule> {
    let mut rules = authorizer.view().rules_of(who, namespace);
    if who.is_in(crate::pki::MASTERS_GROUP) {
        let all = || vec!["*".to_owned()];
        rules.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
        rules.push(Rule { verbs: all(), urls: all(), ..Rule::default() });
    }
    rules
}

fn resource_rule(rule: &Rule) -> Value {
    let mut value = json!({ "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources });
    if !rule.names.is_empty() {
        value["resourceNames"] = json!(rule.names);
    }
    value
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
