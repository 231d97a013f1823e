//! Clients that each do one thing at a time, at any member, and know what they were told.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::oracle::Call;
use super::plan::Weights;
use super::random::Random;
use super::registers::{key, value};
use super::verdict::{Judge, ensure};
use super::world::World;
use crate::command::{Applied, Command, Outcome};
use crate::kv::{
    Compare, KeyRange, KvError, LeaseId, Op, OpResponse, Origin, RangeRequest, RangeResponse, Revision, Txn,
};
use crate::mvcc::read;
use crate::mvcc::state::Head;
use crate::raft::lease_desk::{LeaseAnswer, LeaseAsk};
use crate::raft::proposals::Ticket;
use crate::raft::replica::Input;

const CLIENTS: u64 = 4;
/// Keys that hang on leases.
const LEASED_KEYS: u64 = 3;
/// Steps after which a client stops waiting.
const PATIENCE: u64 = 220;

pub struct Clients {
    random: Random,
    all: Vec<Client>,
    tickets: u64,
    values: u64,
}

/// A client with at most one operation on its way.
#[derive(Clone, Default)]
struct Client {
    busy: Option<Busy>,
    /// The last revision it saw of each key, for comparisons.
    seen: BTreeMap<Bytes, Revision>,
    lease: Option<LeaseId>,
}

#[derive(Clone)]
struct Busy {
    node: usize,
    ticket: Ticket,
    call: Call,
    /// Not a write but a read.
    read: Option<RangeRequest>,
    /// Not a write but a question.
    asked: Option<LeaseAsk>,
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Compare,
    Delete,
    Many,
    Read,
    ReadPast,
    ReadStale,
    Compact,
    Lease,
}

enum Want {
    Write(Command),
    Read(RangeRequest),
    Lease(LeaseAsk),
    Stale(RangeRequest),
}

impl Clients {
    pub fn new(seed: u64) -> Self {
        let all = vec![Client::default(); usize::try_from(CLIENTS).expect("a few")];
        Self { random: Random::new(seed, 3), all, tickets: 0, values: 0 }
    }

    pub fn idle(&self) -> bool {
        self.all.iter().all(|client| client.busy.is_none())
    }

    /// A ticket that no client waits with.
    pub fn nobody(&mut self) -> Ticket {
        self.ticket(0)
    }

