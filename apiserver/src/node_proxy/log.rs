//! What a request for a log asks for: the options, the container, and the kubelet's path. No I/O.

use std::fmt::Write;

use api::status::{FieldError, Status};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::query::Query;

/// What may stand in a path segment as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The options of a log, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Of which container; needed if the pod has several.
    pub container: Option<String>,
    /// The kubelet's query, encoded; starts with `?` unless it is empty.
    query: String,
}

impl LogOptions {
    /// Reads the parameters of upstream's PodLogOptions.
    ///
    /// # Errors
    /// 400 for what can't be read, 422 for what is out of range or excludes one another.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let mut passed = Vec::new();
        for flag in ["follow", "previous", "timestamps"] {
            if query.flag(flag) {
                passed.push((flag, "true".to_owned()));
            }
        }
        for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
            if let Some(number) = number(query, name)? {
                errors.extend((number < least).then(|| too_small(name, number, least)));
                passed.push((name, number.to_string()));
            }
        }
        if let Some(time) = query.get("sinceTime") {
            api::time::parse(time)
                .ok_or_else(|| Status::bad_request(format!("sinceTime: {time:?} is no RFC 3339 time")))?;
            if query.get("sinceSeconds").is_some() {
                errors.push(FieldError::forbidden(
                    "",
                    "at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            passed.push(("sinceTime", time.to_owned()));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("PodLogOptions", "", "", errors));
        }
        Ok(Self { container: query.get("container").map(str::to_owned), query: encode(&passed) })
    }

    /// The kubelet's path for the container's log.
    pub(super) fn path(&self, pod: &Value, container: &str) -> String {
        let place = [api::object::namespace(pod), api::object::name(pod), container];
        path_of("containerLogs", &place) + &self.query
    }
}

/// A kubelet's path of encoded segments.
pub(super) fn path_of(kind: &str, segments: &[&str]) -> String {
    let mut path = format!("/{kind}");
    for segment in segments {
        let _ = write!(path, "/{}", utf8_percent_encode(segment, SEGMENT));
    }
    path
}

/// The container that is meant.
///
/// # Errors
/// 400 in upstream's words: none is named and there are several, or there is none of that name.
pub fn choose_container(pod: &Value, asked: Option<&str>) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let containers = pod["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.iter().filter_map(|container| container["name"].as_str()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let pod_name = api::object::name(pod);
    let Some(asked) = asked else {
        return match main.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}"))),
            _ => Err(Status::bad_request(choose_one(pod_name, &main, &init))),
        };
    };
    let known = [main, init, names("ephemeralContainers")].concat().contains(&asked);
    match known {
        true => Ok(asked.to_owned()),
        false => Err(Status::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
    }
}

fn choose_one(pod: &str, main: &[&str], init: &[&str]) -> String {
    let choices = main.join(" ");
    let mut text = format!("a container name must be specified for pod {pod}, choose one of: [{choices}]");
    if !init.is_empty() {
        let _ = write!(text, " or one of the init containers: [{}]", init.join(" "));
    }
    text
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let parse = |text: &str| {
        text.parse().map_err(|_| Status::bad_request(format!("{name}: {text:?} is no whole number")))
    };
    query.get(name).map(parse).transpose()
}

fn too_small(name: &str, number: i64, least: i64) -> FieldError {
    let detail = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
    FieldError::invalid(name, number, detail)
}

pub(super) fn encode(parameters: &[(&str, String)]) -> String {
    if parameters.is_empty() {
        return String::new();
    }
    let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("?{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str], init: &[&str]) -> Value {
        let list = |names: &[&str]| -> Value { names.iter().map(|name| json!({ "name": name })).collect() };
        json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "containers": list(containers), "initContainers": list(init) },
        })
    }

    #[test]
    fn containers_are_chosen_as_upstream() {
        let text =
            |containers: &[&str], init: &[&str], asked| match choose_container(&pod(containers, init), asked)
            {
                Ok(name) => name,
                Err(status) => format!("{} {}", status.code(), status.message),
            };
        assert_eq!(text(&["a"], &["i"], None), "a");
        assert_eq!(text(&["a", "b"], &["i"], Some("i")), "i");
        assert_eq!(
            text(&["a", "b"], &["i", "j"], None),
            "400 a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i j]"
        );
        assert_eq!(
            text(&["a", "b"], &[], None),
            "400 a container name must be specified for pod web, choose one of: [a b]"
        );
        assert_eq!(text(&[], &[], None), "400 a container name must be specified for pod web");
        assert_eq!(text(&["a"], &[], Some("x")), "400 container x is not valid for pod web");
    }

    #[test]
    fn options_become_the_kubelets_query() {
        let path = |query: &str| match LogOptions::parse(&Query::parse(query)) {
            Ok(options) => options.path(&pod(&["a"], &[]), "a"),
            Err(status) => format!("{} {}", status.code(), status.message),
        };
        assert_eq!(path("container=a"), "/containerLogs/shop/web/a");
        assert_eq!(
            path("follow=true&tailLines=0&previous=false"),
            "/containerLogs/shop/web/a?follow=true&tailLines=0"
        );
        assert_eq!(
            path("sinceTime=2026-01-02T03:04:05%2B01:00&timestamps=1&limitBytes=9"),
            "/containerLogs/shop/web/a?timestamps=true&limitBytes=9&sinceTime=2026-01-02T03%3A04%3A05%2B01%3A00"
        );
        assert_eq!(path("tailLines=x"), "400 tailLines: \"x\" is no whole number");
        assert_eq!(path("sinceTime=today"), "400 sinceTime: \"today\" is no RFC 3339 time");
        assert!(
            path("tailLines=-1")
                .starts_with("422 PodLogOptions \"\" is invalid: tailLines: Invalid value: -1")
        );
        assert!(path("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z").starts_with("422 "));
    }

    #[test]
    fn names_stay_in_their_segment() {
        let mut sly = pod(&["a"], &[]);
        sly["metadata"]["name"] = json!("x/../../run?y");
        let path = LogOptions::default().path(&sly, "a");
        assert_eq!(path, "/containerLogs/shop/x%2F..%2F..%2Frun%3Fy/a");
    }
}
