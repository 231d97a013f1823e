//! Discovery: which groups, versions and resources there are, in both forms.
//!
//! `/api` and `/apis` answer with one aggregated document (`apidiscovery.k8s.io`) to clients that ask for
//! it and with the older lists to others; the older form goes on below. Everything is made from the
//! registry at the time of the request, so a resource that came a moment ago is there.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, Response};
use serde_json::{Map, Value, json};

use crate::aggregation::External;
use crate::body::Body;
use crate::etag;
use crate::registry::Registry;
use crate::registry::resource::{Resource, Subresource, Verbs, group_version};

const JSON: &str = "application/json";
const AGGREGATED: [(&str, &str); 2] = [
    ("v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    ("v2beta1", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
];

/// Answers a GET of a discovery path; `None` if `path` is no such path or names an unknown group or version.
/// `external` is what is served elsewhere.
pub fn respond(
    registry: &Registry,
    external: &[External],
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let all = All { registry, external };
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let aggregated = aggregated_version(headers);
    let (content_type, document) = match (segments.as_slice(), aggregated) {
        (["api"], Some((version, content_type))) => (content_type, all.aggregate(version, true)),
        (["apis"], Some((version, content_type))) => (content_type, all.aggregate(version, false)),
        (["api"], None) => (JSON, all.core_versions()),
        (["apis"], None) => (JSON, all.group_list()),
        (["apis", group], _) => (JSON, all.one_group(group)?),
        (["api", version], _) => (JSON, resource_list(registry, "", version)?),
        (["apis", group, version], _) => (JSON, resource_list(registry, group, version)?),
        _ => return None,
    };
    Some(etag::document(headers, content_type, Bytes::from(document.to_string())))
}

/// The newest aggregated form that the client accepts before plain JSON.
fn aggregated_version(headers: &HeaderMap) -> Option<(&'static str, &'static str)> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).map_while(aggregated_clause).flatten().next()
}

/// Outer `None`: plain JSON is asked for, which ends the search. Inner `None`: a form we don't have.
fn aggregated_clause(clause: &str) -> Option<Option<(&'static str, &'static str)>> {
    let parameters: Vec<&str> = clause.split(';').map(str::trim).collect();
    let form = parameters.iter().find_map(|parameter| parameter.strip_prefix("as="));
    let version = parameters.iter().find_map(|parameter| parameter.strip_prefix("v="));
    match (parameters[0], form) {
        ("application/json" | "*/*", None) => None,
        ("application/json", Some("APIGroupDiscoveryList"))
            if parameters.contains(&"g=apidiscovery.k8s.io") =>
        {
            Some(AGGREGATED.into_iter().find(|(ours, _)| Some(*ours) == version))
        }
        _ => Some(None),
    }
}

/// What is served here and elsewhere.
struct All<'a> {
    registry: &'a Registry,
    external: &'a [External],
}

impl All<'_> {
    /// The groups and their versions. A version that is served elsewhere isn't served here, too.
    fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups = self.registry.groups();
        for External { group, version, .. } in self.external {
            match groups.iter_mut().find(|(known, _)| known == group) {
                Some((_, versions)) if versions.contains(version) => {}
                Some((_, versions)) => versions.push(version.clone()),
                None => groups.push((group.clone(), vec![version.clone()])),
            }
        }
        groups
    }

    fn aggregate(&self, form: &str, core: bool) -> Value {
        let resources = self.registry.resources();
        let groups = self.groups().into_iter().filter(|(group, _)| group.is_empty() == core);
        let items = groups.map(|(group, versions)| {
            let versions = versions.iter().map(|version| match self.elsewhere(&group, version) {
                Some(external) => external_group_version(external),
                None => aggregated_group_version(&resources, &group, version),
            });
            json!({
                "metadata": { "name": group, "creationTimestamp": null },
                "versions": versions.collect::<Vec<_>>(),
            })
        });
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{form}"),
            "metadata": {},
            "items": items.collect::<Vec<_>>(),
        })
    }

    fn elsewhere(&self, group: &str, version: &str) -> Option<&External> {
        self.external.iter().find(|external| external.group == group && external.version == version)
    }

    fn core_versions(&self) -> Value {
        let core = self.groups().into_iter().find(|(group, _)| group.is_empty());
        json!({
            "kind": "APIVersions",
            "versions": core.map(|(_, versions)| versions).unwrap_or_default(),
            "serverAddressByClientCIDRs": [],
        })
    }

    fn group_list(&self) -> Value {
        let groups = self.groups().into_iter().filter(|(group, _)| !group.is_empty());
        let groups = groups.map(|(group, versions)| Value::Object(group_entry(&group, &versions)));
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>() })
    }

    fn one_group(&self, name: &str) -> Option<Value> {
        let (group, versions) = self.groups().into_iter().find(|(group, _)| group == name)?;
        let mut entry = group_entry(&group, &versions);
        entry.insert("kind".to_owned(), json!("APIGroup"));
        entry.insert("apiVersion".to_owned(), json!("v1"));
        Some(Value::Object(entry))
    }
}

/// Of who doesn't answer is listed what it said last.
fn external_group_version(external: &External) -> Value {
    let freshness = if external.current { "Current" } else { "Stale" };
    json!({ "version": external.version, "freshness": freshness, "resources": external.learned.resources })
}

