//! AdmissionReview `admission.k8s.io/v1`: the question as it is sent, and the answer as it is read.

use std::time::Duration;

use std::sync::Arc;

use api::error::chain;
use api::status::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::question::Question;
use crate::registry::resource::Resource;

/// If a configuration names no time, in seconds (upstream's default).
const TIMEOUT: u64 = 10;

/// What a webhook answers.
pub(super) struct Heard {
    /// Whether it allows it.
    pub(super) verdict: Result<Wish, Refusal>,
    /// For the audit log, in either case.
    pub(super) annotations: Vec<(String, String)>,
    /// For the client, in either case.
    pub(super) warnings: Vec<String>,
}

/// How a webhook that allows it wants the object to be, if otherwise: a JSON patch, and in which version it has seen it.
pub(super) type Wish = Option<(Arc<Resource>, Value)>;

/// What a webhook that doesn't says.
pub(super) struct Refusal(Value);

impl Refusal {
    /// 403 unless the webhook wants another code, with its message in upstream's frame.
    pub(super) fn into_status(self, webhook: &str) -> Status {
        let given = |field: &str| self.0[field].as_str().unwrap_or_default().to_owned();
        let (message, reason) = (given("message"), given("reason"));
        let message = match (message.as_str(), reason.as_str()) {
            ("", "") => format!("admission webhook {webhook:?} denied the request without explanation"),
            ("", why) | (why, _) => format!("admission webhook {webhook:?} denied the request: {why}"),
        };
        let code = self.0["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let code = code.filter(|code| (400..600).contains(code)).unwrap_or(403);
        Status::forbidden("", "", "", "").with_message(message).with_code(code)
    }
}

/// The question as it is sent.
fn request(question: Question<'_>, uid: &str) -> Value {
    let mut request = question.request(uid);
    request["object"] = question.object.clone();
    request["oldObject"] = question.old.clone();
    request
}

/// Asks; the error is that there is no answer.
pub(super) async fn ask(question: Question<'_>, hook: &Value) -> Result<Heard, String> {
    let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten();
    if !versions.into_iter().any(|version| version == "v1") {
        return Err("it accepts no AdmissionReview version known to the server (v1)".to_owned());
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": request(question, &uid),
    });
    let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT).clamp(1, 30);
    let timeout = Duration::from_secs(seconds);
    let webhooks = &question.call.server.webhooks;
    let answer = webhooks.post(&hook["clientConfig"], review.to_string(), timeout).await;
    let answer = answer.map_err(|error| format!("failed to call webhook: {}", chain(&error)))?;
    read(&answer, &uid, question.seen_as)
}

fn read(answer: &[u8], uid: &str, seen_as: &Arc<Resource>) -> Result<Heard, String> {
    let review: Value =
        serde_json::from_slice(answer).map_err(|error| format!("read the answer: {error}"))?;
    if review["apiVersion"] != "admission.k8s.io/v1" || review["kind"] != "AdmissionReview" {
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            review["apiVersion"], review["kind"]
        ));
    }
    let response = &review["response"];
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
    }
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    let annotations = annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let verdict = match response["allowed"] == true {
        true => Ok(patch(response)?.map(|patch| (seen_as.clone(), patch))),
        false => Err(Refusal(response["status"].clone())),
    };
    let warnings = response["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(|warning| Some(warning.as_str()?.to_owned()));
    Ok(Heard { verdict, annotations: annotations.collect(), warnings: warnings.collect() })
}

fn patch(response: &Value) -> Result<Option<Value>, String> {
    let Some(text) = response["patch"].as_str() else { return Ok(None) };
    if response["patchType"] != "JSONPatch" {
        return Err(format!("expected response.patchType=\"JSONPatch\", got {}", response["patchType"]));
    }
    let bytes = STANDARD.decode(text).map_err(|error| format!("decode response.patch: {error}"))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("read response.patch: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &[u8], uid: &str) -> Result<(Result<Wish, Refusal>, Vec<String>), String> {
        let pods = crate::registry::Registry::builtin().find("", "v1", "pods").expect("pods");
        super::read(answer, uid, &pods).map(|heard| (heard.verdict, heard.warnings))
    }

    fn answer(response: Value) -> Vec<u8> {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
            .to_string()
            .into()
    }

    #[test]
    fn answers() {
        let yes = read(&answer(json!({"uid": "u", "allowed": true, "warnings": ["w"]})), "u");
        assert!(matches!(yes, Ok((Ok(None), warnings)) if warnings == ["w"]));
        let no = read(&answer(json!({"uid": "u", "warnings": ["w"]})), "u");
        assert!(matches!(no, Ok((Err(Refusal(_)), warnings)) if warnings == ["w"]));
        let patch = STANDARD.encode(r#"[{"op":"remove","path":"/a"}]"#);
        let changed = read(
            &answer(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch"})),
            "u",
        );
        assert!(matches!(changed, Ok((Ok(Some(_)), _))));
        for response in [
            json!({"uid": "other", "allowed": true}),
            json!({"uid": "u", "allowed": true, "patch": patch}),
            json!({"uid": "u", "allowed": true, "patch": "!", "patchType": "JSONPatch"}),
        ] {
            assert!(read(&answer(response.clone()), "u").is_err(), "{response}");
        }
        assert!(read(b"{", "u").is_err() && read(b"{}", "u").is_err());
    }

    #[test]
    fn refusals() {
        let status = |status: Value| Refusal(status).into_status("w");
        let silent = status(Value::Null);
        assert_eq!(
            (silent.code(), silent.message.as_str()),
            (403, r#"admission webhook "w" denied the request without explanation"#)
        );
        let said = status(json!({"message": "no", "code": 409}));
        assert_eq!(
            (said.code(), said.message.as_str()),
            (409, r#"admission webhook "w" denied the request: no"#)
        );
        assert_eq!(status(json!({"code": 200})).code(), 403);
    }
}
