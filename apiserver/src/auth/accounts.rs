//! Service-account tokens: what ours say, and whose they are.
//!
//! A token names its service account, and maybe the pod, secret or node that it is bound to, each with its
//! uid. It is good as long as all of them are there. This file judges values; who looks the objects up is
//! [`super::account_tokens`].

use std::collections::BTreeMap;

use api::object;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Identity;

/// How the user names of service accounts begin: `system:serviceaccount:NAMESPACE:NAME`.
pub const USER_PREFIX: &str = "system:serviceaccount:";
/// The group of all service accounts.
pub const ACCOUNTS_GROUP: &str = "system:serviceaccounts";
/// How far clocks may differ, and how long a token outlives the wish to delete what it is bound to, in
/// seconds (upstream's leeway).
const LEEWAY_SECONDS: i64 = 60;

/// An object that a token names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid; may be unknown of a node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a token says of the cluster: the claim `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Namespace of the account, and of what the token is bound to.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Reference,
    /// Bound to this pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// Bound to this secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// Bound to this node, or where the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is meant.
    #[serde(with = "audiences")]
    pub aud: Vec<String>,
    /// When it ends, in seconds since 1970; tokens in secrets don't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// From when on it is good.
    pub nbf: i64,
    /// Whose it is.
    pub sub: String,
    /// The rest.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Binding,
}

/// RFC 7519 allows one audience as a plain text.
mod audiences {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(audiences: &[String], to: S) -> Result<S::Ok, S::Error> {
        audiences.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(audience) => vec![audience],
            OneOrMany::Many(audiences) => audiences,
        })
    }
}

/// The kinds that a token may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Without it there is nobody to be.
    ServiceAccount,
    /// Bound to a pod.
    Pod,
    /// Bound to a secret.
    Secret,
    /// Bound to a node.
    Node,
}

impl Named {
    /// The resource's plural name.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceaccounts",
            Self::Pod => "pods",
            Self::Secret => "secrets",
            Self::Node => "nodes",
        }
    }
}

impl Claims {
    /// Whether the token is for one of `audiences` now.
    ///
    /// # Errors
    /// Why not, in upstream's words.
    pub fn check(&self, audiences: &[String], now: Timestamp) -> Result<(), String> {
        let now = now.as_second();
        if !self.aud.iter().any(|own| audiences.contains(own)) {
            return Err(format!(
                "token audiences {:?} is invalid for the target audiences {audiences:?}",
                self.aud
            ));
        }
        if self.exp.is_some_and(|end| now - LEEWAY_SECONDS > end) {
            return Err("service account token has expired".to_owned());
        }
        if now + LEEWAY_SECONDS < self.nbf {
            return Err("service account token is not valid yet".to_owned());
        }
        let binding = &self.kubernetes;
        match self.sub == user_name(&binding.namespace, &binding.serviceaccount.name) {
            true => Ok(()),
            false => Err("service account token claims could not be validated".to_owned()),
        }
    }

