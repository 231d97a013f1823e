//! A Job's conditions.

use jiff::Timestamp;
use k8s_openapi::{
    api::batch::v1::{Job, JobCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

/// The condition, if it is there and True.
pub fn is_true<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    find(job.status.as_ref()?.conditions.as_ref()?, type_)
}

fn find<'a>(conditions: &'a [JobCondition], type_: &str) -> Option<&'a JobCondition> {
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Sets the condition; returns whether its status is new. One that would be False from the start isn't added.
pub fn set(
    conditions: &mut Vec<JobCondition>,
    type_: &str,
    holds: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let status = if holds { "True" } else { "False" };
    let condition = JobCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(known) if known.status == status => return false,
        Some(known) => *known = condition,
        None if holds => conditions.push(condition),
        None => return false,
    }
    true
}
