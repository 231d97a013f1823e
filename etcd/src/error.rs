//! The store's errors in etcd's words. Clients compare codes and texts, so both are part of the wire
//! contract. Source: etcd 3.4, `etcdserver/api/v3rpc/rpctypes/error.go`.

use store::kv::KvError;

use crate::grpc::{Code, Status};

/// A request without a key.
pub fn empty_key() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: key is not provided")
}

/// A put that keeps the value, or lease, of a key that doesn't exist.
pub fn key_not_found() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: key not found")
}

/// `ignore_value` with a value.
pub fn value_provided() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: value is provided")
}

/// `ignore_lease` with a lease.
pub fn lease_provided() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: lease is provided")
}

/// A sort order or target that doesn't exist.
pub fn invalid_sort() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: invalid sort option")
}

/// A transaction with too many steps.
pub fn too_many_ops() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: too many operations in txn request")
}

/// A transaction that writes a key twice.
pub fn duplicate_key() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
}

/// A write beyond the limit.
pub fn too_large() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: request is too large")
}

/// A lease that doesn't exist.
pub fn lease_not_found() -> Status {
    Status::new(Code::NotFound, "etcdserver: requested lease not found")
}

/// A lease id that is taken.
pub fn lease_exists() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: lease already exists")
}

/// A lease that would live too long.
pub fn lease_ttl_too_large() -> Status {
    Status::new(Code::OutOfRange, "etcdserver: too large lease TTL")
}

/// Nobody leads.
pub fn no_leader() -> Status {
    Status::new(Code::Unavailable, "etcdserver: no leader")
}

/// The caller went away.
pub fn cancelled() -> Status {
    Status::new(Code::Cancelled, "context canceled")
}

/// The lease of a lock or campaign ended before it had its turn. As etcd's `concurrency` package says it.
pub fn session_expired() -> Status {
    Status::new(Code::Unknown, "mutex: session is expired")
}

/// A proclamation of who doesn't lead any more.
pub fn not_election_leader() -> Status {
    Status::new(Code::Unknown, "election: not leader")
}

/// Nobody was elected.
pub fn no_election_leader() -> Status {
    Status::new(Code::Unknown, "election: no leader")
}

/// A proclamation or resignation without what the campaign returned.
pub fn missing_leader_key() -> Status {
    Status::new(Code::InvalidArgument, "\"leader\" field must be provided")
}

/// Leadership can only be moved by the leader.
pub fn not_leader() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: not leader")
}

/// Leadership can't be moved to who is no voting member.
pub fn bad_transferee() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: bad leader transferee")
}

/// There is no older version of us.
pub fn downgrade_unsupported() -> Status {
    Status::new(Code::Unimplemented, "there is no version to downgrade to")
}

/// A member whose URLs can't be used.
pub fn bad_urls() -> Status {
    Status::new(Code::InvalidArgument, "etcdserver: given member URLs are invalid")
}

/// Authentication by password needs a root user.
pub fn no_root_user() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: root user does not exist")
}

/// Authentication by password is off.
pub fn auth_not_enabled() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: authentication is not enabled")
}

/// No such user.
pub fn user_not_found() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: user name not found")
}

/// No such role.
pub fn role_not_found() -> Status {
    Status::new(Code::FailedPrecondition, "etcdserver: role name not found")
}

/// What the client sees of a store's error.
pub fn status(error: KvError) -> Status {
    match error {
        KvError::Compacted { .. } => {
            Status::new(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        }
        KvError::FutureRevision { .. } => {
            Status::new(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        KvError::LeaseNotFound(_) => lease_not_found(),
        KvError::LeaseExists(_) => lease_exists(),
        KvError::KeyNotFound(_) => key_not_found(),
        KvError::DuplicateKey(_) => duplicate_key(),
        KvError::TooLarge { .. } => too_large(),
        KvError::Overloaded => Status::new(Code::ResourceExhausted, "etcdserver: too many requests"),
        // Nothing was written: clients may try again at once.
        KvError::Unavailable(why) => {
            tracing::debug!(why, "a request found no leader");
            no_leader()
        }
        // It may have been written: clients of etcd know this text as "unknown outcome".
        KvError::Unknown => Status::new(Code::Unavailable, "etcdserver: request timed out"),
        KvError::NoSpace { detail, .. } => {
            tracing::debug!(detail, "a write was refused");
            Status::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        }
        KvError::Corrupt { detail, .. } => {
            tracing::debug!(detail, "a request was refused");
            Status::new(Code::DataLoss, "etcdserver: corrupt cluster")
        }
        KvError::Closed => Status::new(Code::Unavailable, "etcdserver: server stopped"),
        KvError::Invalid(why) => Status::new(Code::InvalidArgument, format!("etcdserver: {why}")),
    }
}
