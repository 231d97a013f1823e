//! The two strategies: gradually within the limits, or all at once.

use super::Rollout;
use crate::{owner, pod};
use kube::ResourceExt;

impl Rollout<'_> {
    /// One step of a rolling update: the new ReplicaSet grows, or else the old ones shrink.
    pub(super) fn roll_gradually(&mut self) {
        if !self.ensure_new() {
            return;
        }
        if self.grow_new() || self.shrink_old() {
            return;
        }
        self.clean_up_history();
    }

    /// One step of Recreate: the old ReplicaSets go to zero, their pods end, the new one starts.
    pub(super) fn roll_by_recreating(&mut self) {
        let shrinks = self.old.iter().any(|set| set.size > 0);
        self.old.iter_mut().for_each(|set| set.size = 0);
        if shrinks || self.old_pods_run() || !self.ensure_new() {
            return;
        }
        let replicas = self.limits.replicas;
        if let Some(new) = &mut self.new {
            new.size = replicas;
        }
        self.clean_up_history();
    }

    /// The size that the new ReplicaSet (now at `size`) may have, given all others.
    pub(super) fn allowed_size(&self, size: i32) -> i32 {
        if self.limits.recreate {
            return self.limits.replicas;
        }
        let room = self.limits.most() - self.total_size();
        size + room.min(self.limits.replicas - size).max(0)
    }

    fn grow_new(&mut self) -> bool {
        let Some(size) = self.new.as_ref().map(|new| new.size) else { return false };
        // Beyond the wanted size it shrinks, e.g. after somebody scaled it by hand.
        let wanted = if size > self.limits.replicas { self.limits.replicas } else { self.allowed_size(size) };
        if let Some(new) = &mut self.new {
            new.size = wanted;
        }
        wanted != size
    }

    /// Old pods go as far as the minimum of available ones allows: first those that aren't available
    /// anyway, then available ones of the oldest ReplicaSets.
    fn shrink_old(&mut self) -> bool {
        let old_size: i32 = self.old.iter().map(|set| set.size).sum();
        let new_unavailable = self.new.as_ref().map_or(0, |new| new.size - new.available());
        let most = self.total_size() - self.limits.least() - new_unavailable;
        if old_size == 0 || most <= 0 {
            return false;
        }
        self.shrink_unhealthy(most);
        self.shrink_available();
        self.old.iter().map(|set| set.size).sum::<i32>() != old_size
    }

    fn shrink_unhealthy(&mut self, most: i32) {
        let mut left = most;
        for set in &mut self.old {
            let unhealthy = (set.size - set.available()).clamp(0, left);
            set.size -= unhealthy;
            left -= unhealthy;
        }
    }

    fn shrink_available(&mut self) {
        let available: i32 = self.sets().map(|set| set.available()).sum();
        let mut left = (available - self.limits.least()).max(0);
        for set in &mut self.old {
            let surplus = set.size.min(left);
            set.size -= surplus;
            left -= surplus;
        }
    }

    /// True while any pod of an old template may still run, terminating ones included.
    fn old_pods_run(&self) -> bool {
        let reported = |set: &super::Sized| set.set.status.as_ref().map_or(0, |status| status.replicas);
        if self.old.iter().any(|set| reported(set) > 0) {
            return true;
        }
        let old: Vec<String> = self.old.iter().filter_map(|set| set.set.uid()).collect();
        self.view
            .pods
            .iter()
            .filter(|pod| !pod::is_terminal(pod))
            .any(|pod| owner::controller_of(&**pod).is_some_and(|owner| old.contains(&owner.uid)))
    }
}
