//! Services and what the kernel remembers of them.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::{SERVICE, answer, enter, lay_out, on_a_machine, route, web};
use crate::conntrack::{UdpRoutes, forget};
use crate::held_namespace::{Kind, hold};
use crate::nft;
use crate::service::doors::Doors;
use crate::service::health::Check;
use crate::service::plan::{Protocol, Route};
use crate::service::table::TURN_BACK;
use crate::table::Table;

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
        let mut rules = lay_out(&[sticky(pods.clone())]).await;
        let (first, _) = machine.heard_by(Some("client"), web()).expect("an answer");
        for _ in 0..12 {
            assert_eq!(machine.heard_by(Some("client"), web()).expect("an answer").0, first);
        }
        // Even when other pods come or go.
        let rest: Vec<_> =
            pods.iter().copied().filter(|pod| *pod.ip() == machine.pods[first.as_str()].ip).collect();
        rules.bring(Table::of(&[sticky(rest)])).await.expect("changed");
        assert_eq!(machine.heard_by(Some("client"), web()).expect("an answer").0, first);
    });
}

#[test]
fn rules_follow_every_change() {
    on_a_machine(async |mut machine| {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let mut rules = lay_out(&[route(vec![a])]).await;
        for (pods, expected) in [(vec![b], Some("b")), (vec![], None), (vec![a], Some("a"))] {
            rules.bring(Table::of(&[route(pods)])).await.expect("changed");
            let heard = machine.heard_by(None, web()).ok().map(|(name, _)| name);
            assert_eq!(heard.as_deref(), expected);
        }
        rules.bring(Table::default()).await.expect("changed");
        rules.remove().await.expect("removed");
        rules.remove().await.expect("removed is removed");
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
fn a_udp_client_is_led_away_from_a_pod_that_is_gone() {
    on_a_machine(async |mut machine| {
        machine.pod("client").await;
        let udp = |pods: Vec<SocketAddrV4>| Route { protocol: Protocol::Udp, node_port: None, ..route(pods) };
        let pods: Vec<SocketAddrV4> = [machine.pod("a").await, machine.pod("b").await].into();
        for (name, pod) in ["a", "b"].into_iter().zip(&pods) {
            let (namespace, pod) = (machine.pods[name].namespace.clone(), *pod);
            let bound = std::thread::spawn(move || {
                enter(&namespace);
                UdpSocket::bind(pod).expect("bound")
            });
            let socket = bound.join().expect("bound");
            std::thread::spawn(move || {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
                    let _ = socket.send_to(name.as_bytes(), from);
                }
            });
        }
        let namespace = machine.pods["client"].namespace.clone();
        let client = std::thread::spawn(move || {
            enter(&namespace);
            UdpSocket::bind("0.0.0.0:4000").expect("bound")
        });
        let client = client.join().expect("bound");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let ask = || {
            client.send_to(b"?", web()).expect("sent");
            let mut answer = [0; 8];
            let length = client.recv(&mut answer).expect("an answer");
            String::from_utf8_lossy(&answer[..length]).into_owned()
        };
        let mut rules = lay_out(&[udp(vec![pods[0]])]).await;
        assert_eq!(ask(), "a");
        let next = [udp(vec![pods[1]])];
        rules.bring(Table::of(&next)).await.expect("changed");
        assert_eq!(ask(), "a", "the kernel remembers");
        assert_eq!(forget(&UdpRoutes::of(&next)).expect("told"), 1);
        assert_eq!(ask(), "b");
        assert_eq!(forget(&UdpRoutes::of(&next)).expect("told"), 0);
    });
}

/// Two pods on a bridge of somebody else's, as a runtime's network plugins make it, without netfilter on it.
#[test]
fn a_service_leads_back_onto_the_bridge_that_its_client_is_on() {
    on_a_machine(async |mut machine| {
        let join = r#"
            seen=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $seen ] || echo 0 > $seen
            ip link add cni0 type bridge; ip addr add 172.20.0.1/24 dev cni0; ip link set cni0 up
            for n in 2 3; do
              ip link add veth$n type veth peer name eth0 netns "$0/$n"; ip link set veth$n master cni0 up
              nsenter --net="$0/$n" sh -ec "ip addr add 172.20.0.$n/24 dev eth0; ip link set eth0 up
                ip route add default via 172.20.0.1"
            done"#;
        let namespaces = ["2", "3"].map(|name| machine.root.join(name));
        namespaces.iter().for_each(|file| hold(Kind::Network, file).expect("a namespace"));
        let joined = std::process::Command::new("sh").args(["-ec", join]).arg(&machine.root).status();
        assert!(joined.expect("iproute2").success());
        let [first, second] = namespaces;
        let server = machine.pod_at("server", first, Ipv4Addr::new(172, 20, 0, 2));
        machine.pod_at("client", second, Ipv4Addr::new(172, 20, 0, 3));
        lay_out(&[route(vec![server])]).await;
        assert!(!machine.heard_by_soon(Some("client"), web()), "it is answered past the rules");
        nft::run(TURN_BACK).await.expect("added");
        let (name, from) = machine.heard_by(Some("client"), web()).expect("an answer");
        assert_eq!((name.as_str(), from.as_str()), ("server", "172.20.0.1"), "in the machine's name");
        assert_eq!(machine.heard_by(None, web()).expect("an answer to the machine").0, "server");
    });
}

#[test]
fn balancers_are_told_whether_there_are_pods_here() {
    on_a_machine(async |_machine| {
        // On a thread of this machine, since the doors are served by this one.
        let asked = async || {
            let asking = tokio::task::spawn_blocking(|| -> io::Result<String> {
                let mut stream = TcpStream::connect("127.0.0.1:30200")?;
                stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: n1\r\n\r\n")?;
                let mut text = String::new();
                stream.read_to_string(&mut text).map(|_| text)
            });
            asking.await.expect("no panic")
        };
        let check = |local| Check { namespace: "shop".to_owned(), name: "web".to_owned(), local };
        let mut doors = Doors::default();
        for (local, status) in [(2, "200 OK"), (0, "503 Service Unavailable"), (1, "200 OK")] {
            doors.bring([(30_200, check(local))].into()).await;
            let told = asked().await.expect("an answer");
            assert!(told.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{told}");
            assert!(told.contains(&format!("\t\"localEndpoints\": {local},\n")), "{told}");
        }
        doors.bring(BTreeMap::new()).await;
        // Its listener goes with the task, at the next turn of the runtime.
        tokio::task::yield_now().await;
        let refused = asked().await.expect_err("nobody is there").kind();
        assert_eq!(refused, io::ErrorKind::ConnectionRefused);
    });
}
