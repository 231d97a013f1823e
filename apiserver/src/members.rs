//! `/members`: who keeps the objects, and how one more is let in. Ours, beyond upstream, where kubeadm speaks to etcd.
//!
//! `GET` shows the members, `POST` with `{"peerAddress": "HOST:PORT"}` adds one as a learner, which costs nobody a write
//! if it never starts; asked again for the same learner, it says the same. Who may is RBAC's, by the path.

use std::fmt;

use api::status::Status;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use store::kv::Kv as _;
use store::{MemberError, MemberInfo, Store};

use crate::error::{Failure, Outcome};
use crate::request::{RequestInfo, Verb};
use crate::response;
use crate::verbs::Answer;

/// Where they are.
pub const PATH: &str = "/members";

/// The group of members whose store this server is on.
#[derive(Clone)]
pub struct Group(pub Store);

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.0.status().member).finish()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wish {
    peer_address: String,
}

/// Answers a request for [`PATH`].
///
/// # Errors
/// 400 for a wish that isn't one, 404 without a store of our own, 409 where the cluster refuses.
pub async fn serve(group: Option<&Group>, info: &RequestInfo, body: &[u8]) -> Answer {
    let Some(Group(store)) = group else {
        let why = "the objects of this cluster are kept by others, who have members of their own";
        return Err(Status::not_found("members", "", "").with_message(why).into());
    };
    match info.verb {
        Verb::Get => Ok(response::json(StatusCode::OK, &json!({"members": all(store)}))),
        Verb::Post => {
            let added = add(store, &wish(body)?).await?;
            let answer = json!({"member": shown(&added), "members": all(store)});
            Ok(response::json(StatusCode::CREATED, &answer))
        }
        other => Err(Status::method_not_allowed("members", "", other.as_str()).into()),
    }
}

fn wish(body: &[u8]) -> Outcome<String> {
    let wrong = |why: String| {
        Status::bad_request(format!("the body is not of the form {{\"peerAddress\": \"HOST:PORT\"}}: {why}"))
    };
    let wish: Wish = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    Ok(wish.peer_address)
}

/// A learner with this address is the one that is asked for: whoever was told of it may not have heard.
async fn add(store: &Store, address: &str) -> Outcome<MemberInfo> {
    let known = store.members().into_iter().find(|member| member.peer_address == address && member.learner);
    if let Some(known) = known {
        return Ok(known);
    }
    store.member_add(address, true).await.map_err(|error| match error {
        MemberError::Store(error) => Failure::from(error),
        MemberError::Refused(why) => Status::conflict("members", "", address, &why.to_string()).into(),
    })
}

fn all(store: &Store) -> Vec<Value> {
    store.members().iter().map(shown).collect()
}

fn shown(member: &MemberInfo) -> Value {
    json!({
        "id": member.id.to_string(),
        "name": member.name,
        "peerAddress": member.peer_address,
        "learner": member.learner,
    })
}