    /// The objects that must be there. A node that only tells where a pod runs need not.
    pub fn references(&self) -> Vec<(Named, &Reference)> {
        let binding = &self.kubernetes;
        let node = binding.node.as_ref().filter(|_| binding.pod.is_none());
        [
            Some((Named::ServiceAccount, &binding.serviceaccount)),
            binding.secret.as_ref().map(|secret| (Named::Secret, secret)),
            binding.pod.as_ref().map(|pod| (Named::Pod, pod)),
            node.map(|node| (Named::Node, node)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whose token it is, once its objects are known to be there.
    pub fn identity(&self) -> Identity {
        let binding = &self.kubernetes;
        let mut extra = BTreeMap::new();
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if !self.jti.is_empty() {
            add("credential-id", &format!("JTI={}", self.jti));
        }
        for (kind, reference) in [("pod", &binding.pod), ("node", &binding.node)] {
            let Some(reference) = reference else { continue };
            add(&format!("{kind}-name"), &reference.name);
            add(&format!("{kind}-uid"), &reference.uid);
        }
        Identity {
            user: self.sub.clone(),
            uid: Some(binding.serviceaccount.uid.clone()),
            groups: vec![ACCOUNTS_GROUP.to_owned(), format!("{ACCOUNTS_GROUP}:{}", binding.namespace)],
            extra,
        }
    }
}

/// Whether an object that a token names, as it is now, is still the one that was meant.
///
/// # Errors
/// Why the token is no longer good.
pub fn stands(named: Named, meant: &Reference, found: Option<&Value>, now: Timestamp) -> Result<(), String> {
    let Some(found) = found else { return Err(gone(named, meant)) };
    let deleted_before = now.as_second() - LEEWAY_SECONDS;
    if object::deletion_timestamp(found).is_some_and(|at| at.as_second() < deleted_before) {
        return Err(gone(named, meant));
    }
    match object::uid(found) == meant.uid {
        true => Ok(()),
        false if named == Named::ServiceAccount => {
            Err(format!("service account UID ({}) does not match claim ({})", object::uid(found), meant.uid))
        }
        false => Err(format!(
            "{named:?} UID ({}) does not match service account {named:?} ref claim ({})",
            object::uid(found),
            meant.uid
        )),
    }
}

fn gone(named: Named, meant: &Reference) -> String {
    match named {
        Named::ServiceAccount => format!("serviceaccounts {:?} not found", meant.name),
        _ => "service account token has been invalidated".to_owned(),
    }
}

/// The user name of a service account.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

/// Namespace and name of the service account that has this user name.
pub fn account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    let whole = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    whole.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Claims {
        Claims {
            aud: vec!["api".to_owned()],
            exp: Some(2000),
            iat: 1000,
            iss: "us".to_owned(),
            jti: "7".to_owned(),
            nbf: 1000,
            sub: user_name("shop", "robot"),
            kubernetes: Binding {
                namespace: "shop".to_owned(),
                serviceaccount: Reference { name: "robot".to_owned(), uid: "u1".to_owned() },
                pod: Some(Reference { name: "web".to_owned(), uid: "u2".to_owned() }),
                node: Some(Reference { name: "n1".to_owned(), uid: String::new() }),
                ..Binding::default()
            },
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_token_is_good_for_its_audience_and_its_time() {
        let check = |audience: &str, now: i64| claims().check(&[audience.to_owned()], at(now)).err();
        assert_eq!(check("api", 1500), None);
        assert_eq!(check("api", 2060), None, "clocks may differ");
        assert_eq!(check("api", 940), None, "clocks may differ");
        assert_eq!(check("api", 2061).as_deref(), Some("service account token has expired"));
        assert_eq!(check("api", 939).as_deref(), Some("service account token is not valid yet"));
        assert_eq!(
            check("db", 1500).as_deref(),
            Some(r#"token audiences ["api"] is invalid for the target audiences ["db"]"#)
        );
        let mut other = claims();
        other.sub = user_name("shop", "admin");
        assert!(other.check(&["api".to_owned()], at(1500)).is_err(), "the subject is the account");
    }

    #[test]
    fn who_shows_it_is_the_account_and_says_from_where() {
        let identity = claims().identity();
        assert_eq!(
            serde_json::to_value(claims()).expect("JSON")["kubernetes.io"]["node"],
            json!({"name": "n1"})
        );
        assert_eq!(
            identity.to_user_info(),
            json!({
                "username": "system:serviceaccount:shop:robot",
                "uid": "u1",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:shop"],
                "extra": {
                    "authentication.kubernetes.io/credential-id": ["JTI=7"],
                    "authentication.kubernetes.io/pod-name": ["web"],
                    "authentication.kubernetes.io/pod-uid": ["u2"],
                    "authentication.kubernetes.io/node-name": ["n1"],
                },
            })
        );
    }

    #[test]
    fn it_ends_with_what_it_is_bound_to() {
        let meant = Reference { name: "web".to_owned(), uid: "u2".to_owned() };
        let pod = |uid: &str, deleted: Option<&str>| json!({"metadata": {"uid": uid, "deletionTimestamp": deleted}});
        let judge = |found: Option<Value>| stands(Named::Pod, &meant, found.as_ref(), at(1000)).is_ok();
        assert!(judge(Some(pod("u2", None))));
        assert!(!judge(None));
        assert!(!judge(Some(pod("u3", None))), "another of the same name");
        assert!(judge(Some(pod("u2", Some("1970-01-01T00:16:00Z")))), "it is still ending");
        assert!(!judge(Some(pod("u2", Some("1970-01-01T00:15:00Z")))));
        let named: Vec<Named> = claims().references().into_iter().map(|(named, _)| named).collect();
        assert_eq!(named, [Named::ServiceAccount, Named::Pod], "its node need not be there");
    }

    #[test]
    fn one_audience_may_stand_alone() {
        let mut value = serde_json::to_value(claims()).expect("JSON");
        value["aud"] = json!("api");
        assert_eq!(serde_json::from_value::<Claims>(value).expect("claims"), claims());
    }

    #[test]
    fn user_names_are_taken_apart() {
        assert_eq!(account_of("system:serviceaccount:shop:robot"), Some(("shop", "robot")));
        for other in [
            "jane",
            "system:serviceaccount:shop",
            "system:serviceaccount::robot",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(account_of(other), None, "{other}");
        }
    }
}
