//! Leases in the replicated state: granted, renewed, written down and ended by entries.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Application, LeaseChange};
use crate::command::{Applied, Checkpoint, LeaseTurn, Outcome};
use crate::failpoint::failpoint;
use crate::kv::{KeyRange, KvError, Lease, LeaseId, Origin};
use crate::mvcc::family::{self, Family, LeaseRecord};
use crate::mvcc::txn::Writer;
use crate::mvcc::view::{DiskError, ReadView};

impl<V: ReadView> Application<'_, '_, V> {
    pub(super) fn expire(&mut self, leases: &[LeaseTurn], wall_ms: u64) -> Result<(), DiskError> {
        for lease in leases {
            if self.current(*lease)?.is_some() {
                failpoint!("lease_before_expire");
                // It exists, so there is nothing to be said about it.
                let _ended = self.end_lease(lease.id, wall_ms, "lease-expire")?;
            }
        }
        Ok(())
    }

    pub(super) fn checkpoint(&mut self, checkpoints: &[Checkpoint]) -> Result<(), DiskError> {
        failpoint!("lease_before_checkpoint");
        for Checkpoint { lease, remaining_seconds } in checkpoints {
            if let Some(record) = self.current(*lease)? {
                let record = LeaseRecord { remaining_seconds: Some(*remaining_seconds), ..record };
                self.overlay.batch.put(Family::Leases, family::lease_key(lease.id), record.encode());
                self.state.head.fold(&lease.id.0.to_be_bytes());
                self.state.head.fold(&remaining_seconds.to_be_bytes());
            }
        }
        Ok(())
    }

    /// The lease, unless it was renewed in the log or granted anew since.
    fn current(&self, lease: LeaseTurn) -> Result<Option<LeaseRecord>, DiskError> {
        Ok(self.lease(lease.id)?.filter(|record| record.generation == lease.generation))
    }

    pub(super) fn grant(&mut self, id: Option<LeaseId>, ttl_seconds: u64) -> Result<Applied, DiskError> {
        failpoint!("lease_before_grant");
        let id = match id {
            Some(id) if self.lease(id)?.is_some() => return Ok(Err(KvError::LeaseExists(id))),
            Some(id) => id,
            None => self.free_lease_id()?,
        };
        self.state.head.fold(&id.0.to_be_bytes());
        let generation = self.state.head.index;
        Ok(Ok(self.arm(id, LeaseRecord { ttl_seconds, generation, remaining_seconds: None })))
    }

    /// The next id that no caller has chosen.
    fn free_lease_id(&mut self) -> Result<LeaseId, DiskError> {
        loop {
            self.state.head.last_lease += 1;
            let id = LeaseId(self.state.head.last_lease);
            if self.lease(id)?.is_none() {
                return Ok(id);
            }
        }
    }

    pub(super) fn keep_alive(&mut self, id: LeaseId) -> Result<Applied, DiskError> {
        let Some(lease) = self.lease(id)? else { return Ok(Err(KvError::LeaseNotFound(id))) };
        let generation = lease.generation + 1;
        Ok(Ok(self.arm(id, LeaseRecord { generation, remaining_seconds: None, ..lease })))
    }

    fn arm(&mut self, id: LeaseId, lease: LeaseRecord) -> Outcome {
        self.overlay.batch.put(Family::Leases, family::lease_key(id), lease.encode());
        self.effects.leases.push(LeaseChange::Armed(id, lease));
        Outcome::Lease(Lease { id, ttl_seconds: lease.ttl_seconds })
    }

    /// Deletes the lease and all its keys, at one revision.
    pub(super) fn end_lease(&mut self, id: LeaseId, wall_ms: u64, verb: &str) -> Result<Applied, DiskError> {
        failpoint!("lease_before_revoke");
        if self.lease(id)?.is_none() {
            return Ok(Err(KvError::LeaseNotFound(id)));
        }
        let keys = attached(&*self.overlay, id)?;
        let mut writer = Writer::new(self.overlay, self.state.head.revision);
        for key in keys {
            writer.delete(&KeyRange::key(key))?;
        }
        let events = writer.events;
        self.overlay.batch.delete(Family::Leases, family::lease_key(id));
        self.effects.leases.push(LeaseChange::Ended(id));
        self.state.head.fold(&id.0.to_be_bytes());
        let agent = format!("lease/{id}");
        let origin = Origin { user: "system:store".into(), agent, verb: verb.into(), cause: None };
        self.finish_revision(events, wall_ms, origin);
        Ok(Ok(Outcome::Done))
    }

    fn lease(&self, id: LeaseId) -> Result<Option<LeaseRecord>, DiskError> {
        let record = self.overlay.get(Family::Leases, &family::lease_key(id))?;
        record
            .map(|record| LeaseRecord::decode(record).map_err(DiskError::damaged(Family::Leases)))
            .transpose()
    }
}

/// Whether there is such a lease.
///
/// # Errors
/// If the disk can't be read.
pub fn lease_exists(view: &impl ReadView, id: LeaseId) -> Result<bool, DiskError> {
    Ok(view.get(Family::Leases, &family::lease_key(id))?.is_some())
}

/// The keys that are attached to a lease, in order.
///
/// # Errors
/// If the disk can't be read.
pub fn attached(view: &impl ReadView, id: LeaseId) -> Result<Vec<Bytes>, DiskError> {
    let prefix = family::attachment_prefix(id);
    let end = KeyRange::prefix(prefix.clone()).end;
    let mut keys = Vec::new();
    view.scan(Family::Leases, &prefix, end.as_deref(), &mut |key, _| {
        keys.push(Bytes::copy_from_slice(&key[prefix.len()..]));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

/// All leases of a view, for a new leader's timers.
///
/// # Errors
/// If the disk can't be read.
pub fn leases(view: &impl ReadView) -> Result<Vec<(LeaseId, LeaseRecord)>, DiskError> {
    let mut leases = Vec::new();
    view.scan(Family::Leases, &[0], Some(&[1]), &mut |key, record| {
        let damaged = DiskError::damaged(Family::Leases);
        let id = crate::codec::Reader::new(key[1..].to_vec()).u64("lease").map_err(&damaged)?;
        let lease = LeaseRecord::decode(Bytes::copy_from_slice(record)).map_err(&damaged)?;
        leases.push((LeaseId(id), lease));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(leases)
}
