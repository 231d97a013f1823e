//! A client that writes numbered ConfigMaps and remembers which writes were acknowledged.
//!
//! An attempt whose answer is lost is tried again under the same name. "Already exists" then proves that the
//! lost attempt was stored, and counts as acknowledged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::cluster::kinds::Kind;
use crate::cluster::path::{self, Query};
use crate::cluster::request::RequestError;
use crate::up::ready::builtin;

/// An attempt that takes longer is tried again.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between attempts that were refused at once, so that a dead port isn't hammered.
const PAUSE: Duration = Duration::from_millis(10);
/// Label of everything that is written.
const LABEL: (&str, &str) = ("demo", "writes");

/// What was acknowledged, and when.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// Number of the write and time of its acknowledgement.
    pub writes: Vec<(u64, Instant)>,
    /// Attempts that failed or got no answer.
    pub failed_attempts: u64,
}

impl Acknowledged {
    /// The first acknowledgement after `moment`.
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.writes.iter().map(|(_, at)| *at).find(|at| *at > moment)
    }

    /// The longest time between two acknowledgements.
    pub fn longest_gap(&self) -> Duration {
        let pairs = self.writes.windows(2).map(|pair| pair[1].1 - pair[0].1);
        pairs.max().unwrap_or_default()
    }

    /// The numbers that were acknowledged but aren't in `stored`.
    pub fn lost(&self, stored: &BTreeSet<u64>) -> Vec<u64> {
        self.writes.iter().map(|(number, _)| *number).filter(|number| !stored.contains(number)).collect()
    }
}

fn config_maps() -> Kind {
    builtin("", "ConfigMap", "configmaps", true)
}

/// Writes one after the other until `stop`; `count` always says how many were acknowledged.
pub async fn write(
    cluster: &Cluster,
    mut stop: watch::Receiver<bool>,
    count: watch::Sender<u64>,
) -> Acknowledged {
    let collection = path::collection(&config_maps(), Some(cluster.namespace()));
    let mut acknowledged = Acknowledged::default();
    let mut number = 1;
    loop {
        let wanted = object(number);
        let outcome = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return acknowledged,
            outcome = timeout(ATTEMPT, cluster.create(&collection, &wanted)) => outcome,
        };
        if matches!(&outcome, Ok(result) if is_stored(result)) {
            acknowledged.writes.push((number, Instant::now()));
            count.send_replace(number);
            number += 1;
        } else {
            acknowledged.failed_attempts += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn is_stored(result: &Result<Value, RequestError>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => error.is(409),
    }
}

fn object(number: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": format!("write-{number:06}"), "labels": {LABEL.0: LABEL.1}},
        "data": {"number": number.to_string()},
    })
}

/// The numbers of everything that is stored, with its content read back.
pub async fn stored(cluster: &Cluster) -> Result<BTreeSet<u64>, RequestError> {
    let query = Query::new().with("labelSelector", format!("{}={}", LABEL.0, LABEL.1));
    let list = cluster.get(&query.on(&path::collection(&config_maps(), Some(cluster.namespace())))).await?;
    let items = list["items"].as_array().into_iter().flatten();
    Ok(items.filter_map(|item| item["data"]["number"].as_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(origin: Instant, writes: &[(u64, u64)]) -> Acknowledged {
        let at = |(number, millis): &(u64, u64)| (*number, origin + Duration::from_millis(*millis));
        Acknowledged { writes: writes.iter().map(at).collect(), failed_attempts: 0 }
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let seen = acknowledged(Instant::now(), &[(1, 0), (2, 5), (4, 9)]);
        assert_eq!(seen.lost(&BTreeSet::from([1, 2, 3, 4])), Vec::<u64>::new());
        assert_eq!(seen.lost(&BTreeSet::from([1, 3])), [2, 4]);
    }

    #[test]
    fn the_gap_is_between_acknowledgements() {
        let origin = Instant::now();
        let seen = acknowledged(origin, &[(1, 0), (2, 10), (3, 500), (4, 510)]);
        assert_eq!(seen.longest_gap(), Duration::from_millis(490));
        let after = seen.first_after(origin + Duration::from_millis(10));
        assert_eq!(after, Some(origin + Duration::from_millis(500)));
    }
}
