//! What the local cluster is made of, as remembered in `cluster.json`.
//!
//! Members and nodes of an existing cluster can't be changed by flags: a different number is an error, never
//! a silent change. The API's port may change from one start to the next, as it may be taken; the ports that
//! members talk through stay, as the store knows its members by them. So may what is kept until another start names
//! something else: the scheduler's configuration, the pods' network and their runtime.

use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::pod_network::Kind;

/// The form of `cluster.json` that this binary writes.
const FORMAT: u32 = 1;
/// One member: a cluster for one person gains nothing from a quorum on one machine, and each write is
/// cheaper. `--members 3` is for seeing a leader fail.
const DEFAULT_MEMBERS: u32 = 1;
/// Three nodes: they cost a few megabytes each, and with them spreading, draining and healing can be seen
/// at once.
const DEFAULT_NODES: u32 = 3;
/// Where every Kubernetes API server listens.
const DEFAULT_PORT: u16 = 6443;

/// The parts of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    format: u32,
    /// Members of the control plane: 1, 3 or 5.
    pub members: u32,
    /// Node agents.
    pub nodes: u32,
    /// Nodes that one process simulates.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fake_nodes: u32,
    /// Where the API is.
    pub port: u16,
    /// Where each member talks to the others. The store remembers its members by these, so they stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer_ports: Vec<u16>,
    /// The flags by which members reach a stock etcd cluster; empty if they have stores of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub etcd: Vec<String>,
    /// The file that says by which rules pods are scheduled; upstream's without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_config: Option<String>,
    /// Whether pods have addresses of their own, if somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_network: Option<Kind>,
    /// The socket of the container runtime beside the nodes' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<String>,
}

/// What the flags ask for; what is not asked for is `None`.
#[derive(Clone, Debug, Default)]
pub struct Requested {
    /// `--members`
    pub members: Option<u32>,
    /// `--nodes`
    pub nodes: Option<u32>,
    /// `--fake-nodes`
    pub fake_nodes: Option<u32>,
    /// `--port`
    pub port: Option<u16>,
    /// `--etcd-servers` and what belongs to it
    pub etcd: Vec<String>,
    /// `--scheduler-config`
    pub scheduler_config: Option<Kept>,
    /// `--pod-network`
    pub pod_network: Option<Kind>,
    /// `--container-runtime-endpoint`
    pub container_runtime: Option<Kept>,
}

/// The flags and the directory don't go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A flag contradicts the existing cluster.
    #[error(
        "the cluster in this directory has {existing} {what}, but --{what} says {asked}: leave the flag out to \
         start it as it is, or start another cluster with --data-dir DIR"
    )]
    Contradiction {
        /// `members`, `nodes` or `fake-nodes`.
        what: &'static str,
        /// How many there are.
        existing: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// The objects are elsewhere.
    #[error(
        "the cluster in this directory keeps its objects {existing}, but --etcd-servers says otherwise: leave the \
         flag out to start it as it is, or start another cluster with --data-dir DIR"
    )]
    Etcd {
        /// Where they are.
        existing: String,
    },
    /// The file was written by a newer binary, or by nobody.
    #[error("cluster.json can't be used ({0}): it was written by another version, or damaged")]
    Unreadable(String),
}

impl Shape {
    /// The shape to start: the existing one, or a new one from the flags.
    pub fn decide(existing: Option<Shape>, asked: Requested) -> Result<Shape, ShapeError> {
        let Some(existing) = existing else {
            let fake_nodes = asked.fake_nodes.unwrap_or(0);
            // Who asks for simulated nodes wants their pods there, not here and there.
            let nodes = if fake_nodes > 0 { 0 } else { DEFAULT_NODES };
            return Ok(Shape {
                format: FORMAT,
                members: asked.members.unwrap_or(DEFAULT_MEMBERS),
                nodes: asked.nodes.unwrap_or(nodes),
                fake_nodes,
                port: asked.port.unwrap_or(DEFAULT_PORT),
                peer_ports: Vec::new(),
                etcd: asked.etcd,
                scheduler_config: Kept::over(asked.scheduler_config, None),
                pod_network: asked.pod_network,
                container_runtime: Kept::over(asked.container_runtime, None),
            });
        };
        agree("members", existing.members, asked.members)?;
        agree("nodes", existing.nodes, asked.nodes)?;
        agree("fake-nodes", existing.fake_nodes, asked.fake_nodes)?;
        if !asked.etcd.is_empty() && asked.etcd != existing.etcd {
            let own = "in its own store".to_owned();
            let existing = existing.etcd.get(1).map_or(own, |servers| format!("in the etcd at {servers}"));
            return Err(ShapeError::Etcd { existing });
        }
        Ok(Shape {
            port: asked.port.unwrap_or(existing.port),
            scheduler_config: Kept::over(asked.scheduler_config, existing.scheduler_config),
            pod_network: asked.pod_network.or(existing.pod_network),
            container_runtime: Kept::over(asked.container_runtime, existing.container_runtime),
            ..existing
        })
    }

