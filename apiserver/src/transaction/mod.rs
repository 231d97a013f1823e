//! Atomic apply: several writes in one store transaction, all or none.
//!
//! Ours, beyond upstream: `POST /apis/amoeba.dev/v1/transactions` with a [`wire`] `Transaction`, whose steps are
//! ordinary write requests. Each step is authorized, decoded, patched, admitted and validated exactly as if it
//! came alone, by the same code; only its write is collected ([`Batch`]) instead of committed. If every step is
//! fine, all writes go to the store at once, on the condition that every object is as its step saw it. If one is
//! refused, nothing is written, and the answer names every refusal, not only the first.
//!
//! The endpoint itself needs no right but `create transactions.amoeba.dev`, which everybody authenticated has:
//! what counts is the right to each step.

mod batch;
mod wire;

use std::sync::Arc;

use api::status::{Reason, Status};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

pub use batch::Batch;
pub use wire::schema;

use crate::auth::Identity;
use crate::error::{Failure, Outcome};
use crate::handle::ApiServer;
use crate::registry::resource::{Resource, SubresourceAction};
use crate::request::{RequestInfo, Verb};
use crate::verbs::{Answer, Call, submit};
use crate::{dispatch, response};
use wire::Step;

/// Most steps of one transaction: each is a request of its own.
const MAX_STEPS: usize = 500;

/// The group of what is ours.
pub const GROUP: &str = "amoeba.dev";
/// The resource that is posted to.
pub const PLURAL: &str = "transactions";

/// Whether this is the resource of the endpoint.
pub fn is_row(resource: &Resource) -> bool {
    (resource.group.as_str(), resource.plural.as_str()) == (GROUP, PLURAL)
}

/// Does all steps, or none.
///
/// # Errors
/// A status with a cause for each refused step, or 409 if others kept writing the same objects.
pub async fn transact(call: Call<'_>, body: &[u8]) -> Answer {
    let (server, info) = (call.server, call.info);
    let steps = wire::parse(body)?;
    if steps.len() > MAX_STEPS {
        let why = format!("a transaction of {} steps, but the limit is {MAX_STEPS}", steps.len());
        return Err(Status::bad_request(why).into());
    }
    let dry = submit::asks_dry_run(&info.query)?;
    let transaction = Transaction { server, whole: info, identity: call.identity, headers: call.headers };
    for _ in 0..server.config.limits.patch_tries {
        let (results, batch) = transaction.prepare(&steps).await?;
        let changed = batch.changed();
        if dry || changed.iter().all(|changed| !changed) {
            let revision = server.storage.cache.revision().0;
            return Ok(answer(revision, results, &changed, dry));
        }
        if let Some(revision) = server.storage.commit_all(batch.into_writes()).await? {
            info.annotations.wrote(revision);
            return Ok(answer(revision.0, results, &changed, false));
        }
        // Somebody wrote one of the objects meanwhile: every step looks again.
    }
    let why = "others keep writing the same objects; nothing was written, try again";
    Err(Status::conflict(PLURAL, GROUP, "", why).into())
}

struct Transaction<'a> {
    server: &'a ApiServer,
    identity: &'a Identity,
    headers: &'a HeaderMap,
    /// Whose notes and warnings are those of all steps.
    whole: &'a RequestInfo,
}

/// What a step gives if it is fine.
struct Done {
    code: StatusCode,
    object: Value,
}

