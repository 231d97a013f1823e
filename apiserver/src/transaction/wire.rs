//! A transaction as a client sends it:
//!
//! ```json
//! {"kind": "Transaction", "apiVersion": "amoeba.dev/v1", "steps": [
//!   {"method": "POST", "path": "/api/v1/namespaces/default/configmaps?fieldManager=me", "body": {}},
//!   {"method": "PATCH", "path": "/apis/apps/v1/namespaces/default/deployments/web",
//!    "contentType": "application/merge-patch+json", "body": {}}]}
//! ```

use api::status::Status;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// One write.
#[derive(Clone, Debug)]
pub struct Step {
    /// POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// The path, undecoded.
    pub path: String,
    /// What stands after the `?`.
    pub query: String,
    /// The language of the body.
    pub content_type: String,
    /// The body, as it was sent: errors name its lines and columns.
    pub body: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<'a> {
    kind: String,
    api_version: String,
    #[serde(borrow)]
    steps: Vec<WireStep<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireStep<'a> {
    method: String,
    path: String,
    #[serde(default = "json_type")]
    content_type: String,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

fn json_type() -> String {
    "application/json".to_owned()
}

/// What OpenAPI tells of a transaction.
pub fn schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let step = json!({
        "type": "object",
        "required": ["method", "path"],
        "properties": {
            "method": text("POST, PUT, PATCH or DELETE."),
            "path": text("The path of the request, with its query."),
            "contentType": text("The language of the body; application/json if nothing is said."),
            "body": {
                "description": "The object, the patch or the options of the deletion.",
                "x-kubernetes-preserve-unknown-fields": true,
            },
        },
    });
    json!({
        "description": "Transaction is several writes that happen together or not at all.",
        "type": "object",
        "required": ["steps"],
        "properties": {"steps": {
            "description": "The writes, as requests; none sees what another writes.",
            "type": "array",
            "items": step,
        }},
    })
}

/// Reads a transaction.
///
/// # Errors
/// 400 that says where it is none.
pub fn parse(body: &[u8]) -> Result<Vec<Step>, Status> {
    let bad = |error: serde_json::Error| Status::bad_request(format!("not a transaction: {error}"));
    let wire: Wire<'_> = serde_json::from_slice(body).map_err(bad)?;
    if (wire.kind.as_str(), wire.api_version.as_str()) != ("Transaction", "amoeba.dev/v1") {
        let given = format!("{} in version {:?}", wire.kind, wire.api_version);
        return Err(Status::bad_request(format!(
            "{given} cannot be handled as a Transaction of amoeba.dev/v1"
        )));
    }
    wire.steps.into_iter().enumerate().map(|(index, step)| step_of(index, step)).collect()
}

fn step_of(index: usize, step: WireStep<'_>) -> Result<Step, Status> {
    let bad = |what: &str, value: &str| {
        Status::bad_request(format!("steps[{index}].{what}: invalid value {value:?}"))
    };
    let method = step.method.parse().map_err(|_| bad("method", &step.method))?;
    if !step.path.starts_with('/') {
        return Err(bad("path", &step.path));
    }
    let (path, query) = step.path.split_once('?').unwrap_or((&step.path, ""));
    Ok(Step {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        content_type: step.content_type,
        body: step.body.map(|body| Bytes::copy_from_slice(body.get().as_bytes())).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_their_bodies_as_they_were_sent() {
        let text = r#"{"kind":"Transaction","apiVersion":"amoeba.dev/v1","steps":[
            {"method":"PATCH","path":"/api/v1/x?a=b","body":{"a" : 1}},{"method":"DELETE","path":"/y"}]}"#;
        let steps = parse(text.as_bytes()).expect("a transaction");
        assert_eq!((steps[0].path.as_str(), steps[0].query.as_str()), ("/api/v1/x", "a=b"));
        assert_eq!((&steps[0].body[..], &steps[1].body[..]), (&br#"{"a" : 1}"#[..], &b""[..]));
        assert_eq!(steps[0].content_type, "application/json");
    }

    #[test]
    fn what_is_no_transaction_is_refused() {
        let head = r#"{"kind":"Transaction","apiVersion":"amoeba.dev/v1","steps":"#;
        let cases = [
            "".to_owned(),
            "[]".to_owned(),
            r#"{"kind":"Pod","apiVersion":"v1","steps":[]}"#.to_owned(),
            format!("{head}[],\"more\":1}}"),
            format!("{head}[{{\"method\":\"A B\",\"path\":\"/\"}}]}}"),
            format!("{head}[{{\"method\":\"PUT\",\"path\":\"x\"}}]}}"),
        ];
        for text in cases {
            assert_eq!(parse(text.as_bytes()).map_err(|status| status.code()).err(), Some(400), "{text}");
        }
    }
}
