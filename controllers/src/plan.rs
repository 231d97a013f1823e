//! What a reconcile wants done: a list of actions that leaves nothing to choose.
//!
//! Each action carries its precondition (uid, resourceVersion) and its reason, and prints as one line,
//! the same in logs and golden files. A plan is performed in order; a conflict drops the rest, because
//! the view it was made from is old. The plan doesn't know how it is performed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt, api::PropagationPolicy, core::ApiResource};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

pub use client::recorder::Severity;

/// Actions in the order in which they are to be performed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to do.
    pub actions: Vec<Action>,
    /// When to look again although nothing changes: a deadline passes then.
    pub again: Option<Timestamp>,
}

/// One object at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its kind.
    pub kind: ApiResource,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It must be this object, not a later one of the same name.
    pub uid: String,
    /// It must be in this state; none if any state will do.
    pub version: Option<String>,
}

/// Which part of an object a patch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Whole,
    /// The status subresource.
    Status,
    /// The scale subresource.
    Scale,
    /// The decision on a certificate request, which has a subresource of its own.
    Approval,
}

/// Events about a create or delete that only its outcome can word.
#[derive(Debug, Clone, PartialEq)]
pub struct Announce {
    /// The controller's object, e.g. the ReplicaSet that a pod is created for.
    pub regarding: ObjectReference,
    /// What the message calls the kind: `pod` or `replica set`.
    pub noun: &'static str,
}

/// One write, or one look that must confirm what the following writes rely on.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create `object`; a name clash is a conflict.
    Create {
        /// The kind.
        kind: ApiResource,
        /// With its namespace and its name or generateName.
        object: Value,
        /// Who is told.
        announce: Option<Announce>,
        /// Why.
        reason: String,
    },
    /// Merge `patch` into the target.
    Patch {
        /// What.
        target: Target,
        /// Where.
        part: Part,
        /// RFC 7386, without the preconditions.
        patch: Value,
        /// Why.
        reason: String,
    },
    /// Delete the target; already gone is success.
    Delete {
        /// What.
        target: Target,
        /// What happens to its dependents; none is the kind's default.
        propagation: Option<PropagationPolicy>,
        /// Seconds the object may take to end; none is its own.
        grace: Option<u32>,
        /// Who is told.
        announce: Option<Announce>,
        /// Why.
        reason: String,
    },
    /// Delete all objects of a kind in a namespace.
    DeleteCollection {
        /// The kind.
        kind: ApiResource,
        /// The namespace.
        namespace: String,
        /// Why.
        reason: String,
    },
    /// Replace `spec.finalizers` of a namespace through its `finalize` subresource.
    Finalize {
        /// The namespace.
        target: Target,
        /// What is left.
        finalizers: Vec<String>,
        /// Why.
        reason: String,
    },
    /// Read the target from the server; go on only if it is as expected.
    Confirm {
        /// What; its version isn't compared.
        target: Target,
        /// How it must be.
        expected: Presence,
        /// Why.
        reason: String,
    },
    /// Tell people.
    Event {
        /// About what.
        regarding: ObjectReference,
        /// How bad.
        severity: Severity,
        /// One CamelCase word.
        event: &'static str,
        /// For people.
        message: String,
    },
}

/// What a [`Action::Confirm`] expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It exists with this uid and isn't being deleted.
    Alive,
    /// No object with this uid exists (or, without a uid, none of this name).
    Gone,
    /// It is exactly the target: same uid, same version.
    Unchanged,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Adds an action.
    pub fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Looks again at `when`, or earlier if that was already wanted.
    pub fn look_again(&mut self, when: Timestamp) {
        self.again = Some(self.again.map_or(when, |again| again.min(when)));
    }

    /// Deletes an object as its kind does by default, in its own time, and tells nobody.
    pub fn delete(&mut self, target: Target, reason: impl Into<String>) {
        let reason = reason.into();
        self.push(Action::Delete { target, propagation: None, grace: None, announce: None, reason });
    }

    /// Adds a patch unless it would change nothing.
    pub fn patch(&mut self, target: Target, part: Part, patch: Value, reason: impl Into<String>) {
        if patch.as_object().is_some_and(|fields| !fields.is_empty()) {
            self.push(Action::Patch { target, part, patch, reason: reason.into() });
        }
    }

    /// Adds a patch that turns the status `old` into `new`, unless they are equal.
    pub fn status<S: Serialize>(&mut self, target: Target, old: &S, new: &S, reason: impl Into<String>) {
        if let Some(status) = difference(&to_value(old), &to_value(new)) {
            self.patch(target, Part::Status, serde_json::json!({ "status": status }), reason);
        }
    }

    /// Adds an event.
    pub fn event(
        &mut self,
        regarding: ObjectReference,
        severity: Severity,
        event: &'static str,
        message: impl Into<String>,
    ) {
        self.push(Action::Event { regarding, severity, event, message: message.into() });
    }
}

