//! The Node objects and Leases of simulated nodes.
//!
//! Heartbeats go round: each node in its turn, evenly over the interval, so that at rest there is a trickle of
//! small writes and never a burst.

use super::pod::HOST;
use super::{HollowConfig, HollowError};
use crate::config::{Heartbeat, KubeletConfig};
use crate::node::facts::Machine;
use crate::node::lease;
use crate::node::object::{Health, NodeDescription};
use client::backoff::{Backoff, Policy};
use futures::stream::{StreamExt as _, TryStreamExt as _, iter};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Nodes that are registered, or renewed, at once.
const AT_ONCE: usize = 32;
/// Renewals are grouped into rounds of this length: fewer wake-ups, and nobody sees the difference.
const ROUND: Duration = Duration::from_millis(500);

/// The name of a simulated node.
pub fn name(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number}")
}

/// Speaks for all of them.
pub struct Nodes {
    nodes: Api<Node>,
    leases: Api<Lease>,
    config: HollowConfig,
    machine: Machine,
}

impl Nodes {
    /// Nothing is registered yet.
    pub fn new(client: Client, config: &HollowConfig) -> Self {
        Nodes {
            nodes: Api::all(client.clone()),
            leases: Api::namespaced(client, lease::NAMESPACE),
            config: config.clone(),
            machine: machine(),
        }
    }

    /// Registers every node and renews its lease.
    pub async fn register_all(&self) -> Result<(), HollowError> {
        let all = iter(1..=self.config.count).map(|number| self.register(number));
        all.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// Renews every lease in turn, for ever.
    pub async fn heartbeats(&self, times: Heartbeat) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut turn, mut last) = (Turn::new(self.config.count, times.renew_interval), Instant::now());
        loop {
            let now = rounds.tick().await.into_std();
            // After a pause of this process others have said that our nodes are silent: say that they aren't.
            let was_away = now.duration_since(last) > times.lease_duration;
            let due: Vec<usize> =
                if was_away { (1..=self.config.count).collect() } else { turn.due(now - last) };
            last = now;
            let beats = iter(due).map(|number| self.beat(number, was_away));
            beats.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        }
    }

    async fn beat(&self, number: usize, register: bool) {
        let name = name(&self.config.prefix, number);
        let renewed = match register {
            true => Err(None),
            false => self.renew(&name).await.map_err(Some),
        };
        let outcome = match renewed {
            Ok(()) => return,
            // The node's lease went with the node.
            Err(None) => self.register(number).await,
            Err(Some(kube::Error::Api(status))) if status.code == 404 => self.register(number).await,
            Err(Some(source)) => Err(HollowError { node: name.clone(), source: Box::new(source) }),
        };
        if let Err(error) = outcome {
            tracing::warn!(node = name, error = %error.source, "a simulated node could not say that it lives");
        }
    }

    async fn renew(&self, name: &str) -> Result<(), kube::Error> {
        let renewal = lease::renewal(name, self.config.heartbeat.lease_duration, Timestamp::now());
        self.leases.patch_metadata(name, &PatchParams::default(), &Patch::Merge(renewal)).await.map(drop)
    }

    /// Makes the node, or says of the one that is there that it is ready; then renews its lease. While the API
    /// server can't be reached it goes on trying.
    async fn register(&self, number: usize) -> Result<(), HollowError> {
        let mut backoff = Backoff::new(Policy::CONNECT);
        loop {
            match self.try_register(number).await {
                Ok(()) => return Ok(()),
                Err(error @ kube::Error::Api(_)) => {
                    let node = name(&self.config.prefix, number);
                    return Err(HollowError { node, source: Box::new(error) });
                }
                Err(error) => {
                    tracing::info!(%error, "the API server can't be reached yet");
                    tokio::time::sleep(backoff.failed(rand::random())).await;
                }
            }
        }
    }

    async fn try_register(&self, number: usize) -> Result<(), kube::Error> {
        let (description, now) = (self.describe(number), Timestamp::now());
        let name = &description.config.node_name.0;
        let node =
            match self.nodes.create(&PostParams::default(), &description.node(&Health::default(), now)).await
            {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let status = Patch::Strategic(
                        json!({"status": description.status(None, &Health::default(), now)}),
                    );
                    self.nodes.patch_status(name, &PatchParams::default(), &status).await?
                }
                made => made?,
            };
        let owner = node.metadata.uid.map(|uid| lease::owner(name, &uid));
        lease::renew(&self.leases, name, owner, self.config.heartbeat.lease_duration).await
    }

    fn describe(&self, number: usize) -> NodeDescription {
        let address: IpAddr = HOST.parse().expect("a constant address");
        let mut config = KubeletConfig::new(name(&self.config.prefix, number), "", address);
        config.capacity = self.config.capacity.clone();
        config.labels = self.config.labels.clone();
        config.labels.insert("type".to_owned(), "simulated".to_owned());
        if self.config.zones > 0 {
            let zone = format!("zone-{}", (number - 1) % self.config.zones + 1);
            config.labels.insert("topology.kubernetes.io/zone".to_owned(), zone);
        }
        NodeDescription {
            config,
            machine: self.machine.clone(),
            runtime_version: format!("hollow://{}", env!("CARGO_PKG_VERSION")),
            port: None,
        }
    }
}

/// What no flag says otherwise.
fn machine() -> Machine {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Machine {
        cpus: 32,
        memory: 256 << 30,
        storage: 1 << 40,
        architecture: architecture.to_owned(),
        os_image: "simulated".to_owned(),
        ..Machine::default()
    }
}

/// Whose turn it is, of nodes numbered from 1.
struct Turn {
    count: usize,
    interval: Duration,
    next: usize,
    /// What is left of a node's share of time.
    rest: Duration,
}

impl Turn {
    fn new(count: usize, interval: Duration) -> Self {
        Turn { count, interval, next: 0, rest: Duration::ZERO }
    }

    /// Who is due after so much more time; nobody twice.
    fn due(&mut self, elapsed: Duration) -> Vec<usize> {
        if self.count == 0 {
            return Vec::new();
        }
        let share = self.interval.max(Duration::from_nanos(1)).as_nanos() / self.count as u128;
        let total = (self.rest + elapsed).as_nanos();
        let turns = total.checked_div(share).unwrap_or(u128::MAX).min(self.count as u128);
        let rest = total.saturating_sub(turns * share).min(share);
        self.rest = Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX));
        let turns = usize::try_from(turns).expect("at most the number of nodes");
        let due = (0..turns).map(|turn| (self.next + turn) % self.count + 1).collect();
        self.next = (self.next + turns) % self.count;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_turn_once_an_interval() {
        let mut turn = Turn::new(10, Duration::from_secs(5));
        assert_eq!(turn.due(Duration::from_millis(1600)), [1, 2, 3]);
        assert_eq!(turn.due(Duration::from_millis(500)), [4], "what was left over counts");
        let rest: Vec<usize> = (0..6).flat_map(|_| turn.due(Duration::from_millis(500))).collect();
        assert_eq!(rest, [5, 6, 7, 8, 9, 10]);
        assert_eq!(turn.due(Duration::from_secs(60)).len(), 10, "nobody twice after a pause");
        assert_eq!(Turn::new(0, Duration::from_secs(1)).due(Duration::from_secs(9)), [0usize; 0]);
    }
}
