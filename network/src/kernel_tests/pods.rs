//! Pods: their addresses, ports and policies, and what is left of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{lay_out, on_a_machine, range, route};
use crate::nft::Kept;
use crate::pod::addresses::{Addresses, Range};
use crate::pod::leftovers;
use crate::pod::namespace::PodNetwork;
use crate::policy::layout;
use crate::policy::plan::{Cluster, isolation};
use crate::policy::pod::PolicyPod;
use crate::service::plan::Protocol;

#[test]
fn ports_of_the_machine_lead_to_their_pods() {
    on_a_machine(async |mut machine| {
        machine.asked = vec!["tcp 0.0.0.0 80 8080".parse().expect("a port")];
        machine.pod("a").await;
        machine.asked = vec!["tcp 10.244.1.1 81 8080".parse().expect("a port")];
        machine.pod("b").await;
        machine.asked = Vec::new();
        machine.pod("client").await;
        let node = Ipv4Addr::new(10, 244, 1, 1);
        let heard = |from, ip: Ipv4Addr, port| {
            machine.heard_by(from, SocketAddrV4::new(ip, port)).ok().map(|(name, _)| name)
        };
        for from in [None, Some("client"), Some("a")] {
            assert_eq!(heard(from, node, 80).as_deref(), Some("a"), "{from:?}");
            assert_eq!(heard(from, node, 81).as_deref(), Some("b"), "{from:?}");
        }
        assert_eq!(heard(None, Ipv4Addr::LOCALHOST, 80).as_deref(), Some("a"));
        assert_eq!(heard(None, Ipv4Addr::LOCALHOST, 81), None, "b is on one address only");
        assert_eq!(heard(None, machine.pods["client"].ip, 80), None, "a pod's address isn't the machine's");
        // The next agent knows them, too, and forgets those of pods that go.
        let again = PodNetwork::open(&machine.root, range("10.244.1.0/24")).await.expect("opened");
        assert_eq!(heard(Some("client"), node, 80).as_deref(), Some("a"));
        again.detach("a").await.expect("gone");
        assert_eq!(heard(None, node, 80), None);
        assert_eq!(heard(None, node, 81).as_deref(), Some("b"));
    });
}

#[test]
fn policies_hold_in_the_kernel() {
    on_a_machine(async |mut machine| {
        for name in ["web", "friend", "stranger"] {
            machine.pod(name).await;
        }
        let ports = vec![("http".to_owned(), Protocol::Tcp, 8080)];
        let pods: Vec<PolicyPod> = machine
            .pods
            .iter()
            .map(|(name, attachment)| PolicyPod {
                namespace: "shop".to_owned(),
                labels: BTreeMap::from([("app".to_owned(), (*name).to_owned())]),
                ip: attachment.ip,
                machine: None,
                ports: ports.clone(),
            })
            .collect();
        let web = SocketAddrV4::new(machine.pods["web"].ip, 8080);
        let mut routes = route(vec![web]);
        routes.node_port = None;
        let _services = lay_out(&[routes]).await;
        let mut rules = Kept::new(layout::TABLE, layout::FRAME);
        let friend = "podSelector: {matchLabels: {app: friend}}";
        let any = "[web, friend, stranger]";
        let cases = [
            ("podSelector: {}", "[web]"),
            ("podSelector: {}, ingress: [{}]", any),
            (&format!("podSelector: {{}}, ingress: [{{from: [{{{friend}}}]}}]"), "[web, friend]"),
            (
                &format!("podSelector: {{}}, ingress: [{{from: [{{{friend}}}], ports: [{{port: http}}]}}]"),
                "[web, friend]",
            ),
            (
                &format!(
                    "podSelector: {{}}, ingress: [{{from: [{{{friend}}}], ports: [{{port: 1, endPort: 8079}}, {{protocol: UDP}}]}}]"
                ),
                "[web]",
            ),
            (
                "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80, endPort: 8080}, {port: 8000, endPort: 9000}, {}]}]",
                any,
            ),
            (
                "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.0/24, 10.244.1.3/32]}}]}]",
                "[web]",
            ),
            (&format!("{friend}, policyTypes: [Egress]"), "[web, stranger]"),
            (
                &format!(
                    "{friend}, policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{}}}}], ports: [{{port: http}}]}}]"
                ),
                any,
            ),
        ];
        for (text, expected) in cases {
            let policy: NetworkPolicy = serde_yaml::from_str(&format!(
                "{{metadata: {{namespace: shop, name: p}}, spec: {{{text}}}}}"
            ))
            .expect("a policy");
            let namespace: Namespace = serde_yaml::from_str("{metadata: {name: shop}}").expect("a namespace");
            let cluster = Cluster {
                policies: vec![&policy],
                pods: pods.iter().collect(),
                namespaces: vec![&namespace],
            };
            rules.bring(layout::table(&isolation(&cluster, |_| true))).await.expect("rules");
            // By its Service or by its address, it is one thing; and the machine itself always may.
            for address in [web, super::web()] {
                assert!(machine.heard_by(None, address).is_ok(), "{text}");
                let heard = ["web", "friend", "stranger"]
                    .into_iter()
                    .filter(|from| machine.heard_by_soon(Some(from), address));
                assert_eq!(format!("[{}]", heard.collect::<Vec<_>>().join(", ")), expected, "{text}");
            }
        }
        rules.remove().await.expect("removed");
        assert!(machine.heard_by_soon(Some("stranger"), web));
    });
}

#[test]
fn an_agent_that_starts_again_finds_its_pods() {
    on_a_machine(async |mut machine| {
        let a = machine.pod("a").await;
        let again = PodNetwork::open(&machine.root, range("10.244.1.0/24")).await.expect("opened");
        assert_eq!(again.attach("a", None, &[]).await.expect("there").ip, *a.ip());
        assert_ne!(again.attach("b", None, &[]).await.expect("made").ip, *a.ip());
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

#[test]
fn what_a_node_that_is_gone_left_is_swept_away() {
    on_a_machine(async |mut machine| {
        let parent = machine.root.with_extension("all");
        let (gone, living) = (parent.join("gone"), parent.join("living"));
        std::fs::create_dir_all(parent.join("empty")).expect("a directory");
        leftovers::own(&gone, &parent.join("nowhere")).expect("noted");
        leftovers::own(&living, &machine.root).expect("noted");
        let ports = ["tcp 0.0.0.0 80 8080".parse().expect("a port")];
        for root in [&gone, &living] {
            let network = PodNetwork::open(root, range("10.244.1.0/24")).await.expect("opened");
            network.attach(&root.to_string_lossy().replace('/', "-"), None, &ports).await.expect("attached");
        }
        leftovers::sweep(machine.network.handle(), &parent).await;
        let left: Vec<_> =
            std::fs::read_dir(&parent).expect("there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["living"]);
        let links = std::process::Command::new("ip").args(["-o", "link"]).output().expect("iproute2").stdout;
        let links =
            String::from_utf8_lossy(&links).lines().filter(|line| line.contains("master amoeba0")).count();
        assert_eq!(links, 1, "one pod has a link");
        let tables = std::process::Command::new("nft").args(["list", "tables"]).output().expect("nft").stdout;
        assert_eq!(String::from_utf8_lossy(&tables).matches("amoeba-ports").count(), 1);
        machine.network = PodNetwork::open(&living, range("10.244.1.0/24")).await.expect("opened");
        machine.network.detach(&living.to_string_lossy().replace('/', "-")).await.expect("gone");
        std::fs::remove_dir_all(&parent).expect("removed");
    });
}
