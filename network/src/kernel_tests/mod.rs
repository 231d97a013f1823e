//! The rules in a real kernel: pods in their namespaces on one machine, which is a namespace of the test's
//! own. Needs root and `nft`.

mod pods;
mod services;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::ClusterNetwork;
use crate::nft::Kept;
use crate::pod::addresses::Range;
use crate::pod::host_ports::HostPort;
use crate::pod::link::{self, Via};
use crate::pod::namespace::{Attachment, BRIDGE, PodNetwork};
use crate::service::plan::{External, Protocol, Route};
use crate::service::table::{TABLE, frame};
use crate::table::Table;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);

fn range(text: &str) -> Range {
    text.parse().expect("a range")
}

/// Runs a test on a machine of its own.
fn on_a_machine<F: AsyncFnOnce(Machine)>(test: F) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own (the test needs root)");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { test(Machine::new().await).await });
}

struct Machine {
    network: PodNetwork,
    root: PathBuf,
    pods: BTreeMap<&'static str, Attachment>,
    /// The ports of the machine that the next pods ask for.
    asked: Vec<HostPort>,
}

impl Machine {
    async fn new() -> Self {
        let root = std::env::temp_dir().join(format!("amoeba-network-{:?}", std::thread::current().id()));
        let _ = std::fs::remove_dir_all(&root);
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("iproute2").success());
        let network = PodNetwork::open(&root, range("10.244.1.0/24")).await.expect("a network");
        let via = Via::Bridge(BRIDGE, Ipv4Addr::new(10, 244, 1, 1));
        link::route(network.handle(), range("10.96.0.0/16"), via).await.expect("a route");
        Self { network, root, pods: BTreeMap::new(), asked: Vec::new() }
    }

    /// A pod that answers its name on port 8080, and before it the address that it sees.
    async fn pod(&mut self, name: &'static str) -> SocketAddrV4 {
        let attachment = self.network.attach(name, None, &self.asked).await.expect("attached");
        self.serve(name, attachment)
    }

    /// A pod whose place in the network somebody else has made.
    fn pod_at(&mut self, name: &'static str, namespace: PathBuf, ip: Ipv4Addr) -> SocketAddrV4 {
        self.serve(name, Attachment { ip, namespace })
    }

    fn serve(&mut self, name: &'static str, attachment: Attachment) -> SocketAddrV4 {
        let (bound, is_bound) = std::sync::mpsc::channel();
        let namespace = attachment.namespace.clone();
        std::thread::spawn(move || {
            enter(&namespace);
            let listener = TcpListener::bind("0.0.0.0:8080").expect("bound");
            bound.send(()).expect("heard");
            answer(&listener, name);
        });
        is_bound.recv().expect("bound");
        let ip = attachment.ip;
        self.pods.insert(name, attachment);
        SocketAddrV4::new(ip, 8080)
    }

    /// What somebody hears at this address: the pod's name, and as whom it saw them.
    fn heard_by(&self, from: Option<&str>, address: impl Into<SocketAddr>) -> io::Result<(String, String)> {
        self.heard_within(from, address, Duration::from_secs(5))
    }

    /// Whether anybody is heard; what is dropped is given up early.
    fn heard_by_soon(&self, from: Option<&str>, address: impl Into<SocketAddr>) -> bool {
        self.heard_within(from, address, Duration::from_millis(300)).is_ok()
    }

    fn heard_within(
        &self,
        from: Option<&str>,
        address: impl Into<SocketAddr>,
        patience: Duration,
    ) -> io::Result<(String, String)> {
        let namespace = from.map(|pod| self.pods[pod].namespace.clone());
        let address = address.into();
        let asking = std::thread::spawn(move || {
            namespace.iter().for_each(enter);
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            io::Result::Ok(text)
        });
        let text = asking.join().expect("no panic")?;
        let (name, seen) = text.split_once(' ').expect("two words");
        Ok((name.to_owned(), seen.to_owned()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for attachment in self.pods.values() {
            let _ = nix::mount::umount2(&attachment.namespace, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn enter(namespace: &PathBuf) {
    let file = File::open(namespace).expect("a namespace");
    setns(file, CloneFlags::CLONE_NEWNET).expect("entered");
}

fn answer(listener: &TcpListener, name: &str) {
    while let Ok((mut stream, from)) = listener.accept() {
        let _ = write!(stream, "{name} {}", from.ip());
    }
}

fn route(internal: Vec<SocketAddrV4>) -> Route {
    Route {
        id: "shop/web/http".to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
        cluster_ip: SERVICE,
        external_ips: Vec::new(),
        node_port: Some(30_080),
        affinity: None,
        internal,
        external: External::AsInternal,
    }
}

async fn lay_out(routes: &[Route]) -> Kept {
    let mut rules = Kept::new(TABLE, frame(&cluster()));
    rules.bring(Table::of(routes)).await.expect("rules");
    rules
}

fn cluster() -> ClusterNetwork {
    ClusterNetwork {
        pods: range("10.244.0.0/16"),
        services: range("10.96.0.0/12"),
        dns: Ipv4Addr::new(10, 96, 0, 10),
        domain: "cluster.local".to_owned(),
    }
}

fn web() -> SocketAddrV4 {
    SocketAddrV4::new(SERVICE, 80)
}