    fn ticket(&mut self, client: usize) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets * CLIENTS + client as u64)
    }

    fn take(&mut self, ticket: Ticket) -> Option<(usize, Busy)> {
        let client = usize::try_from(ticket.0 % CLIENTS).expect("a few");
        Some((client, self.all[client].busy.take_if(|busy| busy.ticket == ticket)?))
    }

    fn fresh_value(&mut self) -> Bytes {
        self.values += 1;
        value(self.values)
    }

    fn choose(&mut self, client: usize, weights: Weights, keys: u64, newest: Revision) -> Want {
        let Weights { put, compare, delete, many, read, read_past, read_stale, compact, lease } = weights;
        let kind = self.random.weighted(&[
            (put, Kind::Put),
            (compare, Kind::Compare),
            (delete, Kind::Delete),
            (many, Kind::Many),
            (read, Kind::Read),
            (read_past, Kind::ReadPast),
            (read_stale, Kind::ReadStale),
            (compact, Kind::Compact),
            (lease, Kind::Lease),
        ]);
        let key = key(self.random.below(keys));
        let some_range =
            if self.random.percent(30) { KeyRange::prefix("k") } else { KeyRange::key(key.clone()) };
        let recent = Revision(newest.0.saturating_sub(self.random.below(30)));
        match kind {
            Kind::Put => Want::Write(self.put(key)),
            Kind::Compare => Want::Write(self.compare(client, key)),
            Kind::Delete => {
                Want::Write(self.named(Txn { success: vec![Op::Delete(some_range)], ..Txn::default() }))
            }
            Kind::Many => Want::Write(self.many(keys, recent)),
            Kind::Read => Want::Read(RangeRequest::new(some_range)),
            Kind::ReadPast => {
                Want::Read(RangeRequest { revision: Some(recent), ..RangeRequest::new(some_range) })
            }
            Kind::ReadStale => {
                let revision = self.random.percent(30).then_some(recent);
                let limit = self.random.index(3);
                Want::Stale(RangeRequest { revision, limit, ..RangeRequest::new(KeyRange::prefix("")) })
            }
            Kind::Compact => Want::Write(Command::Compact(recent)),
            Kind::Lease => self.lease(client),
        }
    }

    /// A transaction by which it is found in the log.
    fn named(&mut self, txn: Txn) -> Command {
        self.values += 1;
        let origin = Origin { agent: format!("transaction {}", self.values), ..Origin::default() };
        Command::Txn(Txn { origin, ..txn })
    }

    fn put(&mut self, key: Bytes) -> Command {
        let value = self.fresh_value();
        let op = match self.random.below(8) {
            0 => Op::Amend { key, value: Some(value), lease: None },
            1 => Op::Amend { key, value: None, lease: Some(None) },
            _ => Op::Put { key, value, lease: None },
        };
        self.named(Txn { success: vec![op], ..Txn::default() })
    }

    fn compare(&mut self, client: usize, key: Bytes) -> Command {
        let seen = self.all[client].seen.get(&key).copied().unwrap_or_default();
        let value = self.fresh_value();
        let success = if self.random.percent(20) {
            vec![Op::Delete(KeyRange::key(key.clone()))]
        } else {
            vec![Op::Put { key: key.clone(), value, lease: None }]
        };
        let failure = vec![Op::Range(RangeRequest::new(KeyRange::key(key.clone())))];
        self.named(Txn {
            compare: vec![Compare::mod_revision(key, seen)],
            success,
            failure,
            ..Txn::default()
        })
    }

    /// Two keys at once, sometimes with a look at the past that may be compacted by then.
    fn many(&mut self, keys: u64, recent: Revision) -> Command {
        let first = self.random.below(keys);
        let mut success: Vec<Op> = (first..keys.min(first + 2))
            .map(|number| Op::Put { key: key(number), value: self.fresh_value(), lease: None })
            .collect();
        if self.random.percent(50) {
            let request = RangeRequest::new(KeyRange::prefix("k"));
            success.push(Op::Range(RangeRequest { revision: Some(recent), ..request }));
        }
        self.named(Txn { success, ..Txn::default() })
    }

    fn lease(&mut self, client: usize) -> Want {
        let Some(id) = self.all[client].lease.filter(|_| !self.random.percent(5)) else {
            let id = self.random.percent(50).then(|| LeaseId(1 + self.random.below(1000)));
            return Want::Write(Command::LeaseGrant { id, ttl_seconds: self.random.between(1, 3) });
        };
        match self.random.below(20) {
            0 => Want::Write(Command::LeaseRevoke(id)),
            1 => Want::Write(Command::LeaseKeepAlive(id)),
            2 => Want::Lease(LeaseAsk::Left(id)),
            3..9 => {
                let key = Bytes::from(format!("l{}", self.random.below(LEASED_KEYS)));
                let value = self.fresh_value();
                let put = Op::Put { key, value, lease: Some(id) };
                Want::Write(self.named(Txn { success: vec![put], ..Txn::default() }))
            }
            _ => Want::Lease(LeaseAsk::KeepAlive(id)),
        }
    }
}

impl World {
    /// Idle clients begin something; who waited too long gives up.
    pub fn clients_act(&mut self) {
        for client in 0..self.clients.all.len() {
            match &self.clients.all[client].busy {
                Some(busy) if self.now > busy.call.began + PATIENCE => self.give_up(client),
                Some(_) => {}
                None if self.clients.random.percent(self.plan.workload.eagerness) => self.begin(client),
                None => {}
            }
        }
    }

    fn give_up(&mut self, client: usize) {
        let busy = self.clients.all[client].busy.take().expect("it waits");
        if busy.read.is_none() && busy.asked.is_none() {
            self.summary.unknown += 1;
            self.oracle.unanswered(&busy.call);
        }
    }

    /// Who waited at this member will never know.
    pub fn abandon_calls(&mut self, node: usize) {
        for client in 0..self.clients.all.len() {
            if self.clients.all[client].busy.as_ref().is_some_and(|busy| busy.node == node) {
                self.give_up(client);
            }
        }
    }

    fn begin(&mut self, client: usize) {
        let node = self.clients.random.index(self.nodes.len());
        let Some(running) = &self.nodes[node].running else { return };
        let applied_before = running.replica.state().head.index;
        let ticket = self.clients.ticket(client);
        let (weights, keys) = (self.plan.workload.weights, self.plan.workload.keys);
        let newest = self.oracle.newest();
        let nothing = Command::Compact(Revision(0));
        let (command, read, asked, input) = match self.clients.choose(client, weights, keys, newest) {
            Want::Stale(request) => return self.read_stale(node, &request),
            Want::Write(command) => (command.clone(), None, None, Input::Propose(ticket, command)),
            Want::Read(request) => (nothing, Some(request), None, Input::Read(ticket)),
            Want::Lease(ask) => (nothing, None, Some(ask), Input::Lease(ticket, ask)),
        };
        let member = running.replica.id();
        let call = Call { began: self.now, member, applied_before, command };
        self.clients.all[client].busy = Some(Busy { node, ticket, call, read, asked });
        self.nodes[node].inbox.push(input);
    }

