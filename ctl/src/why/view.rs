//! What a cluster holds, as far as an answer may depend on it.

use std::collections::BTreeMap;

use api::selector::LabelSelector;
use scheduler::profile::Profiles;
use serde_json::Value;

/// The kinds that are fetched: the word for the kind, and whether all namespaces matter.
pub const NEEDED: [(&str, bool); 21] = [
    ("nodes", true),
    ("pods", true),
    ("persistentvolumes", true),
    ("storageclasses.storage.k8s.io", true),
    ("csinodes.storage.k8s.io", true),
    ("poddisruptionbudgets.policy", true),
    ("leases.coordination.k8s.io", true),
    ("events", false),
    ("persistentvolumeclaims", false),
    ("replicasets.apps", false),
    ("deployments.apps", false),
    ("statefulsets.apps", false),
    ("daemonsets.apps", false),
    ("replicationcontrollers", false),
    ("controllerrevisions.apps", false),
    ("jobs.batch", false),
    ("resourcequotas", false),
    ("services", false),
    ("endpoints", false),
    ("endpointslices.discovery.k8s.io", false),
    ("namespaces", true),
];

/// Objects by kind.
#[derive(Clone, Debug, Default)]
pub struct View {
    objects: BTreeMap<String, Vec<Value>>,
    /// The scheduler's profiles, if its configuration was named.
    pub profiles: Option<Profiles>,
    /// Kinds that could not be listed, with the reason.
    pub unseen: Vec<String>,
}

impl View {
    /// Adds an object that says its kind.
    pub fn add(&mut self, object: Value) {
        self.objects.entry(api::object::kind(&object).to_owned()).or_default().push(object);
    }

    /// All objects of a kind.
    pub fn all(&self, kind: &str) -> &[Value] {
        self.objects.get(kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every object.
    pub fn everything(&self) -> impl Iterator<Item = &Value> {
        self.objects.values().flatten()
    }

    /// The objects of a kind in a namespace.
    pub fn of<'a>(&'a self, kind: &str, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all(kind).iter().filter(move |object| api::object::namespace(object) == namespace)
    }

    /// One object; of the whole cluster if the namespace is empty.
    pub fn get<'a>(&'a self, kind: &str, namespace: &'a str, name: &str) -> Option<&'a Value> {
        self.of(kind, namespace).find(|object| api::object::name(object) == name)
    }

    /// The objects of a kind that `owner` controls.
    pub fn controlled<'a>(&'a self, kind: &str, owner: &'a Value) -> impl Iterator<Item = &'a Value> {
        let uid = api::object::uid(owner);
        let controls = move |object: &&Value| {
            api::object::controller_of(object).is_some_and(|reference| reference.uid == uid)
        };
        self.of(kind, api::object::namespace(owner)).filter(controls)
    }

    /// The events about `object`, oldest first.
    pub fn events_about(&self, object: &Value) -> Vec<&Value> {
        let is_about = |event: &&Value| {
            let regarding = &event["involvedObject"];
            regarding["name"].as_str() == Some(api::object::name(object))
                && regarding["kind"].as_str() == Some(api::object::kind(object))
                && regarding["uid"].as_str().is_none_or(|uid| uid == api::object::uid(object))
        };
        let mut events: Vec<&Value> = self.all("Event").iter().filter(is_about).collect();
        events.sort_by_cached_key(|event| crate::verb::events::last_seen(event));
        events
    }

    /// The message of the newest event of this reason about `object`.
    pub fn newest_event(&self, object: &Value, reason: &str) -> Option<&str> {
        let events = self.events_about(object);
        events.into_iter().rev().find(|event| event["reason"] == reason)?["message"].as_str()
    }
}

/// The conditions of an object.
pub fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object["status"]["conditions"].as_array().into_iter().flatten()
}

/// One condition of an object.
pub fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    conditions(object).find(|condition| condition["type"] == name)
}

/// True if the object has the condition, and it is `True`.
pub fn is_true(object: &Value, name: &str) -> bool {
    condition(object, name).is_some_and(|condition| condition["status"] == "True")
}

/// A number of the object, zero if it has none there.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A text of the object, empty if it has none there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// True if the label selector at `selector` matches the object's labels; nothing matches no selector.
pub fn selects(selector: &Value, object: &Value) -> bool {
    let selector = serde_json::from_value(selector.clone()).ok();
    let selector = selector.and_then(|selector| LabelSelector::from_object(&selector).ok());
    selector.is_some_and(|selector| selector.matches(&api::object::labels(object)))
}
