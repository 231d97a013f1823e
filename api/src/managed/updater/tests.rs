use serde_json::json;

use super::super::Operation;
use super::*;
use crate::schema::Definitions;

fn deployments() -> Option<&'static Schema> {
    Definitions::builtin().of_kind("apps", "v1", "Deployment")
}

fn manager(name: &str, operation: Operation) -> Manager {
    Manager { name: name.into(), operation, api_version: "apps/v1".into(), subresource: String::new() }
}

fn applies(live: &Value, who: &str, config: Value, force: bool) -> Result<Option<Value>, ApplyError> {
    let reset = FieldSet::default();
    let writer =
        Writer { manager: manager(who, Operation::Apply), now: "2026-01-01T00:00:00Z", reset: &reset };
    apply(live, &config, deployments(), &writer, force)
}

fn applied(live: &Value, who: &str, config: Value) -> Value {
    applies(live, who, config, false).unwrap().expect("something changes")
}

fn updated(old: &Value, who: &str, mut new: Value) -> Value {
    let reset = FieldSet::default();
    let writer =
        Writer { manager: manager(who, Operation::Update), now: "2026-01-01T00:00:01Z", reset: &reset };
    track(old, &mut new, deployments(), &writer).unwrap();
    new
}

fn fields_owned(object: &Value, who: &str) -> Vec<String> {
    let managed = ManagedFields::decode(&object["metadata"]["managedFields"]).unwrap();
    let entries = managed.entries.iter().filter(|entry| entry.manager.name == who);
    entries.flat_map(|entry| entry.fields.paths()).collect()
}

fn blank() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}})
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn containers(items: Value) -> Value {
    config(json!({"template": {"spec": {"containers": items}}}))
}

#[test]
fn an_applier_owns_what_it_names_and_takes_it_back() {
    let live = applied(&blank(), "a", config(json!({"replicas": 3, "paused": true})));
    assert_eq!(fields_owned(&live, "a"), [".spec.paused", ".spec.replicas"]);
    let live = applied(&live, "a", config(json!({"replicas": 4})));
    assert_eq!(live["spec"], json!({"replicas": 4}), "what isn't named any more goes");
    assert_eq!(applies(&live, "a", config(json!({"replicas": 4})), false), Ok(None), "nothing changes");
}

#[test]
fn what_another_owns_is_a_conflict_unless_forced_or_the_same() {
    let live = applied(&blank(), "a", config(json!({"replicas": 3})));
    let error = applies(&live, "b", config(json!({"replicas": 4})), false).unwrap_err();
    assert_eq!(error.to_string(), r#"Apply failed with 1 conflict: conflict with "a": .spec.replicas"#);
    let status = error.to_status().to_json();
    assert_eq!(status["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.replicas");

    let shared = applied(&live, "b", config(json!({"replicas": 3})));
    assert_eq!(fields_owned(&shared, "a"), fields_owned(&shared, "b"));

    let forced = applies(&live, "b", config(json!({"replicas": 4})), true).unwrap().unwrap();
    assert!(fields_owned(&forced, "a").is_empty());
    assert_eq!(forced["spec"]["replicas"], 4);
}

#[test]
fn a_shared_field_stays_until_the_last_owner_drops_it() {
    let live = applied(&blank(), "a", config(json!({"replicas": 3, "paused": true})));
    let live = applied(&live, "b", config(json!({"replicas": 3})));
    let live = applied(&live, "a", config(json!({"paused": true})));
    assert_eq!(live["spec"], json!({"replicas": 3, "paused": true}));
    let live = applied(&live, "b", config(json!({})));
    assert_eq!(live["spec"], json!({"paused": true}));
}

#[test]
fn list_items_merge_by_key_and_keep_the_appliers_order() {
    let live =
        applied(&blank(), "a", containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])));
    let live = applied(&live, "s", containers(json!([{"name": "side", "image": "9"}])));
    let names = |object: &Value| -> Vec<String> {
        let items = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&live), ["a", "b", "side"]);
    let live =
        applied(&live, "a", containers(json!([{"name": "b", "image": "2"}, {"name": "a", "image": "1"}])));
    assert_eq!(names(&live), ["b", "side", "a"], "as upstream: behind the item it stood behind");
    let live = applied(&live, "a", containers(json!([{"name": "b", "image": "2"}])));
    assert_eq!(names(&live), ["b", "side"], "the item of somebody else stays");
}

