//! The documents hold what kubectl looks for in them.

use http::header::ETAG;

use super::*;

fn get(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    respond(&Registry::builtin(), &[], path, &Query::parse(query), headers)
}

fn parsed(group: &str, version: &str) -> Value {
    let text = document(&Registry::builtin(), group, version).expect("served");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_group_and_version_has_a_document_behind_its_url() {
    let index = index(&Registry::builtin(), &[]);
    let paths = index["paths"].as_object().expect("paths");
    let served: usize = Registry::builtin().groups().iter().map(|(_, versions)| versions.len()).sum();
    assert_eq!(paths.len(), served);
    for (root, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().expect("URL");
        let response = get(url, &HeaderMap::new()).expect("served");
        assert_eq!(response.status(), StatusCode::OK, "{root}");
        assert!(response.headers()[CACHE_CONTROL].to_str().expect("text").contains("immutable"));
    }
}

#[test]
fn an_outdated_url_leads_to_the_current_one() {
    let response = get("/openapi/v3/apis/apps/v1?hash=OLD", &HeaderMap::new()).expect("served");
    assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
    let location = response.headers()[LOCATION].to_str().expect("text");
    assert_eq!(get(location, &HeaderMap::new()).expect("served").status(), StatusCode::OK);
    assert!(get("/openapi/v3/apis/none/v1?hash=OLD", &HeaderMap::new()).is_none());
    assert!(get("/openapi/v3/apis/none/v1", &HeaderMap::new()).is_none());
}

#[test]
fn an_unchanged_index_is_not_sent_again() {
    let first = get("/openapi/v3", &HeaderMap::new()).expect("served");
    let known = HeaderMap::from_iter([(http::header::IF_NONE_MATCH, first.headers()[ETAG].clone())]);
    assert_eq!(get("/openapi/v3", &known).expect("served").status(), StatusCode::NOT_MODIFIED);
}

/// kubectl looks for a patch operation of the kind and its `fieldValidation` parameter before any `-f`.
#[test]
fn every_kind_that_is_patched_can_be_validated() {
    let registry = Registry::builtin();
    for resource in registry.resources().iter().filter(|resource| resource.verbs.contains(Verb::Patch)) {
        let document = parsed(&resource.group, &resource.version);
        let kind = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
        let items = document["paths"].as_object().expect("paths").values();
        let patch = items
            .map(|item| &item["patch"])
            .find(|patch| patch["x-kubernetes-group-version-kind"] == kind)
            .unwrap_or_else(|| panic!("{resource:?} has a patch operation"));
        let parameters = patch["parameters"].as_array().expect("parameters");
        assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"), "{resource:?}");
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    }
}

/// `kubectl explain` finds the kind by the list operation and its fields by references.
#[test]
fn every_reference_leads_to_a_schema() {
    for (group, versions) in Registry::builtin().groups() {
        let document = parsed(&group, &versions[0]);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(schemas.contains_key(name), "{group}: {name}");
        }
    }
    let apps = parsed("apps", "v1");
    let list = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["get"];
    assert_eq!(list["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(
        apps["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"]
            .is_object()
    );
}

#[test]
fn paths_are_as_they_were() {
    let apps = parsed("apps", "v1");
    let mut text = String::new();
    for (path, item) in apps["paths"].as_object().expect("paths") {
        let operations: Vec<String> = item.as_object().expect("item").keys().cloned().collect();
        text.push_str(&format!("{path}: {}\n", operations.join(" ")));
    }
    crate::golden::check("openapi/apps-v1-paths.txt", &text);
}

#[test]
fn version_2_is_all_of_it_in_both_encodings() {
    let accept = |value: &str| HeaderMap::from_iter([(ACCEPT, value.parse().expect("header"))]);
    let protobuf = get("/openapi/v2", &accept(PROTOBUF_V2)).expect("served");
    assert_eq!(protobuf.headers()[http::header::CONTENT_TYPE], PROTOBUF_V2_ANSWER);
    let bytes = protobuf.body().as_bytes().expect("bytes");
    assert!(bytes.starts_with(b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.37.0"));
    let json = get("/openapi/v2", &accept("application/json")).expect("served");
    let json: Value = serde_json::from_slice(json.body().as_bytes().expect("bytes")).expect("JSON");
    assert_eq!(json["swagger"], "2.0");
    let definitions = json["definitions"].as_object().expect("definitions");
    for reference in json.to_string().split("\"#/").skip(1) {
        let name = reference.split('"').next().expect("a name").trim_start_matches("definitions/");
        assert!(definitions.contains_key(name), "{name}");
    }
    let pod = &definitions["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    assert_eq!(pod["properties"]["spec"]["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
    let patch = &json["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
    let body = patch["parameters"].as_array().and_then(|all| all.iter().find(|one| one["in"] == "body"));
    assert!(body.expect("a body")["schema"]["$ref"].is_string());
    assert_eq!(get("/openapi/v2", &HeaderMap::new()).expect("served").status(), StatusCode::OK);
    assert_eq!(
        get("/openapi/v2", &accept("text/html")).expect("served").status(),
        StatusCode::NOT_ACCEPTABLE
    );
}

#[test]
fn an_unchanged_version_2_is_not_sent_again() {
    let first = get("/openapi/v2", &HeaderMap::new()).expect("served");
    let known = HeaderMap::from_iter([(http::header::IF_NONE_MATCH, first.headers()[ETAG].clone())]);
    assert_eq!(get("/openapi/v2", &known).expect("served").status(), StatusCode::NOT_MODIFIED);
}
