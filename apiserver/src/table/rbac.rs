//! Roles and bindings.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, DEFAULT, NAME, Spec, items, str_at, text};

pub(super) fn columns(kind: &str) -> &'static [Spec] {
    match kind {
        "RoleBinding" | "ClusterRoleBinding" => BINDING,
        _ => DEFAULT,
    }
}

const BINDING: &[Spec] = &[
    NAME,
    text("Role", "What is granted.", role),
    AGE,
    text("Users", "To which users.", |binding, _| subjects(binding, "User")).wide(),
    text("Groups", "To which groups.", |binding, _| subjects(binding, "Group")).wide(),
    text("ServiceAccounts", "To which service accounts.", |binding, _| subjects(binding, "ServiceAccount"))
        .wide(),
];

fn role(binding: &Value, _now: Timestamp) -> Value {
    json!(format!("{}/{}", str_at(binding, "/roleRef/kind"), str_at(binding, "/roleRef/name")))
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let chosen = items(binding, "/subjects").iter().filter(|subject| subject["kind"] == kind);
    let names = chosen.map(|subject| match str_at(subject, "/namespace") {
        "" => str_at(subject, "/name").to_owned(),
        namespace => format!("{namespace}/{}", str_at(subject, "/name")),
    });
    json!(names.collect::<Vec<_>>().join(", "))
}
