//! How many pods a Deployment may have, and how a new size is shared among its ReplicaSets.

use super::{Rollout, Sized, revision};
use k8s_openapi::{api::apps::v1::DeploymentSpec, apimachinery::pkg::util::intstr::IntOrString};
use std::cmp::Reverse;

/// The figures of a strategy, resolved for the current size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Wanted pods.
    pub replicas: i32,
    /// Pods beyond `replicas` during a rolling update.
    pub surge: i32,
    /// Pods that may be missing during a rolling update.
    pub unavailable: i32,
    /// All old pods end before new ones start.
    pub recreate: bool,
}

impl Limits {
    /// Upstream's rounding: surge up, unavailable down; both zero would never progress, so one may be missing.
    pub fn of(spec: &DeploymentSpec) -> Limits {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("Recreate") {
            return Limits { replicas, surge: 0, unavailable: 0, recreate: true };
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let surge = scaled(rolling.max_surge.as_ref(), replicas, true);
        let mut unavailable = scaled(rolling.max_unavailable.as_ref(), replicas, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Limits { replicas, surge, unavailable: unavailable.min(replicas), recreate: false }
    }

    /// Pods that there may be at once.
    pub fn most(&self) -> i32 {
        self.replicas + self.surge
    }

    /// Pods that must be available.
    pub fn least(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// A count or a percentage of `total`; the API server has checked its form and given the default.
fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return *count,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse::<i64>().unwrap_or(0),
        None => 25,
    };
    let hundredths = i64::from(total) * percent;
    let rounded = if up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

impl Rollout<'_> {
    /// Shares a new size: one active ReplicaSet takes it all; several, in the middle of a rollout, keep
    /// their shares of it, and the biggest takes what rounding leaves.
    pub(super) fn scale_proportionally(&mut self) {
        let replicas = self.limits.replicas;
        if let Some(only) = self.active_or_latest() {
            only.size = replicas;
            only.noted = true;
            return;
        }
        if self.new_is_saturated() {
            self.old.iter_mut().for_each(|set| set.size = 0);
            return;
        }
        if !self.limits.recreate {
            self.share();
        }
    }

    /// The one active ReplicaSet, or without any the newest; none if several are active.
    fn active_or_latest(&mut self) -> Option<&mut Sized> {
        match self.sets().filter(|set| set.size > 0).count() {
            0 if self.new.is_some() => self.new.as_mut(),
            0 => self.old.last_mut(),
            1 => self.sets_mut().find(|set| set.size > 0),
            _ => None,
        }
    }

    fn new_is_saturated(&self) -> bool {
        let replicas = self.limits.replicas;
        self.new.as_ref().is_some_and(|new| {
            revision::desired_replicas(&new.set) == Some(replicas)
                && new.size == replicas
                && new.available() == replicas
        })
    }

    fn share(&mut self) {
        let (replicas, most) = (self.limits.replicas, self.limits.most());
        let to_add = if replicas > 0 { most } else { 0 } - self.total_size();
        let before = self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let mut sets: Vec<&mut Sized> = self.sets_mut().filter(|set| set.size > 0).collect();
        sets.sort_by_key(|set| {
            let (created, name) = set.created();
            // The biggest first; of equal ones the newer grows first and the older shrinks first.
            let age = created.map_or(0, |created| created.as_second());
            (Reverse(set.size), if to_add > 0 { -age } else { age }, name)
        });
        let mut added = 0;
        for set in &mut sets {
            let share = share_of(set, replicas, most, before);
            let share = if to_add > 0 { share.min(to_add - added) } else { share.max(to_add - added) };
            let share = if to_add == added || to_add == 0 { 0 } else { share };
            set.size += share;
            set.noted = true;
            added += share;
        }
        if let Some(biggest) = sets.first_mut() {
            biggest.size = (biggest.size + to_add - added).max(0);
        }
    }
}

/// How much `set` would grow by its share of the old maximum.
fn share_of(set: &Sized, replicas: i32, most: i32, actual: i32) -> i32 {
    if replicas == 0 {
        return -set.size;
    }
    let before = revision::max_replicas(&set.set).filter(|before| *before != 0).unwrap_or(actual);
    if before == 0 {
        return 0;
    }
    let size = f64::from(set.size) * f64::from(most) / f64::from(before);
    size.round() as i32 - set.size
}

#[cfg(test)]
mod tests {
    use super::Limits;
    use k8s_openapi::api::apps::v1::DeploymentSpec;
    use serde_json::json;

    fn limits(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value) -> (i32, i32) {
        let spec: DeploymentSpec = serde_json::from_value(json!({
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        }))
        .expect("a spec");
        let limits = Limits::of(&spec);
        (limits.surge, limits.unavailable)
    }

    #[test]
    fn surge_is_rounded_up_and_unavailable_down() {
        assert_eq!(limits(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(limits(1, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(limits(4, json!("0%"), json!("10%")), (0, 1), "something must be allowed");
        assert_eq!(limits(3, json!(0), json!(0)), (0, 1));
        assert_eq!(limits(3, json!(2), json!(5)), (2, 3), "no more than there are");
        assert_eq!(limits(0, json!("25%"), json!(1)), (0, 0));
    }
}
