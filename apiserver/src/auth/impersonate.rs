//! Impersonation: whoever has the verb `impersonate` on a user may be judged as that user.
//!
//! The headers `Impersonate-User`, `-Group`, `-Uid` and `-Extra-KEY` say as whom. The caller needs the verb on
//! each thing they name; then the request counts as the other's in every respect. Headers that can't be
//! honoured are refused: a request that asks to be less than its caller must never pass as the caller's.

use std::collections::BTreeMap;

use api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::accounts::{ACCOUNTS_GROUP, account_of};
use super::{ANONYMOUS, Attributes, Authorizer, Identity, UNAUTHENTICATED_GROUP};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// Where uids and extra attributes are resources.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// As whom a request is judged: as somebody else if its headers ask for it and `caller` may, else as `caller`.
///
/// # Errors
/// 403 without the right to be somebody that the headers name, 400 if they name no user.
pub fn act_as(headers: &HeaderMap, caller: Identity, authorizer: &Authorizer) -> Result<Identity, Status> {
    let Some(other) = named(headers)? else { return Ok(caller) };
    for act in acts(&other) {
        let decision = authorizer.authorize(&caller, &act);
        if !decision.allowed {
            let refusal = act.refusal(&caller.user, &decision.reason);
            return Err(Status::forbidden(&act.resource_path(), act.group, act.name, &refusal));
        }
    }
    Ok(with_implied_groups(other))
}

/// Whom the headers name.
fn named(headers: &HeaderMap) -> Result<Option<Identity>, Status> {
    let other = Identity {
        user: values(headers, USER)?.into_iter().next().unwrap_or_default(),
        uid: values(headers, UID)?.into_iter().next(),
        groups: values(headers, GROUP)?,
        extra: extra(headers)?,
    };
    if !other.user.is_empty() {
        return Ok(Some(other));
    }
    match other == Identity::default() {
        true => Ok(None),
        false => Err(Status::bad_request(
            "requested groups, a uid or extra attributes without impersonating a user: set Impersonate-User",
        )),
    }
}

fn values(headers: &HeaderMap, name: &str) -> Result<Vec<String>, Status> {
    let texts = headers.get_all(name).into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

fn text(value: &HeaderValue) -> Result<String, Status> {
    let text = value.to_str().map(str::to_owned);
    text.map_err(|_| Status::bad_request("an Impersonate header is not plain text"))
}

fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let mut extra = BTreeMap::new();
    for name in headers.keys().map(HeaderName::as_str) {
        if let Some(key) = name.strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.insert(key, values(headers, name)?);
        }
    }
    Ok(extra)
}

/// What the caller must be allowed: the verb `impersonate` on each part of the other.
fn acts(other: &Identity) -> Vec<Attributes<'_>> {
    let act = |group, resource, name| Attributes {
        verb: "impersonate",
        group,
        version: "v1",
        resource,
        name,
        is_resource: true,
        ..Attributes::default()
    };
    let user = match account_of(&other.user) {
        Some((namespace, name)) => Attributes { namespace, ..act("", "serviceaccounts", name) },
        None => act("", "users", &other.user),
    };
    let groups = other.groups.iter().map(|group| act("", "groups", group));
    let uid = other.uid.iter().map(|uid| act(AUTHENTICATION, "uids", uid));
    let extra = other.extra.iter().flat_map(|(key, values)| {
        values
            .iter()
            .map(move |value| Attributes { subresource: key, ..act(AUTHENTICATION, "userextras", value) })
    });
    [user].into_iter().chain(groups).chain(uid).chain(extra).collect()
}

/// The groups that authentication itself would have given; nobody needs a right to them.
fn with_implied_groups(mut other: Identity) -> Identity {
    if other.groups.is_empty()
        && let Some((namespace, _)) = account_of(&other.user)
    {
        other.groups = vec![ACCOUNTS_GROUP.to_owned(), format!("{ACCOUNTS_GROUP}:{namespace}")];
    }
    match other.user == ANONYMOUS {
        true if other.is_in(UNAUTHENTICATED_GROUP) => other,
        true => {
            other.groups.push(UNAUTHENTICATED_GROUP.to_owned());
            other
        }
        false => other.authenticated(),
    }
}
