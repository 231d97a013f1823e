//! Rules for jobs and cron jobs.

use super::field::{Errors, Field, same};
use super::pod;
use crate::cron::Schedule;

/// Labels and names of a cron job's jobs get a suffix of eleven characters.
const MAX_CRON_JOB_NAME: usize = 52;
/// Most pods at once, and most completions when failures are counted per index.
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const MAX_POLICY_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// The spec of a Job.
pub(super) fn job(spec: &Field<'_>) -> Errors {
    let mut errors = Errors::new();
    for number in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.extend(spec.get(number).nonnegative());
    }
    errors.extend(indexed(spec));
    errors.extend(spec.get("podReplacementPolicy").one_of(&["Failed", "TerminatingOrFailed"]));
    errors.extend(failure_policy(spec));
    let template = spec.get("template");
    errors.extend(pod::template(&template));
    errors.extend(restart_policy(&template, spec.get("podFailurePolicy").exists()));
    errors
}

fn indexed(spec: &Field<'_>) -> Errors {
    let mode = spec.get("completionMode");
    let mut errors = mode.one_of(&["Indexed", "NonIndexed"]);
    let is_indexed = mode.text() == "Indexed";
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    if is_indexed && !completions.exists() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    if is_indexed && parallelism.int().is_some_and(|pods| pods > MAX_INDEXED_PARALLELISM) {
        let why = format!(
            "must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed"
        );
        errors.push(parallelism.invalid(why));
    }
    for per_index in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if spec.get(per_index).exists() && !is_indexed {
            errors.push(spec.get(per_index).invalid("requires indexed completion mode"));
        }
    }
    if spec.get("maxFailedIndexes").exists() && !spec.get("backoffLimitPerIndex").exists() {
        errors.push(spec.get("backoffLimitPerIndex").required("when maxFailedIndexes is specified"));
    }
    if spec.get("successPolicy").exists() && !is_indexed {
        errors.push(spec.get("successPolicy").invalid("requires indexed completion mode"));
    }
    errors
}

fn restart_policy(template: &Field<'_>, has_failure_policy: bool) -> Errors {
    let policy = template.at("spec.restartPolicy");
    match policy.text() {
        "OnFailure" if has_failure_policy => {
            vec![policy.invalid("only \"Never\" is supported when podFailurePolicy is specified")]
        }
        "OnFailure" | "Never" => Errors::new(),
        _ => vec![policy.required("valid values: \"OnFailure\", \"Never\"")],
    }
}

fn failure_policy(spec: &Field<'_>) -> Errors {
    let rules = spec.at("podFailurePolicy.rules");
    let mut errors = Errors::new();
    if rules.items().count() > MAX_POLICY_RULES {
        errors.push(crate::status::FieldError::too_many(
            &rules.path,
            rules.items().count(),
            MAX_POLICY_RULES,
        ));
    }
    for rule in rules.items() {
        errors.extend(failure_rule(spec, &rule));
    }
    errors
}

