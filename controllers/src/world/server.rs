//! The API server's rules as far as controllers rely on them.

use super::{kinds::kind, text};
use crate::{
    driver::{End, Report},
    expectations::Written,
    namespace::{Content, Remaining},
    plan::{Action, Part, Plan, Presence, Target, difference},
    resource_quota::Objects,
};
use client::informer::ObjectKey;
use jiff::Timestamp;
use kube::{api::PropagationPolicy, core::ApiResource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub struct Server {
    pub objects: BTreeMap<(String, ObjectKey), Value>,
    pub now: Timestamp,
    pub revision: u64,
    names: u64,
    /// Kinds that changed since the caches last caught up.
    pub changed: BTreeSet<String>,
    /// Creates of pods are refused with this message.
    pub refusal: Option<String>,
}

impl Server {
    pub fn new() -> Server {
        let objects = BTreeMap::new();
        Server {
            objects,
            now: Timestamp::UNIX_EPOCH,
            revision: 0,
            names: 0,
            changed: BTreeSet::new(),
            refusal: None,
        }
    }

    pub fn of_kind<'a>(&'a self, plural: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Value)> {
        self.objects
            .iter()
            .filter(move |((kind, _), _)| kind == plural)
            .map(|((_, key), object)| (key, object))
    }

    /// The objects of a kind, restricted as by a field selector unless that is empty.
    pub fn typed<K: DeserializeOwned>(&self, plural: &str, fields: &str) -> Vec<K> {
        let typed = |object: &Value| serde_json::from_value(object.clone()).expect("a valid object");
        let listed = self.of_kind(plural).filter(|(_, object)| is_selected(object, fields));
        listed.map(|(_, object)| typed(object)).collect()
    }

    /// What a quota counts of a namespace.
    pub fn objects_of(&self, namespace: &str, group: &str, plural: &str) -> Objects {
        let there = self.of_kind(plural).filter(|(key, _)| key.namespace == namespace);
        let items = there.map(|(_, object)| object.clone()).collect();
        Objects { group: group.to_owned(), plural: plural.to_owned(), items }
    }

    /// What a namespace holds, as the namespace controller asks for it.
    pub fn content(&self, namespace: &str) -> Content {
        let mut kinds: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for ((plural, key), object) in &self.objects {
            if key.namespace == namespace {
                kinds.entry(plural.clone()).or_default().push(object);
            }
        }
        let remaining = kinds.into_iter().map(|(plural, objects)| {
            let mut finalizers = BTreeMap::new();
            for finalizer in objects.iter().flat_map(|object| api::object::finalizers(object)) {
                *finalizers.entry(finalizer).or_default() += 1;
            }
            Remaining {
                kind: kind(&plural),
                count: objects.len(),
                undeleted: objects.iter().filter(|object| !api::object::is_deleting(object)).count(),
                finalizers,
            }
        });
        Content { remaining: remaining.collect(), ..Content::default() }
    }

    /// As the real performer: in order, until something isn't as expected, or no write is left.
    pub fn perform(&mut self, plan: &Plan, writes: &mut usize) -> Report {
        let mut report = Report::empty();
        let mut versions = HashMap::new();
        for action in &plan.actions {
            if let Err(end) = self.act(action, &mut report, &mut versions) {
                report.end = end;
                break;
            }
            if !matches!(action, Action::Event { .. } | Action::Confirm { .. }) {
                *writes -= 1;
            }
            if *writes == 0 {
                break;
            }
        }
        report
    }

    fn act(
        &mut self,
        action: &Action,
        report: &mut Report,
        versions: &mut HashMap<String, String>,
    ) -> Result<(), End> {
        match action {
            Action::Create { kind, object, .. } => report.created.push(self.create(kind, object.clone())?),
            Action::Patch { target, part, patch, .. } => {
                self.patch(target, *part, patch, versions.get(&target.uid))?;
                let left =
                    self.objects.get(&slot(target)).map(|object| text(object, "/metadata/resourceVersion"));
                report.patched.extend(left.iter().map(|version| Written {
                    plural: target.kind.plural.clone(),
                    key: slot(target).1,
                    uid: target.uid.clone(),
                    version: version.parse().expect("the world's versions are numbers"),
                }));
                versions.extend(left.map(|version| (target.uid.clone(), version)));
            }
            Action::Delete { target, propagation, grace, .. } => {
                if self.find(target, versions.get(&target.uid)).map_err(conflict)?.is_some() {
                    self.delete(&slot(target), propagation.as_ref(), *grace);
                }
                report.deleted.push((slot(target).1, target.uid.clone()));
            }
            Action::DeleteCollection { kind, namespace, .. } => self.delete_collection(kind, namespace),
            Action::Finalize { target, finalizers, .. } => {
                let patch = json!({"spec": {"finalizers": finalizers}});
                self.patch(target, Part::Whole, &patch, versions.get(&target.uid))?;
                if finalizers.is_empty() {
                    self.changed.insert("namespaces".to_owned());
                    self.objects.remove(&slot(target));
                }
            }
            Action::Confirm { target, expected, .. } => self.confirm(target, *expected, report)?,
            Action::Event { .. } => {}
        }
        Ok(())
    }

    pub fn create(&mut self, resource: &ApiResource, mut object: Value) -> Result<Written, End> {
        if resource.plural == "pods"
            && let Some(message) = &self.refusal
        {
            return Err(End::Refused(message.clone()));
        }
        let home = ("namespaces".to_owned(), ObjectKey::cluster(text(&object, "/metadata/namespace")));
        if self.objects.get(&home).is_some_and(api::object::is_deleting) {
            return Err(End::NamespaceEnds);
        }
        self.names += 1;
        self.revision += 1;
        let generated = text(&object, "/metadata/generateName");
        if !generated.is_empty() {
            object["metadata"]["name"] = json!(format!("{generated}{}", self.names));
        }
        let key = ObjectKey::new(text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let slot = (resource.plural.clone(), key.clone());
        if self.objects.contains_key(&slot) {
            return Err(End::Conflict(format!("{key} already exists")));
        }
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        let uid = metadata.entry("uid").or_insert(json!(format!("u{}", self.names)));
        let uid = uid.as_str().unwrap_or_default().to_owned();
        metadata.insert("resourceVersion".to_owned(), json!(self.revision.to_string()));
        metadata.insert("generation".to_owned(), json!(1));
        metadata.entry("creationTimestamp").or_insert(json!(self.now.to_string()));
        if resource.plural == "pods" && object.get("status").is_none() {
            object["status"] = json!({"phase": "Pending"});
        }
        self.changed.insert(slot.0.clone());
        self.objects.insert(slot, object);
        Ok(Written { plural: resource.plural.clone(), key, uid, version: self.revision })
    }

    fn patch(&mut self, target: &Target, part: Part, patch: &Value, own: Option<&String>) -> Result<(), End> {
        let Some(object) = self.find(target, own).map_err(conflict)?.cloned() else {
            return Err(End::Conflict(format!("{target} is gone")));
        };
        let mut new = object.clone();
        merge(&mut new, patch);
        let mut next = object.clone();
        if matches!(part, Part::Status | Part::Approval) {
            next["status"] = new["status"].clone();
        } else {
            let status = object.get("status").cloned();
            next = new;
            status.into_iter().for_each(|status| next["status"] = status);
        }
        self.put(slot(target), next);
        Ok(())
    }

    /// Writes an object: new revision, new generation if the spec changed, gone if nothing holds it.
    pub fn put(&mut self, slot: (String, ObjectKey), mut next: Value) {
        let old = &self.objects[&slot];
        if difference(old, &next).is_none() {
            return;
        }
        if old["spec"] != next["spec"] {
            next["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        self.revision += 1;
        self.changed.insert(slot.0.clone());
        next["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let ends_at_once = next["metadata"]["deletionGracePeriodSeconds"] == json!(0);
        let held = (slot.0 == "pods" && runs(&next) && !ends_at_once)
            || slot.0 == "namespaces"
            || !api::object::finalizers(&next).is_empty();
        if api::object::is_deleting(&next) && !held {
            self.objects.remove(&slot);
        } else {
            self.objects.insert(slot, next);
        }
    }

    pub fn delete(
        &mut self,
        slot: &(String, ObjectKey),
        propagation: Option<&PropagationPolicy>,
        grace: Option<u32>,
    ) {
        let Some(mut object) = self.objects.get(slot).cloned() else { return };
        let mut finalizers = api::object::finalizers(&object);
        let added = match propagation {
            Some(PropagationPolicy::Foreground) => Some("foregroundDeletion"),
            Some(PropagationPolicy::Orphan) => Some("orphan"),
            _ => None,
        };
        finalizers.extend(added.map(str::to_owned).filter(|name| !finalizers.contains(name)));
        let held = (slot.0 == "pods" && grace != Some(0) && runs(&object))
            || slot.0 == "namespaces"
            || !finalizers.is_empty();
        self.revision += 1;
        self.changed.insert(slot.0.clone());
        if !held {
            self.objects.remove(slot);
            return;
        }
        if !finalizers.is_empty() {
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        if grace == Some(0) {
            object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        }
        if !api::object::is_deleting(&object) {
            object["metadata"]["deletionTimestamp"] = json!(self.now.to_string());
        }
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(slot.clone(), object);
    }

    fn delete_collection(&mut self, kind: &ApiResource, namespace: &str) {
        let slots: Vec<(String, ObjectKey)> = self
            .objects
            .keys()
            .filter(|(plural, key)| *plural == kind.plural && key.namespace == namespace)
            .cloned()
            .collect();
        for slot in slots {
            self.delete(&slot, None, None);
        }
    }

    fn confirm(&self, target: &Target, expected: Presence, report: &mut Report) -> Result<(), End> {
        let found = self.objects.get(&slot(target));
        let same =
            found.filter(|object| target.uid.is_empty() || text(object, "/metadata/uid") == target.uid);
        let holds = match (expected, same) {
            (Presence::Gone, same) => same.is_none(),
            (Presence::Alive, Some(object)) => !api::object::is_deleting(object),
            (Presence::Unchanged, Some(object)) => {
                Some(text(object, "/metadata/resourceVersion")) == target.version
            }
            (_, None) => false,
        };
        if !holds {
            return Err(End::Conflict(format!("{target} is not {expected:?}")));
        }
        report.gone.push(target.uid.clone());
        Ok(())
    }

    /// The target in the state it must be in: as it was seen, or as this plan's own last write left it.
    fn find(&self, target: &Target, own: Option<&String>) -> Result<Option<&Value>, String> {
        let Some(object) = self.objects.get(&slot(target)) else { return Ok(None) };
        if text(object, "/metadata/uid") != target.uid {
            return Err(format!("{target} is another object now"));
        }
        let version = text(object, "/metadata/resourceVersion");
        let expected = target.version.as_ref().map(|seen| own.unwrap_or(seen));
        match expected {
            Some(expected) if *expected != version => Err(format!("{target} is at {version}")),
            _ => Ok(Some(object)),
        }
    }
}

/// `FIELD=VALUE` holds.
fn is_selected(object: &Value, fields: &str) -> bool {
    fields
        .split_once('=')
        .is_none_or(|(field, value)| text(object, &format!("/{}", field.replace('.', "/"))) == value)
}

/// A kubelet has it, and it hasn't ended.
fn runs(pod: &Value) -> bool {
    !text(pod, "/spec/nodeName").is_empty()
        && !matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed")
}

fn conflict(message: String) -> End {
    End::Conflict(message)
}

fn slot(target: &Target) -> (String, ObjectKey) {
    (kind(&target.kind.plural).plural, ObjectKey::new(&target.namespace, &target.name))
}

/// RFC 7386.
pub fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().expect("made an object above").remove(name);
        } else {
            merge(&mut object[name], value);
        }
    }
}
