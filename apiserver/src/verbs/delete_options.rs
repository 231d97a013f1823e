//! What a deletion asks for: in the body, or in the query, or both (the query wins).

use api::status::{FieldError, Status};
use serde_json::Value;

use crate::error::Outcome;
use crate::query::Query;
use crate::verbs::Call;
use crate::verbs::decode::parse_body;

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

/// What a deletion asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds between wish and end; `None` leaves it to the object.
    pub grace_seconds: Option<i64>,
    /// What becomes of dependents; `None` leaves it to the object's finalizers.
    pub propagation: Option<Propagation>,
    /// Only the object with this uid is meant.
    pub uid: Option<String>,
    /// Only this state is meant.
    pub resource_version: Option<String>,
    /// Nothing is to be written.
    pub dry_run: bool,
    /// The client uses one of the two forms that upstream answers with 202.
    pub accepted: bool,
}

/// Reads the options.
///
/// # Errors
/// 400 if the body is none, 422 if its fields contradict each other.
pub fn parse(call: &Call<'_>, body: &[u8]) -> Outcome<DeleteOptions> {
    let value = match body.is_empty() {
        true => Value::Null,
        false => parse_body(call.headers, body)?.value,
    };
    Ok(from_value(&value, &call.info.query)?)
}

/// The options in `value` (null for none), overridden by the query.
pub fn from_value(value: &Value, query: &Query) -> Result<DeleteOptions, Status> {
    let text = |field: &str| query.get(field).or_else(|| value[field].as_str());
    let orphan = query.tristate("orphanDependents").or_else(|| value["orphanDependents"].as_bool());
    let policy = text("propagationPolicy");
    if orphan.is_some() && policy.is_some() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        return Err(invalid(FieldError::invalid("propagationPolicy", policy.unwrap_or_default(), why)));
    }
    let grace = query.get("gracePeriodSeconds").and_then(|text| text.parse().ok());
    Ok(DeleteOptions {
        grace_seconds: grace.or_else(|| value["gracePeriodSeconds"].as_i64()),
        propagation: propagation(orphan, policy)?,
        uid: value.pointer("/preconditions/uid").and_then(Value::as_str).map(str::to_owned),
        resource_version: value
            .pointer("/preconditions/resourceVersion")
            .and_then(Value::as_str)
            .map(str::to_owned),
        dry_run: dry_run(value, query)?,
        accepted: orphan == Some(false) || policy == Some("Foreground"),
    })
}

fn propagation(orphan: Option<bool>, policy: Option<&str>) -> Result<Option<Propagation>, Status> {
    match (orphan, policy) {
        (Some(true), _) | (_, Some("Orphan")) => Ok(Some(Propagation::Orphan)),
        (Some(false), _) | (_, Some("Background")) => Ok(Some(Propagation::Background)),
        (_, Some("Foreground")) => Ok(Some(Propagation::Foreground)),
        (None, None) => Ok(None),
        (None, Some(other)) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            Err(invalid(FieldError::not_supported("propagationPolicy", other, &supported)))
        }
    }
}

fn dry_run(value: &Value, query: &Query) -> Result<bool, Status> {
    let listed = value["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let asked: Vec<&str> = listed.chain(query.all("dryRun").filter(|text| !text.is_empty())).collect();
    match asked.iter().find(|text| **text != "All") {
        Some(other) => Err(invalid(FieldError::not_supported("dryRun", *other, &["All"]))),
        None => Ok(!asked.is_empty()),
    }
}

fn invalid(error: FieldError) -> Status {
    Status::invalid_options("DeleteOptions", "meta.k8s.io", vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn body_and_query() {
        let cases = [
            (json!(null), "", "None None false false"),
            (json!({"propagationPolicy": "Foreground"}), "", "None Some(Foreground) false true"),
            (json!({"gracePeriodSeconds": 5}), "gracePeriodSeconds=0", "Some(0) None false false"),
            (json!({"orphanDependents": true}), "", "None Some(Orphan) false false"),
            (json!({"dryRun": ["All"]}), "propagationPolicy=Background", "None Some(Background) true false"),
            (json!({"dryRun": ["Some"]}), "", "422"),
            (json!({"propagationPolicy": "Sideways"}), "", "422"),
            (json!({"orphanDependents": true, "propagationPolicy": "Orphan"}), "", "422"),
        ];
        for (body, query, expected) in cases {
            let text = match from_value(&body, &Query::parse(query)) {
                Ok(o) => format!("{:?} {:?} {} {}", o.grace_seconds, o.propagation, o.dry_run, o.accepted),
                Err(status) => status.code().to_string(),
            };
            assert_eq!(text, expected, "{body} {query}");
        }
    }
}
