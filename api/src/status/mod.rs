//! `Status`: the one form in which the API reports failure (and some successes).
//!
//! Owns the codes, reasons and message texts of `k8s.io/apimachinery`, which clients compare. A status is
//! a value; which HTTP header goes with it is the server's business.

mod field_error;

use serde_json::{Map, Value, json};

pub use field_error::{FieldError, FieldErrorKind};

/// The machine-readable reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No reason is given (successes, and failures that upstream leaves without one).
    Unknown,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    AlreadyExists,
    /// 409
    Conflict,
    /// 410
    Gone,
    /// 410
    Expired,
    /// 422
    Invalid,
    /// 504
    Timeout,
    /// 500: the request was right, but could not be finished now.
    ServerTimeout,
    /// 429
    TooManyRequests,
    /// 400
    BadRequest,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
}

impl Reason {
    /// The reason as it stands on the wire; empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Expired => "Expired",
            Reason::Invalid => "Invalid",
            Reason::Timeout => "Timeout",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One cause in the details of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable, e.g. `FieldValueInvalid`; may be empty.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Path of the field, e.g. `spec.replicas`; may be empty.
    pub field: String,
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut map = Map::new();
        put_text(&mut map, "reason", &self.reason);
        put_text(&mut map, "message", &self.message);
        put_text(&mut map, "field", &self.field);
        Value::Object(map)
    }
}

/// What the status is about. Empty strings and zero are left out on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// Its API group; empty for the core group.
    pub group: String,
    /// The **resource** (plural) in most errors, the kind in `Invalid`, as upstream has it.
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// Single causes, e.g. one per invalid field.
    pub causes: Vec<Cause>,
    /// Seconds after which a client may try again; 0 is none.
    pub retry_after_seconds: u32,
}

impl Details {
    fn to_json(&self) -> Value {
        let mut map = Map::new();
        put_text(&mut map, "name", &self.name);
        put_text(&mut map, "group", &self.group);
        put_text(&mut map, "kind", &self.kind);
        put_text(&mut map, "uid", &self.uid);
        if !self.causes.is_empty() {
            map.insert("causes".into(), self.causes.iter().map(Cause::to_json).collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        Value::Object(map)
    }
}

fn put_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        map.insert(key.into(), text.into());
    }
}

/// The outcome of a request, in the form that every Kubernetes client understands.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code; 0 in a success whose code the server chooses.
    pub code: u16,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// About what.
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: with `Expired`, a token that resumes the list inconsistently.
    pub continue_token: Option<String>,
    /// Whether this reports a success.
    pub success: bool,
}

impl Status {
    /// The HTTP status code to answer with.
    pub fn code(&self) -> u16 {
        if self.code == 0 { 200 } else { self.code }
    }

    /// The object as it goes over the wire.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("kind".into(), "Status".into());
        map.insert("apiVersion".into(), "v1".into());
        let metadata = match &self.continue_token {
            Some(token) => json!({"continue": token}),
            None => json!({}),
        };
        map.insert("metadata".into(), metadata);
        map.insert("status".into(), if self.success { "Success" } else { "Failure" }.into());
        put_text(&mut map, "message", &self.message);
        put_text(&mut map, "reason", self.reason.as_str());
        if let Some(details) = &self.details {
            map.insert("details".into(), details.to_json());
        }
        if self.code != 0 {
            map.insert("code".into(), self.code.into());
        }
        Value::Object(map)
    }

    /// The same status with another HTTP code.
    pub fn with_code(mut self, code: u16) -> Self {
        self.code = code;
        self
    }

    /// The same status with another message.
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The same status with one more cause.
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The same status with `metadata.continue`.
    pub fn with_continue(mut self, token: impl Into<String>) -> Self {
        self.continue_token = Some(token.into());
        self
    }

    fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None, success: false }
    }

    fn about(mut self, kind: &str, group: &str, name: &str) -> Self {
        let details =
            Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() };
        self.details = Some(Box::new(details));
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }
}

/// `deployments.apps`, or just `pods` in the core group.
pub fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.into() } else { format!("{resource}.{group}") }
}

/// The constructors, one for each answer. `resource` is the plural, `group` is empty for the core group.
impl Status {
    /// A success about an object, as DELETE answers it.
    pub fn success(details: Option<Details>) -> Self {
        Self { success: true, details: details.map(Box::new), ..Self::failure(0, Reason::Unknown, "") }
    }

    /// 404: the object isn't there.
    pub fn not_found(resource: &str, group: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(resource, group));
        Self::failure(404, Reason::NotFound, message).about(resource, group, name)
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &str, group: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(resource, group));
        Self::failure(409, Reason::AlreadyExists, message).about(resource, group, name)
    }

    /// 409: a precondition didn't hold, with its own explanation.
    pub fn conflict(resource: &str, group: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(resource, group));
        Self::failure(409, Reason::Conflict, message).about(resource, group, name)
    }

    /// 409: somebody else wrote the object since the client read it.
    pub fn modified(resource: &str, group: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, group, name, why)
    }

    /// 409: an applied configuration would change what others own; each conflict has its text and path.
    pub fn apply_conflict(message: &str, conflicts: impl Iterator<Item = (String, String)>) -> Self {
        let start = Self::failure(409, Reason::Conflict, message);
        conflicts.fold(start, |status, (text, path)| status.with_cause("FieldManagerConflict", &text, &path))
    }

    /// 422: the object is well-formed, but its content isn't allowed. `kind` is the kind, not the resource.
    pub fn invalid(kind: &str, group: &str, name: &str, errors: Vec<FieldError>) -> Self {
        let list = field_error::join(&errors);
        let mut status = Self::failure(
            422,
            Reason::Invalid,
            format!("{} {name:?} is invalid: {list}", qualified(kind, group)),
        )
        .about(kind, group, name);
        for error in &errors {
            status = status.with_cause(error.kind.reason(), &error.body(), &error.path);
        }
        status
    }

    /// 422 about the request itself (list options, delete options).
    pub fn invalid_options(kind: &str, group: &str, errors: Vec<FieldError>) -> Self {
        Self::invalid(kind, group, "", errors)
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403; `resource` and `name` may be empty.
    pub fn forbidden(resource: &str, group: &str, name: &str, why: &str) -> Self {
        let message = match (resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{} is forbidden: {why}", qualified(resource, group)),
            _ => format!("{} {name:?} is forbidden: {why}", qualified(resource, group)),
        };
        Self::failure(403, Reason::Forbidden, message).about(resource, group, name)
    }

    /// 410: the requested history is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 504: the client asks for a revision that this server hasn't seen.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {requested}, current: {current}");
        Self::timeout(&message, 1).with_cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    /// 405; `action` is the verb.
    pub fn method_not_allowed(resource: &str, group: &str, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind {:?}", qualified(resource, group));
        Self::failure(405, Reason::MethodNotAllowed, message).about(resource, group, "")
    }

    /// 415
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 406
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// 413; `limit` in bytes.
    pub fn request_too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::failure(413, Reason::RequestEntityTooLarge, message)
    }

    /// 429; retry after this many seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    /// 504; retry after this many seconds.
    pub fn timeout(message: &str, retry_after_seconds: u32) -> Self {
        Self::failure(504, Reason::Timeout, format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }

    /// 500
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        let message = format!("Internal error occurred: {why}");
        Self::failure(500, Reason::InternalError, message).with_cause("", &why, "")
    }

    /// 503
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }
}

#[cfg(test)]
mod tests;
