//! After all faults: everybody serves again, leases end, and the members agree.

use std::time::{Duration, Instant};

use super::client::ATTEMPT;
use super::history::{Change, Outcome, Request, Revision};
use super::workload::{Run, look};

/// How long a group may take, once all faults are over, until every member acknowledges a write.
pub const RECOVERY: Duration = Duration::from_secs(30);
/// How long after its time to live a lease may last in a group that is whole again.
const LATENESS: Duration = Duration::from_secs(10);

/// Waits until every member acknowledges a write.
pub async fn recover(run: &Run) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERY;
    for member in 0..run.clients.count() {
        while let Outcome::Unknown(why) | Outcome::Failed(why) = write_once(run, member).await {
            if Instant::now() > deadline {
                return Err(format!("m{} serves no write {RECOVERY:?} after all faults: {why}", member + 1));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

async fn write_once(run: &Run, member: usize) -> Outcome {
    let value = format!("alive-{}", run.unique());
    let change = Change::Put { key: "alive".to_owned(), value, lease: 0 };
    let call = run.clients.call(3000, member, Request::Write { guard: None, changes: vec![change] }).await;
    let outcome = call.outcome.clone();
    run.record(call);
    outcome
}

/// No lease outlives its time by much in a group that is whole.
pub async fn leases_end(run: &Run) -> Result<(), String> {
    let leases = run.leases();
    let longest = leases.iter().map(|lease| lease.ttl).max().unwrap_or_default();
    let deadline = Instant::now() + longest + LATENESS;
    for lease in leases {
        let mut member = 0;
        while look(run, member, &lease.key).await != Some(None) {
            if Instant::now() > deadline {
                return Err(format!("{lease:?} lasts, long after its end"));
            }
            member = (member + 1) % run.clients.count();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// The last revision: attempts that were given up may still be carried out for a moment.
pub async fn settle(run: &Run) -> Result<Revision, String> {
    recover(run).await?;
    tokio::time::sleep(ATTEMPT / 2).await;
    recover(run).await?;
    Ok(run.known())
}

/// Every member has the same keys, values and revisions.
pub async fn same_hash(run: &Run, last: Revision) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let mut hashes = Vec::new();
        for member in 0..run.clients.count() {
            let mut client = run.clients.of(member);
            let answer = tokio::time::timeout(ATTEMPT, client.hash_kv(last)).await;
            hashes.push(match answer {
                Ok(Ok(answer)) => Ok((answer.hash(), answer.compact_version())),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            });
        }
        if hashes.iter().all(|hash| hash.is_ok() && *hash == hashes[0]) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the members' hashes at revision {last} differ: {hashes:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
