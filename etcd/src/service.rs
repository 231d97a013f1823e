//! Which function answers which path.

use std::sync::Arc;

use crate::grpc::{Call, Code, Status};
use crate::member::Member;
use crate::{auth, cluster, election, health, kv, lease, lock, maintenance, monitor, watch};

/// Where a call goes.
pub enum Path {
    /// Answered within the connection's task.
    Short(kv::Method),
    /// Gets a task of its own.
    Long,
}

/// Looks at the path only.
pub fn path(call: &Call) -> Path {
    match kv::Method::of(call.path()) {
        Some(method) if call.is_grpc() => Path::Short(method),
        _ => Path::Long,
    }
}

/// Answers a short call.
pub async fn short(member: Arc<Member>, method: kv::Method, call: Call) {
    kv::answer(&member, method, call).await;
}

/// Answers any other call.
pub async fn long(member: Arc<Member>, call: Call) {
    if !call.is_grpc() && *call.method() == http::Method::POST {
        return call.not_grpc().await;
    }
    if !call.is_grpc() {
        let answer = monitor::answer(&member, call.method(), call.uri()).await;
        return call.plain(answer).await;
    }
    if let Err(status) = member.check_leader(&call.metadata) {
        return call.refuse(&status).await;
    }
    let path = call.path().to_owned();
    match path.trim_start_matches('/').split_once('/') {
        Some(("etcdserverpb.KV", method)) => kv::answer_long(&member, method, call).await,
        Some(("etcdserverpb.Watch", method)) => watch::answer(&member, method, call).await,
        Some(("etcdserverpb.Lease", method)) => lease::answer(&member, method, call).await,
        Some(("etcdserverpb.Cluster", method)) => cluster::answer(&member, method, call).await,
        Some(("etcdserverpb.Maintenance", method)) => maintenance::answer(&member, method, call).await,
        Some(("etcdserverpb.Auth", method)) => auth::answer(&member, method, call).await,
        Some(("v3lockpb.Lock", method)) => lock::answer(&member, method, call).await,
        Some(("v3electionpb.Election", method)) => election::answer(&member, method, call).await,
        Some(("grpc.health.v1.Health", method)) => health::answer(&member, method, call).await,
        _ => unknown(call).await,
    }
}

/// Refuses a method that we don't know.
pub async fn unknown(call: Call) {
    let text = format!("unknown method {}", call.path());
    call.refuse(&Status::new(Code::Unimplemented, text)).await;
}
