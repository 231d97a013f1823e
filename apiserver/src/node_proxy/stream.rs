//! What a request for a stream asks for, as the kubelet hears it: exec, attach, port-forward. No I/O.

use api::status::Status;
use http::HeaderMap;
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use serde_json::Value;

use crate::node_proxy::log::{choose_container, encode, path_of};
use crate::query::Query;

/// What goes on to the kubelet: how to speak. Who asks is no business of its.
const PASSED: [HeaderName; 6] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("x-stream-protocol-version"),
];

/// A kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A command in a container.
    Exec,
    /// A container's own process.
    Attach,
    /// Ports of a pod.
    PortForward,
}

impl Stream {
    /// The kubelet's path and query.
    ///
    /// # Errors
    /// 400 in upstream's words: the pod is on no node, or the container can't be told.
    pub fn path(self, pod: &Value, query: &Query) -> Result<String, Status> {
        let (namespace, name) = (api::object::namespace(pod), api::object::name(pod));
        if pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        if self == Self::PortForward {
            let ports: Vec<_> = query.all("ports").map(|port| ("port", port.to_owned())).collect();
            return Ok(path_of("portForward", &[namespace, name]) + &encode(&ports));
        }
        let container = choose_container(pod, query.get("container"))?;
        let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
        let flags = flags.into_iter().filter(|(asked, _)| query.flag(asked));
        let mut parameters: Vec<_> = flags.map(|(_, passed)| (passed, "1".to_owned())).collect();
        let kind = match self {
            Self::Attach => "attach",
            _ => {
                parameters.extend(query.all("command").map(|word| ("command", word.to_owned())));
                "exec"
            }
        };
        Ok(path_of(kind, &[namespace, name, &container]) + &encode(&parameters))
    }
}

/// Those of a request's headers that say how to speak.
///
/// # Errors
/// 400 if it doesn't ask for an upgrade.
pub fn upgrade_headers(request: &HeaderMap) -> Result<HeaderMap, Status> {
    if !request.contains_key(UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let mut passed = HeaderMap::new();
    for name in PASSED {
        passed.extend(request.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(stream: Stream, node: &str, query: &str) -> String {
        let pod = json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "nodeName": node, "containers": [{ "name": "app" }] },
        });
        match stream.path(&pod, &Query::parse(query)) {
            Ok(path) => path,
            Err(status) => format!("{} {}", status.code(), status.message),
        }
    }

    #[test]
    fn queries_become_the_kubelets() {
        assert_eq!(
            path(
                Stream::Exec,
                "n1",
                "command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=true&tty=1&stderr=false"
            ),
            "/exec/shop/web/app?input=1&output=1&tty=1&command=sh&command=-c&command=echo+a%26b"
        );
        assert_eq!(
            path(Stream::Attach, "n1", "container=app&stderr=true&command=x"),
            "/attach/shop/web/app?error=1"
        );
        assert_eq!(
            path(Stream::PortForward, "n1", "ports=80&ports=81"),
            "/portForward/shop/web?port=80&port=81"
        );
        assert_eq!(path(Stream::PortForward, "n1", ""), "/portForward/shop/web");
        assert_eq!(path(Stream::Exec, "n1", "container=x"), "400 container x is not valid for pod web");
        assert_eq!(path(Stream::Exec, "", ""), "400 pod web does not have a host assigned");
    }

    #[test]
    fn only_what_says_how_to_speak_goes_on() {
        let mut headers = HeaderMap::new();
        assert!(upgrade_headers(&headers).is_err());
        for (name, value) in [("upgrade", "SPDY/3.1"), ("authorization", "Bearer x"), ("cookie", "x")] {
            headers.insert(HeaderName::from_static(name), http::HeaderValue::from_static(value));
        }
        assert_eq!(upgrade_headers(&headers).expect("an upgrade").len(), 1);
    }
}
