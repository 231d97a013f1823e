//! `patch`: a change of parts of an object, applied to whatever its present state is.

use std::sync::Arc;

use api::patch::{json_patch, merge_patch, strategic_merge};
use api::schema::{Format, parse};
use api::status::{FieldError, Status};
use serde_json::Value;

use crate::error::Outcome;
use crate::verbs::decode::{self, Draft, KindName, media_type};
use crate::verbs::submit::{Part, Written};
use crate::verbs::update::change;
use crate::verbs::view::View;
use crate::verbs::{Answer, Call, ownership, server_side};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const SUPPORTED: [&str; 4] =
    ["application/json-patch+json", "application/merge-patch+json", STRATEGIC, ownership::MEDIA_TYPE];

/// Custom kinds don't say how their lists merge.
fn supported(call: &Call<'_>) -> Vec<&'static str> {
    let all = SUPPORTED.into_iter();
    all.filter(|language| call.resource.custom.is_none() || *language != STRATEGIC).collect()
}

/// A patch, in one of its languages.
#[derive(Clone, Debug)]
pub struct Patch {
    language: Language,
    body: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Json,
    Merge,
    Strategic,
}

/// Answers with the object's new state.
pub async fn patch(call: Call<'_>, part: Part, body: &[u8]) -> Answer {
    let view = View::of(&call)?;
    if ownership::is_apply(&call) {
        return server_side::apply(&call, part, body).await?.respond(&call, &view).await;
    }
    if call.info.query.get("force").is_some() {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(Status::invalid_options("PatchOptions", "meta.k8s.io", vec![error]).into());
    }
    let patch = Patch::parse(&call, body)?;
    let kind = KindName::of(&call);
    apply(&call, part, &patch, kind).await?.respond(&call, &view).await
}

async fn apply(call: &Call<'_>, part: Part, patch: &Patch, kind: KindName<'_>) -> Outcome<Written> {
    let home = call.home();
    let written = if Arc::ptr_eq(&home, call.resource) {
        change(call, part, |current| patch.draft(call, kind, current)).await?
    } else {
        let version = call.resource.api_version();
        let make = |current: &Value| {
            let shown = api::convert::to_version(current.clone(), &version);
            Ok(patch.draft(call, kind, &shown)?.at_home(&home))
        };
        change(&Call { resource: &home, ..*call }, part, make).await?
    };
    written.ok_or_else(|| call.not_found(call.name()).into())
}

impl Patch {
    /// Reads a patch in the language that the Content-Type names.
    ///
    /// # Errors
    /// 415 for another language, 400 if the body is no patch.
    pub fn parse(call: &Call<'_>, body: &[u8]) -> Outcome<Self> {
        let language = match media_type(call.headers) {
            "application/json-patch+json" => Language::Json,
            "application/merge-patch+json" => Language::Merge,
            STRATEGIC if call.resource.custom.is_none() => Language::Strategic,
            _ => return Err(Status::unsupported_media_type(&supported(call)).into()),
        };
        let parsed = parse(body, Format::Json).map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(Self { language, body: parsed.value })
    }

    /// The object that the patch makes of `current`.
    pub fn draft(&self, call: &Call<'_>, kind: KindName<'_>, current: &Value) -> Outcome<Draft> {
        let mut patched = self.apply(kind, current)?;
        if !self.names_version() {
            // Then it is meant for any state, and may be tried again on a newer one.
            api::object::metadata_mut(&mut patched).remove("resourceVersion");
        }
        decode::value(call, kind, patched)
    }

    fn apply(&self, kind: KindName<'_>, current: &Value) -> Outcome<Value> {
        let patched = match self.language {
            Language::Json => json_patch(current, &self.body).map_err(|error| error.to_status())?,
            Language::Merge => merge_patch(current, &self.body),
            Language::Strategic => strategic_merge(current, &self.body, decode::schema(kind)?)
                .map_err(|error| error.to_status())?,
        };
        match patched.is_object() {
            true => Ok(patched),
            false => Err(Status::bad_request("the patch leaves no object").into()),
        }
    }

    fn names_version(&self) -> bool {
        match self.language {
            Language::Json => self.body.as_array().into_iter().flatten().any(|operation| {
                matches!(operation["op"].as_str(), Some("add" | "replace" | "test"))
                    && operation["path"] == "/metadata/resourceVersion"
            }),
            _ => self.body.pointer("/metadata/resourceVersion").is_some_and(Value::is_string),
        }
    }
}
