//! What webhooks and policies are asked: may this be done to this object?

use std::borrow::Cow;
use std::sync::Arc;

use api::object;
use api::schema::Schema;
use serde_json::{Value, json};

use crate::error::Outcome;
use crate::registry::resource::Resource;
use crate::verbs::decode::{self, KindName};
use crate::verbs::{Call, present, submit};

/// What is to be done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change.
    Update,
    /// An end.
    Delete,
    /// A stream to it.
    Connect,
}

impl Operation {
    /// As rules and reviews write it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }

    fn options(self) -> Value {
        let kind = match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Delete => "DeleteOptions",
            Self::Connect => return Value::Null,
        };
        json!({"apiVersion": "meta.k8s.io/v1", "kind": kind})
    }
}

/// One question: null stands for an object that isn't there.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) operation: Operation,
    pub(super) object: &'a Value,
    pub(super) old: &'a Value,
    /// As what the object is shown: the call's own resource, or the same one in another version.
    pub(super) seen_as: &'a Arc<Resource>,
}

impl<'a> Question<'a> {
    /// A question about an object as the client sent it.
    pub(super) fn of(call: &'a Call<'a>, operation: Operation, object: &'a Value, old: &'a Value) -> Self {
        Self { call, operation, object, old, seen_as: call.resource }
    }

    /// The object, or what there was.
    pub(super) fn present(&self) -> &'a Value {
        if self.object.is_null() { self.old } else { self.object }
    }

    /// The object's name; that in the path if the question is about something below it.
    pub(super) fn name(&self) -> &'a str {
        match (self.call.name(), object::name(self.present())) {
            ("", given) => given,
            (path, _) => path,
        }
    }

    /// The namespace that the question is about; a namespace is in itself, as upstream has it.
    pub(super) fn namespace(&self) -> &'a str {
        if self.is_about_a_namespace() { self.name() } else { self.call.namespace() }
    }

    /// The object is itself a namespace.
    pub(super) fn is_about_a_namespace(&self) -> bool {
        self.call.resource.group.is_empty() && self.call.resource.kind == "Namespace"
    }

    /// The `request` of a review. What is empty is left out, as upstream does.
    pub(super) fn request(&self, uid: &str) -> Value {
        let (asked, seen) = (self.call.resource, self.seen_as);
        let plural = |of: &Resource| json!({"group": of.group, "version": of.version, "resource": of.plural});
        let kind = self.kind(seen);
        let requested = if Arc::ptr_eq(asked, seen) { kind.clone() } else { self.kind(asked) };
        let mut request = json!({
            "uid": uid,
            "kind": kind,
            "resource": plural(seen),
            "requestKind": requested,
            "requestResource": plural(asked),
            "operation": self.operation.as_str(),
            "userInfo": self.call.identity.to_user_info(),
            "dryRun": submit::is_dry_run(self.call).unwrap_or(false),
        });
        let subresource = self.call.info.subresource.as_deref().unwrap_or_default();
        for (field, text) in [
            ("name", self.name()),
            ("namespace", self.namespace()),
            ("subResource", subresource),
            ("requestSubResource", subresource),
        ] {
            if !text.is_empty() {
                request[field] = json!(text);
            }
        }
        let options = self.operation.options();
        if !options.is_null() {
            request["options"] = options;
        }
        request
    }

    /// The kind of what is sent: below an object that may be another one, such as an Eviction.
    fn kind(&self, resource: &Resource) -> Value {
        let sent = self.present();
        let (version, kind) = (object::api_version(sent), object::kind(sent));
        let is_below = self.call.info.subresource.is_some() && !kind.is_empty() && kind != resource.kind;
        if is_below {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return json!({"group": group, "version": version, "kind": kind});
        }
        json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
    }

    /// The schema of what is sent, in the version in which it is shown.
    pub(super) fn schema(&self) -> Outcome<&'a Schema> {
        let sent = self.present();
        let (group, version) = object::group_version(object::api_version(sent));
        match object::kind(sent) {
            kind if kind == self.seen_as.kind => decode::schema_of(self.seen_as),
            kind => decode::schema(KindName { group, version, kind }),
        }
    }

    /// The same question with the object in another version.
    pub(super) async fn shown_as(&self, resource: Arc<Resource>) -> Outcome<Shown<'a>> {
        if Arc::ptr_eq(&resource, self.call.resource) {
            let (object, old) = (Cow::Borrowed(self.object), Cow::Borrowed(self.old));
            return Ok(Shown { resource, object, old });
        }
        let object = Cow::Owned(in_version(&resource, self.object).await?);
        let old = Cow::Owned(in_version(&resource, self.old).await?);
        Ok(Shown { resource, object, old })
    }
}

/// An object, or null, in the version of another row of the same resource. What is sent below an object, a Scale or an
/// Eviction, has but the version in which it was sent.
pub(super) async fn in_version(resource: &Resource, object: &Value) -> Outcome<Value> {
    if object.is_null() || object::kind(object) != resource.kind {
        return Ok(object.clone());
    }
    let converted = present::in_version(resource, vec![object.clone()]).await?;
    Ok(converted.into_iter().next().unwrap_or_default())
}

/// What a question is about, in the version in which it is shown.
pub(super) struct Shown<'a> {
    resource: Arc<Resource>,
    object: Cow<'a, Value>,
    old: Cow<'a, Value>,
}

impl Shown<'_> {
    /// The question about it.
    pub(super) fn question<'b>(&'b self, asked: Question<'b>) -> Question<'b> {
        Question { object: &self.object, old: &self.old, seen_as: &self.resource, ..asked }
    }
}
