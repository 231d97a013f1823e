//! The pods of a Job: which index they are of, how often it failed, when they ended, and new ones.

use super::{INDEX, Look, TRACKING};
use crate::{
    plan::{Action, to_value},
    pod::{self, Pod},
    template,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvVar, EnvVarSource, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm,
    ObjectFieldSelector, PodSpec, PodTemplateSpec, PreferredSchedulingTerm,
};
use kube::ResourceExt;
use std::{collections::BTreeSet, sync::Arc};

/// How often pods of this index have failed before, where the limit is per index.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same for failures that the policy ignores.
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// So many nodes are avoided at most.
const AVOIDED_NODES: usize = 10;

/// The completion index of a pod; none if it has none that makes sense.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// The number in an annotation; zero without it.
pub fn count_of(pod: &Pod, annotation: &str) -> i32 {
    pod.annotations().get(annotation).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// When the pod ended: its last container's end, or the best that is known.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = containers
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0);
    let not_ready = || {
        let ready = pod::condition(pod.status.as_ref(), "Ready").filter(|ready| ready.status != "True")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let created = || pod.creation_timestamp().map(|time| time.0);
    ends.max().or_else(not_ready).or_else(deleted).or_else(created)
}

/// When its first container started, or the kubelet took it.
pub fn started_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let starts = containers.filter_map(|container| {
        let state = container.state.as_ref()?;
        let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
        running.or_else(|| state.terminated.as_ref()?.started_at.as_ref()).map(|time| time.0)
    });
    starts.min().or_else(|| status.start_time.as_ref().map(|time| time.0))
}

impl Look<'_> {
    /// A new pod; `index` is none for a Job that isn't indexed.
    pub(super) fn create(&self, index: Option<i32>, reason: String) -> Action {
        let mut pod_template = self.spec.template.clone();
        let metadata = pod_template.metadata.get_or_insert_default();
        let finalizers = metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|name| name == TRACKING) {
            finalizers.push(TRACKING.to_owned());
        }
        let job = self.job.name_any();
        let mut prefix = format!("{job}-");
        if let Some(index) = index {
            prefix = format!("{job}-{index}-");
            mark_index(&mut pod_template, index, &job);
            self.mark_failures(&mut pod_template, index);
        }
        let avoided = self.failed_nodes(index);
        if !avoided.is_empty() {
            avoid(pod_template.spec.get_or_insert_default(), &avoided);
        }
        template::create(self.job, &pod_template, template::Named::From(prefix), reason)
    }

    /// Where pods of this index (or, without indexes, any) failed, latest first: a retry elsewhere has better
    /// chances, since the fault may be the node's. It is a preference, so that a retry never waits for it.
    fn failed_nodes(&self, index: Option<i32>) -> Vec<String> {
        let mut failed: Vec<&Arc<Pod>> =
            self.pods.iter().filter(|pod| pod::phase(pod) == "Failed" && index_of(pod) == index).collect();
        failed.sort_by_key(|pod| std::cmp::Reverse((ended_at(pod), pod.name_any())));
        let stragglers = self.active.iter().filter(|pod| index.is_some() && index_of(pod) == index);
        let mut seen = BTreeSet::new();
        let nodes = stragglers.chain(failed).map(|pod| pod::node_name(pod).to_owned());
        nodes.filter(|node| !node.is_empty() && seen.insert(node.clone())).take(AVOIDED_NODES).collect()
    }

    /// The count goes from pod to pod, since failed ones may be cleaned up.
    fn mark_failures(&self, pod_template: &mut PodTemplateSpec, index: i32) {
        if self.spec.backoff_limit_per_index.is_none() {
            return;
        }
        let (counted, ignored) = self.failures_of(index);
        let annotations = pod_template.metadata.get_or_insert_default().annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
}

fn mark_index(pod_template: &mut PodTemplateSpec, index: i32, job: &str) {
    let metadata = pod_template.metadata.get_or_insert_default();
    metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod_template.spec.get_or_insert_default();
    // A DNS label has at most 63 characters; the index must stay readable.
    let suffix = format!("-{index}");
    let prefix: String = job.chars().take(63 - suffix.len()).collect();
    spec.hostname.get_or_insert(format!("{prefix}{suffix}"));
    spec.containers.iter_mut().for_each(add_variable);
    spec.init_containers.iter_mut().flatten().for_each(add_variable);
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}

fn avoid(spec: &mut PodSpec, nodes: &[String]) {
    let elsewhere = |node: &String| NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec![node.clone()]),
    };
    let preference = NodeSelectorTerm {
        match_fields: Some(nodes.iter().map(elsewhere).collect()),
        ..NodeSelectorTerm::default()
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let preferred =
        node_affinity.preferred_during_scheduling_ignored_during_execution.get_or_insert_default();
    preferred.push(PreferredSchedulingTerm { weight: 100, preference });
}

/// A pod's finalizers without the tracking one, as a merge patch.
pub fn without_tracking(pod: &Pod) -> serde_json::Value {
    let left: Vec<&String> = pod.finalizers().iter().filter(|name| *name != TRACKING).collect();
    serde_json::json!({"metadata": {"finalizers": to_value(&left)}})
}