fn failure_rule(spec: &Field<'_>, rule: &Field<'_>) -> Errors {
    let action = rule.get("action");
    let mut errors = action.present();
    errors.extend(action.one_of(&["Count", "FailIndex", "FailJob", "Ignore"]));
    if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").exists() {
        errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
    }
    let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
    match (codes.exists(), conditions.is_empty()) {
        (true, false) => {
            errors.push(rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"))
        }
        (false, true) => {
            errors.push(rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"))
        }
        (true, true) => errors.extend(exit_codes(spec, &codes)),
        (false, false) => {
            for condition in conditions.items() {
                errors.extend(condition.get("type").named(crate::name::qualified_name));
                errors.extend(condition.get("status").one_of(&["False", "True", "Unknown"]));
            }
        }
    }
    errors
}

fn exit_codes(spec: &Field<'_>, codes: &Field<'_>) -> Errors {
    let operator = codes.get("operator");
    let mut errors = operator.present();
    errors.extend(operator.one_of(&["In", "NotIn"]));
    let container = codes.get("containerName");
    if container.exists() {
        let pod = spec.at("template.spec");
        let named = |list: &str| pod.get(list).items().any(|c| c.get("name").text() == container.text());
        if !named("containers") && !named("initContainers") {
            errors.push(
                container.invalid("must be one of the container or initContainer names in the pod template"),
            );
        }
    }
    let values = codes.get("values");
    match values.items().count() {
        0 => errors.push(values.invalid("at least one value is required")),
        count if count > MAX_EXIT_CODES => {
            errors.push(crate::status::FieldError::too_many(&values.path, count, MAX_EXIT_CODES));
        }
        _ => {}
    }
    let mut last = None;
    for value in values.items() {
        match (value.int(), last) {
            (Some(0), _) if operator.text() == "In" => {
                errors.push(value.invalid("must not be 0 for the In operator"));
            }
            (now, Some(before)) if now == Some(before) => errors.push(value.duplicate()),
            (Some(now), Some(before)) if now < before => errors.push(values.invalid("must be ordered")),
            _ => {}
        }
        last = value.int();
    }
    errors
}

/// What of a Job may change: how many pods at once, whether it is suspended, when it ends; for a suspended one
/// that never ran also where its pods go.
pub(super) fn job_update(new: &Field<'_>, old: &Field<'_>) -> Errors {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let mut errors = Errors::new();
    let elastic = spec.get("completionMode").text() == "Indexed"
        && spec.get("completions").value == spec.get("parallelism").value
        && before.get("completions").value == before.get("parallelism").value;
    if !elastic {
        errors.extend(same(&spec.get("completions"), &before.get("completions")));
    }
    for fixed in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        errors.extend(same(&spec.get(fixed), &before.get(fixed)));
    }
    let never_ran = before.get("suspend").flag() && !old.at("status.startTime").exists();
    errors.extend(template_update(&spec.get("template"), &before.get("template"), never_ran));
    errors
}

fn template_update(new: &Field<'_>, old: &Field<'_>, may_move: bool) -> Errors {
    if new.value == old.value {
        return Errors::new();
    }
    let mut comparable = new.value.clone();
    if may_move {
        for place in [
            "/spec/nodeSelector",
            "/spec/affinity",
            "/spec/tolerations",
            "/spec/schedulingGates",
            "/metadata/labels",
            "/metadata/annotations",
        ] {
            copy(&mut comparable, old.value, place);
        }
    }
    if comparable == *old.value { Errors::new() } else { vec![new.invalid("field is immutable")] }
}

/// Makes a field of `to` what it is in `from`.
fn copy(to: &mut serde_json::Value, from: &serde_json::Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    let Some(map) = to.pointer_mut(parent).and_then(serde_json::Value::as_object_mut) else { return };
    match from.pointer(pointer) {
        Some(value) => map.insert(name.into(), value.clone()),
        None => map.remove(name),
    };
}

/// A CronJob.
pub(super) fn cron_job(root: &Field<'_>) -> Errors {
    let (spec, name) = (root.get("spec"), root.at("metadata.name"));
    let mut errors = Errors::new();
    if name.text().len() > MAX_CRON_JOB_NAME {
        errors.push(name.invalid(format!("must be no more than {MAX_CRON_JOB_NAME} characters")));
    }
    let schedule = spec.get("schedule");
    match Schedule::parse(schedule.text()) {
        _ if schedule.is_empty() => errors.push(schedule.required("")),
        Ok(_) => {}
        Err(why) => errors.push(schedule.invalid(why)),
    }
    errors.extend(time_zone(&spec.get("timeZone")));
    for number in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.extend(spec.get(number).nonnegative());
    }
    errors.extend(spec.get("concurrencyPolicy").present());
    errors.extend(spec.get("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"]));
    let job_spec = spec.at("jobTemplate.spec");
    if job_spec.get("manualSelector").flag() {
        errors.push(crate::status::FieldError::not_supported(
            job_spec.get("manualSelector").path,
            true,
            &["nil", "false"],
        ));
    }
    errors.extend(job(&job_spec));
    errors
}

fn time_zone(zone: &Field<'_>) -> Errors {
    match zone.value {
        serde_json::Value::Null => Errors::new(),
        _ if zone.text().is_empty() => vec![zone.invalid("timeZone must be nil or non-empty string")],
        _ if zone.text().eq_ignore_ascii_case("local") => {
            vec![zone.invalid(
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            )]
        }
        _ => match jiff::tz::TimeZone::get(zone.text()) {
            Ok(_) => Errors::new(),
            Err(_) => vec![zone.invalid(format!("unknown time zone {}", zone.text()))],
        },
    }
}
