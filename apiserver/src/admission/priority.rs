//! Priority: the number behind a pod's class, and that there is one default class at most.

use api::status::Status;
use serde_json::{Value, json};

use crate::error::Outcome;
use crate::storage::key::Key;
use crate::storage::object::Stored;
use crate::verbs::Call;

/// What a class says.
struct Class {
    value: i64,
    preemption: String,
}

/// Sets a new pod's `spec.priority` and `spec.preemptionPolicy` from its class, or from the default class.
///
/// # Errors
/// 403 if there is no such class, or the pod names another number.
pub async fn resolve(call: &Call<'_>, pod: &mut Value) -> Outcome<()> {
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = match name.as_str() {
        "" => default_class(call, pod)?,
        name => named(call, name).await?.ok_or_else(|| forbidden(pod, &no_such_class(name)))?,
    };
    let spec = &mut pod["spec"];
    let given = spec["priority"].as_i64();
    if given.is_some_and(|given| given != class.value) {
        let why = format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            given.unwrap_or_default(),
            class.value
        );
        return Err(forbidden(pod, &why).into());
    }
    spec["priority"] = json!(class.value);
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = json!(class.preemption);
    }
    Ok(())
}

/// Refuses a second default class.
///
/// # Errors
/// 403 if another class is the default already.
pub async fn check_class(call: &Call<'_>, class: &Value) -> Outcome<()> {
    if class["globalDefault"] != true {
        return Ok(());
    }
    // The cache may not have the class that was made a moment ago.
    call.storage().refresh().await?;
    let name = api::object::name(class);
    let other = classes(call)?
        .into_iter()
        .find(|other| other["globalDefault"] == true && api::object::name(other) != name);
    match other {
        None => Ok(()),
        Some(other) => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                api::object::name(&other)
            );
            Err(Status::forbidden("priorityclasses", "scheduling.k8s.io", name, &why).into())
        }
    }
}

fn no_such_class(name: &str) -> String {
    format!("no PriorityClass with name {name} was found")
}

fn forbidden(pod: &Value, why: &str) -> Status {
    Status::forbidden("pods", "", api::object::name(pod), why)
}

/// The class of this name: from the cache, and from the store if the cache may be behind.
async fn named(call: &Call<'_>, name: &str) -> Outcome<Option<Class>> {
    let resource = call.server.registry.find("scheduling.k8s.io", "v1", "priorityclasses");
    let Some(resource) = resource else { return Ok(None) };
    let key = Key::Object(&resource, "", name).to_bytes();
    if let Some(stored) = call.storage().cache.get(&key) {
        return read(&stored).map(Some);
    }
    let stored = call.storage().read(&key).await?;
    stored.as_ref().map(read).transpose()
}

/// The default class with the lowest number, or what pods have without any.
fn default_class(call: &Call<'_>, pod: &mut Value) -> Outcome<Class> {
    let defaults = classes(call)?.into_iter().filter(|class| class["globalDefault"] == true);
    match defaults.min_by_key(|class| class["value"].as_i64()) {
        Some(class) => {
            pod["spec"]["priorityClassName"] = json!(api::object::name(&class));
            Ok(class_of(&class))
        }
        None => Ok(Class { value: 0, preemption: "PreemptLowerPriority".into() }),
    }
}

/// All classes, as the cache has them.
fn classes(call: &Call<'_>) -> Outcome<Vec<Value>> {
    let resource = call.server.registry.find("scheduling.k8s.io", "v1", "priorityclasses");
    let Some(resource) = resource else { return Ok(Vec::new()) };
    let all = Key::Resource(&resource);
    let snapshot = call.storage().cache.snapshot(&all.to_bytes(), &all.range());
    snapshot.objects.iter().map(|stored| crate::storage::decode(stored)).collect()
}

fn read(stored: &Stored) -> Outcome<Class> {
    Ok(class_of(&crate::storage::decode(stored)?))
}

fn class_of(class: &Value) -> Class {
    Class {
        value: class["value"].as_i64().unwrap_or_default(),
        preemption: class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority").to_owned(),
    }
}
