//! What a Job's failure and success policies say about pods and indexes. Upstream's
//! `pkg/controller/job/pod_failure_policy.go` and `success_policy.go` give the rules and the words.

use super::indexes::Indexes;
use crate::pod::{self, ContainerStatus, Pod};
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};
use kube::ResourceExt;

/// What the failure of one pod means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the limits.
    Count,
    /// It doesn't.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, for this reason.
    FailJob(String),
}

/// The first rule that fits the failed `pod` decides; without any it counts.
pub fn verdict(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (number, rule) in rules.enumerate() {
        let Some(found) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Verdict::FailIndex,
            "FailIndex" => continue,
            "FailJob" => Verdict::FailJob(format!("{found} matching FailJob rule at index {number}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// What about the pod fits the rule, in words.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    if let Some(codes) = &rule.on_exit_codes {
        return by_exit_code(codes, pod);
    }
    rule.on_pod_conditions.iter().flatten().find_map(|pattern| by_condition(pattern, pod))
}

fn by_exit_code(codes: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let place = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    containers(pod)
        .filter(|container| codes.container_name.as_ref().is_none_or(|name| *name == container.name))
        .filter_map(|container| Some((container, container.state.as_ref()?.terminated.as_ref()?.exit_code)))
        .find(|(_, code)| *code != 0 && codes.values.contains(code) == (codes.operator == "In"))
        .map(|(container, code)| {
            format!("Container {} for pod {place} failed with exit code {code}", container.name)
        })
}

fn by_condition(pattern: &PodFailurePolicyOnPodConditionsPattern, pod: &Pod) -> Option<String> {
    let condition = pod::condition(pod.status.as_ref(), &pattern.type_)?;
    let wanted = pattern.status.as_deref().filter(|status| !status.is_empty()).unwrap_or("True");
    let place = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    (condition.status == wanted).then(|| format!("Pod {place} has condition {}", pattern.type_))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let plain = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    plain.chain(status.into_iter().flat_map(|status| status.init_container_statuses.iter().flatten()))
}

/// Why the Job counts as successful although indexes are left; none if it doesn't.
pub fn success(spec: &JobSpec, succeeded: &Indexes, completions: i32) -> Option<String> {
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    let (number, _) = rules.enumerate().find(|(_, rule)| is_met(rule, succeeded, completions))?;
    Some(format!("Matched rules at index {number}"))
}

fn is_met(rule: &SuccessPolicyRule, succeeded: &Indexes, completions: i32) -> bool {
    match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(text), count) => {
            let wanted = Indexes::parse(text, completions);
            let done = wanted.0.intersection(&succeeded.0).count();
            done >= count.map_or(wanted.0.len(), |count| usize::try_from(count).unwrap_or(0))
        }
        (None, Some(count)) => succeeded.count() >= count,
        (None, None) => false,
    }
}
