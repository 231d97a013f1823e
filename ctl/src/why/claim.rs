//! Why a claim isn't bound: its class, its pods, and what each volume lacks.

use api::quantity::Quantity;
use serde_json::Value;

use super::answer::{Answer, place};
use super::pod::claims;
use super::view::{View, selects, text};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Why the claim is as it is.
pub fn why(claim: &Value, view: &View) -> Answer {
    let mut answer = Answer::about(claim, "");
    match text(claim, "/status/phase") {
        "Bound" => {
            answer.verdict = format!("is bound to volume {}", text(claim, "/spec/volumeName"));
            return answer;
        }
        "Lost" => {
            let volume = text(claim, "/spec/volumeName");
            answer.verdict = format!("is lost: its volume {volume} doesn't exist any more");
            return answer;
        }
        _ => {}
    }
    answer.verdict = format!("waits for a volume: {}", pending(claim, view));
    answer.table("Volumes", &["VOLUME", "WHY NOT"], volumes(claim, view));
    answer.lines("Pods that use it", users(claim, view).map(place).collect());
    answer
}

/// Whether it is only bound when a pod that uses it has a node, which is no reason against scheduling the pod.
pub fn waits_for_pods(claim: &Value, view: &View) -> bool {
    class_of(claim, view).is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer")
}

fn class_of<'a>(claim: &'a Value, view: &'a View) -> Option<&'a Value> {
    view.get("StorageClass", "", text(claim, "/spec/storageClassName"))
}

fn users<'a>(claim: &'a Value, view: &'a View) -> impl Iterator<Item = &'a Value> {
    let name = api::object::name(claim);
    let pods = view.of("Pod", api::object::namespace(claim));
    pods.filter(move |pod| claims(pod).any(|used| used == name))
}

fn pending(claim: &Value, view: &View) -> String {
    if let Some(named) = claim["spec"]["volumeName"].as_str().filter(|name| !name.is_empty()) {
        return match view.get("PersistentVolume", "", named) {
            None => format!("it names volume {named}, which doesn't exist"),
            Some(volume) => format!("it names volume {named}: {}", lacks(claim, volume).join(", ")),
        };
    }
    let Some(name) = claim["spec"]["storageClassName"].as_str() else {
        return no_class(view);
    };
    if name.is_empty() {
        return "its class is \"\": nothing is provisioned for it, and no volume without a class fits"
            .to_owned();
    }
    let Some(class) = class_of(claim, view) else {
        return format!("storage class {name} doesn't exist, and no volume of that class fits");
    };
    provisioning(claim, class, view)
}

fn no_class(view: &View) -> String {
    let is_default = |class: &&Value| api::object::annotation(class, DEFAULT_CLASS) == Some("true");
    match view.all("StorageClass").iter().find(is_default) {
        Some(class) => {
            format!("it has no class; the default class {} is given to it soon", api::object::name(class))
        }
        None => "it has no class, no class is the default, and no volume without a class fits".to_owned(),
    }
}

fn provisioning(claim: &Value, class: &Value, view: &View) -> String {
    let provisioner = text(class, "/provisioner");
    if class["volumeBindingMode"] == "WaitForFirstConsumer" {
        let chosen = api::object::annotation(claim, SELECTED_NODE);
        if let Some(node) = chosen {
            return format!("provisioner {provisioner} has not made one on node {node} yet");
        }
        return match users(claim, view).next() {
            None => "its class waits for the first pod that uses it, and no pod does".to_owned(),
            Some(pod) => {
                format!("its class waits for a pod that uses it: pod {} has no node yet", place(pod))
            }
        };
    }
    match provisioner {
        "kubernetes.io/no-provisioner" => "its class provisions nothing, and no volume of it fits".to_owned(),
        other => format!("provisioner {other} has not made one yet (does it run?)"),
    }
}

fn volumes(claim: &Value, view: &View) -> Vec<Vec<String>> {
    let row = |volume: &Value| vec![api::object::name(volume).to_owned(), lacks(claim, volume).join(", ")];
    view.all("PersistentVolume").iter().map(row).collect()
}

/// Why a volume isn't the claim's, by every rule.
fn lacks(claim: &Value, volume: &Value) -> Vec<String> {
    let holder = &volume["spec"]["claimRef"];
    let mine = holder["name"].as_str() == Some(api::object::name(claim))
        && holder["namespace"].as_str() == Some(api::object::namespace(claim));
    let mut lacks = Vec::new();
    if !holder.is_null() && !mine {
        lacks.push(format!("belongs to claim {}/{}", text(holder, "/namespace"), text(holder, "/name")));
    }
    let class = |object: &Value| text(object, "/spec/storageClassName").to_owned();
    if class(claim) != class(volume) {
        lacks.push(format!("its class is {:?}", class(volume)));
    }
    let size = |object: &Value, pointer: &str| Quantity::parse(text(object, pointer)).ok();
    let (wanted, has) =
        (size(claim, "/spec/resources/requests/storage"), size(volume, "/spec/capacity/storage"));
    if let (Some(wanted), Some(has)) = (wanted, has)
        && has.value() < wanted.value()
    {
        lacks.push(format!("it has only {}", text(volume, "/spec/capacity/storage")));
    }
    let modes = |object: &Value| object["spec"]["accessModes"].as_array().cloned().unwrap_or_default();
    let offered = modes(volume);
    let missing = modes(claim).into_iter().filter(|mode| !offered.contains(mode));
    lacks.extend(missing.map(|mode| format!("it doesn't offer {}", mode.as_str().unwrap_or_default())));
    let selector = &claim["spec"]["selector"];
    if !selector.is_null() && !selects(selector, volume) {
        lacks.push("the claim's selector doesn't match its labels".to_owned());
    }
    if !matches!(text(volume, "/status/phase"), "Available" | "") {
        lacks.push(format!("it is {}", text(volume, "/status/phase")));
    }
    if lacks.is_empty() {
        lacks.push("it fits: the binder has not bound it yet".to_owned());
    }
    lacks
}