impl Transaction<'_> {
    /// Runs every step against the present state, in order, without writing.
    async fn prepare(&self, steps: &[Step]) -> Outcome<(Vec<Done>, Batch)> {
        let (batch, mut results, mut refusals) = (Batch::default(), Vec::new(), Vec::new());
        for (index, step) in steps.iter().enumerate() {
            batch.begin_step();
            match self.run(step, &batch).await {
                Ok(done) => results.push(done),
                // A store that can't answer is no fault of the step.
                Err(failure @ Failure::Store(_)) => return Err(failure),
                Err(failure) => refusals.push((index, failure.into_status())),
            }
        }
        if refusals.is_empty() { Ok((results, batch)) } else { Err(refusal(steps.len(), refusals).into()) }
    }

    async fn run(&self, step: &Step, batch: &Batch) -> Outcome<Done> {
        let mut info = RequestInfo::parse(&step.method, &step.path, &step.query, &self.server.registry);
        info.annotations = self.whole.annotations.clone();
        info.warnings = self.whole.warnings.clone();
        let resource = check(&info)?;
        self.server.authorize(self.identity, &info)?;
        let headers = self.headers_of(step)?;
        let call = Call {
            server: self.server,
            info: &info,
            resource,
            identity: self.identity,
            headers: &headers,
            batch: Some(batch),
        };
        let response = dispatch::resource(call, &step.body).await?;
        let code = response.status();
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let object: Value = serde_json::from_slice(&body).map_err(Status::internal)?;
        if code.is_success() { Ok(Done { code, object }) } else { Err(unexpected(&object).into()) }
    }

    /// Those of the whole request, but for the language of the body.
    fn headers_of(&self, step: &Step) -> Result<HeaderMap, Status> {
        let mut headers = self.headers.clone();
        headers.remove(http::header::ACCEPT);
        let bad = |_| Status::bad_request(format!("contentType: invalid value {:?}", step.content_type));
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_str(&step.content_type).map_err(bad)?);
        Ok(headers)
    }
}

/// The step writes one stored object.
fn check(info: &RequestInfo) -> Result<&Arc<Resource>, Status> {
    let resource = info.resource.as_ref().ok_or_else(|| {
        Status::bad_request(format!("path: invalid value {:?}: there is no such resource", info.path))
    })?;
    let writes = matches!(info.verb, Verb::Create | Verb::Update | Verb::Patch | Verb::Delete);
    let part = info.subresource.is_none()
        || info
            .subresource_row()
            .is_some_and(|row| matches!(row.action, SubresourceAction::Status | SubresourceAction::Scale));
    if !writes || !part || is_row(resource) || resource.strategy.traits().review.is_some() {
        return Err(Status::bad_request(
            "a step must create, update, patch or delete one object, or its status or scale",
        ));
    }
    if info.query.get("dryRun").is_some() {
        return Err(Status::bad_request("dryRun is for the whole transaction, not for a step"));
    }
    Ok(resource)
}

fn unexpected(object: &Value) -> Status {
    Status::internal(object["message"].as_str().unwrap_or("a step was refused without a reason"))
}

/// One status of all refusals: each cause says which step it belongs to.
fn refusal(steps: usize, refusals: Vec<(usize, Status)>) -> Status {
    let first = &refusals[0].1;
    let same = refusals.iter().all(|(_, status)| status.code == first.code);
    let (code, reason) = if same { (first.code, first.reason) } else { (422, Reason::Invalid) };
    let texts: Vec<String> =
        refusals.iter().map(|(index, status)| format!("steps[{index}]: {}", status.message)).collect();
    let message =
        format!("nothing was written: {} of {steps} steps refused: {}", refusals.len(), texts.join("; "));
    let mut whole = Status::bad_request(message).with_code(code);
    whole.reason = reason;
    refusals.iter().fold(whole, |whole, (index, status)| with_causes(whole, *index, status))
}

fn with_causes(whole: Status, index: usize, status: &Status) -> Status {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    if causes.is_empty() {
        return whole.with_cause(status.reason.as_str(), &status.message, &format!("steps[{index}]"));
    }
    causes.iter().fold(whole, |whole, cause| {
        whole.with_cause(&cause.reason, &cause.message, &format!("steps[{index}].{}", cause.field))
    })
}

fn answer(
    revision: u64,
    results: Vec<Done>,
    changed: &[bool],
    dry: bool,
) -> http::Response<crate::body::Body> {
    let result = |(done, changed): (Done, &bool)| {
        let mut object = done.object;
        if *changed && !dry && object["metadata"].is_object() {
            api::object::set_resource_version(&mut object, &revision.to_string());
        }
        json!({"code": done.code.as_u16(), "changed": changed, "object": object})
    };
    let results: Vec<Value> = results.into_iter().zip(changed).map(result).collect();
    let whole = json!({
        "kind": "TransactionResult",
        "apiVersion": "amoeba.dev/v1",
        "metadata": {"resourceVersion": revision.to_string()},
        "results": results,
    });
    response::json(StatusCode::OK, &whole)
}
