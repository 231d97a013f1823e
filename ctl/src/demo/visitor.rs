//! A client that comes through a Service, one request after the other, while a node is killed; and whom it visits.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::cluster::DemoCluster;
use super::timeline::{Check, Timeline};
use crate::cluster::Cluster;
use crate::cluster::path::{self, Query};
use crate::failure::Failure;
use crate::text::seconds;
use crate::up::ready::{self, builtin, follow};

/// Where the visited pods listen.
const PORT: u16 = 8080;
/// Pods that are visited, spread over the nodes.
const REPLICAS: usize = 3;
/// An attempt that takes longer is tried again.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Between attempts, so that a refusal isn't hammered at.
const PAUSE: Duration = Duration::from_millis(10);
/// A request that isn't answered for so long has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Visits {
    answered: u64,
    /// Answered, but not by the first attempt.
    retried: u64,
    failed: u64,
    longest: Duration,
}

impl Visits {
    /// One more request, by what its attempts came to.
    fn count(&mut self, attempts: u32, answered: bool, took: Duration) {
        match answered {
            true => self.answered += 1,
            false => self.failed += 1,
        }
        self.retried += u64::from(answered && attempts > 1);
        self.longest = self.longest.max(took);
    }

    fn check(&self) -> Check {
        let seen = format!(
            "{} answered, {} of them after another try, {} failed; the longest took {}",
            self.answered,
            self.retried,
            self.failed,
            seconds(self.longest)
        );
        Check::that("no request through the Service failed", self.failed == 0 && self.answered > 0, seen)
    }
}

/// A client under way.
pub struct Visitor {
    stop: watch::Sender<bool>,
    visits: JoinHandle<Visits>,
}

impl Visitor {
    /// Brings up a Service with its pods and begins to visit it; `None` where pods have no addresses of their own.
    pub async fn start(demo: &DemoCluster, timeline: Timeline) -> Result<Option<Self>, Failure> {
        let cluster = demo.client().await?;
        if !pods_have_addresses(&cluster).await? {
            timeline.line("pods share the machine's address here: there is no Service to visit");
            return Ok(None);
        }
        let program = std::env::current_exe().map_err(|source| Failure::io("find this program", source))?;
        let deployments = builtin("apps", "Deployment", "deployments", true);
        let deployment = deployment(&program.to_string_lossy());
        cluster.create(&path::collection(&deployments, Some(cluster.namespace())), &deployment).await?;
        let services = builtin("", "Service", "services", true);
        let service =
            cluster.create(&path::collection(&services, Some(cluster.namespace())), &service()).await?;
        wait_for_pods(&cluster).await?;
        let ip: Option<Ipv4Addr> = service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
        let address =
            SocketAddrV4::new(ip.ok_or_else(|| Failure::NotHeld("the Service has no address".into()))?, 80);
        first_answer(address.into()).await?;
        timeline.line(format!("{REPLICAS} pods answer through Service visited at {address}; requests begin"));
        let (stop, asked) = watch::channel(false);
        Ok(Some(Self { stop, visits: tokio::spawn(visit(address.into(), asked)) }))
    }

    /// Ends the visits and says what became of them.
    pub async fn end(self) -> Check {
        self.stop.send_replace(true);
        self.visits.await.unwrap_or_default().check()
    }
}

async fn pods_have_addresses(cluster: &Cluster) -> Result<bool, Failure> {
    let pods =
        cluster.get(&path::collection(&builtin("", "Pod", "pods", true), Some(cluster.namespace()))).await?;
    let status = &pods["items"][0]["status"];
    Ok(status["podIP"].is_string() && status["podIP"] != status["hostIP"])
}

async fn wait_for_pods(cluster: &Cluster) -> Result<(), Failure> {
    let kind = builtin("", "Pod", "pods", true);
    let query = Query::new().with("labelSelector", "app=visited");
    let mut serving = std::collections::BTreeSet::new();
    let following = follow(cluster, &kind, Some(cluster.namespace()), query, |_, object| {
        if ready::is_ready(object) {
            serving.insert(api::object::name(object).to_owned());
        }
        serving.len() >= REPLICAS
    });
    let late = || Failure::Timeout("the Service's pods are not Ready after 30 s".to_owned());
    Ok(timeout(Duration::from_secs(30), following).await.map_err(|_| late())??)
}

/// The rules follow the pods within milliseconds; the demo begins when they have.
async fn first_answer(address: SocketAddr) -> Result<(), Failure> {
    let late = || Failure::Timeout("nobody answers through the Service".to_owned());
    match request(address).await {
        (_, true) => Ok(()),
        (_, false) => Err(late()),
    }
}

async fn visit(address: SocketAddr, stop: watch::Receiver<bool>) -> Visits {
    let mut visits = Visits::default();
    while !*stop.borrow() {
        let start = Instant::now();
        let (attempts, answered) = request(address).await;
        visits.count(attempts, answered, start.elapsed());
        sleep(PAUSE).await;
    }
    visits
}

/// How many attempts it took, and whether the last one was answered.
async fn request(address: SocketAddr) -> (u32, bool) {
    let start = Instant::now();
    let mut attempts = 0;
    while start.elapsed() < PATIENCE {
        attempts += 1;
        if timeout(ATTEMPT, attempt(address)).await.is_ok_and(|answered| answered.unwrap_or(false)) {
            return (attempts, true);
        }
        sleep(PAUSE).await;
    }
    (attempts, false)
}

async fn attempt(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer == ANSWER)
}

const ANSWER: &str = "here\n";

/// What the visited pods do until they are killed.
///
/// # Errors
/// The port is taken.
pub async fn answer() -> Result<(), Failure> {
    let listening = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await;
    let listener = listening.map_err(|source| Failure::io("listen for visitors", source))?;
    loop {
        if let Ok((mut stream, _)) = listener.accept().await {
            // A visitor that is gone comes again.
            let _ = stream.write_all(ANSWER.as_bytes()).await;
        }
    }
}

fn deployment(program: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "visited"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "visited"}},
            "template": {
                "metadata": {"labels": {"app": "visited"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"app": "visited"}},
                    }],
                    "containers": [{
                        "name": "visited",
                        "image": "host",
                        "command": [program, "demo", "answer"],
                        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "visited"},
        "spec": {"selector": {"app": "visited"}, "ports": [{"port": 80, "targetPort": PORT}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_counted_by_what_they_came_to() {
        let mut visits = Visits::default();
        assert!(!visits.check().held, "nobody came");
        visits.count(1, true, Duration::from_millis(1));
        visits.count(3, true, Duration::from_millis(700));
        let check = visits.check();
        assert!(check.held);
        assert_eq!(check.seen, "2 answered, 1 of them after another try, 0 failed; the longest took 0.70 s");
        visits.count(9, false, PATIENCE);
        assert!(!visits.check().held);
    }
}
