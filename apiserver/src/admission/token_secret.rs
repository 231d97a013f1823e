//! Tokens that lie in Secrets of type `kubernetes.io/service-account-token`: upstream's older form.
//!
//! Upstream's token controller fills them some time after they are made; here they are full from the start. Such
//! a token never expires; it ends with its Secret or its account.

use api::object;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::accounts::{Binding, Claims, Reference, user_name};
use crate::error::Outcome;
use crate::storage::{decode, key};
use crate::verbs::Call;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Fills a new Secret of the type, if its account is there. One that names another account of the name by uid
/// stays as it is.
pub async fn fill(call: &Call<'_>, secret: &mut Value) -> Outcome<()> {
    let Some(name) = object::annotation(secret, ACCOUNT).filter(|_| secret["type"] == TYPE) else {
        return Ok(());
    };
    let found = call.storage().read(&key::of_core("serviceaccounts", call.namespace(), name)).await?;
    let Some(account) = found.map(|stored| decode(&stored)).transpose()? else { return Ok(()) };
    let uid = object::uid(&account).to_owned();
    if object::annotation(secret, ACCOUNT_UID).is_some_and(|given| given != uid) {
        return Ok(());
    }
    let token = call.server.authenticator.accounts().sign(&claims(call, secret, &account));
    object::set_annotation(secret, ACCOUNT_UID, &uid);
    let data = object::map_at(secret, "data");
    for (field, text) in [
        ("token", token.as_str()),
        ("ca.crt", call.server.config.pki.ca_pem()),
        ("namespace", call.namespace()),
    ] {
        data.entry(field).or_insert_with(|| json!(STANDARD.encode(text)));
    }
    Ok(())
}

fn claims(call: &Call<'_>, secret: &Value, account: &Value) -> Claims {
    let reference = |object: &Value| Reference {
        name: object::name(object).to_owned(),
        uid: object::uid(object).to_owned(),
    };
    let policy = call.server.authenticator.accounts().policy();
    let now = Timestamp::now().as_second();
    Claims {
        aud: policy.audiences.clone(),
        exp: None,
        iat: now,
        iss: policy.issuers.first().cloned().unwrap_or_default(),
        jti: uuid::Uuid::new_v4().to_string(),
        nbf: now,
        sub: user_name(call.namespace(), object::name(account)),
        kubernetes: Binding {
            namespace: call.namespace().to_owned(),
            serviceaccount: reference(account),
            secret: Some(reference(secret)),
            ..Binding::default()
        },
    }
}
