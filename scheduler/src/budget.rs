//! Disruption budgets, as preemption respects them: it prefers victims whose budgets allow it.

use crate::name::PodKey;
use crate::pod::PodInfo;
use crate::selector::Selector;
use api::k8s::api::policy::v1::PodDisruptionBudget;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Namespace and name.
    pub key: PodKey,
    /// `None`, or one that requires nothing, matches no pod (as upstream's preemption has it).
    selector: Option<Selector>,
    allowed: i64,
    /// Names of pods whose disruption is counted already.
    disrupted: BTreeSet<String>,
}

/// All budgets.
#[derive(Clone, Debug, Default)]
pub struct Budgets(BTreeMap<PodKey, Budget>);

impl Budget {
    /// Reads an API object.
    pub fn of(budget: &PodDisruptionBudget) -> Self {
        let metadata = &budget.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let selector = budget.spec.as_ref().and_then(|spec| Selector::of(spec.selector.as_ref()));
        let status = budget.status.as_ref();
        Budget {
            key: PodKey::new(&text(&metadata.namespace), &text(&metadata.name)),
            selector: selector.filter(|selector| !selector.is_empty()),
            allowed: status.and_then(|status| status.disruptions_allowed).map_or(0, i64::from),
            disrupted: status
                .and_then(|status| status.disrupted_pods.as_ref())
                .map(|pods| pods.keys().cloned().collect())
                .unwrap_or_default(),
        }
    }

    fn covers(&self, pod: &PodInfo) -> bool {
        self.key.namespace == pod.key.namespace
            && self.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
            && !self.disrupted.contains(&*pod.key.name)
    }
}

impl Budgets {
    /// Adds or replaces a budget.
    pub fn set(&mut self, budget: Budget) {
        self.0.insert(budget.key.clone(), budget);
    }

    /// Forgets a budget.
    pub fn remove(&mut self, key: &PodKey) {
        self.0.remove(key);
    }

    /// Parts `pods`, if they are disrupted in this order, into those that a budget doesn't allow and the others.
    pub fn part(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut left: BTreeMap<&PodKey, i64> = self.0.iter().map(|(key, one)| (key, one.allowed)).collect();
        pods.into_iter().partition(|pod| {
            let mut violates = false;
            for (key, _) in self.0.iter().filter(|(_, budget)| budget.covers(pod)) {
                let left = left.get_mut(key).expect("every budget is counted");
                *left -= 1;
                violates |= *left < 0;
            }
            violates
        })
    }
}
