//! A node is killed with its pods: others take over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::cluster::DemoCluster;
use super::timeline::{Check, Timeline, chapter};
use crate::cluster::Cluster;
use crate::cluster::path::Query;
use crate::cluster::request::RequestError;
use crate::cluster::watch::EventKind;
use crate::failure::Failure;
use crate::text::count;
use crate::up::chaos_socket::Order;
use crate::up::ready::{self, builtin, follow};

/// Every replica must run again this soon.
const LIMIT: Duration = Duration::from_secs(5);
/// The demo gives up after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pods of the demo by name: on which node, and whether ready.
#[derive(Clone, Debug, Default)]
pub struct Pods(BTreeMap<String, Pod>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    node: String,
    ready: bool,
    leaving: bool,
}

/// What is new about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It was told where to run.
    Placed(String),
    /// It serves there.
    Ready(String),
    /// It is given up.
    Leaving(String),
    /// Nothing worth a line.
    Nothing,
}

impl Pods {
    /// Takes a change and says what is new.
    pub fn see(&mut self, kind: EventKind, object: &Value) -> News {
        let name = api::object::name(object).to_owned();
        if kind == EventKind::Deleted {
            let known = self.0.remove(&name).is_none_or(|pod| pod.leaving);
            return if known { News::Nothing } else { News::Leaving(name) };
        }
        let now = Pod {
            node: object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
            ready: is_ready(object),
            leaving: api::object::is_deleting(object),
        };
        let before = self.0.insert(name.clone(), now.clone());
        let was = |test: fn(&Pod) -> bool| before.as_ref().is_some_and(test);
        match now {
            _ if now.leaving && !was(|pod| pod.leaving) => News::Leaving(name),
            _ if now.ready && !was(|pod| pod.ready) => News::Ready(format!("{name} on {}", now.node)),
            _ if !now.node.is_empty() && !was(|pod| !pod.node.is_empty()) => {
                News::Placed(format!("{name} on {}", now.node))
            }
            _ => News::Nothing,
        }
    }

    /// How many serve, not counting those on `without` and those that leave.
    pub fn serving(&self, without: Option<&str>) -> usize {
        self.0.values().filter(|pod| pod.ready && !pod.leaving && Some(pod.node.as_str()) != without).count()
    }

    /// The node with the most pods, and how many: killing it hurts most.
    pub fn busiest(&self) -> Option<(String, usize)> {
        let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
        self.0
            .values()
            .filter(|pod| !pod.node.is_empty())
            .for_each(|pod| *by_node.entry(&pod.node).or_default() += 1);
        by_node.into_iter().max_by_key(|(_, pods)| *pods).map(|(node, pods)| (node.to_owned(), pods))
    }
}

fn is_ready(pod: &Value) -> bool {
    // Node conditions and pod conditions have the same form.
    ready::is_ready(pod)
}

fn web() -> Query {
    Query::new().with("labelSelector", "app=web")
}

/// Follows the pods of the Deployment until `done`, with a line for each piece of news.
pub async fn follow_pods(
    cluster: &Cluster,
    pods: &mut Pods,
    timeline: Timeline,
    mut done: impl FnMut(&Pods) -> bool,
) -> Result<(), Failure> {
    let kind = builtin("", "Pod", "pods", true);
    let following = follow(cluster, &kind, Some(cluster.namespace()), web(), |event, object| {
        match pods.see(event, object) {
            News::Placed(text) => timeline.line(format!("pod {text} is scheduled")),
            News::Ready(text) => timeline.line(format!("pod {text} is Running and Ready")),
            News::Leaving(text) => timeline.line(format!("pod {text} is evicted")),
            News::Nothing => {}
        }
        done(pods)
    });
    within(following).await
}

async fn within(work: impl Future<Output = Result<(), RequestError>>) -> Result<(), Failure> {
    match timeout(PATIENCE, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Timeout(format!("this did not happen within {} s", PATIENCE.as_secs()))),
    }
}

