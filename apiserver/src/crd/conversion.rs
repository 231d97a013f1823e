//! Objects of a custom kind in another version, by its definition's webhook (`ConversionReview` v1).

use std::time::Duration;

use api::error::chain;
use api::status::Status;
use serde_json::{Value, json};

use crate::error::Outcome;
use crate::webhook::Webhooks;

/// How long a conversion may take (upstream's limit).
const PATIENCE: Duration = Duration::from_secs(30);

/// Who converts.
#[derive(Clone, Debug)]
pub struct Converter {
    /// How it is asked.
    pub webhooks: Webhooks,
    /// `clientConfig`
    pub client: Value,
    /// The version of ConversionReview that it gets.
    pub review: String,
    /// The kind, for messages.
    pub kind: String,
}

impl Converter {
    /// The webhook of a definition; `None` if only the version's name changes.
    pub fn of(crd: &Value, webhooks: &Webhooks) -> Option<Self> {
        let conversion = &crd["spec"]["conversion"];
        let accepted = conversion["webhook"]["conversionReviewVersions"].as_array().into_iter().flatten();
        let review = accepted.filter_map(Value::as_str).find(|version| matches!(*version, "v1" | "v1beta1"));
        (conversion["strategy"] == "Webhook").then(|| Self {
            webhooks: webhooks.clone(),
            client: conversion["webhook"]["clientConfig"].clone(),
            review: review.unwrap_or("v1").to_owned(),
            kind: crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// The objects in the version `api_version`, in the same order.
    ///
    /// # Errors
    /// 500 if the webhook can't be asked, refuses, or gives something else than was asked for.
    pub async fn convert(&self, api_version: &str, objects: Vec<Value>) -> Outcome<Vec<Value>> {
        let from = objects.first().map(|object| api::object::api_version(object).to_owned());
        let failed = |why: String| {
            let from = from.clone().unwrap_or_default();
            Status::internal(format!("conversion webhook for {from}, Kind={} failed: {why}", self.kind))
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let question = json!({
            "apiVersion": format!("apiextensions.k8s.io/{}", self.review),
            "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        });
        let answer = self.webhooks.post(&self.client, question.to_string(), PATIENCE).await;
        let answer = answer.map_err(|error| failed(chain(&error)))?;
        let answer: Value =
            serde_json::from_slice(&answer).map_err(|error| failed(format!("decode the answer: {error}")))?;
        Ok(taken(&answer["response"], &uid, api_version, &objects).map_err(failed)?)
    }
}

/// The converted objects, if they are what was asked for. Pure.
fn taken(response: &Value, uid: &str, api_version: &str, asked: &[Value]) -> Result<Vec<Value>, String> {
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
    }
    if response["result"]["status"] != "Success" {
        let message =
            response["result"]["message"].as_str().unwrap_or("response.result.status was not Success");
        return Err(message.to_owned());
    }
    let given = response["convertedObjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    if given.len() != asked.len() {
        return Err(format!("expected {} converted objects, got {}", asked.len(), given.len()));
    }
    given.iter().zip(asked).map(|(given, asked)| one_taken(given, api_version, asked)).collect()
}

/// Of metadata, a conversion may change labels and annotations.
fn one_taken(given: &Value, api_version: &str, asked: &Value) -> Result<Value, String> {
    if api::object::api_version(given) != api_version {
        let got = api::object::api_version(given);
        return Err(format!("expected converted object to have apiVersion {api_version:?}, got {got:?}"));
    }
    for field in ["kind", "metadata/name", "metadata/namespace", "metadata/uid"] {
        let pointer = format!("/{field}");
        if given.pointer(&pointer) != asked.pointer(&pointer) {
            return Err(format!("the converted object has another {}", field.replace('/', ".")));
        }
    }
    let mut taken = given.clone();
    let mut metadata = asked["metadata"].clone();
    for field in ["labels", "annotations"] {
        match (given["metadata"].get(field), metadata.as_object_mut()) {
            (Some(value), _) => metadata[field] = value.clone(),
            (None, Some(map)) => drop(map.remove(field)),
            (None, None) => {}
        }
    }
    taken["metadata"] = metadata;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_if_it_is_one() {
        let asked = [
            json!({"apiVersion": "e.com/v1", "kind": "T", "metadata": {"name": "a", "uid": "u", "labels": {"x": "1"}}}),
        ];
        let mut response = json!({"uid": "r", "result": {"status": "Success"}, "convertedObjects": [
            {"apiVersion": "e.com/v2", "kind": "T", "metadata": {"name": "a", "uid": "u", "generation": 9,
             "annotations": {"y": "2"}}, "spec": {"n": 1}}]});
        let expected = json!({"apiVersion": "e.com/v2", "kind": "T", "spec": {"n": 1},
                              "metadata": {"name": "a", "uid": "u", "annotations": {"y": "2"}}});
        assert_eq!(taken(&response, "r", "e.com/v2", &asked), Ok(vec![expected]));
        let why = |response: &Value| taken(response, "r", "e.com/v2", &asked).expect_err("refused");
        assert_eq!(
            taken(&response, "q", "e.com/v2", &asked).expect_err("refused"),
            r#"expected response.uid="q", got "r""#
        );
        response["convertedObjects"][0]["metadata"]["name"] = json!("b");
        assert_eq!(why(&response), "the converted object has another metadata.name");
        response["convertedObjects"][0]["apiVersion"] = json!("e.com/v1");
        assert_eq!(
            why(&response),
            r#"expected converted object to have apiVersion "e.com/v2", got "e.com/v1""#
        );
        response["convertedObjects"] = json!([]);
        assert_eq!(why(&response), "expected 1 converted objects, got 0");
        response["result"] = json!({"status": "Failed", "message": "no way"});
        assert_eq!(why(&response), "no way");
    }
}
