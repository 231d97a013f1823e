//! `create`: a new object, or 409 if there is one of the name.

use std::sync::Arc;

use api::status::Status;
use jiff::Timestamp;
use serde_json::Value;
use store::kv::Revision;

use crate::error::Outcome;
use crate::storage::object::{Stored, UNWRITTEN};
use crate::storage::{Commit, Write};
use crate::verbs::decode::{self, Draft};
use crate::verbs::submit::{self, Written};
use crate::verbs::view::View;
use crate::verbs::{Answer, Call, metadata};

/// How often another name is drawn when a generated one is taken (upstream: 8).
const NAME_TRIES: usize = 8;
/// How often the object is admitted anew because its namespace, a quota or an address changed meanwhile.
const GUARD_TRIES: usize = 32;

/// Answers with the new object.
pub async fn create(call: Call<'_>, body: &[u8]) -> Answer {
    let view = View::of(&call)?;
    let home = call.home();
    let draft = decode::object(&call, body)?;
    let draft = if Arc::ptr_eq(&home, call.resource) { draft } else { draft.at_home(&home) };
    insert(&Call { resource: &home, ..call }, draft).await?.respond(&call, &view).await
}

/// Writes a new object.
pub async fn insert(call: &Call<'_>, draft: Draft) -> Outcome<Written> {
    let object = draft.warned(call);
    let generated = api::object::name(&object).is_empty();
    let (mut names, mut guards) = (0, 0);
    loop {
        let mut object = object.clone();
        metadata::begin(call, &mut object, Timestamp::now())?;
        match attempt(call, object).await? {
            Attempt::Written(stored) => return Ok(Written { stored: *stored, created: true }),
            Attempt::NameTaken(_) if generated && names < NAME_TRIES => names += 1,
            Attempt::NameTaken(name) => {
                let resource = call.resource;
                return Err(Status::already_exists(&resource.plural, &resource.group, &name).into());
            }
            Attempt::GuardBroken if guards < GUARD_TRIES => {
                guards += 1;
                // Admission looked at a cache that was behind; without this it would look at it again.
                call.storage().refresh().await?;
            }
            Attempt::GuardBroken => {
                let why = "what the object depends on keeps changing";
                return Err(Status::too_many_requests(why, 1).into());
            }
        }
    }
}

enum Attempt {
    Written(Box<Stored>),
    NameTaken(String),
    GuardBroken,
}

async fn attempt(call: &Call<'_>, mut object: Value) -> Outcome<Attempt> {
    let admitted = submit::complete_new(call, &mut object).await?;
    let bytes = submit::encoded(call, &object).await?;
    let key = submit::key_of(call, &object);
    if submit::is_dry_run(call)? {
        return Ok(match call.storage().read(&key).await? {
            Some(_) => Attempt::NameTaken(api::object::name(&object).to_owned()),
            None => Attempt::Written(Box::new(submit::stored(call, &object, bytes, UNWRITTEN))),
        });
    }
    let write = Write {
        key,
        expected: Revision(0),
        value: Some(bytes.clone()),
        guards: admitted.guards,
        also: admitted.also,
        expires: call.resource.strategy.traits().expires,
        origin: call.origin(),
    };
    Ok(match call.commit(write).await? {
        Commit::Done(revision) => Attempt::Written(Box::new(submit::stored(call, &object, bytes, revision))),
        Commit::Lost(Some(_)) => Attempt::NameTaken(api::object::name(&object).to_owned()),
        Commit::Lost(None) => Attempt::GuardBroken,
    })
}
