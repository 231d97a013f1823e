//! The rules in a real kernel: pods in their namespaces on one machine, which is a namespace of the test's
//! own. Needs root and `nft`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::nft;
use crate::pod::addresses::{Addresses, Range};
use crate::pod::link::{self, Via};
use crate::pod::namespace::{Attachment, BRIDGE, PodNetwork};
use crate::service::change::{anew, between};
use crate::service::plan::{External, Protocol, Route};
use crate::service::table::Table;

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
        Self { network, root, pods: BTreeMap::new() }
    }

    /// A pod that answers its name on port 8080, and before it the address that it sees.
    async fn pod(&mut self, name: &'static str) -> SocketAddrV4 {
        let attachment = self.network.attach(name, None).await.expect("attached");
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
        let namespace = from.map(|pod| self.pods[pod].namespace.clone());
        let address = address.into();
        let asking = std::thread::spawn(move || {
            namespace.iter().for_each(enter);
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
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

async fn lay_out(routes: &[Route]) -> Table {
    let table = Table::of(routes);
    nft::run(&anew(&table, range("10.244.0.0/16"))).await.expect("rules");
    table
}

fn web() -> SocketAddrV4 {
    SocketAddrV4::new(SERVICE, 80)
}

#[test]
fn a_service_leads_pods_and_the_machine_to_its_pods() {
    on_a_machine(async |mut machine| {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        machine.pod("client").await;
        lay_out(&[route(vec![a, b])]).await;
        let mut seen = BTreeMap::new();
        for _ in 0..40 {
            let (name, from) = machine.heard_by(Some("client"), web()).expect("an answer");
            assert_eq!(from, machine.pods["client"].ip.to_string(), "the client's own address is seen");
            *seen.entry(name).or_insert(0) += 1;
            machine.heard_by(None, web()).expect("an answer to the machine");
        }
        assert_eq!(seen.len(), 2, "both pods are led to: {seen:?}");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_a_machine(async |mut machine| {
        let a = machine.pod("a").await;
        lay_out(&[route(vec![a])]).await;
        let (name, from) = machine.heard_by(Some("a"), web()).expect("an answer");
        assert_eq!((name.as_str(), from.as_str()), ("a", "10.244.1.1"));
    });
}

#[test]
fn a_node_s_port_leads_to_the_pods() {
    on_a_machine(async |mut machine| {
        let a = machine.pod("a").await;
        machine.pod("client").await;
        lay_out(&[route(vec![a])]).await;
        let node = SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, 1), 30_080);
        for from in [None, Some("client")] {
            let (name, seen) = machine.heard_by(from, node).expect("an answer");
            assert_eq!((name.as_str(), seen.as_str()), ("a", "10.244.1.1"), "in the node's name");
        }
    });
}

#[test]
fn who_has_no_pods_refuses_at_once_and_so_does_a_port_that_no_service_has() {
    on_a_machine(async |mut machine| {
        let a = machine.pod("a").await;
        lay_out(&[route(Vec::new())]).await;
        for from in [None, Some("a")] {
            let refused = machine.heard_by(from, web()).expect_err("nobody is there");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{from:?}");
        }
        lay_out(&[route(vec![a])]).await;
        let other = machine.heard_by(Some("a"), SocketAddrV4::new(SERVICE, 81)).expect_err("no such port");
        assert_eq!(other.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn clients_stay_with_their_pod_when_asked_to() {
    on_a_machine(async |mut machine| {
        let pods = vec![machine.pod("a").await, machine.pod("b").await, machine.pod("c").await];
        machine.pod("client").await;
        let sticky = |internal| Route { affinity: Some(Duration::from_secs(60)), ..route(internal) };
        let table = lay_out(&[sticky(pods.clone())]).await;
        let (first, _) = machine.heard_by(Some("client"), web()).expect("an answer");
        for _ in 0..12 {
            assert_eq!(machine.heard_by(Some("client"), web()).expect("an answer").0, first);
        }
        // Even when other pods come or go.
        let rest: Vec<_> =
            pods.iter().copied().filter(|pod| *pod.ip() == machine.pods[first.as_str()].ip).collect();
        nft::run(&between(&table, &Table::of(&[sticky(rest)]))).await.expect("changed");
        assert_eq!(machine.heard_by(Some("client"), web()).expect("an answer").0, first);
    });
}

#[test]
fn rules_follow_every_change() {
    on_a_machine(async |mut machine| {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let mut table = lay_out(&[route(vec![a])]).await;
        for (pods, expected) in [(vec![b], Some("b")), (vec![], None), (vec![a], Some("a"))] {
            let next = Table::of(&[route(pods)]);
            nft::run(&between(&table, &next)).await.expect("changed");
            table = next;
            let heard = machine.heard_by(None, web()).ok().map(|(name, _)| name);
            assert_eq!(heard.as_deref(), expected);
        }
        nft::run(&between(&table, &Table::default())).await.expect("changed");
        nft::run(crate::service::change::REMOVE).await.expect("removed");
    });
}

#[test]
fn what_listens_on_loopback_is_reached_by_its_service_only() {
    on_a_machine(async |mut machine| {
        machine.pod("client").await;
        let listener = TcpListener::bind("127.0.0.1:6443").expect("bound");
        std::thread::spawn(move || answer(&listener, "server"));
        lay_out(&[route(vec!["127.0.0.1:6443".parse().expect("an address")])]).await;
        for from in [None, Some("client")] {
            assert_eq!(machine.heard_by(from, web()).expect("an answer").0, "server", "{from:?}");
        }
        let forge = "ip route del local 127.0.0.0/8 table local; ip route del local 127.0.0.1 table local; \
                     ip addr del 127.0.0.1/8 dev lo; \
                     echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip route add 127.0.0.0/8 via 10.244.1.1";
        let namespace = format!("--net={}", machine.pods["client"].namespace.display());
        let forged = std::process::Command::new("nsenter").arg(namespace).args(["sh", "-c", forge]).status();
        assert!(forged.expect("util-linux").success());
        let loopback: SocketAddr = "127.0.0.1:6443".parse().expect("an address");
        machine.heard_by(Some("client"), loopback).expect_err("dropped");
        // It is the rule that stops it.
        nft::run("flush chain ip amoeba filter-input").await.expect("flushed");
        machine.heard_by(Some("client"), loopback).expect("not dropped");
    });
}

#[test]
fn an_agent_that_starts_again_finds_its_pods() {
    on_a_machine(async |mut machine| {
        let a = machine.pod("a").await;
        let again = PodNetwork::open(&machine.root, range("10.244.1.0/24")).await.expect("opened");
        assert_eq!(again.attach("a", None).await.expect("there").ip, *a.ip());
        assert_ne!(again.attach("b", None).await.expect("made").ip, *a.ip());
        assert_eq!(machine.heard_by(None, a).expect("an answer").0, "a");
        again.detach("b").await.expect("gone");
        again.detach("b").await.expect("gone is gone");
        assert!(!machine.root.join("b").exists());
    });
}

#[test]
fn an_address_is_not_given_out_again_at_once() {
    let mut addresses = Addresses::new(range("10.0.0.0/29"), []);
    let take = |addresses: &mut Addresses, owner| addresses.take(owner, None).map(|ip| ip.to_string());
    assert_eq!(take(&mut addresses, "a").as_deref(), Ok("10.0.0.2"));
    assert_eq!(take(&mut addresses, "a").as_deref(), Ok("10.0.0.2"));
    addresses.give_back("a");
    assert_eq!(take(&mut addresses, "b").as_deref(), Ok("10.0.0.3"));
    let wanted = "10.0.0.6".parse().ok();
    assert_eq!(addresses.take("c", wanted).ok(), wanted, "free");
    assert_eq!(addresses.take("d", wanted).map(|ip| ip.to_string()).as_deref(), Ok("10.0.0.2"));
    for owner in ["e", "f"] {
        take(&mut addresses, owner).expect("free");
    }
    let full = addresses.take("g", None).expect_err("full");
    assert_eq!(full.to_string(), "all 5 pod addresses of 10.0.0.0/29 are in use");
    for wrong in ["10.0.0.0", "10.0.0.0/31", "x/24", "10.0.0.0/-1"] {
        wrong.parse::<Range>().expect_err(wrong);
    }
}
