//! What a request asks for, read from its method, path and query: upstream's RequestInfo.
//!
//! Authorization and dispatch look at the same value, so that nothing can be authorized as one thing and
//! served as another.

use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::audit::annotations::Annotations;
pub use crate::query::Query;
use crate::registry::Registry;
use crate::registry::resource::{Resource, Subresource};
use crate::warnings::Warnings;

/// What is to be done. The first eight apply to resources, all others to paths that are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read many.
    List,
    /// Follow many.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change parts of one.
    Patch,
    /// Delete one.
    Delete,
    /// Delete many.
    DeleteCollection,
    /// HTTP POST to a path that is no resource.
    Post,
    /// HTTP PUT to a path that is no resource.
    Put,
    /// HTTP HEAD to a path that is no resource.
    Head,
    /// HTTP OPTIONS, or anything else.
    Options,
}

impl Verb {
    /// The verb as RBAC rules and discovery write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Post => "post",
            Self::Put => "put",
            Self::Head => "head",
            Self::Options => "options",
        }
    }

    /// Whether the verb changes nothing.
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch | Self::Head | Self::Options)
    }

    fn of_path(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Options,
        }
    }

    fn of_resource(method: &Method, named: bool, watch: bool) -> Self {
        match *method {
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if named => Self::Delete,
            Method::DELETE => Self::DeleteCollection,
            Method::GET | Method::HEAD if named => Self::Get,
            Method::GET | Method::HEAD if watch => Self::Watch,
            Method::GET | Method::HEAD => Self::List,
            _ => Self::Options,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// What is to be done.
    pub verb: Verb,
    /// API group; empty for the core group and for paths that are no resource.
    pub group: String,
    /// API version; empty for paths that are no resource.
    pub version: String,
    /// Plural name in the path, whether it is known or not; empty for paths that are no resource.
    pub plural: String,
    /// The row of the registry, if there is one.
    pub resource: Option<Arc<Resource>>,
    /// Namespace in the path. For `namespaces/NAME` it is NAME, as upstream has it, for authorization.
    pub namespace: Option<String>,
    /// Name in the path; for list, watch and deletecollection the name that a field selector asks for.
    pub name: Option<String>,
    /// Subresource in the path.
    pub subresource: Option<String>,
    /// What follows the subresource in the path.
    pub rest: Option<String>,
    /// The whole path, decoded.
    pub path: String,
    /// The parameters.
    pub query: Query,
    /// Whether the path is below a resource; otherwise it is judged by non-resource rules.
    pub is_resource: bool,
    /// What admission notes for the audit log.
    pub annotations: Arc<Annotations>,
    /// What the client is warned of.
    pub warnings: Arc<Warnings>,
}

impl RequestInfo {
    /// Reads a request line. Never fails: what names no resource is a non-resource path.
    pub fn parse(method: &Method, path: &str, query: &str, registry: &Registry) -> Self {
        let segments = segments_of(path);
        let query = Query::parse(query);
        let target = segments.as_deref().and_then(Target::of_segments);
        match target {
            Some(target) => Self::of_resource(method, path, query, target, registry),
            None => Self::of_path(method, path, query),
        }
    }

    fn of_path(method: &Method, path: &str, query: Query) -> Self {
        Self {
            verb: Verb::of_path(method),
            group: String::new(),
            version: String::new(),
            plural: String::new(),
            resource: None,
            namespace: None,
            name: None,
            subresource: None,
            rest: None,
            path: path.to_owned(),
            query,
            is_resource: false,
            annotations: Arc::default(),
            warnings: Arc::default(),
        }
    }

    fn of_resource(method: &Method, path: &str, query: Query, target: Target, registry: &Registry) -> Self {
        let verb = Verb::of_resource(method, target.name.is_some(), query.flag("watch"));
        let resource = registry.find(&target.group, &target.version, &target.plural);
        let selected = match verb {
            Verb::List | Verb::Watch | Verb::DeleteCollection => selected_name(&query),
            _ => None,
        };
        Self {
            verb,
            resource,
            name: target.name.or(selected),
            group: target.group,
            version: target.version,
            plural: target.plural,
            namespace: target.namespace,
            subresource: target.subresource,
            rest: target.rest,
            path: path.to_owned(),
            query,
            is_resource: true,
            annotations: Arc::default(),
            warnings: Arc::default(),
        }
    }

    /// The row of the subresource that is asked for.
    pub fn subresource_row(&self) -> Option<&Subresource> {
        self.resource.as_ref()?.subresource(self.subresource.as_deref()?)
    }

    /// Whether the answer is a stream that may go on for long.
    pub fn is_long_running(&self) -> bool {
        let stream = self.subresource.as_deref();
        self.verb == Verb::Watch
            || matches!(stream, Some("log" | "exec" | "attach" | "portforward" | "proxy"))
    }

    /// `pods` or `pods/log`, as RBAC rules write it.
    pub fn resource_path(&self) -> String {
        match &self.subresource {
            Some(sub) => format!("{}/{sub}", self.plural),
            None => self.plural.clone(),
        }
    }
}

/// The parts of a resource path.
#[derive(Default)]
struct Target {
    group: String,
    version: String,
    namespace: Option<String>,
    plural: String,
    name: Option<String>,
    subresource: Option<String>,
    rest: Option<String>,
}

impl Target {
    fn of_segments(segments: &[String]) -> Option<Self> {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["api", version, rest @ ..] => Self::of_group("", version, rest),
            ["apis", group, version, rest @ ..] => Self::of_group(group, version, rest),
            _ => None,
        }
    }

    fn of_group(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let (namespace, rest) = match rest {
            // `namespaces/NAME` and its two subresources are the Namespace itself, not something in it.
            ["namespaces", name] | ["namespaces", name, "status" | "finalize"] => (Some(*name), rest),
            ["namespaces", name, inside @ ..] => (Some(*name), inside),
            _ => (None, rest),
        };
        let (plural, rest) = rest.split_first()?;
        let at = |i: usize| rest.get(i).map(|s| (*s).to_owned());
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.map(str::to_owned),
            plural: (*plural).to_owned(),
            name: at(0),
            subresource: at(1),
            rest: (rest.len() > 2).then(|| rest[2..].join("/")),
        })
    }
}

