//! gRPC's health service: serving means that a leader is known.

use store::kv::KvError;

use crate::error;
use crate::grpc::{Call, Messages, Sink, Status, encode};
use crate::member::Member;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::service;

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    match method {
        "Check" => call.unary(|_: HealthCheckRequest| async { Ok(health(member)) }).await,
        "Watch" => {
            let Ok((mut requests, mut sink)) = call.stream() else { return };
            let result = tokio::select! {
                result = watch(member, &mut requests, &mut sink) => result,
                () = member.stopped() => Err(error::status(KvError::Closed)),
            };
            sink.finish(result);
        }
        _ => service::unknown(call).await,
    }
}

fn health(member: &Member) -> HealthCheckResponse {
    let serving = member.store.leadership().borrow().is_some();
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status as i32 }
}

/// The state now and whenever the leader changes.
async fn watch(member: &Member, requests: &mut Messages, sink: &mut Sink) -> Result<(), Status> {
    requests.only::<HealthCheckRequest>().await?;
    let mut leader = member.store.leadership();
    loop {
        sink.send(encode(&health(member))).await?;
        tokio::select! {
            changed = leader.changed() => changed.map_err(|_| error::status(KvError::Closed))?,
            () = sink.gone() => return Err(error::cancelled()),
        }
    }
}
