//! NodeRestriction: what a node may write, as far as it can't be seen from a request's path.
//!
//! The node authorizer lets any node make tokens and write pods; here each is held to its own. Upstream's
//! rules and texts.

use api::object;
use api::status::Status;
use serde_json::Value;

use crate::auth::node::node_of;
use crate::error::Outcome;
use crate::verbs::Call;

fn forbidden(call: &Call<'_>, why: &str) -> Status {
    let resource = call.resource;
    Status::forbidden(&resource.plural, &resource.group, call.name(), why)
}

/// A node gets tokens for pods that run on it, for the audiences that they ask for.
pub fn token_request(call: &Call<'_>, request: &Value, bound: Option<&Value>) -> Outcome<()> {
    let Some(node) = node_of(call.identity) else { return Ok(()) };
    let spec = &request["spec"];
    let refuse = |why: String| Err(forbidden(call, &why).into());
    let Some(pod) = bound.filter(|_| spec["boundObjectRef"]["kind"] == "Pod") else {
        return refuse("node requested token not bound to a pod".to_owned());
    };
    if spec["boundObjectRef"]["uid"].as_str().unwrap_or_default().is_empty() {
        return refuse("node requested token with a pod binding without a uid".to_owned());
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    let own = &call.server.authenticator.accounts().policy().audiences;
    let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let unknown = audiences.into_iter().find(|wanted| {
        !own.iter().any(|own| own == wanted) && !projected_audiences(pod).any(|asked| asked == *wanted)
    });
    match unknown {
        None => Ok(()),
        Some(audience) => refuse(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            object::name(pod)
        )),
    }
}

/// The audiences of the tokens that a pod mounts.
fn projected_audiences(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    sources.filter_map(|source| source["serviceAccountToken"]["audience"].as_str())
}