/// The segments of a path. What stands behind `proxy` is left as it is: it is another's to read.
fn segments_of(path: &str) -> Option<Vec<String>> {
    let raw: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let proxy = raw.iter().skip(4).position(|segment| *segment == "proxy").filter(|_| raw[0] == "api");
    let behind = proxy.map_or(raw.len(), |at| at + 5);
    let read = |(at, segment): (usize, &&str)| match at < behind {
        true => decode(segment),
        false => Some((*segment).to_owned()),
    };
    raw.iter().enumerate().map(read).collect()
}

/// The segment, decoded. A segment that would become several, or no text, names nothing.
fn decode(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    (!text.contains(['/', '\0']) && text != "." && text != "..").then(|| text.into_owned())
}

fn selected_name(query: &Query) -> Option<String> {
    let selector = query.get("fieldSelector")?;
    let value = selector.split(',').find_map(|term| term.trim().strip_prefix("metadata.name="))?;
    Some(value.trim_start_matches('=').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> String {
        let (method, target) = line.split_once(' ').expect("method and target");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = method.parse().expect("method");
        let info = RequestInfo::parse(&method, path, query, &Registry::builtin());
        format!(
            "{} {} ns={} name={} known={}",
            info.verb.as_str(),
            if info.is_resource {
                format!("{}:{}", info.group, info.resource_path())
            } else {
                info.path.clone()
            },
            info.namespace.as_deref().unwrap_or("-"),
            info.name.as_deref().unwrap_or("-"),
            info.resource.is_some(),
        )
    }

    #[test]
    fn request_lines_become_what_upstream_reads() {
        let cases = [
            ("GET /api/v1/pods", "list :pods ns=- name=- known=true"),
            ("GET /api/v1/pods?watch=1", "watch :pods ns=- name=- known=true"),
            ("GET /api/v1/namespaces/a/pods?watch=false", "list :pods ns=a name=- known=true"),
            ("GET /api/v1/namespaces/a", "get :namespaces ns=a name=a known=true"),
            ("PUT /api/v1/namespaces/a/finalize", "update :namespaces/finalize ns=a name=a known=true"),
            ("GET /api/v1/namespaces/a/pods/p/log", "get :pods/log ns=a name=p known=true"),
            (
                "DELETE /apis/apps/v1/namespaces/a/deployments",
                "deletecollection apps:deployments ns=a name=- known=true",
            ),
            (
                "PATCH /apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch apps:deployments/scale ns=a name=d known=true",
            ),
            ("GET /apis/x.io/v1/foos/", "list x.io:foos ns=- name=- known=false"),
            ("GET /api/v1/pods?fieldSelector=metadata.name%3Dp", "list :pods ns=- name=p known=true"),
            ("GET /api/v1", "get /api/v1 ns=- name=- known=false"),
            ("POST /version/", "post /version/ ns=- name=- known=false"),
            (
                "GET /api/v1/namespaces/a%2Fb/pods",
                "get /api/v1/namespaces/a%2Fb/pods ns=- name=- known=false",
            ),
            ("GET /api/v1/nodes/n1/proxy/a%2Fb/../c", "get :nodes/proxy ns=- name=n1 known=true"),
            (
                "GET /api/v1/namespaces/proxy/pods/a%2Fb",
                "get /api/v1/namespaces/proxy/pods/a%2Fb ns=- name=- known=false",
            ),
            ("GET /api/v1/namespaces/../pods", "get /api/v1/namespaces/../pods ns=- name=- known=false"),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), expected, "{line}");
        }
    }
}