    /// Reads `cluster.json`.
    pub fn parse(text: &str) -> Result<Shape, ShapeError> {
        let shape: Shape =
            serde_json::from_str(text).map_err(|error| ShapeError::Unreadable(error.to_string()))?;
        match shape.format {
            FORMAT => Ok(shape),
            other => Err(ShapeError::Unreadable(format!("format {other} instead of {FORMAT}"))),
        }
    }

    /// Writes `cluster.json`.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers always have a JSON form") + "\n"
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn agree(what: &'static str, existing: u32, asked: Option<u32>) -> Result<(), ShapeError> {
    match asked {
        Some(asked) if asked != existing => Err(ShapeError::Contradiction { what, existing, asked }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(members: Option<u32>, nodes: Option<u32>, port: Option<u16>) -> Requested {
        Requested { members, nodes, port, ..Requested::default() }
    }

    #[test]
    fn a_new_cluster_has_the_defaults_and_comes_back_as_it_was() {
        let new = Shape::decide(None, asked(None, Some(2), None)).expect("nothing to contradict");
        assert_eq!((new.members, new.nodes, new.port), (1, 2, 6443));
        let read = Shape::parse(&new.to_text()).expect("what we wrote");
        assert_eq!(Shape::decide(Some(read), Requested::default()), Ok(new));
    }

    #[test]
    fn simulated_nodes_are_alone_unless_asked_and_are_remembered() {
        let fake = Requested { fake_nodes: Some(5000), ..Requested::default() };
        let new = Shape::decide(None, fake.clone()).expect("new");
        assert_eq!((new.nodes, new.fake_nodes), (0, 5000));
        let read = Shape::parse(&new.to_text()).expect("what we wrote");
        assert_eq!(Shape::decide(Some(read), Requested::default()), Ok(new.clone()));
        let other = Requested { fake_nodes: Some(7), ..Requested::default() };
        let error = Shape::decide(Some(new), other).expect_err("a contradiction").to_string();
        assert!(error.contains("5000 fake-nodes, but --fake-nodes says 7"), "{error}");
        let both = Shape::decide(None, Requested { nodes: Some(2), ..fake }).expect("both");
        assert_eq!((both.nodes, both.fake_nodes), (2, 5000));
    }

    #[test]
    fn flags_that_contradict_are_refused_and_equal_ones_are_not() {
        let existing = Shape::decide(None, asked(Some(3), Some(2), None)).expect("new");
        let decide = |asked| Shape::decide(Some(existing.clone()), asked);
        let expected = ShapeError::Contradiction { what: "members", existing: 3, asked: 1 };
        assert_eq!(decide(asked(Some(1), None, None)), Err(expected));
        assert!(decide(asked(Some(3), Some(5), None)).is_err());
        assert_eq!(decide(asked(Some(3), Some(2), None)), Ok(existing.clone()));
    }

    #[test]
    fn a_cluster_stays_with_its_objects() {
        let etcd = vec!["--etcd-servers".to_owned(), "http://127.0.0.1:2379".to_owned()];
        let on_etcd = Requested { etcd: etcd.clone(), ..Requested::default() };
        let existing = Shape::decide(None, on_etcd.clone()).expect("new");
        assert_eq!(Shape::decide(Some(existing.clone()), Requested::default()).expect("as it is").etcd, etcd);
        assert!(Shape::decide(Some(existing), on_etcd.clone()).is_ok());
        let own = Shape::decide(None, Requested::default()).expect("new");
        let error = Shape::decide(Some(own), on_etcd).expect_err("elsewhere").to_string();
        assert!(error.contains("in its own store"), "{error}");
    }

    #[test]
    fn the_port_may_move() {
        let existing = Shape::decide(None, Requested::default()).expect("new");
        let moved = Shape::decide(Some(existing), asked(None, None, Some(7000))).expect("allowed");
        assert_eq!(moved.port, 7000);
    }

    #[test]
    fn what_may_change_is_kept_until_it_does() {
        let socket = Kept::Path("/run/containerd/containerd.sock".to_owned());
        let flags = Requested {
            scheduler_config: Some(Kept::Path("/etc/scheduler.yaml".to_owned())),
            pod_network: Some(Kind::Host),
            container_runtime: Some(socket),
            ..Requested::default()
        };
        let first = Shape::decide(None, flags).expect("new");
        let read = Shape::parse(&first.to_text()).expect("what we wrote");
        assert_eq!(read.scheduler_config.as_deref(), Some("/etc/scheduler.yaml"));
        assert_eq!(Shape::decide(Some(read.clone()), Requested::default()), Ok(read.clone()));
        let others = Requested {
            scheduler_config: Some(Kept::Forgotten),
            pod_network: Some(Kind::Bridge),
            container_runtime: Some(Kept::Forgotten),
            ..Requested::default()
        };
        let changed = Shape::decide(Some(read), others).expect("allowed");
        assert_eq!((changed.scheduler_config, changed.container_runtime), (None, None));
        assert_eq!(changed.pod_network, Some(Kind::Bridge));
    }

    #[test]
    fn another_format_is_not_guessed() {
        let error =
            Shape::parse("{\"format\": 9, \"members\": 1, \"nodes\": 1, \"port\": 1}").expect_err("newer");
        assert!(error.to_string().contains("format 9"));
        assert!(Shape::parse("{").is_err());
    }
}
