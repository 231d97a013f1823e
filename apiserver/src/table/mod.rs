//! Tables: the server's half of `kubectl get`.
//!
//! Owns the columns of each kind and how a cell is computed from an object, upstream's
//! `pkg/printers/internalversion`. Cells are pure functions of an object and the time. It doesn't know
//! where objects come from or how a table is sent.

mod apps;
mod batch;
mod cells;
mod certificates;
mod control;
mod core;
mod event;
mod networking;
mod node;
mod pod;
mod policy;
mod rbac;
mod service;
mod storage;

use std::sync::Arc;

use api::jsonpath::Template;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use cells::{age_cell, custom_age, custom_name};

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading, as upstream writes it; kubectl prints it in capitals.
    pub name: String,
    /// The OpenAPI type of the cells: `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// A hint on the type; `name` marks the column that names the object.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0 is always shown, 1 only by `-o wide`.
    pub priority: i32,
    /// How its cells are made.
    pub cell: Cell,
}

/// How a cell is made.
#[derive(Clone, Debug)]
pub enum Cell {
    /// The value at a JSON pointer as it is; null if there is none.
    Pointer(String),
    /// The text at a JSON pointer; empty if there is none.
    Text(String),
    /// The value, which is a time, as the time that has passed since.
    Age(String),
    /// Computed by code, for the built-in kinds.
    Computed(fn(&Value, Timestamp) -> Value),
    /// What a path finds, as a value of a column's type; for custom kinds.
    Path {
        /// The path.
        path: Arc<Template>,
        /// The column's type.
        kind: String,
    },
}

/// What of an object goes into its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata; the default.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter `includeObject`; `None` if its value is unknown.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            Some("None") => Some(Self::None),
            None | Some("" | "Metadata") => Some(Self::Metadata),
            Some("Object") => Some(Self::Object),
            Some(_) => None,
        }
    }
}

/// The columns of a built-in kind; name and creation time for kinds that have none of their own.
pub fn columns(group: &str, kind: &str) -> Vec<Column> {
    let specs = match (group, kind) {
        ("", "Pod") => pod::COLUMNS,
        ("", "Service") => service::COLUMNS,
        ("", "Node") => node::COLUMNS,
        ("" | "events.k8s.io", "Event") => event::COLUMNS,
        ("", "ReplicationController") => apps::columns("ReplicaSet"),
        ("", "PersistentVolume" | "PersistentVolumeClaim") | ("storage.k8s.io", _) => storage::columns(kind),
        ("", "LimitRange" | "ResourceQuota") => control::columns(group, kind),
        ("networking.k8s.io", "IPAddress" | "ServiceCIDR") => control::columns(group, kind),
        ("", _) => core::columns(kind),
        ("batch", _) => batch::columns(kind),
        ("networking.k8s.io", _) | ("discovery.k8s.io", _) => networking::columns(kind),
        ("policy", "PodDisruptionBudget") => policy::DISRUPTION_BUDGET,
        ("metrics.k8s.io", _) => policy::USAGE,
        ("autoscaling", "HorizontalPodAutoscaler") => policy::AUTOSCALER,
        ("autoscaling", "Scale") => policy::SCALE,
        ("scheduling.k8s.io", "PriorityClass") => policy::PRIORITY_CLASS,
        ("apps", _) => apps::columns(kind),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::SIGNING_REQUEST,
        ("certificates.k8s.io", "ClusterTrustBundle") => certificates::TRUST_BUNDLE,
        ("certificates.k8s.io", "PodCertificateRequest") => certificates::POD_CERTIFICATE_REQUEST,
        ("coordination.k8s.io", "Lease") => core::LEASE,
        ("rbac.authorization.k8s.io", _) => rbac::columns(kind),
        _ => control::columns(group, kind),
    };
    specs.iter().map(cells::Spec::column).collect()
}

/// A table of `items`. `metadata` is that of the list (or, for one object, its resourceVersion); without
/// `headers` the column definitions are left out, as in all but the first event of a watch.
pub fn to_table<'a>(
    columns: &[Column],
    items: impl IntoIterator<Item = &'a Value>,
    include: IncludeObject,
    metadata: Value,
    headers: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = items.into_iter().map(|item| row(columns, item, include, now)).collect();
    let definitions: Vec<Value> = columns.iter().filter(|_| headers).map(definition).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

fn row(columns: &[Column], item: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let cells: Vec<Value> = columns.iter().map(|column| column.cell.of(item, now)).collect();
    let mut row = json!({ "cells": cells });
    let conditions = pod::row_conditions(item);
    if !conditions.is_empty() {
        row["conditions"] = Value::Array(conditions);
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial_object(item),
        IncludeObject::Object => row["object"] = item.clone(),
    }
    row
}

/// An object's metadata, as a PartialObjectMetadata.
pub fn partial_object(item: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": item["metadata"],
    })
}

impl Cell {
    fn of(&self, item: &Value, now: Timestamp) -> Value {
        match self {
            Self::Pointer(pointer) => item.pointer(pointer).cloned().unwrap_or(Value::Null),
            Self::Text(pointer) => json!(cells::str_at(item, pointer)),
            Self::Age(pointer) => age_cell(item.pointer(pointer), now),
            Self::Computed(compute) => compute(item, now),
            Self::Path { path, kind } => cells::custom_cell(path, kind, item, now),
        }
    }
}

#[cfg(test)]
mod tests;
