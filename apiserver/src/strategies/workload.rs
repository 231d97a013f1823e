//! Kinds whose status is written by others: a new object begins without one.

use serde_json::{Value, json};

use super::set;
use crate::registry::strategy::{Strategy, Traits};

/// Status begins empty; what it must have comes with the defaults.
pub struct Fresh(pub Traits);

impl Strategy for Fresh {
    fn traits(&self) -> Traits {
        self.0
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
}

/// Labels of a job's pods, in both spellings that upstream writes.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// The strategy of jobs: a job chooses its pods by its uid unless it says otherwise.
pub struct Job;

impl Strategy for Job {
    fn traits(&self) -> Traits {
        Traits::COUNTED
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
        if object.pointer("/spec/manualSelector") == Some(&Value::Bool(true)) {
            return;
        }
        let (uid, name) = (api::object::uid(object).to_owned(), api::object::name(object).to_owned());
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        for labels in UID_LABELS {
            label(&mut spec["template"], labels, &uid);
        }
        for labels in NAME_LABELS {
            label(&mut spec["template"], labels, &name);
        }
        spec["selector"] = json!({"matchLabels": {UID_LABELS[0]: uid}});
    }
}

/// Sets a label of a pod template, making what is missing around it.
fn label(template: &mut Value, key: &str, value: &str) {
    if template.is_null() {
        *template = json!({});
    }
    api::object::set_label(template, key, value);
}
