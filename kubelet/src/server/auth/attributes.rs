//! As what a request to the node's API is authorized: upstream's mapping (`pkg/kubelet/server/auth.go`).

use http::Method;

/// One thing to be allowed on the node: `VERB nodes/SUBRESOURCE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// The verb of the API.
    pub verb: &'static str,
    /// Of `nodes`.
    pub subresource: &'static str,
}

/// Paths and their subresources. Those of the first list are also allowed to who may `proxy`
/// (`KubeletFineGrainedAuthz`).
const FINE: [(&str, &str); 4] =
    [("/pods", "pods"), ("/runningpods", "pods"), ("/healthz", "healthz"), ("/configz", "configz")];
const OWN: [(&str, &str); 4] =
    [("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log"), ("/checkpoint", "checkpoint")];

/// Of these one must be allowed, asked in this order; never empty.
pub fn acts(method: &Method, path: &str) -> Vec<Act> {
    let verb = match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    let below = |rows: &[(&str, &'static str)]| {
        rows.iter().find(|(prefix, _)| is_below(path, prefix)).map(|(_, subresource)| *subresource)
    };
    let subresources = below(&FINE).into_iter().chain([below(&OWN).unwrap_or("proxy")]);
    subresources.map(|subresource| Act { verb, subresource }).collect()
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_nodes() {
        for (path, expected) in [
            ("/stats/summary", "get stats"),
            ("/metrics", "get metrics"),
            ("/metrics/cadvisor", "get metrics"),
            ("/logs/", "get log"),
            ("/checkpoint/ns/pod/c", "get checkpoint"),
            ("/pods", "get pods, get proxy"),
            ("/pods/", "get pods, get proxy"),
            ("/runningpods/", "get pods, get proxy"),
            ("/healthz", "get healthz, get proxy"),
            ("/healthz/log", "get healthz, get proxy"),
            ("/configz", "get configz, get proxy"),
            ("/podsandmore", "get proxy"),
            ("/exec/ns/pod/c", "get proxy"),
            ("/containerLogs/ns/pod/c", "get proxy"),
            ("/", "get proxy"),
        ] {
            let acts = acts(&Method::GET, path);
            let text: Vec<String> =
                acts.iter().map(|act| format!("{} {}", act.verb, act.subresource)).collect();
            assert_eq!(text.join(", "), expected, "{path}");
        }
        let verbs =
            [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].map(|m| acts(&m, "/run")[0].verb);
        assert_eq!(verbs, ["create", "update", "patch", "delete"]);
    }
}
