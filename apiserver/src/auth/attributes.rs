//! What authorization judges: who wants to do what to which resource or path.

use crate::request::RequestInfo;

/// One act, as rules see it. Borrowed from a request or from an access review.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// The verb, e.g. `get`; any text in an access review.
    pub verb: &'a str,
    /// API group; empty for core.
    pub group: &'a str,
    /// API version; rules don't look at it.
    pub version: &'a str,
    /// Plural name of the resource.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty for cluster-wide acts.
    pub namespace: &'a str,
    /// Name of the object, or empty.
    pub name: &'a str,
    /// The path, if the act is not on a resource.
    pub path: &'a str,
    /// Whether the act is on a resource.
    pub is_resource: bool,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of(info: &'a RequestInfo) -> Self {
        Self {
            verb: info.verb.as_str(),
            group: &info.group,
            version: &info.version,
            resource: &info.plural,
            subresource: info.subresource.as_deref().unwrap_or_default(),
            namespace: info.namespace.as_deref().unwrap_or_default(),
            name: info.name.as_deref().unwrap_or_default(),
            path: &info.path,
            is_resource: info.is_resource,
        }
    }

    /// `pods` or `pods/log`.
    pub fn resource_path(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// The sentence of a refusal, upstream's words:
    /// `User "jane" cannot get resource "pods" in API group "" in the namespace "default"`.
    pub fn refusal(&self, user: &str, reason: &str) -> String {
        let mut text = if self.is_resource {
            let (verb, resource, group) = (self.verb, self.resource_path(), self.group);
            let scope = match self.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            format!("User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}")
        } else {
            format!("User \"{user}\" cannot {} path \"{}\"", self.verb, self.path)
        };
        if !reason.is_empty() {
            text.push_str(": ");
            text.push_str(reason);
        }
        text
    }
}