fn aggregated_group_version(resources: &[Arc<Resource>], group: &str, version: &str) -> Value {
    let resources = of(resources, group, version).map(aggregated_resource);
    json!({ "version": version, "freshness": "Current", "resources": resources.collect::<Vec<_>>() })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(resource.verbs),
    });
    let subresources: Vec<Value> = resource.subresources.iter().map(aggregated_subresource).collect();
    put_list(&mut entry, "shortNames", json!(resource.short_names));
    put_list(&mut entry, "categories", json!(resource.categories));
    put_list(&mut entry, "subresources", Value::Array(subresources));
    entry
}

fn aggregated_subresource(sub: &Subresource) -> Value {
    json!({
        "subresource": sub.name,
        "responseKind": kind(&sub.group, &sub.version, &sub.kind),
        "verbs": verbs(sub.verbs),
    })
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

/// `versions` are in the order of preference.
fn group_entry(group: &str, versions: &[String]) -> Map<String, Value> {
    let entry =
        |version: &String| json!({ "groupVersion": group_version(group, version), "version": version });
    let entries: Vec<Value> = versions.iter().map(entry).collect();
    Map::from_iter([
        ("name".to_owned(), json!(group)),
        ("preferredVersion".to_owned(), entries.first().cloned().unwrap_or_default()),
        ("versions".to_owned(), Value::Array(entries)),
    ])
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let all = registry.resources();
    let entries: Vec<Value> = of(&all, group, version).flat_map(resource_entries).collect();
    if entries.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": entries,
    }))
}

/// The resource, and each subresource as an entry of its own.
fn resource_entries(resource: &Resource) -> Vec<Value> {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs(resource.verbs),
    });
    put_list(&mut entry, "shortNames", json!(resource.short_names));
    put_list(&mut entry, "categories", json!(resource.categories));
    let subresources = resource.subresources.iter().map(|sub| subresource_entry(resource, sub));
    std::iter::once(entry).chain(subresources).collect()
}

/// Group and version are given where they aren't the list's own: drain looks for `pods/eviction` in `policy`.
fn subresource_entry(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind,
        "verbs": verbs(sub.verbs),
    });
    if (&sub.group, &sub.version) != (&resource.group, &resource.version) {
        entry["group"] = json!(sub.group);
        entry["version"] = json!(sub.version);
    }
    entry
}

fn of<'a>(all: &'a [Arc<Resource>], group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
    all.iter().map(Arc::as_ref).filter(move |resource| resource.group == group && resource.version == version)
}

fn verbs(verbs: Verbs) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn put_list(entry: &mut Value, field: &str, list: Value) {
    if list.as_array().is_some_and(|list| !list.is_empty()) {
        entry[field] = list;
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};

    use super::*;

    const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                           application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                           application/json";

    fn ask(path: &str, accept: &str) -> Option<Response<Body>> {
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().expect("header"))]);
        respond(&Registry::builtin(), &[], path, &headers)
    }

    fn document(path: &str, accept: &str) -> (String, Value) {
        let response = ask(path, accept).unwrap_or_else(|| panic!("{path} is served"));
        let content_type = response.headers()[CONTENT_TYPE].to_str().expect("text").to_owned();
        (content_type, serde_json::from_slice(response.body().as_bytes().expect("bytes")).expect("JSON"))
    }

    fn outline(value: &Value) -> String {
        serde_json::to_string_pretty(value).expect("JSON") + "\n"
    }

    #[test]
    fn both_forms_are_as_they_were() {
        for (path, accept, file) in [
            ("/api", KUBECTL, "api-v2.json"),
            ("/apis", KUBECTL, "apis-v2.json"),
            ("/api", JSON, "api.json"),
            ("/apis", JSON, "apis.json"),
            ("/apis/apps", JSON, "apps.json"),
            ("/api/v1", JSON, "core-v1.json"),
            ("/apis/apps/v1", JSON, "apps-v1.json"),
        ] {
            crate::golden::check(&format!("discovery/{file}"), &outline(&document(path, accept).1));
        }
    }

    #[test]
    fn the_aggregated_form_needs_its_content_type() {
        assert_eq!(document("/apis", KUBECTL).0, AGGREGATED[0].1);
        let beta_only = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert_eq!(document("/apis", beta_only).0, AGGREGATED[1].1);
        assert_eq!(document("/apis", "application/json, */*").0, JSON);
        let plain_first = format!("application/json,{KUBECTL}");
        assert_eq!(document("/apis", &plain_first).1["kind"], "APIGroupList");
    }

    #[test]
    fn trailing_slashes_make_no_difference() {
        for path in ["/api", "/apis", "/apis/apps", "/api/v1", "/apis/apps/v1"] {
            assert_eq!(document(path, JSON), document(&format!("{path}/"), JSON), "{path}");
        }
    }

    #[test]
    fn unknown_groups_and_other_paths_are_not_ours() {
        for path in
            ["/apis/none.example", "/apis/apps/v9", "/api/v2", "/version", "/apis/apps/v1/deployments"]
        {
            assert!(ask(path, JSON).is_none(), "{path}");
        }
    }

    #[test]
    fn drain_finds_eviction_in_the_policy_group() {
        let (_, list) = document("/api/v1", JSON);
        let entries = list["resources"].as_array().expect("resources");
        let eviction = entries.iter().find(|entry| entry["name"] == "pods/eviction").expect("eviction");
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
    }

    #[test]
    fn an_unchanged_document_is_not_sent_again() {
        let first = ask("/apis", KUBECTL).expect("served");
        let mut headers = HeaderMap::from_iter([(ACCEPT, KUBECTL.parse().expect("header"))]);
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let again = respond(&Registry::builtin(), &[], "/apis", &headers).expect("served");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
}
