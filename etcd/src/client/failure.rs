//! etcd's errors as the store's. What matters most: whether a write may have happened.

use bytes::Bytes;
use store::kv::{KvError, LeaseId, Op, Revision, Status, Txn};

use super::channel::CallError;
use crate::grpc::{self, Code};

/// What was attempted: the outcome of a read that failed is never in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Changes nothing.
    Read,
    /// Changes something.
    Write,
}

/// What the call was about: etcd's errors don't repeat it.
#[derive(Clone, Copy, Default)]
pub struct Subject<'a> {
    /// A read of, or compaction at, this revision.
    pub revision: Option<Revision>,
    /// A call about this lease.
    pub lease: Option<LeaseId>,
    /// A transaction.
    pub txn: Option<&'a Txn>,
}

/// Largest request that etcd takes by default, in bytes.
const ETCD_LIMIT: usize = 1536 << 10;

/// Translates.
pub fn kv_error(error: CallError, attempt: Attempt, subject: Subject<'_>, status: &Status) -> KvError {
    match error {
        CallError::NotSent(why) => KvError::Unavailable(why),
        CallError::Lost(why) => in_doubt(attempt, why),
        CallError::Failed(failed) => answered(failed, attempt, subject, status),
    }
}

/// A write may have happened.
fn in_doubt(attempt: Attempt, why: String) -> KvError {
    match attempt {
        Attempt::Read => KvError::Unavailable(why),
        Attempt::Write => {
            tracing::debug!(why, "the outcome of a write is unknown");
            KvError::Unknown
        }
    }
}

fn answered(failed: grpc::Status, attempt: Attempt, subject: Subject<'_>, status: &Status) -> KvError {
    let text = failed.message.as_ref();
    let requested = subject.revision.unwrap_or(status.revision);
    match text.strip_prefix("etcdserver: ").unwrap_or(text) {
        // etcd doesn't tell how far; it is at least beyond what was asked for.
        "mvcc: required revision has been compacted" => {
            let compacted = status.compacted.max(requested);
            KvError::Compacted { requested, compacted }
        }
        "mvcc: required revision is a future revision" => {
            KvError::FutureRevision { requested, current: status.revision }
        }
        "requested lease not found" => KvError::LeaseNotFound(lease(subject)),
        "lease already exists" => KvError::LeaseExists(lease(subject)),
        "key not found" => KvError::KeyNotFound(amended(subject)),
        "duplicate key given in txn request" => KvError::DuplicateKey(written_twice(subject)),
        "request is too large" => KvError::TooLarge { size: ETCD_LIMIT + 1, limit: ETCD_LIMIT },
        "too many requests" => KvError::Overloaded,
        "mvcc: database space exceeded" => {
            KvError::NoSpace { member: status.member, detail: "etcd's quota is used up".into() }
        }
        "corrupt cluster" => KvError::Corrupt { member: status.member, detail: "etcd says so".into() },
        // Before anything is proposed.
        "no leader" | "rpc not supported for learner" | "unhealthy cluster" => {
            KvError::Unavailable(failed.to_string())
        }
        _ => match failed.code {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::Unimplemented => {
                KvError::Invalid(text.to_owned())
            }
            Code::PermissionDenied | Code::Unauthenticated => KvError::Invalid(text.to_owned()),
            Code::ResourceExhausted if text.contains("larger than max") => {
                KvError::TooLarge { size: ETCD_LIMIT + 1, limit: ETCD_LIMIT }
            }
            // "request timed out", "leader changed", "server stopped": may have been proposed.
            _ => in_doubt(attempt, failed.to_string()),
        },
    }
}

/// The lease that a call named.
fn lease(subject: Subject<'_>) -> LeaseId {
    let of = |op: &Op| match op {
        Op::Put { lease, .. } | Op::Amend { lease: Some(lease), .. } => *lease,
        _ => None,
    };
    let named = subject.txn.and_then(|txn| steps(txn).into_iter().find_map(of));
    subject.lease.or(named).unwrap_or(LeaseId(0))
}

fn amended(subject: Subject<'_>) -> Bytes {
    let of = |op: &Op| match op {
        Op::Amend { key, .. } => Some(key.clone()),
        _ => None,
    };
    subject.txn.and_then(|txn| steps(txn).into_iter().find_map(of)).unwrap_or_default()
}

/// The first key that is put a second time; empty if the other write is a deletion.
fn written_twice(subject: Subject<'_>) -> Bytes {
    let Some(txn) = subject.txn else { return Bytes::new() };
    let mut seen = std::collections::HashSet::new();
    let keys = steps(txn).into_iter().filter_map(|op| match op {
        Op::Put { key, .. } | Op::Amend { key, .. } => Some(key),
        _ => None,
    });
    keys.into_iter().find(|key| !seen.insert(*key)).cloned().unwrap_or_default()
}

/// All steps, nested ones included.
fn steps(txn: &Txn) -> Vec<&Op> {
    let mut all = Vec::new();
    for op in txn.success.iter().chain(&txn.failure) {
        all.push(op);
        if let Op::Txn(nested) = op {
            all.extend(steps(nested));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::kv::MemberId;

    fn status() -> Status {
        Status {
            member: MemberId(1),
            leader: None,
            term: 1,
            applied_index: 0,
            revision: Revision(9),
            compacted: Revision(3),
            voters: vec![],
            learners: vec![],
        }
    }

    fn translated(code: Code, text: &'static str, attempt: Attempt) -> String {
        let subject = Subject { revision: Some(Revision(5)), lease: Some(LeaseId(7)), txn: None };
        let failed = CallError::Failed(grpc::Status::new(code, text));
        format!("{:?}", kv_error(failed, attempt, subject, &status()))
    }

    #[test]
    fn a_write_without_a_clear_answer_is_unknown() {
        for (code, text) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unknown, "raft proposal dropped"),
        ] {
            assert_eq!(translated(code, text, Attempt::Write), "Unknown", "{text}");
            assert!(translated(code, text, Attempt::Read).starts_with("Unavailable"), "{text}");
        }
        let lost = || CallError::Lost("reset".into());
        assert!(matches!(kv_error(lost(), Attempt::Write, Subject::default(), &status()), KvError::Unknown));
        let not_sent = CallError::NotSent("refused".into());
        let error = kv_error(not_sent, Attempt::Write, Subject::default(), &status());
        assert!(matches!(error, KvError::Unavailable(_)));
    }

    #[test]
    fn every_error_of_the_server_comes_back() {
        use crate::error::status as to_wire;
        let errors = [
            KvError::LeaseNotFound(LeaseId(7)),
            KvError::LeaseExists(LeaseId(7)),
            KvError::Overloaded,
            KvError::FutureRevision { requested: Revision(5), current: Revision(9) },
            KvError::Compacted { requested: Revision(5), compacted: Revision(5) },
            KvError::Unknown,
        ];
        for error in errors {
            let subject = Subject { revision: Some(Revision(5)), lease: Some(LeaseId(7)), txn: None };
            let failed = CallError::Failed(to_wire(error.clone()));
            let back = kv_error(failed, Attempt::Write, subject, &status());
            assert_eq!(format!("{back:?}"), format!("{error:?}"));
        }
    }
}
