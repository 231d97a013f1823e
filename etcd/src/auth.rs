//! The Auth service, as far as it makes sense here: authentication by password is never enabled.
//!
//! Users are known by the common names of their client certificates, and whoever has one the server trusts
//! may do everything; roles with key ranges are Kubernetes' RBAC's business, above the store. So reading
//! calls answer as an etcd without users does, and calls that would make users say that there are none.

use crate::error;
use crate::grpc::{Call, Code, Status};
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use crate::service;

/// The version of an etcd's users and roles before the first change.
const AUTH_REVISION: u64 = 1;

/// Answers a call.
pub async fn answer(member: &Member, method: &str, call: Call) {
    match method {
        "AuthStatus" => call.unary(|_: pb::AuthStatusRequest| async { Ok(status(member)) }).await,
        "AuthDisable" => call.unary(|_: pb::AuthDisableRequest| async { Ok(disable(member)) }).await,
        "UserList" => call.unary(|_: pb::AuthUserListRequest| async { Ok(users(member)) }).await,
        "RoleList" => call.unary(|_: pb::AuthRoleListRequest| async { Ok(roles(member)) }).await,
        _ => match refusal(method) {
            Some(status) => call.refuse(&status).await,
            None => service::unknown(call).await,
        },
    }
}

/// What a call that would need users is told; `None` for methods that don't exist.
fn refusal(method: &str) -> Option<Status> {
    Some(match method {
        "AuthEnable" => error::no_root_user(),
        "Authenticate" => error::auth_not_enabled(),
        "UserGet" | "UserDelete" | "UserChangePassword" | "UserGrantRole" | "UserRevokeRole" => {
            error::user_not_found()
        }
        "RoleGet" | "RoleDelete" | "RoleGrantPermission" | "RoleRevokePermission" => error::role_not_found(),
        "UserAdd" | "RoleAdd" => Status::new(
            Code::Unimplemented,
            "users and roles can't be added: users are the common names of client certificates",
        ),
        _ => return None,
    })
}

fn status(member: &Member) -> pb::AuthStatusResponse {
    pb::AuthStatusResponse { header: Some(member.header_now()), enabled: false, auth_revision: AUTH_REVISION }
}

/// Authentication is disabled already, which etcd doesn't mind either.
fn disable(member: &Member) -> pb::AuthDisableResponse {
    pb::AuthDisableResponse { header: Some(member.header_now()) }
}

fn users(member: &Member) -> pb::AuthUserListResponse {
    pb::AuthUserListResponse { header: Some(member.header_now()), users: Vec::new() }
}

fn roles(member: &Member) -> pb::AuthRoleListResponse {
    pb::AuthRoleListResponse { header: Some(member.header_now()), roles: Vec::new() }
}