impl Target {
    /// `object` as it is now: its uid and its resourceVersion.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Target {
        Target {
            kind: ApiResource::erase::<K>(&()),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version(),
        }
    }

    /// An object that we only know by name; an empty uid stands for any.
    pub fn named(kind: ApiResource, namespace: &str, name: &str, uid: &str) -> Target {
        let [namespace, name, uid] = [namespace, name, uid].map(str::to_owned);
        Target { kind, namespace, name, uid, version: None }
    }

    /// The same object in whatever state it is.
    pub fn in_any_state(mut self) -> Target {
        self.version = None;
        self
    }
}

/// A Kubernetes object as JSON.
pub fn to_value<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("Kubernetes types have string keys and finite numbers only")
}

/// The merge patch that turns `old` into `new`; none if they are equal.
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter_map(|(key, value)| {
        let patch = match before.get(key) {
            Some(old) => difference(old, value)?,
            None => value.clone(),
        };
        Some((key.clone(), patch))
    });
    let patch: Map<String, Value> = gone.chain(changed).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        if let Some(again) = self.again {
            writeln!(f, "look again at {again}")?;
        }
        if self.actions.is_empty() && self.again.is_none() {
            writeln!(f, "nothing")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.plural, place(&self.namespace, &self.name))?;
        match &self.version {
            Some(version) => write!(f, " [uid {} v{version}]", self.uid),
            None => write!(f, " [uid {}]", self.uid),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Create { kind, object, reason, .. } => {
                write!(f, "create {} {} {}: {reason}", kind.plural, created_name(object), brief(object))
            }
            Action::Patch { target, part, patch, reason } => {
                let part = match part {
                    Part::Whole => "",
                    Part::Status => "status of ",
                    Part::Scale => "scale of ",
                    Part::Approval => "approval of ",
                };
                write!(f, "patch {part}{target} {}: {reason}", brief(patch))
            }
            Action::Delete { target, propagation, grace, reason, .. } => {
                write!(f, "delete {target}")?;
                if let Some(policy) = propagation {
                    write!(f, " {policy:?}")?;
                }
                if let Some(grace) = grace {
                    write!(f, " grace={grace}")?;
                }
                write!(f, ": {reason}")
            }
            Action::DeleteCollection { kind, namespace, reason } => {
                write!(f, "delete all {} in {namespace}: {reason}", kind.plural)
            }
            Action::Finalize { target, finalizers, reason } => {
                write!(f, "finalize {target} leaving {finalizers:?}: {reason}")
            }
            Action::Confirm { target, expected, reason } => {
                write!(f, "confirm {target} is {}: {reason}", format!("{expected:?}").to_lowercase())
            }
            Action::Event { regarding, severity, event, message } => {
                let name = regarding.name.as_deref().unwrap_or_default();
                write!(f, "event {severity} {event} {name}: {message}")
            }
        }
    }
}

fn place(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

fn created_name(object: &Value) -> String {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default();
    let generated = text("/metadata/generateName");
    let name = if generated.is_empty() { text("/metadata/name").to_owned() } else { format!("{generated}*") };
    place(text("/metadata/namespace"), &name)
}

/// An object without what the line already says or what is copied from elsewhere (templates and pod specs).
fn brief(object: &Value) -> Value {
    let mut object = object.clone();
    let is_pod = object.get("kind").and_then(Value::as_str) == Some("Pod");
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
        if is_pod {
            fields.remove("spec");
        }
        fields.retain(|name, value| {
            name != "status" || value.as_object().is_some_and(|status| !status.is_empty())
        });
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("template");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for known in ["namespace", "name", "generateName"] {
            metadata.remove(known);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::difference;
    use serde_json::json;

    #[test]
    fn differences_merge_back() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": null});
        let new = json!({"a": 1, "b": {"c": [1, 2]}, "f": {}});
        let patch = difference(&old, &new).expect("they differ");
        assert_eq!(patch, json!({"b": {"c": [1, 2], "d": null}, "e": null, "f": {}}));
        assert_eq!(difference(&new, &new), None);
    }
}
