//! Routes and rules of written Services, and the way from any table to any other.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;

use super::plan::{External, routes};
use super::table::TABLE;
use crate::table;
use crate::table::Table;

fn service(spec: &str) -> Service {
    serde_yaml::from_str(&format!("metadata: {{namespace: shop, name: web}}\nspec: {spec}"))
        .expect("a Service")
}

/// Pods `a` to `e` of nodes n1 and n2: ready, unready, ending but serving.
fn slice(endpoints: &str) -> EndpointSlice {
    let text = format!(
        "metadata: {{namespace: shop, name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\n\
         ports: [{{name: http, port: 8080, protocol: TCP}}, {{name: dns, port: 53, protocol: UDP}}]\n\
         endpoints: {endpoints}"
    );
    serde_yaml::from_str(&text).expect("an EndpointSlice")
}

const TWO: &str = "[{addresses: [10.244.1.2], nodeName: n1}, {addresses: [10.244.2.2], nodeName: n2}]";
const HTTP: &str = "ports: [{name: http, port: 80, protocol: TCP}]";

fn targets(spec: &str, endpoints: &str) -> Vec<String> {
    let routes = routes("n1", [&service(spec)], [&slice(endpoints)]);
    routes.iter().flat_map(|route| &route.internal).map(ToString::to_string).collect()
}

#[test]
fn a_service_leads_to_its_ready_pods() {
    let spec = format!("{{clusterIP: 10.96.0.1, {HTTP}}}");
    let unready = "[{addresses: [10.244.1.2], conditions: {ready: false, serving: false}}, \
                    {addresses: [10.244.1.3], conditions: {ready: true}}, {addresses: [10.244.1.4]}]";
    assert_eq!(targets(&spec, unready), ["10.244.1.3:8080", "10.244.1.4:8080"]);
}

#[test]
fn pods_that_end_serve_while_there_is_no_other() {
    let spec = format!("{{clusterIP: 10.96.0.1, {HTTP}}}");
    let ending = "[{addresses: [10.244.1.2], conditions: {ready: false, serving: true, terminating: true}}]";
    assert_eq!(targets(&spec, ending), ["10.244.1.2:8080"]);
}

#[test]
fn local_policies_keep_to_the_node() {
    let spec = format!("{{clusterIP: 10.96.0.1, internalTrafficPolicy: Local, {HTTP}}}");
    assert_eq!(targets(&spec, TWO), ["10.244.1.2:8080"]);
    let spec =
        service(&format!("{{type: NodePort, clusterIP: 10.96.0.1, externalTrafficPolicy: Local, {HTTP}}}"));
    let routes = routes("n2", [&spec], [&slice(TWO)]);
    assert_eq!(routes[0].internal.len(), 2);
    assert_eq!(routes[0].external, External::Local(vec!["10.244.2.2:8080".parse().expect("an address")]));
}

#[test]
fn headless_and_external_names_have_no_rules() {
    for spec in ["clusterIP: None", "type: ExternalName, externalName: example.org", "type: ClusterIP"] {
        assert!(targets(&format!("{{{spec}, {HTTP}}}"), TWO).is_empty(), "{spec}");
    }
}

#[test]
fn the_same_number_can_be_two_ports() {
    let spec = "{clusterIP: 10.96.0.1, ports: [{name: http, port: 53, protocol: TCP}, \
                 {name: dns, port: 53, protocol: UDP}]}";
    let table = Table::of(&routes("n1", [&service(spec)], [&slice(TWO)]));
    let keys: Vec<&String> = table.elements["service-ips"].keys().collect();
    assert_eq!(keys, ["10.96.0.1 . tcp . 53", "10.96.0.1 . udp . 53"]);
}

#[test]
fn the_rules_of_a_service() {
    let spec = format!("{{clusterIP: 10.96.0.1, {HTTP}}}");
    let table = Table::of(&routes("n1", [&service(&spec)], [&slice(TWO)]));
    let script = between(&Table::default(), &table);
    let (chain, _) = table.chains.iter().next().expect("a chain");
    let expected = format!(
        "add chain ip amoeba {chain}\n\
         flush chain ip amoeba {chain}\n\
         add rule ip amoeba {chain} meta l4proto tcp dnat ip addr . port to numgen random mod 2 map \
         {{ 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }}\n\
         add element ip amoeba cluster-ips {{ 10.96.0.1 }}\n\
         add element ip amoeba hairpins {{ 10.244.1.2 . 10.244.1.2, 10.244.2.2 . 10.244.2.2 }}\n\
         add element ip amoeba known-ports {{ 10.96.0.1 . tcp . 80 }}\n\
         add element ip amoeba service-ips {{ 10.96.0.1 . tcp . 80 : goto {chain} }}\n"
    );
    assert_eq!(script, expected);
}