    pub fn answer_write(&mut self, node: usize, ticket: Ticket, result: &Applied) {
        let Some((client, Busy { call, .. })) = self.clients.take(ticket) else { return };
        let applied = self.applied(node);
        self.oracle.replied(self.now, &call, applied, result);
        match result {
            Ok(_) => self.summary.writes += 1,
            Err(KvError::Unknown) => self.summary.unknown += 1,
            Err(_) => self.summary.refused += 1,
        }
        self.progressed(node, call.began, result.is_ok());
        let client = &mut self.clients.all[client];
        match (&call.command, result) {
            (Command::Txn(txn), Ok(Outcome::Txn(response))) => {
                let ops = if response.succeeded { &txn.success } else { &txn.failure };
                ops.iter()
                    .zip(&response.responses)
                    .for_each(|(op, of)| client.see(op, of, response.revision));
            }
            (Command::LeaseGrant { .. }, Ok(Outcome::Lease(lease))) => client.lease = Some(lease.id),
            (_, Err(KvError::LeaseNotFound(_))) => client.lease = None,
            _ => {}
        }
    }

    pub fn answer_lease(&mut self, ticket: Ticket, result: &LeaseAnswer) {
        let Some((client, Busy { call, asked, .. })) = self.clients.take(ticket) else { return };
        let ask = asked.expect("a question was asked");
        match result {
            Ok(left) => {
                self.summary.renewed += 1;
                let renewed = matches!(ask, LeaseAsk::KeepAlive(_));
                self.oracle.lease_lives(self.now, call.began, ask.id(), left.ttl_seconds, renewed);
            }
            Err(KvError::LeaseNotFound(id)) => {
                self.oracle.lease_is_gone(call.began, *id);
                self.clients.all[client].lease = None;
            }
            Err(_) => self.summary.refused += 1,
        }
    }

    pub fn answer_read(&mut self, node: usize, ticket: Ticket, result: &Result<(), KvError>) {
        let Some((client, Busy { call, read, .. })) = self.clients.take(ticket) else { return };
        let request = read.expect("a read was asked for");
        if result.is_err() {
            self.summary.refused += 1;
            return;
        }
        if let Some(response) = self.read(node, call.began, true, &request) {
            self.summary.reads += 1;
            let client = &mut self.clients.all[client];
            client.see(&Op::Range(request), &OpResponse::Range(response.clone()), response.revision);
        }
    }

    fn read_stale(&mut self, node: usize, request: &RangeRequest) {
        if self.read(node, self.now, false, request).is_some() {
            self.summary.stale_reads += 1;
        }
    }

    /// Reads as the store does once a read is confirmed.
    fn read(
        &mut self,
        node: usize,
        began: u64,
        up_to_date: bool,
        request: &RangeRequest,
    ) -> Option<RangeResponse> {
        let running = self.nodes[node].running.as_ref()?;
        let disk = running.replica.disk();
        let head = Head::load(disk).expect("memory can be read");
        if read::check_revision(&head, request.revision).is_err() {
            let asked = request.revision.unwrap_or_default();
            let (newest, compacted) = self.oracle.replay.head(head.index);
            ensure!(asked > newest || asked < compacted, Judge::Replay, "a read at {asked} was refused");
            return None;
        }
        let response = read::range(disk, head.revision, request).expect("memory can be read");
        self.oracle.was_read(self.now, began, up_to_date, request, &head, &response);
        Some(response)
    }
}

impl Client {
    /// Remembers where keys stand.
    fn see(&mut self, op: &Op, response: &OpResponse, revision: Revision) {
        match (op, response) {
            (Op::Put { key, .. }, OpResponse::Put(_)) => drop(self.seen.insert(key.clone(), revision)),
            (Op::Range(request), OpResponse::Range(range)) if request.revision.is_none() => {
                self.seen.retain(|key, _| !request.range.contains(key));
                self.seen.extend(range.kvs.iter().map(|kv| (kv.key.clone(), kv.mod_revision)));
            }
            (Op::Delete(range), OpResponse::Delete(_)) => self.seen.retain(|key, _| !range.contains(key)),
            _ => {}
        }
    }
}