#[test]
fn ports_are_told_apart_by_port_and_protocol() {
    let port = |extra: Value| {
        let mut port = json!({"containerPort": 53});
        port.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        port
    };
    let live = applied(
        &blank(),
        "a",
        containers(json!([{"name": "dns", "image": "d", "ports": [port(json!({}))]}])),
    );
    let live = applied(
        &live,
        "b",
        containers(
            json!([{"name": "dns", "ports": [port(json!({"protocol": "UDP"})), port(json!({"protocol": "TCP"}))]}]),
        ),
    );
    let ports = live["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap().clone();
    assert_eq!(ports.len(), 2, "{ports:?}");
}

#[test]
fn an_item_named_twice_is_refused_by_its_path() {
    let error = applies(&blank(), "a", containers(json!([{"name": "x"}, {"name": "x"}])), false).unwrap_err();
    assert_eq!(
        error.to_status().message,
        "failed to create typed patch object: duplicate entries for key .spec.template.spec.containers[name=\"x\"]"
    );
    let error = applies(&blank(), "a", containers(json!([{"image": "x"}])), false).unwrap_err();
    assert!(error.to_string().contains(r#"omits key field "name""#), "{error}");
}

#[test]
fn an_update_takes_what_it_changes_and_drops_what_it_removes() {
    let live = applied(&blank(), "a", config(json!({"replicas": 3, "paused": true})));
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let live = updated(&live, "scaler", scaled);
    assert_eq!(fields_owned(&live, "scaler"), [".spec.replicas"]);
    assert_eq!(fields_owned(&live, "a"), [".spec.paused"]);
    let mut without = live.clone();
    without["spec"].as_object_mut().unwrap().remove("paused");
    let live = updated(&live, "scaler", without);
    assert!(fields_owned(&live, "a").is_empty());
    let error = applies(&live, "a", config(json!({"replicas": 3})), false).unwrap_err();
    assert!(
        error.to_string().ends_with(r#"conflict with "scaler" using apps/v1: .spec.replicas"#),
        "{error}"
    );
}

#[test]
fn who_creates_owns_everything_but_what_the_server_writes() {
    let mut object = config(json!({"replicas": 1, "selector": {"matchLabels": {"app": "x"}}}));
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["labels"] = json!({"app": "x"});
    let object = updated(&Value::Null, "kubectl", object);
    assert_eq!(
        object["metadata"]["managedFields"][0]["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {}},
        })
    );
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner_too() {
    let mut live = config(json!({"replicas": 1}));
    live["metadata"]["uid"] = json!("u");
    let error = applies(&live, "a", config(json!({"replicas": 2})), false).unwrap_err();
    assert!(error.to_string().contains("\"before-first-apply\" using apps/v1"), "{error}");
}

#[test]
fn many_updaters_are_joined() {
    let mut live = updated(&Value::Null, "creator", config(json!({"replicas": 0})));
    for n in 0..20 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{n}")] = json!("x");
        live = updated(&live, &format!("m{n}"), new);
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert!(!fields_owned(&live, "ancient-changes").is_empty());
}

#[test]
fn a_request_may_clear_or_set_the_owners() {
    let live = applied(&blank(), "a", config(json!({"replicas": 3})));
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(updated(&live, "b", new)["metadata"]["managedFields"], Value::Null);
    let mut new = live.clone();
    new["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(fields_owned(&updated(&live, "b", new), "a"), [".spec.replicas"], "absent keeps the old list");
}

#[test]
fn reset_fields_are_never_owned() {
    let reset = reset_fields(&[&["status"]]);
    let writer = Writer { manager: manager("a", Operation::Apply), now: "t", reset: &reset };
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let live = apply(&blank(), &config, deployments(), &writer, false).unwrap().unwrap();
    assert_eq!(fields_owned(&live, "a"), [".spec.replicas"]);
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_clients_side() {
    let mut object = config(json!({"replicas": 1, "paused": true}));
    let text = object.to_string();
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": text});
    object["metadata"]["uid"] = json!("u");
    let live = updated(&Value::Null, "kubectl-client-side-apply", object);
    let wanted = config(json!({"replicas": 3, "paused": true}));
    let refused = applies(&live, "another", wanted.clone(), false).unwrap_err();
    assert!(refused.to_string().contains(".spec.replicas"), "{refused}");
    let taken = applied(&live, "kubectl", wanted.clone());
    assert_eq!(taken["spec"]["replicas"], 3);
    let annotation = &taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(annotation, &json!(format!("{wanted}\n")), "the client's side can go on from here");

    // What somebody else changed meanwhile is theirs.
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let live = updated(&live, "scaler", scaled);
    assert!(applies(&live, "kubectl", wanted, false).is_err());
}