#[test]
fn a_change_touches_what_changes() {
    let spec = format!("{{clusterIP: 10.96.0.1, {HTTP}}}");
    let table = |endpoints| Table::of(&routes("n1", [&service(&spec)], [&slice(endpoints)]));
    let script = between(&table(TWO), &table("[{addresses: [10.244.2.2]}]"));
    let lines: Vec<&str> = script.lines().collect();
    assert_eq!(lines.len(), 3, "{script}");
    assert!(lines[0].starts_with("flush chain"));
    assert!(lines[1].ends_with("meta l4proto tcp dnat to 10.244.2.2:8080"));
    assert_eq!(lines[2], "delete element ip amoeba hairpins { 10.244.1.2 . 10.244.1.2 }");
    assert_eq!(between(&table(TWO), &table(TWO)), "");
}

#[test]
fn a_service_without_pods_refuses() {
    let spec = "{type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080}]}";
    let table = Table::of(&routes("n1", [&service(spec)], []));
    assert_eq!(table.elements["no-endpoints"]["10.96.0.1 . tcp . 80"], "goto refuse");
    assert_eq!(table.elements["no-endpoint-ports"]["tcp . 30080"], "goto refuse");
    assert!(table.chains.is_empty());
}

fn between(old: &Table, new: &Table) -> String {
    table::between(TABLE, old, new)
}

/// What a script makes of a table: the part of nftables that [`between`] speaks.
fn apply(table: &mut Table, script: &str) {
    for line in script.lines() {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let rest = words.get(5).copied().unwrap_or_default();
        match (words[0], words[1], words[4]) {
            ("add", "chain", chain) => {
                assert!(table.chains.insert(chain.to_owned(), vec![]).is_none(), "{line}")
            }
            ("flush", "chain", chain) => table.chains.get_mut(chain).expect(line).clear(),
            ("delete", "chain", chain) => {
                assert!(table.chains.remove(chain).expect(line).is_empty(), "{line}")
            }
            ("add", "rule", chain) => table.chains.get_mut(chain).expect(line).push(rest.to_owned()),
            ("add", "set", set) => {
                let declared = rest.strip_prefix("{ ").and_then(|rest| rest.strip_suffix(" }")).expect(line);
                assert!(table.sets.insert(set.to_owned(), declared.to_owned()).is_none(), "{line}");
            }
            ("delete", "set", set) => assert!(table.sets.remove(set).is_some(), "{line}"),
            (verb, "element", map) => {
                let elements = table.elements.entry(map.to_owned()).or_default();
                for element in rest.trim_matches(['{', '}', ' ']).split(", ") {
                    let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
                    match verb {
                        "add" => {
                            assert!(elements.insert(key.to_owned(), value.to_owned()).is_none(), "{line}")
                        }
                        _ => assert!(elements.remove(key).is_some(), "{line}"),
                    }
                }
            }
            _ => panic!("unknown: {line}"),
        }
    }
    table.elements.retain(|_, elements| !elements.is_empty());
}

fn any_table() -> impl Strategy<Value = Table> {
    let written =
        (0..4u8, any::<bool>(), any::<bool>(), proptest::collection::vec((0..6u8, any::<bool>()), 0..4));
    proptest::collection::vec(written, 0..5).prop_map(|services| {
        let mut routed = BTreeMap::new();
        for (n, affinity, local, pods) in services {
            let affinity = if affinity { ", sessionAffinity: ClientIP" } else { "" };
            let policy = if local { ", externalTrafficPolicy: Local" } else { "" };
            let port = 30_000 + u32::from(n);
            let spec = format!(
                "{{type: NodePort, clusterIP: 10.96.0.{n}{affinity}{policy}, \
                 ports: [{{name: http, port: 80, nodePort: {port}}}]}}"
            );
            let mut service = service(&spec);
            service.metadata.name = Some(format!("web{n}"));
            let pods: Vec<String> = pods
                .iter()
                .map(|(ip, here)| {
                    format!("{{addresses: [10.0.0.{ip}], nodeName: {}}}", if *here { "n1" } else { "n2" })
                })
                .collect();
            let mut slice = slice(&format!("[{}]", pods.join(", ")));
            slice
                .metadata
                .labels
                .as_mut()
                .expect("labels")
                .insert("kubernetes.io/service-name".into(), format!("web{n}"));
            routed.insert(n, (service, slice));
        }
        Table::of(&routes("n1", routed.values().map(|(s, _)| s), routed.values().map(|(_, s)| s)))
    })
}

proptest! {
    #[test]
    fn a_script_leads_from_any_table_to_any_other(old in any_table(), new in any_table()) {
        let mut table = old.clone();
        apply(&mut table, &between(&old, &new));
        prop_assert_eq!(table, new);
    }
}
