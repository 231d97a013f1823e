//! Tokens in Secrets that nobody has used for a year: first they are marked, and the API server accepts them no
//! longer; after another year they are deleted. Upstream's `legacy_serviceaccount_token_cleaner.go` gives the rules,
//! the labels, and what is left alone: tokens that people made, which no service account lists.
//!
//! What always holds: nothing is marked before its use has been watched for a whole year, nor while a pod names it.

use crate::{
    plan::{Part, Plan, Target},
    token_secrets,
};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// The ConfigMap in `kube-system` in which API servers say since when they note what is used.
pub const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Upstream's `--legacy-service-account-token-clean-up-period`.
const PATIENCE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Who waits for pods looks again after this; upstream looks at everything as often.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Fields of a pod whose `name` is that of a Secret.
const REFERENCES: [&str; 4] = ["secretRef", "secretKeyRef", "nodePublishSecretRef", "secret"];

/// What a reconcile sees beside its object.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The account of the name that the Secret says.
    pub account: Option<Arc<ServiceAccount>>,
    /// The ConfigMap [`TRACKING`].
    pub tracking: Option<Arc<ConfigMap>>,
}

/// What to do for `secret` now, as far as no pod uses it: see [`unless_used`].
pub fn reconcile(secret: &Secret, view: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(unused_from) = unused_from(secret, view) else { return plan };
    if unused_from > now {
        plan.look_again(unused_from);
        return plan;
    }
    match day_of(secret, INVALID_SINCE).flatten().and_then(year_after) {
        None => {
            let today = now.to_zoned(TimeZone::UTC).date();
            let labels = json!({"metadata": {"labels": {INVALID_SINCE: today.to_string()}}});
            plan.patch(Target::of(secret), Part::Whole, labels, "its token hasn't been used for a year");
        }
        Some(end) if end > now => plan.look_again(end),
        Some(_) => plan.delete(Target::of(secret), "nobody has missed its token for a year"),
    }
    plan
}

/// `plan`, but nothing for now if one of the namespace's `pods` names the Secret.
pub fn unless_used<'a>(
    plan: Plan,
    secret: &str,
    pods: impl IntoIterator<Item = &'a Value>,
    now: Timestamp,
) -> Plan {
    if !pods.into_iter().any(|pod| names_secret(&pod["spec"], secret)) {
        return plan;
    }
    Plan { actions: Vec::new(), again: Some(now + DAY) }
}

/// From when on the token counts as unused; none if that can't be said, or it is none of ours.
fn unused_from(secret: &Secret, view: &Snapshot) -> Option<Timestamp> {
    let account = view.account.as_ref().filter(|account| is_listed(secret, account));
    if account.is_none() || secret.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let tracked = view.tracking.as_ref()?.data.as_ref()?.get("since")?;
    let watched_long_enough = year_after(parse(tracked)?)?;
    let old_enough = secret.metadata.creation_timestamp.as_ref()?.0 + PATIENCE;
    let last_used = match day_of(secret, LAST_USED) {
        Some(day) => year_after(day?)?,
        None => Timestamp::MIN,
    };
    Some(watched_long_enough.max(old_enough).max(last_used))
}

/// True if the Secret is one of those that were made for the account, not by somebody for a purpose.
fn is_listed(secret: &Secret, account: &ServiceAccount) -> bool {
    let name = secret.metadata.name.as_deref();
    token_secrets::is_of(secret, account)
        && account.secrets.iter().flatten().any(|listed| listed.name.as_deref() == name)
}

/// The day that a label says; none within if it says something else.
fn day_of(secret: &Secret, label: &str) -> Option<Option<Date>> {
    secret.labels().get(label).map(|text| parse(text))
}

fn parse(text: &str) -> Option<Date> {
    Date::strptime("%Y-%m-%d", text).ok()
}

/// When a year has passed since the end of that day.
fn year_after(day: Date) -> Option<Timestamp> {
    let end = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    end.checked_add(PATIENCE).ok()
}

/// True if a part of a pod's spec names the Secret: volumes, environment, pull secrets.
fn names_secret(part: &Value, secret: &str) -> bool {
    match part {
        Value::Array(parts) => parts.iter().any(|part| names_secret(part, secret)),
        Value::Object(fields) => fields.iter().any(|(field, part)| {
            let pulls = || part.as_array().is_some_and(|list| list.iter().any(|one| one["name"] == secret));
            (field == "secretName" && part == secret)
                || (REFERENCES.contains(&field.as_str()) && part["name"] == secret)
                || (field == "imagePullSecrets" && pulls())
                || names_secret(part, secret)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::names_secret;
    use serde_json::json;

    #[test]
    fn a_pod_names_secrets_in_many_places() {
        let env =
            json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]});
        let from = json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]});
        let volume = json!({"volumes": [{"name": "x", "secret": {"secretName": "s"}}]});
        let projected = json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "s"}}]}}]});
        let pulls = json!({"imagePullSecrets": [{"name": "s"}]});
        for spec in [env, from, volume, projected, pulls] {
            assert!(names_secret(&spec, "s") && !names_secret(&spec, "t"), "{spec}");
        }
        assert!(!names_secret(&json!({"volumes": [{"name": "s", "emptyDir": {}}]}), "s"));
    }
}
