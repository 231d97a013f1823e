//! Several writes in one request, all or none: the server's `transactions.amoeba.dev`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::request::{PatchKind, RequestError, StatusBody};

const PATH: &str = "/apis/amoeba.dev/v1/transactions";

/// What became of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult {
    /// Whether it wrote.
    pub changed: bool,
    /// The object after it.
    pub object: Value,
}

/// A step that creates an object in a collection.
pub fn create(path: &str, object: Value) -> Value {
    json!({"method": "POST", "path": path, "body": object})
}

/// A step that changes an object.
pub fn patch(path: &str, kind: PatchKind, patch: Value) -> Value {
    json!({"method": "PATCH", "path": path, "contentType": kind.media_type(), "body": patch})
}

/// Sends the steps; the results are in their order.
pub async fn send(cluster: &Cluster, steps: Vec<Value>, dry: bool) -> Result<Vec<StepResult>, RequestError> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let body = json!({"kind": "Transaction", "apiVersion": "amoeba.dev/v1", "steps": steps});
    let path = if dry { format!("{PATH}?dryRun=All") } else { PATH.to_owned() };
    let mut answer = match cluster.create(&path, &body).await {
        Err(RequestError::Status(status)) if is_unknown(&status) => {
            let message = "this API server has no transactions: only Amoeba's applies atomically".to_owned();
            return Err(RequestError::Status(Box::new(StatusBody { message, ..*status })));
        }
        answer => answer?,
    };
    let results = answer["results"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let result = |mut result: Value| StepResult {
        changed: result["changed"].as_bool().unwrap_or_default(),
        object: result["object"].take(),
    };
    Ok(results.into_iter().map(result).collect())
}

/// A server that doesn't know the path: no cause names a step.
fn is_unknown(status: &StatusBody) -> bool {
    status.code == 404 && status.causes.is_empty()
}

/// The refusals of single steps in the refusal of a whole transaction, each as if its step had come alone.
pub fn refusals(status: &StatusBody) -> Vec<(usize, StatusBody)> {
    let mut refusals: BTreeMap<usize, StatusBody> = BTreeMap::new();
    for (field, message) in &status.causes {
        let Some((index, field)) = step_of(field) else { continue };
        let of_step = refusals.entry(index).or_insert_with(|| StatusBody {
            code: if field.is_empty() { status.code } else { 422 },
            reason: status.reason.clone(),
            message: message.clone(),
            causes: Vec::new(),
        });
        if !field.is_empty() {
            of_step.causes.push((field.to_owned(), message.clone()));
        }
    }
    refusals.into_iter().collect()
}

/// `steps[2].spec.replicas` as 2 and `spec.replicas`.
fn step_of(field: &str) -> Option<(usize, &str)> {
    let (index, field) = field.strip_prefix("steps[")?.split_once(']')?;
    Some((index.parse().ok()?, field.strip_prefix('.').unwrap_or(field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_goes_to_its_step() {
        let causes = [("steps[2].spec.a", "bad a"), ("steps[0]", "exists"), ("steps[2].spec.b", "bad b")];
        let causes = causes.map(|(field, message)| (field.to_owned(), message.to_owned())).to_vec();
        let status = StatusBody { code: 409, causes, ..StatusBody::default() };
        let refusals = refusals(&status);
        assert_eq!(refusals.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((refusals[0].1.code, refusals[0].1.message.as_str()), (409, "exists"));
        assert_eq!((refusals[1].1.code, refusals[1].1.causes.len()), (422, 2));
        assert_eq!(refusals[1].1.causes[1], ("spec.b".to_owned(), "bad b".to_owned()));
    }
}
