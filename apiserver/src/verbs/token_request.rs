//! `serviceaccounts/token`: makes a token of a service account, bound to an object if the caller says so.

use api::object;
use api::status::{FieldError, Status};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::admission;
use crate::auth::accounts::{Binding, Claims, Reference, user_name};
use crate::error::Outcome;
use crate::response;
use crate::storage::{decode as decode_stored, key};
use crate::verbs::decode::{self, KindName};
use crate::verbs::{Answer, Call, get, submit};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;

/// Answers with the request, its status filled in.
pub async fn create(call: Call<'_>, body: &[u8]) -> Answer {
    let kind = KindName { group: GROUP, version: "v1", kind: KIND };
    let mut request = decode::object_of(&call, kind, body)?.warned(&call);
    let account = decode_stored(&get::read(&call).await?)?;
    let now = Timestamp::now();
    complete(&call, &mut request, now)?;
    let mut binding = Binding {
        namespace: call.namespace().to_owned(),
        serviceaccount: reference_to(&account),
        ..Binding::default()
    };
    let bound = bind(&call, &request["spec"]["boundObjectRef"], &mut binding).await?;
    admission::token_request(&call, &request, bound.as_ref())?;
    admission::create_below(&call, &mut request).await?;
    let claims = claims(&call, &request, binding, now);
    let token = match submit::is_dry_run(&call)? {
        true => String::new(),
        false => call.server.authenticator.accounts().sign(&claims),
    };
    let end = Timestamp::from_second(claims.exp.unwrap_or_default()).unwrap_or(now);
    request["status"] = json!({ "token": token, "expirationTimestamp": api::time::rfc3339(end) });
    Ok(response::json(StatusCode::CREATED, &request))
}

/// Fills in what the caller left open, and refuses what can't be granted.
fn complete(call: &Call<'_>, request: &mut Value, now: Timestamp) -> Result<(), Status> {
    for (field, own) in [("name", call.name()), ("namespace", call.namespace())] {
        let given = request["metadata"][field].as_str().unwrap_or_default();
        if !given.is_empty() && given != own {
            let why = format!("must match the service account {field} if specified");
            let error = FieldError::invalid(format!("metadata.{field}"), given, why);
            return Err(Status::invalid(KIND, GROUP, call.name(), vec![error]));
        }
    }
    object::set_name(request, call.name());
    object::set_namespace(request, call.namespace());
    object::set_creation_timestamp(request, now);
    let spec = object::map_at(request, "spec");
    if spec.get("audiences").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let policy = call.server.authenticator.accounts().policy();
        spec.insert("audiences".to_owned(), json!(policy.audiences));
    }
    let seconds = spec.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    spec.insert("expirationSeconds".to_owned(), json!(seconds));
    spec.entry("boundObjectRef").or_insert(Value::Null);
    let why = match seconds {
        ..SHORTEST_SECONDS => "may not specify a duration less than 10 minutes",
        SHORTEST_SECONDS..=LONGEST_SECONDS => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
    Err(Status::invalid(KIND, GROUP, "", vec![error]))
}

/// Notes in `binding` what the token is bound to, and gives the object.
async fn bind(call: &Call<'_>, wanted: &Value, binding: &mut Binding) -> Outcome<Option<Value>> {
    if wanted.is_null() {
        return Ok(None);
    }
    let text = |field: &str| wanted[field].as_str().unwrap_or_default();
    let (group, version) = object::group_version(text("apiVersion"));
    let name = text("name");
    let found = match (group, text("kind")) {
        ("", "Pod") => bind_pod(call, name, binding).await?,
        ("", "Secret") => {
            let secret = read(call, "secrets", call.namespace(), name).await?;
            binding.secret = Some(reference_to(&secret));
            secret
        }
        ("", "Node") => {
            let node = read(call, "nodes", "", name).await?;
            binding.node = Some(reference_to(&node));
            node
        }
        (group, kind) => {
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(why).into());
        }
    };
    let uid = text("uid");
    if !uid.is_empty() && uid != object::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(Status::conflict(text("kind"), group, name, &why).into());
    }
    Ok(Some(found))
}

async fn bind_pod(call: &Call<'_>, name: &str, binding: &mut Binding) -> Outcome<Value> {
    let pod = read(call, "pods", call.namespace(), name).await?;
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if account != call.name() {
        let own = call.name();
        let why = format!(
            "cannot bind token for serviceaccount {own:?} to pod running with serviceaccount {account:?}"
        );
        return Err(Status::bad_request(why).into());
    }
    binding.pod = Some(reference_to(&pod));
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        // A node that is gone is still named: where the pod ran is worth knowing.
        let found = call.storage().read(&key::of_core("nodes", "", node)).await?;
        let known = found.map(|stored| decode_stored(&stored)).transpose()?;
        let unknown = || Reference { name: node.to_owned(), uid: String::new() };
        binding.node = Some(known.as_ref().map_or_else(unknown, reference_to));
    }
    Ok(pod)
}

async fn read(call: &Call<'_>, plural: &str, namespace: &str, name: &str) -> Outcome<Value> {
    let stored = call.storage().read(&key::of_core(plural, namespace, name)).await?;
    decode_stored(&stored.ok_or_else(|| Status::not_found(plural, "", name))?)
}

fn reference_to(object: &Value) -> Reference {
    Reference { name: object::name(object).to_owned(), uid: object::uid(object).to_owned() }
}

fn claims(call: &Call<'_>, request: &Value, binding: Binding, now: Timestamp) -> Claims {
    let spec = &request["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    let end = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    let policy = call.server.authenticator.accounts().policy();
    Claims {
        aud: spec["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        exp: Some(end.as_second()),
        iat: now.as_second(),
        iss: policy.issuers.first().cloned().unwrap_or_default(),
        jti: uuid::Uuid::new_v4().to_string(),
        nbf: now.as_second(),
        sub: user_name(&binding.namespace, &binding.serviceaccount.name),
        kubernetes: binding,
    }
}