/// Kills the busiest node and waits until all `replicas` run elsewhere.
pub async fn kill_node(demo: &DemoCluster, pods: &mut Pods, replicas: usize) -> Result<Vec<Check>, Failure> {
    let cluster = demo.client().await?;
    let (node, lost) = pods.busiest().ok_or_else(|| Failure::NotHeld("no pod runs".into()))?;
    chapter(&format!("A node is killed: {node} with {}", count(lost, "pod")));
    let timeline = Timeline::start();
    demo.order(Order::Kill { child: node.clone() }).await?;
    timeline.line(format!("{node}: agent and every process of its pods are killed (SIGKILL)"));
    let detection = detect(&cluster, &node, timeline);
    let replacement = async {
        follow_pods(&cluster, pods, timeline, |pods| pods.serving(Some(&node)) >= replicas).await?;
        Ok::<Duration, Failure>(timeline.elapsed())
    };
    let (detected, replaced) = tokio::try_join!(detection, replacement)?;
    timeline.line(format!("{replicas} of {replicas} replicas serve again, none on {node}"));
    let back = come_back(demo, &cluster, &node).await?;
    Ok(vec![
        Check::within("node killed → noticed", LIMIT, detected),
        Check::within("node killed → every replica Running elsewhere", LIMIT, replaced),
        Check::within("the killed node is Ready again", LIMIT, back),
    ])
}

async fn detect(cluster: &Cluster, node: &str, timeline: Timeline) -> Result<Duration, Failure> {
    wait_for_node(cluster, node, false).await?;
    timeline.line(format!("{node} is found to be dead: NotReady"));
    Ok(timeline.elapsed())
}

async fn come_back(demo: &DemoCluster, cluster: &Cluster, node: &str) -> Result<Duration, Failure> {
    let timeline = Timeline::start();
    demo.order(Order::Resume { child: node.to_owned() }).await?;
    wait_for_node(cluster, node, true).await?;
    timeline.line(format!("{node} was started again and is Ready"));
    Ok(timeline.elapsed())
}

async fn wait_for_node(cluster: &Cluster, node: &str, ready: bool) -> Result<(), Failure> {
    let kind = builtin("", "Node", "nodes", false);
    let query = Query::new().with("fieldSelector", format!("metadata.name={node}"));
    within(follow(cluster, &kind, None, query, |_, object| ready::is_ready(object) == ready)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: Option<&str>, ready: bool, leaving: bool) -> Value {
        let mut pod = json!({"metadata": {"name": name}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        if let Some(node) = node {
            pod["spec"]["nodeName"] = json!(node);
        }
        if leaving {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        pod
    }

    #[test]
    fn the_life_of_a_pod_is_told_once() {
        let mut pods = Pods::default();
        let mut see = |kind, object: Value| pods.see(kind, &object);
        assert_eq!(see(EventKind::Added, pod("a", None, false, false)), News::Nothing);
        assert_eq!(
            see(EventKind::Modified, pod("a", Some("n1"), false, false)),
            News::Placed("a on n1".into())
        );
        assert_eq!(
            see(EventKind::Modified, pod("a", Some("n1"), true, false)),
            News::Ready("a on n1".into())
        );
        assert_eq!(see(EventKind::Modified, pod("a", Some("n1"), true, false)), News::Nothing);
        assert_eq!(see(EventKind::Modified, pod("a", Some("n1"), true, true)), News::Leaving("a".into()));
        assert_eq!(see(EventKind::Deleted, pod("a", Some("n1"), false, true)), News::Nothing);
    }

    #[test]
    fn serving_leaves_out_the_dead_node_and_who_leaves() {
        let mut pods = Pods::default();
        for (name, node, leaving) in
            [("a", "n1", false), ("b", "n2", false), ("c", "n2", false), ("d", "n3", true)]
        {
            pods.see(EventKind::Added, &pod(name, Some(node), true, leaving));
        }
        assert_eq!((pods.serving(None), pods.serving(Some("n2"))), (3, 1));
        assert_eq!(pods.busiest(), Some(("n2".into(), 2)));
    }
}
