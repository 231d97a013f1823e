//! What a stream is asked for with, as the object that admission sees: `PodExecOptions` and its kin.

use serde_json::{Value, json};

use crate::query::Query;

const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

/// The options of a kind in a query; what isn't given is left out, but for the streams that are on by default.
pub(super) fn options(kind: &str, query: &Query) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": kind});
    let given = |name: &str| query.get(name).map(str::to_owned);
    match kind {
        "PodExecOptions" | "PodAttachOptions" => {
            for flag in FLAGS.into_iter().filter(|flag| query.flag(flag)) {
                options[flag] = json!(true);
            }
            if let Some(container) = given("container") {
                options["container"] = json!(container);
            }
            let command: Vec<&str> = query.all("command").collect();
            if kind == "PodExecOptions" {
                options["command"] = json!(command);
            }
        }
        "PodPortForwardOptions" => {
            let ports: Vec<i64> = query.all("ports").filter_map(|port| port.parse().ok()).collect();
            options["ports"] = json!(ports);
        }
        _ => {
            if let Some(path) = given("path") {
                options["path"] = json!(path);
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_objects() {
        let made = |kind: &str, query: &str| options(kind, &Query::parse(query));
        assert_eq!(
            made("PodExecOptions", "stdin=true&tty=false&container=c&command=ls&command=-l"),
            json!({"apiVersion": "v1", "kind": "PodExecOptions", "stdin": true, "container": "c", "command": ["ls", "-l"]})
        );
        assert_eq!(made("PodPortForwardOptions", "ports=80&ports=x")["ports"], json!([80]));
        assert_eq!(made("NodeProxyOptions", "path=/logs")["path"], "/logs");
    }
}
